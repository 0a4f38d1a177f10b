//! A real containerd, for what it makes of the images that kiln unpacks into it.

use crate::installed;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A containerd with all its state in one folder.
pub struct Containerd {
    socket: PathBuf,
    server: Child,
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
        let log = std::fs::File::create(folder.join("log")).map_err(|error| error.to_string())?;
        let server = Command::new("containerd")
            .arg("--config")
            .arg(&config)
            .arg("--root")
            .arg(folder.join("root"))
            .arg("--state")
            .arg(folder.join("state"))
            .arg("--address")
            .arg(&socket)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| error.to_string())?;
        let mut containerd = Containerd { socket, server };
        // It has no way to tell that it is ready other than answering.
        for _ in 0..300 {
            if containerd.ctr().arg("version").output().is_ok_and(|output| output.status.success()) {
                return Ok(containerd);
            }
            if let Ok(Some(status)) = containerd.server.try_wait() {
                let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
                return Err(format!("{status}: {}", log.lines().last().unwrap_or_default()));
            }
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        Err("no answer within 30 s".into())
    }

    /// Its socket, as `$CONTAINERD_ADDRESS` has it.
    pub fn address(&self) -> &str {
        self.socket.to_str().expect("folders of tests are UTF-8")
    }

    /// `ctr` for the namespace `default`, with no arguments yet.
    pub fn ctr(&self) -> Command {
        let mut command = Command::new("ctr");
        command.arg("--address").arg(&self.socket).args(["--namespace", "default"]);
        command.env_remove("CONTAINERD_SNAPSHOTTER");
        command
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(
            rustix::process::Pid::from_child(&self.server),
            rustix::process::Signal::TERM,
        );
        let _ = self.server.wait();
    }
}
