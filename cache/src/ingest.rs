//! The folder of unfinished things that each process has for its own, and the trash.
//!
//! A process' folder is known to be abandoned when its `lock` can be taken. Nothing is deleted on the way: what is
//! not wanted is renamed into the trash, since deleting a tree takes as long as making it.

use crate::error::FileError;
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// This process' part of `ingest/`.
pub(crate) struct Ingest {
    dir: PathBuf,
    trash: PathBuf,
    next: AtomicU64,
    _lock: File,
}

impl Ingest {
    /// Makes this process' folder. The caller holds the store's `lock`, so that no other process takes the folder
    /// for an abandoned one before it is locked.
    pub fn create(root: &Path) -> Result<Ingest, FileError> {
        let parent = root.join("ingest");
        let dir = tempfile::Builder::new()
            .prefix(&format!("{}-", std::process::id()))
            .tempdir_in(&parent)
            .map_err(FileError::at("make a folder in", &parent))?
            .keep();
        let path = dir.join("lock");
        let lock = File::create(&path).map_err(FileError::at("create", &path))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(FileError::at("lock", &path))?;
        Ok(Ingest { dir, trash: root.join("trash"), next: AtomicU64::new(0), _lock: lock })
    }

    /// This process' folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path in this process' folder that nothing has yet.
    pub fn fresh(&self, what: &str) -> PathBuf {
        self.dir.join(format!("{what}-{}", self.next.fetch_add(1, Ordering::Relaxed)))
    }

    /// Puts a file or a tree of this store away, to be deleted later. Success if it is gone already.
    pub fn discard(&self, path: &Path) -> Result<(), FileError> {
        discard(path, &self.trash, self.next.fetch_add(1, Ordering::Relaxed))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        // Without its lock the folder counts as abandoned, which is what it is from here on.
        let _ = fs::remove_file(self.dir.join("lock"));
        if fs::remove_dir(&self.dir).is_err() {
            let _ = self.discard(&self.dir);
        }
    }
}

/// Puts the folders of processes that died into the trash; says whether there were any. The caller holds the store's
/// `lock`.
pub(crate) fn discard_abandoned(root: &Path) -> Result<bool, FileError> {
    let parent = root.join("ingest");
    let trash = root.join("trash");
    let mut found = false;
    for entry in fs::read_dir(&parent).map_err(FileError::at("list", &parent))? {
        let dir = entry.map_err(FileError::at("list", &parent))?.path();
        let abandoned = match File::open(dir.join("lock")) {
            Ok(lock) => rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok(),
            // Its process died before it made the lock, or while it removed the folder.
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if abandoned {
            discard(&dir, &trash, 0)?;
            found = true;
        }
    }
    Ok(found)
}

/// Deletes what is in the trash. One process at a time does so; others leave it to that one.
pub(crate) fn empty_trash(root: &Path) -> Result<(), FileError> {
    empty(root, FlockOperation::NonBlockingLockExclusive, Duration::ZERO).map(drop)
}

/// Deletes what is in the trash; if another process is at it, when that one is done.
pub(crate) fn empty_trash_waiting(root: &Path) -> Result<(), FileError> {
    empty(root, FlockOperation::LockExclusive, Duration::ZERO).map(drop)
}

/// As [`empty_trash`], but for what was put there less than `rest` ago. Says whether something is left.
pub(crate) fn empty_old_trash(root: &Path, rest: Duration) -> Result<bool, FileError> {
    empty(root, FlockOperation::NonBlockingLockExclusive, rest)
}

fn empty(root: &Path, operation: FlockOperation, rest: Duration) -> Result<bool, FileError> {
    let trash = root.join("trash");
    let guard = rustix::fs::open(&trash, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(FileError::at("open", &trash))?;
    if rustix::fs::flock(&guard, operation).is_err() {
        return Ok(true);
    }
    let mut is_left = false;
    for entry in fs::read_dir(&trash).map_err(FileError::at("list", &trash))? {
        let path = entry.map_err(FileError::at("list", &trash))?.path();
        if !has_rested(&path, rest) {
            is_left = true;
            continue;
        }
        remove_tree(&path).map_err(FileError::at("delete", &path))?;
    }
    Ok(is_left)
}

/// Whether something was put into the trash at least so long ago. To be renamed is the last change that its inode saw.
fn has_rested(path: &Path, rest: Duration) -> bool {
    let Ok(meta) = path.symlink_metadata() else { return true };
    let put_there = UNIX_EPOCH + Duration::new(meta.ctime().try_into().unwrap_or(0), meta.ctime_nsec() as u32);
    // By a clock that was set back since, it was put there in the future.
    SystemTime::now().duration_since(put_there).map_or(true, |age| age >= rest)
}

fn name_in_trash(path: &Path, number: u64) -> String {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{name}.{}.{number}", std::process::id())
}

fn discard(path: &Path, trash: &Path, number: u64) -> Result<(), FileError> {
    // A process id comes back after a while, so the name may be taken by what an earlier process put there.
    for attempt in 0.. {
        let target = trash.join(format!("{}{}", name_in_trash(path, number), ".again".repeat(attempt)));
        match rustix::fs::renameat_with(
            rustix::fs::CWD,
            path,
            rustix::fs::CWD,
            &target,
            rustix::fs::RenameFlags::NOREPLACE,
        ) {
            Err(rustix::io::Errno::EXIST) if attempt < 16 => continue,
            Err(rustix::io::Errno::NOENT) if path.symlink_metadata().is_err() => return Ok(()),
            result => return result.map_err(FileError::at("move to the trash", path)),
        }
    }
    Ok(())
}

fn remove_tree(path: &Path) -> io::Result<()> {
    let remove = |path: &Path| match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    let result = match remove(path) {
        // Who is not root cannot empty a directory without permissions, such as overlayfs' work/work.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            permit(path)?;
            remove(path)
        }
        result => result,
    };
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

fn permit(dir: &Path) -> io::Result<()> {
    fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            permit(&entry.path())?;
        }
    }
    Ok(())
}
