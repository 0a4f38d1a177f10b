//! Runs the built `kiln` with a store and a configuration of its own, and reads what it says.

use crate::{Image, Registry, Terminal, Tree, User};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;
use tempfile::TempDir;

/// A build that takes longer hangs.
const TIMEOUT: Duration = Duration::from_secs(300);

/// An installation: program, store, configuration, and the user who runs it.
pub struct Kiln {
    folder: TempDir,
    program: PathBuf,
    user: Option<User>,
    /// What starts it.
    runner: Vec<PathBuf>,
}

impl Kiln {
    /// With an empty store; docker.io is [`Registry::shared`].
    pub fn new() -> Kiln {
        Kiln::with_config(&Registry::shared().kiln_toml())
    }

    /// With an empty store and that configuration file.
    pub fn with_config(toml: &str) -> Kiln {
        let folder = tempfile::Builder::new().prefix("kiln-e2e-").tempdir().expect("make a temporary folder");
        fs::write(folder.path().join("kiln.toml"), toml).expect("write kiln.toml");
        let program = program();
        assert!(program.is_file(), "{} is not there: run `cargo xtask e2e`, or set KILN_BIN", program.display());
        Kiln { folder, program, user: None, runner: vec![] }
    }

    /// The same as [`Kiln::new`], run by an ordinary user; `Err` says why this machine cannot.
    pub fn as_user() -> Result<Kiln, String> {
        Kiln::of(User::ordinary()?)
    }

    /// Run by an ordinary user without subordinate ids; `Err` says why this machine cannot.
    pub fn as_lone_user() -> Result<Kiln, String> {
        Kiln::of(User::lone()?)
    }

    /// Run as in an unprivileged container; `Err` says why this machine cannot.
    pub fn confined() -> Result<Kiln, String> {
        let mut kiln = Kiln::new();
        kiln.runner = confined()?;
        Ok(kiln)
    }

    fn of(user: User) -> Result<Kiln, String> {
        let mut kiln = Kiln::new();
        // Where the program was built may be closed to others.
        let program = kiln.folder.path().join("kiln");
        // By another process: were it open for writing here, what another thread starts meanwhile could still have it open
        // when it is to be run.
        let copied = Command::new("cp").args([&kiln.program, &program]).status();
        if !copied.as_ref().is_ok_and(|status| status.success()) {
            return Err(format!("copy {}: {copied:?}", kiln.program.display()));
        }
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("set the program's mode");
        for path in [kiln.folder.path(), &kiln.folder.path().join("kiln.toml")] {
            std::os::unix::fs::chown(path, Some(user.uid), Some(user.gid)).expect("give the folder to the user");
        }
        kiln.program = program;
        kiln.user = Some(user);
        Ok(kiln)
    }

    /// Its store.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// A place for outputs that the user who runs kiln can write to.
    pub fn out(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// `kiln --root … --config … <verb>`.
    pub fn command(&self, verb: &str) -> Command {
        self.command_through(&[], verb)
    }

    /// `kiln … <args>` in a context's folder, on a terminal.
    pub fn on_terminal(&self, context: &Tree, args: &[&str]) -> Terminal {
        if let Some(user) = &self.user {
            context.give_to(user.uid, user.gid);
        }
        let mut command = self.command_through(&["setsid", "--ctty"], args[0]);
        command.args(&args[1..]).current_dir(context.path());
        Terminal::start(command)
    }

    /// As [`Kiln::command`], started by another program that is given it as its last arguments.
    pub fn command_through(&self, starter: &[&str], verb: &str) -> Command {
        let runner: Vec<_> = self.runner.iter().chain([&self.program]).collect();
        let mut words: Vec<&std::ffi::OsStr> = starter.iter().map(std::ffi::OsStr::new).collect();
        words.extend(runner.iter().map(|word| word.as_os_str()));
        let mut command = Command::new(words[0]);
        command.args(&words[1..]);
        command.arg("--root").arg(self.root()).arg("--config").arg(self.folder.path().join("kiln.toml")).arg(verb);
        // What the caller's environment says must not change what is tested.
        for name in ["SOURCE_DATE_EPOCH", "BUILDKIT_PROGRESS", "DOCKER_DEFAULT_PLATFORM", "KILN_ROOT", "KILN_CONFIG"] {
            command.env_remove(name);
        }
        for name in ["CACHE_URL", "RESULTS_URL", "RUNTIME_TOKEN", "CACHE_SERVICE_V2"] {
            command.env_remove(format!("ACTIONS_{name}"));
        }
        for name in ["ADDRESS", "NAMESPACE", "SNAPSHOTTER"] {
            command.env_remove(format!("CONTAINERD_{name}"));
        }
        command.env("NO_COLOR", "1").stdin(Stdio::null());
        if let Some(user) = &self.user {
            command.uid(user.uid).gid(user.gid).env_remove("XDG_RUNTIME_DIR");
            command.env("HOME", self.folder.path()).env("USER", &user.name).env("LOGNAME", &user.name);
        }
        command
    }

    /// Runs another command than build to its end.
    pub fn run(&self, verb: &str, args: &[&str]) -> Finished {
        let mut command = self.command(verb);
        command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
        Finished::wait(command.spawn().unwrap_or_else(|error| panic!("start {command:?}: {error}")))
    }

    /// Runs another command than build; panics unless it succeeds. Gives what it wrote to standard output.
    pub fn says(&self, verb: &str, args: &[&str]) -> String {
        let finished = self.run(verb, args);
        let out = String::from_utf8_lossy(&finished.stdout).into_owned();
        assert!(finished.status.success(), "kiln {verb} {args:?}: {}\n{out}{}", finished.status, finished.stderr);
        out
    }

    /// A build of a context, run in it.
    pub fn build(&self, context: &Tree) -> Build<'_> {
        if let Some(user) = &self.user {
            context.give_to(user.uid, user.gid);
        }
        let mut command = self.command("build");
        command.current_dir(context.path());
        Build { kiln: self, command, context: ".".into(), progress: "rawjson", input: None, timeout: TIMEOUT }
    }

