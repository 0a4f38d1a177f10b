//! `/dev` of a step: a tmpfs with the usual nodes and links (reference/dockerfile.md 8.5).

use super::SandboxError;
use super::rootfs::{self, Access};
use cache::owners::is_refusal;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::OwnedFd;
use std::path::Path;

/// A `/dev` to be attached, and what is to be attached below it.
pub(crate) struct Devices {
    /// Detached tmpfs.
    pub dev: OwnedFd,
    /// Names below it, with detached mounts of the host's nodes: where nodes cannot be made, as in user namespaces.
    pub nodes: Vec<(String, OwnedFd)>,
}

/// Nodes that every step has.
pub(crate) const NODES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];
/// Links that every step has.
pub(crate) const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("core", "/proc/kcore"),
    ("ptmx", "pts/ptmx"),
];
/// Mount points, and `net` for what an insecure step has there.
const FOLDERS: [&str; 4] = ["pts", "shm", "mqueue", "net"];
/// What an insecure step has besides, where the host has it; and loop devices.
const INSECURE_NODES: [&str; 6] = ["kmsg", "cuse", "fuse", "kvm", "net/tun", "loop-control"];

/// Makes `/dev`; with `insecure`, also with nodes that give control of the machine.
pub(crate) fn make(insecure: bool) -> Result<Devices, SandboxError> {
    let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = rootfs::tmpfs(&[("size", "65536k"), ("mode", "755")], attributes)?;
    for name in FOLDERS.iter().filter(|name| insecure || **name != "net") {
        make_folder(&dev, name)?;
    }
    for (name, target) in LINKS {
        rustix::fs::symlinkat(target, &dev, name)
            .map_err(SandboxError::path("create", Path::new("/dev").join(name)))?;
    }
    let mut devices = Devices { dev, nodes: vec![] };
    for name in NODES {
        devices.add(name)?;
    }
    if insecure {
        let loops = (0..64).map(|number| format!("loop{number}"));
        for name in INSECURE_NODES.iter().map(|name| name.to_string()).chain(loops) {
            if Path::new("/dev").join(&name).exists() {
                devices.add(&name)?;
            }
        }
    }
    Ok(devices)
}

impl Devices {
    /// Shows that terminal of the host as `/dev/console`, by which programs find its name.
    pub(crate) fn add_console(&mut self, terminal: &Path) -> Result<(), SandboxError> {
        write_file(&self.dev, "console", b"", 0o600, (0, 0))?;
        self.nodes.push(("console".into(), rootfs::bind(terminal, Access::ReadWrite)?));
        Ok(())
    }

    fn add(&mut self, name: &str) -> Result<(), SandboxError> {
        let host = Path::new("/dev").join(name);
        let stat = rustix::fs::stat(&host).map_err(SandboxError::path("stat", &host))?;
        let (kind, mode) = (FileType::from_raw_mode(stat.st_mode), Mode::from_raw_mode(stat.st_mode & 0o777));
        match rustix::fs::mknodat(&self.dev, name, kind, mode, stat.st_rdev) {
            Ok(()) => rustix::fs::chmodat(&self.dev, name, mode, AtFlags::empty())
                .map_err(SandboxError::path("set the mode of", &host)),
            Err(Errno::PERM) => {
                write_file(&self.dev, name, b"", mode.as_raw_mode(), (0, 0))?;
                self.nodes.push((name.to_string(), rootfs::bind(&host, Access::ReadWrite)?));
                Ok(())
            }
            Err(errno) => Err(SandboxError::path("create", &host)(errno)),
        }
    }
}

/// Makes a folder with mode 0755 in a new file system.
pub(crate) fn make_folder(fs: &OwnedFd, name: &str) -> Result<(), SandboxError> {
    let mode = Mode::from_raw_mode(0o755);
    rustix::fs::mkdirat(fs, name, mode).map_err(SandboxError::path("create", name))?;
    rustix::fs::chmodat(fs, name, mode, AtFlags::empty()).map_err(SandboxError::path("set the mode of", name))
}

/// Writes a file in a new file system, with exactly this mode and owner.
pub(crate) fn write_file(
    fs: &OwnedFd,
    name: &str,
    content: &[u8],
    mode: u32,
    owner: (u32, u32),
) -> Result<(), SandboxError> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file =
        rustix::fs::openat(fs, name, flags, Mode::from_raw_mode(0o600)).map_err(SandboxError::path("create", name))?;
    let mut file = std::fs::File::from(file);
    std::io::Write::write_all(&mut file, content).map_err(SandboxError::path("write", name))?;
    own(fs, name, mode, owner)
}

/// Sets owner and mode of a file in a new file system.
pub(crate) fn own(fs: &OwnedFd, name: &str, mode: u32, owner: (u32, u32)) -> Result<(), SandboxError> {
    if owner != (0, 0) {
        let (uid, gid) = (rustix::fs::Uid::from_raw(owner.0), rustix::fs::Gid::from_raw(owner.1));
        match rustix::fs::chownat(fs, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW) {
            // With one id all that runs has it, and may read the file whoever it was meant for.
            Err(errno) if !is_refusal(errno) => return Err(SandboxError::path("set the owner of", name)(errno)),
            _ => {}
        }
    }
    rustix::fs::chmodat(fs, name, Mode::from_raw_mode(mode & 0o7777), AtFlags::empty())
        .map_err(SandboxError::path("set the mode of", name))
}
