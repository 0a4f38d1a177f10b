//! Owners that the kernel refuses to give: they are kept beside the files, and layers have them all the same.
//!
//! An ordinary user without subordinate ids has one id in a user namespace, and a container may lack `CAP_CHOWN`. There
//! every file belongs to 0:0 on the disk. Whose it is in the image is then an xattr of files and directories,
//! [`OWNER`]; what cannot carry such xattrs (symlinks, devices, pipes, sockets) is listed in a file beside the
//! snapshot, `<snapshot>.owners`. That file is also the mark that there is something to look for: a snapshot without it
//! costs nobody a system call. An owner on the disk other than 0:0 is always the true one.

use crate::error::FileError;
use crate::walk;
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Name of the xattr: user and group in decimal, with a colon between.
pub const OWNER: &str = "user.kiln.owner";

/// What a list's name ends with.
const LIST: &str = ".owners";

/// User and group.
pub type Pair = (u32, u32);

/// The file beside a snapshot or draft.
pub fn list_path(upper: &Path) -> PathBuf {
    let mut path = upper.as_os_str().to_os_string();
    path.push(LIST);
    path.into()
}

/// Whether a name in the folder of snapshots is that of a list.
pub(crate) fn is_list(name: &str) -> bool {
    name.ends_with(LIST)
}

