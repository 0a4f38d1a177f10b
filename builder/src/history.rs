//! What builds have done: for each a folder below the store's `logs/`, with `build.json` and the complete output of every
//! RUN, nothing clipped. Written while a build runs, read by `kiln logs`, `kiln history` and `kiln explain`.
//!
//! ```text
//! logs/<id>/build.json     BuildRecord; written when the build begins and when it ends
//! logs/<id>/running        locked while the build runs, so that a record without an end is known to be of a dead one
//! logs/<id>/<step>.log     stdout and stderr of a step, as it wrote them, secrets masked
//! ```

use crate::explain::{self, Why};
use crate::export::Response;
use crate::progress::Outcome;
use crate::progress::render::{StepSummary, Summary};
use crate::time::rfc3339;
use cache::error::FileError;
use cache::store::Store;
use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Version of `build.json`.
const VERSION: u32 = 1;
/// Builds that are kept; older ones go when a newer one ends.
const BUILDS_KEPT: usize = 200;

/// A build as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// 1.
    pub version: u32,
    /// Such as `20261125-195301-042k3`; later builds sort after earlier ones.
    pub id: String,
    /// RFC 3339.
    pub started: String,
    /// How long it took, in milliseconds; `None` while it runs, and of one that was killed.
    pub duration_ms: Option<u64>,
    /// How it ended.
    pub status: Status,
    /// What went wrong.
    pub error: Option<String>,
    /// What was built.
    pub about: About,
    /// What became of it, under the names of `--metadata-file`; empty unless something was exported.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub result: Response,
    /// In order of appearance; empty until the build ends.
    pub steps: Vec<StepRecord>,
}

/// What a build was asked to do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The context, as given.
    pub context: String,
    /// `-f`, as given; empty for the default.
    pub file: String,
    /// `--target`; empty for the last stage.
    pub target: String,
    /// `--tag`.
    pub tags: Vec<String>,
    /// `--platform`; empty for the machine's own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub platforms: Vec<String>,
    /// `--build-arg`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub build_args: BTreeMap<String, String>,
}

impl About {
    /// As on a command line.
    pub fn line(&self) -> String {
        let mut what = self.context.clone();
        for (flag, value) in [("-f", &self.file), ("--target", &self.target), ("-t", &self.tags.join(" -t "))] {
            if !value.is_empty() {
                what.push_str(&format!(" {flag} {value}"));
            }
        }
        what
    }
}

/// How a build stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Running,
    Completed,
    Failed,
    Canceled,
    /// It never came to its end: the program was killed.
    Killed,
}

impl Status {
    /// In one word.
    pub fn word(self) -> &'static str {
        match self {
            Status::Running => "running",
            Status::Completed => "completed",
            Status::Failed => "failed",
            Status::Canceled => "canceled",
            Status::Killed => "killed",
        }
    }
}

/// A step as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepRecord {
    /// Such as `[build 2/5] RUN make`.
    pub name: String,
    /// Identity in the progress stream.
    pub digest: String,
    /// RFC 3339; empty if it never started.
    pub started: String,
    /// In milliseconds, without the time between two runs of one vertex.
    pub duration_ms: u64,
    /// `done`, `cached`, `failed`, `canceled`, or empty.
    pub outcome: String,
    /// Message of a failed one.
    pub error: String,
    /// File with its output, if it wrote any.
    pub log: Option<String>,
    /// Why it ran, or that it need not; `None` for what has no key, such as a source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<Why>,
}

/// Why the history cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error("read {}", path.display())]
    Record { path: PathBuf, source: serde_json::Error },
    #[error("no build is called {0:?}; `kiln history ls` shows what there is")]
    NoSuchBuild(String),
    #[error("{0:?} may be any of {list}; write more of it", list = .1.join(", "))]
    Ambiguous(String, Vec<String>),
    #[error("this store has no builds yet")]
    Empty,
}

/// How a build ended.
#[derive(Debug)]
pub struct Ending {
    pub status: Status,
    /// What went wrong.
    pub error: Option<String>,
    /// What became of it.
    pub result: Response,
}

/// The folder of a build that runs.
#[derive(Debug)]
pub struct BuildLog {
    folder: PathBuf,
    record: BuildRecord,
    begun: SystemTime,
    _running: File,
}

