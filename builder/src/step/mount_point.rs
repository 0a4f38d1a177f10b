//! Mount points that an image lacks. They are not made in the step's own layer, but in a layer of their own right below
//! it, which is thrown away: so they need no cleaning up, and no parent's time changes. A folder there that the image
//! has, too, is given the attributes of the image's, since it covers them.

use crate::sandbox::SandboxError;
use cache::owners::set_through_mount;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags, Timespec, Timestamps};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// Most symbolic links that are followed in one path, as in the kernel.
const LINKS_MAX: usize = 40;

/// Where a path in a root leads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Resolved {
    /// Without links and `..`, relative to the root; empty for the root itself.
    pub path: PathBuf,
    /// How many of its components are there.
    pub existing: usize,
    /// Kind of what is there; `None` if it is not all there.
    pub kind: Option<FileType>,
}

/// Follows `path` below `root`, absolute links being relative to it; `..` does not leave it. Nothing need exist.
pub(super) fn resolve(root: BorrowedFd<'_>, path: &Path) -> Result<Resolved, SandboxError> {
    let mut todo: VecDeque<OsString> = components(path);
    let mut resolved = Resolved { path: PathBuf::new(), existing: 0, kind: Some(FileType::Directory) };
    let mut links = 0;
    while let Some(component) = todo.pop_front() {
        if component == ".." {
            resolved.path.pop();
            let depth = resolved.path.components().count();
            resolved.existing = resolved.existing.min(depth);
            resolved.kind = (resolved.existing == depth).then_some(FileType::Directory);
            continue;
        }
        let next = resolved.path.join(&component);
        let found = match &resolved.kind {
            None => None,
            Some(_) => look(root, &next)?,
        };
        if found == Some(FileType::Symlink) {
            links += 1;
            if links > LINKS_MAX {
                return Err(SandboxError::path("resolve", path)(Errno::LOOP));
            }
            let target = rustix::fs::readlinkat(open_parent(root, &next)?, component.as_os_str(), vec![])
                .map_err(SandboxError::path("read the link", &next))?;
            let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
            if target.is_absolute() {
                resolved = Resolved { path: PathBuf::new(), existing: 0, kind: Some(FileType::Directory) };
            }
            components(&target).into_iter().rev().for_each(|component| todo.push_front(component));
            continue;
        }
        resolved.path = next;
        resolved.existing += usize::from(found.is_some());
        resolved.kind = found;
    }
    Ok(resolved)
}

/// Names and `..`, in order.
fn components(path: &Path) -> VecDeque<OsString> {
    path.components()
        .filter(|component| matches!(component, Component::Normal(_) | Component::ParentDir))
        .map(|component| component.as_os_str().to_os_string())
        .collect()
}

/// Kind of what is at a path that has no links before its last component.
fn look(root: BorrowedFd<'_>, path: &Path) -> Result<Option<FileType>, SandboxError> {
    match open(root, path, OFlags::PATH | OFlags::NOFOLLOW) {
        Ok(fd) => {
            let stat = rustix::fs::fstat(&fd).map_err(SandboxError::path("stat", path))?;
            Ok(Some(FileType::from_raw_mode(stat.st_mode)))
        }
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(None),
        Err(errno) => Err(SandboxError::path("open", path)(errno)),
    }
}

/// Opens below `root`, never outside.
pub(super) fn open(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), ResolveFlags::IN_ROOT)
}

fn open_parent(root: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, SandboxError> {
    let parent = path.parent().unwrap_or(Path::new(""));
    open(root, parent, OFlags::PATH | OFlags::DIRECTORY).map_err(SandboxError::path("open", parent))
}

/// A mount point to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Stub {
    /// Where it is; some of it may be missing.
    pub at: Resolved,
    /// Whether a folder is mounted there.
    pub folder: bool,
}

/// Makes the missing mount points in `layer`, a new folder. `false` if none was missing, and there is no layer.
pub(super) fn make_layer(root: BorrowedFd<'_>, layer: &Path, stubs: &[Stub]) -> Result<bool, SandboxError> {
    let mut mirrored: Vec<PathBuf> = vec![];
    for stub in stubs.iter().filter(|stub| stub.at.kind.is_none()) {
        if mirrored.is_empty() {
            make_folder(layer)?;
            mirrored.push(PathBuf::new());
        }
        let mut path = PathBuf::new();
        let depth = stub.at.path.components().count();
        for (i, component) in stub.at.path.components().enumerate() {
            path.push(component);
            let full = layer.join(&path);
            if i + 1 == depth && !stub.folder {
                // A second mount on the same file finds it there.
                std::fs::File::create(&full).map_err(SandboxError::path("create", &full))?;
                continue;
            }
            if make_folder(&full)? && i < stub.at.existing {
                mirrored.push(path.clone());
            }
        }
    }
    // Children last to first, since making a file changes its parent's time.
    for path in mirrored.iter().rev() {
        mirror(root, path, &layer.join(path))?;
    }
    Ok(!mirrored.is_empty())
}

/// Whether it was made; it may be there.
fn make_folder(path: &Path) -> Result<bool, SandboxError> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Ok(()) => {
            // The program's umask is not ours to trust.
            rustix::fs::chmod(path, Mode::from_raw_mode(0o755)).map_err(SandboxError::path("set the mode of", path))?;
            Ok(true)
        }
        Err(Errno::EXIST) => Ok(false),
        Err(errno) => Err(SandboxError::path("create", path)(errno)),
    }
}

