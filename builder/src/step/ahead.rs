//! Digests what a RUN writes while it still runs. Most steps leave a processor idle at times; what was digested by then need
//! not be read when the step has ended.
//!
//! A file that was digested counts if it is found in the same state in the end ([`StatKey`]): every change moves its time of
//! change. That is sure only
//! - on file systems that note each change, also those through mappings, with a clock as fine as the kernel's ticks;
//! - if the last change was longer ago than such a tick when the file was read, so that the next one has another time;
//! - if nobody had the file open for writing then: stores into a page that a process has mapped and written to before do
//!   not move the time again, but a mapping that is made later does.
//!
//! All else is left for the end of the step, as if nobody had looked.

use crate::sandbox::syscall;
use cache::checksum::{BUFFER_BYTES, file_digest_while};
use cache::memo::{KnownFile, StatKey};
use cache::walk;
use rustix::fs::{AtFlags, FileType, FsWord, Mode, OFlags, Stat};
use rustix::io::Errno;
use rustix::time::ClockId;
use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Steps that are done sooner are not worth it.
const PATIENCE: Duration = Duration::from_millis(30);
/// For how long a file must not have changed: more than the longest tick (10 ms).
const REST: Duration = Duration::from_millis(12);
/// Between two looks at what is new.
const PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// Files and directories that are kept in mind at most.
const LIMIT: usize = 100_000;
/// How often a file is read that changes again and again.
const READINGS: u8 = 3;
/// Directories below this depth are not looked into.
const DEPTH: usize = 64;
/// The lowest priority: only what the step leaves is used.
const NICE: i32 = 19;

/// File systems of which all that the module's head says is known: ext4, XFS, btrfs (statfs(2)).
pub(super) const FILE_SYSTEMS: [FsWord; 3] = [0xef53, 0x5846_5342, 0x9123_683e];

/// A thread that digests, once the step has run for a while; it ends with this.
pub struct Ahead {
    shared: Arc<Shared>,
}

/// What was digested, by inode.
pub struct Digested(HashMap<u64, Seen>);

impl Digested {
    /// What is known of a file, by its status.
    pub fn file(&self, stat: &Stat) -> Option<KnownFile> {
        self.0.get(&stat.st_ino).filter(|seen| seen.state == StatKey::of(stat)).map(|seen| seen.file)
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
struct State {
    is_stopped: bool,
    /// By inode.
    files: HashMap<u64, Seen>,
}

/// A file that was read.
pub struct Seen {
    state: StatKey,
    file: KnownFile,
    readings: u8,
}

impl Ahead {
    /// For what is written to the folder `upper`. Must be called in a tokio runtime with time.
    pub fn begin(upper: PathBuf) -> Ahead {
        let shared = Arc::new(Shared::default());
        let thread = shared.clone();
        tokio::spawn(async move {
            tokio::time::sleep(PATIENCE).await;
            if !thread.is_stopped() {
                // Without a thread all is digested at the end.
                let _ = std::thread::Builder::new().name("ahead".into()).spawn(move || Looking::run(&upper, &thread));
            }
        });
        Ahead { shared }
    }

    /// When the step has ended: all that is known.
    pub fn end(self) -> Digested {
        Digested(std::mem::take(&mut self.shared.lock().files))
    }
}

impl Drop for Ahead {
    fn drop(&mut self) {
        self.shared.lock().is_stopped = true;
        self.shared.stopped.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.lock().is_stopped
    }

    /// Waits; whether it is stopped then.
    fn pause(&self, pause: Duration) -> bool {
        let waited = self.stopped.wait_timeout_while(self.lock(), pause, |state| !state.is_stopped);
        waited.unwrap_or_else(PoisonError::into_inner).0.is_stopped
    }
}

/// A directory that was listed.
struct Directory {
    state: StatKey,
    subdirectories: Vec<CString>,
}

/// What the thread keeps in mind.
struct Looking<'a> {
    shared: &'a Shared,
    /// By inode; those in which nothing has to be looked at again before they change.
    directories: HashMap<u64, Directory>,
    buffer: Vec<u8>,
    /// In this round.
    read: usize,
}

/// Why no more is looked at.
enum End {
    Stopped,
    /// This machine, or file system, does not tell what has to be known.
    Unable,
}

impl Looking<'_> {
    fn run(upper: &Path, shared: &Shared) {
        let Ok(root) = walk::open_root(upper) else { return };
        let is_fit = rustix::fs::fstatfs(&root).is_ok_and(|about| FILE_SYSTEMS.contains(&about.f_type));
        // The calling thread's, though the call speaks of processes (setpriority(2), "C library/kernel differences").
        if !is_fit || rustix::process::setpriority_process(None, NICE).is_err() {
            return;
        }
        let mut looking = Looking { shared, directories: HashMap::new(), buffer: vec![0; BUFFER_BYTES], read: 0 };
        let mut pause = PAUSE;
        loop {
            let started = Instant::now();
            looking.read = 0;
            if looking.round(root.as_fd()).is_err() {
                return;
            }
            pause = match looking.read {
                // To have looked at a large tree for nothing is not to take all the time there is.
                0 => (pause * 2).max(started.elapsed() * 4).min(LONGEST_PAUSE),
                _ => PAUSE,
            };
            if shared.pause(pause) {
                return;
            }
        }
    }

