//! Makes the files that a layer's entries describe.
//!
//! Every entry is made in a directory that `resolve.rs` found below the root, under a name without slashes, by calls
//! that follow no symlink; so nothing in a layer can reach outside.

use super::LayerError;
use super::apply::Deferred;
use super::metadata::{Label, Metadata, set_at, set_open, times};
use super::reader::{TarEntry, TarReader};
use super::resolve::{self, clean, is_within, join, split};
use crate::owners::OwnerNotes;
use crate::walk;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsString};
use std::fs::File;
use std::io::{BufRead, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

const OPAQUE_ENTRY: &[u8] = b".wh..wh..opq";

/// Makes entries in an upper dir.
pub(crate) struct Unpacker<'a> {
    root: OwnedFd,
    label: &'a Path,
    notes: OwnerNotes,
    /// Canonical path of every directory made so far -> its time, or `None` if the tar had no entry for it yet.
    dirs: HashMap<Vec<u8>, Option<(i64, u32)>>,
    parent: Option<Parent>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    opaque_root: bool,
    skipped_devices: Vec<PathBuf>,
}

/// The directory of the last entry: the next one is often in it too.
struct Parent {
    asked: Vec<u8>,
    path: Vec<u8>,
    dir: OwnedFd,
}

impl<'a> Unpacker<'a> {
    pub fn new(upper: &'a Path) -> Result<Unpacker<'a>, LayerError> {
        let root = walk::open_root(upper)?;
        let dirs = HashMap::from([(Vec::new(), None)]);
        let (links, skipped_devices) = (Vec::new(), Vec::new());
        let notes = OwnerNotes::open(upper)?;
        Ok(Unpacker { root, label: upper, notes, dirs, parent: None, links, opaque_root: false, skipped_devices })
    }

    /// Makes one entry, reading its data.
    pub fn entry(&mut self, entry: &TarEntry, tar: &mut TarReader<impl BufRead>) -> Result<(), LayerError> {
        let components = clean(&entry.path);
        let Some((base, parents)) = components.split_last() else {
            return self.root_entry(entry);
        };
        if components[0].starts_with(b".wh..wh.") && components != [OPAQUE_ENTRY] {
            // AUFS' own files.
            return Ok(());
        }
        let parent = self.open_parent(&parents.join(&b'/'))?;
        let result = match base.strip_prefix(b".wh.") {
            _ if *base == OPAQUE_ENTRY => self.make_opaque(&parent),
            Some(rest) if rest.starts_with(b".wh.") => Ok(()),
            Some(b"" | b"." | b"..") => {
                Err(LayerError::Malformed { offset: tar.offset(), what: "whiteout of no name" })
            }
            Some(name) => self.whiteout(&parent, name),
            None => {
                let name = CString::new(*base)
                    .map_err(|_| LayerError::Malformed { offset: tar.offset(), what: "NUL in a name" })?;
                self.make(&parent, &name, entry, tar)
            }
        };
        // Unless what was just made took its place away.
        if self.dirs.contains_key(&parent.path) && self.parent.is_none() {
            self.parent = Some(parent);
        }
        result
    }

    /// Sets the directories' times, which making files in them has changed, and tells what is left to do.
    pub fn finish(self) -> Result<(Deferred, Vec<PathBuf>), LayerError> {
        let mut parents = Vec::new();
        for (path, mtime) in self.dirs {
            let Some(mtime) = mtime else {
                parents.push(PathBuf::from(OsString::from_vec(path)));
                continue;
            };
            set_time(self.root.as_fd(), &path, mtime)
                .map_err(|errno| Label(self.label, &path).error("set the time of", errno))?;
        }
        parents.sort_unstable();
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        let links = self.links.into_iter().map(|(name, target)| (path(name), path(target))).collect();
        Ok((Deferred { links, parents, opaque_root: self.opaque_root }, self.skipped_devices))
    }

    fn root_entry(&mut self, entry: &TarEntry) -> Result<(), LayerError> {
        if entry.typeflag != b'5' {
            return Err(LayerError::UnknownType { path: PathBuf::from("/"), typeflag: char::from(entry.typeflag) });
        }
        let xattrs = wanted_xattrs(entry);
        set_open(
            &self.root,
            FileType::Directory,
            &metadata(entry, &xattrs, None, b"", self.label)?,
            &self.notes,
            Label(self.label, b""),
        )?;
        self.dirs.insert(Vec::new(), Some(entry.mtime));
        Ok(())
    }

    /// Takes the kept parent, or finds it, making what is missing.
    fn open_parent(&mut self, asked: &[u8]) -> Result<Parent, LayerError> {
        if let Some(parent) = self.parent.take().filter(|parent| parent.asked == asked) {
            return Ok(parent);
        }
        let dirs = &mut self.dirs;
        let mut make = |dir: BorrowedFd<'_>, name: &CStr, path: &[u8]| -> Result<OwnedFd, Errno> {
            let hides = match walk::stat_if_any(dir, name)? {
                None => false,
                // It was deleted before, so what is made now is new.
                Some(stat) if walk::is_whiteout(&stat) => {
                    rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
                    true
                }
                Some(_) => return Err(Errno::NOTDIR),
            };
            let made = make_dir(dir, name, hides)?;
            // The one below does not show through a new one, so there is nothing to wait for.
            dirs.insert(path.to_vec(), hides.then_some((0, 0)));
            Ok(made)
        };
        let place = resolve::resolve(self.root.as_fd(), asked, Some(&mut make))
            .map_err(|errno| Label(self.label, asked).error("make the folder", errno))?;
        match place.dir {
            Some(dir) => Ok(Parent { asked: asked.to_vec(), path: place.path, dir }),
            None => Err(Label(self.label, asked).error("make the folder", Errno::NOTDIR)),
        }
    }