/// Removes the file beside a snapshot or draft; success if there was none.
pub(crate) fn remove_list(upper: &Path) -> Result<(), FileError> {
    let path = list_path(upper);
    match fs::remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(FileError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Reads owners of files in a stack of snapshots.
#[derive(Clone, Debug)]
pub struct Owners {
    /// Lowest first, with what their lists say.
    layers: Vec<(PathBuf, HashMap<Vec<u8>, Pair>)>,
}

impl Owners {
    /// Of snapshots or drafts, lowest first. `None` if all owners are those on the disk.
    pub fn read<P: AsRef<Path>>(lowers: &[P]) -> Result<Option<Owners>, FileError> {
        let mut layers = vec![];
        let mut any = false;
        for lower in lowers {
            let path = list_path(lower.as_ref());
            let list = match fs::read(&path) {
                Ok(bytes) => {
                    any = true;
                    parse(&bytes)
                }
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => HashMap::new(),
                Err(error) => return Err(FileError::at("read", &path)(error)),
            };
            layers.push((lower.as_ref().to_path_buf(), list));
        }
        Ok(any.then_some(Owners { layers }))
    }

    /// The owner of `name` in `dir`, at `path` from the root, which is of that kind and on the disk belongs to `disk`.
    pub fn of(&self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], kind: FileType, disk: Pair) -> Result<Pair, Errno> {
        if disk != (0, 0) {
            return Ok(disk);
        }
        match kind {
            FileType::RegularFile | FileType::Directory => {
                let mut value = [0u8; 32];
                match rustix::fs::lgetxattr(walk::proc_path(dir, name), OWNER, &mut value[..]) {
                    Ok(length) => Ok(parse_pair(&value[..length]).unwrap_or(disk)),
                    Err(Errno::NODATA | Errno::NOTSUP | Errno::RANGE) => Ok(disk),
                    Err(errno) => Err(errno),
                }
            }
            _ => Ok(self.listed(path).unwrap_or(disk)),
        }
    }

    /// As the highest snapshot says that has something there.
    fn listed(&self, path: &[u8]) -> Option<Pair> {
        let relative = OsStr::from_bytes(path);
        for (root, list) in self.layers.iter().rev() {
            if let Some(pair) = list.get(path) {
                return Some(*pair);
            }
            if rustix::fs::lstat(root.join(relative)).is_ok() {
                return None;
            }
        }
        None
    }
}

/// As [`Owners::of`], where there may be none to read and the disk has `stat`.
pub(crate) fn of(
    owners: Option<&Owners>,
    dir: BorrowedFd<'_>,
    name: &CStr,
    path: &[u8],
    stat: &Stat,
) -> Result<Pair, Errno> {
    let disk = (stat.st_uid, stat.st_gid);
    owners.map_or(Ok(disk), |owners| owners.of(dir, name, path, walk::file_type(stat), disk))
}

/// Whether this says that the kernel gives nobody such an owner here: the user namespace has no such id, or a capability
/// is missing.
pub fn is_refusal(errno: Errno) -> bool {
    matches!(errno, Errno::INVAL | Errno::PERM)
}

/// Gives files of a draft their owners.
#[derive(Debug)]
pub struct OwnerNotes {
    list: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    /// No owner was refused.
    Unneeded,
    /// What the list says of what can have no xattrs.
    Kept(File, HashMap<Vec<u8>, Pair>),
}

impl OwnerNotes {
    /// For the draft whose upper dir this is; goes on with the list that is there.
    pub fn open(upper: &Path) -> Result<OwnerNotes, FileError> {
        let list = list_path(upper);
        let state = match fs::read(&list) {
            Ok(bytes) => State::Kept(open_list(&list)?, parse(&bytes)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => State::Unneeded,
            Err(error) => return Err(FileError::at("read", &list)(error)),
        };
        Ok(OwnerNotes { list, state: Mutex::new(state) })
    }

    /// Marks the draft as one that may have owners beside its files: what the kernel copies up brings them along.
    pub fn mark(upper: &Path) -> Result<(), FileError> {
        open_list(&list_path(upper)).map(drop)
    }

    /// Sets the owner of `name` in `dir`, at `path` from the root; symlinks are not followed. Clears set-id bits and
    /// capabilities. All bits set mean root's: that is nobody's number.
    pub fn set(&self, dir: BorrowedFd<'_>, name: &CStr, path: &[u8], kind: FileType, owner: Pair) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        let plain = matches!(kind, FileType::RegularFile | FileType::Directory);
        match rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            Ok(()) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                let State::Kept(list, known) = &mut *state else { return Ok(()) };
                // What was noted of what was there before is true no more.
                if plain {
                    return unless_absent(rustix::fs::lremovexattr(walk::proc_path(dir, name), OWNER));
                }
                match known.contains_key(path) {
                    true => note(list, known, path, owner),
                    false => Ok(()),
                }
            }
            Err(refusal) if is_refusal(refusal) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                self.keep(&mut state)?;
                if plain {
                    return note_on(dir, name, owner);
                }
                let State::Kept(list, known) = &mut *state else { return Ok(()) };
                note(list, known, path, owner)
            }
            Err(errno) => Err(errno),
        }
    }

    /// As [`OwnerNotes::set`], of an open file or directory.
    pub fn set_open(&self, file: BorrowedFd<'_>, owner: Pair) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
        match rustix::fs::fchown(file, Some(uid), Some(gid)) {
            Ok(()) => {
                let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                if let State::Unneeded = *state {
                    return Ok(());
                }
                unless_absent(rustix::fs::fremovexattr(file, OWNER))
            }
            Err(refusal) if is_refusal(refusal) => {
                let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
                self.keep(&mut state)?;
                rustix::fs::fsetxattr(file, OWNER, text(owner).as_bytes(), XattrFlags::empty())
            }
            Err(errno) => Err(errno),
        }
    }

    /// Gives a file that was just made its owner, then its mode. What it has already, because it was made with it, is not
    /// set again: the file system would write either down.
    pub fn set_new(&self, file: BorrowedFd<'_>, owner: Pair, mode: u32) -> Result<(), Errno> {
        let stat = rustix::fs::fstat(file)?;
        if (stat.st_uid, stat.st_gid) != owner {
            self.set_open(file, owner)?;
        }
        if stat.st_mode & 0o7777 != mode {
            rustix::fs::fchmod(file, Mode::from_raw_mode(mode))?;
        }
        Ok(())
    }

    /// Begins the list.
    fn keep(&self, state: &mut State) -> Result<(), Errno> {
        if let State::Unneeded = state {
            *state = State::Kept(open_list(&self.list).map_err(|error| errno_of(&error))?, HashMap::new());
        }
        Ok(())
    }

    /// A second name was made for what is at `path`.
    pub fn linked(&self, path: &[u8], name: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Kept(list, known) = &mut *state else { return Ok(()) };
        match known.get(path).copied() {
            Some(owner) => note(list, known, name, owner),
            None => Ok(()),
        }
    }

    /// All below the directory `from` was moved to the directory `to`.
    pub fn moved(&self, from: &[u8], to: &[u8]) -> Result<(), Errno> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let State::Kept(list, known) = &mut *state else { return Ok(()) };
        let below = |path: &[u8]| path.strip_prefix(from).is_some_and(|rest| rest.first() == Some(&b'/'));
        let moved: Vec<(Vec<u8>, Pair)> =
            known.iter().filter(|(path, _)| below(path)).map(|(path, owner)| (path.clone(), *owner)).collect();
        for (path, owner) in moved {
            let rest = &path[from.len() + usize::from(to.is_empty())..];
            note(list, known, &[to, rest].concat(), owner)?;
        }
        Ok(())
    }
}

