//! The only `unsafe` of the program: a safe-to-call wrapper for each system call that `rustix` does not have.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::process::Pid;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// `MOUNT_ATTR_RDONLY` of mount_setattr(2).
pub(crate) const MOUNT_ATTR_RDONLY: u64 = 0x1;
/// `MOUNT_ATTR_NOSUID`.
pub(crate) const MOUNT_ATTR_NOSUID: u64 = 0x2;
/// `MOUNT_ATTR_NODEV`.
pub(crate) const MOUNT_ATTR_NODEV: u64 = 0x4;
/// `MOUNT_ATTR_NOEXEC`.
pub(crate) const MOUNT_ATTR_NOEXEC: u64 = 0x8;

/// `struct mount_attr` of mount_setattr(2).
#[repr(C)]
struct MountAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns_fd: u64,
}

/// Sets attributes of the mount at `path` below `dir` (of `dir` itself for an empty path). mount_setattr(2), Linux 5.12.
pub(crate) fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, recursive: bool, set: u64) -> Result<(), Errno> {
    let attributes = MountAttr { set, clear: 0, propagation: 0, userns_fd: 0 };
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW | if recursive { 0x8000 } else { 0 };
    // SAFETY: `path` is NUL-terminated and `attributes` outlives the call, which only reads size_of::<MountAttr>() bytes.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            dir.as_raw_fd(),
            path.as_ptr(),
            flags,
            &attributes as *const MountAttr,
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop)
}

/// The result of a call through libc, whose `errno` is the thread's own.
fn check(result: libc::c_long) -> Result<libc::c_long, Errno> {
    if result < 0 {
        Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO))
    } else {
        Ok(result)
    }
}

/// Sets attributes of a whole tree of mounts so that nothing mounted there is seen elsewhere.
pub(crate) fn make_private(path: &CStr) -> Result<(), Errno> {
    // SAFETY: `path` is NUL-terminated; the other pointers may be null for a change of propagation (mount(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount,
            std::ptr::null::<libc::c_char>(),
            path.as_ptr(),
            std::ptr::null::<libc::c_char>(),
            libc::MS_REC | libc::MS_PRIVATE,
            std::ptr::null::<libc::c_char>(),
        )
    };
    check(result).map(drop)
}

/// Moves the calling thread into new namespaces (`CLONE_NEW*`). Not for namespaces of which other threads of the
/// program rely: of those, only a thread that is the program's only one is moved (the kernel refuses `CLONE_NEWUSER`
/// else), and a child made by [`clone_vm`] shares none with its parent.
pub(crate) fn unshare(flags: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers; none of the namespace flags takes a descriptor from another thread, CLONE_FILES is masked.
    check(unsafe { libc::syscall(libc::SYS_unshare, flags & !libc::CLONE_FILES) }).map(drop)
}

/// Marks all descriptors from `first` on as to be closed by exec. close_range(2), Linux 5.11.
pub(crate) fn close_on_exec_from(first: u32) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: takes no pointers, and closes nothing now.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Makes a standard stream (0 to 2) of a child that is about to exec a copy of `fd`.
pub(crate) fn replace_stream(fd: BorrowedFd<'_>, stream: u8) -> Result<(), Errno> {
    if fd.as_raw_fd() == libc::c_int::from(stream) {
        // SAFETY: clears close-on-exec of an open descriptor; takes no pointers.
        return check(unsafe { libc::syscall(libc::SYS_fcntl, fd.as_raw_fd(), libc::F_SETFD, 0) }).map(drop);
    }
    // SAFETY: takes no pointers. What was open there is a standard stream, which nobody owns.
    check(unsafe { libc::syscall(libc::SYS_dup3, fd.as_raw_fd(), libc::c_int::from(stream.min(2)), 0) }).map(drop)
}

/// Gives all signals their default action and unblocks them.
pub(crate) fn reset_signals() -> Result<(), Errno> {
    // `struct kernel_sigaction` with SIG_DFL, no flags and an empty mask is all zero; the set of signals is 8 bytes.
    let default = [0u64; 4];
    let empty = 0u64;
    for signal in (1..=64).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: `default` is as large as the kernel's struct on every 64-bit architecture and outlives the call.
        check(unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default.as_ptr(), std::ptr::null::<u64>(), size_of::<u64>())
        })?;
    }
    set_signal_mask(empty).map(drop)
}