    fn make_opaque(&mut self, parent: &Parent) -> Result<(), LayerError> {
        if parent.path.is_empty() {
            self.opaque_root = true;
            return Ok(());
        }
        rustix::fs::fsetxattr(&parent.dir, walk::OPAQUE, b"y", XattrFlags::empty())
            .map_err(|errno| Label(self.label, &parent.path).error("mark as opaque", errno))
    }

    fn whiteout(&mut self, parent: &Parent, name: &[u8]) -> Result<(), LayerError> {
        let path = join(&parent.path, name);
        let label = Label(self.label, &path);
        let name = CString::new(name).map_err(|_| label.error("make a whiteout", Errno::INVAL))?;
        self.forget_link(&path);
        let make = || walk::make_whiteout(parent.dir.as_fd(), &name);
        let result = match make() {
            Err(Errno::EXIST) => {
                self.remove(parent, &name, &path)?;
                make()
            }
            result => result,
        };
        result.map_err(|errno| label.error("make a whiteout", errno))
    }

    fn make(
        &mut self,
        parent: &Parent,
        name: &CStr,
        entry: &TarEntry,
        tar: &mut TarReader<impl BufRead>,
    ) -> Result<(), LayerError> {
        let path = join(&parent.path, name.to_bytes());
        let label = Label(self.label, &path);
        self.forget_link(&path);
        let xattrs = wanted_xattrs(entry);
        let meta = metadata(entry, &xattrs, Some(entry.mtime), &path, self.label)?;
        match entry.typeflag {
            b'0' | b'7' => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let mode = Mode::from_raw_mode(entry.mode & 0o777);
                let create = || rustix::fs::openat(&parent.dir, name, flags, mode);
                let mut file = File::from(self.replacing(parent, name, &path, "create", create)?);
                write_data(&mut file, entry, tar, label)?;
                set_open(&file, FileType::RegularFile, &meta, &self.notes, label)
            }
            b'1' => self.hard_link(parent, name, &path, &entry.link),
            b'2' => {
                let target = &entry.link[..];
                let create = || rustix::fs::symlinkat(target, &parent.dir, name);
                self.replacing(parent, name, &path, "make the symlink", create)?;
                set_at(parent.dir.as_fd(), name, FileType::Symlink, &meta, &self.notes, label)
            }
            b'3' | b'4' | b'6' => self.node(parent, name, &path, entry, &meta),
            b'5' => self.directory(parent, name, path, &meta),
            other => Err(LayerError::UnknownType { path: label.path(), typeflag: char::from(other) }),
        }
    }

    fn node(
        &mut self,
        parent: &Parent,
        name: &CStr,
        path: &[u8],
        entry: &TarEntry,
        meta: &Metadata<'_>,
    ) -> Result<(), LayerError> {
        let kind = match entry.typeflag {
            b'3' => FileType::CharacterDevice,
            b'4' => FileType::BlockDevice,
            _ => FileType::Fifo,
        };
        let device = rustix::fs::makedev(entry.device.0, entry.device.1);
        let label = Label(self.label, path);
        let mut denied = false;
        let create = || match rustix::fs::mknodat(&parent.dir, name, kind, Mode::RUSR, device) {
            // A user namespace may make no devices, whoever its root is.
            Err(Errno::PERM) if kind != FileType::Fifo => {
                denied = true;
                Ok(())
            }
            result => result,
        };
        self.replacing(parent, name, path, "make the device", create)?;
        if denied {
            self.skipped_devices.push(label.path());
            return Ok(());
        }
        set_at(parent.dir.as_fd(), name, kind, meta, &self.notes, label)
    }

    fn directory(
        &mut self,
        parent: &Parent,
        name: &CStr,
        path: Vec<u8>,
        meta: &Metadata<'_>,
    ) -> Result<(), LayerError> {
        let label = Label(self.label, &path);
        let dir = parent.dir.as_fd();
        let made = match make_dir(dir, name, false) {
            Err(Errno::EXIST) => {
                let stat = walk::stat(dir, name).map_err(|errno| label.error("look at", errno))?;
                if walk::file_type(&stat) == FileType::Directory {
                    walk::open_dir(dir, name)
                } else {
                    self.remove(parent, name, &path)?;
                    make_dir(dir, name, walk::is_whiteout(&stat))
                }
            }
            result => result,
        };
        let made = made.map_err(|errno| label.error("make the folder", errno))?;
        set_open(&made, FileType::Directory, &Metadata { mtime: None, ..*meta }, &self.notes, label)?;
        self.dirs.insert(path.clone(), meta.mtime);
        // What comes next is likely in it.
        self.parent = Some(Parent { asked: path.clone(), path, dir: made });
        Ok(())
    }

    fn hard_link(&mut self, parent: &Parent, name: &CStr, path: &[u8], target: &[u8]) -> Result<(), LayerError> {
        let label = Label(self.label, path);
        let target = clean(target).join(&b'/');
        let (target_dir, base) = split(&target);
        let place = match resolve::resolve(self.root.as_fd(), target_dir, None) {
            // A file or a loop on the way: there is no such target here, nor will it be seen below.
            Err(errno) => return Err(label.error("find the target of", errno)),
            Ok(place) => place,
        };
        let base = CString::new(base).map_err(|_| label.error("link", Errno::INVAL))?;
        if join(&place.path, base.to_bytes()) == path {
            return Ok(());
        }
        let found = match &place.dir {
            Some(dir) => walk::stat_if_any(dir.as_fd(), &base).map_err(|errno| label.error("look at", errno))?,
            None => None,
        };
        match (place.dir, found.filter(|stat| !walk::is_whiteout(stat))) {
            (Some(dir), Some(_)) => {
                let create = || rustix::fs::linkat(&dir, &base, &parent.dir, name, AtFlags::empty());
                self.replacing(parent, name, path, "link", create)?;
                let target = join(&place.path, base.to_bytes());
                self.notes.linked(&target, path).map_err(|errno| label.error("note the owner of", errno))
            }
            _ => {
                let replaced =
                    walk::stat_if_any(parent.dir.as_fd(), name).map_err(|errno| label.error("look at", errno))?;
                if replaced.is_some() {
                    self.remove(parent, name, path)?;
                }
                self.links.push((path.to_vec(), target));
                Ok(())
            }
        }
    }

    /// Makes something that is no directory, in place of whatever is there.
    fn replacing<T>(
        &mut self,
        parent: &Parent,
        name: &CStr,
        path: &[u8],
        verb: &'static str,
        mut create: impl FnMut() -> rustix::io::Result<T>,
    ) -> Result<T, LayerError> {
        let result = match create() {
            Err(Errno::EXIST) => {
                self.remove(parent, name, path)?;
                create()
            }
            result => result,
        };
        result.map_err(|errno| Label(self.label, path).error(verb, errno))
    }

    fn remove(&mut self, parent: &Parent, name: &CStr, path: &[u8]) -> Result<(), LayerError> {
        let label = Label(self.label, path);
        let removed = remove_tree(parent.dir.as_fd(), name).map_err(|error| label.error("replace", error))?;
        if removed == FileType::Directory {
            self.dirs.retain(|dir, _| !is_within(dir, path));
            self.links.retain(|(link, _)| !is_within(link, path));
        }
        Ok(())
    }

    fn forget_link(&mut self, path: &[u8]) {
        if !self.links.is_empty() {
            self.links.retain(|(name, _)| name != path);
        }
    }
}

