//! Stacks of snapshots where no file system can be mounted: merged into one folder, of links for who only reads, of
//! copies for who writes; and afterwards the difference as a new upper dir.

use crate::error::FileError;
use crate::layer::changes::{Both, same_file};
use crate::walk::{self, XattrReader};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What the files of a merged tree are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Names of the snapshots' own files: only to be read.
    Link,
    /// Copies, by reflink where the file system has those.
    Copy,
}

/// Merges snapshots, lowest first, into the folder `into`, which is on the store's file system. Folders named in `bare`
/// (at the root) stay empty.
pub fn merge(lowers: &[PathBuf], into: &Path, how: How, bare: &[&str]) -> Result<(), FileError> {
    let root = walk::open_root(into)?;
    for lower in lowers {
        let from = walk::open_root(lower)?;
        // Links between files of different snapshots do not exist.
        let mut merging = Merging { root: &root, how, bare, links: HashMap::new(), label: into };
        merging.folder(from.as_fd(), root.as_fd(), b"")?;
    }
    Ok(())
}

/// Copies what is at `name` in `from` to `to`, which does not exist, with all below it.
pub fn copy(from: BorrowedFd<'_>, name: &CStr, to: &Path) -> Result<(), FileError> {
    let label = to.parent().unwrap_or(to);
    let root = walk::open_root(label)?;
    let mut merging = Merging { root: &root, how: How::Copy, bare: &[], links: HashMap::new(), label };
    let target = CString::new(to.file_name().unwrap_or_default().as_bytes()).unwrap_or_default();
    let stat = walk::stat(from, name).map_err(FileError::at("look at the original of", to))?;
    merging.entry(from, name, &stat, root.as_fd(), &target, target.to_bytes())
}

struct Merging<'a> {
    root: &'a OwnedFd,
    how: How,
    bare: &'a [&'a str],
    /// Device and inode of a file with several names -> where it was copied to.
    links: HashMap<(u64, u64), Vec<u8>>,
    label: &'a Path,
}

impl Merging<'_> {
    fn folder(&mut self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &[u8]) -> Result<(), FileError> {
        let error = |verb| FileError::at(verb, self.label.join(OsStr::from_bytes(path)));
        if walk::is_opaque(from).map_err(error("read"))? {
            for name in walk::reopen(to).and_then(|to| walk::names(to.as_fd())).map_err(error("list"))? {
                crate::layer::remove_tree(to, &name)
                    .map_err(FileError::at("empty", self.label.join(OsStr::from_bytes(path))))?;
            }
        }
        let is_bare = self.bare.iter().any(|bare| bare.as_bytes() == path);
        let names = walk::reopen(from).and_then(|from| walk::names(from.as_fd())).map_err(error("list"))?;
        for name in names.iter().filter(|_| !is_bare) {
            let stat = walk::stat(from, name).map_err(error("look into"))?;
            let below = if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() };
            self.entry(from, name, &stat, to, name, &below)?;
        }
        let meta = || -> Result<(), Errno> {
            let stat = rustix::fs::fstat(from)?;
            // A folder that is written a second time has what the higher layer says, and nothing of the lower.
            for (name, _) in all_xattrs(to, c".")? {
                let _ = rustix::fs::fremovexattr(to, &name[..]);
            }
            set_open(to, &stat, &all_xattrs(from, c".")?)
        };
        meta().map_err(error("set the metadata of"))
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        name: &CStr,
        stat: &Stat,
        to: BorrowedFd<'_>,
        target: &CStr,
        path: &[u8],
    ) -> Result<(), FileError> {
        let label = self.label.join(OsStr::from_bytes(path));
        let error = |verb| FileError::at(verb, &label);
        let kind = walk::file_type(stat);
        let there = walk::stat_if_any(to, target).map_err(error("look at"))?.map(|stat| walk::file_type(&stat));
        let merges = kind == FileType::Directory && there == Some(FileType::Directory);
        if there.is_some() && !merges {
            crate::layer::remove_tree(to, target).map_err(FileError::at("replace", &label))?;
        }
        if walk::is_whiteout(stat) {
            return Ok(());
        }
        if kind == FileType::Directory {
            if !merges {
                rustix::fs::mkdirat(to, target, Mode::RWXU).map_err(error("create"))?;
            }
            let from = walk::open_dir(from, name).map_err(error("open the original of"))?;
            let to = walk::open_dir(to, target).map_err(error("open"))?;
            return self.folder(from.as_fd(), to.as_fd(), path);
        }
        if self.how == How::Link {
            match rustix::fs::linkat(from, name, to, target, AtFlags::empty()) {
                // Too many names, or a file system without hard links: a copy reads the same.
                Err(Errno::MLINK | Errno::PERM | Errno::XDEV | Errno::NOTSUP) => {}
                result => return result.map_err(error("link")),
            }
        }
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino))
        {
            return rustix::fs::linkat(self.root, &first[..], to, target, AtFlags::empty()).map_err(error("link"));
        }
        copy_file(from, name, stat, to, target).map_err(FileError::at("copy", &label))?;
        if stat.st_nlink > 1 {
            self.links.insert((stat.st_dev, stat.st_ino), path.to_vec());
        }
        Ok(())
    }
}

