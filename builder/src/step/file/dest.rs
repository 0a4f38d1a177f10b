//! The tree that is changed: an upper dir being written over a base that is only read. Directories of the base into
//! which something is written are copied up, as overlayfs would. Paths are relative to the root, without leading
//! slash; "canonical" ones have no symbolic links on their way.

use super::tree::{components, read_link};
use super::view::View;
use super::{FileError, xattr};
use crate::source::dir::{self, Meta};
use cache::owners::OwnerNotes;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;
use std::collections::{HashSet, VecDeque};
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// As many symbolic links as BuildKit follows in one path.
const MAX_LINKS: usize = 255;

/// A tree that is changed.
pub struct Dest {
    upper: OwnedFd,
    base: Option<View>,
    notes: OwnerNotes,
    /// Directories in the upper dir that hide what the base has at their path (overlayfs' opaque directories).
    opaque: HashSet<Vec<u8>>,
}

/// Something in the tree.
#[derive(Clone, Copy, Debug)]
pub struct Found {
    /// What it is.
    pub meta: Meta,
    /// It is in the upper dir, not only in the base.
    pub in_upper: bool,
}

/// Whether symbolic links in a destination are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Links {
    /// Within the root.
    Follow,
    /// They are in the way (`--link`).
    Ignore,
}

/// What a directory gets that has to be made on the way to a destination.
#[derive(Clone, Copy, Debug)]
pub struct NewDir {
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// Modification time in seconds since 1970; else the time of the step.
    pub epoch: Option<i64>,
}