/// Deletes an entry with all below it; returns what it was.
pub(crate) fn remove_tree(dir: BorrowedFd<'_>, name: &CStr) -> std::io::Result<FileType> {
    let kind = walk::file_type(&walk::stat(dir, name)?);
    if kind == FileType::Directory {
        // It opens its argument without following, and all below relative to that.
        std::fs::remove_dir_all(Path::new(&OsString::from_vec(walk::proc_path(dir, name).into_bytes())))?;
    } else {
        rustix::fs::unlinkat(dir, name, AtFlags::empty())?;
    }
    Ok(kind)
}

/// Makes a directory of mode 0755, which hides what is below or not, and opens it.
pub(crate) fn make_dir(dir: BorrowedFd<'_>, name: &CStr, hides: bool) -> Result<OwnedFd, Errno> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    let made = walk::open_dir(dir, name)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(0o755))?;
    if hides {
        rustix::fs::fsetxattr(&made, walk::OPAQUE, b"y", XattrFlags::empty())?;
    }
    Ok(made)
}

/// Sets the time of a directory below `root`.
pub(crate) fn set_time(root: BorrowedFd<'_>, path: &[u8], mtime: (i64, u32)) -> Result<(), Errno> {
    match walk::open_below_if_any(root, path)? {
        Some(dir) => rustix::fs::futimens(&dir, &times(mtime)),
        None => Err(Errno::NOENT),
    }
}

