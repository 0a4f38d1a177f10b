//! Across processes: one runs a key, the others wait. A claim is a file lock, so it dies with its holder.
//!
//! Claim files are removed by those who hold them. Whoever gets a lock therefore looks whether the file still has
//! its name: if not, the lock is one on a file that nobody else will find, and worth nothing.

use crate::error::{FileError, StoreError};
use futures::channel::oneshot;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use solver::key::CacheKey;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A key that this process holds. Dropped, or lost with its process, it is free.
#[derive(Debug)]
pub struct Claim {
    path: PathBuf,
    file: File,
}

/// Waits until nobody else, in any process, holds `key` in the folder `dir`, and takes it.
pub(crate) async fn claim(dir: &Path, key: &CacheKey) -> Result<Claim, StoreError> {
    let path = dir.join(key.to_hex());
    if let Some(claim) = take(&path, FlockOperation::NonBlockingLockExclusive)? {
        return Ok(claim);
    }
    // There is no lock to poll for, so a thread waits. If the caller loses interest, the thread gets the claim in
    // the end and drops it.
    let (sender, receiver) = oneshot::channel();
    let waiting = path.clone();
    std::thread::Builder::new()
        .name("claim".into())
        .spawn(move || {
            let result = take(&waiting, FlockOperation::LockExclusive);
            let _ = sender.send(result);
        })
        .map_err(FileError::at("start a thread to wait for", &path))?;
    match receiver.await {
        Ok(Ok(Some(claim))) => Ok(claim),
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(None)) | Err(oneshot::Canceled) => {
            Err(FileError::at("wait for", &path)(io::Error::from(Errno::AGAIN)).into())
        }
    }
}

/// `None` if another holds it and the operation does not wait.
fn take(path: &Path, operation: FlockOperation) -> Result<Option<Claim>, FileError> {
    loop {
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(path)
            .map_err(FileError::at("open the claim", path))?;
        match rustix::fs::flock(&file, operation) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(FileError::at("lock", path)(errno)),
        }
        if is_named(&file, path)? {
            // What a holder that died has left in it.
            if file.metadata().map_err(FileError::at("look at", path))?.len() > 0 {
                file.set_len(0).map_err(FileError::at("empty", path))?;
            }
            return Ok(Some(Claim { path: path.to_owned(), file }));
        }
    }
}

/// Takes `key` in the folder `dir` if nobody holds it.
pub(crate) fn try_claim(dir: &Path, key: &CacheKey) -> Result<Option<Claim>, FileError> {
    take(&dir.join(key.to_hex()), FlockOperation::NonBlockingLockExclusive)
}

/// Writes into the claim of `key`, which the caller holds, for those who wait for it.
pub(crate) fn leave_note(dir: &Path, key: &CacheKey, note: &str) -> Result<(), FileError> {
    let path = dir.join(key.to_hex());
    let mut file = File::options().write(true).truncate(true).open(&path).map_err(FileError::at("open", &path))?;
    file.write_all(note.as_bytes()).map_err(FileError::at("write", &path))
}

/// What the holder of `key` has written; `None` if there is none, or it has written nothing.
pub(crate) fn note_of(dir: &Path, key: &CacheKey) -> Option<String> {
    fs::read_to_string(dir.join(key.to_hex())).ok().filter(|note| !note.is_empty())
}

/// Whether somebody holds `key`.
pub(crate) fn is_claimed(dir: &Path, key: &CacheKey) -> bool {
    let Ok(file) = File::open(dir.join(key.to_hex())) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_err()
}

/// Removes the files of claims whose holders died.
pub(crate) fn sweep(dir: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(dir).map_err(FileError::at("list", dir))? {
        let path = entry.map_err(FileError::at("list", dir))?.path();
        // Dropped, a claim removes its file.
        drop(take(&path, FlockOperation::NonBlockingLockExclusive)?);
    }
    Ok(())
}

fn is_named(file: &File, path: &Path) -> Result<bool, FileError> {
    let ours = file.metadata().map_err(FileError::at("look at", path))?;
    match fs::symlink_metadata(path) {
        Ok(named) => Ok((named.dev(), named.ino()) == (ours.dev(), ours.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(FileError::at("look at", path)(error)),
    }
}

impl Claim {
    /// The locked file once more: the lock lasts until this is closed too, unless the claim is dropped.
    pub(crate) fn handle(&self) -> io::Result<File> {
        self.file.try_clone()
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        // While the lock is held; closing the file frees it afterwards.
        let _ = fs::remove_file(&self.path);
        let _ = rustix::fs::flock(&self.file, FlockOperation::Unlock);
    }
}
