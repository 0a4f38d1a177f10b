//! Copies what was selected into the upper dir: directories first, then all else by several threads, then hard links
//! and the directories' metadata.

use super::dest::{Dest, NewDir, absolute, at};
use super::former::Copies;
use super::select::{Picked, Selected};
use super::share::Lenders;
use super::tree::{Tree, lock};
use super::{FileError, chmod, xattr};
use crate::source::dir::{self, Meta};
use frontend::op::Chmod;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// Up to here one read and one write are cheaper than copy_file_range.
const SMALL_BYTES: u64 = 64 << 10;

/// Entries that a thread takes at a time: at least so many, and then those of one directory, since the kernel lets one
/// thread at a time write to a directory.
const BATCH: usize = 32;
/// And at most so many.
const MAX_BATCH: usize = 256;

/// How files are copied from one tree to another.
pub struct Copier<'a> {
    /// Where from.
    pub tree: &'a Tree,
    /// Where to.
    pub dest: &'a Dest,
    /// Files belong to 0:0 unless `owner` says otherwise, and sockets become empty files.
    pub from_client: bool,
    /// `--chown`.
    pub owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub chmod: Option<&'a Chmod>,
    /// FICLONE failed before, so that it need not be tried again.
    pub no_reflink: AtomicBool,
    /// What the same step copied before, and what it copies now.
    pub copies: Option<&'a Copies>,
    /// Of files of snapshots, where they are and what is known of them.
    pub lenders: Option<&'a Lenders<'a>>,
}

/// What was found while directories were made; paths in the destination.
struct Directories {
    /// Those that the base has too, in which it must be looked for conflicts.
    in_base: HashSet<Vec<u8>>,
    /// Those that were there and are only on the way.
    kept: HashSet<Vec<u8>>,
}

