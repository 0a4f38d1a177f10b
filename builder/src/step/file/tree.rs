//! Trees that are read: a client's directory without what its `.dockerignore` leaves out, or a stack of layers.
//! Paths are relative to the root, without leading slash; the root is empty.

use super::view::View;
use super::{FileError, SourceTree};
use crate::source::context::ContextDir;
use crate::source::dir::{self, Listing, Meta};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// As many symbolic links as BuildKit follows in one path.
const MAX_LINKS: usize = 255;

/// An opened tree.
pub struct Tree {
    kind: Kind,
}

enum Kind {
    Client(Arc<ContextDir>),
    Layers(View),
    Empty,
}

/// The root of an empty tree, which is there like any other.
fn empty_root() -> Meta {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let time = (now.as_secs() as i64, now.subsec_nanos());
    let (kind, mode) = (FileType::Directory, 0o755);
    Meta { kind, mode, uid: 0, gid: 0, size: 0, rdev: 0, nlink: 2, dev: 0, ino: 0, mtime: time, ctime: time }
}

/// The listings of directories, by path.
pub type Listings = HashMap<Vec<u8>, Listing>;

impl Tree {
    /// Opens a tree.
    pub fn open(source: &SourceTree) -> Result<Tree, FileError> {
        let kind = match source {
            SourceTree::Client(context) => Kind::Client(context.clone()),
            SourceTree::Layers(lowers) => View::open(lowers)?.map_or(Kind::Empty, Kind::Layers),
            SourceTree::Empty => Kind::Empty,
        };
        Ok(Tree { kind })
    }

    /// The client's directory, if it is one.
    pub fn context(&self) -> Option<&ContextDir> {
        match &self.kind {
            Kind::Client(context) => Some(context),
            Kind::Layers(_) | Kind::Empty => None,
        }
    }

    /// Whether files belong to root whoever has them, and sockets are empty files.
    pub fn is_of_the_client(&self) -> bool {
        self.context().is_some()
    }

