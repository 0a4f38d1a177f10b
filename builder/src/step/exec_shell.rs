//! Processes that a person looks through: a shell in the state that a failed command left (`--on-failure=shell`), and
//! a shell or command on a finished stage (`kiln debug shell`). The sandbox is that of steps; only the streams differ.

use super::exec::{ExecError, ExecInput};
use super::exec_setup::{Setup, Streams};
use crate::progress::{Vertex, chain};
use crate::sandbox::spawn::{self, Exit, Process, SpawnError};
use crate::terminal::{Loan, Pty};
use frontend::op::Exec;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Shells by their paths, best first.
const SHELLS: [&str; 5] = ["/bin/bash", "/usr/bin/bash", "/bin/sh", "/bin/ash", "/busybox/sh"];
/// Names of programs that are shells for people, too.
const SHELL_NAMES: [&str; 9] = ["ash", "bash", "dash", "fish", "ksh", "mksh", "sh", "yash", "zsh"];

/// What follows if a command fails.
#[derive(Clone, Debug, Default)]
pub enum OnFailure {
    /// The build.
    #[default]
    Abort,
    /// A shell, and then the build.
    Shell(Arc<FailureShell>),
}

impl OnFailure {
    /// Whether it is a shell.
    pub fn opens_shell(&self) -> bool {
        matches!(self, OnFailure::Shell(_))
    }
}

/// The shell of a build: it opens once, for the command that fails first.
#[derive(Debug, Default)]
pub struct FailureShell {
    /// As asked for; looked up in the step's `PATH`.
    program: Option<String>,
    opened: AtomicBool,
}

