//! What the store can hold and let go of, one at a time: names of objects, and how large they are on disk.

use crate::walk;
use rustix::fs::{FileType, Stat};
use std::collections::HashSet;
use std::fs;
use std::io;
use std::ops::AddAssign;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Kind of an object: which folder of the store it is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `snapshots/<name>`
    Snapshot,
    /// `blobs/sha256/<name>`
    Blob,
    /// `mounts/<key>/<number>`; the name is both
    CacheMount,
    /// `git/<name>`
    Git,
    /// `logs/<name>`, of one build
    Log,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 5] = [Kind::Snapshot, Kind::Blob, Kind::CacheMount, Kind::Git, Kind::Log];

    /// As it is written in the database and in lock names.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshot",
            Kind::Blob => "blob",
            Kind::CacheMount => "mount",
            Kind::Git => "git",
            Kind::Log => "log",
        }
    }

    /// The inverse of [`Kind::as_str`].
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Its folder, below the store's.
    pub(crate) fn folder(self) -> &'static str {
        match self {
            Kind::Snapshot => "snapshots",
            Kind::Blob => "blobs/sha256",
            Kind::CacheMount => "mounts",
            Kind::Git => "git",
            Kind::Log => "logs",
        }
    }
}

/// Names an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectId {
    /// Which kind.
    pub kind: Kind,
    /// Its path in the kind's folder.
    pub name: String,
}

impl ObjectId {
    /// An object of that kind.
    pub fn new(kind: Kind, name: impl Into<String>) -> ObjectId {
        ObjectId { kind, name: name.into() }
    }

    /// Where it is.
    pub(crate) fn path(&self, root: &Path) -> PathBuf {
        root.join(self.kind.folder()).join(&self.name)
    }
}

/// What a file or a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes on disk: blocks that are allocated, hard links once. What several files share by reflinks is counted for
    /// each of them, since the kernel does not tell.
    pub bytes: u64,
    /// Inodes.
    pub inodes: u64,
    /// Lengths of all regular files, in bytes.
    pub length: u64,
}

impl Size {
    /// What one inode takes.
    pub fn of(stat: &Stat) -> Size {
        let is_file = walk::file_type(stat) == FileType::RegularFile;
        Size { bytes: stat.st_blocks as u64 * 512, inodes: 1, length: if is_file { stat.st_size as u64 } else { 0 } }
    }
}

impl AddAssign for Size {
    fn add_assign(&mut self, other: Size) {
        self.bytes += other.bytes;
        self.inodes += other.inodes;
        self.length += other.length;
    }
}

/// Measures a file or a tree. What is gone meanwhile, or may not be read, counts as nothing.
pub fn measure(path: &Path) -> io::Result<Size> {
    let mut size = Size::default();
    add(path, &mut size, &mut HashSet::new())?;
    Ok(size)
}

fn add(path: &Path, size: &mut Size, linked: &mut HashSet<(u64, u64)>) -> io::Result<()> {
    let passed_over =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied);
    let meta = match fs::symlink_metadata(path) {
        Err(error) if passed_over(&error) => return Ok(()),
        meta => meta?,
    };
    if !meta.is_dir() && meta.nlink() > 1 && !linked.insert((meta.dev(), meta.ino())) {
        return Ok(());
    }
    size.bytes += meta.blocks() * 512;
    size.inodes += 1;
    if meta.is_file() {
        size.length += meta.len();
    }
    if !meta.is_dir() {
        return Ok(());
    }
    let entries = match fs::read_dir(path) {
        Err(error) if passed_over(&error) => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        match entry {
            Err(error) if passed_over(&error) => {}
            entry => add(&entry?.path(), size, linked)?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hard_links_count_once() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a"), vec![1; 100_000]).unwrap();
        let one = measure(dir.path()).unwrap();
        fs::hard_link(dir.path().join("a"), dir.path().join("b")).unwrap();
        assert_eq!(measure(dir.path()).unwrap(), one);
        assert_eq!((one.inodes, one.length), (2, 100_000));
        assert!(one.bytes >= 100_000);
        assert_eq!(measure(&dir.path().join("none")).unwrap(), Size::default());
    }

    #[test]
    fn kinds_have_names() {
        assert!(Kind::ALL.into_iter().all(|kind| Kind::parse(kind.as_str()) == Some(kind)));
        assert_eq!(Kind::parse("x"), None);
    }
}