impl BuildLog {
    /// Makes the folder.
    pub fn begin(store: &Store, about: About) -> Result<BuildLog, HistoryError> {
        let begun = SystemTime::now();
        let (id, folder) = fresh_folder(&store.logs_dir(), begun)?;
        let lock = folder.join("running");
        let running = File::create(&lock).map_err(FileError::at("create", &lock))?;
        rustix::fs::flock(&running, FlockOperation::NonBlockingLockExclusive).map_err(FileError::at("lock", &lock))?;
        let record = BuildRecord {
            version: VERSION,
            id,
            started: rfc3339(begun),
            duration_ms: None,
            status: Status::Running,
            error: None,
            about,
            result: Response::new(),
            steps: vec![],
        };
        write(&folder, &record)?;
        Ok(BuildLog { folder, record, begun, _running: running })
    }

    /// Its name.
    pub fn id(&self) -> &str {
        &self.record.id
    }

    /// Where steps write their output: into [`log_name`].
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes down how it went, and lets go of the oldest builds.
    pub fn finish(mut self, ending: Ending, summary: &Summary) -> Result<(), HistoryError> {
        let Ending { status, error, result } = ending;
        (self.record.status, self.record.error, self.record.result) = (status, error, result);
        self.record.duration_ms = Some(millis(self.begun.elapsed().unwrap_or_default()));
        self.record.steps = summary.steps.iter().map(|step| step_record(step, &self.folder)).collect();
        write(&self.folder, &self.record)?;
        let parent = self.folder.parent().unwrap_or(&self.folder).to_path_buf();
        drop(self);
        forget_oldest(&parent)
    }
}

/// File of a step's output in its build's folder.
pub fn log_name(digest: &str) -> String {
    let hex = digest.split_once(':').map_or(digest, |(_, hex)| hex);
    format!("{}.log", hex.get(..16).unwrap_or(hex))
}

