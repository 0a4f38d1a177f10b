//! What separates a step from the machine: namespaces, or, where those or mounts are refused, no more than chroot(2).

use super::userns::{self, Identity};
use super::{SandboxError, rootfs, syscall};
use rustix::mount::MountAttrFlags;
use rustix::process::{WaitOptions, waitpid};
use rustix::thread::CapabilitySet;

/// `--isolation`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Namespaces if they can be had.
    #[default]
    Auto,
    /// Namespaces or nothing.
    Namespace,
    /// chroot(2).
    Chroot,
}

/// How steps are separated from the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// Namespaces and mounts of their own.
    Namespace,
    /// A folder as their root; nothing is mounted.
    Chroot {
        /// What was refused; `None` if this is what was asked for.
        refused: Option<String>,
    },
}

/// As what the program runs, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rights {
    pub identity: Identity,
    pub isolation: Isolation,
}

/// Gets the rights that a build needs. To be called first, while the program has one thread.
pub fn enter(wanted: Wanted) -> Result<Rights, SandboxError> {
    let is_root = rustix::process::geteuid().is_root();
    if wanted == Wanted::Chroot && is_root {
        return Ok(Rights { identity: Identity::Root, isolation: Isolation::Chroot { refused: None } });
    }
    let identity = match userns::enter_if_needed() {
        Ok(identity) => identity,
        // Root in a container that lacks CAP_SYS_ADMIN; nobody else may call chroot(2) without a user namespace.
        Err(error) if wanted == Wanted::Auto && is_root => {
            let refused = Some(crate::progress::chain(&error));
            return Ok(Rights { identity: Identity::Root, isolation: Isolation::Chroot { refused } });
        }
        Err(error) => return Err(error),
    };
    let isolation = match (wanted, can_mount()) {
        (Wanted::Chroot, _) => Isolation::Chroot { refused: None },
        (Wanted::Auto, Err(error)) => Isolation::Chroot { refused: Some(crate::progress::chain(&error)) },
        (Wanted::Namespace, Err(error)) => return Err(error),
        (Wanted::Auto | Wanted::Namespace, Ok(())) => Isolation::Namespace,
    };
    Ok(Rights { identity, isolation })
}

/// Whether file systems may be made and mounts cloned: seccomp filters and security modules may forbid what
/// capabilities allow.
fn can_mount() -> Result<(), SandboxError> {
    rootfs::tmpfs(&[("size", "4k")], MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    rootfs::bind(std::path::Path::new("/proc/self"), rootfs::Access::ReadWrite)?;
    can_show_processes()
}

/// Whether a step can have a `/proc` of its own. The kernel refuses one in a user namespace where the one in sight is
/// covered in part, as it is in a container (mount_too_revealing in the kernel).
fn can_show_processes() -> Result<(), SandboxError> {
    // A new pid namespace begins with the next child, and would be that of all children ever after.
    let code = exit_code_of(|| match syscall::unshare(libc::CLONE_NEWPID) {
        Ok(()) => exit_code_of(|| match rootfs::proc() {
            Ok(_) => 0,
            Err(SandboxError::Mount { source, .. }) => number(source.raw_os_error()),
            Err(_) => number(None),
        }),
        Err(errno) => number(Some(errno.raw_os_error())),
    });
    match code {
        0 => Ok(()),
        errno => {
            let source = std::io::Error::from_raw_os_error(errno.into());
            Err(SandboxError::Mount { fs: "proc", log: String::new(), source })
        }
    }
}

/// Of a child that runs this; its number of the error if there is none.
fn exit_code_of(child: impl FnOnce() -> u8) -> u8 {
    let child = match syscall::fork(child) {
        Ok(child) => child,
        Err(errno) => return number(Some(errno.raw_os_error())),
    };
    let ended = rustix::io::retry_on_intr(|| waitpid(Some(child), WaitOptions::empty()));
    let status = ended.ok().flatten().and_then(|(_, status)| status.exit_status());
    status.map_or(number(None), |code| number(Some(code)))
}

/// An error's number as an exit code; EIO for those that are not known.
fn number(errno: Option<i32>) -> u8 {
    errno.and_then(|errno| u8::try_from(errno).ok()).unwrap_or(libc::EIO as u8)
}

/// Whether chroot(2) will work.
pub(crate) fn may_chroot() -> bool {
    rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_CHROOT))
}
