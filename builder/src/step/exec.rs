//! RUN: the trees, mounts and secrets of an Exec op become a sandbox; what it wrote is in the upper folder afterwards.

use super::cache_mount::BegunAnew;
use super::exec_log::{LogFile, StepLog};
use super::exec_mounts::{self, Mounts};
use super::mount_point;
use super::redact::Redactor;
use super::user::{self, User};
use super::{exec_files, exec_plan};
use crate::progress::{Stream, Vertex};
use crate::sandbox::cgroup::Cgroup;
use crate::sandbox::limits::Limits;
use crate::sandbox::spawn::{self, SpawnError};
use crate::sandbox::userns::Identity;
use crate::sandbox::{SandboxError, devices, emulator, rootfs};
use crate::secret::{SecretError, Secrets};
use crate::ssh::{SshAgents, SshError};
use frontend::op::{Exec, MountKind, Security};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::io::AsyncReadExt;

/// Largest `/etc/passwd` or `/etc/group`, in bytes.
const IDS_MAX: u64 = 10 * 1024 * 1024;

/// What an Exec op works on, made ready by the caller.
#[derive(Clone, Debug)]
pub struct ExecInput {
    /// Folders of the layers of the root, lowest first.
    pub lowers: Vec<PathBuf>,
    /// An empty folder that takes the changes, in overlayfs' form.
    pub upper: PathBuf,
    /// An empty folder on the same file system, to be removed by the caller afterwards.
    pub work: PathBuf,
    /// What `from` of each mount of the op is, by the mount's position in [`Exec::mounts`]; needed for `Bind`, and for
    /// `Cache` with a `from`. Missing means an empty tree.
    pub sources: Vec<(usize, MountSource)>,
    /// Folder of all cache mounts (the store's `mounts/`).
    pub cache_root: PathBuf,
    /// Given with `--no-cache`: cache mounts begin anew.
    pub anew: Option<Arc<BegunAnew>>,
    /// `--secret`.
    pub secrets: Arc<Secrets>,
    /// `--ssh`.
    pub ssh: Arc<SshAgents>,
    /// As what the program runs.
    pub identity: Identity,
    /// Name of the step in the cgroup tree; unique on this machine.
    pub id: String,
    /// What its processes may use.
    pub limits: Limits,
    /// File for its complete output.
    pub log: PathBuf,
}

/// The tree that a mount shows.
#[derive(Clone, Debug)]
pub struct MountSource {
    /// Folders of its layers, lowest first; none for an empty tree.
    pub lowers: Vec<PathBuf>,
    /// The part of it that is shown, if not what the mount says: the links of a client's folder are followed before.
    pub part: Option<String>,
    /// Its content id: cache mounts that begin with other contents are other caches. Empty for an empty tree.
    pub identity: String,
}

