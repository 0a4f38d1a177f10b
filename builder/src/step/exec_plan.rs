//! An Exec op with its mounts ready becomes a plan for the sandbox: what is done in which order (reference/engine.md 6.1).

use super::exec_mounts::{Content, Mounts, Prepared};
use super::mount_point::{self, Resolved};
use super::user::User;
use crate::sandbox::devices::Devices;
use crate::sandbox::plan::{First, MountPoint, Operation, Otherwise, Plan, RESOURCES, Slot};
use crate::sandbox::rootfs::{self, Access};
use crate::sandbox::syscall::Command;
use crate::sandbox::{SandboxError, capability, emulator, seccomp};
use frontend::op::{Exec, Network, Security};
use rustix::fs::CWD;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use rustix::process::{Resource, Rlimit};
use rustix::thread::{Gid, Uid};
use std::ffi::CString;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// `PATH` of a step that sets none.
pub(super) const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// `/dev/shm` without `--shm-size`, in bytes.
const SHM_SIZE: u64 = 64 * 1024 * 1024;
/// What every step has mounted; nothing is made for mounts below.
pub(super) const OWN_MOUNTS: [&str; 3] = ["dev", "proc", "sys"];

const MASKED: [&str; 11] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
];
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a plan is made of, beside the op.
pub(super) struct Parts<'a> {
    /// Detached, writable.
    pub root: OwnedFd,
    /// A folder of the host on which the root is attached, in the child's own mount namespace.
    pub anchor: &'a Path,
    pub mounts: &'a mut Mounts,
    /// Where each of the mounts goes, in their order.
    pub targets: Vec<Target>,
    pub devices: Devices,
    pub user: &'a User,
    /// The whole environment.
    pub env: Vec<String>,
    /// Input, output, error.
    pub streams: [OwnedFd; 3],
    /// What those are.
    pub streams_are: StreamsAre,
    /// The program is in a user namespace that is not the machine's first.
    pub nested: bool,
    /// Where the emulator for a foreign platform is registered.
    pub emulator: Option<OwnedFd>,
    /// Cgroups of version 1 to enter, by their lists of processes.
    pub cgroups: Vec<OwnedFd>,
}

/// What a process talks to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StreamsAre {
    /// The log of a step, or files.
    Files,
    /// A terminal, which the process gets as that of its session.
    Terminal,
}

/// Where a mount goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// On a path of the root.
    Root(PathBuf),
    /// On a path below another mount; missing folders are made there.
    Mount(PathBuf),
}

/// Sorts mounts, parents first, and finds where they go in `view`, the root as the image has it.
pub(super) fn locate(
    view: BorrowedFd<'_>,
    prepared: &mut [Prepared],
) -> Result<(Vec<Target>, Vec<mount_point::Stub>), SandboxError> {
    prepared.sort_by_key(|mount| mount.target.components().count());
    let mut mounted: Vec<PathBuf> = OWN_MOUNTS.iter().map(PathBuf::from).collect();
    let (mut targets, mut stubs) = (vec![], vec![]);
    for mount in prepared {
        let at: Resolved = mount_point::resolve(view, &mount.target)?;
        let below = mounted.iter().any(|other| at.path.starts_with(other) && at.path != *other);
        mounted.push(at.path.clone());
        if below {
            targets.push(Target::Mount(mount.target.clone()));
        } else {
            targets.push(Target::Root(Path::new("/").join(&at.path)));
            stubs.push(mount_point::Stub { at, folder: mount.folder });
        }
    }
    Ok((targets, stubs))
}

