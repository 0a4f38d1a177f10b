//! Sets what a file is beside its bytes, in the order in which the kernel keeps it: a change of owner drops
//! set-user-id bits and capabilities, so mode and xattrs come after it, and times last.

use super::LayerError;
use crate::error::FileError;
use crate::owners::{OwnerNotes, Owners};
use crate::walk::{self, Xattr, XattrReader};
use rustix::fs::{AtFlags, FileType, Mode, Stat, Timespec, Timestamps, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Metadata to set.
pub(crate) struct Metadata<'a> {
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// Seconds since 1970 and nanoseconds. `None` to set it later.
    pub mtime: Option<(i64, u32)>,
    pub xattrs: &'a [Xattr],
}

impl<'a> Metadata<'a> {
    /// That of a file whose owner is what `stat` says.
    pub fn of(stat: &Stat, xattrs: &'a [Xattr]) -> Metadata<'a> {
        let mtime = Some((stat.st_mtime, stat.st_mtime_nsec as u32));
        Metadata { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, xattrs }
    }
}

/// All xattrs of a file, for [`Metadata::of`].
pub(crate) fn read_xattrs(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<Xattr>, Errno> {
    XattrReader::new().all(dir, name, |_| true)
}

pub(crate) fn times((seconds, nanos): (i64, u32)) -> Timestamps {
    let time = Timespec { tv_sec: seconds, tv_nsec: nanos as _ };
    Timestamps { last_access: time, last_modification: time }
}

/// Where an error is reported: a tree and a path in it.
#[derive(Clone, Copy)]
pub(crate) struct Label<'a>(pub &'a Path, pub &'a [u8]);

impl Label<'_> {
    pub fn error(&self, verb: &'static str, errno: impl Into<std::io::Error>) -> LayerError {
        FileError::at(verb, self.0.join(OsStr::from_bytes(self.1)))(errno.into()).into()
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from(OsStr::from_bytes(self.1))
    }
}

/// The status of `name` in `dir`, at `path` in a view, with the owner that it has there.
pub(crate) fn stat_of(
    owners: Option<&Owners>,
    dir: BorrowedFd<'_>,
    name: &CStr,
    path: &[u8],
    mut stat: Stat,
) -> Result<Stat, Errno> {
    (stat.st_uid, stat.st_gid) = crate::owners::of(owners, dir, name, path, &stat)?;
    Ok(stat)
}

/// Sets metadata of an open file that was just made, or of a directory.
pub(crate) fn set_open(
    file: impl AsFd,
    kind: FileType,
    meta: &Metadata<'_>,
    notes: &OwnerNotes,
    label: Label<'_>,
) -> Result<(), LayerError> {
    let file = file.as_fd();
    let (uid, gid) = owner(meta).ok_or_else(|| label.error("set the owner of", Errno::INVAL))?;
    if kind == FileType::RegularFile {
        notes.set_new(file, (uid, gid), meta.mode).map_err(|errno| label.error("set the owner or mode of", errno))?;
    } else {
        notes.set_open(file, (uid, gid)).map_err(|errno| label.error("set the owner of", errno))?;
        let mode = Mode::from_raw_mode(meta.mode);
        rustix::fs::fchmod(file, mode).map_err(|errno| label.error("set the mode of", errno))?;
    }
    for (name, value) in meta.xattrs {
        let result = rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty());
        check_xattr(result, name, kind, label)?;
    }
    if let Some(mtime) = meta.mtime {
        rustix::fs::futimens(file, &times(mtime)).map_err(|errno| label.error("set the time of", errno))?;
    }
    Ok(())
}

/// Sets metadata of what is not to be opened: symlinks, devices, pipes. Nobody else changes the tree meanwhile.
pub(crate) fn set_at(
    dir: BorrowedFd<'_>,
    name: &CStr,
    kind: FileType,
    meta: &Metadata<'_>,
    notes: &OwnerNotes,
    label: Label<'_>,
) -> Result<(), LayerError> {
    let owner = owner(meta).ok_or_else(|| label.error("set the owner of", Errno::INVAL))?;
    notes.set(dir, name, label.1, kind, owner).map_err(|errno| label.error("set the owner of", errno))?;
    if kind != FileType::Symlink {
        // This would follow a symlink; symlinks have no mode of their own.
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(meta.mode), AtFlags::empty())
            .map_err(|errno| label.error("set the mode of", errno))?;
    }
    for (xattr, value) in meta.xattrs {
        let result = rustix::fs::lsetxattr(walk::proc_path(dir, name), &xattr[..], value, XattrFlags::empty());
        check_xattr(result, xattr, kind, label)?;
    }
    if let Some(mtime) = meta.mtime {
        rustix::fs::utimensat(dir, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| label.error("set the time of", errno))?;
    }
    Ok(())
}

/// All bits set mean "leave it" to the kernel, so that is nobody's id.
fn owner(meta: &Metadata<'_>) -> Option<(u32, u32)> {
    let known = meta.uid != u32::MAX && meta.gid != u32::MAX;
    known.then_some((meta.uid, meta.gid))
}

/// What a file system does not know is left out; so is what the kernel lets only files and directories have.
fn check_xattr(
    result: rustix::io::Result<()>,
    name: &[u8],
    kind: FileType,
    label: Label<'_>,
) -> Result<(), LayerError> {
    let plain = matches!(kind, FileType::RegularFile | FileType::Directory);
    match result {
        Err(Errno::NOTSUP) => Ok(()),
        Err(Errno::PERM) if name.starts_with(b"user.") && !plain => Ok(()),
        result => result.map_err(|errno| label.error("set an xattr of", errno)),
    }
}
