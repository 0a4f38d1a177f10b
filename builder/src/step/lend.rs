//! What a step would have mounted, where nothing can be mounted: it is copied or moved into the step's root ("lent"),
//! what it covers is put aside, and afterwards all is as a mount would have left it. Nothing lent gets into a layer.

use super::exec::ExecError;
use super::mount_point;
use crate::sandbox::SandboxError;
use crate::source::dir;
use cache::owners::is_refusal;
use cache::snapshot::native;
use cache::walk;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Timestamps};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// What is lent.
pub(super) enum Loan<'a> {
    /// A file with this content, mode and owner.
    File { content: &'a [u8], mode: u32, owner: (u32, u32) },
    /// An empty folder that all may write.
    Scratch,
    /// A copy of a path in a tree; what the step writes there is thrown away.
    Copy { tree: BorrowedFd<'a>, path: &'a Path },
    /// This folder itself, which is given back.
    Folder(&'a Path),
    /// Whatever `make` makes at the path it is given.
    Made(&'a mut dyn FnMut(&Path) -> Result<(), ExecError>),
}

/// All that is lent to a step. Dropped before [`Lent::take_back`], it still gives folders back and removes files.
pub(super) struct Lent {
    root: PathBuf,
    fd: OwnedFd,
    /// Folder for what is covered.
    aside: PathBuf,
    items: Vec<Item>,
    /// Folders made on the way, outermost first.
    made: Vec<PathBuf>,
    /// Folders that were changed, with their times before and after.
    times: Vec<(PathBuf, Timestamps, Timestamps)>,
}

struct Item {
    /// Relative to the root, without links.
    at: PathBuf,
    id: (u64, u64),
    /// So that no other file gets this inode.
    fd: OwnedFd,
    folder: bool,
    covers: Option<PathBuf>,
    home: Option<PathBuf>,
}

impl Lent {
    /// Lends nothing yet to the tree at `root`. `aside` is a new folder on the same file system.
    pub(super) fn new(root: &Path, aside: &Path) -> Result<Lent, SandboxError> {
        fs::create_dir(aside).map_err(SandboxError::path("create", aside))?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(root, flags, Mode::empty()).map_err(SandboxError::path("open", root))?;
        let (root, aside) = (root.to_path_buf(), aside.to_path_buf());
        Ok(Lent { root, fd, aside, items: vec![], made: vec![], times: vec![] })
    }

    /// Lends something at a path, whose links are followed in the root.
    pub(super) fn lend(&mut self, target: &Path, loan: Loan<'_>) -> Result<(), ExecError> {
        let at = mount_point::resolve(self.fd.as_fd(), target)?;
        if at.path.as_os_str().is_empty() {
            return Err(ExecError::Isolation { what: "a mount on /".into(), refused: None });
        }
        let existing: PathBuf = at.path.components().take(at.existing.min(at.path.components().count() - 1)).collect();
        self.remember_time(&existing)?;
        let mut parent = PathBuf::new();
        for component in at.path.parent().unwrap_or(Path::new("")).components() {
            parent.push(component);
            let full = self.root.join(&parent);
            match fs::create_dir(&full) {
                Ok(()) => {
                    let mode = fs::Permissions::from_mode(0o755);
                    fs::set_permissions(&full, mode).map_err(SandboxError::path("set the mode of", &full))?;
                    self.made.push(parent.clone());
                }
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(SandboxError::path("create", full)(error).into()),
            }
        }
        let full = self.root.join(&at.path);
        let mut covers = None;
        if at.kind.is_some() {
            let aside = self.aside.join(self.items.len().to_string());
            fs::rename(&full, &aside).map_err(SandboxError::path("put aside", &full))?;
            covers = Some(aside);
        }
        let home = match &loan {
            Loan::Folder(home) => Some(home.to_path_buf()),
            _ => None,
        };
        let placed = place(&full, loan);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::open(&full, flags, Mode::empty()).map_err(SandboxError::path("open", &full));
        let (Ok(()), Ok(fd)) = (&placed, &opened) else {
            // Nothing is lent; what was covered goes with the root.
            return Err(placed.err().or(opened.err().map(Into::into)).expect("one of the two has failed"));
        };
        let stat = rustix::fs::fstat(fd).map_err(SandboxError::path("stat", &full))?;
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let fd = opened?;
        self.items.push(Item { at: at.path, id: (stat.st_dev, stat.st_ino), fd, folder, covers, home });
        self.changed_time(&existing)
    }

    fn remember_time(&mut self, path: &Path) -> Result<(), ExecError> {
        if !self.times.iter().any(|(known, ..)| known == path) {
            let before = times_of(&self.root.join(path))?;
            self.times.push((path.to_path_buf(), before.clone(), before));
        }
        Ok(())
    }

    fn changed_time(&mut self, path: &Path) -> Result<(), ExecError> {
        let now = times_of(&self.root.join(path))?;
        self.times.iter_mut().filter(|(known, ..)| known == path).for_each(|(_, _, after)| *after = now.clone());
        Ok(())
    }

    /// Takes all back after the step. Gives the inodes of files that are not where they were: they are in no layer.
    pub(super) fn take_back(mut self) -> Result<HashSet<(u64, u64)>, ExecError> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<HashSet<(u64, u64)>, ExecError> {
        let mut elsewhere = HashSet::new();
        let mut failed = None;
        // What the step did not change keeps the time that it had.
        let mut times = vec![];
        for (path, before, after) in self.times.drain(..) {
            if let Ok(now) = times_of(&self.root.join(&path)) {
                let unchanged = now.last_modification == after.last_modification;
                times.push((path, if unchanged { before } else { now }));
            }
        }
        for item in std::mem::take(&mut self.items).into_iter().rev() {
            match take_item(self.fd.as_fd(), &item) {
                Ok(true) => {}
                Ok(false) => drop(elsewhere.insert(item.id)),
                Err(error) => drop(failed.get_or_insert(error)),
            }
        }
        for path in self.made.drain(..).rev() {
            // What the step has put there stays, and is the step's.
            let _ = fs::remove_dir(self.root.join(path));
        }
        for (path, time) in times {
            let _ = rustix::fs::utimensat(CWD, self.root.join(path), &time, AtFlags::SYMLINK_NOFOLLOW);
        }
        failed.map_or(Ok(elsewhere), Err)
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        // The step has failed or was stopped: what matters is that caches go home and secrets go away.
        let _ = self.give_back();
    }
}

fn place(full: &Path, loan: Loan<'_>) -> Result<(), ExecError> {
    match loan {
        Loan::File { content, mode, owner } => {
            fs::write(full, "").map_err(SandboxError::path("create", full))?;
            let private = fs::Permissions::from_mode(0o600);
            fs::set_permissions(full, private).map_err(SandboxError::path("set the mode of", full))?;
            fs::write(full, content).map_err(SandboxError::path("write", full))?;
            own(full, mode, owner)
        }
        Loan::Scratch => {
            fs::create_dir(full).map_err(SandboxError::path("create", full))?;
            own(full, 0o1777, (0, 0))
        }
        Loan::Copy { tree, path } => {
            let parent = path.parent().unwrap_or(Path::new(""));
            let (parent, name) = match path.file_name() {
                Some(name) => (dir::open(tree, parent.as_os_str().as_bytes(), OFlags::PATH | OFlags::DIRECTORY), name),
                None => (walk::reopen(tree), std::ffi::OsStr::new(".")),
            };
            let parent = parent.map_err(SandboxError::path("open", path))?;
            Ok(native::copy(parent.as_fd(), &CString::new(name.as_bytes()).unwrap_or_default(), full)?)
        }
        Loan::Folder(home) => Ok(fs::rename(home, full).map_err(SandboxError::path("move in", home))?),
        Loan::Made(make) => make(full),
    }
}

/// Sets owner and mode; an owner that cannot be had is one that nobody here has.
pub(super) fn own(path: &Path, mode: u32, owner: (u32, u32)) -> Result<(), ExecError> {
    match std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1)) {
        Err(error) if !Errno::from_io_error(&error).is_some_and(is_refusal) => {
            return Err(SandboxError::path("set the owner of", path)(error).into());
        }
        _ => {}
    }
    let mode = fs::Permissions::from_mode(mode & 0o7777);
    Ok(fs::set_permissions(path, mode).map_err(SandboxError::path("set the mode of", path))?)
}

