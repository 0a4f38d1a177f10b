//! What a child does between clone and exec, as a list that can be printed. Made by whoever knows the step; walked by
//! `child.rs`, which must not allocate, so all strings are ready for the kernel.

use super::seccomp::Instruction;
use super::syscall::Command;
use rustix::mount::MountAttrFlags;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// Position in [`Plan::fds`].
pub(crate) type Slot = usize;

/// A process to be.
pub(crate) struct Plan {
    /// `CLONE_NEW*` of the clone itself.
    pub namespaces: u64,
    /// In order. The first that fails ends the child.
    pub operations: Vec<Operation>,
    /// Descriptors that operations name by position; the child has copies.
    pub fds: Vec<OwnedFd>,
    /// What the child becomes.
    pub command: Command,
    /// Which process is pid 1 of its pid namespace.
    pub first: First,
}

/// Pid 1 of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum First {
    /// The command itself, as in other container builders.
    Command,
    /// A process that waits for the command and for what that leaves behind. The kernel keeps from pid 1 all signals that
    /// it sends to itself, so an emulator that is pid 1 and tells the crash of its program that way would wait forever.
    Init,
}

/// What can be limited, by docker's names for it (docker run, `--ulimit`).
pub(crate) const RESOURCES: [(&str, Resource); 16] = [
    ("as", Resource::As),
    ("core", Resource::Core),
    ("cpu", Resource::Cpu),
    ("data", Resource::Data),
    ("fsize", Resource::Fsize),
    ("locks", Resource::Locks),
    ("memlock", Resource::Memlock),
    ("msgqueue", Resource::Msgqueue),
    ("nice", Resource::Nice),
    ("nofile", Resource::Nofile),
    ("nproc", Resource::Nproc),
    ("rss", Resource::Rss),
    ("rtprio", Resource::Rtprio),
    ("rttime", Resource::Rttime),
    ("sigpending", Resource::Sigpending),
    ("stack", Resource::Stack),
];

/// One thing to do. Paths are in the root, which `Pivot` makes the child's own.
#[derive(Debug)]
pub(crate) enum Operation {
    /// Enters the cgroup of version 1 whose list of processes this is.
    Cgroup(Slot),
    /// Keeps what the child mounts to itself.
    PrivateMounts,
    /// A session of its own.
    Session,
    /// Moves into new namespaces.
    Unshare(libc::c_int),
    /// Brings up `lo`.
    LoopbackUp,
    /// Host name.
    Hostname(CString),
    /// Attaches the root mount at a folder of the host and makes it the root; the host's root stays below it.
    Pivot { root: Slot, anchor: CString },
    /// Makes a folder the root, and goes there.
    Chroot(Slot),
    /// Lets go of the host's root.
    LeaveHost,
    /// Attaches a mount; makes the mount point where another mount lacks it.
    Attach { mount: Slot, target: MountPoint },
    /// Attaches a copy of a part of a mount that is attached already.
    AttachPart { mount: Slot, path: CString, attributes: u64, target: MountPoint, otherwise: Otherwise },
    /// Mounts a file system that belongs to the namespaces of the child; on failure, attaches `instead`, if any.
    Mount {
        fs: CString,
        options: Vec<(CString, CString)>,
        attributes: MountAttrFlags,
        target: CString,
        otherwise: Otherwise,
    },
    /// Hides a path, if it exists: a folder behind an empty one, anything else behind `/dev/null`.
    Mask { path: CString, empty: Slot },
    /// Makes a path read-only, if it exists.
    ReadOnly(CString),
    /// Makes folders, outermost first, that do not exist.
    Folders(Vec<CString>),
    /// setrlimit(2).
    Limit(Resource, Rlimit),
    /// umask(2).
    Umask(u32),
    /// Moves into a user namespace.
    UserNamespace(Slot),
    /// seccomp(2).
    Seccomp(Vec<Instruction>),
    /// Reduces the bounding set to these capabilities.
    Bounding(u64),
    /// Sets the capabilities.
    Capabilities(u64),
    /// User, group and supplementary groups; `None` where the kernel forbids to set these.
    Ids { uid: Uid, gid: Gid, groups: Option<Vec<Gid>> },
    /// chdir(2).
    Folder(CString),
    /// Standard input, output and error.
    Streams([Slot; 3]),
    /// Makes a terminal that of the session.
    ControllingTerminal(Slot),
    /// Dies with the program.
    DieWithParent,
}