fn copy_file(from: BorrowedFd<'_>, name: &CStr, stat: &Stat, to: BorrowedFd<'_>, target: &CStr) -> std::io::Result<()> {
    let kind = walk::file_type(stat);
    let xattrs = all_xattrs(from, name)?;
    match kind {
        FileType::RegularFile => {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut input = File::from(rustix::fs::openat(from, name, flags, Mode::empty())?);
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let mut output = File::from(rustix::fs::openat(to, target, flags, Mode::RUSR | Mode::WUSR)?);
            if stat.st_size > 0 && rustix::fs::ioctl_ficlone(&output, &input).is_err() {
                std::io::copy(&mut input, &mut output)?;
            }
            return Ok(set_open(output.as_fd(), stat, &xattrs)?);
        }
        FileType::Symlink => {
            rustix::fs::symlinkat(rustix::fs::readlinkat(from, name, Vec::new())?, to, target)?;
        }
        // Nobody listens there any more.
        FileType::Socket | FileType::Unknown => return Ok(()),
        _ => rustix::fs::mknodat(to, target, kind, Mode::RUSR, stat.st_rdev)?,
    }
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    rustix::fs::chownat(to, target, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    if kind != FileType::Symlink {
        rustix::fs::chmodat(to, target, Mode::from_raw_mode(stat.st_mode & 0o7777), AtFlags::empty())?;
    }
    Ok(rustix::fs::utimensat(to, target, &times(stat), AtFlags::SYMLINK_NOFOLLOW)?)
}

fn set_open(file: BorrowedFd<'_>, stat: &Stat, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
    rustix::fs::fchown(file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    for (name, value) in xattrs {
        match rustix::fs::fsetxattr(file, &name[..], value, XattrFlags::empty()) {
            // What may not be set here was not set here before either, or is nothing that a container may use.
            Ok(()) | Err(Errno::PERM | Errno::NOTSUP | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
    }
    rustix::fs::futimens(file, &times(stat))
}

/// A name and its value.
type Xattr = (Vec<u8>, Vec<u8>);

/// With kiln's own notes, without overlayfs'.
fn all_xattrs(dir: BorrowedFd<'_>, name: &CStr) -> Result<Vec<Xattr>, Errno> {
    let mut reader = XattrReader::new();
    let mut found = reader.all(dir, name, |_| true)?;
    if let Some(owner) = reader.get(dir, name, crate::owners::OWNER.as_bytes())? {
        found.push((crate::owners::OWNER.into(), owner));
    }
    Ok(found)
}

/// Its width differs between architectures.
#[allow(clippy::unnecessary_cast)]
fn link_count(stat: &Stat) -> u64 {
    stat.st_nlink as u64
}

fn times(stat: &Stat) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: stat.st_atime, tv_nsec: stat.st_atime_nsec as _ },
        last_modification: Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
    }
}

/// Which files were there, by path, and when they were last changed: what is as it was then need not be compared.
#[derive(Debug, Default)]
pub struct Manifest(HashMap<Vec<u8>, (u64, i64, i64)>);

impl Manifest {
    /// Of a tree that nobody writes to. What is written afterwards has a later time: the call waits for that.
    pub fn of(root: &Path) -> Result<Manifest, FileError> {
        let mut walk = walk::Walk::new(walk::open_root(root)?, root)?;
        let mut seen = HashMap::new();
        while let Some(found) = walk.next()? {
            let Some(stat) = found.stat else { continue };
            if walk::file_type(&stat) == FileType::Directory {
                let dir = walk.open(&found)?;
                walk.enter(dir, Vec::new(), false)?;
            } else {
                seen.insert(walk.path().to_vec(), mark(&stat));
            }
        }
        // File times are those of the kernel's clock tick, at most 10 ms long.
        std::thread::sleep(std::time::Duration::from_millis(12));
        Ok(Manifest(seen))
    }
}

fn mark(stat: &Stat) -> (u64, i64, i64) {
    (stat.st_ino, stat.st_ctime, stat.st_ctime_nsec as i64)
}

/// Moves what `root`, a merged copy, has more or otherwise than `below`, a merged view of the same snapshots, into
/// `upper`, and makes whiteouts of what it lacks. Folders named in `bare` (at the root) are not looked into; files whose
/// device and inode are in `foreign` are none of the tree's.
pub fn take_changes(
    root: &Path,
    below: Option<BorrowedFd<'_>>,
    manifest: &Manifest,
    upper: &Path,
    bare: &[&str],
    foreign: &HashSet<(u64, u64)>,
) -> Result<(), FileError> {
    let (from, to) = (walk::open_root(root)?, walk::open_root(upper)?);
    let stat = rustix::fs::fstat(&from).map_err(FileError::at("look at", root))?;
    let made = vec![(CString::default(), Some(to))];
    let mut taking = Taking { manifest, bare, foreign, xattrs: XattrReader::new(), made, label: root };
    taking.folder(from.as_fd(), below, b"")?;
    let set = |taking: &mut Taking<'_>| -> Result<(), Errno> {
        let xattrs = all_xattrs(from.as_fd(), c".")?;
        set_open(taking.upper()?, &stat, &xattrs)
    };
    set(&mut taking).map_err(FileError::at("set the metadata of", upper))
}

