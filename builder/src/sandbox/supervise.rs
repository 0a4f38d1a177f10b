//! Runs a process in a folder, without namespaces: a copy of the program, `kiln sandbox-init`, is its parent and ends
//! all that it leaves behind, as a pid namespace would. It has one thread, so ordinary code may follow a fork.
//!
//! The program and the supervisor talk through the supervisor's standard input, a socket: a `Request` in, an
//! `Answer` out. If the program ends, or wants the step to end, the supervisor gets SIGTERM.

use super::child;
use super::plan::{First, Operation, Plan, RESOURCES};
use super::spawn::Exit;
use super::{SandboxError, capability, seccomp, syscall};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Rlimit, Signal, WaitOptions};
use rustix::thread::{CapabilitySet, Gid, Uid};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::{Mutex, OnceLock, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;

/// The first argument that makes a program the supervisor.
pub const COMMAND: &str = "sandbox-init";

const SIGNALS: u64 = 1 << (libc::SIGCHLD - 1) | 1 << (libc::SIGTERM - 1);
const OTHER_SIGNALS: u64 = 1 << (libc::SIGINT - 1) | 1 << (libc::SIGHUP - 1) | 1 << (libc::SIGQUIT - 1);

/// What to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub root: PathBuf,
    /// In the root; it exists.
    pub cwd: PathBuf,
    /// Files to try, in the root.
    pub programs: Vec<PathBuf>,
    pub args: Vec<String>,
    pub env: Vec<String>,
    pub uid: u32,
    pub gid: u32,
    /// `None` where the kernel forbids to set these.
    pub groups: Option<Vec<u32>>,
    /// Lists of processes of the cgroups to enter, if they can be entered.
    pub cgroups: Vec<PathBuf>,
    /// Number of the resource, soft and hard limit.
    pub limits: Vec<(u32, Option<u64>, Option<u64>)>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It ended: with a code, or by a signal.
    Exit { code: Option<i32>, signal: Option<i32> },
    /// The kernel did not execute the command.
    Execute(i32),
    /// Something failed before.
    Setup { operation: String, help: Option<String>, errno: i32 },
}

impl Answer {
    pub(crate) fn exit(code: Option<i32>, signal: Option<i32>) -> Exit {
        code.map_or(Exit::Signal(signal.unwrap_or(libc::SIGKILL)), Exit::Code)
    }
}

/// A supervised process. Dropping it ends it with all its descendants, and waits for that.
pub(crate) struct Supervised {
    child: Option<Child>,
    control: UnixStream,
}

/// Starts it with these streams for output and error. Must be called in a tokio runtime.
pub(crate) async fn start(request: Request, stdout: OwnedFd, stderr: OwnedFd) -> Result<Supervised, SandboxError> {
    let error = |source| SandboxError::Setup { operation: "start the step's supervisor".into(), help: None, source };
    let (ours, theirs) = UnixStream::pair().map_err(error)?;
    let (answer, result) = oneshot::channel();
    let gone = || error(io::ErrorKind::BrokenPipe.into());
    let job: Job = Box::new(move || {
        let program = std::env::current_exe();
        let spawned = program.and_then(|program| {
            Command::new(program)
                .arg(COMMAND)
                .arg(std::process::id().to_string())
                .env_clear()
                .stdin(OwnedFd::from(theirs))
                .stdout(stdout)
                .stderr(stderr)
                .spawn()
        });
        let _ = answer.send(spawned);
    });
    starter().lock().map_err(|_| gone())?.send(job).map_err(|_| gone())?;
    let child = result.await.map_err(|_| gone())?.map_err(error)?;
    let mut supervised = Supervised { child: Some(child), control: ours };
    let request = serde_json::to_vec(&request).map_err(|source| error(source.into()))?;
    supervised.control.write_all(&request).map_err(error)?;
    supervised.control.shutdown(Shutdown::Write).map_err(error)?;
    Ok(supervised)
}

impl Supervised {
    /// Waits until it and all its descendants have ended.
    pub(crate) async fn wait(&mut self) -> Result<Answer, SandboxError> {
        let error = |source| SandboxError::Setup { operation: "wait for the command".into(), help: None, source };
        let control = self.control.try_clone().map_err(error)?;
        control.set_nonblocking(true).map_err(error)?;
        let mut control = tokio::net::UnixStream::from_std(control).map_err(error)?;
        let mut answer = vec![];
        tokio::io::AsyncReadExt::read_to_end(&mut control, &mut answer).await.map_err(error)?;
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        serde_json::from_slice(&answer).map_err(|source| error(io::Error::other(source)))
    }
}

