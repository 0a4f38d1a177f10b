//! Directories below an opened root: entries with their metadata, never through a symbolic link. Knows nothing of
//! `.dockerignore` or layers.

use cache::walk;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, major, minor};
use rustix::io::Errno;
use std::ffi::CString;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// What the kernel tells about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Kind.
    pub kind: FileType,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// In bytes.
    pub size: u64,
    /// Of a device node: its number as the kernel packs it.
    pub rdev: u64,
    /// Names of the file.
    pub nlink: u64,
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Modification time: seconds since 1970, nanoseconds.
    pub mtime: (i64, u32),
    /// Change time, likewise.
    pub ctime: (i64, u32),
}

/// One entry of a directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name.
    pub name: Box<[u8]>,
    /// What it is.
    pub meta: Meta,
}

/// The entries of a directory, sorted bytewise by name.
pub type Listing = Arc<Vec<Entry>>;

impl Meta {
    /// From `stat`.
    // The fields' types differ between architectures.
    #[allow(clippy::unnecessary_cast)]
    pub fn of(stat: &Stat) -> Meta {
        Meta {
            kind: FileType::from_raw_mode(stat.st_mode),
            mode: stat.st_mode as u32 & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size: stat.st_size as u64,
            rdev: stat.st_rdev as u64,
            nlink: stat.st_nlink as u64,
            dev: stat.st_dev as u64,
            ino: stat.st_ino as u64,
            mtime: (stat.st_mtime as i64, stat.st_mtime_nsec as u32),
            ctime: (stat.st_ctime as i64, stat.st_ctime_nsec as u32),
        }
    }

    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == FileType::Directory
    }

    /// Whether it is a regular file.
    pub fn is_file(&self) -> bool {
        self.kind == FileType::RegularFile
    }

    /// Whether it is a symbolic link.
    pub fn is_symlink(&self) -> bool {
        self.kind == FileType::Symlink
    }

    /// Whether it is overlayfs' mark of a removed name, as a layer that is read without overlayfs shows it.
    pub fn is_whiteout(&self) -> bool {
        self.kind == FileType::CharacterDevice && major(self.rdev) == 0 && minor(self.rdev) == 0
    }
}

/// Opens `path` below `root`; fails with ELOOP if there is a symbolic link in it. Empty is the root itself.
pub fn open(root: BorrowedFd<'_>, path: &[u8], flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { b"." } else { path };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC | OFlags::NOFOLLOW, Mode::empty(), resolve)
}

/// What is at `path` below `root`; a symbolic link is itself. `None` if there is nothing.
pub fn stat(root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Meta>, Errno> {
    let fd = match open(root, path, OFlags::PATH) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        other => other?,
    };
    let stat = rustix::fs::fstat(&fd)?;
    let meta = Meta::of(&stat);
    Ok((!meta.is_whiteout() && !is_marked(root, path, &stat)).then_some(meta))
}

/// Reads the directory `path` below `root`.
pub fn list(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<Entry>, Errno> {
    let dir = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
    let mut reader = RawDir::new(dir.as_fd(), &mut buffer);
    let mut entries = Vec::new();
    while let Some(entry) = reader.next() {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::statat(&dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => {
                let meta = Meta::of(&stat);
                if !meta.is_whiteout() && !is_marked(dir.as_fd(), name.to_bytes(), &stat) {
                    entries.push(Entry { name: name.to_bytes().into(), meta });
                }
            }
            // Removed since it was listed.
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno),
        }
    }
    entries.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// Whether a file is a whiteout by its mark.
fn is_marked(dir: BorrowedFd<'_>, path: &[u8], stat: &Stat) -> bool {
    CString::new(path).is_ok_and(|path| walk::is_marked_whiteout(dir, &path, stat))
}

/// `dir/name`; `name` alone in the root.
pub fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() {
        return name.to_vec();
    }
    if name.is_empty() {
        return dir.to_vec();
    }
    [dir, b"/", name].concat()
}

/// The directory part and the last name of a path without leading or trailing slashes.
pub fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&b| b == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// For messages and patterns.
pub fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