struct Taking<'a> {
    manifest: &'a Manifest,
    bare: &'a [&'a str],
    foreign: &'a HashSet<(u64, u64)>,
    xattrs: XattrReader,
    /// Names of the folders on the way, and the upper dir's ones as far as they are made: when something is put there.
    made: Vec<(CString, Option<OwnedFd>)>,
    label: &'a Path,
}

impl Taking<'_> {
    /// The folder of the upper dir that is at hand.
    fn upper(&mut self) -> Result<BorrowedFd<'_>, Errno> {
        for depth in 1..self.made.len() {
            if self.made[depth].1.is_none() {
                let parent = self.made[depth - 1].1.as_ref().ok_or(Errno::NOENT)?;
                let name = &self.made[depth].0;
                rustix::fs::mkdirat(parent, name, Mode::RWXU)?;
                let opened = walk::open_dir(parent.as_fd(), name)?;
                self.made[depth].1 = Some(opened);
            }
        }
        self.made.last().and_then(|(_, fd)| fd.as_ref()).map(AsFd::as_fd).ok_or(Errno::NOENT)
    }

    fn folder(&mut self, from: BorrowedFd<'_>, below: Option<BorrowedFd<'_>>, path: &[u8]) -> Result<(), FileError> {
        let label = self.label.join(OsStr::from_bytes(path));
        let error = |verb| FileError::at(verb, &label);
        let list = |dir: BorrowedFd<'_>| walk::reopen(dir).and_then(|dir| walk::names(dir.as_fd()));
        let mut names = list(from).map_err(error("list"))?;
        names.sort_unstable();
        for name in &names {
            let full = if path.is_empty() { name.to_bytes().to_vec() } else { [path, b"/", name.to_bytes()].concat() };
            self.entry(from, below, name, &full)?;
        }
        let Some(below) = below else { return Ok(()) };
        for name in list(below).map_err(error("list"))? {
            // A single snapshot is its own view, and may have whiteouts of nothing.
            let is_there = |stat: Option<Stat>| stat.is_some_and(|stat| !walk::is_whiteout(&stat));
            if names.binary_search(&name).is_err()
                && is_there(walk::stat_if_any(below, &name).map_err(error("look below"))?)
            {
                self.upper()
                    .and_then(|upper| walk::make_whiteout(upper, &name))
                    .map_err(error("make a whiteout in"))?;
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        from: BorrowedFd<'_>,
        below: Option<BorrowedFd<'_>>,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), FileError> {
        let label = self.label.join(OsStr::from_bytes(path));
        let error = |verb| FileError::at(verb, &label);
        let stat = walk::stat(from, name).map_err(error("look at"))?;
        if self.foreign.contains(&(stat.st_dev, stat.st_ino)) {
            return Ok(());
        }
        let lower = match below {
            Some(below) => walk::stat_if_any(below, name).map_err(error("look below"))?,
            None => None,
        };
        let is_folder = |stat: &Stat| walk::file_type(stat) == FileType::Directory;
        if !is_folder(&stat) {
            if let (Some(below), Some(_)) = (below, lower)
                && (self.manifest.0.get(path) == Some(&mark(&stat))
                    || same_file(&mut self.xattrs, Both::default(), path, from, below, name, &stat)
                        .map_err(FileError::at("compare", &label))?)
            {
                return Ok(());
            }
            return self.take(from, name).map_err(error("move"));
        }
        let is_bare = self.bare.iter().any(|bare| bare.as_bytes() == path);
        let dir = walk::open_dir(from, name).map_err(error("open"))?;
        match (below, lower.filter(is_folder)) {
            (Some(_), Some(_)) if is_bare => Ok(()),
            (Some(below), Some(lower)) => {
                let below = walk::open_dir(below, name).map_err(error("look below"))?;
                self.changed_folder(dir, &stat, below, &lower, name, path)
            }
            _ if is_bare => {
                let make = |upper: BorrowedFd<'_>| -> Result<(), Errno> {
                    rustix::fs::mkdirat(upper, name, Mode::RWXU)?;
                    rustix::fs::chmodat(upper, name, Mode::from_raw_mode(0o755), AtFlags::empty())
                };
                self.upper().and_then(make).map_err(error("create"))
            }
            _ => {
                if !self.foreign.is_empty() {
                    self.remove_foreign(dir.as_fd()).map_err(error("clean"))?;
                }
                self.take(from, name).map_err(error("move"))
            }
        }
    }

    /// A folder that was there, too.
    fn changed_folder(
        &mut self,
        dir: OwnedFd,
        stat: &Stat,
        below: OwnedFd,
        lower: &Stat,
        name: &CStr,
        path: &[u8],
    ) -> Result<(), FileError> {
        let label = self.label.join(OsStr::from_bytes(path));
        let error = |verb| FileError::at(verb, &label);
        let xattrs = all_xattrs(dir.as_fd(), c".").map_err(error("read the xattrs of"))?;
        let same_meta = (stat.st_mode, stat.st_uid, stat.st_gid) == (lower.st_mode, lower.st_uid, lower.st_gid)
            && xattrs == all_xattrs(below.as_fd(), c".").map_err(error("look below"))?;
        self.made.push((name.to_owned(), None));
        if !same_meta {
            self.upper().map_err(error("create"))?;
        }
        self.folder(dir.as_fd(), Some(below.as_fd()), path)?;
        match self.made.pop() {
            // Last, since what was put into it changed its time.
            Some((_, Some(upper))) => set_open(upper.as_fd(), stat, &xattrs).map_err(error("set the metadata of")),
            _ => Ok(()),
        }
    }

    fn take(&mut self, from: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
        let upper = self.upper()?;
        rustix::fs::renameat(from, name, upper, name)
    }

    fn remove_foreign(&self, dir: BorrowedFd<'_>) -> Result<(), Errno> {
        for name in walk::names(walk::reopen(dir)?.as_fd())? {
            let stat = walk::stat(dir, &name)?;
            if walk::file_type(&stat) == FileType::Directory {
                self.remove_foreign(walk::open_dir(dir, &name)?.as_fd())?;
            } else if self.foreign.contains(&(stat.st_dev, stat.st_ino)) {
                rustix::fs::unlinkat(dir, &name, AtFlags::empty())?;
            }
        }
        Ok(())
    }
}

