//! The store as a whole: its folders, its format version, and what is left in it by processes that died.
//!
//! What it is made of is drawn in `lib.rs`. Read `content/local.rs` and `snapshot/overlay.rs` next.

use crate::content::local::LocalContent;
use crate::damage::Damage;
use crate::db::{self, Db};
use crate::digest::Digest;
use crate::durable::{Durable, Suspects};
use crate::error::{FileError, StoreError};
use crate::ingest::{self, Ingest};
use crate::known_files::Known;
use crate::ledger::{About, Ledger};
use crate::object::ObjectId;
use crate::quota::Quota;
use crate::snapshot::overlay::Snapshots;
use crate::usage;
use rustix::fs::FlockOperation;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long what was put away rests before it is deleted: file systems let two processes that make and delete many files
/// wait for each other, and who builds twice in a row waits for the second build.
const TRASH_RESTS: Duration = Duration::from_secs(60);

/// The format that this program writes, and the newest that it reads.
///
/// 2: records say which snapshot they need. 3: images have names, which older programs would prune.
pub const FORMAT: u32 = 3;

/// An open store. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    root: PathBuf,
    content: LocalContent,
    snapshots: Snapshots,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) db: Arc<Db>,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) damage: Arc<Damage>,
    pub(crate) quota: Quota,
    pub(crate) known: Known,
}

impl Store {
    /// Opens the store in `root`, creating it if there is none, and puts away what dead processes left unfinished.
    ///
    /// # Errors
    /// [`StoreError::NewerFormat`] if a newer kiln made it; else what the file system or the database says.
    pub fn open(root: &Path) -> Result<Store, StoreError> {
        fs::create_dir_all(root).map_err(FileError::at("make the folder", root))?;
        // Absolute, since the program may change its working directory, and mounts want absolute paths.
        let root = std::path::absolute(root).map_err(FileError::at("find", root))?;
        let lock = lock(&root)?;
        let format = check_format(&root)?;
        for folder in ["blobs/sha256", "snapshots", "mounts", "git", "ingest", "claims", "logs", "trash"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).map_err(FileError::at("make the folder", &path))?;
        }
        let damage = Arc::new(Damage::default());
        let db = Arc::new(Db::open(&root.join("db"), damage.clone())?);
        if format < FORMAT {
            // What it had to be changed has been.
            write_format(&root)?;
        }
        let died = ingest::discard_abandoned(&root)?;
        let ingest = Arc::new(Ingest::create(&root)?);
        let ledger = Arc::new(Ledger::open(&root, db.clone())?);
        let durable = Durable::new(&root, db.clone());
        durable.distrust_after_reboot()?;
        let suspects = Arc::new(Suspects::read(db.clone())?);
        let snapshots = Snapshots::new(&root, ingest.clone(), db.clone(), ledger.clone(), suspects.clone());
        let content = LocalContent::new(&root, ingest.clone(), ledger.clone(), damage.clone(), suspects);
        let (quota, known) = (Quota::default(), Known::default());
        let inner = Inner { root, content, snapshots, ingest, db, ledger, damage, quota, known };
        let store = Store { inner: Arc::new(inner) };
        if died {
            // What they made and did not write down has to be looked for, when somebody wants to know.
            store.put_note(usage::NOTES, usage::COUNTED, b"no")?;
        }
        drop(lock);
        store.tidy_aside(durable);
        Ok(store)
    }

    /// The store's folder, absolute.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }

    /// Blobs.
    pub fn content(&self) -> &LocalContent {
        &self.inner.content
    }

    /// Trees.
    pub fn snapshots(&self) -> &Snapshots {
        &self.inner.snapshots
    }

    /// Where cache mounts are: `mounts/<id>`.
    pub fn mounts_dir(&self) -> PathBuf {
        self.inner.root.join("mounts")
    }

    /// Where the histories of builds are: `logs/<build>`.
    pub fn logs_dir(&self) -> PathBuf {
        self.inner.root.join("logs")
    }

    /// Where claims are: `claims/<key>`.
    pub(crate) fn claims_dir(&self) -> PathBuf {
        self.inner.root.join("claims")
    }

    /// Says what a snapshot or a blob is, for those who list what the store has.
    pub fn describe(&self, id: ObjectId, about: About) {
        self.inner.ledger.describe(id, about);
    }

    /// What was found damaged since the last call, a sentence each.
    pub fn take_remarks(&self) -> Vec<String> {
        self.inner.damage.take_remarks()
    }

    /// The blobs that were found damaged and dropped since the last call.
    pub fn take_damaged_blobs(&self) -> Vec<Digest> {
        self.inner.damage.take_blobs()
    }

    /// Notes something that people should know at the end of a build.
    pub fn remark(&self, text: String) {
        self.inner.damage.remark(text);
    }

    /// An empty folder below `ingest/`, on the filesystem of all else. It is removed when this process is gone, at
    /// the latest; who is done with it earlier hands it to [`Store::discard`].
    pub fn scratch_dir(&self) -> Result<PathBuf, StoreError> {
        let path = self.inner.ingest.fresh("scratch");
        fs::create_dir(&path).map_err(FileError::at("make the folder", &path))?;
        Ok(path)
    }

    /// Puts a file or a tree of this store away, to be deleted when there is time. Success if it is gone already.
    pub fn discard(&self, path: &Path) -> Result<(), StoreError> {
        Ok(self.inner.ingest.discard(path)?)
    }

    /// Deletes what was put away. Returns at once if another process is at it.
    pub fn empty_trash(&self) -> Result<(), StoreError> {
        Ok(ingest::empty_trash(&self.inner.root)?)
    }

    /// What is no build's business but has to be done by someone.
    fn tidy_aside(&self, durable: Durable) {
        let root = self.inner.root.clone();
        // Nobody waits for it: whatever this process does not get done is left for the next one.
        let thread = std::thread::Builder::new().name("tidy".into());
        let empty_trash = |root: &Path| {
            let is_left = ingest::empty_old_trash(root, TRASH_RESTS);
            is_left.unwrap_or_else(|error| {
                tracing::warn!(%error, "the trash could not be emptied");
                false
            })
        };
        let spawned = thread.spawn(move || {
            // Of this thread alone, and if it cannot be had, the build has to share.
            let _ = rustix::process::setpriority_process(None, 19);
            let mut is_left = empty_trash(&root);
            if let Err(error) = db::write_back(&root.join("db")) {
                tracing::warn!(%error, "the database's log could not be written back");
            }
            if let Err(error) = durable.sync_what_is_old() {
                tracing::warn!(%error, "what was stored could not be synced");
            }
            while is_left {
                std::thread::sleep(TRASH_RESTS);
                is_left = empty_trash(&root);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread to tidy the store");
        }
    }
}

/// Takes the store's lock. It is held for moments only.
pub(crate) fn lock(root: &Path) -> Result<File, FileError> {
    let path = root.join("lock");
    let lock =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(FileError::at("open", &path))?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(FileError::at("lock", &path))?;
    Ok(lock)
}

/// The format of the store, that of this program for a new one.
fn check_format(root: &Path) -> Result<u32, StoreError> {
    let path = root.join("version");
    match fs::read_to_string(&path) {
        Ok(text) => match text.trim().parse::<u32>() {
            Ok(found) if found > FORMAT => {
                Err(StoreError::NewerFormat { root: root.to_owned(), found, supported: FORMAT })
            }
            Ok(found @ 1..) => Ok(found),
            _ => Err(StoreError::BadVersion { path }),
        },
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            write_format(root)?;
            Ok(FORMAT)
        }
        Err(error) => Err(FileError::at("read", &path)(error).into()),
    }
}