    /// Looks at all that is new.
    fn round(&mut self, root: BorrowedFd<'_>) -> Result<(), End> {
        let mut todo = vec![(walk::reopen(root).map_err(|_| End::Unable)?, vec![c".".to_owned()])];
        while let Some((dir, names)) = todo.last_mut() {
            let Some(name) = names.pop() else {
                todo.pop();
                continue;
            };
            // Whatever is wrong with it: it may be gone by now.
            let Ok(dir) = walk::open_dir(dir.as_fd(), &name) else { continue };
            let subdirectories = self.directory(&dir)?;
            if todo.len() < DEPTH {
                todo.push((dir, subdirectories));
            }
        }
        Ok(())
    }

    /// Looks at the files of a directory, and gives the names of the directories in it.
    fn directory(&mut self, dir: &OwnedFd) -> Result<Vec<CString>, End> {
        let Ok(stat) = rustix::fs::fstat(dir) else { return Ok(vec![]) };
        let state = StatKey::of(&stat);
        if let Some(known) = self.directories.get(&stat.st_ino).filter(|known| known.state == state) {
            return Ok(known.subdirectories.clone());
        }
        let mut is_settled = is_at_rest(&stat);
        let mut subdirectories = vec![];
        for name in walk::names(dir.as_fd()).unwrap_or_default() {
            if self.shared.is_stopped() {
                return Err(End::Stopped);
            }
            let Ok(stat) = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => subdirectories.push(name),
                FileType::RegularFile if stat.st_size > 0 => is_settled &= self.file(dir, &name, &stat)?,
                _ => {}
            }
        }
        if is_settled && self.directories.len() < LIMIT {
            self.directories.insert(stat.st_ino, Directory { state, subdirectories: subdirectories.clone() });
        }
        Ok(subdirectories)
    }

    /// Digests a file, if that can be. Whether it need not be looked at again.
    fn file(&mut self, dir: &OwnedFd, name: &CStr, stat: &Stat) -> Result<bool, End> {
        let state = StatKey::of(stat);
        let readings = {
            let shared = self.shared.lock();
            let seen = shared.files.get(&stat.st_ino);
            match seen {
                Some(seen) if seen.state == state || seen.readings == READINGS => return Ok(true),
                None if shared.files.len() >= LIMIT => return Ok(true),
                seen => seen.map_or(0, |seen| seen.readings),
            }
        };
        if !is_at_rest(stat) {
            return Ok(false);
        }
        let Some(file) = open(dir, name, &state) else { return Ok(false) };
        match syscall::has_no_writer(file.as_fd()) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            // Of a user whom this process may not act for.
            Err(Errno::ACCESS) => return Ok(true),
            Err(_) => return Err(End::Unable),
        }
        let is_the_same = |file: &File| rustix::fs::fstat(file).is_ok_and(|stat| StatKey::of(&stat) == state);
        if !is_the_same(&file) {
            return Ok(false);
        }
        // A list that is not empty does not fit.
        let is_plain = rustix::fs::flistxattr(&file, &mut [0; 1][..]) == Ok(0);
        let digest = file_digest_while(&file, state.size, &mut self.buffer, || !self.shared.is_stopped());
        let Ok(Some(digest)) = digest else { return Ok(false) };
        if !is_the_same(&file) {
            return Ok(false);
        }
        self.read += 1;
        let seen = Seen { state, file: KnownFile { digest, is_plain }, readings: readings + 1 };
        let mut shared = self.shared.lock();
        if shared.is_stopped {
            return Err(End::Stopped);
        }
        shared.files.insert(stat.st_ino, seen);
        Ok(true)
    }
}