/// Gives an upper dir files of its own where they have names outside of it, too: who writes to those must not change it.
pub fn unshare(upper: &Path) -> Result<(), FileError> {
    let root = walk::open_root(upper)?;
    let mut walk = walk::Walk::new(walk::open_root(upper)?, upper)?;
    let mut shared: HashMap<(u64, u64), (Stat, Vec<CString>)> = HashMap::new();
    while let Some(found) = walk.next()? {
        let Some(stat) = found.stat else { continue };
        if walk::file_type(&stat) == FileType::Directory {
            let dir = walk.open(&found)?;
            walk.enter(dir, Vec::new(), false)?;
        } else if walk::file_type(&stat) == FileType::RegularFile && stat.st_nlink > 1 {
            let name = CString::new(walk.path()).unwrap_or_default();
            shared.entry((stat.st_dev, stat.st_ino)).or_insert_with(|| (stat, vec![])).1.push(name);
        }
    }
    for (stat, names) in shared.into_values().filter(|(stat, names)| link_count(stat) > names.len() as u64) {
        let [first, others @ ..] = &names[..] else { continue };
        let error = |verb| FileError::at(verb, upper.join(OsStr::from_bytes(first.to_bytes())));
        let folders: Vec<&Path> =
            names.iter().filter_map(|name| Path::new(OsStr::from_bytes(name.to_bytes())).parent()).collect();
        let before = folders.iter().map(|folder| rustix::fs::stat(upper.join(folder)).map(|stat| times(&stat)));
        let before = before.collect::<Result<Vec<_>, _>>().map_err(error("look around"))?;
        let root_times = rustix::fs::fstat(&root).map(|stat| times(&stat)).map_err(error("look around"))?;
        copy_file(root.as_fd(), first, &stat, root.as_fd(), c".kiln-unshared")
            .map_err(FileError::at("copy", upper.join(OsStr::from_bytes(first.to_bytes()))))?;
        let put = || -> Result<(), Errno> {
            rustix::fs::renameat(&root, c".kiln-unshared", &root, first)?;
            for name in others {
                rustix::fs::unlinkat(&root, name, AtFlags::empty())?;
                rustix::fs::linkat(&root, first, &root, name, AtFlags::empty())?;
            }
            for (folder, times) in folders.iter().zip(&before) {
                rustix::fs::utimensat(rustix::fs::CWD, upper.join(folder), times, AtFlags::empty())?;
            }
            rustix::fs::futimens(&root, &root_times)
        };
        put().map_err(error("replace"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tree::{is_root, list, make};
    use std::fs;

    /// What differs is found, and lies on what was there as the tree was.
    #[test]
    fn changes_are_taken() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["one", "two", "view", "root", "upper", "again"] {
            fs::create_dir(path(name)).unwrap();
        }
        make(
            &path("one"),
            &["d d", "f d/same 1", "f d/gone 1", "f d/kind 1", "d old/x", "f old/x/f 1", "d dev", "d proc"],
        );
        make(
            &path("two"),
            &["d d", "f d/two 2 4755 7", "h d/link d/two", "l d/sym two", "w d/no", "o old", "f old/new 2"],
        );
        let lowers = [path("one"), path("two")];
        merge(&lowers, &path("view"), How::Link, &[]).unwrap();
        merge(&lowers, &path("root"), How::Copy, &["dev", "proc"]).unwrap();
        // All files of the view have a second name, in their snapshots.
        let seen = |tree: &str| -> Vec<(String, String)> {
            let lines = list(&path(tree)).into_iter();
            lines.map(|(name, what)| (what.replace(&format!(" = {name}"), ""), name)).collect()
        };
        assert_eq!(seen("view"), seen("root"));
        assert!(!path("view/old/x").exists());
        let linked = fs::metadata(path("root/d/two")).unwrap();
        assert_eq!(std::os::unix::fs::MetadataExt::nlink(&linked), 2);
        let manifest = Manifest::of(&path("root")).unwrap();
        let root = path("root");
        fs::remove_file(root.join("d/gone")).unwrap();
        fs::remove_file(root.join("d/kind")).unwrap();
        make(&root, &["d d/kind", "f d/kind/k 3", "d new/deep", "f new/deep/f 3", "f dev/null x", "f proc/x x"]);
        fs::write(root.join("d/same"), "2").unwrap();
        fs::write(root.join("new/deep/secret"), "hush").unwrap();
        let secret = rustix::fs::stat(root.join("new/deep/secret")).unwrap();
        let view = walk::open_root(&path("view")).unwrap();
        let foreign = HashSet::from([(secret.st_dev, secret.st_ino)]);
        take_changes(&root, Some(view.as_fd()), &manifest, &path("upper"), &["dev", "proc"], &foreign).unwrap();
        let left: Vec<String> = list(&path("upper")).into_iter().map(|(name, what)| format!("{name} {what}")).collect();
        assert_eq!(
            left,
            [
                "d dir 755 0:0",
                "d/gone whiteout 0 0:0",
                "d/kind dir 755 0:0",
                "d/kind/k file \"3\" 644 0:0",
                "d/same file \"2\" 644 0:0",
                "new dir 755 0:0",
                "new/deep dir 755 0:0",
                "new/deep/f file \"3\" 644 0:0",
            ]
        );
        merge(&[path("one"), path("two"), path("upper")], &path("again"), How::Copy, &[]).unwrap();
        let seen = list(&path("again"));
        assert!(!seen.contains_key("d/gone") && seen["d/same"].contains('2') && seen["d/kind"].starts_with("dir"));
    }

    #[test]
    fn files_with_names_elsewhere_become_the_trees_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("upper/d")).unwrap();
        fs::write(path("cached"), "1").unwrap();
        for name in ["upper/d/a", "upper/b"] {
            fs::hard_link(path("cached"), path(name)).unwrap();
        }
        unshare(&path("upper")).unwrap();
        fs::write(path("cached"), "2").unwrap();
        let inode = |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(path(name)).unwrap());
        assert_eq!(inode("upper/d/a"), inode("upper/b"));
        assert_eq!(fs::read_to_string(path("upper/b")).unwrap(), "1");
        assert_eq!(fs::read_dir(path("upper")).unwrap().count(), 2);
    }
}
