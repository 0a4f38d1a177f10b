//! RUN: the trees, mounts and secrets of an Exec op become a sandbox; what it wrote is in the upper folder afterwards.

use super::cache_mount::BegunAnew;
use super::exec_chroot;
use super::exec_log::{LogFile, StepLog};
use super::exec_setup::{Setup, Streams};
use super::exec_shell::OnFailure;
use super::redact::Redactor;
use super::user::User;
use crate::progress::{Stream, Vertex};
use crate::remote_cache::mounts::MountTravel;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::limits::Limits;
use crate::sandbox::spawn::{self, SpawnError};
use crate::sandbox::userns::Identity;
use crate::sandbox::{SandboxError, emulator};
use crate::secret::{SecretError, Secrets};
use crate::ssh::{SshAgents, SshError};
use frontend::op::{Exec, MountKind};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::io::AsyncReadExt;

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
    /// Where cache mounts come from and go to.
    pub travel: MountTravel,
    /// Given with `--no-cache`: cache mounts begin anew.
    pub anew: Option<Arc<BegunAnew>>,
    /// `--secret`.
    pub secrets: Arc<Secrets>,
    /// `--ssh`.
    pub ssh: Arc<SshAgents>,
    /// As what the program runs.
    pub identity: Identity,
    /// What separates the step from the machine.
    pub isolation: Isolation,
    /// Name of the step in the cgroup tree; unique on this machine.
    pub id: String,
    /// What its processes may use.
    pub limits: Limits,
    /// File for its complete output.
    pub log: PathBuf,
    /// What follows if the command fails.
    pub on_failure: OnFailure,
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
#[derive(Debug, Default)]
pub struct ExecOutcome {
    /// User and system time of the step's processes, in microseconds; `None` where there is no cgroup to count it.
    pub cpu_time_us: Option<u64>,
    /// Highest memory use, in bytes; `None` likewise.
    pub memory_peak_bytes: Option<u64>,
    /// Whose the step's new files are, if not on the disk.
    pub owner: Option<(u32, u32)>,
    /// The mount of the step's root, if there was one, which nobody uses any more. To drop it takes time for each file that
    /// the step has seen there.
    pub root: Option<OwnedFd>,
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
        /// A program crashed in the emulator for a foreign platform.
        crashed_emulated: bool,
        /// Why there is but one id, and what to do about it.
        one_id: Option<String>,
    },
    /// A step that this isolation cannot run.
    #[error("{what} is not to be had with --isolation=chroot")]
    Isolation {
        /// Such as `--network=none`.
        what: String,
        /// What was refused, if chroot was not asked for.
        refused: Option<String>,
    },
    /// A folder that was lent to the step is not where it was.
    #[error("the step has moved {}, on which something is mounted", path.display())]
    MountMoved {
        /// The mount's target.
        path: PathBuf,
    },
    /// The trees that stand for mounts.
    #[error(transparent)]
    Tree(#[from] cache::FileError),
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
        match self {
            ExecError::Exit { code, out_of_memory, crashed_emulated, one_id, .. } => {
                let mut help = ExecError::exit_help(*code, *out_of_memory, *crashed_emulated);
                help.extend(one_id.as_ref().map(|advice| {
                    format!(
                        "if it failed to change an owner or user (chown, setgroups, setuid: Invalid argument, Operation \
                         not permitted): there is one id for all users here: {advice}; package managers may be told to \
                         stay root (apt-get -o APT::Sandbox::User=root)"
                    )
                }));
                help
            }
            ExecError::Isolation { refused, .. } => {
                let why = refused.as_ref().map(|why| format!("namespaces were refused: {why}"));
                let what = "run kiln where it may create namespaces and mounts, or leave out what needs them";
                why.into_iter().chain([what.to_string()]).collect()
            }
            ExecError::Secret(SecretError::NotFound { id }) => {
                vec![format!("give it with --secret id={id},src=FILE or --secret id={id},env=VARIABLE")]
            }
            ExecError::Ssh(SshError::NotFound(id)) => vec![ssh_help(id)],
            _ => vec![],
        }
    }

    fn exit_help(code: i32, out_of_memory: bool, crashed_emulated: bool) -> Vec<String> {
        let advice = match code {
            _ if crashed_emulated => {
                "a program crashed while qemu emulated the platform, which is often a fault of qemu: try a newer \
                 qemu-user-static (KILN_QEMU_DIR names its folder), or cross-compile in a stage with \
                 `FROM --platform=$BUILDPLATFORM`"
            }
            137 if out_of_memory => {
                "a process needed more memory than there is: run fewer things at once, or give more"
            }
            // 128 and the number of the signal (signal(7)).
            137 => {
                "a process was killed (SIGKILL): often for want of memory, by the kernel or by what limits this machine"
            }
            139 => "a process crashed (SIGSEGV)",
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

fn ssh_help(id: &str) -> String {
    let flag = if id.is_empty() { "--ssh default".to_string() } else { format!("--ssh {id}=SOCKET") };
    format!("forward an agent with {flag}; `ssh-add -l` shows what keys the agent of SSH_AUTH_SOCK has")
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
    let mut left = None;
    let result = tokio::select! {
        biased;
        () = cancel => Err(ExecError::Canceled),
        result = run_to_end(exec, &input, vertex, &mut left) => result,
    };
    if let (Err(ExecError::Exit { code, .. }), Some(left), OnFailure::Shell(shell)) = (&result, left, &input.on_failure)
    {
        shell.open(exec, &input, left, *code, vertex).await;
    }
    result
}

/// As [`run`]; when dropped, the process is killed. `left` is what the command left, also if it failed.
async fn run_to_end(
    exec: &Exec,
    input: &ExecInput,
    vertex: &Vertex,
    left: &mut Option<Setup>,
) -> Result<ExecOutcome, ExecError> {
    if let Isolation::Chroot { refused } = &input.isolation {
        return exec_chroot::run(exec, input, refused.as_deref(), vertex).await;
    }
    say_one_id(&input.identity, vertex);
    let setup = left.insert(Setup::new(exec, input, vertex).await?);
    let (stdin, stdout, stderr) = streams()?;
    let root = setup.another_root()?;
    let plan = setup.plan(exec, input, Streams::Files([stdin, stdout.1, stderr.1]))?;
    let started = spawn::spawn(plan, setup.cgroup.open()).await;
    let mut process = match started {
        Ok(process) => process,
        Err(SpawnError::Sandbox(error)) => return Err(error.into()),
        Err(SpawnError::Execute(errno)) => {
            vertex.log(Stream::Stderr, format!("{}\n", cannot_execute(exec, errno)).as_bytes());
            return Err(failed(exec, input, 1, false, false));
        }
    };
    let mut logs = logs(exec, input, vertex)?;
    let [out_log, err_log] = &mut logs;
    // All that could write there is in the pid namespace, so the pipes end when the process does.
    let (exit, (), crashed) = tokio::join!(
        process.wait(),
        async {
            let _ = follow(stdout.0, out_log).await;
        },
        follow(stderr.0, err_log),
    );
    let code = exit?.code();
    let usage = setup.cgroup.usage();
    if code != 0 {
        logs.iter_mut().for_each(StepLog::failed);
        let crashed_emulated = crashed_emulated(exec, crashed, code);
        return Err(failed(exec, input, code, usage.out_of_memory, crashed_emulated));
    }
    let (cpu_time_us, memory_peak_bytes) = (usage.cpu_time_us, usage.memory_peak_bytes);
    Ok(ExecOutcome { cpu_time_us, memory_peak_bytes, owner: setup.owner, root })
}

/// Whether a program crashed in the emulator; `said` is whether the output says so. The exit code alone does not tell:
/// often it is that of a program that waited for the one that crashed.
pub(super) fn crashed_emulated(exec: &Exec, said: bool, code: i32) -> bool {
    emulator::is_foreign(&exec.platform) && (said || code == 139)
}

pub(super) fn failed(
    exec: &Exec,
    input: &ExecInput,
    code: i32,
    out_of_memory: bool,
    crashed_emulated: bool,
) -> ExecError {
    let one_id = match &input.identity {
        Identity::SingleId { advice } => Some(advice.clone()),
        Identity::Root | Identity::Mapped => None,
    };
    ExecError::Exit { command: exec.args.join(" "), code, out_of_memory, crashed_emulated, one_id }
}

/// Says once a build that there is but one id.
pub(super) fn say_one_id(identity: &Identity, vertex: &Vertex) {
    if let Identity::SingleId { advice } = identity {
        vertex.warn_once(format!(
            "there is one id for all users in RUN, so commands that change owners or users fail: {advice}. Owners that \
             COPY, ADD and base images give are kept in the image"
        ));
    }
}

/// As whom a step runs where there is one id: as root. What it makes is its user's all the same.
pub(super) fn as_only_user(user: User, input: &ExecInput, vertex: &Vertex) -> (User, Option<(u32, u32)>) {
    if !matches!(input.identity, Identity::SingleId { .. }) || (user.uid, user.gid) == (0, 0) {
        return (user, None);
    }
    vertex.warn_once(format!(
        "user {}:{} is not to be had here, so RUN works as root; files that it makes are given to {}:{} in the image",
        user.uid, user.gid, user.uid, user.gid
    ));
    let owner = (user.uid, user.gid);
    (User { uid: 0, gid: 0, groups: vec![0], home: user.home }, Some(owner))
}

/// Where output and error go.
pub(super) fn logs(exec: &Exec, input: &ExecInput, vertex: &Vertex) -> Result<[StepLog; 2], SecretError> {
    let secrets = secret_values(exec, &input.secrets)?;
    let file = LogFile::new(input.log.clone());
    Ok([Stream::Stdout, Stream::Stderr].map(|stream| {
        let redactor = Redactor::new(secrets.iter().map(Vec::as_slice));
        StepLog::new(vertex.clone(), stream, redactor, file.clone())
    }))
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

/// Input, and pipes for output and error: our end, then the command's.
pub(super) type Pipes = (OwnedFd, (OwnedFd, OwnedFd), (OwnedFd, OwnedFd));

pub(super) fn streams() -> Result<Pipes, SandboxError> {
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

/// Passes on what comes out of a pipe until it ends. Whether qemu said in it that the program that it ran has crashed.
pub(super) async fn follow(pipe: OwnedFd, log: &mut StepLog) -> bool {
    // A pipe that cannot be read loses output, not the step.
    let Ok(mut pipe) = tokio::net::unix::pipe::Receiver::from_owned_fd(pipe) else { return false };
    let mut buffer = vec![0; 32 * 1024];
    let mut crashed = false;
    while let Ok(length @ 1..) = pipe.read(&mut buffer).await {
        let data = &buffer[..length];
        // One write of qemu's, so it comes in one piece.
        let mut lines = data.split(|byte| *byte == b'\n');
        crashed |= lines.any(|line| line.starts_with(b"qemu: uncaught target signal"));
        log.write(data);
    }
    log.end();
    crashed
}

/// What the step's log says of a command that the kernel does not execute, in the words of container runtimes.
pub(super) fn cannot_execute(exec: &Exec, errno: Errno) -> String {
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
