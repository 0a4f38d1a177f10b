//! Running programs of foreign platforms with nothing set up on the host. Since Linux 6.7 a user namespace can have
//! handlers of its own (binfmt_misc): we make a namespace, register qemu there with flag F (opened now, so that it need
//! not be in the step's root), keep the namespace, and steps enter it before they execute their command.
//! Handlers that the host has already are used as they are.

use super::syscall::{self, Stack};
use super::userns;
use frontend::platform::Platform;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// A foreign platform that cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// No emulator is installed.
    #[error(
        "cannot run programs of {platform} on this machine: install the package qemu-user-static, or set KILN_QEMU_DIR to a folder with qemu-{machine}-static"
    )]
    Missing {
        /// Such as `linux/arm64`.
        platform: String,
        /// As qemu calls it.
        machine: String,
    },
    /// There is no emulator for it.
    #[error("cannot run programs of {platform} on this machine")]
    Unknown {
        /// Such as `linux/foo`.
        platform: String,
    },
    /// The kernel does not let us register one.
    #[error(
        "register {} for {platform}: Linux 6.7 or newer with binfmt_misc is needed, or a handler that root has registered with flag F (package qemu-user-static with binfmt-support)", emulator.display()
    )]
    Register {
        /// Such as `linux/arm64`.
        platform: String,
        /// The emulator.
        emulator: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// How to tell programs of an architecture (elf(5)), and its emulator.
struct Machine {
    architecture: &'static str,
    /// As qemu calls it.
    name: &'static str,
    /// `e_machine`.
    number: u16,
    bits: Bits,
    order: Order,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Bits {
    B32,
    B64,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Little,
    Big,
}

const fn machine(architecture: &'static str, name: &'static str, number: u16, bits: Bits, order: Order) -> Machine {
    Machine { architecture, name, number, bits, order }
}

const MACHINES: [Machine; 13] = [
    machine("amd64", "x86_64", 62, Bits::B64, Order::Little),
    machine("386", "i386", 3, Bits::B32, Order::Little),
    machine("arm64", "aarch64", 183, Bits::B64, Order::Little),
    machine("arm", "arm", 40, Bits::B32, Order::Little),
    machine("riscv64", "riscv64", 243, Bits::B64, Order::Little),
    machine("ppc64le", "ppc64le", 21, Bits::B64, Order::Little),
    machine("ppc64", "ppc64", 21, Bits::B64, Order::Big),
    machine("s390x", "s390x", 22, Bits::B64, Order::Big),
    machine("loong64", "loongarch64", 258, Bits::B64, Order::Little),
    machine("mips64le", "mips64el", 8, Bits::B64, Order::Little),
    machine("mips64", "mips64", 8, Bits::B64, Order::Big),
    machine("mipsle", "mipsel", 8, Bits::B32, Order::Little),
    machine("mips", "mips", 8, Bits::B32, Order::Big),
];

impl Machine {
    /// The first bytes of its programs, and which bits of them count: all but the ABI's name, and executable or shared.
    fn magic(&self) -> ([u8; 20], [u8; 20]) {
        let mut magic = [0; 20];
        let mut mask = [0xff; 20];
        magic[..4].copy_from_slice(b"\x7fELF");
        magic[4] = if self.bits == Bits::B32 { 1 } else { 2 };
        magic[5] = if self.order == Order::Little { 1 } else { 2 };
        magic[6] = 1;
        mask[7] = 0;
        let bytes = |number: u16| match self.order {
            Order::Little => number.to_le_bytes(),
            Order::Big => number.to_be_bytes(),
        };
        magic[16..18].copy_from_slice(&bytes(2));
        mask[16..18].copy_from_slice(&bytes(0xfffe));
        magic[18..].copy_from_slice(&bytes(self.number));
        (magic, mask)
    }

    /// What is written to `register` (the kernel's admin-guide/binfmt-misc). P, O, C: as a program run natively would
    /// be, it sees its own `argv[0]` and has the rights that its file gives it.
    fn registration(&self, emulator: &Path) -> String {
        let (magic, mask) = self.magic();
        let hex = |bytes: [u8; 20]| bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect::<String>();
        format!(":kiln-{}:M::{}:{}:{}:POCF", self.name, hex(magic), hex(mask), emulator.display())
    }
}

/// The user namespace in which a program of `platform` has to run; `None` if it runs in any.
pub(crate) fn find(platform: &Platform) -> Result<Option<OwnedFd>, EmulatorError> {
    if !is_foreign(platform) {
        return Ok(None);
    }
    let name = format!("{}/{}", platform.os, platform.architecture);
    let Some(machine) = MACHINES.iter().find(|machine| machine.architecture == platform.architecture) else {
        return Err(EmulatorError::Unknown { platform: name });
    };
    if host_handles(machine) {
        return Ok(None);
    }
    let emulator = find_emulator(machine.name)
        .ok_or_else(|| EmulatorError::Missing { platform: name.clone(), machine: machine.name.into() })?;
    namespace(machine, &emulator).map(Some).map_err(|source| EmulatorError::Register {
        platform: name,
        emulator,
        source,
    })
}

/// Whether programs of that platform need an emulator here.
pub(crate) fn is_foreign(platform: &Platform) -> bool {
    !is_native(&platform.architecture)
}

fn is_native(architecture: &str) -> bool {
    match std::env::consts::ARCH {
        "x86_64" => matches!(architecture, "amd64" | "386"),
        "aarch64" => architecture == "arm64",
        other => MACHINES.iter().any(|machine| machine.architecture == architecture && machine.name == other),
    }
}

/// Whether a handler of the host matches, enabled and with flag F, as it must be to work in another root.
fn host_handles(machine: &Machine) -> bool {
    let Ok(entries) = fs::read_dir("/proc/sys/fs/binfmt_misc") else { return false };
    let (magic, _) = machine.magic();
    let magic: String = magic.iter().map(|byte| format!("{byte:02x}")).collect();
    entries.flatten().filter_map(|entry| fs::read_to_string(entry.path()).ok()).any(|text| is_handler(&text, &magic))
}

/// By the text of a handler's file.
fn is_handler(text: &str, magic: &str) -> bool {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    text.starts_with("enabled")
        && value("flags:").is_some_and(|flags| flags.contains('F'))
        && value("magic ") == Some(magic)
        && value("offset ") == Some("0")
}

fn find_emulator(machine: &str) -> Option<PathBuf> {
    let own = std::env::var_os("KILN_QEMU_DIR").map(PathBuf::from);
    let folders = own.into_iter().chain(["/usr/bin", "/usr/local/bin"].map(PathBuf::from));
    folders
        .flat_map(|folder| [format!("qemu-{machine}-static"), format!("qemu-{machine}")].map(|name| folder.join(name)))
        // The second form may need libraries, which the root of a step lacks.
        .filter(|path| path.to_string_lossy().ends_with("-static") || is_static(path))
        .find(|path| path.is_file())
}

/// Whether an ELF file names no interpreter; by its text, which is enough for qemu.
fn is_static(path: &Path) -> bool {
    use std::io::Read;
    let mut head = vec![];
    let read = fs::File::open(path).and_then(|file| file.take(4096).read_to_end(&mut head));
    read.is_ok() && !head.windows(3).any(|window| window == b"ld-" || window == b"ld.")
}

/// A namespace with a registered emulator. The mount keeps the registration.
struct Registered {
    namespace: OwnedFd,
    _binfmt: OwnedFd,
}

/// The namespace for a machine; made once.
fn namespace(machine: &Machine, emulator: &Path) -> io::Result<OwnedFd> {
    static NAMESPACES: Mutex<Option<HashMap<&'static str, Registered>>> = Mutex::new(None);
    let mut namespaces = NAMESPACES.lock().map_err(|_| io::ErrorKind::Other)?;
    let namespaces = namespaces.get_or_insert_default();
    if !namespaces.contains_key(machine.name) {
        let name = MACHINES.iter().find(|other| other.name == machine.name).map_or("", |machine| machine.name);
        namespaces.insert(name, register(&machine.registration(emulator))?);
    }
    let registered = namespaces.get(machine.name).ok_or(io::ErrorKind::NotFound)?;
    registered.namespace.try_clone()
}

/// What the parent says to the child.
const GO_ON: i32 = 0;
const END: i32 = 1;

/// Makes a namespace in a child and registers there. The child waits for its ids, and then until we have taken hold of
/// what it made; it runs while a thread of ours waits for it.
fn register(registration: &str) -> io::Result<Registered> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((from_child, to_parent), (from_parent, to_child)) = (pipe()?, pipe()?);
    let namespaces = (libc::CLONE_NEWUSER | libc::CLONE_NEWNS) as u64;
    std::thread::scope(|scope| {
        let (to_parent, from_parent) = (&to_parent, &from_parent);
        let thread = std::thread::Builder::new().name("binfmt".into()).spawn_scoped(scope, move || {
            let mut child = || {
                let result = serve(registration, to_parent, from_parent);
                let errno = result.err().map_or(0, |errno| errno.raw_os_error());
                // Too late to tell anybody if this fails; the parent then sees the end of the other pipe.
                let _ = send(to_parent, errno);
                0
            };
            let result = Stack::new().and_then(|mut stack| syscall::clone_vm(namespaces, None, &mut stack, &mut child));
            if let Err(errno) = &result {
                let _ = send(to_parent, -errno.raw_os_error());
            } else if let Ok(pidfd) = &result {
                let id = rustix::process::WaitId::PidFd(pidfd.as_fd());
                let _ = rustix::process::waitid(id, rustix::process::WaitIdOptions::EXITED);
            }
        })?;
        let result = (|| {
            let id = match receive(&from_child)? {
                errno if errno <= 0 => return Err(io::Error::from_raw_os_error(-errno)),
                id => id,
            };
            write_maps(id)?;
            send(&to_child, GO_ON)?;
            let binfmt = match receive(&from_child)? {
                // The child has ended.
                errno if errno > 0 => return Err(io::Error::from_raw_os_error(errno)),
                fd => -fd,
            };
            let child = Pid::from_raw(id).ok_or(Errno::SRCH)?;
            let pidfd = pidfd_open(child, PidfdFlags::empty())?;
            let binfmt = pidfd_getfd(&pidfd, binfmt, PidfdGetfdFlags::empty())?;
            let namespace = format!("/proc/{id}/ns/user");
            let namespace = rustix::fs::open(namespace, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            Ok(Registered { namespace, _binfmt: binfmt })
        })();
        // Lets the child go, if it is still there; a close would not do, since it has a copy of this end.
        let _ = send(&to_child, END);
        let _ = thread.join();
        result
    })
}

/// In the child: tells its id, waits for its maps, registers, tells the mount's descriptor (negated), waits to be let
/// go. Nothing is allocated or dropped here (see `child.rs`).
fn serve(registration: &str, to_parent: &OwnedFd, from_parent: &OwnedFd) -> Result<(), Errno> {
    syscall::die_with_parent()?;
    send(to_parent, rustix::process::getpid().as_raw_pid())?;
    if receive(from_parent)? != GO_ON {
        return Err(Errno::CANCELED);
    }
    let context = ManuallyDrop::new(mount::fsopen(c"binfmt_misc", FsOpenFlags::FSOPEN_CLOEXEC)?);
    mount::fsconfig_create(context.as_fd())?;
    let flags = FsMountFlags::FSMOUNT_CLOEXEC;
    let binfmt = ManuallyDrop::new(mount::fsmount(context.as_fd(), flags, MountAttrFlags::empty())?);
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let register = rustix::fs::openat(binfmt.as_fd(), c"register", flags, Mode::empty())?;
    let register = ManuallyDrop::new(register);
    rustix::io::write(register.as_fd(), registration.as_bytes())?;
    send(to_parent, -binfmt.as_raw_fd())?;
    receive(from_parent).map(drop)
}

fn send(pipe: &OwnedFd, number: i32) -> Result<(), Errno> {
    rustix::io::write(pipe, &number.to_ne_bytes()).map(drop)
}

fn receive(pipe: &OwnedFd) -> Result<i32, Errno> {
    let mut bytes = [0; 4];
    match rustix::io::retry_on_intr(|| rustix::io::read(pipe, &mut bytes))? {
        4 => Ok(i32::from_ne_bytes(bytes)),
        _ => Err(Errno::PIPE),
    }
}

/// Every id of ours is itself in the child's namespace.
fn write_maps(id: i32) -> io::Result<()> {
    for kind in ["uid_map", "gid_map"] {
        let own = fs::read_to_string(format!("/proc/self/{kind}"))?;
        let map = userns::parse_map(&own);
        let map: String = map.iter().map(|(inside, _, length)| format!("{inside} {inside} {length}\n")).collect();
        fs::write(format!("/proc/{id}/{kind}"), map)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handlers() {
        let arm64 = &MACHINES[2];
        let registration = arm64.registration(Path::new("/q"));
        let magic = r"\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00";
        let mask = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff";
        assert_eq!(registration, format!(":kiln-aarch64:M::{magic}:{mask}:/q:POCF"));
        let text = "enabled\ninterpreter /q\nflags: OCF\noffset 0\nmagic 7f454c460201010000000000000000000200b700\n";
        assert!(is_handler(text, "7f454c460201010000000000000000000200b700"));
        assert!(!is_handler(&text.replace("OCF", "OC"), "7f454c460201010000000000000000000200b700"));
        assert!(!is_handler(text, "7f454c4602010100000000000000000002003e00"));
    }
}
