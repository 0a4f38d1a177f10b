//! Finishes a layer when those below it are there: directories that its tar took for granted, and hard links to
//! files that it does not have.

use super::LayerError;
use super::apply::Deferred;
use super::metadata::{Label, Metadata, read_xattrs, set_at, set_open, stat_of};
use super::resolve::{self, join, split};
use super::unpack::{make_dir, remove_tree, set_time};
use crate::owners::{OwnerNotes, Owners};
use crate::walk;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags, Stat, XattrFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Does what [`apply`](super::apply::apply) left. `lower` is the opened root of a mounted view of all that is below;
/// `None` if nothing is; `owners` are theirs. A directory without an entry becomes what it is below, else mode 0755 of root with time 0;
/// where there is a symlink below, its files go where that points to. To run it twice does no harm.
pub fn finish_deferred(
    upper: &Path,
    deferred: &Deferred,
    lower: Option<BorrowedFd<'_>>,
    owners: Option<&Owners>,
) -> Result<(), LayerError> {
    let mut finish = Finish {
        root: walk::open_root(upper)?,
        label: upper,
        lower,
        owners,
        notes: OwnerNotes::open(upper)?,
        todo: deferred.parents.iter().map(|path| path.as_os_str().as_bytes().to_vec()).collect(),
        moved: Vec::new(),
        times: BTreeMap::new(),
    };
    // Parents come before what is in them, also of those that are added on the way.
    let mut last = None;
    while let Some(path) = finish.next_parent(last.as_deref()) {
        finish.parent(&path)?;
        last = Some(path);
    }
    if let (true, Some(lower)) = (deferred.opaque_root, lower) {
        finish.hide_all(lower)?;
    }
    for (name, target) in &deferred.links {
        finish.link(name.as_os_str().as_bytes(), target.as_os_str().as_bytes())?;
    }
    finish.restore_times()
}

struct Finish<'a> {
    root: OwnedFd,
    label: &'a Path,
    lower: Option<BorrowedFd<'a>>,
    owners: Option<&'a Owners>,
    notes: OwnerNotes,
    /// Directories whose metadata is to be found below.
    todo: BTreeSet<Vec<u8>>,
    /// Old and new path of directories that were moved.
    moved: Vec<(Vec<u8>, Vec<u8>)>,
    /// Directories whose time is to be set when all else is done.
    times: BTreeMap<Vec<u8>, (i64, u32)>,
}

