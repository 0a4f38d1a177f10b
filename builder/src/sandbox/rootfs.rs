//! Root file systems as detached mounts: made with the new mount interface (fsopen(2), fsmount(2), open_tree(2)), seen
//! by nobody until someone attaches them. Files in them are reached with openat2(2) below the descriptor.

use super::SandboxError;
use super::syscall;
use cache::snapshot::native::How;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags, OpenTreeFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// Longest string that fsconfig(2) takes, in bytes.
const FSCONFIG_STRING_MAX: usize = 255;

/// A detached mount of a stack of layers, lowest first, in overlayfs' form with `user.overlay.*` attributes.
///
/// With `upper` (a folder for the changes, and an empty folder on the same file system for overlayfs itself) it is
/// writable; without, read-only. One lower alone is that folder, none at all an empty folder.
///
/// Where nothing can be mounted ([`merge_in`]), what is read-only is a merged folder.
pub fn overlay(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, SandboxError> {
    if let (Some(merged), None) = (MERGED.get(), upper) {
        return merged.view(lowers);
    }
    match (lowers, upper) {
        ([], None) => tmpfs(&[("size", "4k"), ("mode", "755")], MountAttrFlags::MOUNT_ATTR_RDONLY),
        ([], Some((upper, _))) => bind(upper, Access::ReadWrite),
        ([lower], None) => bind(lower, Access::ReadOnly),
        _ => stack(lowers, upper),
    }
}

/// A new folder in `parent` for overlayfs itself. The kernel refuses one that a mount with an upper has had before, since
/// such mounts (`volatile`) do not sync what they write.
pub fn work_folder(parent: &Path) -> Result<PathBuf, SandboxError> {
    let mut number = 0;
    loop {
        let folder = parent.join(format!("work{number}"));
        match std::fs::create_dir(&folder) {
            Ok(()) => return Ok(folder),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(source) => return Err(SandboxError::path("create", &folder)(source)),
        }
    }
}

/// What `lowers` (lowest first) show together, to be read; `None` for none.
pub fn view(lowers: &[PathBuf]) -> Result<Option<OwnedFd>, SandboxError> {
    if lowers.is_empty() { Ok(None) } else { overlay(lowers, None).map(Some) }
}

/// Views of stacks for a program that may not mount; each is made once.
static MERGED: OnceLock<Merged> = OnceLock::new();

struct Merged {
    folder: PathBuf,
    views: Mutex<HashMap<Vec<PathBuf>, PathBuf>>,
}

/// From now on, and for the whole program as its rights are, stacks are shown as folders of hard links in `folder`,
/// which is on the store's file system and is deleted by whoever made it.
pub fn merge_in(folder: PathBuf) {
    let _ = MERGED.set(Merged { folder, views: Mutex::default() });
}

impl Merged {
    fn view(&self, lowers: &[PathBuf]) -> Result<OwnedFd, SandboxError> {
        let open = |path: &Path| {
            rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
                .map_err(SandboxError::path("open", path))
        };
        if let [only] = lowers {
            return open(only);
        }
        // Held while a view is made: whoever else wants it waits for it.
        let mut views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(path) = views.get(lowers) {
            return open(path);
        }
        let path = self.folder.join(format!("view-{}", views.len()));
        std::fs::create_dir(&path).map_err(SandboxError::path("create", &path))?;
        cache::snapshot::native::merge(lowers, &path, How::Link, &[])?;
        views.insert(lowers.to_vec(), path.clone());
        open(&path)
    }
}

/// Whether a mount may be written through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// EROFS for writers.
    ReadOnly,
    /// As the file system allows.
    ReadWrite,
}

/// A detached mount of a folder or file of the host, without what is mounted below it.
pub fn bind(path: &Path, access: Access) -> Result<OwnedFd, SandboxError> {
    bind_at(rustix::fs::CWD, path, OpenTreeFlags::empty(), access)
}

/// As [`bind`], below a descriptor, with flags such as `AT_RECURSIVE`.
pub(crate) fn bind_at(
    dir: BorrowedFd<'_>,
    path: &Path,
    flags: OpenTreeFlags,
    access: Access,
) -> Result<OwnedFd, SandboxError> {
    let flags = flags | OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let fd = mount::open_tree(dir, path, flags).map_err(SandboxError::path("clone the mount of", path))?;
    if access == Access::ReadOnly {
        let recursive = flags.contains(OpenTreeFlags::AT_RECURSIVE);
        syscall::mount_setattr(fd.as_fd(), c"", recursive, syscall::MOUNT_ATTR_RDONLY)
            .map_err(SandboxError::path("make read-only the mount of", path))?;
    }
    Ok(fd)
}

/// A detached tmpfs with these options (tmpfs(5)), nosuid and nodev on top of `attributes`.
pub(crate) fn tmpfs(options: &[(&str, &str)], attributes: MountAttrFlags) -> Result<OwnedFd, SandboxError> {
    let context = FsContext::open("tmpfs")?;
    for (key, value) in options {
        context.set(key, OsStr::new(value))?;
    }
    context.mount(attributes)
}

/// A detached procfs of the pid namespace that the caller is in.
pub(crate) fn proc() -> Result<OwnedFd, SandboxError> {
    let attributes =
        MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
    FsContext::open("proc")?.mount(attributes)
}

