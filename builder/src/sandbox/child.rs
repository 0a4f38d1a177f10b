//! The child between clone and exec. It shares its parent's memory, so here is a straight line of system calls on what
//! the plan has ready: nothing is allocated, locked or dropped, and nothing panics.

use super::plan::{MountPoint, Operation, Otherwise, Plan, Slot};
use super::syscall;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::WaitOptions;
use std::ffi::CStr;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What failed: the position of the operation (their number for the command itself), and why.
pub(super) type Failure = (usize, Errno);

/// Walks the plan and executes its command. Returns only on failure.
pub(super) fn run(plan: &Plan) -> Failure {
    match prepare_process(plan) {
        Ok(()) => (plan.operations.len(), plan.command.execute()),
        Err(failure) => failure,
    }
}

/// As [`run`], as a process with memory of its own: the command becomes a child, and this one waits for it and all that
/// it leaves behind. Gives the exit code. What fails before the command runs is written to `report`, as 8 bytes of the
/// position and 4 of the error number, in the machine's order.
pub(super) fn run_init(plan: &Plan, report: BorrowedFd<'_>) -> u8 {
    let tell = |(position, errno): Failure| {
        let mut message = [0; REPORT_BYTES];
        message[..8].copy_from_slice(&(position as u64).to_ne_bytes());
        message[8..].copy_from_slice(&errno.raw_os_error().to_ne_bytes());
        let _ = rustix::io::write(report, &message);
        127
    };
    // The memory is a copy of the program's, with all its secrets, and the step may run as the same user.
    if let Err(failure) = prepare_process(plan).and_then(|()| syscall::hide_memory().map_err(|error| (0, error))) {
        return tell(failure);
    }
    let command = syscall::copy_process(&mut || tell((plan.operations.len(), plan.command.execute())));
    let command = match command {
        Ok(command) => command,
        Err(error) => return tell((plan.operations.len(), error)),
    };
    // Also the report's end, which tells that the command runs.
    syscall::close_all();
    loop {
        match rustix::process::wait(WaitOptions::empty()) {
            Ok(Some((id, status))) if id == command => {
                let signal = || status.terminating_signal().map_or(1, |signal| 128 + signal);
                return status.exit_status().unwrap_or_else(signal) as u8;
            }
            Ok(_) | Err(Errno::INTR) => {}
            Err(_) => return 127,
        }
    }
}

/// Length of a message of [`run_init`].
pub(super) const REPORT_BYTES: usize = 12;

/// Reads such a message.
pub(super) fn read_report(message: &[u8; REPORT_BYTES]) -> Failure {
    let (position, errno) = message.split_at(8);
    let position = position.try_into().map_or(0, u64::from_ne_bytes);
    let errno = errno.try_into().map_or(0, i32::from_ne_bytes);
    (position as usize, Errno::from_raw_os_error(errno))
}

/// Makes this process the one in which the command runs.
fn prepare_process(plan: &Plan) -> Result<(), Failure> {
    syscall::reset_signals().map_err(|error| (0, error))?;
    for (position, operation) in plan.operations.iter().enumerate() {
        perform(operation, &plan.fds).map_err(|error| (position, error))?;
    }
    // What the program holds open is not for the command.
    syscall::close_on_exec_from(3).map_err(|error| (plan.operations.len(), error))
}

fn perform(operation: &Operation, fds: &[OwnedFd]) -> Result<(), Errno> {
    match operation {
        Operation::Cgroup(processes) => rustix::io::write(slot(fds, *processes)?, b"0").map(drop),
        Operation::PrivateMounts => syscall::make_private(c"/"),
        Operation::Session => rustix::process::setsid().map(drop),
        Operation::Unshare(flags) => syscall::unshare(*flags),
        Operation::LoopbackUp => syscall::loopback_up(),
        Operation::Hostname(name) => rustix::system::sethostname(name.to_bytes()),
        Operation::Pivot { root, anchor } => pivot(slot(fds, *root)?, anchor),
        Operation::Chroot(root) => {
            rustix::process::fchdir(slot(fds, *root)?)?;
            rustix::process::chroot(c".")
        }
        // Here `.` leads to the highest mount at the root, which is the host's (pivot_root(2)).
        Operation::LeaveHost => mount::unmount(c".", UnmountFlags::DETACH),
        Operation::Attach { mount, target } => {
            let mount = slot(fds, *mount)?;
            prepare(target)?;
            attach(mount, &target.path)
        }
        Operation::AttachPart { mount, path, attributes, target, otherwise } => {
            match (attach_part(slot(fds, *mount)?, path, *attributes, target), otherwise) {
                (Err(_), Otherwise::Skip) => Ok(()),
                (result, _) => result,
            }
        }
        Operation::Mount { fs, options, attributes, target, otherwise } => {
            match (mount_new(fs, options, *attributes, target), otherwise) {
                (Err(_), Otherwise::Skip) => Ok(()),
                (Err(_), Otherwise::Attach(instead)) => attach(slot(fds, *instead)?, target),
                (result, _) => result,
            }
        }
        Operation::Mask { path, empty } => mask(path, slot(fds, *empty)?),
        Operation::ReadOnly(path) => read_only(path),
        Operation::Folders(paths) => paths.iter().try_for_each(|path| folder(path)),
        Operation::Limit(resource, limit) => rustix::process::setrlimit(*resource, *limit),
        Operation::Umask(mask) => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Operation::UserNamespace(namespace) => rustix::thread::move_into_link_name_space(
            slot(fds, *namespace)?,
            Some(rustix::thread::LinkNameSpaceType::User),
        ),
        Operation::Seccomp(program) => syscall::set_seccomp(program),
        Operation::Bounding(keep) => bounding(*keep),
        Operation::Capabilities(set) => syscall::set_capabilities(*set),
        Operation::Ids { uid, gid, groups } => {
            if let Some(groups) = groups {
                rustix::thread::set_thread_groups(groups)?;
            }
            rustix::thread::set_thread_res_gid(*gid, *gid, *gid)?;
            rustix::thread::set_thread_res_uid(*uid, *uid, *uid)
        }
        Operation::Folder(path) => rustix::process::chdir(path.as_c_str()),
        Operation::Streams([stdin, stdout, stderr]) => {
            syscall::replace_stream(slot(fds, *stdin)?, 0)?;
            syscall::replace_stream(slot(fds, *stdout)?, 1)?;
            syscall::replace_stream(slot(fds, *stderr)?, 2)
        }
        Operation::ControllingTerminal(terminal) => rustix::process::ioctl_tiocsctty(slot(fds, *terminal)?),
        Operation::DieWithParent => syscall::die_with_parent(),
    }
}