/// How the command came out when it succeeded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecOutcome {
    /// User and system time of the step's processes, in microseconds; `None` where there is no cgroup to count it.
    pub cpu_time_us: Option<u64>,
    /// Highest memory use, in bytes; `None` likewise.
    pub memory_peak_bytes: Option<u64>,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum ExecError {
    /// The command ended with another code than 0: 128 and the signal's number if a signal ended it.
    #[error("process {command:?} did not complete successfully: exit code: {code}{}", if *out_of_memory { ": cannot allocate memory" } else { "" })]
    Exit {
        /// Arguments, joined by blanks.
        command: String,
        /// 1 to 255.
        code: i32,
        /// The kernel killed a process of the step for want of memory.
        out_of_memory: bool,
    },
    /// The build was stopped.
    #[error("canceled")]
    Canceled,
    /// `USER` is not in the image.
    #[error("{0}")]
    User(String),
    /// A secret that the step needs.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// An agent that the step needs.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// The source of a bind mount is not there.
    #[error("{path:?}: not found")]
    MountSource {
        /// As written.
        path: String,
    },
    /// The emulator cannot be registered.
    #[error(transparent)]
    Emulator(#[from] emulator::EmulatorError),
    /// The machine.
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
}

impl ExecError {
    /// What to do next, where the way a command ended is well known.
    pub fn help(&self) -> Vec<String> {
        let ExecError::Exit { code, out_of_memory, .. } = self else { return vec![] };
        let advice = match code {
            137 if *out_of_memory => {
                "a process needed more memory than there is: run fewer things at once, or give more"
            }
            // 128 and the number of the signal (signal(7)).
            137 => {
                "a process was killed (SIGKILL): often for want of memory, by the kernel or by what limits this machine"
            }
            139 => "a process crashed (SIGSEGV); under emulation that can be a fault of the emulator",
            127 => {
                "the shell did not find a command: install it in an earlier step, or check its name and PATH (the output \
                 above says which)"
            }
            126 => {
                "a command was found but could not be run: it may lack the execute permission (chmod +x, or COPY \
                 --chmod=755), its interpreter (the line `#!`), or be made for another platform"
            }
            _ => return vec![],
        };
        vec![advice.to_string()]
    }
}

/// Runs the command of `exec` until it ends or `cancel` is ready, which kills it. Its output goes to `vertex`. Must be
/// called in a tokio runtime with IO and time.
///
/// On success `input.upper` holds what the command changed, and nothing of what was mounted for it.
pub async fn run(
    exec: &Exec,
    input: ExecInput,
    vertex: &Vertex,
    cancel: impl Future<Output = ()> + Send,
) -> Result<ExecOutcome, ExecError> {
    tokio::select! {
        biased;
        () = cancel => Err(ExecError::Canceled),
        result = run_to_end(exec, &input, vertex) => result,
    }
}

/// As [`run`]; when dropped, the process is killed.
async fn run_to_end(exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Result<ExecOutcome, ExecError> {
    let mut mounts = exec_mounts::prepare(exec, input).await?;
    add_own_files(exec, &mut mounts)?;
    let view = rootfs::overlay(&input.lowers, None)?;
    let user = find_user(exec, &view)?;
    let env = environment(exec, input, &mounts, &user)?;
    let (targets, stubs) = exec_plan::locate(view.as_fd(), &mut mounts.prepared)?;
    let root = make_root(exec, input, view, &stubs, &user)?;
    let devices = devices::make(exec.security == Security::Insecure)?;
    if let Some((name, content)) = &exec.script {
        devices::make_folder(&devices.dev, "pipes")?;
        devices::write_file(&devices.dev, &format!("pipes/{name}"), content.as_bytes(), 0o755, (0, 0))?;
    }
    let (stdin, stdout, stderr) = streams()?;
    let emulator = emulator::find(&exec.platform)?;
    let cgroup = make_cgroup(exec, input, vertex);
    let parts = exec_plan::Parts {
        root,
        anchor: &input.work,
        mounts: &mut mounts,
        targets,
        devices,
        user: &user,
        env,
        streams: [stdin, stdout.1, stderr.1],
        rootless: input.identity != Identity::Root,
        emulator,
        cgroups: cgroup.open_legacy().map_err(SandboxError::path("open", "the step's cgroup"))?,
    };
    let plan = exec_plan::plan(exec, parts)?;
    let started = spawn::spawn(plan, cgroup.open()).await;
    let mut process = match started {
        Ok(process) => process,
        Err(SpawnError::Sandbox(error)) => return Err(error.into()),
        Err(SpawnError::Execute(errno)) => {
            vertex.log(Stream::Stderr, format!("{}\n", cannot_execute(exec, errno)).as_bytes());
            return Err(ExecError::Exit { command: exec.args.join(" "), code: 1, out_of_memory: false });
        }
    };
    let secrets = secret_values(exec, &input.secrets)?;
    let file = LogFile::new(input.log.clone());
    let mut logs = [Stream::Stdout, Stream::Stderr].map(|stream| {
        let redactor = Redactor::new(secrets.iter().map(Vec::as_slice));
        StepLog::new(vertex.clone(), stream, redactor, file.clone())
    });
    let [out_log, err_log] = &mut logs;
    // All that could write there is in the pid namespace, so the pipes end when the process does.
    let (exit, (), ()) = tokio::join!(process.wait(), follow(stdout.0, out_log), follow(stderr.0, err_log));
    let code = exit?.code();
    let usage = cgroup.usage();
    if code != 0 {
        logs.iter_mut().for_each(StepLog::failed);
        return Err(ExecError::Exit { command: exec.args.join(" "), code, out_of_memory: usage.out_of_memory });
    }
    Ok(ExecOutcome { cpu_time_us: usage.cpu_time_us, memory_peak_bytes: usage.memory_peak_bytes })
}

/// The step's cgroup. A limit that cannot be set is said once; the step runs all the same, as without the option.
fn make_cgroup(exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Cgroup {
    let (cgroup, unmet) = Cgroup::create(exec.cgroup_parent.as_deref(), &input.id, &input.limits);
    if !unmet.is_empty() {
        vertex.warn_once(format!(
            "limits of {} are not applied: no cgroup with that controller can be made or set here; as an ordinary \
             user, run kiln where one is delegated: `systemd-run --user --scope -p Delegate=yes kiln build …`",
            unmet.join(" and ")
        ));
    }
    cgroup
}

/// `/etc/hosts` and `/etc/resolv.conf`.
fn add_own_files(exec: &Exec, mounts: &mut Mounts) -> Result<(), ExecError> {
    mounts.add_file("hosts", "/etc/hosts", &exec_files::hosts(&exec.hostname, &exec.extra_hosts))?;
    // A host without the file has no names to resolve.
    let host = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    let upstream = std::fs::read_to_string("/run/systemd/resolve/resolv.conf").ok();
    let content = exec_files::resolv_conf(&host, upstream.as_deref(), exec.network);
    mounts.add_file("resolv.conf", "/etc/resolv.conf", &content)
}

/// The user of the op, by the files of the image.
fn find_user(exec: &Exec, view: &OwnedFd) -> Result<User, ExecError> {
    let passwd = read_ids(view, "etc/passwd")?;
    let group = read_ids(view, "etc/group")?;
    user::look_up(&exec.user, &passwd, &group).map_err(ExecError::User)
}

/// A file of the image that names users or groups; empty if there is none.
fn read_ids(view: &OwnedFd, path: &str) -> Result<String, ExecError> {
    let file = match mount_point::open(view.as_fd(), Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(fd) => std::fs::File::from(fd),
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(String::new()),
        Err(errno) => return Err(SandboxError::path("open", path)(errno).into()),
    };
    let stat = file.metadata().map_err(SandboxError::path("stat", path))?;
    if !stat.is_file() || stat.len() > IDS_MAX {
        return Err(ExecError::User(format!("/{path} of the image is not a regular file of at most 10 MiB")));
    }
    let mut content = vec![];
    std::io::Read::read_to_end(&mut &file, &mut content).map_err(SandboxError::path("read", path))?;
    Ok(String::from_utf8_lossy(&content).into_owned())
}

/// The environment: what the op says, what it implies, and secrets last.
fn environment(exec: &Exec, input: &ExecInput, mounts: &Mounts, user: &User) -> Result<Vec<String>, ExecError> {
    let mut env: Vec<String> = vec![];
    let mut set = |name: &str, value: &str, replace: bool| {
        let prefix = format!("{name}=");
        match env.iter().position(|entry| entry.starts_with(&prefix)) {
            Some(at) if replace => env[at] = format!("{prefix}{value}"),
            Some(_) => {}
            None => env.push(format!("{prefix}{value}")),
        }
    };
    for entry in exec.env.iter() {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        set(name, value, true);
    }
    set("PATH", exec_plan::DEFAULT_PATH, false);
    for entry in &exec.proxy_env {
        let (name, value) = entry.split_once('=').unwrap_or((entry, ""));
        // What the client says goes before what the image says, as in BuildKit.
        set(name, value, true);
    }
    set("HOME", &user.home, false);
    if let Some(socket) = &mounts.ssh_auth_sock {
        set("SSH_AUTH_SOCK", socket, false);
    }
    for secret in &exec.secret_env {
        let value = input.secrets.get_for(&secret.id, secret.required)?.unwrap_or_default();
        set(&secret.name, &String::from_utf8_lossy(&value), true);
    }
    Ok(env)
}

/// What the step must not show.
fn secret_values(exec: &Exec, secrets: &Secrets) -> Result<Vec<Vec<u8>>, SecretError> {
    let mounted = exec.mounts.iter().filter_map(|mount| match &mount.kind {
        MountKind::Secret { id, .. } => Some(id),
        MountKind::Bind { .. } | MountKind::Cache { .. } | MountKind::Tmpfs { .. } | MountKind::Ssh { .. } => None,
    });
    let ids = mounted.chain(exec.secret_env.iter().map(|secret| &secret.id));
    ids.filter_map(|id| secrets.get(id).transpose()).collect()
}

/// The root, with all that has to be there before the command starts.
fn make_root(
    exec: &Exec,
    input: &ExecInput,
    view: OwnedFd,
    stubs: &[mount_point::Stub],
    user: &User,
) -> Result<OwnedFd, ExecError> {
    let stub_layer = input.work.join("mount-points");
    let overlay_work = input.work.join("overlay");
    std::fs::create_dir_all(&overlay_work).map_err(SandboxError::path("create", &overlay_work))?;
    let mut lowers = input.lowers.clone();
    if mount_point::make_layer(view.as_fd(), &stub_layer, stubs)? {
        lowers.push(stub_layer);
    }
    // The root folder's own attributes are those of the highest layer.
    mount_point::mirror(view.as_fd(), Path::new(""), &input.upper)?;
    let cwd = mount_point::resolve(view.as_fd(), Path::new(&exec.cwd))?;
    let root = rootfs::overlay(&lowers, Some((&input.upper, &overlay_work)))?;
    for own in exec_plan::OWN_MOUNTS {
        let at = mount_point::resolve(root.as_fd(), Path::new(own))?;
        if at.kind.is_none() {
            mount_point::make_folders(root.as_fd(), &at.path, at.existing, (0, 0))?;
        }
    }
    let on_own_mount = exec_plan::OWN_MOUNTS.iter().any(|own| cwd.path.starts_with(own));
    if cwd.kind.is_none() && !on_own_mount {
        mount_point::make_folders(root.as_fd(), &cwd.path, cwd.existing, (user.uid, user.gid))?;
    }
    Ok(root)
}

/// Input, and pipes for output and error: our end, then the command's.
type Streams = (OwnedFd, (OwnedFd, OwnedFd), (OwnedFd, OwnedFd));

fn streams() -> Result<Streams, SandboxError> {
    let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .map_err(SandboxError::path("open", "/dev/null"))?;
    let pipe = || {
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|errno| SandboxError::Setup {
            operation: "create a pipe".into(),
            help: None,
            source: errno.into(),
        })
    };
    Ok((null, pipe()?, pipe()?))
}

/// Passes on what comes out of a pipe until it ends.
async fn follow(pipe: OwnedFd, log: &mut StepLog) {
    // A pipe that cannot be read loses output, not the step.
    let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) else { return };
    let mut buffer = vec![0; 32 * 1024];
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        log.write(&buffer[..length]);
    }
    log.end();
}

/// What the step's log says of a command that the kernel does not execute, in the words of container runtimes.
fn cannot_execute(exec: &Exec, errno: Errno) -> String {
    let program = exec.args.first().map_or("", String::as_str);
    match errno {
        Errno::NOENT if !program.contains('/') => format!("exec: {program:?}: executable file not found in $PATH"),
        Errno::NOENT => format!("exec: {program:?}: stat {program}: no such file or directory"),
        Errno::ACCESS => format!("exec: {program:?}: permission denied"),
        Errno::NOEXEC => format!("exec {program}: exec format error"),
        errno => format!("exec {program}: {errno}"),
    }
}

#[cfg(test)]
#[path = "exec_tests.rs"]
mod tests;