/// overlayfs over two layers or more, or one and an upper.
fn stack(lowers: &[PathBuf], upper: Option<(&Path, &Path)>) -> Result<OwnedFd, SandboxError> {
    let context = FsContext::open("overlay")?;
    // Kept open until the mount exists, since the kernel may be told paths through them.
    let mut folders = vec![];
    // The kernel wants the highest first.
    for lower in lowers.iter().rev() {
        context.set_folder("lowerdir+", lower, &mut folders)?;
    }
    if let Some((upper, work)) = upper {
        context.set_folder("upperdir", upper, &mut folders)?;
        context.set_folder("workdir", work, &mut folders)?;
        // An unfinished upper is thrown away after a crash, so it need not be synced by overlayfs. Since Linux 5.10.
        context.set_flag("volatile");
    }
    // Also as root: one form of snapshot for everybody, and what the image has in `trusted.*` stays its own.
    context.required_flag("userxattr")?;
    // The layers are read by themselves, so they must not refer to each other. `userxattr` turns redirect_dir off.
    context.set("index", OsStr::new("off"))?;
    context.set("metacopy", OsStr::new("off"))?;
    let attributes = if upper.is_some() { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_RDONLY };
    context.mount(attributes)
}

/// A file system that is being configured.
struct FsContext {
    fs: &'static str,
    fd: OwnedFd,
}

impl FsContext {
    fn open(fs: &'static str) -> Result<FsContext, SandboxError> {
        let fd = mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC).map_err(|errno| SandboxError::Mount {
            fs,
            log: String::new(),
            source: errno.into(),
        })?;
        Ok(FsContext { fs, fd })
    }

    fn set(&self, key: &str, value: &OsStr) -> Result<(), SandboxError> {
        mount::fsconfig_set_string(&self.fd, key, value).map_err(|errno| self.error(errno))
    }

    /// A folder by its path, or through a descriptor if the path is one that fsconfig(2) does not take.
    fn set_folder(&self, key: &str, path: &Path, folders: &mut Vec<OwnedFd>) -> Result<(), SandboxError> {
        let bytes = path.as_os_str().as_bytes();
        if bytes.len() <= FSCONFIG_STRING_MAX && !bytes.contains(&b'\\') && !bytes.contains(&b':') {
            return self.set(key, path.as_os_str());
        }
        let fd = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(SandboxError::path("open", path))?;
        let result = self.set(key, OsStr::new(&format!("/proc/self/fd/{}", fd.as_raw_fd())));
        folders.push(fd);
        result
    }

    /// Sets a flag, if the kernel knows it.
    fn set_flag(&self, key: &str) {
        let _ = mount::fsconfig_set_flag(&self.fd, key);
    }

    fn required_flag(&self, key: &str) -> Result<(), SandboxError> {
        mount::fsconfig_set_flag(&self.fd, key).map_err(|errno| self.error(errno))
    }

    fn mount(&self, attributes: MountAttrFlags) -> Result<OwnedFd, SandboxError> {
        mount::fsconfig_create(&self.fd).map_err(|errno| self.error(errno))?;
        mount::fsmount(&self.fd, FsMountFlags::FSMOUNT_CLOEXEC, attributes).map_err(|errno| self.error(errno))
    }

    /// The error with what the kernel wrote about it: lines such as `e overlay: …`, one a read.
    fn error(&self, errno: Errno) -> SandboxError {
        let mut log = vec![];
        let mut buffer = [0u8; 1024];
        while let Ok(length @ 1..) = rustix::io::read(&self.fd, &mut buffer) {
            let line = String::from_utf8_lossy(&buffer[..length]);
            log.push(line.trim_start_matches(['e', 'w', 'i']).trim().to_string());
        }
        SandboxError::Mount { fs: self.fs, log: log.join("; "), source: errno.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// What `path` below the mount holds.
    fn read(root: &OwnedFd, path: &str) -> Option<String> {
        let fd = rustix::fs::openat(root, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        std::io::read_to_string(fs::File::from(fd)).ok()
    }

    #[test]
    fn stacks_layers() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("long-".repeat(50)).join("a:b\\c");
        let layers: Vec<PathBuf> = ["one", "two"].iter().map(|name| deep.join(name)).collect();
        for (i, layer) in layers.iter().enumerate() {
            fs::create_dir_all(layer).unwrap();
            fs::write(layer.join("both"), i.to_string()).unwrap();
            fs::write(layer.join(format!("only{i}")), "x").unwrap();
        }
        let empty = overlay(&[], None).unwrap();
        assert_eq!(read(&empty, "both"), None);
        let single = overlay(&layers[..1], None).unwrap();
        assert_eq!(read(&single, "both"), Some("0".into()));
        let create = |root: &OwnedFd| {
            rustix::fs::openat(root, "new", OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC, Mode::RUSR)
        };
        assert_eq!(create(&single).unwrap_err(), Errno::ROFS);
        let both = overlay(&layers, None).unwrap();
        assert_eq!((read(&both, "both"), read(&both, "only0")), (Some("1".into()), Some("x".into())));
        assert_eq!(create(&both).unwrap_err(), Errno::ROFS);
        let (upper, work) = (dir.path().join("upper"), dir.path().join("work"));
        fs::create_dir(&upper).unwrap();
        fs::create_dir(&work).unwrap();
        let writable = overlay(&layers, Some((&upper, &work))).unwrap();
        create(&writable).unwrap();
        assert!(upper.join("new").exists());
        let error = overlay(&[dir.path().join("none"), upper], None).unwrap_err();
        assert!(matches!(error, SandboxError::Mount { fs: "overlay", .. }), "{error:?}");
    }
}