/// Gives the folder `to` the owner, mode, attributes and times of `path` below `root`.
pub(super) fn mirror(root: BorrowedFd<'_>, path: &Path, to: &Path) -> Result<(), SandboxError> {
    let from = open(root, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(SandboxError::path("open", path))?;
    let stat = rustix::fs::fstat(&from).map_err(SandboxError::path("stat", path))?;
    let error = |verb| SandboxError::path(verb, to);
    let (uid, gid) = (rustix::fs::Uid::from_raw(stat.st_uid), rustix::fs::Gid::from_raw(stat.st_gid));
    match rustix::fs::chown(to, Some(uid), Some(gid)) {
        // An owner that has no number in the user namespace; it is shown as nobody's in either case.
        Ok(()) | Err(Errno::INVAL | Errno::PERM) => {}
        Err(errno) => return Err(error("set the owner of")(errno)),
    }
    rustix::fs::chmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777)).map_err(error("set the mode of"))?;
    copy_attributes(&from, to);
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(stat.st_atime as _, stat.st_atime_nsec as _),
        last_modification: time(stat.st_mtime as _, stat.st_mtime_nsec as _),
    };
    rustix::fs::utimensat(CWD, to, &times, AtFlags::empty()).map_err(error("set the times of"))
}

/// As far as the file system takes them: what it does not, it has not had either.
fn copy_attributes(from: &OwnedFd, to: &Path) {
    let mut names = vec![0u8; 4096];
    let Ok(length) = rustix::fs::flistxattr(from, &mut names[..]) else { return };
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0u8; 65536];
        if let Ok(length) = rustix::fs::fgetxattr(from.as_fd(), name, &mut value[..]) {
            let _ = rustix::fs::setxattr(to, name, &value[..length], rustix::fs::XattrFlags::empty());
        }
    }
}

/// Makes the folder `path` in a root that may be written, with its parents. New ones have mode 0755 and this owner;
/// `missing_from` on, components count as new even if they are there (as mount points), so that they enter the layer.
pub(super) fn make_folders(
    root: BorrowedFd<'_>,
    path: &Path,
    missing_from: usize,
    owner: (u32, u32),
) -> Result<(), SandboxError> {
    let mut at = PathBuf::new();
    for (i, component) in path.components().enumerate() {
        let parent = open(root, &at, OFlags::PATH | OFlags::DIRECTORY).map_err(SandboxError::path("open", &at))?;
        at.push(component);
        if i < missing_from {
            continue;
        }
        let name = component.as_os_str();
        match rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(SandboxError::path("create", &at)(errno)),
        }
        let c_name = CString::new(name.as_bytes()).unwrap_or_default();
        set_through_mount(parent.as_fd(), &c_name, owner).map_err(SandboxError::path("set the owner of", &at))?;
        rustix::fs::chmodat(&parent, name, Mode::from_raw_mode(0o755), AtFlags::empty())
            .map_err(SandboxError::path("set the mode of", &at))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn resolves_below_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b")).unwrap();
        std::fs::write(root.join("a/f"), "").unwrap();
        symlink("/a", root.join("abs")).unwrap();
        symlink("../../../a/new/x", root.join("a/dangling")).unwrap();
        symlink("loop", root.join("loop")).unwrap();
        let fd = std::fs::File::open(root).unwrap();
        let check = |path: &str, expect: Option<(&str, usize, Option<FileType>)>| {
            let got = resolve(fd.as_fd(), Path::new(path)).ok();
            let expect = expect.map(|(path, existing, kind)| Resolved { path: path.into(), existing, kind });
            assert_eq!(got, expect, "{path}");
        };
        check("/", Some(("", 0, Some(FileType::Directory))));
        check("/a/b", Some(("a/b", 2, Some(FileType::Directory))));
        check("/abs/b/../f", Some(("a/f", 2, Some(FileType::RegularFile))));
        check("/../../a", Some(("a", 1, Some(FileType::Directory))));
        check("/a/dangling/y", Some(("a/new/x/y", 1, None)));
        check("/no/such/../way", Some(("no/way", 0, None)));
        check("/loop", None);
    }

    #[test]
    fn stubs_mirror_what_they_cover() {
        let dir = tempfile::tempdir().unwrap();
        let (root, layer) = (dir.path().join("root"), dir.path().join("layer"));
        std::fs::create_dir_all(root.join("etc")).unwrap();
        std::fs::set_permissions(root.join("etc"), PermissionsExt::from_mode(0o711)).unwrap();
        let fd = std::fs::File::open(&root).unwrap();
        let stub = |path: &str, folder| Stub { at: resolve(fd.as_fd(), Path::new(path)).unwrap(), folder };
        assert!(!make_layer(fd.as_fd(), &layer, &[stub("/etc", true)]).unwrap());
        let stubs = [stub("/etc/hosts", false), stub("/run/secrets/x", false), stub("/run/d", true)];
        assert!(make_layer(fd.as_fd(), &layer, &stubs).unwrap());
        let (from, to) = (root.join("etc").metadata().unwrap(), layer.join("etc").metadata().unwrap());
        assert_eq!((from.mode(), from.mtime_nsec()), (to.mode(), to.mtime_nsec()));
        assert!(layer.join("etc/hosts").is_file() && layer.join("run/secrets/x").is_file());
        assert!(layer.join("run/d").is_dir());
    }
}
