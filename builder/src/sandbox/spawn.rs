//! The parent's side: clones children from one thread that lives as long as the program, waits for them, kills them.

use super::child::Failure;
use super::plan::{First, Plan};
use super::syscall::{self, Stack};
use super::{SandboxError, child};
use rustix::io::Errno;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal};
use std::fs;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, OnceLock, mpsc};
use tokio::io::unix::AsyncFd;
use tokio::sync::oneshot;

/// Why there is no running command.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// The sandbox is ready, but the kernel does not execute the command.
    Execute(Errno),
    /// No sandbox.
    Sandbox(SandboxError),
}

/// A running command: pid 1 of its pid namespace. Dropping it kills it.
pub(crate) struct Process {
    pidfd: AsyncFd<OwnedFd>,
    reaped: bool,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// With this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

impl Exit {
    /// As shells say it: 128 and the signal's number for an end by a signal.
    pub(crate) fn code(self) -> i32 {
        match self {
            Exit::Code(code) => code,
            Exit::Signal(signal) => 128 + signal,
        }
    }
}

/// Starts what the plan says, in `cgroup` if the kernel lets us. Must be called in a tokio runtime.
pub(crate) async fn spawn(plan: Plan, cgroup: Option<OwnedFd>) -> Result<Process, SpawnError> {
    let (answer, result) = oneshot::channel();
    let gone = || SpawnError::Sandbox(SandboxError::Clone { help: None, source: io::ErrorKind::BrokenPipe.into() });
    cloner().lock().map_err(|_| gone())?.send(Job { plan, cgroup, answer }).map_err(|_| gone())?;
    let pidfd = result.await.map_err(|_| gone())??.take().ok_or_else(gone)?;
    let pidfd =
        syscall::async_fd(pidfd).map_err(|source| SpawnError::Sandbox(SandboxError::Clone { help: None, source }))?;
    Ok(Process { pidfd, reaped: false })
}

impl Process {
    /// Waits for its end; all processes of its pid namespace have ended then, too.
    pub(crate) async fn wait(&mut self) -> Result<Exit, SandboxError> {
        let error = |source| SandboxError::Setup { operation: "wait for the command".into(), help: None, source };
        let _ready = self.pidfd.readable().await.map_err(error)?;
        let status = reap(self.pidfd.get_ref().as_fd()).map_err(|errno| error(errno.into()))?;
        self.reaped = true;
        Ok(status)
    }

    /// Ends it, and with it its pid namespace.
    pub(crate) fn kill(&self) {
        // Fails only if it has ended.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), Signal::KILL);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.reaped {
            self.kill();
            let _ = reap(self.pidfd.get_ref().as_fd());
        }
    }
}

fn reap(pidfd: BorrowedFd<'_>) -> Result<Exit, Errno> {
    let status = rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED))?;
    let status = status.ok_or(Errno::CHILD)?;
    Ok(match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, signal) => Exit::Signal(signal.unwrap_or(libc::SIGKILL)),
    })
}

struct Job {
    plan: Plan,
    cgroup: Option<OwnedFd>,
    answer: oneshot::Sender<Result<Started, SpawnError>>,
}

/// A child that nobody has taken yet. If its step is cancelled in that moment, it ends.
struct Started(Option<OwnedFd>);

impl Started {
    fn take(mut self) -> Option<OwnedFd> {
        self.0.take()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        if let Some(pidfd) = &self.0 {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
            let _ = reap(pidfd.as_fd());
        }
    }
}

/// The one thread that clones. A child is killed when the thread that made it ends (`PR_SET_PDEATHSIG`), so it has to
/// be one that ends with the program, not one of a pool.
fn cloner() -> &'static Mutex<mpsc::Sender<Job>> {
    static CLONER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    CLONER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        // If there is no thread to be had, `jobs` is dropped and each `send` says so.
        let _ = std::thread::Builder::new().name("sandbox".into()).spawn(move || {
            for job in jobs {
                let result = clone(&job.plan, job.cgroup.as_ref().map(|fd| fd.as_fd()));
                let result = result.map(|pidfd| Started(Some(pidfd)));
                let _ = job.answer.send(result);
            }
        });
        Mutex::new(sender)
    })
}

/// The first process of a step; beside it, what failed if the command does not run.
fn start(plan: &Plan, cgroup: Option<BorrowedFd<'_>>) -> Result<(OwnedFd, Option<Failure>), Errno> {
    match plan.first {
        First::Command => {
            let mut failure = None;
            let mut child = || {
                failure = Some(child::run(plan));
                127
            };
            let pidfd = syscall::clone_vm(plan.namespaces, cgroup, &mut Stack::new()?, &mut child)?;
            Ok((pidfd, failure))
        }
        First::Init => {
            let (report, answer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
            let pidfd = syscall::clone_copy(plan.namespaces, cgroup, &mut || child::run_init(plan, answer.as_fd()))?;
            drop(answer);
            let mut message = [0; child::REPORT_BYTES];
            // The end of the pipe without a message: the command runs.
            let failure = fs::File::from(report).read_exact(&mut message).is_ok();
            Ok((pidfd, failure.then(|| child::read_report(&message))))
        }
    }
}

fn clone(plan: &Plan, cgroup: Option<BorrowedFd<'_>>) -> Result<OwnedFd, SpawnError> {
    let cannot = |errno: Errno| {
        let help = match errno {
            Errno::PERM => Some("the program may not create namespaces: a seccomp filter or a sysctl forbids it"),
            Errno::NOSPC => Some("a limit in /proc/sys/user is reached, such as max_pid_namespaces"),
            Errno::NOSYS => Some("clone3 is missing or forbidden; Linux 5.7 or newer is needed"),
            _ => None,
        };
        SpawnError::Sandbox(SandboxError::Clone { help, source: errno.into() })
    };
    let mut result = start(plan, cgroup);
    if result.is_err() && cgroup.is_some() {
        // The cgroup may be one we can create but not enter; the step is worth more than its accounting.
        result = start(plan, None);
    }
    let (pidfd, failure) = result.map_err(cannot)?;
    let Some((position, errno)) = failure else { return Ok(pidfd) };
    let _ = reap(pidfd.as_fd());
    Err(match plan.operations.get(position) {
        None => SpawnError::Execute(errno),
        Some(operation) => SpawnError::Sandbox(SandboxError::Setup {
            operation: operation.describe(),
            help: operation.help(errno),
            source: errno.into(),
        }),
    })
}
