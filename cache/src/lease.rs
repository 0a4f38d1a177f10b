//! What live processes use, so that none of it is pruned under them.
//!
//! A lease is a shared lock on one byte of the file `leases`, at the place that an object's name hashes to. The lock
//! belongs to the open file (fcntl(2), "open file description locks"), so the kernel frees it when the process dies.
//! It is a lock on a name: whether there is an object of that name is looked at afterwards. Costs one system call for
//! each object that a build uses, and nothing on disk.
//!
//! Invariant: who wants to rely on an object leases its name first and looks whether it is there second; who removes
//! one holds its name exclusively from before it goes until after. So either the remover finds the lease and leaves
//! the object, or the user waits for the remover and finds that the object is gone.
//!
//! Two names may share a place (one chance in 2^62): then one is kept for the other's sake, for a while.

use crate::error::FileError;
use crate::object::ObjectId;
use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// The leases of this process.
pub(crate) struct Leases {
    path: PathBuf,
    file: File,
    held: Mutex<HashSet<ObjectId>>,
}

impl Leases {
    /// Opens the file of a store.
    pub fn open(root: &Path) -> Result<Leases, FileError> {
        let path = root.join("leases");
        Ok(Leases { file: open(&path)?, path, held: Mutex::default() })
    }

    /// Holds a name until this process ends. Waits for whoever removes the object now.
    pub fn hold(&self, id: &ObjectId) -> Result<(), FileError> {
        let held = || self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if held().contains(id) {
            return Ok(());
        }
        let lock = byte(libc::F_RDLCK, id);
        loop {
            match fcntl(&self.file, FcntlArg::F_OFD_SETLKW(&lock)) {
                Err(nix::Error::EINTR) => {}
                result => {
                    result.map_err(FileError::at("lease a part of", &self.path))?;
                    break;
                }
            }
        }
        // Only now: who finds it here relies on the lock.
        held().insert(id.clone());
        Ok(())
    }

    /// All names that were ever held.
    pub fn held(&self) -> Vec<ObjectId> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }
}

/// Takes names for itself, to remove what they name. Not even this process' own leases are overruled, since this is
/// another open file. Dropped, it lets all of them go.
pub(crate) struct Remover {
    path: PathBuf,
    file: File,
}

impl Remover {
    pub fn open(root: &Path) -> Result<Remover, FileError> {
        let path = root.join("leases");
        Ok(Remover { file: open(&path)?, path })
    }

    /// Whether nobody holds the name. It is not taken.
    pub fn is_free(&self, id: &ObjectId) -> Result<bool, FileError> {
        let mut lock = byte(libc::F_WRLCK, id);
        fcntl(&self.file, FcntlArg::F_OFD_GETLK(&mut lock)).map_err(FileError::at("look for leases in", &self.path))?;
        Ok(i32::from(lock.l_type) == libc::F_UNLCK)
    }

    /// Takes a name; false if it is held by somebody.
    pub fn take(&self, id: &ObjectId) -> Result<bool, FileError> {
        match fcntl(&self.file, FcntlArg::F_OFD_SETLK(&byte(libc::F_WRLCK, id))) {
            Ok(_) => Ok(true),
            Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
            Err(errno) => Err(FileError::at("lock a part of", &self.path)(errno)),
        }
    }

    /// Lets all names go.
    pub fn release(&self) -> Result<(), FileError> {
        let mut lock = byte(libc::F_UNLCK, &ObjectId::new(crate::object::Kind::Blob, ""));
        (lock.l_start, lock.l_len) = (0, 0);
        fcntl(&self.file, FcntlArg::F_OFD_SETLK(&lock)).map_err(FileError::at("unlock", &self.path))?;
        Ok(())
    }
}

fn open(path: &Path) -> Result<File, FileError> {
    File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(FileError::at("open", path))
}

/// The byte of a name. The file need not be that long.
fn byte(kind: i32, id: &ObjectId) -> libc::flock {
    let hash = Sha256::digest(format!("{} {}", id.kind.as_str(), id.name).as_bytes());
    let mut start = [0; 8];
    start.copy_from_slice(&hash[..8]);
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: i64::from_le_bytes(start) & (i64::MAX >> 1),
        l_len: 1,
        l_pid: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Kind;

    #[test]
    fn what_is_held_is_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (ObjectId::new(Kind::Snapshot, "a"), ObjectId::new(Kind::Blob, "a"));
        let (one, two) = (Leases::open(dir.path()).unwrap(), Leases::open(dir.path()).unwrap());
        let remover = Remover::open(dir.path()).unwrap();
        one.hold(&a).unwrap();
        two.hold(&a).unwrap();
        assert_eq!((remover.is_free(&a).unwrap(), remover.take(&a).unwrap()), (false, false));
        assert_eq!((remover.is_free(&b).unwrap(), remover.take(&b).unwrap()), (true, true));
        drop(one);
        assert!(!remover.take(&a).unwrap());
        assert_eq!(two.held(), std::slice::from_ref(&a));
        drop(two);
        assert!(remover.take(&a).unwrap());
    }

    #[test]
    fn who_wants_what_is_being_removed_waits() {
        let dir = tempfile::tempdir().unwrap();
        let a = ObjectId::new(Kind::Snapshot, "a");
        let remover = Remover::open(dir.path()).unwrap();
        assert!(remover.take(&a).unwrap());
        let leases = Leases::open(dir.path()).unwrap();
        std::thread::scope(|scope| {
            let holding = scope.spawn(|| leases.hold(&a).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(20));
            assert!(!holding.is_finished());
            remover.release().unwrap();
            holding.join().unwrap();
        });
        assert!(!remover.take(&a).unwrap());
    }
}