/// Opens the regular file in that state. The step may put anything in its place meanwhile, a device even, so it is looked at
/// before it is opened.
fn open(dir: &OwnedFd, name: &CStr, state: &StatKey) -> Option<File> {
    let found = rustix::fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).ok()?;
    if StatKey::of(&rustix::fs::fstat(&found).ok()?) != *state {
        return None;
    }
    let path = format!("/proc/self/fd/{}", found.as_raw_fd());
    let open = |flags| rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC | flags, Mode::empty());
    open(OFlags::NOATIME).or_else(|_| open(OFlags::empty())).ok().map(File::from)
}

/// Whether the last change is so long ago that another one will have another time. Whole seconds are those of a file system
/// that has no finer ones.
fn is_at_rest(stat: &Stat) -> bool {
    let now = rustix::time::clock_gettime(ClockId::RealtimeCoarse);
    let now = Duration::new(now.tv_sec.unsigned_abs(), now.tv_nsec as u32);
    let changed = Duration::new(stat.st_ctime.unsigned_abs(), stat.st_ctime_nsec as u32);
    stat.st_ctime_nsec != 0 && changed + REST < now
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::syscall::Mapped;
    use cache::checksum::file_digest;
    use std::io::Write;
    use std::os::unix::fs::MetadataExt;

    /// An empty folder; `None`, with the reason printed, where nothing is digested ahead.
    fn upper() -> Option<tempfile::TempDir> {
        let dir = tempfile::tempdir().unwrap();
        if FILE_SYSTEMS.contains(&rustix::fs::statfs(dir.path()).unwrap().f_type) {
            return Some(dir);
        }
        eprintln!("skipped: needs ext4, XFS or btrfs for temporary files");
        None
    }

    fn looking(shared: &Shared) -> Looking<'_> {
        Looking { shared, directories: HashMap::new(), buffer: vec![0; BUFFER_BYTES], read: 0 }
    }

    /// Looks until all that was written before is at rest. How many files were read.
    fn look(looking: &mut Looking<'_>, upper: &Path) -> usize {
        std::thread::sleep(REST * 3);
        let root = walk::open_root(upper).unwrap();
        looking.read = 0;
        assert!(looking.round(root.as_fd()).is_ok());
        looking.read
    }

    fn known(shared: &Shared, path: &Path) -> Option<KnownFile> {
        let files = std::mem::take(&mut shared.lock().files);
        let digested = Digested(files);
        let known = digested.file(&rustix::fs::lstat(path).unwrap());
        shared.lock().files = digested.0;
        known
    }

    #[test]
    fn a_file_is_known_until_it_changes() {
        let Some(dir) = upper() else { return };
        let at = |name: &str| dir.path().join(name);
        let shared = Shared::default();
        let mut looking = looking(&shared);
        std::fs::create_dir_all(at("deep/deeper")).unwrap();
        for name in ["deep/deeper/f", "f", "g", "attributed"] {
            std::fs::write(at(name), format!("data of {name}")).unwrap();
        }
        std::fs::write(at("empty"), "").unwrap();
        std::os::unix::fs::symlink("f", at("link")).unwrap();
        rustix::fs::setxattr(at("attributed"), "user.n", b"v", rustix::fs::XattrFlags::empty()).unwrap();
        let mut open = File::create(at("open")).unwrap();
        open.write_all(b"not all of it").unwrap();
        assert_eq!(look(&mut looking, dir.path()), 4);
        for (name, is_plain) in [("deep/deeper/f", true), ("f", true), ("g", true), ("attributed", false)] {
            let digest = file_digest(&File::open(at(name)).unwrap()).unwrap();
            assert_eq!(known(&shared, &at(name)), Some(KnownFile { digest, is_plain }), "{name}");
        }
        assert_eq!(known(&shared, &at("open")), None);
        assert_eq!(look(&mut looking, dir.path()), 0);

        drop(open);
        let before = std::fs::metadata(at("f")).unwrap();
        std::fs::write(at("f"), "DATA of f").unwrap();
        File::open(at("f")).unwrap().set_modified(before.modified().unwrap()).unwrap();
        std::fs::rename(at("g"), at("deep/g")).unwrap();
        assert_eq!(std::fs::metadata(at("f")).unwrap().mtime_nsec(), before.mtime_nsec());
        assert_eq!(known(&shared, &at("f")), None);
        assert_eq!(look(&mut looking, dir.path()), 3);
        for name in ["open", "deep/g", "f"] {
            let digest = file_digest(&File::open(at(name)).unwrap()).unwrap();
            assert_eq!(known(&shared, &at(name)), Some(KnownFile { digest, is_plain: true }), "{name}");
        }
    }

    #[test]
    fn what_changes_all_the_time_is_not_read_all_the_time() {
        let Some(dir) = upper() else { return };
        let shared = Shared::default();
        let mut looking = looking(&shared);
        let mut read = 0;
        for number in 0..READINGS + 2 {
            std::fs::write(dir.path().join("log"), [number]).unwrap();
            // A folder that did not change is not listed again.
            std::fs::write(dir.path().join(number.to_string()), "").unwrap();
            read += look(&mut looking, dir.path());
        }
        assert_eq!(read, usize::from(READINGS));
    }

    /// Writes, renames, links, removes and maps files of a folder, until `end`.
    fn wreak_havoc(folder: &Path, seed: u64, end: Instant) {
        let mut state = seed;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) % below
        };
        let file = |number: u64| folder.join(number.to_string());
        let write =
            |path: &Path| File::options().create(true).truncate(false).read(true).write(true).open(path).unwrap();
        let mut mapped: Option<Mapped> = None;
        while Instant::now() < end {
            let path = file(random(12));
            match random(8) {
                0 => std::fs::write(&path, vec![random(256) as u8; random(5000) as usize]).unwrap(),
                1 => {
                    let mut mapped = Mapped::of(&write(&path));
                    for _ in 0..5 {
                        mapped.store(random(Mapped::BYTES as u64) as usize, random(256) as u8);
                        std::thread::sleep(Duration::from_millis(random(40)));
                    }
                }
                2 => match &mut mapped {
                    Some(_) if random(4) == 0 => mapped = None,
                    Some(mapped) => mapped.store(random(Mapped::BYTES as u64) as usize, random(256) as u8),
                    // Under a name that nothing else changes: a shorter file would be a fault.
                    None => mapped = Some(Mapped::of(&write(&folder.join("mapped")))),
                },
                3 => {
                    let file = write(&path);
                    let time = file.metadata().unwrap().modified().unwrap();
                    (&file).write_all(&[random(256) as u8]).unwrap();
                    std::thread::sleep(Duration::from_millis(random(30)));
                    (&file).write_all(&[random(256) as u8]).unwrap();
                    file.set_modified(time).unwrap();
                }
                4 => drop(std::fs::rename(&path, file(random(12)))),
                5 => drop(std::fs::hard_link(&path, folder.join(format!("link{}", random(12))))),
                6 => drop(std::fs::remove_file(&path)),
                _ => std::thread::sleep(Duration::from_millis(random(50))),
            }
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_is_known_is_true_whatever_was_done() {
        let Some(dir) = upper() else { return };
        let ahead = Ahead::begin(dir.path().to_path_buf());
        let end = Instant::now() + Duration::from_secs(1);
        let writers: Vec<_> = (0..6)
            .map(|number| {
                let folder = dir.path().join(number.to_string());
                std::fs::create_dir(&folder).unwrap();
                std::thread::spawn(move || wreak_havoc(&folder, number, end))
            })
            .collect();
        let joined = tokio::task::spawn_blocking(move || writers.into_iter().try_for_each(|writer| writer.join()));
        assert!(joined.await.unwrap().is_ok());
        let digested = ahead.end();
        let known = std::sync::atomic::AtomicBool::new(false);
        let hint = |_: &Path, stat: &Stat| {
            digested.file(stat).inspect(|_| known.store(true, std::sync::atomic::Ordering::Relaxed))
        };
        let with = cache::checksum::change(dir.path(), &hint).unwrap();
        assert_eq!(with, cache::checksum::change(dir.path(), cache::checksum::NO_HINT).unwrap());
        assert!(known.into_inner());
    }

    #[test]
    fn only_the_regular_file_that_was_found_is_opened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("f"), "f").unwrap();
        let folder = OwnedFd::from(File::open(dir.path()).unwrap());
        let state = StatKey::of(&rustix::fs::lstat(dir.path().join("f")).unwrap());
        assert!(open(&folder, c"f", &state).is_some());
        std::fs::remove_file(dir.path().join("f")).unwrap();
        rustix::fs::mkfifoat(&folder, c"f", Mode::from_raw_mode(0o600)).unwrap();
        assert!(open(&folder, c"f", &state).is_none());
        std::fs::remove_file(dir.path().join("f")).unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join("f")).unwrap();
        assert!(open(&folder, c"f", &state).is_none());
    }
}