/// Sets the thread's mask of blocked signals and gives the former one.
fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut former = 0u64;
    // SAFETY: both pointers are to 8 bytes, the size that is passed, and outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const mask, &raw mut former, size_of::<u64>())
    };
    check(result).map(|_| former)
}

/// Has the calling process killed when the thread that cloned it ends.
pub(crate) fn die_with_parent() -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0) }).map(drop)
}

/// Has the calling process sent a signal when the thread that made it ends.
pub(crate) fn signal_at_parents_end(signal: libc::c_int) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal, 0, 0, 0) }).map(drop)
}

/// Blocks these signals (a bit for each, 1 << (number - 1)) in the calling thread, and no others.
pub(crate) fn block_signals(mask: u64) -> Result<(), Errno> {
    set_signal_mask(mask).map(drop)
}

/// Waits for one of some blocked signals; `None` if none came in that time.
pub(crate) fn wait_signal(mask: u64, timeout: std::time::Duration) -> Result<Option<libc::c_int>, Errno> {
    let time = libc::timespec { tv_sec: timeout.as_secs() as _, tv_nsec: timeout.subsec_nanos() as _ };
    // SAFETY: the set is 8 bytes, as is passed, and outlives the call like the time; no information is asked for.
    let result = check(unsafe {
        libc::syscall(
            libc::SYS_rt_sigtimedwait,
            &raw const mask,
            std::ptr::null::<libc::siginfo_t>(),
            &raw const time,
            size_of::<u64>(),
        )
    });
    match result {
        Ok(signal) => Ok(Some(signal as libc::c_int)),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Removes a capability from the bounding set. EINVAL: the kernel has no such capability.
pub(crate) fn drop_bounding(capability: u32) -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }).map(drop)
}

/// Sets the permitted and effective capabilities of the calling thread; none are inheritable.
pub(crate) fn set_capabilities(set: u64) -> Result<(), Errno> {
    const VERSION_3: u32 = 0x2008_0522;
    let header = [VERSION_3, 0];
    let (low, high) = (set as u32, (set >> 32) as u32);
    let data = [low, low, 0, high, high, 0];
    // SAFETY: the header is version 3's, for which the kernel reads 6 words of data; both outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) }).map(drop)
}

/// Installs a filter of system calls for the calling thread.
pub(crate) fn set_seccomp(program: &[super::seccomp::Instruction]) -> Result<(), Errno> {
    const SECCOMP_SET_MODE_FILTER: u32 = 1;
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `Instruction` is laid out as `sock_filter`; `len` of them are read, none is written.
    check(unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &raw const program) }).map(drop)
}

