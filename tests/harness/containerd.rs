//! A real containerd, for what it makes of the images that kiln unpacks into it.

use crate::installed;
use crate::server::Server;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A containerd with all its state in one folder.
pub struct Containerd {
    socket: PathBuf,
    _server: Server,
}

impl Containerd {
    /// Starts it; its state is in `folder`. Says why if it cannot be had here.
    pub fn start(folder: &Path) -> Result<Containerd, String> {
        if !installed("containerd") || !installed("ctr") || !rustix::process::geteuid().is_root() {
            return Err("needs containerd, ctr and root".into());
        }
        std::fs::create_dir_all(folder).map_err(|error| error.to_string())?;
        let config = folder.join("config.toml");
        // The plugin of Kubernetes wants network plugins that are not here.
        let text = "version = 2\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n";
        std::fs::write(&config, text).map_err(|error| error.to_string())?;
        let socket = folder.join("sock");
        let mut containerd = Command::new("containerd");
        containerd.arg("--config").arg(&config);
        containerd.arg("--root").arg(folder.join("root"));
        containerd.arg("--state").arg(folder.join("state"));
        containerd.arg("--address").arg(&socket);
        let client = || {
            let mut ctr = ctr(&socket);
            ctr.arg("version");
            ctr
        };
        let server = Server::start(&mut containerd, folder, client)?;
        Ok(Containerd { socket, _server: server })
    }

    /// Its socket, as `$CONTAINERD_ADDRESS` has it.
    pub fn address(&self) -> &str {
        self.socket.to_str().expect("folders of tests are UTF-8")
    }

    /// `ctr` for the namespace `default`, with no arguments yet.
    pub fn ctr(&self) -> Command {
        ctr(&self.socket)
    }
}

fn ctr(socket: &Path) -> Command {
    let mut command = Command::new("ctr");
    command.arg("--address").arg(socket).args(["--namespace", "default"]);
    command.env_remove("CONTAINERD_SNAPSHOTTER");
    command
}