impl Finish<'_> {
    fn next_parent(&self, last: Option<&[u8]>) -> Option<Vec<u8>> {
        match last {
            None => self.todo.first().cloned(),
            Some(last) => {
                let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
                self.todo.range::<[u8], _>(after).next().cloned()
            }
        }
    }

    /// Where a path is now.
    fn current(&self, path: &[u8]) -> Vec<u8> {
        let mut path = path.to_vec();
        for (old, new) in &self.moved {
            if resolve::is_within(&path, old) {
                let rest = path[old.len()..].to_vec();
                path = if rest.is_empty() { new.clone() } else { join(new, &rest[1..]) };
            }
        }
        path
    }

    fn parent(&mut self, asked: &[u8]) -> Result<(), LayerError> {
        let path = self.current(asked);
        let label = Label(self.label, &path);
        let Some(dir) =
            walk::open_below_if_any(self.root.as_fd(), &path).map_err(|errno| label.error("open", errno))?
        else {
            return Ok(());
        };
        let below = self.visible_below(&path).map_err(|errno| label.error("look below", errno))?;
        match below {
            Some((lower, name, stat)) => match walk::file_type(&stat) {
                FileType::Directory => {
                    let xattrs = read_xattrs(lower.as_fd(), &name).map_err(|errno| label.error("look below", errno))?;
                    let stat = stat_of(self.owners, lower.as_fd(), &name, &path, stat)
                        .map_err(|errno| label.error("look below", errno))?;
                    let meta = Metadata { mtime: None, ..Metadata::of(&stat, &xattrs) };
                    set_open(&dir, FileType::Directory, &meta, &self.notes, label)?;
                    self.times.insert(path, (stat.st_mtime, stat.st_mtime_nsec as u32));
                    Ok(())
                }
                FileType::Symlink => self.follow(&path, dir),
                _ => self.default_metadata(path, &dir),
            },
            None => self.default_metadata(path, &dir),
        }
    }

    fn default_metadata(&mut self, path: Vec<u8>, dir: &OwnedFd) -> Result<(), LayerError> {
        let meta = Metadata { mode: 0o755, uid: 0, gid: 0, mtime: None, xattrs: &[] };
        set_open(dir, FileType::Directory, &meta, &self.notes, Label(self.label, &path))?;
        self.times.insert(path, (0, 0));
        Ok(())
    }

    /// What overlayfs would merge with the directory `path`: the directory below that has it, and its status there.
    fn visible_below(&self, path: &[u8]) -> Result<Option<(OwnedFd, CString, Stat)>, Errno> {
        let Some(lower) = self.lower else { return Ok(None) };
        let mut below = walk::reopen(lower)?;
        if path.is_empty() {
            let stat = rustix::fs::fstat(&below)?;
            return Ok(Some((below, c".".to_owned(), stat)));
        }
        let (parent, name) = split(path);
        let mut above = walk::reopen(self.root.as_fd())?;
        for component in parent.split(|byte| *byte == b'/').filter(|component| !component.is_empty()) {
            let component = CString::new(component).map_err(|_| Errno::INVAL)?;
            match walk::open_dir_if_any(below.as_fd(), &component)? {
                Some(dir) => below = dir,
                None => return Ok(None),
            }
            above = walk::open_dir(above.as_fd(), &component)?;
            if walk::is_opaque(above.as_fd())? {
                return Ok(None);
            }
        }
        let name = CString::new(name).map_err(|_| Errno::INVAL)?;
        Ok(walk::stat_if_any(below.as_fd(), &name)?.map(|stat| (below, name, stat)))
    }

    /// `path` is a symlink below: moves what the layer has in it to where that leads.
    fn follow(&mut self, path: &[u8], dir: OwnedFd) -> Result<(), LayerError> {
        let label = Label(self.label, path);
        let Some(lower) = self.lower else { return Ok(()) };
        let place = match resolve::resolve(lower, path, None) {
            // A loop leads nowhere, so nothing is lost by having a directory in its place.
            Err(Errno::LOOP) => return self.default_metadata(path.to_vec(), &dir),
            result => result.map_err(|errno| label.error("follow", errno))?,
        };
        if resolve::is_within(&place.path, path) {
            return self.default_metadata(path.to_vec(), &dir);
        }
        let target = self.make_dirs(&place.path)?;
        let (parent, name) = split(path);
        self.keep_time(parent)?;
        self.keep_time(&place.path)?;
        if walk::is_opaque(dir.as_fd()).map_err(|errno| label.error("read", errno))? {
            rustix::fs::fsetxattr(&target, walk::OPAQUE, b"y", XattrFlags::empty())
                .map_err(|errno| label.error("mark as opaque", errno))?;
        }
        merge(dir.as_fd(), target.as_fd()).map_err(|error| label.error("move the files of", error))?;
        self.notes.moved(path, &place.path).map_err(|errno| label.error("note the owners of the files of", errno))?;
        let parent = self.open(parent)?;
        let name = CString::new(name).map_err(|_| label.error("remove", Errno::INVAL))?;
        rustix::fs::unlinkat(&parent, &name, AtFlags::REMOVEDIR).map_err(|errno| label.error("remove", errno))?;
        self.times.remove(path);
        self.moved.push((path.to_vec(), place.path));
        Ok(())
    }

    /// The directory `path` of the upper dir, made if missing; then it is to become what it is below.
    fn make_dirs(&mut self, path: &[u8]) -> Result<OwnedFd, LayerError> {
        let mut made = Vec::new();
        let mut make = |dir: BorrowedFd<'_>, name: &CStr, path: &[u8]| match make_dir(dir, name, false) {
            // Something of this layer is in the way: what it says goes.
            Err(Errno::EXIST) => {
                remove_tree(dir, name).map_err(|_| Errno::NOTDIR)?;
                made.push(path.to_vec());
                make_dir(dir, name, true)
            }
            result => {
                made.push(path.to_vec());
                result
            }
        };
        let place = resolve::resolve(self.root.as_fd(), path, Some(&mut make))
            .map_err(|errno| Label(self.label, path).error("make the folder", errno))?;
        for path in made {
            self.keep_time(split(&path).0)?;
            self.parent(&path)?;
        }
        place.dir.ok_or_else(|| Label(self.label, path).error("make the folder", Errno::NOTDIR))
    }

    fn open(&self, path: &[u8]) -> Result<OwnedFd, LayerError> {
        let label = Label(self.label, path);
        walk::open_below_if_any(self.root.as_fd(), path)
            .and_then(|dir| dir.ok_or(Errno::NOENT))
            .map_err(|errno| label.error("open", errno))
    }

    /// Remembers a directory's time before something is done in it.
    fn keep_time(&mut self, path: &[u8]) -> Result<(), LayerError> {
        if !self.times.contains_key(path) {
            let dir = self.open(path)?;
            let stat = rustix::fs::fstat(&dir).map_err(|errno| Label(self.label, path).error("look at", errno))?;
            self.times.insert(path.to_vec(), (stat.st_mtime, stat.st_mtime_nsec as u32));
        }
        Ok(())
    }

    fn restore_times(self) -> Result<(), LayerError> {
        for (path, mtime) in &self.times {
            match set_time(self.root.as_fd(), path, *mtime) {
                // It was in a directory that was moved; there its time was kept.
                Err(Errno::NOENT) => {}
                result => result.map_err(|errno| Label(self.label, path).error("set the time of", errno))?,
            }
        }
        Ok(())
    }

    /// Hides all that is below the root: each name there by a whiteout, or by an opaque directory.
    fn hide_all(&mut self, lower: BorrowedFd<'_>) -> Result<(), LayerError> {
        let label = Label(self.label, b"");
        self.keep_time(b"")?;
        let hide = || -> Result<(), Errno> {
            for name in walk::names(walk::reopen(lower)?.as_fd())? {
                match walk::open_dir_if_any(self.root.as_fd(), &name)? {
                    Some(dir) => rustix::fs::fsetxattr(&dir, walk::OPAQUE, b"y", XattrFlags::empty())?,
                    None if walk::stat_if_any(self.root.as_fd(), &name)?.is_none() => {
                        walk::make_whiteout(self.root.as_fd(), &name)?;
                    }
                    None => {}
                }
            }
            Ok(())
        };
        hide().map_err(|errno| label.error("hide what is below", errno))
    }

    /// Makes a hard link to a file of the layers below, copying that up first, as overlayfs does.
    fn link(&mut self, name: &[u8], target: &[u8]) -> Result<(), LayerError> {
        let name = self.current(name);
        let target = self.current(target);
        let label = Label(self.label, &name);
        let (parent, base) = split(&name);
        self.keep_time(parent)?;
        let parent = self.open(parent)?;
        let base = CString::new(base).map_err(|_| label.error("link", Errno::INVAL))?;
        let dangling = || LayerError::DanglingLink { path: label.path(), target: Label(self.label, &target).path() };

        let (target_dir, target_base) = split(&target);
        let target_base = CString::new(target_base).map_err(|_| dangling())?;
        let above = resolve::resolve(self.root.as_fd(), target_dir, None)
            .map_err(|errno| label.error("find the target of", errno))?;
        if let Some(dir) = &above.dir {
            let found = walk::stat_if_any(dir.as_fd(), &target_base)
                .map_err(|errno| label.error("find the target of", errno))?;
            match found {
                Some(stat) if walk::is_whiteout(&stat) => {}
                Some(_) => return link(dir, &target_base, &parent, &base).map_err(|errno| label.error("link", errno)),
                None => {}
            }
        }
        let below = match self.lower {
            Some(lower) => {
                resolve::resolve(lower, target_dir, None).map_err(|errno| label.error("find the target of", errno))?
            }
            None => return Err(dangling()),
        };
        let Some(lower_dir) = below.dir else { return Err(dangling()) };
        let stat = walk::stat_if_any(lower_dir.as_fd(), &target_base)
            .map_err(|errno| label.error("find the target of", errno))?
            .filter(|stat| walk::file_type(stat) != FileType::Directory)
            .ok_or_else(dangling)?;
        let below_path = join(&below.path, target_base.to_bytes());
        let stat = stat_of(self.owners, lower_dir.as_fd(), &target_base, &below_path, stat)
            .map_err(|errno| label.error("look below", errno))?;
        let copied = self.make_dirs(&below.path)?;
        self.keep_time(&below.path)?;
        match walk::stat_if_any(copied.as_fd(), &target_base).map_err(|errno| label.error("look at", errno))? {
            // The layer deletes the target's name, or has something else there: only the new name gets the file.
            Some(above) if walk::is_whiteout(&above) => {
                let made = walk::stat_if_any(parent.as_fd(), &base).map_err(|errno| label.error("look at", errno))?;
                if made.is_some() {
                    // By an earlier run: what the layer itself had there, unpacking has removed.
                    return Ok(());
                }
                copy_up(lower_dir.as_fd(), &target_base, &stat, parent.as_fd(), &base, &self.notes, label)
            }
            found => {
                if found.is_none() {
                    let label = Label(self.label, &below_path);
                    copy_up(lower_dir.as_fd(), &target_base, &stat, copied.as_fd(), &target_base, &self.notes, label)?;
                }
                link(&copied, &target_base, &parent, &base)
                    .and_then(|()| self.notes.linked(&below_path, &name))
                    .map_err(|errno| label.error("link", errno))
            }
        }
    }
}