/// Makes the plan.
pub(super) fn plan(exec: &Exec, parts: Parts<'_>) -> Result<Plan, SandboxError> {
    let Parts { root, anchor, mounts, targets, devices, user, env, streams, streams_are, nested, emulator, cgroups } =
        parts;
    let mut plan = Builder { fds: vec![], operations: vec![] };
    let insecure = exec.security == Security::Insecure;
    for cgroup in cgroups {
        let cgroup = plan.slot(cgroup);
        plan.push(Operation::Cgroup(cgroup));
    }
    plan.push(Operation::PrivateMounts);
    // Not with the clone: it would show the program's own cgroup as the root, since the child enters its later.
    plan.push(Operation::Unshare(libc::CLONE_NEWCGROUP));
    plan.push(Operation::Session);
    if exec.network == Network::None {
        plan.push(Operation::LoopbackUp);
    }
    plan.push(Operation::Hostname(c_string(exec.hostname.as_bytes())?));
    let root = plan.slot(root);
    plan.push(Operation::Pivot { root, anchor: c_path(anchor)? });
    let files = plan.slot(clone_fd(&mounts.files)?);
    // Parts can only be taken of what is attached; below /proc nobody sees it.
    plan.attach(files, "/proc")?;
    plan.system_mounts(exec, devices, nested, insecure)?;
    plan.step_mounts(std::mem::take(&mut mounts.prepared), targets, files)?;
    if !insecure {
        for path in READ_ONLY {
            plan.push(Operation::ReadOnly(c_string(path.as_bytes())?));
        }
        for path in MASKED {
            plan.push(Operation::Mask { path: c_string(path.as_bytes())?, empty: files });
        }
    }
    plan.push(Operation::LeaveHost);
    plan.process(exec, user, (streams, streams_are), insecure, emulator)?;
    let network = if exec.network == Network::None { libc::CLONE_NEWNET } else { 0 };
    let namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | network;
    let command = command(exec, env)?;
    let first = if emulator::is_foreign(&exec.platform) { First::Init } else { First::Command };
    Ok(Plan { namespaces: namespaces as u64, operations: plan.operations, fds: plan.fds, command, first })
}

struct Builder {
    fds: Vec<OwnedFd>,
    operations: Vec<Operation>,
}

impl Builder {
    fn slot(&mut self, fd: OwnedFd) -> Slot {
        self.fds.push(fd);
        self.fds.len() - 1
    }

    fn push(&mut self, operation: Operation) {
        self.operations.push(operation);
    }

    fn attach(&mut self, mount: Slot, target: &str) -> Result<(), SandboxError> {
        let target = MountPoint { path: c_string(target.as_bytes())?, parents: vec![], folder: true };
        self.push(Operation::Attach { mount, target });
        Ok(())
    }

    fn mount(
        &mut self,
        fs: &str,
        options: &[(&str, &str)],
        attributes: MountAttrFlags,
        target: &str,
        otherwise: Otherwise,
    ) -> Result<(), SandboxError> {
        let options = options.iter().map(|(key, value)| Ok((c_string(key.as_bytes())?, c_string(value.as_bytes())?)));
        let options = options.collect::<Result<_, SandboxError>>()?;
        let (fs, target) = (c_string(fs.as_bytes())?, c_string(target.as_bytes())?);
        self.push(Operation::Mount { fs, options, attributes, target, otherwise });
        Ok(())
    }

