//! Runs the program git, of which nothing but its documented behaviour is used (as BuildKit does).
//!
//! Invariant: nothing of this machine decides what git does: no system, user or surrounding repository's configuration,
//! no hooks, no helpers, no prompts. Secrets are passed in the environment, where other users cannot see them, and
//! never on the command line.

use super::error::GitError;
use super::remote::Authorization;
use crate::cancel::Cancel;
use crate::progress::{Stream, Vertex};
use crate::registry::retry::RetryPolicy;
use crate::ssh::AgentProxy;
use cache::error::FileError;
use rustix::process::{Pid, Signal, kill_process_group};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

/// How often the remote is asked, the first time included.
const ATTEMPTS: u32 = 3;
/// How long a git that is asked to stop may take to remove its temporary files.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// What is kept of standard error, in bytes, from its end.
const STDERR_LIMIT: usize = 16 << 10;
/// What is taken of standard output, in bytes: refs of a remote, a commit.
const STDOUT_LIMIT: u64 = 16 << 20;
/// Variables of kiln's environment that git gets too.
const PASSED_ON: [&str; 14] = [
    "PATH",
    "TMPDIR",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "all_proxy",
    "GIT_SSL_CAINFO",
    "GIT_SSL_CAPATH",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
];
/// Transports that remotes may use: not the file system, not helpers that run commands.
const TRANSPORTS: &str = "http:https:ssh:git";

/// All of git's configuration (git-config(1)).
const CONFIG: &str = "\
[safe]
	directory = *
[core]
	hooksPath = /dev/null
	fsmonitor = false
	symlinks = true
	autocrlf = false
	logAllRefUpdates = false
	attributesFile = /dev/null
	excludesFile = /dev/null
[init]
	defaultBranch = master
[credential]
	helper =
[fetch]
	unpackLimit = 1
	recurseSubmodules = false
[gc]
	auto = 0
[maintenance]
	auto = false
[pack]
	threads = 1
[uploadpack]
	allowAnySHA1InWant = true
[http]
	lowSpeedLimit = 1
	lowSpeedTime = 60
[advice]
	detachedHead = false
";

/// The program, set up for one remote.
pub(super) struct Git {
    environment: Vec<(OsString, OsString)>,
    home: TempDir,
    cancel: Cancel,
    /// For messages; without passwords.
    remote: String,
    authorization: Option<Authorization>,
    _agent: Option<Agent>,
}

/// The client's ssh agent, as git may use it.
pub(super) struct Agent {
    pub socket: PathBuf,
    pub _proxy: AgentProxy,
    /// Where the socket is.
    pub _folder: TempDir,
}

/// One call of it.
#[derive(Default)]
pub(super) struct Call<'a> {
    /// Further variables, such as `GIT_DIR`.
    pub environment: Vec<(&'static str, OsString)>,
    /// A file that is open as long as git runs.
    pub held: Option<File>,
    /// Where what git says is shown while it runs.
    pub log: Option<&'a Vertex>,
}