    /// Builds a context, exports the image as an OCI archive and reads that.
    pub fn image(&self, context: &Tree) -> Image {
        self.build(context).image()
    }
}

/// What a program's command line begins with to run as in an unprivileged container: as root without namespaces and
/// mounts. `Err` says why this machine cannot.
pub fn confined() -> Result<Vec<PathBuf>, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("only root can give up what an unprivileged container lacks".into());
    }
    if !crate::installed("python3") {
        return Err("python3 is missing".into());
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("harness/confine.py");
    Ok(vec!["python3".into(), script])
}

impl Default for Kiln {
    fn default() -> Kiln {
        Kiln::new()
    }
}

fn program() -> PathBuf {
    if let Some(path) = std::env::var_os("KILN_BIN") {
        return path.into();
    }
    // target/<profile>/deps/e2e-<hash> -> target/<profile>/kiln
    let test = std::env::current_exe().expect("path of this program");
    test.parent().and_then(Path::parent).map(|folder| folder.join("kiln")).expect("folder of this program")
}

/// A build that is about to run.
pub struct Build<'a> {
    kiln: &'a Kiln,
    command: Command,
    context: String,
    progress: &'static str,
    input: Option<PathBuf>,
    timeout: Duration,
}

impl Build<'_> {
    /// Adds arguments.
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Self {
        self.command.args(args);
        self
    }

    /// Adds `--output`.
    pub fn output(self, kind: &str, dest: &Path) -> Self {
        self.args([format!("--output=type={kind},dest={}", dest.display())])
    }

    /// Sets a variable of kiln's own environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.command.env(name, value);
        self
    }

    /// `--progress`; rawjson, unless this is called.
    pub fn progress(mut self, mode: &'static str) -> Self {
        self.progress = mode;
        self
    }

    /// A build that takes longer hangs; five minutes, unless this is called.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// The context argument; `.` unless this is called.
    pub fn context(mut self, context: &str) -> Self {
        self.context = context.into();
        self
    }

    /// A file for standard input.
    pub fn stdin(mut self, path: PathBuf) -> Self {
        self.input = Some(path);
        self
    }

    /// Starts it; standard output and error are pipes.
    pub fn spawn(mut self) -> Child {
        if let Some(path) = &self.input {
            self.command.stdin(fs::File::open(path).expect("open standard input"));
        }
        self.command.args([&format!("--progress={}", self.progress), &self.context]);
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        self.command.spawn().unwrap_or_else(|error| panic!("start {:?}: {error}", self.command))
    }

    /// Runs it to its end, whatever that is.
    pub fn run(self) -> Finished {
        let timeout = self.timeout;
        Finished::wait_for(self.spawn(), timeout)
    }

    /// Runs it; panics unless it succeeds.
    pub fn ok(self) -> Finished {
        let finished = self.run();
        assert!(finished.status.success(), "kiln build: {}\n{}", finished.status, finished.transcript());
        finished
    }

    /// Runs it; panics unless it fails as a build fails, with exit code 1.
    pub fn fails(self) -> Finished {
        let finished = self.run();
        assert_eq!(finished.status.code(), Some(1), "{}", finished.transcript());
        finished
    }

    /// Runs it with an OCI archive as its output, and reads that.
    pub fn image(self) -> Image {
        let folder = tempfile::tempdir_in(self.kiln.folder.path()).expect("make a folder for the output");
        if let Some(user) = &self.kiln.user {
            std::os::unix::fs::chown(folder.path(), Some(user.uid), Some(user.gid)).expect("give the folder away");
        }
        let archive = folder.path().join("image.tar");
        self.output("oci", &archive).ok();
        Image::read(&archive).expect("read the exported image")
    }
}

/// Reads what a running build says until a line ends with `end`; what follows is read and thrown away.
pub fn wait_for_line(child: &mut Child, end: &str) {
    let mut stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
    let mut line = String::new();
    while !line.trim_end().ends_with(end) {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("read progress") > 0, "the build ended early");
    }
    std::thread::spawn(move || stderr.read_to_end(&mut vec![]));
}

/// A build that has ended.
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// All of standard output.
    pub stdout: Vec<u8>,
    /// All of standard error.
    pub stderr: String,
}

