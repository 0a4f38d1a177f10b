//! Stacks of layers as one tree to read: a detached read-only mount, which lives as long as its descriptor.

use super::FileError;
use crate::sandbox::rootfs;
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// Opens the root of the tree that `lowers` (unpacked layers, lowest first) make together; `None` for no layers.
pub fn open(lowers: &[PathBuf]) -> Result<Option<OwnedFd>, FileError> {
    match lowers {
        [] => Ok(None),
        // No mount is needed for one. Whiteouts in it, which hide nothing, are skipped by those who read.
        [only] => {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
            rustix::fs::open(only, flags, Mode::empty()).map(Some).map_err(FileError::at("open", only))
        }
        many => {
            let mounted = rootfs::overlay(many, None);
            mounted.map(Some).map_err(|error| FileError::View { layers: many.len(), source: Box::new(error) })
        }
    }
}