    /// `/dev`, `/proc`, `/sys` and what is in them.
    fn system_mounts(
        &mut self,
        exec: &Exec,
        devices: Devices,
        nested: bool,
        insecure: bool,
    ) -> Result<(), SandboxError> {
        let strict =
            MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_NODEV;
        let read_only = if insecure { strict } else { strict | MountAttrFlags::MOUNT_ATTR_RDONLY };
        self.mount("proc", &[], strict, "/proc", Otherwise::Fail)?;
        let dev = self.slot(devices.dev);
        self.attach(dev, "/dev")?;
        let pts = [("newinstance", ""), ("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")];
        let quiet = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        // Group 5 is not to be had in a namespace with one id.
        let pts = if nested && !crate::sandbox::userns::is_mapped(5) { &pts[..3] } else { &pts[..] };
        self.mount("devpts", pts, quiet, "/dev/pts", Otherwise::Fail)?;
        let size = exec.shm_size_bytes.unwrap_or(SHM_SIZE).to_string();
        let shm = rootfs::tmpfs(&[("size", &size), ("mode", "1777")], strict)?;
        let shm = self.slot(shm);
        self.attach(shm, "/dev/shm")?;
        self.mount("mqueue", &[], strict, "/dev/mqueue", Otherwise::Skip)?;
        // The host's network is not ours to show if we are in a user namespace; then the host's /sys is shown as it is.
        let sys = match nested {
            false => Otherwise::Fail,
            true => {
                let access = if insecure { Access::ReadWrite } else { Access::ReadOnly };
                let sys = rootfs::bind_at(CWD, Path::new("/sys"), OpenTreeFlags::AT_RECURSIVE, access)?;
                Otherwise::Attach(self.slot(sys))
            }
        };
        self.mount("sysfs", &[], read_only, "/sys", sys)?;
        self.mount("cgroup2", &[], read_only, "/sys/fs/cgroup", Otherwise::Skip)?;
        for (name, node) in devices.nodes {
            let node = self.slot(node);
            self.attach(node, &format!("/dev/{name}"))?;
        }
        Ok(())
    }

    /// The mounts of the op.
    fn step_mounts(&mut self, prepared: Vec<Prepared>, targets: Vec<Target>, files: Slot) -> Result<(), SandboxError> {
        for (mount, target) in prepared.into_iter().zip(targets) {
            let target = mount_point_of(&target, mount.folder)?;
            let otherwise = if mount.optional { Otherwise::Skip } else { Otherwise::Fail };
            match mount.content {
                Content::Whole(fd) => {
                    let mount = self.slot(fd);
                    self.push(Operation::Attach { mount, target });
                }
                Content::File { name, attributes } => {
                    let path = c_string(name.as_bytes())?;
                    self.push(Operation::AttachPart { mount: files, path, attributes, target, otherwise });
                }
                Content::Part { of, path, attributes } => {
                    let mount = self.slot(of);
                    // Attached first, and out of sight before anything but the root is there.
                    let at = MountPoint { path: c_string(b"/proc")?, parents: vec![], folder: true };
                    let before_proc = self.operations.iter().position(
                        |operation| matches!(operation, Operation::Mount { fs, .. } if fs.as_c_str() == c"proc"),
                    );
                    let attach = Operation::Attach { mount, target: at };
                    self.operations.insert(before_proc.unwrap_or(self.operations.len()), attach);
                    let path = c_path(&path)?;
                    self.push(Operation::AttachPart { mount, path, attributes, target, otherwise });
                }
            }
        }
        Ok(())
    }

    /// What makes the child the process that the command runs in.
    fn process(
        &mut self,
        exec: &Exec,
        user: &User,
        (streams, streams_are): ([OwnedFd; 3], StreamsAre),
        insecure: bool,
        emulator: Option<OwnedFd>,
    ) -> Result<(), SandboxError> {
        // What is missing now is missing in a mount; in the root it has been made.
        self.push(Operation::Folders(prefixes(Path::new(&exec.cwd))?));
        self.push(Operation::Folder(c_string(exec.cwd.as_bytes())?));
        for ulimit in &exec.ulimits {
            let (resource, limit) = limit(ulimit)?;
            self.push(Operation::Limit(resource, limit));
        }
        self.push(Operation::Umask(0o022));
        let streams = streams.map(|fd| self.slot(fd));
        self.push(Operation::Streams(streams));
        if streams_are == StreamsAre::Terminal {
            self.push(Operation::ControllingTerminal(streams[0]));
        }
        if let Some(namespace) = emulator {
            let namespace = self.slot(namespace);
            self.push(Operation::UserNamespace(namespace));
        }
        if !insecure {
            self.push(Operation::Bounding(capability::DEFAULT));
            self.operations.extend(seccomp::filter().map(Operation::Seccomp));
        }
        let groups = may_set_groups().then(|| user.groups.iter().map(|gid| Gid::from_raw(*gid)).collect());
        let (uid, gid) = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        self.push(Operation::Ids { uid, gid, groups });
        if user.uid == 0 && !insecure {
            self.push(Operation::Capabilities(capability::DEFAULT));
        }
        self.push(Operation::DieWithParent);
        Ok(())
    }
}

