//! `type=docker`: an archive for `docker load`, tried with a real dockerd where one can be started.

use harness::{Kiln, Tree, installed, run, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn context() -> Tree {
    Tree::dockerfile("FROM busybox\nRUN echo moo > /cow\nENTRYPOINT [\"cat\", \"/cow\"]\n")
}

#[test]
fn the_archive_has_both_kinds_of_index() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    kiln.build(&context()).args(["-t", "app:1"]).output("docker", &archive).ok();
    let image = harness::Image::read(&archive).unwrap();
    let manifest: Value = serde_json::from_slice(&image.files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1"]));
    let config = manifest[0]["Config"].as_str().unwrap();
    assert_eq!(format!("blobs/{}", image.manifest["config"]["digest"].as_str().unwrap().replace(':', "/")), config);
    assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), image.layers.len());
}

#[test]
fn dockerd_loads_and_runs_it() {
    if !installed("dockerd") || !installed("docker") || !rustix::process::geteuid().is_root() {
        skip!("needs dockerd, docker and root");
    }
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    kiln.build(&context()).args(["-t", "kiln-test/cow:1"]).output("docker", &archive).ok();
    let daemon = match Dockerd::start(&kiln.out("docker")) {
        Ok(daemon) => daemon,
        Err(reason) => skip!("dockerd does not start here: {reason}"),
    };
    run(daemon.docker().args(["load", "--quiet", "--input"]).arg(&archive));
    let said = run(daemon.docker().args(["run", "--rm", "--network=none", "kiln-test/cow:1"]));
    assert_eq!(said, "moo\n");
}

/// A daemon with all its state in one folder, that touches no network setting of this machine.
struct Dockerd {
    socket: PathBuf,
    server: Child,
}

impl Dockerd {
    fn start(folder: &Path) -> Result<Dockerd, String> {
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let socket = folder.join("sock");
        let log = std::fs::File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let server = Command::new("dockerd")
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"])
            .arg(format!("--host=unix://{}", socket.display()))
            .arg(format!("--data-root={}", folder.join("data").display()))
            .arg(format!("--exec-root={}", folder.join("exec").display()))
            .arg(format!("--pidfile={}", folder.join("pid").display()))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut daemon = Dockerd { socket, server };
        // It has no way to tell that it is ready other than answering.
        for _ in 0..300 {
            if daemon.docker().arg("version").output().is_ok_and(|output| output.status.success()) {
                return Ok(daemon);
            }
            if let Ok(Some(status)) = daemon.server.try_wait() {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("{status}: {}", log.lines().last().unwrap_or_default()));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err("no answer within 30 s".into())
    }

    fn docker(&self) -> Command {
        let mut command = Command::new("docker");
        command.arg("--host").arg(format!("unix://{}", self.socket.display())).env_remove("DOCKER_CONTEXT");
        command
    }
}

impl Drop for Dockerd {
    fn drop(&mut self) {
        // SIGTERM, so that it stops its containerd and unmounts what it mounted.
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.server),
            rustix::process::Signal::TERM,
        );
        let _ = self.server.wait();
    }
}
