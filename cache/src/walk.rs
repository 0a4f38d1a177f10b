//! Reads trees by directory descriptor: names in bytewise order, never through a symlink, at any depth.
//!
//! Knows overlayfs' marks on files; knows nothing of tars or digests, which `layer/tar.rs` and `checksum.rs` make of
//! what it finds.

use crate::error::FileError;
use crate::owners::Owners;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat, XattrFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::io::Write as _;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// overlayfs' mark of a directory that hides what is below (mount option `userxattr`).
pub(crate) const OPAQUE: &str = "user.overlay.opaque";

/// overlayfs' mark of an empty file that is a whiteout (Linux 6.7), for where devices 0:0 are refused: on an overlay.
const WHITEOUT: &str = "user.overlay.whiteout";

/// Name of the xattr with a file's capabilities.
pub(crate) const CAPABILITY: &[u8] = b"security.capability";

const OPEN_DIR: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Name and value of an xattr.
pub(crate) type Xattr = (Vec<u8>, Vec<u8>);

/// A walk over a tree, parents first. The caller decides which directories to [`Walk::enter`].
pub struct Walk {
    label: PathBuf,
    frames: Vec<Frame>,
    path: Vec<u8>,
    owners: Option<Owners>,
}

struct Frame {
    dir: OwnedFd,
    names: std::vec::IntoIter<(CString, bool)>,
    path_len: usize,
    opaque: bool,
}

/// What a walk came to.
pub struct Found {
    /// In its directory.
    pub name: CString,
    /// `None` for a name that is only in the list of hidden ones given to [`Walk::enter`].
    pub stat: Option<Stat>,
}

impl Walk {
    /// Starts in the directory `root`, whose own entry is not among those found. `label` names it in errors.
    pub fn new(root: OwnedFd, label: &Path) -> Result<Walk, FileError> {
        let mut walk = Walk { label: label.to_owned(), frames: Vec::new(), path: Vec::new(), owners: None };
        walk.enter(root, Vec::new(), false)?;
        Ok(walk)
    }

    /// From now on, what is found has these owners.
    pub fn with_owners(mut self, owners: Option<Owners>) -> Walk {
        self.owners = owners;
        self
    }

    /// The next entry; its path is then [`Walk::path`], its directory [`Walk::dir`].
    #[expect(clippy::should_implement_trait, reason = "it may fail, and the walk lends where the entry is")]
    pub fn next(&mut self) -> Result<Option<Found>, FileError> {
        while let Some(frame) = self.frames.last_mut() {
            self.path.truncate(frame.path_len);
            let Some((name, hidden)) = frame.names.next() else {
                self.frames.pop();
                continue;
            };
            if !self.path.is_empty() {
                self.path.push(b'/');
            }
            self.path.extend_from_slice(name.to_bytes());
            if hidden {
                return Ok(Some(Found { name, stat: None }));
            }
            let mut stat = stat(self.dir(), &name).map_err(|errno| self.error("look at", errno))?;
            if let Some(owners) = &self.owners {
                (stat.st_uid, stat.st_gid) = crate::owners::of(Some(owners), self.dir(), &name, &self.path, &stat)
                    .map_err(|errno| self.error("read the owner of", errno))?;
            }
            return Ok(Some(Found { name, stat: Some(stat) }));
        }
        Ok(None)
    }

    /// Path of the entry found last, relative to the root.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The directory of the entry found last.
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.frames.last().expect("a walk that found something is in a directory").dir.as_fd()
    }

    /// Whether that directory, or one above it, was entered as opaque.
    pub fn in_opaque(&self) -> bool {
        self.frames.last().is_some_and(|frame| frame.opaque)
    }

    /// Opens the directory found last.
    pub fn open(&self, found: &Found) -> Result<OwnedFd, FileError> {
        open_dir(self.dir(), &found.name).map_err(|errno| self.error("open", errno))
    }

    /// Goes on with the entries of `dir`, which [`Walk::open`] opened, and, among them in order, with `hidden` names.
    pub fn enter(&mut self, dir: OwnedFd, hidden: Vec<CString>, opaque: bool) -> Result<(), FileError> {
        let mut names: Vec<(CString, bool)> = names(dir.as_fd())
            .map_err(|errno| self.error("list", errno))?
            .into_iter()
            .map(|name| (name, false))
            .collect();
        names.extend(hidden.into_iter().map(|name| (name, true)));
        names.sort_unstable();
        let opaque = opaque || self.in_opaque();
        self.frames.push(Frame { dir, names: names.into_iter(), path_len: self.path.len(), opaque });
        Ok(())
    }

    /// An error on the entry found last.
    pub fn error(&self, verb: &'static str, errno: impl Into<std::io::Error>) -> FileError {
        FileError::at(verb, self.label.join(OsStr::from_bytes(&self.path)))(errno.into())
    }
}

/// Opens the directory at `path`.
pub fn open_root(path: &Path) -> Result<OwnedFd, FileError> {
    rustix::fs::openat(CWD, path, OPEN_DIR, Mode::empty()).map_err(FileError::at("open", path))
}

/// A second descriptor of a directory, with a reading position of its own.
pub fn reopen(dir: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, c".", OPEN_DIR, Mode::empty())
}

/// Opens the directory `name`, never through a symlink.
pub fn open_dir(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(dir, name, OPEN_DIR, Mode::empty())
}

