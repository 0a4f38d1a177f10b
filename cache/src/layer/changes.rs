//! What a snapshot in upper form changes, and what in it only overlayfs left behind.
//!
//! overlayfs copies a file up as soon as it is opened for writing or given the owner it has, and each directory on
//! the way to it. Nobody sees a difference, but the layer would have them; and a step that changed nothing would
//! seem to have changed something.

use crate::error::FileError;
use crate::owners::{self, Owners};
use crate::walk::{self, Xattr, XattrReader};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Removes from `upper` what changes nothing: directories and files that were only copied up, whiteouts of what is
/// not there, marks of opacity that hide nothing. Times of the directories that stay are kept. `lower` is the opened
/// root of a mounted view of all that is below; `None` if nothing is; `owners` are those of what is below.
pub fn normalise(upper: &Path, lower: Option<BorrowedFd<'_>>, owners: Option<&Owners>) -> Result<(), FileError> {
    let own = Owners::read(&[upper])?;
    let root = walk::open_root(upper)?;
    let lower = match lower {
        Some(lower) => Some(walk::reopen(lower).map_err(FileError::at("open what is below", upper))?),
        None => None,
    };
    let owners = Both { upper: own.as_ref(), lower: owners };
    let mut pass = Pass { xattrs: XattrReader::new(), frames: Vec::new(), label: upper.to_owned(), owners };
    pass.enter(root, lower, OsString::new())?;
    while !pass.frames.is_empty() {
        pass.step()?;
    }
    Ok(())
}

/// Names in the directory `lower` that are not in `upper`, sorted: what an opaque `upper` hides.
pub fn hidden_children(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>) -> Result<Vec<OsString>, FileError> {
    let names = hidden_names(upper, lower, b"").map_err(FileError::at("list", "."))?;
    Ok(names.into_iter().map(|name| OsString::from_vec(name.into_bytes())).collect())
}

/// Names in the directory at `path` below `lower` that are not in `upper`, sorted. None if that is no directory.
pub(crate) fn hidden_names(
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    path: &[u8],
) -> rustix::io::Result<Vec<CString>> {
    let Some(lower) = walk::open_below_if_any(lower, path)? else { return Ok(Vec::new()) };
    let kept: HashSet<CString> = walk::names(walk::reopen(upper)?.as_fd())?.into_iter().collect();
    let mut hidden = walk::names(lower.as_fd())?;
    hidden.retain(|name| !kept.contains(name));
    hidden.sort_unstable();
    Ok(hidden)
}

struct Pass<'a> {
    xattrs: XattrReader,
    frames: Vec<Frame>,
    label: PathBuf,
    owners: Both<'a>,
}

/// Owners beside the files of the two trees that are compared.
#[derive(Clone, Copy, Default)]
pub(crate) struct Both<'a> {
    upper: Option<&'a Owners>,
    lower: Option<&'a Owners>,
}

struct Frame {
    name: OsString,
    dir: OwnedFd,
    /// The same directory below, unless there is none or this one hides it.
    lower: Option<OwnedFd>,
    /// Whether this directory could be left to the one below, were it empty.
    redundant: bool,
    times: Timestamps,
    left: std::vec::IntoIter<CString>,
    /// How many entries stay.
    kept: usize,
    touched: bool,
}

