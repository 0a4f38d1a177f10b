//! Paths from outside, resolved below a root: `..` and symlinks never lead out of it.
//!
//! The kernel's openat2 could do that for paths that exist. A layer names paths that do not, or only half, and may
//! make them by way of symlinks, so the way is walked here, one component at a time, each opened without following.

use crate::walk;
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// As many as Linux follows (path_resolution(7)).
const MAX_SYMLINKS: usize = 40;

/// A directory below a root.
pub(crate) struct Place {
    /// Without symlinks, `.` or `..`; empty for the root.
    pub path: Vec<u8>,
    /// `None` if it does not exist, or is no directory.
    pub dir: Option<OwnedFd>,
}

/// Called for a component that is no directory: the one it is in, its name, its path. Makes it, or says why not.
pub(crate) type Make<'a> = dyn FnMut(BorrowedFd<'_>, &CStr, &[u8]) -> Result<OwnedFd, Errno> + 'a;

/// Components of a path without `.`, with `..` taken literally and never above the root.
pub(crate) fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut components = Vec::new();
    for component in path.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." => drop(components.pop()),
            name => components.push(name),
        }
    }
    components
}

/// `parent/name`, or `name` in the root.
pub(crate) fn join(parent: &[u8], name: &[u8]) -> Vec<u8> {
    if parent.is_empty() { name.to_vec() } else { [parent, b"/", name].concat() }
}

/// Directory and name of a path that is not the root's.
pub(crate) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Whether `path` is `dir` or below it.
pub(crate) fn is_within(path: &[u8], dir: &[u8]) -> bool {
    dir.is_empty() || path.strip_prefix(dir).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

/// Finds the directory `path` below `root`, following symlinks there. What is missing is made by `make`, if given.
pub(crate) fn resolve(root: BorrowedFd<'_>, path: &[u8], mut make: Option<&mut Make<'_>>) -> Result<Place, Errno> {
    let mut todo: VecDeque<Vec<u8>> = clean(path).into_iter().map(<[u8]>::to_vec).collect();
    // The way so far. Behind a component that does not exist there are only more of that kind.
    let mut way: Vec<(Vec<u8>, Option<OwnedFd>)> = Vec::new();
    let mut symlinks = 0;
    while let Some(component) = todo.pop_front() {
        match &component[..] {
            b"" | b"." => continue,
            b".." => {
                way.pop();
                continue;
            }
            _ => {}
        }
        let here = match way.last() {
            None => Some(root),
            Some((_, dir)) => dir.as_ref().map(AsFd::as_fd),
        };
        let Some(here) = here else {
            way.push((component, None));
            continue;
        };
        let name = CString::new(component.clone()).map_err(|_| Errno::INVAL)?;
        if let Some(dir) = walk::open_dir_if_any(here, &name)? {
            way.push((component, Some(dir)));
            continue;
        }
        match rustix::fs::readlinkat(here, &name, Vec::new()) {
            Ok(target) => {
                symlinks += 1;
                if symlinks > MAX_SYMLINKS {
                    return Err(Errno::LOOP);
                }
                let target = target.into_bytes();
                if target.starts_with(b"/") {
                    way.clear();
                }
                for component in target.rsplit(|byte| *byte == b'/') {
                    todo.push_front(component.to_vec());
                }
            }
            Err(Errno::INVAL | Errno::NOENT) => {
                let dir = match &mut make {
                    Some(make) => Some(make(here, &name, &join(&path_of(&way), &component))?),
                    None => None,
                };
                way.push((component, dir));
            }
            Err(errno) => return Err(errno),
        }
    }
    let path = path_of(&way);
    let dir = match way.pop() {
        Some((_, dir)) => dir,
        None => Some(walk::reopen(root)?),
    };
    Ok(Place { path, dir })
}

fn path_of(way: &[(Vec<u8>, Option<OwnedFd>)]) -> Vec<u8> {
    way.iter().map(|(name, _)| &name[..]).collect::<Vec<_>>().join(&b'/')
}
