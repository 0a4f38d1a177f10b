//! A program of this machine that runs in the background for a test, all its state in one folder.

use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// A running server. Dropped, it is told to end, and waited for.
pub struct Server(Child);

impl Server {
    /// Starts it with its log in `folder`, and waits until `client`, who asks it something, gets an answer. Says why if it
    /// does not come.
    pub fn start(server: &mut Command, folder: &Path, client: impl Fn() -> Command) -> Result<Server, String> {
        let log_path = folder.join("log");
        let log = File::create(&log_path).map_err(|error| error.to_string())?;
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut server = Server(server.spawn().map_err(|error| error.to_string())?);
        // It has no way to tell that it is ready other than answering.
        for _ in 0..300 {
            if client().output().is_ok_and(|output| output.status.success()) {
                return Ok(server);
            }
            if let Ok(Some(status)) = server.0.try_wait() {
                let log = std::fs::read_to_string(&log_path).unwrap_or_default();
                return Err(format!("{status}: {}", log.lines().last().unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        Err("no answer within 30 s".into())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM, so that it stops what it started and unmounts what it mounted.
        let _ = kill_process(Pid::from_child(&self.0), Signal::TERM);
        let _ = self.0.wait();
    }
}