/// Takes one thing out of the root, and puts back what it covered. `false`: a file that is somewhere else by now.
fn take_item(root: BorrowedFd<'_>, item: &Item) -> Result<bool, ExecError> {
    let moved = || ExecError::MountMoved { path: Path::new("/").join(&item.at) };
    let error = |verb| SandboxError::path(verb, Path::new("/").join(&item.at));
    let (parent, name) = (item.at.parent().unwrap_or(Path::new("")), item.at.file_name().unwrap_or_default());
    let name = CString::new(name.as_bytes()).unwrap_or_default();
    let gone = rustix::fs::fstat(&item.fd).is_ok_and(|stat| stat.st_nlink == 0);
    let parent = match dir::open(root, parent.as_os_str().as_bytes(), OFlags::RDONLY | OFlags::DIRECTORY) {
        Ok(parent) => parent,
        // Deleted with all in it, which a mount would have refused to anybody.
        Err(_) if gone && item.covers.is_none() => return Ok(true),
        Err(_) if item.folder || item.covers.is_some() => return Err(moved()),
        Err(_) => return Ok(false),
    };
    let there = walk::stat_if_any(parent.as_fd(), &name).map_err(error("stat"))?;
    let is_there = there.is_some_and(|stat| (stat.st_dev, stat.st_ino) == item.id);
    match &item.home {
        Some(home) if is_there => {
            rustix::fs::renameat(&parent, &name, CWD, home).map_err(SandboxError::path("move back to", home))?;
        }
        _ if is_there && item.folder => {
            let path = PathBuf::from(std::ffi::OsStr::from_bytes(walk::proc_path(parent.as_fd(), &name).as_bytes()));
            fs::remove_dir_all(path).map_err(SandboxError::path("remove", Path::new("/").join(&item.at)))?;
        }
        _ if is_there => rustix::fs::unlinkat(&parent, &name, AtFlags::empty()).map_err(error("remove"))?,
        _ if item.folder && !gone => return Err(moved()),
        _ => {}
    }
    if let Some(covered) = &item.covers {
        match rustix::fs::renameat_with(CWD, covered, &parent, &name, RenameFlags::NOREPLACE) {
            // The step has put something else there: that is what it wanted.
            Err(Errno::EXIST) => {}
            result => result.map_err(error("put back"))?,
        }
    }
    if item.folder || gone {
        return Ok(true);
    }
    // Moved, or a second name was made. The file goes into no layer, and what it has need not wait for the trash.
    let elsewhere = rustix::fs::fstat(&item.fd).is_ok_and(|stat| stat.st_nlink > 0);
    if elsewhere {
        let _ = fs::File::options().write(true).truncate(true).open(format!("/proc/self/fd/{}", item.fd.as_raw_fd()));
    }
    Ok(!elsewhere)
}