impl Drop for Supervised {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            if let Ok(id) = i32::try_from(child.id())
                && let Some(id) = Pid::from_raw(id)
            {
                let _ = rustix::process::kill_process(id, Signal::TERM);
            }
            let _ = child.wait();
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The one thread that starts supervisors: they are told when the thread that started them ends, so it has to be one
/// that ends with the program.
fn starter() -> &'static Mutex<mpsc::Sender<Job>> {
    static STARTER: OnceLock<Mutex<mpsc::Sender<Job>>> = OnceLock::new();
    STARTER.get_or_init(|| {
        let (sender, jobs) = mpsc::channel::<Job>();
        let _ = std::thread::Builder::new().name("supervisors".into()).spawn(move || jobs.iter().for_each(|job| job()));
        Mutex::new(sender)
    })
}

/// The supervisor. `parent` is the id of the program that started it.
pub fn main(parent: Option<&str>) -> u8 {
    // Nothing runs yet, so whatever fails here may simply end it.
    let Ok(()) = syscall::block_signals(SIGNALS | OTHER_SIGNALS) else { return 1 };
    let Ok(()) = syscall::signal_at_parents_end(libc::SIGTERM) else { return 1 };
    let is_parent = |pid: Pid| parent.and_then(|id| id.parse().ok()) == Some(pid.as_raw_nonzero().get());
    if !rustix::process::getppid().is_some_and(is_parent) {
        return 1;
    }
    // Away from the terminal's process group: Ctrl-C is for the program, which says what is to end.
    let _ = rustix::process::setsid();
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let Ok(control) = std::io::stdin().as_fd().try_clone_to_owned() else { return 1 };
    let mut control = UnixStream::from(control);
    let mut request = vec![];
    if control.read_to_end(&mut request).is_err() {
        return 1;
    }
    let Ok(request) = serde_json::from_slice::<Request>(&request) else { return 1 };
    // What is below it is in them, too. The step is worth more than its accounting.
    for list in &request.cgroups {
        let _ = std::fs::write(list, "0");
    }
    let answer = supervise(&request);
    end_descendants();
    let answer = serde_json::to_vec(&answer).unwrap_or_default();
    u8::from(control.write_all(&answer).is_err())
}