/// Brings up the loopback interface of the calling thread's network namespace.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    let socket =
        check(unsafe { libc::syscall(libc::SYS_socket, libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: all zero is a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: SIOCSIFFLAGS reads an `ifreq`, which outlives the call.
    let result = check(unsafe { libc::syscall(libc::SYS_ioctl, socket, libc::SIOCSIFFLAGS, &raw const request) });
    // SAFETY: the descriptor was made above and is used by nobody else.
    unsafe { libc::syscall(libc::SYS_close, socket) };
    result.map(drop)
}

/// A command for execve(2), with the arrays of pointers that it wants.
pub(crate) struct Command {
    /// Files to try, in order.
    programs: Vec<CString>,
    /// Own what the pointers point to; never changed.
    _strings: Vec<CString>,
    arguments: Vec<*const libc::c_char>,
    environment: Vec<*const libc::c_char>,
}

// SAFETY: the pointers are to the strings that the command owns itself and that nobody changes.
unsafe impl Send for Command {}

impl Command {
    /// `programs` are the files to try, such as one for each folder of `PATH`.
    pub(crate) fn new(programs: Vec<CString>, arguments: Vec<CString>, environment: Vec<CString>) -> Command {
        let pointers = |strings: &[CString]| {
            strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (argument_pointers, environment_pointers) = (pointers(&arguments), pointers(&environment));
        let strings = arguments.into_iter().chain(environment).collect();
        Command { programs, _strings: strings, arguments: argument_pointers, environment: environment_pointers }
    }

    /// Becomes the command; returns only if that fails, with the first error that is not about a missing file.
    pub(crate) fn execute(&self) -> Errno {
        let mut error = Errno::NOENT;
        for program in &self.programs {
            // SAFETY: the strings are NUL-terminated and the arrays end with null; `self` owns them all.
            let result = check(unsafe {
                libc::syscall(libc::SYS_execve, program.as_ptr(), self.arguments.as_ptr(), self.environment.as_ptr())
            });
            match result {
                Err(Errno::NOENT | Errno::NOTDIR) => {}
                // As execvp(3): looked for further, but remembered.
                Err(Errno::ACCESS) => error = Errno::ACCESS,
                Err(other) => return other,
                Ok(_) => {}
            }
        }
        error
    }
}

/// A stack for children.
pub(crate) struct Stack(*mut libc::c_void);

impl Stack {
    const SIZE: usize = 256 * 1024;

    /// Maps one, with a page below it that must not be touched.
    pub(crate) fn new() -> Result<Stack, Errno> {
        let (protection, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Stack::SIZE, protection, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::NOMEM);
        }
        // SAFETY: the page is part of the mapping above, which nobody uses yet.
        unsafe { libc::mprotect(base, 4096, libc::PROT_NONE) };
        Ok(Stack(base))
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping was made by `new`; no child runs on it, since `clone_vm` waits for its child.
        unsafe { libc::munmap(self.0, Stack::SIZE) };
    }
}

const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// `struct clone_args` of clone3(2), version 2.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones a process that shares the caller's memory, runs `child` on `stack` and must end by exec; what `child` returns
/// is its exit code if it does not. Returns the child's pidfd when it has done either. `namespaces` are `CLONE_NEW*`.
///
/// `child` runs while its parent thread waits and all others go on: it must not allocate, lock or panic.
pub(crate) fn clone_vm(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    stack: &mut Stack,
    child: &mut dyn FnMut() -> u8,
) -> Result<OwnedFd, Errno> {
    const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
    let mut pidfd: libc::c_int = -1;
    let fixed = (libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD) as u64 | CLONE_CLEAR_SIGHAND;
    let arguments = CloneArgs {
        flags: fixed | namespaces | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.0 as u64,
        stack_size: Stack::SIZE as u64,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    let mut child = child;
    // SAFETY: takes no pointers.
    let dumpable = unsafe { libc::prctl(libc::PR_GET_DUMPABLE) };
    // A handler that ran in the child would run on the parent's data.
    let mask = set_signal_mask(u64::MAX)?;
    // SAFETY: the arguments are a valid `clone_args`. The child runs `enter` with a pointer to `child`, on a stack of
    // its own, and exits there; this frame, with all that `child` borrows, stays as it is until then, since CLONE_VFORK
    // stops this thread until the child has executed something or exited.
    let result = unsafe { raw_clone3(&arguments, enter, (&raw mut child).cast()) };
    set_signal_mask(mask)?;
    // A child that changes its user makes the memory that it shares with us undumpable (commit_creds in the kernel),
    // and us unable to look at our own children in /proc.
    if dumpable == 1 {
        // SAFETY: takes no pointers.
        unsafe { libc::prctl(libc::PR_SET_DUMPABLE, 1) };
    }
    if result < 0 {
        return Err(Errno::from_raw_os_error(-result as i32));
    }
    // SAFETY: the kernel has stored a new descriptor there (CLONE_PIDFD), which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// Clones a process with a copy of the caller's memory that runs `child` and exits with what it returns. Returns the
/// child's pidfd at once. `namespaces` are `CLONE_NEW*`.
///
/// Locks of other threads stay locked in the copy: `child` must not allocate, lock or panic.
pub(crate) fn clone_copy(
    namespaces: u64,
    cgroup: Option<BorrowedFd<'_>>,
    child: &mut dyn FnMut() -> u8,
) -> Result<OwnedFd, Errno> {
    let mut pidfd: libc::c_int = -1;
    let arguments = CloneArgs {
        flags: libc::CLONE_PIDFD as u64 | namespaces | cgroup.map_or(0, |_| CLONE_INTO_CGROUP),
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        cgroup: cgroup.map_or(0, |fd| fd.as_raw_fd() as u64),
        ..CloneArgs::default()
    };
    // A handler of the program has nothing to do in the child; `reset_signals` takes all of them away there.
    let mask = set_signal_mask(u64::MAX)?;
    // SAFETY: a valid `clone_args` without CLONE_VM, of the size that is passed: the child has memory, and a stack, of its
    // own, and ends in `in_copy`.
    let result = check(unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<CloneArgs>()) });
    in_copy(&result, child);
    set_signal_mask(mask)?;
    result?;
    // SAFETY: the kernel has stored a new descriptor there (CLONE_PIDFD), which nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(pidfd) })
}

/// As [`clone_copy`], without new namespaces; gives the child's id. By clone(2), since filters of containers forbid
/// clone3(2).
pub(crate) fn copy_process(child: &mut dyn FnMut() -> u8) -> Result<Pid, Errno> {
    // SAFETY: as fork(2): without CLONE_VM the child has memory of its own, and it ends in `in_copy`.
    let result = check(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) });
    in_copy(&result, child);
    Pid::from_raw(result? as i32).ok_or(Errno::AGAIN)
}