fn write_format(root: &Path) -> Result<(), StoreError> {
    let (aside, path) = (root.join("version.new"), root.join("version"));
    fs::write(&aside, format!("{FORMAT}\n")).map_err(FileError::at("write", &aside))?;
    File::open(&aside).and_then(|file| file.sync_all()).map_err(FileError::at("sync", &aside))?;
    fs::rename(&aside, &path).map_err(FileError::at("rename", &aside))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tree::make;
    use crate::tree::SnapshotId;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn entries(path: PathBuf) -> usize {
        fs::read_dir(path).unwrap().count()
    }

    #[test]
    fn a_newer_format_is_refused() {
        let check = |text: &str, expect: &str| {
            let dir = tempfile::tempdir().unwrap();
            fs::write(dir.path().join("version"), text).unwrap();
            let error = Store::open(dir.path()).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(expect), "{text}: {error}");
            assert!(!expect.is_empty() || error.is_empty(), "{text}: {error}");
        };
        check("4\n", "has format 4, but this kiln knows formats up to 3");
        check("1\n", "");
        check("2\n", "");
        check("3\n", "");
        check("hello", "is not a format version");
        check("0", "is not a format version");
    }

    #[test]
    fn what_dead_processes_left_is_put_away() {
        let dir = tempfile::tempdir().unwrap();
        let first = Store::open(dir.path()).unwrap();
        let scratch = first.scratch_dir().unwrap();
        fs::create_dir(dir.path().join("ingest/1-dead")).unwrap();
        fs::write(dir.path().join("ingest/1-dead/lock"), "").unwrap();
        let second = Store::open(dir.path()).unwrap();
        assert!(!dir.path().join("ingest/1-dead").exists());
        assert!(scratch.exists());
        assert_eq!(entries(dir.path().join("ingest")), 2);
        drop((first, second));
        assert_eq!(entries(dir.path().join("ingest")), 0);
    }

    #[test]
    fn what_was_put_away_just_now_rests() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let scratch = store.scratch_dir().unwrap();
        make(&scratch, &["d a", "f a/f x"]);
        store.discard(&scratch).unwrap();
        let trash = || entries(dir.path().join("trash"));
        assert!(ingest::empty_old_trash(dir.path(), TRASH_RESTS).unwrap());
        assert_eq!(trash(), 1);
        std::thread::sleep(Duration::from_millis(20));
        assert!(!ingest::empty_old_trash(dir.path(), Duration::from_millis(10)).unwrap());
        assert_eq!(trash(), 0);
    }

    #[test]
    fn the_first_snapshot_of_a_name_stays() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = SnapshotId("ab12".into());
        for content in ["first", "second"] {
            let draft = store.snapshots().prepare().unwrap();
            make(draft.upper(), &[&format!("f file {content}")]);
            store.snapshots().commit(draft, &id).unwrap();
        }
        assert_eq!(fs::read_to_string(store.snapshots().path(&id).join("file")).unwrap(), "first");
        store.empty_trash().unwrap();
        store.snapshots().remove(&id).unwrap();
        store.snapshots().remove(&id).unwrap();
        assert!(!store.snapshots().exists(&id));
        for bad in ["", ".", "../x", "a/b", ".hidden"] {
            let draft = store.snapshots().prepare().unwrap();
            assert!(store.snapshots().commit(draft, &SnapshotId(bad.into())).is_err(), "{bad}");
            assert!(!store.snapshots().exists(&SnapshotId(bad.into())), "{bad}");
        }
    }

    #[test]
    fn a_draft_takes_after_what_is_below() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("store")).unwrap();
        make(dir.path(), &["d below 1711"]);
        let draft = store.snapshots().prepare().unwrap();
        draft.inherit_root(&dir.path().join("below")).unwrap();
        let meta = fs::metadata(draft.upper()).unwrap();
        use std::os::unix::fs::MetadataExt;
        assert_eq!((meta.mode() & 0o7777, meta.mtime()), (0o1711, 1000));
    }

    /// Runs in a process of its own, for the tests below.
    #[test]
    fn child() {
        let Some(root) = std::env::var_os("KILN_TEST_STORE") else { return };
        let store = Store::open(Path::new(&root)).unwrap();
        let mut writer = store.content().writer().unwrap();
        writer.write_all(b"half a blob").unwrap();
        let draft = store.snapshots().prepare().unwrap();
        make(draft.upper(), &["f file x"]);
        println!("ready");
        if std::env::var_os("KILN_FAILPOINT").is_some() {
            store.content().put(b"a blob").unwrap();
            store.snapshots().commit(draft, &SnapshotId("a".into())).unwrap();
            unreachable!("the fail point is not on the way");
        }
        let _held =
            futures::executor::block_on(solver::record::RecordStore::claim(&store, &solver::key::CacheKey([7; 32])));
        println!("holding");
        std::thread::sleep(std::time::Duration::from_secs(60));
    }

    fn spawn_child(root: &Path) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "store::tests::child", "--nocapture"]).env("KILN_TEST_STORE", root);
        command.stdout(Stdio::piped()).stderr(Stdio::null());
        command
    }

    #[test]
    fn a_killed_process_leaves_nothing_and_frees_its_claims() {
        use std::io::BufRead;
        let dir = tempfile::tempdir().unwrap();
        let mut child = spawn_child(dir.path()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().contains("holding")));
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(entries(dir.path().join("ingest")), 2);
        let claim = std::thread::spawn(move || {
            let key = solver::key::CacheKey([7; 32]);
            futures::executor::block_on(solver::record::RecordStore::claim(&store, &key)).unwrap()
        });
        assert!(!claim.is_finished());
        child.kill().unwrap();
        child.wait().unwrap();
        drop(claim.join().unwrap());
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(entries(dir.path().join("ingest")), 1);
        assert_eq!(entries(dir.path().join("claims")), 0);
        assert_eq!(entries(dir.path().join("blobs/sha256")), 0);
        drop(store);
    }

    #[cfg(feature = "failpoints")]
    #[test]
    fn death_at_any_point_leaves_a_sound_store() {
        let blob = Digest::of(b"a blob");
        let check = |point: &str, blob_is_there: bool| {
            let dir = tempfile::tempdir().unwrap();
            let status = spawn_child(dir.path()).env("KILN_FAILPOINT", point).output().unwrap().status;
            assert!(!status.success(), "{point}");
            let store = Store::open(dir.path()).unwrap();
            assert_eq!(store.content().has(&blob).unwrap().is_some(), blob_is_there, "{point}");
            assert_eq!(entries(dir.path().join("ingest")), 1, "{point}");
            store.content().put(b"a blob").unwrap();
            assert_eq!(store.content().read_small(&blob).unwrap(), b"a blob");
            store.snapshots().commit(store.snapshots().prepare().unwrap(), &SnapshotId("a".into())).unwrap();
        };
        check("content.before_rename", false);
        check("content.after_rename", true);
        check("snapshot.before_rename", true);
    }

    #[test]
    fn many_processes_open_one_store() {
        let dir = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for index in 0..4u8 {
                let root = dir.path();
                scope.spawn(move || {
                    let store = Store::open(root).unwrap();
                    let digest = store.content().put(&[index / 2]).unwrap();
                    assert_eq!(digest, Digest::of(&[index / 2]));
                    store.put_note("test", &index.to_string(), &[index]).unwrap();
                });
            }
        });
        let store = Store::open(dir.path()).unwrap();
        assert!((0..4u8).all(|index| store.note("test", &index.to_string()).unwrap() == Some(vec![index])));
    }
}