impl Git {
    /// `remote` is how messages call it. Without `agent`, ssh has no keys.
    pub fn new(
        remote: String,
        authorization: Option<Authorization>,
        agent: Option<Agent>,
        cancel: Cancel,
    ) -> Result<Git, GitError> {
        let temporary = std::env::temp_dir();
        // Absolute and without links, as GIT_CEILING_DIRECTORIES must be.
        let temporary = temporary.canonicalize().map_err(FileError::at("find", &temporary))?;
        let made = tempfile::Builder::new().prefix("kiln-git-").tempdir_in(&temporary);
        let home = made.map_err(FileError::at("make a folder in", &temporary))?;
        let path = |name: &str| home.path().join(name);
        let write = |name: &str, text: &str| fs::write(path(name), text).map_err(FileError::at("write", path(name)));
        write("gitconfig", CONFIG)?;
        write("ssh_config", &ssh_config(home.path(), std::env::var_os("HOME").as_deref()))?;

        let mut environment: Vec<(OsString, OsString)> = vec![];
        let mut set = |name: &str, value: &OsStr| environment.push((name.into(), value.into()));
        for name in PASSED_ON {
            if let Some(value) = std::env::var_os(name) {
                set(name, &value);
            }
        }
        // The name that the rest of kiln knows it by.
        if let (None, Some(roots)) = (std::env::var_os("GIT_SSL_CAINFO"), std::env::var_os("SSL_CERT_FILE")) {
            set("GIT_SSL_CAINFO", &roots);
        }
        for (name, value) in [
            ("LC_ALL", "C"),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_SYSTEM", "/dev/null"),
            ("GIT_ATTR_NOSYSTEM", "1"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_NO_REPLACE_OBJECTS", "1"),
            ("GIT_ALLOW_PROTOCOL", TRANSPORTS),
        ] {
            set(name, value.as_ref());
        }
        set("HOME", home.path().as_ref());
        set("XDG_CONFIG_HOME", home.path().as_ref());
        set("GIT_CONFIG_GLOBAL", path("gitconfig").as_ref());
        // The folder it runs in is no repository, and those above it are not looked at.
        set("GIT_CEILING_DIRECTORIES", temporary.as_ref());
        set("GIT_SSH_COMMAND", format!("ssh -F '{}'", path("ssh_config").display()).as_ref());
        if let Some(agent) = &agent {
            set("SSH_AUTH_SOCK", agent.socket.as_ref());
        }
        if let Some(authorization) = &authorization {
            set("GIT_CONFIG_COUNT", "1".as_ref());
            set("GIT_CONFIG_KEY_0", format!("http.{}.extraheader", authorization.scope).as_ref());
            set("GIT_CONFIG_VALUE_0", format!("Authorization: {}", authorization.header).as_ref());
        }
        Ok(Git { environment, home, cancel, remote, authorization, _agent: agent })
    }

    /// Returns when the build is stopped.
    pub async fn canceled(&self) {
        self.cancel.canceled().await;
    }

    /// Runs it to its end; gives standard output. `verb` is for the message if it fails.
    pub async fn run(&self, verb: &'static str, arguments: &[&str], call: Call<'_>) -> Result<Vec<u8>, GitError> {
        let read = async |stdout: ChildStdout| {
            let mut output = vec![];
            stdout.take(STDOUT_LIMIT).read_to_end(&mut output).await?;
            Ok(output)
        };
        self.start(verb, arguments, call, read).await
    }

    /// The same for what asks the remote: again after a while, if the network may be to blame.
    pub async fn run_with_patience<'a>(
        &self,
        verb: &'static str,
        arguments: &[&str],
        call: impl Fn() -> Call<'a>,
    ) -> Result<Vec<u8>, GitError> {
        let mut retries = RetryPolicy::default().at_most(ATTEMPTS).begin();
        loop {
            let error = match self.run(verb, arguments, call()).await {
                Err(error) if may_pass(&error) => error,
                result => return result,
            };
            let Some(wait) = retries.delay(None) else { return Err(error) };
            tracing::debug!(%error, ?wait, "git will be run again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.canceled() => return Err(GitError::Canceled),
            }
        }
    }

    /// Runs it and hands over each record of standard output, which zero bytes end.
    pub async fn records(
        &self,
        verb: &'static str,
        arguments: &[&str],
        call: Call<'_>,
        mut take: impl FnMut(&[u8]),
    ) -> Result<(), GitError> {
        let read = async move |stdout: ChildStdout| {
            let mut stdout = BufReader::new(stdout);
            let mut record = vec![];
            while stdout.read_until(0, &mut record).await? > 0 {
                take(record.strip_suffix(&[0]).unwrap_or(&record));
                record.clear();
            }
            Ok(())
        };
        self.start(verb, arguments, call, read).await
    }

    /// `read` takes standard output to its end.
    async fn start<T>(
        &self,
        verb: &'static str,
        arguments: &[&str],
        call: Call<'_>,
        read: impl AsyncFnOnce(ChildStdout) -> std::io::Result<T>,
    ) -> Result<T, GitError> {
        if self.cancel.is_canceled() {
            return Err(GitError::Canceled);
        }
        let stdin = call.held.map_or_else(Stdio::null, Stdio::from);
        let mut command = Command::new("git");
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value))).envs(call.environment);
        command.args(arguments).current_dir(self.home.path()).stdin(stdin);
        // A group of its own: it starts programs that must end with it, and a terminal's Ctrl-C is for kiln to handle.
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => GitError::NotInstalled { source },
            _ => GitError::Run { source },
        })?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(id as i32)));
        let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
            unreachable!("both are pipes")
        };
        let finished = async {
            let (read, said) = tokio::join!(read(stdout), self.listen(stderr, call.log));
            let status = child.wait().await.map_err(|source| GitError::Run { source })?;
            let read = read.map_err(|source| GitError::Run { source })?;
            Ok::<_, GitError>((read, status, said))
        };
        let (read, status, said) = tokio::select! {
            finished = finished => finished?,
            () = self.cancel.canceled() => {
                stop(child, &group).await;
                return Err(GitError::Canceled);
            }
        };
        group.ended();
        if status.success() {
            return Ok(read);
        }
        let stderr = if said.is_empty() { status.to_string() } else { said };
        Err(GitError::Failed { verb, remote: self.remote.clone(), stderr })
    }

    /// Reads standard error; gives its end.
    async fn listen(&self, stderr: ChildStderr, log: Option<&Vertex>) -> String {
        let mut lines = BufReader::new(stderr);
        let (mut line, mut said) = (vec![], String::new());
        while lines.read_until(b'\n', &mut line).await.is_ok_and(|length| length > 0) {
            let text = self.without_secret(&String::from_utf8_lossy(&line));
            if let Some(vertex) = log {
                vertex.log(Stream::Stderr, text.as_bytes());
            }
            said.push_str(&text);
            while said.len() > STDERR_LIMIT {
                let end = said.find('\n').map_or(said.len(), |end| end + 1);
                said.drain(..end);
            }
            line.clear();
        }
        said.trim().to_string()
    }

    /// git has no reason to repeat a header; a server may.
    fn without_secret(&self, text: &str) -> String {
        match &self.authorization {
            Some(authorization) => {
                authorization.parts().fold(text.to_string(), |text, part| text.replace(part, "****"))
            }
            None => text.to_string(),
        }
    }
}