/// In the copy, runs `child` and ends.
fn in_copy(result: &Result<libc::c_long, Errno>, child: &mut dyn FnMut() -> u8) {
    if let Ok(0) = result {
        let code = libc::c_int::from(child());
        // SAFETY: ends the copy without running the exit handlers of the original.
        unsafe { libc::syscall(libc::SYS_exit_group, code) };
    }
}

/// Has no other process read the memory of the calling one (ptrace(2)), unless it may do so to every process.
pub(crate) fn hide_memory() -> Result<(), Errno> {
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_DUMPABLE, 0, 0, 0, 0) }).map(drop)
}

/// Closes all descriptors, in a process that is to do nothing but wait and exit.
pub(crate) fn close_all() {
    // SAFETY: takes no pointers. What Rust believes open is not used any more.
    unsafe { libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0) };
}

/// The child's first function.
unsafe extern "C" fn enter(child: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `clone_vm` passes a pointer to its `&mut dyn FnMut`, and waits.
    let child = unsafe { &mut *child.cast::<&mut dyn FnMut() -> u8>() };
    libc::c_int::from(child())
}

/// clone3(2) for a child with a stack of its own: there, calls `function(argument)` and exits with its result.
///
/// # Safety
/// `arguments` must hold CLONE_VM and CLONE_VFORK and a stack that nobody uses.
#[cfg(target_arch = "x86_64")]
unsafe fn raw_clone3(
    arguments: &CloneArgs,
    function: unsafe extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
) -> i64 {
    let result;
    // SAFETY: the parent leaves the block with the result in rax; rcx and r11 are declared as lost. The child has the
    // parent's registers except for rax and rsp (the stack's end, 16-aligned as a call wants it) and never leaves.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r9",
            "call r8",
            "mov edi, eax",
            "mov eax, {exit}",
            "syscall",
            "ud2",
            "2:",
            exit = const libc::SYS_exit,
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") arguments as *const CloneArgs,
            in("rsi") size_of::<CloneArgs>(),
            in("r8") function,
            in("r9") argument,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// As for x86_64.
///
/// # Safety
/// As for x86_64.
#[cfg(target_arch = "aarch64")]
unsafe fn raw_clone3(
    arguments: &CloneArgs,
    function: unsafe extern "C" fn(*mut libc::c_void) -> libc::c_int,
    argument: *mut libc::c_void,
) -> i64 {
    let result;
    // SAFETY: the parent leaves the block with the result in x0. The child has the parent's registers except for x0 and
    // sp (the stack's end, 16-aligned) and never leaves.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x10",
            "blr x9",
            "mov x8, {exit}",
            "svc 0",
            "brk 1",
            "2:",
            exit = const libc::SYS_exit,
            in("x8") libc::SYS_clone3,
            inlateout("x0") arguments as *const CloneArgs => result,
            in("x1") size_of::<CloneArgs>(),
            in("x9") function,
            in("x10") argument,
            lateout("x30") _,
        );
    }
    result
}