impl Pass<'_> {
    /// Takes the next entry of the deepest directory, or leaves that directory.
    fn step(&mut self) -> Result<(), FileError> {
        let Some(frame) = self.frames.last_mut() else { return Ok(()) };
        let Some(name) = frame.left.next() else { return self.leave() };
        let stat = walk::stat(frame.dir.as_fd(), &name).map_err(|errno| self.error("look at", Some(&name), errno))?;
        let frame = self.frames.last().expect("there was one above");
        let lower = frame.lower.as_ref().map(AsFd::as_fd);
        if walk::file_type(&stat) == FileType::Directory {
            let dir =
                walk::open_dir(frame.dir.as_fd(), &name).map_err(|errno| self.error("open", Some(&name), errno))?;
            let below = match lower {
                Some(lower) => {
                    walk::open_dir_if_any(lower, &name).map_err(|errno| self.error("look below", Some(&name), errno))?
                }
                None => None,
            };
            return self.enter(dir, below, OsString::from_vec(name.into_bytes()));
        }
        let redundant = match lower {
            None => walk::is_whiteout(&stat),
            Some(lower) if walk::is_whiteout(&stat) => {
                walk::stat_if_any(lower, &name).map_err(|errno| self.error("look below", Some(&name), errno))?.is_none()
            }
            Some(lower) => {
                let upper = frame.dir.try_clone().map_err(|error| self.error("open", Some(&name), error))?;
                let lower = lower_copy(lower)?;
                let path = self.path(Some(&name));
                same_file(&mut self.xattrs, self.owners, &path, upper.as_fd(), lower.as_fd(), &name, &stat)
                    .map_err(|error| self.error("compare", Some(&name), error))?
            }
        };
        let frame = self.frames.last_mut().expect("there was one above");
        if redundant {
            frame.touched = true;
            rustix::fs::unlinkat(&frame.dir, &name, AtFlags::empty())
                .map_err(|errno| self.error("remove", Some(&name), errno))?;
        } else {
            frame.kept += 1;
        }
        Ok(())
    }

    fn enter(&mut self, dir: OwnedFd, lower: Option<OwnedFd>, name: OsString) -> Result<(), FileError> {
        let open = || -> std::io::Result<Frame> {
            let stat = rustix::fs::fstat(&dir)?;
            let mut opaque = walk::is_opaque(dir.as_fd())?;
            let hides = match &lower {
                Some(lower) => !walk::names(walk::reopen(lower.as_fd())?.as_fd())?.is_empty(),
                None => false,
            };
            if opaque && !hides {
                // overlayfs marks every directory it makes, just in case.
                rustix::fs::fremovexattr(&dir, walk::OPAQUE)?;
                opaque = false;
            }
            let redundant = match &lower {
                Some(lower) if !opaque => same_directory(&mut self.xattrs, self.owners, &dir, lower, &stat)?,
                _ => false,
            };
            let left = walk::names(dir.as_fd())?.into_iter();
            let lower = lower.filter(|_| !opaque);
            Ok(Frame { name, dir, lower, redundant, times: times(&stat), left, kept: 0, touched: false })
        };
        match open() {
            Ok(frame) => {
                self.frames.push(frame);
                Ok(())
            }
            Err(error) => Err(self.error("read", None, error)),
        }
    }

    fn leave(&mut self) -> Result<(), FileError> {
        let Some(frame) = self.frames.pop() else { return Ok(()) };
        let Some(parent) = self.frames.last_mut() else {
            return restore(&frame).map_err(|errno| self.error("set the time of", None, errno));
        };
        if frame.redundant && frame.kept == 0 {
            parent.touched = true;
            rustix::fs::unlinkat(&parent.dir, frame.name.as_os_str(), AtFlags::REMOVEDIR)
                .map_err(|errno| self.error("remove", None, errno))
        } else {
            parent.kept += 1;
            restore(&frame).map_err(|errno| self.error("set the time of", None, errno))
        }
    }

    /// Relative to the root.
    fn path(&self, name: Option<&CStr>) -> Vec<u8> {
        let names = self.frames.iter().map(|frame| frame.name.as_bytes()).chain(name.map(CStr::to_bytes));
        names.filter(|name| !name.is_empty()).collect::<Vec<_>>().join(&b'/')
    }

    fn error(&self, verb: &'static str, name: Option<&CStr>, error: impl Into<std::io::Error>) -> FileError {
        let mut path = self.label.clone();
        path.extend(self.frames.iter().map(|frame| &frame.name).filter(|name| !name.is_empty()));
        path.extend(name.map(|name| OsStr::from_bytes(name.to_bytes())));
        FileError::at(verb, path)(error.into())
    }
}

fn lower_copy(lower: BorrowedFd<'_>) -> Result<OwnedFd, FileError> {
    lower.try_clone_to_owned().map_err(FileError::at("open", "."))
}