fn supervise(request: &Request) -> Answer {
    let failed = |operation: &str, errno: Errno| Answer::Setup {
        operation: operation.into(),
        help: None,
        errno: errno.raw_os_error(),
    };
    let plan = match plan(request) {
        Ok(plan) => plan,
        Err(errno) => return failed("prepare the step", errno),
    };
    let (failure_in, failure_out) = match rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC) {
        Ok(pipe) => pipe,
        Err(errno) => return failed("create a pipe", errno),
    };
    let mut out = Some(File::from(failure_out));
    let child = syscall::fork(|| {
        let (position, errno) = child::run(&plan);
        if let Some(out) = &mut out {
            let _ = out.write_all(format!("{position} {}", errno.raw_os_error()).as_bytes());
        }
        127
    });
    drop(out.take());
    let child = match child {
        Ok(child) => child,
        Err(errno) => return failed("start a process", errno),
    };
    // Ends when the command is executed, or could not be.
    let failure = io::read_to_string(File::from(failure_in)).unwrap_or_default();
    let mut numbers = failure.split(' ').filter_map(|word| word.parse::<i32>().ok());
    if let (Some(position), Some(errno)) = (numbers.next(), numbers.next()) {
        return match plan.operations.get(position as usize) {
            None => Answer::Execute(errno),
            Some(operation) => {
                let help = operation.help(Errno::from_raw_os_error(errno)).map(str::to_string);
                Answer::Setup { operation: operation.describe(), help, errno }
            }
        };
    }
    loop {
        while let Ok(Some((id, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            if id == child {
                return Answer::Exit { code: status.exit_status(), signal: status.terminating_signal() };
            }
        }
        match syscall::wait_signal(SIGNALS, Duration::from_secs(1)) {
            Ok(Some(libc::SIGTERM)) | Err(_) => return Answer::Exit { code: None, signal: Some(libc::SIGTERM) },
            Ok(_) => {}
        }
    }
}

fn plan(request: &Request) -> Result<Plan, Errno> {
    let open = |path: &std::path::Path, flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let root = open(&request.root, OFlags::PATH | OFlags::DIRECTORY)?;
    let null = open(std::path::Path::new("/dev/null"), OFlags::RDONLY)?;
    let [stdout, stderr] = [std::io::stdout().as_fd(), std::io::stderr().as_fd()].map(|fd| fd.try_clone_to_owned());
    let stream = |fd: io::Result<OwnedFd>| fd.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO));
    let fds = vec![root, null, stream(stdout)?, stream(stderr)?];
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| Errno::INVAL);
    let mut operations =
        vec![Operation::Session, Operation::Chroot(0), Operation::Folder(text(request.cwd.as_os_str().as_bytes())?)];
    for (number, soft, hard) in &request.limits {
        let (_, resource) = RESOURCES.iter().find(|(_, known)| *known as u32 == *number).ok_or(Errno::INVAL)?;
        operations.push(Operation::Limit(*resource, Rlimit { current: *soft, maximum: *hard }));
    }
    operations.extend([Operation::Umask(0o022), Operation::Streams([1, 2, 3])]);
    let own = rustix::thread::capabilities(None)?;
    let keep = capability::DEFAULT & own.permitted.bits();
    if own.effective.contains(CapabilitySet::SETPCAP) {
        operations.push(Operation::Bounding(capability::DEFAULT));
    }
    // Without this right only a program that gives up set-user-id programs may load a filter; and a container has its own.
    if own.effective.contains(CapabilitySet::SYS_ADMIN) {
        operations.extend(seccomp::filter().map(Operation::Seccomp));
    }
    let groups = request.groups.as_ref().map(|groups| groups.iter().map(|gid| Gid::from_raw(*gid)).collect());
    let (uid, gid) = (Uid::from_raw(request.uid), Gid::from_raw(request.gid));
    operations.push(Operation::Ids { uid, gid, groups });
    if request.uid == 0 {
        operations.push(Operation::Capabilities(keep));
    }
    let strings = |list: &[String]| list.iter().map(|string| text(string.as_bytes())).collect::<Result<Vec<_>, _>>();
    let programs = request.programs.iter().map(|path| text(path.as_os_str().as_bytes())).collect::<Result<_, _>>()?;
    let command = syscall::Command::new(programs, strings(&request.args)?, strings(&request.env)?);
    Ok(Plan { namespaces: 0, operations, fds, command, first: First::Command })
}

/// Kills all that is left below this process, until there is nothing: orphans come to it, since it is their reaper.
fn end_descendants() {
    loop {
        for id in descendants(rustix::process::getpid().as_raw_nonzero().get(), &parents()) {
            if let Some(id) = Pid::from_raw(id) {
                let _ = rustix::process::kill_process(id, Signal::KILL);
            }
        }
        loop {
            match rustix::process::wait(WaitOptions::NOHANG) {
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(_) => return,
            }
        }
        let _ = syscall::wait_signal(1 << (libc::SIGCHLD - 1), Duration::from_millis(20));
    }
}

/// Process -> its parent, of all that are in sight.
fn parents() -> HashMap<i32, i32> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let ids = entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    ids.filter_map(|id| Some((id, parent_of(&std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?)?))).collect()
}

/// From `/proc/<id>/stat`, in which the name may have blanks and parentheses (proc_pid_stat(5)).
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

fn descendants(of: i32, parents: &HashMap<i32, i32>) -> Vec<i32> {
    let is_below = |mut id: i32| {
        for _ in 0..parents.len() {
            match parents.get(&id) {
                Some(parent) if *parent == of => return true,
                Some(parent) => id = *parent,
                None => return false,
            }
        }
        false
    };
    parents.keys().copied().filter(|id| is_below(*id)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families() {
        assert_eq!(parent_of("12 (a) b) S 7 12 12 0"), Some(7));
        let parents = HashMap::from([(1, 0), (5, 1), (7, 5), (9, 7), (8, 1), (4, 3), (3, 4)]);
        let mut found = descendants(5, &parents);
        found.sort_unstable();
        assert_eq!(found, [7, 9]);
    }
}
