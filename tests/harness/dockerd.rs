//! A real dockerd, for what `docker load` and `docker run` make of kiln's archives.

use crate::installed;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A daemon with all its state in one folder, that touches no network setting of this machine.
pub struct Dockerd {
    socket: PathBuf,
    server: Child,
}

impl Dockerd {
    /// Starts it; its state is in `folder`. Says why if it cannot be had here.
    pub fn start(folder: &Path) -> Result<Dockerd, String> {
        if !installed("dockerd") || !installed("docker") || !rustix::process::geteuid().is_root() {
            return Err("needs dockerd, docker and root".into());
        }
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

    /// Its socket, as `$DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.socket.display())
    }

    /// A command for this daemon, `docker` with no arguments yet.
    pub fn docker(&self) -> Command {
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