fn slot(fds: &[OwnedFd], slot: Slot) -> Result<BorrowedFd<'_>, Errno> {
    fds.get(slot).map(|fd| fd.as_fd()).ok_or(Errno::BADF)
}

fn pivot(root: BorrowedFd<'_>, anchor: &CStr) -> Result<(), Errno> {
    attach(root, anchor)?;
    rustix::process::fchdir(root)?;
    // The old root ends up on top of the new one, where `LeaveHost` finds it; absolute paths start below it.
    rustix::process::pivot_root(c".", c".")
}

fn attach(mount: BorrowedFd<'_>, target: &CStr) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_SYMLINKS;
    mount::move_mount(mount, c"", CWD, target, flags)
}

fn attach_part(mount: BorrowedFd<'_>, path: &CStr, attributes: u64, target: &MountPoint) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
    // Descriptors are left to exec or exit to close: dropping an OwnedFd is harmless, but one rule is simpler.
    let part = ManuallyDrop::new(mount::open_tree(mount, path, flags | OpenTreeFlags::AT_SYMLINK_NOFOLLOW)?);
    if attributes != 0 {
        syscall::mount_setattr(part.as_fd(), c"", false, attributes)?;
    }
    prepare(target)?;
    attach(part.as_fd(), &target.path)
}

/// Makes a mount point that is missing in another mount.
fn prepare(target: &MountPoint) -> Result<(), Errno> {
    if target.parents.is_empty() || rustix::fs::statat(CWD, target.path.as_c_str(), AtFlags::empty()).is_ok() {
        return Ok(());
    }
    target.parents.iter().try_for_each(|path| folder(path))?;
    if target.folder {
        return folder(&target.path);
    }
    let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::open(target.path.as_c_str(), flags, Mode::from_raw_mode(0o644))?;
    let _ = ManuallyDrop::new(file);
    Ok(())
}

fn folder(path: &CStr) -> Result<(), Errno> {
    match rustix::fs::mkdir(path, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) => Ok(()),
        // Such as one that is there, on a file system that is read-only.
        Err(_) if rustix::fs::statat(CWD, path, AtFlags::empty()).is_ok() => Ok(()),
        result => result,
    }
}

fn mount_new(
    fs: &CStr,
    options: &[(std::ffi::CString, std::ffi::CString)],
    attributes: mount::MountAttrFlags,
    target: &CStr,
) -> Result<(), Errno> {
    let context = ManuallyDrop::new(mount::fsopen(fs, FsOpenFlags::FSOPEN_CLOEXEC)?);
    for (key, value) in options {
        if value.is_empty() {
            mount::fsconfig_set_flag(context.as_fd(), key.as_c_str())?;
        } else {
            mount::fsconfig_set_string(context.as_fd(), key.as_c_str(), value.as_c_str())?;
        }
    }
    mount::fsconfig_create(context.as_fd())?;
    let mount = ManuallyDrop::new(mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?);
    attach(mount.as_fd(), target)
}

fn mask(path: &CStr, empty: BorrowedFd<'_>) -> Result<(), Errno> {
    let kind = match rustix::fs::statat(CWD, path, AtFlags::empty()) {
        // Not there, or not to be seen by anybody in here.
        Err(_) => return Ok(()),
        Ok(stat) => FileType::from_raw_mode(stat.st_mode),
    };
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let cover = match kind {
        FileType::Directory => mount::open_tree(empty, c"empty", flags)?,
        _ => mount::open_tree(CWD, c"/dev/null", flags)?,
    };
    let cover = ManuallyDrop::new(cover);
    if kind == FileType::Directory {
        syscall::mount_setattr(cover.as_fd(), c"", false, syscall::MOUNT_ATTR_RDONLY)?;
    }
    attach(cover.as_fd(), path)
}

fn read_only(path: &CStr) -> Result<(), Errno> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let part = match mount::open_tree(CWD, path, flags) {
        Err(Errno::NOENT) => return Ok(()),
        result => ManuallyDrop::new(result?),
    };
    syscall::mount_setattr(part.as_fd(), c"", true, syscall::MOUNT_ATTR_RDONLY)?;
    attach(part.as_fd(), path)
}

fn bounding(keep: u64) -> Result<(), Errno> {
    for capability in (0..64).filter(|capability| keep & (1 << capability) == 0) {
        match syscall::drop_bounding(capability) {
            // The kernel has no more of them.
            Err(Errno::INVAL) => return Ok(()),
            result => result?,
        }
    }
    Ok(())
}