    /// The root; `None` if the tree is empty.
    pub fn root(&self) -> Option<BorrowedFd<'_>> {
        match &self.kind {
            Kind::Client(context) => Some(context.root()),
            Kind::Layers(view) => Some(view.root()),
            Kind::Empty => None,
        }
    }

    /// Entries of a directory.
    pub fn list(&self, path: &[u8]) -> Result<Listing, FileError> {
        match &self.kind {
            Kind::Client(context) => Ok(context.list(path)?),
            Kind::Layers(view) => {
                let listing = view.list(path).map_err(|errno| self.error("read directory", path, errno))?;
                Ok(Arc::new(listing))
            }
            Kind::Empty => Ok(Arc::default()),
        }
    }

    /// Opens a regular file to be read.
    pub fn open_file(&self, path: &[u8]) -> Result<File, FileError> {
        let Some(root) = self.root() else { return Err(self.error("open", path, Errno::NOENT)) };
        // A fifo that took the file's place must not block us.
        let fd = dir::open(root, path, OFlags::RDONLY | OFlags::NONBLOCK);
        fd.map(File::from).map_err(|errno| self.error("open", path, errno))
    }

    /// Target of a symbolic link.
    pub fn read_link(&self, path: &[u8]) -> Result<Vec<u8>, FileError> {
        let target = self.root().ok_or(Errno::NOENT).and_then(|root| read_link(root, path));
        target.map_err(|errno| self.error("read the link", path, errno))
    }

    /// Follows all symbolic links of `path`, the last one too, never out of the root. `None` if there is nothing, or
    /// nothing that the ignore file leaves.
    pub fn resolve(&self, path: &[u8]) -> Result<Option<(Vec<u8>, Meta)>, FileError> {
        let Some(root) = self.root() else {
            let is_root = components(path).all(|name| name == b"..");
            return Ok(is_root.then(|| (Vec::new(), empty_root())));
        };
        let mut rest: VecDeque<Vec<u8>> = components(path).map(<[u8]>::to_vec).collect();
        let mut done: Vec<u8> = Vec::new();
        let mut meta = self.stat_at(root, b"")?;
        let mut links = 0;
        while let Some(name) = rest.pop_front() {
            if name == b".." {
                done.truncate(dir::split(&done).0.len());
                meta = self.stat_at(root, &done)?;
                continue;
            }
            let next = dir::join(&done, &name);
            let Some(found) = self.stat_at(root, &next)? else { return Ok(None) };
            if !found.is_symlink() {
                (done, meta) = (next, Some(found));
                continue;
            }
            if !self.visible(&next, &found)? {
                return Ok(None);
            }
            links += 1;
            if links > MAX_LINKS {
                return Err(FileError::SymlinkLoop { path: dir::text(path) });
            }
            let target = self.read_link(&next)?;
            if target.starts_with(b"/") {
                done.clear();
                meta = self.stat_at(root, b"")?;
            }
            components(&target).rev().for_each(|name| rest.push_front(name.to_vec()));
        }
        match meta {
            Some(meta) if self.visible(&done, &meta)? => Ok(Some((done, meta))),
            _ => Ok(None),
        }
    }

    /// Lists the directory `start` and all below it that `descend` takes (called with the path from the root).
    /// Large trees are read by several threads.
    pub fn walk(&self, start: &[u8], descend: &(dyn Fn(&[u8]) -> bool + Sync)) -> Result<Listings, FileError> {
        let mut listed = Listings::new();
        let mut pending = vec![start.to_vec()];
        // Threads cost more than they bring to a small tree.
        while let Some(path) = pending.pop() {
            let listing = self.list(&path)?;
            push_directories(&path, &listing, descend, &mut pending);
            listed.insert(path, listing);
            if pending.len() >= 16 {
                return self.walk_threaded(pending, listed, descend);
            }
        }
        Ok(listed)
    }

    fn walk_threaded(
        &self,
        pending: Vec<Vec<u8>>,
        listed: Listings,
        descend: &(dyn Fn(&[u8]) -> bool + Sync),
    ) -> Result<Listings, FileError> {
        struct State {
            pending: Vec<Vec<u8>>,
            active: usize,
            listed: Listings,
            error: Option<FileError>,
        }
        let state = Mutex::new(State { pending, active: 0, listed, error: None });
        let changed = Condvar::new();
        let work = || {
            let mut guard = lock(&state);
            loop {
                if guard.error.is_some() || (guard.pending.is_empty() && guard.active == 0) {
                    changed.notify_all();
                    return;
                }
                let Some(path) = guard.pending.pop() else {
                    guard = changed.wait(guard).unwrap_or_else(PoisonError::into_inner);
                    continue;
                };
                guard.active += 1;
                drop(guard);
                let mut below = Vec::new();
                let result = self.list(&path).inspect(|listing| push_directories(&path, listing, descend, &mut below));
                guard = lock(&state);
                guard.active -= 1;
                match result {
                    Ok(listing) => {
                        guard.listed.insert(path, listing);
                        guard.pending.append(&mut below);
                    }
                    Err(error) => guard.error = Some(error),
                }
                changed.notify_all();
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..super::threads() {
                scope.spawn(work);
            }
            work();
        });
        let state = state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.error.map_or(Ok(state.listed), Err)
    }

    /// The full path of a file for messages: where it is on the client's disk, or below the tree's root.
    pub fn error(&self, verb: &'static str, path: &[u8], errno: impl Into<io::Error>) -> FileError {
        use std::os::unix::ffi::OsStrExt;
        let relative = Path::new(std::ffi::OsStr::from_bytes(path));
        let path = match self.context() {
            Some(context) => context.path().join(relative),
            None => Path::new("/").join(relative),
        };
        FileError::Io { verb, path, source: errno.into() }
    }

    fn visible(&self, path: &[u8], meta: &Meta) -> Result<bool, FileError> {
        match &self.kind {
            Kind::Client(context) => Ok(context.visible(path, meta)?),
            Kind::Layers(_) | Kind::Empty => Ok(true),
        }
    }

    fn stat_at(&self, root: BorrowedFd<'_>, path: &[u8]) -> Result<Option<Meta>, FileError> {
        let found = match &self.kind {
            Kind::Layers(view) => view.stat(path),
            Kind::Client(_) | Kind::Empty => dir::stat(root, path),
        };
        found.map_err(|errno| self.error("look at", path, errno))
    }
}

/// Target of the symbolic link at `path`, which has no links on its way.
pub fn read_link(root: BorrowedFd<'_>, path: &[u8]) -> Result<Vec<u8>, Errno> {
    let fd = dir::open(root, path, OFlags::PATH)?;
    Ok(rustix::fs::readlinkat(&fd, "", Vec::new())?.into_bytes())
}

/// The names of a path, without `.` and empty ones.
pub fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|&b| b == b'/').filter(|name| !name.is_empty() && *name != b".")
}

fn push_directories(
    path: &[u8],
    listing: &Listing,
    descend: &(dyn Fn(&[u8]) -> bool + Sync),
    pending: &mut Vec<Vec<u8>>,
) {
    let below = listing.iter().filter(|entry| entry.meta.is_dir()).map(|entry| dir::join(path, &entry.name));
    pending.extend(below.filter(|path| descend(path)));
}

/// A panic in another thread does not spoil what a lock guards here.
pub fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