/// A path to mount on.
#[derive(Debug)]
pub(crate) struct MountPoint {
    /// The path.
    pub path: CString,
    /// Its parents, outermost first, to be made where they are missing; empty if it is known to be there.
    pub parents: Vec<CString>,
    /// Whether the path itself is to be a folder.
    pub folder: bool,
}

/// What happens if something cannot be mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// The step fails.
    Fail,
    /// The step goes without.
    Skip,
    /// This is attached there.
    Attach(Slot),
}

impl Operation {
    /// For the message of its failure: `set up the sandbox: …`.
    pub(crate) fn describe(&self) -> String {
        let text = |string: &CString| string.to_string_lossy().into_owned();
        match self {
            Operation::Cgroup(_) => "enter the step's cgroup".into(),
            Operation::PrivateMounts => "make all mounts private".into(),
            Operation::Session => "start a session".into(),
            Operation::Unshare(_) => "create a cgroup namespace".into(),
            Operation::LoopbackUp => "bring up the loopback interface".into(),
            Operation::Hostname(name) => format!("set the host name {}", text(name)),
            Operation::Pivot { anchor, .. } => format!("change the root at {}", text(anchor)),
            Operation::Chroot(_) => "change the root".into(),
            Operation::LeaveHost => "unmount the host's root".into(),
            Operation::Attach { target, .. } | Operation::AttachPart { target, .. } => {
                format!("mount on {}", text(&target.path))
            }
            Operation::Mount { fs, target, .. } => format!("mount {} on {}", text(fs), text(target)),
            Operation::Mask { path, .. } => format!("mask {}", text(path)),
            Operation::ReadOnly(path) => format!("make {} read-only", text(path)),
            Operation::Folders(paths) => format!("create {}", paths.last().map(text).unwrap_or_default()),
            Operation::Limit(resource, _) => format!("set the limit {resource:?}"),
            Operation::Umask(_) => "set the umask".into(),
            Operation::UserNamespace(_) => "enter the user namespace of the emulator".into(),
            Operation::Seccomp(_) => "load the seccomp filter".into(),
            Operation::Bounding(_) => "reduce the capabilities' bounding set".into(),
            Operation::Capabilities(_) => "set the capabilities".into(),
            Operation::Ids { uid, gid, .. } => {
                format!("become user {} and group {}", uid.as_raw(), gid.as_raw())
            }
            Operation::Folder(path) => format!("change to the folder {}", text(path)),
            Operation::Streams(_) => "set the standard streams".into(),
            Operation::ControllingTerminal(_) => "take over the terminal".into(),
            Operation::DieWithParent => "bind the process to the program's life".into(),
        }
    }

    /// What to do if it fails so; `None` if nothing is known.
    pub(crate) fn help(&self, error: rustix::io::Errno) -> Option<&'static str> {
        use rustix::io::Errno;
        match (self, error) {
            (Operation::Mount { fs, .. }, Errno::PERM) if fs.as_c_str() == c"proc" => Some(
                "the kernel forbids a new /proc where the present one is masked, as in most containers; \
                 run the outer container with `--security-opt systempaths=unconfined`",
            ),
            (Operation::Chroot(_), Errno::PERM) => {
                Some("this takes the capability SYS_CHROOT: give it to the container")
            }
            (Operation::Ids { .. }, Errno::PERM) => {
                Some("this takes the capabilities SETUID and SETGID: give them to the container")
            }
            (Operation::Ids { .. }, Errno::INVAL) => Some(
                "this id is not in the user namespace; install newuidmap and newgidmap (package uidmap) and give \
                 your user ranges in /etc/subuid and /etc/subgid",
            ),
            _ => None,
        }
    }
}