fn times_of(path: &Path) -> Result<Timestamps, ExecError> {
    let stat = rustix::fs::lstat(path).map_err(SandboxError::path("stat", path))?;
    let time = |seconds, nanoseconds| rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec as _),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_comes_back_and_leaves_no_trace() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("root/etc")).unwrap();
        fs::create_dir_all(path("cache/x")).unwrap();
        fs::write(path("root/etc/hosts"), "image").unwrap();
        let old = filetime(&path("root/etc"), 1000);
        let mut lent = Lent::new(&path("root"), &path("aside")).unwrap();
        let file = |content| Loan::File { content, mode: 0o644, owner: (0, 0) };
        lent.lend(Path::new("/etc/hosts"), file(b"lent")).unwrap();
        lent.lend(Path::new("/run/secrets/s"), file(b"hush")).unwrap();
        lent.lend(Path::new("/run/secrets/t"), file(b"hush")).unwrap();
        lent.lend(Path::new("/var/cache"), Loan::Folder(&path("cache"))).unwrap();
        lent.lend(Path::new("/tmp"), Loan::Scratch).unwrap();
        assert_eq!(fs::read_to_string(path("root/etc/hosts")).unwrap(), "lent");
        // The step.
        fs::write(path("root/var/cache/new"), "kept").unwrap();
        fs::rename(path("root/run/secrets/t"), path("root/stolen")).unwrap();
        fs::hard_link(path("root/run/secrets/s"), path("root/linked")).unwrap();
        fs::write(path("root/tmp/x"), "gone").unwrap();
        let elsewhere = lent.take_back().unwrap();
        let stolen = rustix::fs::stat(path("root/stolen")).unwrap();
        let linked = rustix::fs::stat(path("root/linked")).unwrap();
        assert_eq!(elsewhere, HashSet::from([stolen, linked].map(|stat| (stat.st_dev, stat.st_ino))));
        assert_eq!((stolen.st_size, linked.st_size), (0, 0));
        assert_eq!(fs::read_to_string(path("root/etc/hosts")).unwrap(), "image");
        assert_eq!(fs::read_to_string(path("cache/new")).unwrap(), "kept");
        assert_eq!(times_of(&path("root/etc")).unwrap().last_modification, old);
        let mut left: Vec<_> = fs::read_dir(path("root")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["etc", "linked", "stolen"]);
    }

    #[test]
    fn a_folder_that_was_moved_fails_the_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("root/a")).unwrap();
        let mut lent = Lent::new(&path("root"), &path("aside")).unwrap();
        lent.lend(Path::new("/a/t"), Loan::Scratch).unwrap();
        fs::rename(path("root/a"), path("root/b")).unwrap();
        assert!(matches!(lent.take_back(), Err(ExecError::MountMoved { .. })));
    }

    fn filetime(path: &Path, seconds: i64) -> rustix::fs::Timespec {
        let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).unwrap();
        time
    }
}