fn link(from: &OwnedFd, from_name: &CStr, to: &OwnedFd, to_name: &CStr) -> Result<(), Errno> {
    match rustix::fs::linkat(from, from_name, to, to_name, AtFlags::empty()) {
        Err(Errno::EXIST) => {
            let (ours, theirs) = (walk::stat(from.as_fd(), from_name)?, walk::stat(to.as_fd(), to_name)?);
            if (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino) {
                return Ok(());
            }
            remove_tree(to.as_fd(), to_name).map_err(|_| Errno::EXIST)?;
            rustix::fs::linkat(from, from_name, to, to_name, AtFlags::empty())
        }
        result => result,
    }
}

fn copy_up(
    lower: BorrowedFd<'_>,
    lower_name: &CStr,
    stat: &Stat,
    dir: BorrowedFd<'_>,
    name: &CStr,
    notes: &OwnerNotes,
    label: Label<'_>,
) -> Result<(), LayerError> {
    let kind = walk::file_type(stat);
    let xattrs = read_xattrs(lower, lower_name).map_err(|errno| label.error("look below", errno))?;
    let meta = Metadata::of(stat, &xattrs);
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut from = rustix::fs::openat(lower, lower_name, flags, Mode::empty())
                .map(File::from)
                .map_err(|errno| label.error("copy up", errno))?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut to = rustix::fs::openat(dir, name, flags, Mode::from_raw_mode(meta.mode & 0o777))
                .map(File::from)
                .map_err(|errno| label.error("copy up", errno))?;
            std::io::copy(&mut from, &mut to).map_err(|error| label.error("copy up", error))?;
            return set_open(&to, kind, &meta, notes, label);
        }
        FileType::Symlink => {
            rustix::fs::readlinkat(lower, lower_name, Vec::new())
                .and_then(|target| rustix::fs::symlinkat(&target, dir, name))
                .map_err(|errno| label.error("copy up", errno))?;
        }
        _ => rustix::fs::mknodat(dir, name, kind, Mode::RUSR, stat.st_rdev)
            .map_err(|errno| label.error("copy up", errno))?,
    }
    set_at(dir, name, kind, &meta, notes, label)
}

/// Moves all that is in `from` to `to`; what is moved replaces what is there, directories are merged.
fn merge(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> std::io::Result<()> {
    for name in walk::names(walk::reopen(from)?.as_fd())? {
        match rustix::fs::renameat_with(from, &name, to, &name, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            result => {
                result?;
                continue;
            }
        }
        let pair = (walk::open_dir_if_any(from, &name)?, walk::open_dir_if_any(to, &name)?);
        if let (Some(from_dir), Some(to_dir)) = pair {
            merge(from_dir.as_fd(), to_dir.as_fd())?;
            rustix::fs::unlinkat(from, &name, AtFlags::REMOVEDIR)?;
        } else {
            remove_tree(to, &name)?;
            rustix::fs::renameat(from, &name, to, &name)?;
        }
    }
    Ok(())
}
