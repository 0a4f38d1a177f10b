//! Snapshots in overlayfs' upper form, `snapshots/<id>`: one folder a layer, stacked by whoever mounts them.

use crate::db::Db;
use crate::durable::Suspects;
use crate::error::{FileError, StoreError};
use crate::failpoint::fail_point;
use crate::ingest::Ingest;
use crate::ledger::{Ledger, strike};
use crate::object::{Kind, ObjectId, Size, measure};
use crate::owners::{self, OwnerNotes, Owners};
use crate::tree::{SnapshotId, Tree};
use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, Timestamps};
use rustix::io::Errno;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Snapshots in a folder.
pub struct Snapshots {
    dir: PathBuf,
    ingest: Arc<Ingest>,
    db: Arc<Db>,
    ledger: Arc<Ledger>,
    suspects: Arc<Suspects>,
}

impl Snapshots {
    pub(crate) fn new(
        root: &Path,
        ingest: Arc<Ingest>,
        db: Arc<Db>,
        ledger: Arc<Ledger>,
        suspects: Arc<Suspects>,
    ) -> Snapshots {
        Snapshots { dir: root.join("snapshots"), ingest, db, ledger, suspects }
    }

    /// A new snapshot, empty so far; its root has mode 0755.
    pub fn prepare(&self) -> Result<Draft, StoreError> {
        let dir = self.ingest.fresh("draft");
        let draft =
            Draft { upper: dir.join("upper"), work: dir.join("work"), dir, ingest: self.ingest.clone(), below: None };
        for path in [&draft.dir, &draft.upper, &draft.work] {
            fs::create_dir(path).map_err(FileError::at("make the folder", path))?;
        }
        // Whatever the umask is.
        fs::set_permissions(&draft.upper, fs::Permissions::from_mode(0o755))
            .map_err(FileError::at("set the mode of", &draft.upper))?;
        Ok(draft)
    }

    /// Names a finished draft. If there is a snapshot of this name already, that one stays and the draft is dropped.
    pub fn commit(&self, draft: Draft, id: &SnapshotId) -> Result<(), StoreError> {
        let size = measure(&draft.upper).map_err(FileError::at("measure", &draft.upper))?;
        self.commit_measured(draft, id, size)
    }

    /// As [`Snapshots::commit`], of what is known to take `size`.
    pub fn commit_measured(&self, draft: Draft, id: &SnapshotId, size: Size) -> Result<(), StoreError> {
        if !is_name(&id.0) {
            return Err(StoreError::BadSnapshotId { id: id.0.clone() });
        }
        let target = self.path(id);
        let object = ObjectId::new(Kind::Snapshot, &*id.0);
        self.ledger.uses(&object)?;
        self.drop_if_damaged(id)?;
        // First what belongs to it: no snapshot is ever seen without its owners. One that is there is the same.
        let list = owners::list_path(&draft.upper);
        match (list.exists(), target.exists()) {
            (true, false) => fs::rename(&list, owners::list_path(&target)).map_err(FileError::at("rename", &list))?,
            // One that is there was left by a commit that was interrupted here.
            (false, false) => owners::remove_list(&target)?,
            (_, true) => {}
        }
        fail_point!("snapshot.before_rename");
        match rustix::fs::renameat_with(CWD, &draft.upper, CWD, &target, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => Ok(()),
            result => {
                result.map_err(FileError::at("rename", &draft.upper))?;
                self.ledger.made(object, size, draft.below.as_ref().map(|below| below.0.clone()));
                Ok(())
            }
        }
    }

    /// Removes what was not all on the disk when the machine stopped.
    fn drop_if_damaged(&self, id: &SnapshotId) -> Result<(), StoreError> {
        let path = self.path(id);
        let is_sound = || Ok(!path.exists() || self.suspects.is_sound(id, &path)?);
        match self.suspects.may_use(&ObjectId::new(Kind::Snapshot, &*id.0), is_sound)? {
            true => Ok(()),
            false => self.remove(id),
        }
    }

    /// Where a snapshot is, or would be. For what is not a snapshot's name: a path where nothing ever is.
    pub fn path(&self, id: &SnapshotId) -> PathBuf {
        self.dir.join(if is_name(&id.0) { &id.0 } else { ".none" })
    }

