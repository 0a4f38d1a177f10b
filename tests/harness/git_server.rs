//! Debian's git as a server: `git daemon` on loopback, started for each connection, so that no port is guessed and
//! nothing outlives the test.

use crate::run;
use std::fs;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use tempfile::TempDir;

/// Serves repositories of one folder as `git://127.0.0.1:PORT/<name>`; stops when dropped.
pub struct GitServer {
    /// `127.0.0.1:PORT`.
    pub host: String,
    folder: TempDir,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

/// A repository with a work tree, which is served as it is.
pub struct Repo {
    folder: PathBuf,
    /// Seconds since 1970 of the next commit.
    time: std::cell::Cell<u64>,
}

impl GitServer {
    /// Starts one without repositories.
    pub fn start() -> GitServer {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let host = listener.local_addr().expect("address of the server").to_string();
        let folder = tempfile::Builder::new().prefix("kiln-git-server-").tempdir().expect("make a temporary folder");
        let server = GitServer { host, folder, connections: Arc::default(), stopped: Arc::default() };
        let (base, connections, stopped) =
            (server.folder.path().to_path_buf(), server.connections.clone(), server.stopped.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                if stopped.load(Ordering::SeqCst) {
                    return;
                }
                connections.fetch_add(1, Ordering::SeqCst);
                let output = OwnedFd::from(connection.try_clone().expect("clone a connection"));
                let mut daemon = git(&base);
                daemon.args(["daemon", "--inetd", "--export-all", "--informative-errors"]);
                daemon.arg(format!("--base-path={}", base.display()));
                daemon.stdin(OwnedFd::from(connection)).stdout(output).stderr(Stdio::null());
                let mut daemon = daemon.spawn().expect("start git daemon");
                std::thread::spawn(move || daemon.wait());
            }
        });
        server
    }

    /// Makes a repository with one commit, which has the file `f` with the text `F`.
    pub fn repository(&self, name: &str) -> Repo {
        let repo = Repo { folder: self.folder.path().join(name), time: 1_000_000_000.into() };
        fs::create_dir_all(&repo.folder).expect("make a repository's folder");
        repo.git(&["init", "--quiet", "--initial-branch=main"]);
        repo.write("f", "F");
        repo.commit("first");
        repo
    }

    /// `git://127.0.0.1:PORT/<name>`
    pub fn url(&self, name: &str) -> String {
        format!("git://{}/{name}", self.host)
    }

    /// How many connections there were since this was last called.
    pub fn connections(&self) -> usize {
        self.connections.swap(0, Ordering::SeqCst)
    }

    /// Accepts no more.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        let _ = std::net::TcpStream::connect(&self.host);
    }
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Repo {
    /// Its work tree.
    pub fn path(&self) -> &Path {
        &self.folder
    }

    /// Runs git in it; gives its output without the newline at its end.
    pub fn git(&self, arguments: &[&str]) -> String {
        run(git(&self.folder).args(arguments)).trim_end().to_string()
    }

    /// Writes a file.
    pub fn write(&self, name: &str, text: &str) {
        let path = self.folder.join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make folders");
        fs::write(path, text).expect("write a file");
    }

    /// Commits everything, a second later than the last commit; gives the hash.
    pub fn commit(&self, message: &str) -> String {
        self.git(&["add", "--all"]);
        let time = self.time.get();
        self.time.set(time + 1);
        let date = format!("@{time} +0000");
        let mut commit = git(&self.folder);
        commit.args(["commit", "--quiet", "--allow-empty", "--message", message]);
        run(commit.env("GIT_AUTHOR_DATE", &date).env("GIT_COMMITTER_DATE", &date));
        self.git(&["rev-parse", "HEAD"])
    }

    /// Adds a submodule at `path`, the repository `other` as it is now, with that URL in .gitmodules.
    pub fn submodule(&self, path: &str, other: &Repo, url: &str) {
        self.git(&["clone", "--quiet", &other.folder.to_string_lossy(), path]);
        self.git(&["config", "--file", ".gitmodules", &format!("submodule.{path}.path"), path]);
        self.git(&["config", "--file", ".gitmodules", &format!("submodule.{path}.url"), url]);
        self.commit("submodule");
    }
}

/// git with no configuration but what a commit needs.
pub fn git(folder: &Path) -> Command {
    let mut command = Command::new("git");
    command.current_dir(folder).env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_GLOBAL", "/dev/null");
    for role in ["AUTHOR", "COMMITTER"] {
        command.env(format!("GIT_{role}_NAME"), "Test").env(format!("GIT_{role}_EMAIL"), "test@example.org");
    }
    // Owners do not matter here, and what is not committed yet is no advice.
    command.env("GIT_CONFIG_COUNT", "2").env("GIT_CONFIG_KEY_0", "safe.directory").env("GIT_CONFIG_VALUE_0", "*");
    command.env("GIT_CONFIG_KEY_1", "advice.addEmbeddedRepo").env("GIT_CONFIG_VALUE_1", "false");
    command
}