/// Sets the owner of a file or directory that is reached through a mount of the draft: refused owners become xattrs;
/// the draft is marked by whoever finishes it. Symlinks are not followed.
pub fn set_through_mount(dir: BorrowedFd<'_>, name: &CStr, owner: Pair) -> Result<(), Errno> {
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    match rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
        Err(refusal) if is_refusal(refusal) => note_on(dir, name, owner),
        result => result,
    }
}

/// Gives all that a step made to `owner`: the entries of the upper dir that belong to 0:0, of which nothing is noted,
/// and that `below`, what was there before, lacks.
pub fn give_new_files(upper: &Path, below: Option<BorrowedFd<'_>>, owner: Pair) -> Result<(), FileError> {
    let notes = OwnerNotes::open(upper)?;
    let root = walk::open_root(upper)?;
    let mut walk = walk::Walk::new(walk::open_root(upper)?, upper)?;
    while let Some(found) = walk.next()? {
        let Some(stat) = found.stat.filter(|stat| !walk::is_whiteout(stat)) else { continue };
        let kind = walk::file_type(&stat);
        if kind == FileType::Directory {
            let dir = walk.open(&found)?;
            walk.enter(dir, Vec::new(), false)?;
        }
        // A directory that was entered is not the walk's place any more, so all is done from the root.
        let path = walk.path().to_vec();
        let was_there = below.is_some_and(|below| {
            let path = CString::new(path.clone()).unwrap_or_default();
            rustix::fs::statat(below, &path, AtFlags::SYMLINK_NOFOLLOW).is_ok()
        });
        if was_there || (stat.st_uid, stat.st_gid) != (0, 0) {
            continue;
        }
        let full = upper.join(OsStr::from_bytes(&path));
        let mut value = [0u8; 32];
        let noted = rustix::fs::lgetxattr(&full, OWNER, &mut value[..]).is_ok();
        if !noted {
            let name = CString::new(path.clone()).unwrap_or_default();
            notes.set(root.as_fd(), &name, &path, kind, owner).map_err(FileError::at("set the owner of", full))?;
        }
    }
    Ok(())
}

fn text(owner: Pair) -> String {
    format!("{}:{}", owner.0, owner.1)
}

/// Notes an owner on a file or directory.
fn note_on(dir: BorrowedFd<'_>, name: &CStr, owner: Pair) -> Result<(), Errno> {
    rustix::fs::lsetxattr(walk::proc_path(dir, name), OWNER, text(owner).as_bytes(), XattrFlags::empty())
}

/// Success if there was no note to remove.
fn unless_absent(removed: Result<(), Errno>) -> Result<(), Errno> {
    match removed {
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        result => result,
    }
}

