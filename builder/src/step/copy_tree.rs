//! Copies a tree as it is: what a cache mount begins with. Hard links become files of their own.

use super::mount_point;
use crate::sandbox::SandboxError;
use cache::owners::is_refusal;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Copies what is in the folder `from`, and its own attributes, into the folder `to`, which exists.
pub(super) fn copy_tree(from: BorrowedFd<'_>, to: &Path) -> Result<(), SandboxError> {
    let entries = Dir::read_from(from).map_err(SandboxError::path("read the folder for", to))?;
    for entry in entries {
        let entry = entry.map_err(SandboxError::path("read the folder for", to))?;
        let name = std::ffi::OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        copy_entry(from, Path::new(name), &to.join(name))?;
    }
    mount_point::mirror(from, Path::new(""), to)
}

fn copy_entry(from: BorrowedFd<'_>, name: &Path, to: &Path) -> Result<(), SandboxError> {
    let error = |verb| SandboxError::path(verb, to);
    let stat = rustix::fs::statat(from, name, AtFlags::SYMLINK_NOFOLLOW).map_err(error("stat the original of"))?;
    let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode & 0o7777));
    let open = |flags| -> Result<OwnedFd, SandboxError> {
        rustix::fs::openat(from, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map_err(error("open the original of"))
    };
    match kind {
        FileType::Directory => {
            rustix::fs::mkdir(to, Mode::RWXU).map_err(error("create"))?;
            return copy_tree(open(OFlags::RDONLY | OFlags::DIRECTORY)?.as_fd(), to);
        }
        FileType::RegularFile => {
            let mut source = File::from(open(OFlags::RDONLY)?);
            let mut target = File::create(to).map_err(SandboxError::path("create", to))?;
            std::io::copy(&mut source, &mut target).map_err(SandboxError::path("write", to))?;
        }
        FileType::Symlink => {
            let target = rustix::fs::readlinkat(from, name, vec![]).map_err(error("read the original of"))?;
            rustix::fs::symlink(target, to).map_err(error("create"))?;
        }
        // Sockets have no meaning without who listens.
        FileType::Socket | FileType::Unknown => return Ok(()),
        FileType::Fifo | FileType::CharacterDevice | FileType::BlockDevice => {
            rustix::fs::mknodat(CWD, to, kind, mode, stat.st_rdev).map_err(error("create"))?;
        }
    }
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chownat(CWD, to, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        // An owner that cannot be had here: what a cache begins with is in no layer.
        Err(errno) if !is_refusal(errno) => return Err(error("set the owner of")(errno)),
        _ => {}
    }
    if kind != FileType::Symlink {
        rustix::fs::chmod(to, mode).map_err(error("set the mode of"))?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::SYMLINK_NOFOLLOW).map_err(error("set the times of"))
}