fn restore(frame: &Frame) -> rustix::io::Result<()> {
    if frame.touched { rustix::fs::futimens(&frame.dir, &frame.times) } else { Ok(()) }
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

fn same_stat(upper: &Stat, lower: &Stat) -> bool {
    upper.st_mode == lower.st_mode && (upper.st_uid, upper.st_gid) == (lower.st_uid, lower.st_gid)
}

fn same_mtime(upper: &Stat, lower: &Stat) -> bool {
    (upper.st_mtime, upper.st_mtime_nsec) == (lower.st_mtime, lower.st_mtime_nsec)
}

/// Times do not count, as in BuildKit: whatever used `/tmp` and cleaned up behind itself changed nothing.
fn same_directory(
    xattrs: &mut XattrReader,
    owners: Both<'_>,
    upper: &OwnedFd,
    lower: &OwnedFd,
    stat: &Stat,
) -> rustix::io::Result<bool> {
    let below = rustix::fs::fstat(lower)?;
    if !same_stat(stat, &below) {
        return Ok(false);
    }
    // A directory's owner is noted on itself, so its path does not matter.
    let owner = owners::of(owners.upper, upper.as_fd(), c".", b"", stat)?;
    if owner != owners::of(owners.lower, lower.as_fd(), c".", b"", &below)? {
        return Ok(false);
    }
    Ok(all(xattrs, upper.as_fd(), c".")? == all(xattrs, lower.as_fd(), c".")?)
}

fn all(xattrs: &mut XattrReader, dir: BorrowedFd<'_>, name: &CStr) -> rustix::io::Result<Vec<Xattr>> {
    xattrs.all(dir, name, |_| true)
}

/// Whether `name` is in both directories, with the same metadata and bytes. Other names of the file do not count: a
/// link that was made to a file below leaves that file as it was.
pub(crate) fn same_file(
    xattrs: &mut XattrReader,
    owners: Both<'_>,
    path: &[u8],
    upper: BorrowedFd<'_>,
    lower: BorrowedFd<'_>,
    name: &CStr,
    stat: &Stat,
) -> std::io::Result<bool> {
    let Some(below) = walk::stat_if_any(lower, name)? else { return Ok(false) };
    if owners::of(owners.upper, upper, name, path, stat)? != owners::of(owners.lower, lower, name, path, &below)? {
        return Ok(false);
    }
    if !same_stat(stat, &below) || !same_mtime(stat, &below) || stat.st_size != below.st_size {
        return Ok(false);
    }
    let same_content = match walk::file_type(stat) {
        FileType::RegularFile => same_bytes(upper, lower, name)?,
        FileType::Symlink => {
            let target = |dir| rustix::fs::readlinkat(dir, name, Vec::new());
            target(upper)? == target(lower)?
        }
        FileType::CharacterDevice | FileType::BlockDevice => stat.st_rdev == below.st_rdev,
        FileType::Fifo => true,
        FileType::Directory | FileType::Socket | FileType::Unknown => false,
    };
    Ok(same_content && all(xattrs, upper, name)? == all(xattrs, lower, name)?)
}

fn same_bytes(upper: BorrowedFd<'_>, lower: BorrowedFd<'_>, name: &CStr) -> std::io::Result<bool> {
    let open = |dir| -> Result<File, Errno> {
        rustix::fs::openat(dir, name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
            .map(File::from)
    };
    let (mut upper, mut lower) = (open(upper)?, open(lower)?);
    let (mut ours, mut theirs) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let length = upper.read(&mut ours)?;
        if length == 0 {
            return Ok(lower.read(&mut theirs[..1])? == 0);
        }
        match lower.read_exact(&mut theirs[..length]) {
            Ok(()) if ours[..length] == theirs[..length] => {}
            Ok(()) => return Ok(false),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tree::{is_root, list, make, overlay, path_of};
    use std::fs;

    #[test]
    fn only_changes_stay() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["lower", "empty", "upper", "work"] {
            fs::create_dir(path(name)).unwrap();
        }
        make(
            &path("lower"),
            &[
                "d usr/lib",
                "f usr/lib/a 1",
                "f usr/lib/b 1",
                "l usr/lib/l a",
                "d tmp 1777",
                "d gone",
                "f gone/x 1",
                "d etc",
            ],
        );
        let below = overlay(&[&path("empty"), &path("lower")], None);
        {
            let mount = overlay(&[&path("lower")], Some((&path("upper"), &path("work"))));
            let root = path_of(&mount);
            // Copied up, though nothing changes.
            std::os::unix::fs::lchown(root.join("usr/lib/a"), Some(0), Some(0)).unwrap();
            std::os::unix::fs::lchown(root.join("usr/lib/l"), Some(0), Some(0)).unwrap();
            fs::write(root.join("tmp/scratch"), "x").unwrap();
            fs::remove_file(root.join("tmp/scratch")).unwrap();
            // Changed.
            fs::create_dir(root.join("etc/new")).unwrap();
            fs::write(root.join("etc/new/file"), "x").unwrap();
            fs::remove_dir_all(root.join("gone")).unwrap();
            fs::create_dir(root.join("gone")).unwrap();
        }
        let time = |name: &str| fs::metadata(path("upper").join(name)).unwrap().modified().unwrap();
        let before = time("etc");
        normalise(&path("upper"), Some(below.as_fd()), None).unwrap();
        let left: Vec<String> = list(&path("upper")).into_iter().map(|(name, what)| format!("{name} {what}")).collect();
        assert_eq!(
            left,
            [
                "etc dir 755 0:0",
                "etc/new dir 755 0:0",
                "etc/new/file file \"x\" 644 0:0",
                "gone dir 755 0:0 user.overlay.opaque=y",
            ]
        );
        assert_eq!(time("etc"), before);
        let hidden = {
            let upper = walk::open_root(&path("upper/gone")).unwrap();
            let lower = walk::open_root(&path("lower/gone")).unwrap();
            hidden_children(upper.as_fd(), lower.as_fd()).unwrap()
        };
        assert_eq!(hidden, ["x"]);
    }

    #[test]
    fn without_anything_below_whiteouts_go() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &["o d", "f d/f x", "w d/gone", "w gone"]);
        normalise(dir.path(), None, None).unwrap();
        assert_eq!(list(dir.path()).into_values().collect::<Vec<_>>(), ["dir 755 0:0", "file \"x\" 644 0:0"]);
    }
}