/// Why nobody could look into a step.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// The image has none.
    #[error("the image has no shell: none of {tried} is there")]
    NoShell {
        /// Paths, joined by commas.
        tried: String,
    },
    /// The kernel does not execute it.
    #[error("execute {program}")]
    Execute {
        /// As given.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The user's terminal, or the pty.
    #[error("{verb}")]
    Terminal {
        /// What was tried.
        verb: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The sandbox.
    #[error(transparent)]
    Exec(#[from] ExecError),
}

impl FailureShell {
    /// That program, or the best that the image has.
    pub fn new(program: Option<String>) -> FailureShell {
        FailureShell { program, opened: AtomicBool::new(false) }
    }

    /// Lets the user look at what a command left that ended with `code`; returns when the shell ends.
    ///
    /// What else the build does meanwhile goes on, unseen. A failure of another step does not end the shell; a signal to
    /// the program does.
    pub(super) async fn open(&self, exec: &Exec, input: &ExecInput, left: Setup, code: i32, vertex: &Vertex) {
        if self.opened.swap(true, Ordering::Relaxed) {
            return;
        }
        let _held = vertex.hold().await;
        eprint!("{}", introduction(vertex.name(), code, exec));
        match self.run(exec, input, left).await {
            Ok(_) => eprintln!("kiln: the shell has ended, and so does the build"),
            Err(error) => eprintln!("kiln: no shell: {}", chain(&error)),
        }
    }

    async fn run(&self, exec: &Exec, input: &ExecInput, left: Setup) -> Result<Exit, ShellError> {
        let mut setup = left.again(exec, input).await?;
        let program = match &self.program {
            Some(program) => program.clone(),
            None => find_shell(exec, &setup)?,
        };
        setup.env.push(format!("KILN_COMMAND={}", quoted(&exec.args)));
        in_terminal(&Exec { args: vec![program], ..exec.clone() }, input, &mut setup).await
    }
}

/// What a person needs to know.
fn introduction(step: &str, code: i32, exec: &Exec) -> String {
    let user = if exec.user.is_empty() { "root" } else { &exec.user };
    format!(
        "\nkiln: {step}\n\
         kiln: failed with exit code {code}. Here is a shell in what it left: its files, mounts, environment, limits and\n\
         kiln: network, as user {user}, in {cwd}.\n\
         kiln: run the command again:  eval \"$KILN_COMMAND\"\n\
         kiln: end the build, which has failed:  exit\n\n",
        cwd = exec.cwd
    )
}

/// Runs `exec` on a tree, with the user's terminal or with the program's own streams; a shell, if it has no command.
/// Gives its exit code. `ready` is called before it starts.
pub async fn attached(
    exec: &Exec,
    input: &ExecInput,
    vertex: &Vertex,
    to: Attached,
    ready: impl FnOnce(),
) -> Result<i32, ShellError> {
    let mut setup = Setup::new(exec, input, vertex).await?;
    ready();
    let mut exec = exec.clone();
    if exec.args.is_empty() {
        exec.args = vec![find_shell(&exec, &setup)?];
    }
    let exit = match to {
        Attached::Terminal => in_terminal(&exec, input, &mut setup).await?,
        Attached::Streams => with_streams(&exec, input, &mut setup).await?,
    };
    Ok(exit.code())
}

/// What a process is connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The user's terminal.
    Terminal,
    /// The program's standard streams.
    Streams,
}

async fn in_terminal(exec: &Exec, input: &ExecInput, setup: &mut Setup) -> Result<Exit, ShellError> {
    let cannot = |verb| move |source| ShellError::Terminal { verb, source };
    let pty = Pty::open().map_err(cannot("make a terminal"))?;
    // As login(1) does; where it is not allowed, the user has the terminal by its open descriptors.
    let _ = rustix::fs::fchown(&pty.slave, Some(rustix::fs::Uid::from_raw(setup.user.uid)), None);
    if let Some(term) = std::env::var("TERM").ok().filter(|_| !setup.env.iter().any(|entry| entry.starts_with("TERM=")))
    {
        setup.env.push(format!("TERM={term}"));
    }
    let signals = Signals::new().map_err(cannot("listen to signals"))?;
    let plan = setup.plan(exec, input, Streams::Terminal(&pty))?;
    let process = start(exec, plan, setup).await?;
    let Pty { master, slave, .. } = pty;
    // The last one but those of the process, so that its end is seen.
    drop(slave);
    let _loan = Loan::new(master).map_err(cannot("take the terminal"))?;
    wait(process, signals).await
}

async fn with_streams(exec: &Exec, input: &ExecInput, setup: &mut Setup) -> Result<Exit, ShellError> {
    let cannot = |source| ShellError::Terminal { verb: "pass on the standard streams", source };
    let copy =
        |fd: std::os::fd::BorrowedFd<'_>| -> Result<OwnedFd, ShellError> { fd.try_clone_to_owned().map_err(cannot) };
    let streams = [copy(io::stdin().as_fd())?, copy(io::stdout().as_fd())?, copy(io::stderr().as_fd())?];
    let signals = Signals::new().map_err(cannot)?;
    let plan = setup.plan(exec, input, Streams::Files(streams))?;
    let process = start(exec, plan, setup).await?;
    wait(process, signals).await
}

async fn start(exec: &Exec, plan: crate::sandbox::plan::Plan, setup: &Setup) -> Result<Process, ShellError> {
    spawn::spawn(plan, setup.cgroup.open()).await.map_err(|error| match error {
        SpawnError::Sandbox(error) => ShellError::Exec(error.into()),
        SpawnError::Execute(errno) => {
            ShellError::Execute { program: exec.args.first().cloned().unwrap_or_default(), source: errno.into() }
        }
    })
}

/// Waits for the end; a signal that would end the program ends the process.
async fn wait(mut process: Process, mut signals: Signals) -> Result<Exit, ShellError> {
    tokio::select! {
        exit = process.wait() => return Ok(exit.map_err(ExecError::from)?),
        () = signals.next() => process.kill(),
    }
    Ok(process.wait().await.map_err(ExecError::from)?)
}

struct Signals([Signal; 3]);

impl Signals {
    fn new() -> io::Result<Signals> {
        Ok(Signals([signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?, signal(SignalKind::hangup())?]))
    }

    async fn next(&mut self) {
        let [terminate, interrupt, hangup] = &mut self.0;
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The step's own shell, if it is one for people and not the default; else the best that the root has.
fn find_shell(exec: &Exec, setup: &Setup) -> Result<String, ShellError> {
    let candidates = candidates(&exec.args);
    candidates
        .iter()
        .find(|path| setup.has_file(path))
        .map(|path| path.to_string())
        .ok_or_else(|| ShellError::NoShell { tried: candidates.join(", ") })
}

fn candidates(args: &[String]) -> Vec<&str> {
    let own = args.first().map(String::as_str).filter(|program| {
        let name = Path::new(program).file_name().and_then(|name| name.to_str());
        program.starts_with('/') && *program != "/bin/sh" && name.is_some_and(|name| SHELL_NAMES.contains(&name))
    });
    let mut candidates: Vec<&str> = own.into_iter().collect();
    candidates.extend(SHELLS.iter().filter(|path| Some(**path) != own));
    candidates
}

/// Words as a POSIX shell reads them back.
fn quoted(args: &[String]) -> String {
    let is_plain = |word: &str| {
        !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-./=:,@%+".contains(&byte))
    };
    let words: Vec<String> = args
        .iter()
        .map(|word| if is_plain(word) { word.clone() } else { format!("'{}'", word.replace('\'', r"'\''")) })
        .collect();
    words.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(args: &[&str]) -> Vec<String> {
        args.iter().map(|word| word.to_string()).collect()
    }

    #[test]
    fn shells() {
        let first = |args: &[&str]| candidates(&list(args))[0].to_string();
        assert_eq!(first(&["/bin/sh", "-c", "x"]), "/bin/bash");
        assert_eq!(first(&["/bin/zsh", "-ec", "x"]), "/bin/zsh");
        assert_eq!(first(&["/usr/bin/python3", "-c", "x"]), "/bin/bash");
        assert_eq!(first(&["zsh"]), "/bin/bash");
        assert_eq!(first(&[]), "/bin/bash");
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted(&list(&["/bin/sh", "-c", "echo 'a' $B"])), r"/bin/sh -c 'echo '\''a'\'' $B'");
        assert_eq!(quoted(&list(&["x", ""])), "x ''");
    }
}