impl Copier<'_> {
    /// Copies one file to a canonical path whose directory is in the upper dir. What is there is replaced.
    pub fn file(&self, source: &[u8], meta: &Meta, target: &[u8]) -> Result<(), FileError> {
        self.node(source, meta, target, self.dest_has(target)?, &mut Vec::new())
    }

    /// Copies the content of a selected directory into the canonical directory `target`, which is made if missing.
    /// An existing one keeps mode and owner, those below it get those of the source.
    pub fn directory(&self, selected: &Selected, target: &[u8], new: &NewDir) -> Result<(), FileError> {
        self.dest.make_dirs(target, new)?;
        let Directories { in_base, kept } = self.make_directories(selected, target)?;
        let mut files = Vec::new();
        let mut links = Vec::new();
        let mut first_names = HashMap::new();
        for picked in selected.entries.iter().filter(|picked| !picked.meta.is_dir()) {
            let inode = (picked.meta.dev, picked.meta.ino);
            if picked.meta.is_file() && picked.meta.nlink > 1 {
                if let Some(first) = first_names.get(&inode) {
                    links.push((*first, picked));
                    continue;
                }
                first_names.insert(inode, picked);
            }
            files.push(picked);
        }
        self.files(selected, &files, target, &in_base)?;
        for (first, picked) in links {
            self.hard_link(&dir::join(target, &first.rel), &dir::join(target, &picked.rel), &in_base)?;
        }
        // Deepest first: setting a time inside a directory does not change that of the directory, making entries does.
        for picked in selected.entries.iter().rev().filter(|picked| picked.meta.is_dir()) {
            let path = dir::join(target, &picked.rel);
            if kept.contains(&path) {
                // BuildKit takes over the mode alone, without regard to --chmod.
                self.dest.set_mode(&path, picked.meta.mode)?;
            } else {
                self.directory_metadata(&selected.source_of(picked), picked, &path)?;
            }
        }
        self.dest.set_mtime(target, selected.meta.mtime)
    }

    /// Makes the selected directories.
    fn make_directories(&self, selected: &Selected, target: &[u8]) -> Result<Directories, FileError> {
        let (mut in_base, mut kept) = (HashSet::new(), HashSet::new());
        let is_dir = |meta: Option<Meta>| meta.is_some_and(|meta| meta.is_dir());
        if is_dir(self.dest.base_meta(target)?) {
            in_base.insert(target.to_vec());
        }
        for picked in selected.entries.iter().filter(|picked| picked.meta.is_dir()) {
            let path = dir::join(target, &picked.rel);
            let below = match in_base.contains(dir::split(&path).0) {
                true => self.dest.base_meta(&path)?,
                false => None,
            };
            if is_dir(below) {
                in_base.insert(path.clone());
            }
            match rustix::fs::mkdirat(self.dest.upper(), &path, Mode::from_raw_mode(0o700)) {
                // An earlier source of the step made it, or something else that is in the way.
                Err(Errno::EXIST) => match self.dest.lookup(&path)? {
                    Some(found) if found.meta.is_dir() => {
                        if picked.on_the_way {
                            kept.insert(path);
                        }
                    }
                    _ => return Err(FileError::NotDirectory { path: absolute(&path) }),
                },
                Err(errno) => return Err(at("make directory", &path)(errno)),
                Ok(()) => match below {
                    None => {}
                    Some(meta) if meta.is_dir() => {
                        rustix::fs::unlinkat(self.dest.upper(), &path, AtFlags::REMOVEDIR)
                            .map_err(at("remove", &path))?;
                        self.dest.copy_up_dir(&path, &meta)?;
                        if picked.on_the_way {
                            kept.insert(path);
                        }
                    }
                    Some(_) => return Err(FileError::NotDirectory { path: absolute(&path) }),
                },
            }
        }
        Ok(Directories { in_base, kept })
    }

    fn files(
        &self,
        selected: &Selected,
        files: &[&Picked],
        target: &[u8],
        in_base: &HashSet<Vec<u8>>,
    ) -> Result<(), FileError> {
        let batches = batches(files);
        let next = AtomicUsize::new(0);
        let failed: Mutex<Option<FileError>> = Mutex::new(None);
        let work = || {
            let mut buffer = Vec::new();
            while let Some(batch) = batches.get(next.fetch_add(1, Ordering::Relaxed)) {
                for picked in *batch {
                    let path = dir::join(target, &picked.rel);
                    let in_base = in_base.contains(dir::split(&path).0);
                    if let Err(error) =
                        self.node(&selected.source_of(picked), &picked.meta, &path, in_base, &mut buffer)
                    {
                        next.store(batches.len(), Ordering::Relaxed);
                        lock(&failed).get_or_insert(error);
                        return;
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..super::threads().min(batches.len()) {
                scope.spawn(work);
            }
            work();
        });
        failed.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner).map_or(Ok(()), Err)
    }

    /// Copies anything but a directory. `check_base`: the base may have a directory at `target`.
    fn node(
        &self,
        source: &[u8],
        meta: &Meta,
        target: &[u8],
        check_base: bool,
        buffer: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        if check_base && self.dest.base_meta(target)?.is_some_and(|meta| meta.is_dir()) {
            return Err(FileError::ReplaceDirectory { path: absolute(target) });
        }
        let owner = self.owner.unwrap_or(if self.from_client { (0, 0) } else { (meta.uid, meta.gid) });
        let upper = self.dest.upper();
        match meta.kind {
            FileType::RegularFile => return self.regular(source, meta, target, owner, buffer),
            FileType::Socket if self.from_client => {
                let mode = self.mode(meta)?;
                let opened = self.create(target, mode)?;
                return self.dest.finish(&opened, owner, mode, &[], meta.mtime).map_err(at("write", target));
            }
            FileType::Symlink => {
                let link = self.tree.read_link(source)?;
                self.replacing(target, || rustix::fs::symlinkat(link.as_slice(), upper, target))?;
                self.dest.set_owner(target, owner)?;
            }
            kind => {
                let mode = Mode::from_raw_mode(0o600);
                self.replacing(target, || rustix::fs::mknodat(upper, target, kind, mode, meta.rdev))?;
                self.dest.set_owner(target, owner)?;
                self.dest.set_mode(target, self.mode(meta)?)?;
            }
        }
        self.dest.set_mtime(target, meta.mtime)
    }

    fn regular(
        &self,
        source: &[u8],
        meta: &Meta,
        target: &[u8],
        owner: (u32, u32),
        buffer: &mut Vec<u8>,
    ) -> Result<(), FileError> {
        let mode = self.mode(meta)?;
        let copies = self.copies.filter(|_| self.tree.context().is_some() && meta.nlink == 1);
        if copies.is_some_and(|copies| copies.link(meta, self.dest, target, owner, mode)) {
            return Ok(());
        }
        let lender = self.lenders.and_then(|lenders| lenders.find(source, meta, target, owner, mode));
        if lender.as_ref().is_some_and(|lender| lender.link(source, self.dest, target)) {
            return Ok(());
        }
        let input = self.tree.open_file(source)?;
        let output = self.create(target, mode)?;
        self.data(&input, &output, meta.size, buffer).map_err(FileError::at("copy to", absolute(target)))?;
        if self.from_client {
            self.unchanged(&input, source, meta)?;
        }
        let xattrs = xattr::read(&input);
        if let (Some(copies), true) = (copies, xattrs.is_empty()) {
            copies.copied(meta, target);
        }
        lender.inspect(|lender| lender.copied(target));
        self.dest.finish(&output, owner, mode, &xattrs, meta.mtime).map_err(at("write", target))
    }

    /// Copies bytes by the quickest way that the filesystems have.
    fn data(&self, mut input: &File, output: &OwnedFd, size: u64, buffer: &mut Vec<u8>) -> std::io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        // Sharing the blocks of a small file takes longer than copying it, and what is shared is read from the disk when
        // the layer is hashed, since it is not in the page cache.
        if size > SMALL_BYTES && !self.no_reflink.load(Ordering::Relaxed) {
            match rustix::fs::ioctl_ficlone(output, input) {
                Ok(()) => return Ok(()),
                Err(_) => self.no_reflink.store(true, Ordering::Relaxed),
            }
        }
        if size > SMALL_BYTES && copy_range(input, output)? {
            return Ok(());
        }
        // One byte more than a small file has shows its end without another read.
        buffer.resize(SMALL_BYTES as usize + 1, 0);
        loop {
            let length = input.read(buffer)?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                rest = &rest[rustix::io::retry_on_intr(|| rustix::io::write(output, rest))?..];
            }
            if length == 0 || (size <= SMALL_BYTES && length as u64 == size) {
                return Ok(());
            }
        }
    }

    /// What was copied must be what the step's key was made of.
    fn unchanged(&self, input: &File, source: &[u8], listed: &Meta) -> Result<(), FileError> {
        let now = rustix::fs::fstat(input).map_err(|errno| self.tree.error("look at", source, errno))?;
        let now = Meta::of(&now);
        if (now.size, now.mtime, now.ino) == (listed.size, listed.mtime, listed.ino) {
            return Ok(());
        }
        Err(FileError::Changed { path: dir::text(source) })
    }

    fn hard_link(&self, first: &[u8], target: &[u8], in_base: &HashSet<Vec<u8>>) -> Result<(), FileError> {
        let check_base = in_base.contains(dir::split(target).0);
        if check_base && self.dest.base_meta(target)?.is_some_and(|meta| meta.is_dir()) {
            return Err(FileError::ReplaceDirectory { path: absolute(target) });
        }
        self.replacing(target, || self.dest.link(first, target))
    }

    fn directory_metadata(&self, source: &[u8], picked: &Picked, target: &[u8]) -> Result<(), FileError> {
        let meta = &picked.meta;
        let owner = self.owner.unwrap_or(if self.from_client { (0, 0) } else { (meta.uid, meta.gid) });
        self.dest.set_owner(target, owner)?;
        self.dest.set_mode(target, self.mode(meta)?)?;
        if let Some(root) = self.tree.root() {
            let xattrs = xattr::read_at(root, source);
            if !xattrs.is_empty() {
                xattr::write(self.dest.open_dir(target)?, &xattrs).map_err(at("set attributes of", target))?;
            }
        }
        // What was put into a directory that is only on the way dates it.
        if picked.on_the_way { Ok(()) } else { self.dest.set_mtime(target, meta.mtime) }
    }

    fn mode(&self, meta: &Meta) -> Result<u32, FileError> {
        self.chmod.map_or(Ok(meta.mode), |chmod| chmod::apply(chmod, meta.mode, meta.is_dir()))
    }

    /// Makes a file, with those bits of its mode that a file may be made with.
    fn create(&self, target: &[u8], mode: u32) -> Result<OwnedFd, FileError> {
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = || rustix::fs::openat(self.dest.upper(), target, flags, Mode::from_raw_mode(mode & 0o777));
        self.replacing(target, create)
    }

    /// Makes a file at `target` after removing what an earlier source of the step has put there. What the base has
    /// there is hidden by the new file.
    fn replacing<T>(&self, target: &[u8], make: impl Fn() -> Result<T, Errno>) -> Result<T, FileError> {
        match make() {
            Err(Errno::EXIST) => {
                self.copies.inspect(|copies| copies.replaced());
                match rustix::fs::unlinkat(self.dest.upper(), target, AtFlags::empty()) {
                    Ok(()) => make().map_err(at("create", target)),
                    Err(Errno::ISDIR | Errno::PERM) => Err(FileError::ReplaceDirectory { path: absolute(target) }),
                    Err(errno) => Err(at("remove", target)(errno)),
                }
            }
            other => other.map_err(at("create", target)),
        }
    }

    fn dest_has(&self, target: &[u8]) -> Result<bool, FileError> {
        Ok(self.dest.base_meta(target)?.is_some())
    }
}

/// Parts the files, which are in order of their paths, among threads.
fn batches<'a, 'b>(files: &'a [&'b Picked]) -> Vec<&'a [&'b Picked]> {
    let mut batches = Vec::new();
    let mut rest = files;
    while !rest.is_empty() {
        let directory = |picked: &'b Picked| dir::split(&picked.rel).0;
        let least = BATCH.min(rest.len());
        let last = directory(rest[least - 1]);
        let more = rest[least..].iter().take(MAX_BATCH - least).take_while(|picked| directory(picked) == last).count();
        let (batch, after) = rest.split_at(least + more);
        batches.push(batch);
        rest = after;
    }
    batches
}

/// Copies inside the kernel. False if it cannot between these two; nothing was copied then.
fn copy_range(input: &File, output: &OwnedFd) -> std::io::Result<bool> {
    let mut copied = false;
    loop {
        match rustix::fs::copy_file_range(input, None, output, None, 1 << 30) {
            Ok(0) => return Ok(copied),
            Ok(_) => copied = true,
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) if !copied => return Ok(false),
            Err(errno) => return Err(errno.into()),
        }
    }
}