    /// Whether there is one. If so, it stays as long as this process lives (`lease.rs`).
    pub fn exists(&self, id: &SnapshotId) -> bool {
        let leased = self.ledger.uses(&ObjectId::new(Kind::Snapshot, &*id.0)).map_err(StoreError::from);
        match leased.and_then(|()| self.drop_if_damaged(id)) {
            Ok(()) => self.path(id).is_dir(),
            Err(error) => {
                // Made again, it will be leased, or the build fails with this error.
                tracing::warn!(%error, "a snapshot cannot be leased");
                false
            }
        }
    }

    /// The folders to stack, lowest first; whether they exist or not.
    pub fn lowers(&self, tree: &Tree) -> Vec<PathBuf> {
        tree.layers().iter().map(|layer| self.path(&layer.snapshot)).collect()
    }

    /// Removes a snapshot; success if there was none. Its name is free at once, its files are deleted later.
    pub fn remove(&self, id: &SnapshotId) -> Result<(), StoreError> {
        // First the marks: one that outlives its snapshot would vouch for the next one of this name.
        self.db.write("forget a snapshot", |db| strike(db, &[ObjectId::new(Kind::Snapshot, &*id.0)]))?;
        self.ingest.discard(&self.path(id))?;
        Ok(owners::remove_list(&self.path(id))?)
    }
}

/// Names are hex digests; anything that could leave the folder, or hide in it, is none.
fn is_name(id: &str) -> bool {
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    !id.is_empty() && id.len() <= 128 && !id.starts_with('.') && id.bytes().all(harmless)
}

/// A snapshot that is being made. Dropped without commit, it goes to the trash.
pub struct Draft {
    dir: PathBuf,
    upper: PathBuf,
    work: PathBuf,
    ingest: Arc<Ingest>,
    below: Option<SnapshotId>,
}

impl Draft {
    /// Says which snapshot this one lies on, for those who list what the store has.
    pub fn lies_on(&mut self, below: &SnapshotId) {
        self.below = Some(below.clone());
    }

    /// overlayfs' `upperdir`: what will be the snapshot.
    pub fn upper(&self) -> &Path {
        &self.upper
    }

    /// overlayfs' `workdir`.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Gives the upper dir's root the mode, owner and mtime of `below`, the root of the topmost layer below:
    /// overlayfs shows those of the upper dir, and a layer's tar has no entry for the root.
    pub fn inherit_root(&self, below: &Path) -> Result<(), StoreError> {
        let (from, to) = (crate::walk::open_root(below)?, crate::walk::open_root(&self.upper)?);
        let meta = rustix::fs::fstat(&from).map_err(FileError::at("look at", below))?;
        let owner = owners::of(Owners::read(&[below])?.as_ref(), from.as_fd(), c".", b"", &meta)
            .map_err(FileError::at("read the owner of", below))?;
        OwnerNotes::open(&self.upper)?
            .set(to.as_fd(), c".", b"", FileType::Directory, owner)
            .map_err(FileError::at("set the owner of", &self.upper))?;
        rustix::fs::chmodat(CWD, &self.upper, Mode::from_raw_mode(meta.st_mode & 0o7777), AtFlags::empty())
            .map_err(FileError::at("set the mode of", &self.upper))?;
        let time = rustix::fs::Timespec { tv_sec: meta.st_mtime, tv_nsec: meta.st_mtime_nsec as _ };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &self.upper, &times, AtFlags::SYMLINK_NOFOLLOW)
            .map_err(FileError::at("set the time of", &self.upper))?;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        // An unused draft, or a committed one whose work dir nobody used, is cheaper to remove than to move.
        let _ = fs::remove_dir(&self.upper);
        let _ = fs::remove_dir(&self.work);
        let _ = fs::remove_file(owners::list_path(&self.upper));
        if fs::remove_dir(&self.dir).is_err()
            && let Err(error) = self.ingest.discard(&self.dir)
        {
            tracing::warn!(%error, "a draft stays until this process ends");
        }
    }
}