fn open_list(path: &Path) -> Result<File, FileError> {
    File::options().create(true).append(true).open(path).map_err(FileError::at("write", path))
}

fn errno_of(error: &FileError) -> Errno {
    Errno::from_io_error(&error.source).unwrap_or(Errno::IO)
}

fn note(list: &mut File, known: &mut HashMap<Vec<u8>, Pair>, path: &[u8], owner: Pair) -> Result<(), Errno> {
    let line = [text(owner).as_bytes(), b":", path, b"\0"].concat();
    list.write_all(&line).map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    known.insert(path.to_vec(), owner);
    Ok(())
}

/// Entries `uid:gid:path`, each ended by a NUL; a later one overrides an earlier one. One that was cut off counts not.
fn parse(bytes: &[u8]) -> HashMap<Vec<u8>, Pair> {
    let mut list = HashMap::new();
    for entry in bytes.split_inclusive(|byte| *byte == 0).filter_map(|entry| entry.strip_suffix(b"\0")) {
        let mut fields = entry.splitn(3, |byte| *byte == b':');
        let (Some(uid), Some(gid), Some(path)) = (fields.next(), fields.next(), fields.next()) else { continue };
        if let Some(pair) = parse_pair(&[uid, b":", gid].concat()) {
            list.insert(path.to_vec(), pair);
        }
    }
    list
}

fn parse_pair(text: &[u8]) -> Option<Pair> {
    let (uid, gid) = std::str::from_utf8(text).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let text = b"1:2:a\x003:4:b:c\x00bad\x005:x:d\x007:8:a\x009:9:cut";
        let expect = HashMap::from([(b"a".to_vec(), (7, 8)), (b"b:c".to_vec(), (3, 4))]);
        assert_eq!(parse(text), expect);
    }

    #[test]
    fn the_highest_snapshot_decides() {
        let dir = tempfile::tempdir().unwrap();
        let lowers: Vec<PathBuf> = ["one", "two", "three"].iter().map(|name| dir.path().join(name)).collect();
        for lower in &lowers {
            fs::create_dir(lower).unwrap();
        }
        std::os::unix::fs::symlink("x", lowers[0].join("l")).unwrap();
        std::os::unix::fs::symlink("x", lowers[1].join("again")).unwrap();
        fs::write(list_path(&lowers[0]), "5:6:l\x005:6:again\x00").unwrap();
        assert!(Owners::read(&lowers[1..]).unwrap().is_none());
        let owners = Owners::read(&lowers).unwrap().unwrap();
        assert_eq!(owners.listed(b"l"), Some((5, 6)));
        assert_eq!(owners.listed(b"again"), None);
        let notes = OwnerNotes::open(&lowers[0]).unwrap();
        notes.linked(b"l", b"d/m").unwrap();
        notes.moved(b"d", b"e/f").unwrap();
        notes.moved(b"d", b"").unwrap();
        let owners = Owners::read(&lowers).unwrap().unwrap();
        assert_eq!([b"d/m".as_slice(), b"e/f/m", b"m"].map(|path| owners.listed(path)), [Some((5, 6)); 3]);
    }

    #[test]
    fn refused_owners_are_noted() {
        if rustix::process::geteuid().is_root() {
            // Root is refused nothing; the end-to-end tests have an ordinary user.
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        fs::create_dir(&upper).unwrap();
        fs::write(upper.join("f"), "").unwrap();
        let notes = OwnerNotes::open(&upper).unwrap();
        let root = walk::open_root(&upper).unwrap();
        notes.set(root.as_fd(), c"f", b"f", FileType::RegularFile, (7, 8)).unwrap();
        let mut value = [0; 32];
        let length = rustix::fs::lgetxattr(upper.join("f"), OWNER, &mut value[..]).unwrap();
        assert_eq!(&value[..length], b"7:8");
    }
}