/// Whether this user namespace lets groups be set (user_namespaces(7)).
pub(super) fn may_set_groups() -> bool {
    std::fs::read_to_string("/proc/self/setgroups").map_or(true, |text| text.trim() != "deny")
}

fn mount_point_of(target: &Target, folder: bool) -> Result<MountPoint, SandboxError> {
    Ok(match target {
        Target::Root(path) => MountPoint { path: c_path(path)?, parents: vec![], folder },
        Target::Mount(path) => {
            let mut parents = prefixes(path)?;
            parents.pop();
            MountPoint { path: c_path(path)?, parents, folder }
        }
    })
}

/// `/a`, `/a/b`, … up to the path itself.
fn prefixes(path: &Path) -> Result<Vec<CString>, SandboxError> {
    let mut prefixes =
        path.ancestors().filter(|path| path.parent().is_some()).map(c_path).collect::<Result<Vec<_>, _>>()?;
    prefixes.reverse();
    Ok(prefixes)
}

/// The program as execve(2) wants it: the files to try are in the folders of `PATH`, unless it is a path itself.
fn command(exec: &Exec, env: Vec<String>) -> Result<Command, SandboxError> {
    let program = exec.args.first().ok_or_else(|| SandboxError::Setup {
        operation: "find the command".into(),
        help: Some("it is empty"),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    let programs = programs(program, &env).iter().map(|path| c_path(path)).collect::<Result<_, _>>()?;
    let strings = |list: &[String]| list.iter().map(|text| c_string(text.as_bytes())).collect::<Result<Vec<_>, _>>();
    Ok(Command::new(programs, strings(&exec.args)?, strings(&env)?))
}

/// The files to try for a program.
pub(super) fn programs(program: &str, env: &[String]) -> Vec<PathBuf> {
    if program.contains('/') {
        return vec![program.into()];
    }
    let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let folders = path.split(':').map(|folder| if folder.is_empty() { "." } else { folder });
    folders.map(|folder| Path::new(folder).join(program)).collect()
}

/// A `--ulimit`: name, soft and hard limit; a negative one is none.
pub(super) fn limit((name, soft, hard): &(String, i64, i64)) -> Result<(Resource, Rlimit), SandboxError> {
    let found = RESOURCES.iter().find(|(known, _)| known == name);
    let (_, resource) = found.ok_or_else(|| SandboxError::Setup {
        operation: format!("set the limit {name}"),
        help: Some("there is no such limit"),
        source: io::ErrorKind::InvalidInput.into(),
    })?;
    let limit = |value: i64| u64::try_from(value).ok();
    Ok((*resource, Rlimit { current: limit(*soft), maximum: limit(*hard) }))
}

fn clone_fd(fd: &OwnedFd) -> Result<OwnedFd, SandboxError> {
    fd.try_clone().map_err(|source| SandboxError::Setup {
        operation: "duplicate a descriptor".into(),
        help: None,
        source,
    })
}

fn c_path(path: &Path) -> Result<CString, SandboxError> {
    c_string(path.as_os_str().as_bytes())
}

fn c_string(bytes: &[u8]) -> Result<CString, SandboxError> {
    CString::new(bytes).map_err(|error| SandboxError::Setup {
        operation: format!("use {:?}", String::from_utf8_lossy(bytes)),
        help: Some("it has a NUL character"),
        source: error.into(),
    })
}