impl Dest {
    /// Opens the upper dir and the layers below it, lowest first.
    pub fn open(upper: &Path, base: &[PathBuf]) -> Result<Dest, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let opened = rustix::fs::open(upper, flags, Mode::empty()).map_err(FileError::at("open", upper))?;
        Ok(Dest { upper: opened, base: View::open(base)?, notes: OwnerNotes::open(upper)?, opaque: HashSet::new() })
    }

    /// The upper dir.
    pub fn upper(&self) -> BorrowedFd<'_> {
        self.upper.as_fd()
    }

    /// What is at a canonical path.
    pub fn lookup(&self, path: &[u8]) -> Result<Option<Found>, FileError> {
        match self.upper_meta(path)? {
            Upper::Has(meta) => Ok(Some(Found { meta, in_upper: true })),
            Upper::Blocked => Ok(None),
            Upper::Nothing => Ok(self.base_meta(path)?.map(|meta| Found { meta, in_upper: false })),
        }
    }

    /// What the base shows at a path, if no opaque directory hides it.
    pub fn base_meta(&self, path: &[u8]) -> Result<Option<Meta>, FileError> {
        let Some(base) = &self.base else { return Ok(None) };
        if !self.opaque.is_empty() && ancestors(path).any(|dir| self.opaque.contains(dir)) {
            return Ok(None);
        }
        base.stat(path).map_err(at("look at", path))
    }

    /// Resolves `path` below the canonical directory `within`, out of which neither `..` nor links lead. The last name
    /// is followed too; what does not exist stays as it is.
    pub fn resolve(&self, within: &[u8], path: &[u8], links: Links) -> Result<Vec<u8>, FileError> {
        let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut done = within.to_vec();
        let mut followed = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                if done.len() > within.len() {
                    done.truncate(dir::split(&done).0.len());
                }
                continue;
            }
            let next = dir::join(&done, &name);
            let target = match links {
                Links::Follow => self.link_target(&next)?,
                Links::Ignore => None,
            };
            let Some(target) = target else {
                done = next;
                continue;
            };
            followed += 1;
            if followed > MAX_LINKS {
                return Err(FileError::SymlinkLoop { path: absolute(path) });
            }
            if target.starts_with(b"/") {
                done = within.to_vec();
            }
            components(&target).rev().for_each(|name| rest.push_front(name.to_vec()));
        }
        Ok(done)
    }

    /// Makes the directory at a canonical path and those above it where they are missing, and copies up those that
    /// only the base has.
    pub fn make_dirs(&self, path: &[u8], new: &NewDir) -> Result<(), FileError> {
        for dir in ancestors(path) {
            match self.lookup(dir)? {
                Some(found) if !found.meta.is_dir() => return Err(FileError::NotDirectory { path: absolute(dir) }),
                Some(found) if found.in_upper => {}
                Some(found) => self.copy_up_dir(dir, &found.meta)?,
                None => self.make_dir(dir, new)?,
            }
        }
        Ok(())
    }

    /// Makes one directory, in a directory that is in the upper dir.
    pub fn make_dir(&self, path: &[u8], new: &NewDir) -> Result<(), FileError> {
        rustix::fs::mkdirat(&self.upper, path, Mode::from_raw_mode(0o700)).map_err(at("make directory", path))?;
        self.set_owner(path, new.owner)?;
        self.set_mode(path, new.mode)?;
        if let Some(seconds) = new.epoch {
            self.set_mtime(path, (seconds, 0))?;
        }
        Ok(())
    }

    /// Makes a directory that the base has in the upper dir, with the same metadata. As in overlayfs, the directory
    /// around it keeps its time: nothing changes in it.
    pub fn copy_up_dir(&self, path: &[u8], meta: &Meta) -> Result<(), FileError> {
        let parent = dir::split(path).0;
        let around = match self.upper_meta(parent)? {
            Upper::Has(meta) => Some(meta.mtime),
            Upper::Blocked | Upper::Nothing => None,
        };
        rustix::fs::mkdirat(&self.upper, path, Mode::from_raw_mode(0o700)).map_err(at("make directory", path))?;
        self.set_owner(path, (meta.uid, meta.gid))?;
        self.set_mode(path, meta.mode)?;
        if let Some(base) = &self.base {
            let xattrs = xattr::read_at(base.root(), path);
            if !xattrs.is_empty() {
                xattr::write(self.open_dir(path)?, &xattrs).map_err(at("set attributes of", path))?;
            }
        }
        self.set_mtime(path, meta.mtime)?;
        match around {
            Some(mtime) => self.set_mtime(parent, mtime),
            None => Ok(()),
        }
    }

    /// Removes what the upper dir has at a path, with all below it. What the base has there shows again.
    pub fn remove(&self, path: &[u8]) -> Result<(), FileError> {
        match rustix::fs::unlinkat(&self.upper, path, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(Errno::ISDIR | Errno::PERM) => {}
            Err(errno) => return Err(at("remove", path)(errno)),
        }
        for entry in dir::list(self.upper(), path).map_err(at("read directory", path))? {
            self.remove(&dir::join(path, &entry.name))?;
        }
        rustix::fs::unlinkat(&self.upper, path, AtFlags::REMOVEDIR).map_err(at("remove", path))
    }

    /// Makes a directory of the upper dir hide what the base has at its path.
    pub fn make_opaque(&mut self, path: &[u8]) -> Result<(), FileError> {
        let opened = self.open_dir(path)?;
        // Snapshots are mounted with `userxattr`.
        rustix::fs::fsetxattr(&opened, "user.overlay.opaque", b"y", XattrFlags::empty())
            .map_err(at("hide the former content of", path))?;
        self.opaque.insert(path.to_vec());
        Ok(())
    }

    /// Opens a regular file at a canonical path, wherever it is, to be read. `None` if there is none.
    pub fn open_file(&self, path: &[u8]) -> Result<Option<OwnedFd>, FileError> {
        let Some(found) = self.lookup(path)? else { return Ok(None) };
        let root = match &self.base {
            Some(base) if !found.in_upper => base.root(),
            _ => self.upper(),
        };
        if !found.meta.is_file() {
            return Ok(None);
        }
        dir::open(root, path, OFlags::RDONLY).map(Some).map_err(at("open", path))
    }

    /// Opens a directory of the upper dir, for attributes.
    pub fn open_dir(&self, path: &[u8]) -> Result<OwnedFd, FileError> {
        dir::open(self.upper(), path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(at("open", path))
    }

    /// Sets the owner of what the upper dir has at a path; clears set-id bits and capabilities of files.
    pub fn set_owner(&self, path: &[u8], owner: (u32, u32)) -> Result<(), FileError> {
        let set = || -> Result<(), Errno> {
            let stat = rustix::fs::statat(&self.upper, name(path), AtFlags::SYMLINK_NOFOLLOW)?;
            let at = CString::new(name(path)).map_err(|_| Errno::INVAL)?;
            self.notes.set(self.upper(), &at, path, FileType::from_raw_mode(stat.st_mode), known(owner))
        };
        set().map_err(at("change the owner of", path))
    }

    /// Gives a file that was just made its metadata: the owner first, since a change of it clears set-id bits and
    /// capabilities.
    pub fn finish(
        &self,
        file: impl AsFd,
        owner: (u32, u32),
        mode: u32,
        xattrs: &[(Vec<u8>, Vec<u8>)],
        mtime: (i64, u32),
    ) -> Result<(), Errno> {
        let file = file.as_fd();
        self.notes.set_new(file, known(owner), mode)?;
        xattr::write(file, xattrs)?;
        rustix::fs::futimens(file, &times(mtime))
    }

    /// Makes a second name for what the upper dir has at `first`.
    pub fn link(&self, first: &[u8], target: &[u8]) -> Result<(), Errno> {
        rustix::fs::linkat(&self.upper, first, &self.upper, target, AtFlags::empty())?;
        self.notes.linked(first, target)
    }

    /// Sets the mode of what the upper dir has at a path; not for links.
    pub fn set_mode(&self, path: &[u8], mode: u32) -> Result<(), FileError> {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::chmodat(&self.upper, name(path), mode, AtFlags::empty()).map_err(at("change the mode of", path))
    }

    /// Sets the modification time of what the upper dir has at a path.
    pub fn set_mtime(&self, path: &[u8], mtime: (i64, u32)) -> Result<(), FileError> {
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        rustix::fs::utimensat(&self.upper, name(path), &times(mtime), flags).map_err(at("set the time of", path))
    }

    fn link_target(&self, path: &[u8]) -> Result<Option<Vec<u8>>, FileError> {
        let Some(found) = self.lookup(path)?.filter(|found| found.meta.is_symlink()) else { return Ok(None) };
        let root = match &self.base {
            Some(base) if !found.in_upper => base.root(),
            _ => self.upper(),
        };
        read_link(root, path).map(Some).map_err(at("read the link", path))
    }

    fn upper_meta(&self, path: &[u8]) -> Result<Upper, FileError> {
        match rustix::fs::statat(&self.upper, name(path), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Upper::Has(Meta::of(&stat))),
            Err(Errno::NOENT) => Ok(Upper::Nothing),
            Err(Errno::NOTDIR) => Ok(Upper::Blocked),
            Err(errno) => Err(at("look at", path)(errno)),
        }
    }
}

/// What the upper dir says about a path.
enum Upper {
    Has(Meta),
    /// Nothing, so the base decides.
    Nothing,
    /// A file is where a directory would have to be.
    Blocked,
}

/// To chown(2), 2^32-1 means to leave what is there: root, for what a step makes.
fn known((uid, gid): (u32, u32)) -> (u32, u32) {
    let root_if_none = |id: u32| if id == u32::MAX { 0 } else { id };
    (root_if_none(uid), root_if_none(gid))
}

/// Only the modification time; that of access stays.
pub fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() },
    }
}

/// `a`, `a/b`, `a/b/c`; nothing for the root.
pub fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let ends = path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| at);
    ends.chain((!path.is_empty()).then_some(path.len())).map(|end| &path[..end])
}

/// With leading slash, for messages.
pub fn absolute(path: &[u8]) -> String {
    format!("/{}", dir::text(path).trim_start_matches('/'))
}

/// For `map_err`: an error about a path of the destination.
pub fn at(verb: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> FileError {
    FileError::at(verb, absolute(path))
}

fn name(path: &[u8]) -> &[u8] {
    if path.is_empty() { b"." } else { path }
}