/// Opens the directory `name`; `None` if there is none, or something else.
pub(crate) fn open_dir_if_any(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<OwnedFd>> {
    match open_dir(dir, name) {
        Ok(dir) => Ok(Some(dir)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Opens the directory at `path` below `root`, following no symlink; `None` if there is none, or something else.
pub(crate) fn open_below_if_any(root: BorrowedFd<'_>, path: &[u8]) -> rustix::io::Result<Option<OwnedFd>> {
    let mut dir = reopen(root)?;
    for component in path.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
        let name = CString::new(component).map_err(|_| Errno::INVAL)?;
        match open_dir_if_any(dir.as_fd(), &name)? {
            Some(child) => dir = child,
            None => return Ok(None),
        }
    }
    Ok(Some(dir))
}

/// The entry's own status, not that of what it links to. A whiteout is a device 0:0, whatever it is on the disk.
pub(crate) fn stat(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Stat> {
    let mut stat = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW)?;
    if is_marked_whiteout(dir, name, &stat) {
        stat.st_mode = FileType::CharacterDevice.as_raw_mode();
        stat.st_rdev = 0;
    }
    Ok(stat)
}

/// Whether a file, by its name or path below `dir`, is an empty one with the mark of a whiteout.
pub fn is_marked_whiteout(dir: BorrowedFd<'_>, path: &CStr, stat: &Stat) -> bool {
    let may_be = file_type(stat) == FileType::RegularFile && stat.st_size == 0 && stat.st_mode & 0o7777 == 0;
    may_be && rustix::fs::lgetxattr(proc_path(dir, path), WHITEOUT, &mut [0u8; 8][..]).is_ok()
}

/// Makes a whiteout, in the form that the file system takes.
pub fn make_whiteout(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<()> {
    match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0) {
        Err(Errno::PERM) => {}
        result => return result,
    }
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    rustix::fs::fsetxattr(&file, WHITEOUT, b"y", XattrFlags::empty())?;
    // overlayfs looks for such whiteouts only in directories that say so.
    let own = reopen(dir)?;
    if is_opaque(own.as_fd())? { Ok(()) } else { rustix::fs::fsetxattr(&own, OPAQUE, b"x", XattrFlags::empty()) }
}

/// `None` if there is no such entry.
pub fn stat_if_any(dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Option<Stat>> {
    match stat(dir, name) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names in a directory that was not read yet, unordered, without `.` and `..`.
pub fn names(dir: BorrowedFd<'_>) -> rustix::io::Result<Vec<CString>> {
    let mut buffer: Vec<u8> = Vec::with_capacity(16 << 10);
    let space: &mut [MaybeUninit<u8>] = buffer.spare_capacity_mut();
    let mut entries = RawDir::new(dir, space);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

pub(crate) fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// overlayfs' whiteout: a character device 0:0.
pub(crate) fn is_whiteout(stat: &Stat) -> bool {
    file_type(stat) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether a directory hides what is below.
pub(crate) fn is_opaque(dir: BorrowedFd<'_>) -> rustix::io::Result<bool> {
    let mut value = [0u8; 8];
    match rustix::fs::fgetxattr(dir, OPAQUE, &mut value[..]) {
        Ok(length) => Ok(value[..length] == *b"y"),
        Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Whether an xattr is overlayfs' own note, or kiln's, and no part of the file.
pub(crate) fn is_overlay_note(name: &[u8]) -> bool {
    name.starts_with(b"user.overlay.")
        || name.starts_with(b"trusted.overlay.")
        || name == crate::owners::OWNER.as_bytes()
}

/// The way to an entry for the calls that know no directory descriptors. It leads through a descriptor, so nothing
/// renamed above it matters, and the kernel does not follow the last component in the `l` calls.
pub fn proc_path(dir: BorrowedFd<'_>, name: &CStr) -> CString {
    let mut path = Vec::with_capacity(32 + name.count_bytes());
    let _ = write!(path, "/proc/self/fd/{}/", dir.as_raw_fd());
    path.extend_from_slice(name.to_bytes());
    CString::new(path).expect("a C string and a number have no NUL inside")
}

/// Reads xattrs; keeps its buffers.
pub(crate) struct XattrReader {
    list: Vec<u8>,
    value: Vec<u8>,
}

impl XattrReader {
    pub fn new() -> XattrReader {
        // The kernel's limits on the list of names and on one value (XATTR_LIST_MAX, XATTR_SIZE_MAX).
        XattrReader { list: vec![0; 64 << 10], value: vec![0; 64 << 10] }
    }

    /// One xattr of an entry.
    pub fn get(&mut self, dir: BorrowedFd<'_>, file: &CStr, name: &[u8]) -> rustix::io::Result<Option<Vec<u8>>> {
        match rustix::fs::lgetxattr(proc_path(dir, file), name, &mut self.value[..]) {
            Ok(length) => Ok(Some(self.value[..length].to_vec())),
            Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The xattrs of an entry whose names are to be kept, sorted by name; never overlayfs' own.
    pub fn all(
        &mut self,
        dir: BorrowedFd<'_>,
        file: &CStr,
        keep: impl Fn(&[u8]) -> bool,
    ) -> rustix::io::Result<Vec<Xattr>> {
        let path = proc_path(dir, file);
        let length = match rustix::fs::llistxattr(&path, &mut self.list[..]) {
            Ok(length) => length,
            Err(Errno::NOTSUP) => 0,
            Err(errno) => return Err(errno),
        };
        let mut found = Vec::new();
        for name in self.list[..length].split(|byte| *byte == 0) {
            if name.is_empty() || is_overlay_note(name) || !keep(name) {
                continue;
            }
            match rustix::fs::lgetxattr(&path, name, &mut self.value[..]) {
                Ok(length) => found.push((name.to_vec(), self.value[..length].to_vec())),
                // Gone since it was listed, or one of those that are listed but not shown to everyone.
                Err(Errno::NODATA | Errno::NOTSUP) => {}
                Err(errno) => return Err(errno),
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