/// Whether the same call may succeed later.
fn may_pass(error: &GitError) -> bool {
    const SIGNS: [&str; 8] = [
        "Connection refused",
        "Connection reset",
        "timed out",
        "unexpected disconnect",
        "early EOF",
        "error: 429",
        "error: 502",
        "error: 503",
    ];
    matches!(error, GitError::Failed { stderr, .. } if SIGNS.iter().any(|sign| stderr.contains(sign)))
}

/// The processes of one call.
struct Group(Option<Pid>);

impl Group {
    fn signal(&self, signal: Signal) {
        if let Some(group) = self.0 {
            let _ = kill_process_group(group, signal);
        }
    }

    /// The number is free for other processes now.
    fn ended(mut self) {
        self.0 = None;
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Ends it and all that it started, if it can, in order.
async fn stop(mut child: Child, group: &Group) {
    group.signal(Signal::TERM);
    if tokio::time::timeout(STOP_TIMEOUT, child.wait()).await.is_err() {
        group.signal(Signal::KILL);
        let _ = child.wait().await;
    }
}

/// Hosts that the user knows must have the key they had; new ones are believed, as BuildKit believes all.
fn ssh_config(home: &Path, users_home: Option<&OsStr>) -> String {
    let mut known = vec![home.join("known_hosts")];
    known.extend(users_home.map(|users_home| Path::new(users_home).join(".ssh/known_hosts")));
    // There is no way to write a quote inside of quotes (ssh_config(5)).
    let quoted = known.iter().map(|path| path.to_string_lossy()).filter(|path| !path.contains(['"', '\n', '%']));
    let quoted: Vec<String> = quoted.map(|path| format!("\"{path}\"")).collect();
    format!(
        "UserKnownHostsFile {}\nStrictHostKeyChecking accept-new\nUpdateHostKeys no\nBatchMode yes\nIdentityFile none\n\
         ForwardAgent no\nControlMaster no\nPermitLocalCommand no\nConnectTimeout 30\nServerAliveInterval 20\n",
        quoted.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git(authorization: Option<Authorization>) -> Git {
        Git::new("https://h/x.git".into(), authorization, None, Cancel::default()).unwrap()
    }

    #[tokio::test]
    async fn secrets_are_in_the_configuration_and_in_no_message() {
        let authorization = Authorization { scope: "https://h/x.git".into(), header: "basic c2VjcmV0".into() };
        let git = git(Some(authorization));
        let output =
            git.run("test", &["config", "--get-urlmatch", "http.extraheader", "https://h/x.git"], Call::default());
        assert_eq!(String::from_utf8(output.await.unwrap()).unwrap(), "Authorization: basic c2VjcmV0\n");
        let error = git.run("test", &["c2VjcmV0"], Call::default()).await.unwrap_err().to_string();
        assert!(error.starts_with("failed to test https://h/x.git") && !error.contains("c2VjcmV0"), "{error}");
    }

    #[tokio::test]
    async fn only_our_configuration_counts() {
        let git = git(None);
        let output = git.run("test", &["config", "--list", "--show-origin"], Call::default()).await.unwrap();
        let text = String::from_utf8(output).unwrap();
        assert!(text.lines().all(|line| line.contains("gitconfig\t")) && text.contains("core.hookspath"), "{text}");
        let mut records = vec![];
        git.records("test", &["config", "--list", "-z"], Call::default(), |record| records.push(record.to_vec()))
            .await
            .unwrap();
        assert!(records.contains(&b"credential.helper\n".to_vec()));
    }

    #[tokio::test]
    async fn a_canceled_build_ends_it() {
        let git = git(None);
        let cancel = git.cancel.clone();
        // Reads from a pipe that nobody writes to.
        let (input, _output) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let running =
            git.run("test", &["hash-object", "--stdin"], Call { held: Some(File::from(input)), ..Call::default() });
        let (result, ()) = tokio::join!(running, async { cancel.cancel() });
        assert!(matches!(result, Err(GitError::Canceled)));
    }

    #[test]
    fn ssh_knows_the_users_hosts() {
        let text = ssh_config(Path::new("/tmp/h"), Some("/home/a b".as_ref()));
        assert!(
            text.starts_with("UserKnownHostsFile \"/tmp/h/known_hosts\" \"/home/a b/.ssh/known_hosts\"\n"),
            "{text}"
        );
    }
}
