//! `RUN --mount=type=ssh` with a real agent and real keys.

use harness::{Kiln, Tree, installed, run, skip};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// An agent with a key of its own; ends when dropped.
struct Agent {
    process: Child,
    socket: PathBuf,
    /// As `ssh-add -l` shows it: `SHA256:…`.
    fingerprint: String,
}

impl Agent {
    fn start(folder: &Path, name: &str) -> Agent {
        let (socket, key) = (folder.join(format!("{name}.sock")), folder.join(format!("{name}.key")));
        let mut command = Command::new("ssh-agent");
        command.arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.spawn().expect("start ssh-agent");
        run(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"]).arg(&key));
        while !socket.exists() {
            std::thread::yield_now();
        }
        run(Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket));
        let list = run(Command::new("ssh-add").arg("-l").env("SSH_AUTH_SOCK", &socket));
        let fingerprint = list.split(' ').nth(1).expect("a fingerprint").to_string();
        Agent { process, socket, fingerprint }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A context with the machine's `ssh-add` and its libraries in `root`.
fn context(run_lines: &str) -> Tree {
    let context = Tree::dockerfile(&format!("FROM busybox\nCOPY root /\n{run_lines}"));
    let program = run(Command::new("which").arg("ssh-add"));
    let libraries = run(Command::new("ldd").arg(program.trim()));
    let paths = libraries.split_whitespace().filter(|word| word.starts_with('/'));
    for path in paths.chain([program.trim()]) {
        let to = context.join("root").join(path.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().unwrap()).unwrap();
        std::fs::copy(path, to).unwrap_or_else(|error| panic!("copy {path}: {error}"));
    }
    context
}

#[test]
fn agents_are_passed_on_by_their_ids() {
    if !installed("ssh-agent") || !installed("ssh-keygen") {
        skip!("needs ssh-agent and ssh-keygen (package openssh-client)");
    }
    let folder = Tree::new();
    let (first, second) = (Agent::start(folder.path(), "first"), Agent::start(folder.path(), "second"));
    let kiln = Kiln::new();
    let context = context(
        "RUN --mount=type=ssh,required ssh-add -l > /first\n\
         RUN --mount=type=ssh,id=other,target=/run/o.sock SSH_AUTH_SOCK=/run/o.sock ssh-add -l > /second\n\
         RUN --mount=type=ssh,id=absent ssh-add -l > /none 2>&1 || true\n",
    );
    let build = kiln.build(&context).args(["--ssh=default", &format!("--ssh=other={}", second.socket.display())]);
    let image = build.env("SSH_AUTH_SOCK", &first.socket.to_string_lossy()).image();
    let shown = |path: &str| image.text(path);
    assert!(shown("/first").contains(&first.fingerprint) && !shown("/first").contains(&second.fingerprint));
    assert!(shown("/second").contains(&second.fingerprint) && !shown("/second").contains(&first.fingerprint));
    assert!(shown("/none").contains("agent"), "{}", shown("/none"));
    assert!(!image.tree().keys().any(|path| path.contains("sock") || path.contains("buildkit")));
}

#[test]
fn a_required_agent_that_is_missing_stops_the_build() {
    let context = Tree::dockerfile("FROM busybox\nRUN --mount=type=ssh,id=deploy,required true\n");
    Kiln::new().build(&context).fails().says(&[
        "no SSH key \"deploy\" forwarded from the client",
        "Dockerfile:2",
        "--ssh deploy=SOCKET",
    ]);
    let context = Tree::dockerfile("FROM busybox\nRUN --mount=type=ssh,required true\n");
    Kiln::new().build(&context).fails().says(&["no SSH key \"\" forwarded from the client", "--ssh default;"]);
}
