//! A real dockerd, for what `docker load` and `docker run` make of kiln's archives.

use crate::installed;
use crate::server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A daemon with all its state in one folder, that touches no network setting of this machine.
pub struct Dockerd {
    socket: PathBuf,
    _server: Server,
}

impl Dockerd {
    /// Starts it; its state is in `folder`. Says why if it cannot be had here.
    pub fn start(folder: &Path) -> Result<Dockerd, String> {
        if !installed("dockerd") || !installed("docker") || !rustix::process::geteuid().is_root() {
            return Err("needs dockerd, docker and root".into());
        }
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let socket = folder.join("sock");
        let mut dockerd = Command::new("dockerd");
        dockerd
            .args(["--bridge=none", "--iptables=false", "--ip6tables=false", "--ip-masq=false", "--ip-forward=false"])
            .arg(format!("--host={}", host(&socket)))
            .arg(format!("--data-root={}", folder.join("data").display()))
            .arg(format!("--exec-root={}", folder.join("exec").display()))
            .arg(format!("--pidfile={}", folder.join("pid").display()));
        let client = || {
            let mut docker = docker(&socket);
            docker.arg("version");
            docker
        };
        let server = Server::start(&mut dockerd, folder, client)?;
        Ok(Dockerd { socket, _server: server })
    }

    /// Its socket, as `$DOCKER_HOST` has it.
    pub fn host(&self) -> String {
        host(&self.socket)
    }

    /// A command for this daemon, `docker` with no arguments yet.
    pub fn docker(&self) -> Command {
        docker(&self.socket)
    }
}

fn host(socket: &Path) -> String {
    format!("unix://{}", socket.display())
}

fn docker(socket: &Path) -> Command {
    let mut command = Command::new("docker");
    command.arg("--host").arg(host(socket)).env_remove("DOCKER_CONTEXT");
    command
}