fn metadata<'a>(
    entry: &TarEntry,
    xattrs: &'a [(Vec<u8>, Vec<u8>)],
    mtime: Option<(i64, u32)>,
    path: &[u8],
    label: &Path,
) -> Result<Metadata<'a>, LayerError> {
    let id = |id: u64| u32::try_from(id).map_err(|_| Label(label, path).error("set the owner of", Errno::OVERFLOW));
    Ok(Metadata { mode: entry.mode, uid: id(entry.uid)?, gid: id(entry.gid)?, mtime, xattrs })
}

/// A layer must not bring overlayfs' notes: they would make it show other files than those in the layer.
fn wanted_xattrs(entry: &TarEntry) -> Vec<(Vec<u8>, Vec<u8>)> {
    entry.xattrs.iter().filter(|(name, _)| !walk::is_overlay_note(name)).cloned().collect()
}

fn write_data(
    file: &mut File,
    entry: &TarEntry,
    tar: &mut TarReader<impl BufRead>,
    label: Label<'_>,
) -> Result<(), LayerError> {
    let whole = [(0, entry.size)];
    for (offset, length) in entry.sparse.as_deref().unwrap_or(&whole) {
        if entry.sparse.is_some() {
            file.seek(SeekFrom::Start(*offset)).map_err(|error| label.error("write", error))?;
        }
        let mut left = *length;
        while left > 0 {
            let data = tar.data()?;
            let data = &data[..data.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            file.write_all(data).map_err(|error| label.error("write", error))?;
            let length = data.len();
            left -= length as u64;
            tar.consume(length);
        }
    }
    if entry.sparse.is_some() {
        file.set_len(entry.size).map_err(|error| label.error("write", error))?;
    }
    Ok(())
}