/// fcntl(2): the signal that tells of a lease, instead of SIGIO.
const F_SETSIG: libc::c_int = 10;

/// Whether no process has the file, which is open for reading, open for writing, or a shared mapping of it that may be
/// written through. The kernel grants a lease for reading only then; it is given back at once (fcntl(2), "Leases"). EAGAIN
/// is what `false` stands for; other errors: there are no leases here, or not on this file.
pub(crate) fn has_no_writer(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    // Who opens the file in that moment waits until it is over, and has the kernel send a signal: one that is ignored
    // unless somebody asks for it.
    for (command, argument) in [(F_SETSIG, libc::SIGURG), (libc::F_SETLEASE, libc::F_RDLCK)] {
        // SAFETY: takes no pointers.
        match check(unsafe { libc::syscall(libc::SYS_fcntl, file.as_raw_fd(), command, argument) }) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(false),
            Err(errno) => return Err(errno),
        }
    }
    // SAFETY: takes no pointers.
    check(unsafe { libc::syscall(libc::SYS_fcntl, file.as_raw_fd(), libc::F_SETLEASE, libc::F_UNLCK) }).map(|_| true)
}

/// Has the current tokio runtime watch a descriptor.
pub(crate) fn async_fd(fd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd gives the same descriptor each time and keeps it open until it is dropped.
    unsafe { AsyncFd::register(fd) }.map_err(|error| error.into_parts().1)
}

/// Runs `child` in a copy of the program and gives its id. Only for a program with one thread: a copy of one with
/// several may find locks held by threads that it has not.
pub(crate) fn fork(child: impl FnOnce() -> u8) -> Result<Pid, Errno> {
    // SAFETY: the caller has checked that there is one thread, so the copy is a whole program.
    match unsafe { libc::fork() } {
        0 => {
            let code = child();
            // SAFETY: ends the copy without running the exit handlers of the original.
            unsafe { libc::_exit(libc::c_int::from(code)) }
        }
        id => Pid::from_raw(id).filter(|_| id > 0).ok_or(Errno::AGAIN),
    }
}

/// For tests: bytes of a file that are written through a shared mapping.
#[cfg(test)]
pub(crate) struct Mapped(*mut u8);

// SAFETY: nobody else has the address.
#[cfg(test)]
unsafe impl Send for Mapped {}

#[cfg(test)]
impl Mapped {
    /// How many bytes.
    pub(crate) const BYTES: usize = 4096;

    /// Maps the beginning of a file, which is made that long.
    pub(crate) fn of(file: &std::fs::File) -> Mapped {
        file.set_len(Mapped::BYTES as u64).unwrap();
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let no_address = std::ptr::null_mut();
        // SAFETY: a new mapping at an address that the kernel chooses.
        let address =
            unsafe { libc::mmap(no_address, Mapped::BYTES, protection, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(address, libc::MAP_FAILED);
        Mapped(address.cast())
    }

    /// Stores a byte. The file must still be as long.
    pub(crate) fn store(&mut self, at: usize, byte: u8) {
        assert!(at < Mapped::BYTES);
        // SAFETY: within the mapping.
        unsafe { self.0.add(at).write_volatile(byte) }
    }
}

#[cfg(test)]
impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that `of` made, to which nothing refers any more.
        unsafe { libc::munmap(self.0.cast(), Mapped::BYTES) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn a_file_has_a_writer_while_it_is_open_or_mapped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "data").unwrap();
        let has_no_writer = || has_no_writer(std::fs::File::open(&path).unwrap().as_fd()).unwrap();
        assert!(has_no_writer());
        let reader = std::fs::File::open(&path).unwrap();
        assert!(has_no_writer());
        drop(reader);
        let writer = std::fs::File::options().read(true).write(true).open(&path).unwrap();
        assert!(!has_no_writer());
        let mapped = Mapped::of(&writer);
        drop(writer);
        assert!(!has_no_writer());
        drop(mapped);
        assert!(has_no_writer());
    }
}
