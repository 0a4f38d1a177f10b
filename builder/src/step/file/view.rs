//! Stacks of layers as one tree to read: a detached read-only mount, which lives as long as its descriptor; where mounts
//! are refused, a folder of links.

use super::FileError;
use crate::sandbox::rootfs;
use crate::source::dir::{self, Meta};
use cache::owners::Owners;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// An opened stack of layers.
pub struct View {
    root: OwnedFd,
    /// Of files that do not have them on the disk.
    owners: Option<Owners>,
}

impl View {
    /// Opens the root of the tree that `lowers` (unpacked layers, lowest first) make together; `None` for no layers.
    pub fn open(lowers: &[PathBuf]) -> Result<Option<View>, FileError> {
        let root = match lowers {
            [] => return Ok(None),
            // No mount is needed for one. Whiteouts in it, which hide nothing, are skipped by those who read.
            [only] => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                rustix::fs::open(only, flags, Mode::empty()).map_err(FileError::at("open", only))?
            }
            many => rootfs::overlay(many, None)
                .map_err(|error| FileError::View { layers: many.len(), source: Box::new(error) })?,
        };
        Ok(Some(View { root, owners: Owners::read(lowers)? }))
    }

    /// The root.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// Gives what was found at `path` the owner that it has in the image.
    pub fn own(&self, path: &[u8], mut meta: Meta) -> Result<Meta, Errno> {
        let Some(owners) = &self.owners else { return Ok(meta) };
        let name = CString::new(if path.is_empty() { b"." } else { path }).map_err(|_| Errno::INVAL)?;
        (meta.uid, meta.gid) = owners.of(self.root.as_fd(), &name, path, meta.kind, (meta.uid, meta.gid))?;
        Ok(meta)
    }

    /// Entries of a directory.
    pub fn list(&self, path: &[u8]) -> Result<Vec<dir::Entry>, Errno> {
        let mut entries = dir::list(self.root.as_fd(), path)?;
        if self.owners.is_some() {
            for entry in &mut entries {
                entry.meta = self.own(&dir::join(path, &entry.name), entry.meta)?;
            }
        }
        Ok(entries)
    }

    /// What is at a path; a symbolic link is itself.
    pub fn stat(&self, path: &[u8]) -> Result<Option<Meta>, Errno> {
        dir::stat(self.root.as_fd(), path)?.map(|meta| self.own(path, meta)).transpose()
    }
}