/// A vertex, as rawjson progress told of it.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// It ended without having run.
    pub cached: bool,
    /// RFC 3339; empty if it never started.
    pub started: String,
    /// RFC 3339; empty if it never ended.
    pub completed: String,
    /// Message, if it failed.
    pub error: String,
    /// Why it ran; empty if it did not.
    pub reason: String,
}

impl Finished {
    /// Waits for a build; one that hangs is killed, and the test fails.
    pub fn wait(child: Child) -> Finished {
        Finished::wait_for(child, TIMEOUT)
    }

    fn wait_for(child: Child, timeout: Duration) -> Finished {
        let pid = Pid::from_child(&child);
        let (done, watch) = channel::<()>();
        let watchdog = std::thread::spawn(move || {
            let hangs = watch.recv_timeout(timeout) == Err(RecvTimeoutError::Timeout);
            if hangs {
                let _ = kill_process(pid, Signal::KILL);
            }
            hangs
        });
        let output = child.wait_with_output().expect("wait for kiln");
        drop(done);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!watchdog.join().expect("watchdog"), "kiln build hangs\n{stderr}");
        let finished = Finished { status: output.status, stdout: output.stdout, stderr };
        let crashed = finished.status.code() == Some(101) || finished.stderr.contains("panicked at");
        assert!(!crashed, "kiln crashed: {}\n{}", finished.status, finished.transcript());
        finished
    }

    /// Standard output as text, without the newline at its end.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).trim_end().to_string()
    }

    /// All steps by name, of rawjson progress. A step that ran once and was found later has run.
    pub fn steps(&self) -> BTreeMap<String, Step> {
        let mut steps: BTreeMap<String, Step> = BTreeMap::new();
        for message in self.messages() {
            for vertex in message["vertexes"].as_array().into_iter().flatten() {
                let text = |key: &str| vertex[key].as_str().unwrap_or_default().to_string();
                let step = steps.entry(text("name")).or_default();
                if step.started.is_empty() {
                    step.started = text("started");
                }
                step.completed = text("completed");
                step.cached |= vertex["cached"] == true;
                step.error = text("error");
                step.reason = text("reason");
            }
        }
        steps
    }

    /// Names of the Dockerfile's steps (RUN, COPY, ...) that ran.
    pub fn ran(&self) -> Vec<String> {
        self.instructions(|step| !step.cached && !step.completed.is_empty())
    }

    /// Names of the Dockerfile's steps that had been done before.
    pub fn cached(&self) -> Vec<String> {
        self.instructions(|step| step.cached)
    }

    /// Why the step ran whose name has `part` in it, of rawjson progress.
    pub fn reason(&self, part: &str) -> String {
        let steps = self.steps();
        let found: Vec<_> = steps.iter().filter(|(name, _)| name.contains(part)).collect();
        let [(_, step)] = found[..] else { panic!("{} steps have {part:?} in their names", found.len()) };
        step.reason.clone()
    }

    /// What the steps wrote, of rawjson progress.
    pub fn log(&self) -> String {
        let mut log = vec![];
        for message in self.messages() {
            for entry in message["logs"].as_array().into_iter().flatten() {
                let data = BASE64_STANDARD.decode(entry["data"].as_str().unwrap_or_default());
                log.extend(data.expect("log data in base64"));
            }
        }
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Remarks of the build, of rawjson progress: checks and what the machine cannot do.
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = vec![];
        for message in self.messages() {
            for warning in message["warnings"].as_array().into_iter().flatten() {
                let short = BASE64_STANDARD.decode(warning["short"].as_str().unwrap_or_default());
                warnings.push(String::from_utf8_lossy(&short.expect("a warning in base64")).into_owned());
            }
        }
        warnings
    }

    /// What it said that is no progress message: errors, excerpts, warnings.
    pub fn report(&self) -> String {
        let is_message = |line: &&str| serde_json::from_str::<Value>(line).is_ok_and(|value| value.is_object());
        self.stderr.lines().filter(|line| !is_message(line)).map(|line| format!("{line}\n")).collect()
    }

    /// Panics unless the report has all of `parts`.
    pub fn says(&self, parts: &[&str]) -> &Finished {
        let report = self.report();
        for part in parts {
            assert!(report.contains(part), "{part:?} is missing in:\n{report}\n{}", self.log());
        }
        self
    }

    fn instructions(&self, wanted: impl Fn(&Step) -> bool) -> Vec<String> {
        let is_instruction = |name: &str| {
            name.starts_with('[')
                && !name.split_once(']').is_some_and(|(place, _)| place.ends_with("internal"))
                && !name.starts_with("[auth]")
                && !name.starts_with("[context ")
                && !name.contains("] FROM ")
        };
        let steps = self.steps().into_iter().filter(|(name, step)| is_instruction(name) && wanted(step));
        steps.map(|(name, _)| name).collect()
    }

    fn messages(&self) -> impl Iterator<Item = Value> + '_ {
        self.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()).filter(Value::is_object)
    }

    fn transcript(&self) -> String {
        format!("{}--- log ---\n{}--- stdout ---\n{}", self.report(), self.log(), self.text())
    }
}