/// All builds, oldest first. Folders that hold no record are passed over.
pub fn list(store: &Store) -> Result<Vec<BuildRecord>, HistoryError> {
    let mut records = vec![];
    for id in ids(&store.logs_dir())? {
        match read(&store.logs_dir().join(id)) {
            Ok(record) => records.push(record),
            // Removed in between, or killed before it was written.
            Err(HistoryError::File(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(records)
}

/// The build of an id, or of the only id that begins or ends so; the latest one without, or with `latest`.
pub fn find(store: &Store, id: Option<&str>) -> Result<(PathBuf, BuildRecord), HistoryError> {
    let ids = ids(&store.logs_dir())?;
    let found = match id {
        None | Some("" | "latest") => ids.last().ok_or(HistoryError::Empty)?,
        Some(id) => {
            let matching: Vec<&String> =
                ids.iter().filter(|known| known.starts_with(id) || known.ends_with(id)).collect();
            match matching[..] {
                [] => return Err(HistoryError::NoSuchBuild(id.to_string())),
                [one] => one,
                ref several => {
                    let names = several.iter().map(|id| id.to_string()).collect();
                    return Err(HistoryError::Ambiguous(id.to_string(), names));
                }
            }
        }
    };
    let folder = store.logs_dir().join(found);
    let record = read(&folder)?;
    Ok((folder, record))
}

/// Why nothing is known of a build's steps, if that is so.
pub fn has_no_steps(build: &BuildRecord) -> Option<String> {
    let id = &build.id;
    match build.status {
        Status::Running => Some(format!("build {id} still runs; its steps are listed when it ends")),
        Status::Killed => Some(format!("build {id} was killed, so its steps are not listed")),
        Status::Completed | Status::Failed | Status::Canceled => None,
    }
}

/// Forgets a build; says whether it could be, which it cannot while it runs.
pub fn forget(store: &Store, id: &str) -> Result<bool, HistoryError> {
    let folder = store.logs_dir().join(id);
    if is_running(&folder) {
        return Ok(false);
    }
    remove(&folder)?;
    Ok(true)
}

/// Day, second, then milliseconds and two characters by chance.
fn fresh_folder(logs: &Path, at: SystemTime) -> Result<(String, PathBuf), HistoryError> {
    let since_1970 = at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let second = rfc3339(SystemTime::UNIX_EPOCH + Duration::from_secs(since_1970.as_secs()));
    let second: String = second.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = second.split_at(8.min(second.len()));
    loop {
        let chance: String = (0..2).map(|_| fastrand::alphanumeric().to_ascii_lowercase()).collect();
        let id = format!("{day}-{time}-{:03}{chance}", since_1970.subsec_millis());
        let folder = logs.join(&id);
        match fs::create_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => return Ok(made.map_err(FileError::at("make the folder", &folder)).map(|()| (id, folder))?),
        }
    }
}

fn step_record(step: &StepSummary, folder: &Path) -> StepRecord {
    let (outcome, error) = match &step.outcome {
        None => ("", ""),
        Some(Outcome::Done) => ("done", ""),
        Some(Outcome::Cached) => ("cached", ""),
        Some(Outcome::Canceled) => ("canceled", ""),
        Some(Outcome::Failed(message)) => ("failed", message.as_str()),
    };
    let log = log_name(&step.digest);
    StepRecord {
        name: step.name.clone(),
        digest: step.digest.clone(),
        started: step.started.map(rfc3339).unwrap_or_default(),
        duration_ms: millis(step.worked),
        outcome: outcome.to_string(),
        error: error.to_string(),
        log: folder.join(&log).exists().then_some(log),
        why: step.why.as_deref().cloned(),
    }
}

/// Steps such as `[build 2/5] RUN make` by their place (`2/5`, `build`, `build 2/5`), else by a part of their names.
pub fn called<'a>(steps: &'a [StepRecord], wanted: &str) -> Vec<&'a StepRecord> {
    let placed: Vec<_> = steps.iter().filter(|step| is_at(&step.name, wanted)).collect();
    if placed.is_empty() { steps.iter().filter(|step| step.name.contains(wanted)).collect() } else { placed }
}

/// That no step of a build is called so, and which there are.
pub fn not_called(build: &BuildRecord, wanted: &str) -> String {
    let names: Vec<&str> = build.steps.iter().map(|step| step.name.as_str()).collect();
    format!("no step of build {} is called {wanted:?}; it has\n  {}", build.id, names.join("\n  "))
}

fn is_at(name: &str, wanted: &str) -> bool {
    let place: Vec<&str> = explain::place_and_text(name).0.split_whitespace().collect();
    let words: Vec<&str> = wanted.split_whitespace().collect();
    !words.is_empty() && place.windows(words.len()).any(|window| window == words)
}

fn write(folder: &Path, record: &BuildRecord) -> Result<(), HistoryError> {
    let text = serde_json::to_vec_pretty(record).expect("a record is plain data");
    let (aside, path) = (folder.join("build.json.new"), folder.join("build.json"));
    // Not synced: after a loss of power there is one record less.
    fs::write(&aside, text).map_err(FileError::at("write", &aside))?;
    Ok(fs::rename(&aside, &path).map_err(FileError::at("rename", &aside))?)
}

fn read(folder: &Path) -> Result<BuildRecord, HistoryError> {
    let path = folder.join("build.json");
    let text = fs::read(&path).map_err(FileError::at("read", &path))?;
    let mut record: BuildRecord =
        serde_json::from_slice(&text).map_err(|source| HistoryError::Record { path, source })?;
    if record.status == Status::Running && !is_running(folder) {
        record.status = Status::Killed;
    }
    Ok(record)
}

/// Whether some process holds the build's lock.
fn is_running(folder: &Path) -> bool {
    let Ok(lock) = File::open(folder.join("running")) else { return false };
    rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err()
}

/// Names of the folders, oldest first.
fn ids(logs: &Path) -> Result<Vec<String>, HistoryError> {
    let mut ids = vec![];
    for entry in fs::read_dir(logs).map_err(FileError::at("list", logs))? {
        ids.extend(entry.map_err(FileError::at("list", logs))?.file_name().into_string());
    }
    ids.sort();
    Ok(ids)
}

fn forget_oldest(logs: &Path) -> Result<(), HistoryError> {
    let ids = ids(logs)?;
    let surplus = ids.len().saturating_sub(BUILDS_KEPT);
    for folder in ids[..surplus].iter().map(|id| logs.join(id)).filter(|folder| !is_running(folder)) {
        remove(&folder)?;
    }
    Ok(())
}

fn remove(folder: &Path) -> Result<(), HistoryError> {
    match fs::remove_dir_all(folder) {
        // Another process is at it, too.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => Ok(removed.map_err(FileError::at("remove", folder))?),
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    fn summary(outcome: Outcome) -> Summary {
        let step = StepSummary {
            digest: "sha256:0123456789abcdef0123".into(),
            name: "[1/1] RUN x".into(),
            started: Some(SystemTime::UNIX_EPOCH),
            worked: Duration::from_millis(1500),
            outcome: Some(outcome),
            why: None,
        };
        Summary { failed: vec![], steps: vec![step] }
    }

    #[test]
    fn a_build_is_remembered() {
        let (_dir, store) = store();
        assert!(matches!(find(&store, None), Err(HistoryError::Empty)));
        let log = BuildLog::begin(&store, About { target: "t".into(), ..About::default() }).unwrap();
        let id = log.id().to_string();
        assert_eq!(find(&store, None).unwrap().1.status, Status::Running);
        fs::write(log.folder().join(log_name("sha256:0123456789abcdef0123")), "out").unwrap();
        let ending = Ending { status: Status::Failed, error: Some("why".into()), result: Response::new() };
        log.finish(ending, &summary(Outcome::Failed("why".into()))).unwrap();
        let (folder, record) = find(&store, Some(&id[..15])).unwrap();
        assert_eq!((record.status, record.about.target.as_str()), (Status::Failed, "t"));
        let step = &record.steps[0];
        assert_eq!((step.outcome.as_str(), step.error.as_str(), step.duration_ms), ("failed", "why", 1500));
        assert_eq!(fs::read(folder.join(step.log.as_ref().unwrap())).unwrap(), b"out");
        assert_eq!(list(&store).unwrap(), [record]);
        assert!(matches!(find(&store, Some("nope")), Err(HistoryError::NoSuchBuild(_))));
    }

    #[test]
    fn a_build_without_an_end_was_killed() {
        let (_dir, store) = store();
        drop(BuildLog::begin(&store, About::default()).unwrap());
        assert_eq!(find(&store, None).unwrap().1.status, Status::Killed);
    }

    #[test]
    fn the_oldest_go_first_and_running_ones_never() {
        let (_dir, store) = store();
        let running = BuildLog::begin(&store, About::default()).unwrap();
        for number in 0..BUILDS_KEPT {
            fs::create_dir(store.logs_dir().join(format!("x{number:04}"))).unwrap();
        }
        forget_oldest(&store.logs_dir()).unwrap();
        assert_eq!(ids(&store.logs_dir()).unwrap().len(), BUILDS_KEPT + 1, "the oldest one still runs");
        drop(running);
        forget_oldest(&store.logs_dir()).unwrap();
        assert_eq!(ids(&store.logs_dir()).unwrap()[0], "x0000");
    }

    #[test]
    fn ids_sort_by_time() {
        let (_dir, store) = store();
        let at = |millis| SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
        let id = |millis| fresh_folder(&store.logs_dir(), at(millis)).unwrap().0;
        let (first, second, third) = (id(1_700_000_000_000), id(1_700_000_000_007), id(1_700_000_001_000));
        assert!(first.starts_with("20231114-221320-000"), "{first}");
        assert!(first < second && second < third, "{first} {second} {third}");
    }

    #[test]
    fn steps_by_name() {
        let steps = ["[internal] load metadata", "[linux/arm64 build 2/5] RUN make all", "[linux/arm64 3/5] RUN build"];
        let steps = steps.map(|name| StepRecord {
            name: name.into(),
            digest: String::new(),
            started: String::new(),
            duration_ms: 0,
            outcome: String::new(),
            error: String::new(),
            log: None,
            why: None,
        });
        let check = |wanted: &str, expect: &[usize]| {
            let expect: Vec<_> = expect.iter().map(|index| &steps[*index]).collect();
            assert_eq!(called(&steps, wanted), expect, "{wanted}");
        };
        check("2/5", &[1]);
        check("build", &[1]);
        check("build 2/5", &[1]);
        check("linux/arm64", &[1, 2]);
        check("make", &[1]);
        check("RUN", &[1, 2]);
        check("/5]", &[1, 2]);
        check("4/5", &[]);
    }
}
