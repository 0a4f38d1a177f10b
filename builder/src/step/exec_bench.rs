//! What the tests of RUN run steps with.

use super::super::*;
use crate::progress::{Event, Progress};
use crate::step::ahead::{Ahead, Digested};
use frontend::op::{Network, Security};
use frontend::platform::Platform;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

/// A folder with a base layer, and what the steps leave.
pub struct Bench {
    pub dir: tempfile::TempDir,
    pub count: usize,
    pub layers: Vec<PathBuf>,
    pub secrets: Secrets,
    pub identity: Identity,
    pub ssh: SshAgents,
}

/// What a step left.
pub struct Ran {
    pub result: Result<ExecOutcome, ExecError>,
    pub log: String,
    pub upper: PathBuf,
    /// What of that was digested meanwhile.
    pub ahead: Digested,
}

impl Ran {
    /// All paths below the upper folder, sorted.
    pub fn paths(&self) -> Vec<String> {
        let mut paths = vec![];
        let mut todo = vec![self.upper.clone()];
        while let Some(folder) = todo.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                paths.push(format!("/{}", path.strip_prefix(&self.upper).unwrap().display()));
                if path.symlink_metadata().unwrap().is_dir() {
                    todo.push(path);
                }
            }
        }
        paths.sort();
        paths
    }

    pub fn error(&self) -> String {
        format!("{} | {}", crate::progress::chain(self.result.as_ref().unwrap_err()), self.log)
    }
}

impl Bench {
    /// `None`, with the reason printed, where this machine cannot run steps.
    pub fn new() -> Option<Bench> {
        if !Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs /bin/busybox (package busybox-static)");
            return None;
        }
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        Some(Bench::of(Identity::Root))
    }

    /// For a program that runs as this.
    pub fn of(identity: Identity) -> Bench {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("base");
        for folder in ["bin", "etc", "tmp", "root", "dev", "proc", "sys"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        std::fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
        for name in
            "sh cat id ls mkdir touch stat hostname sleep ip df ps rm test wc env mount mknod grep echo kill".split(' ')
        {
            symlink("busybox", base.join("bin").join(name)).unwrap();
        }
        std::fs::write(base.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1::/usr/sbin:\n").unwrap();
        std::fs::write(base.join("etc/group"), "root:x:0:\ndaemon:x:1:\nadm:x:4:daemon\n").unwrap();
        let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
        std::fs::set_permissions(base.join("tmp"), mode(0o1777)).unwrap();
        std::fs::set_permissions(&base, mode(0o755)).unwrap();
        std::fs::set_permissions(base.join("etc"), mode(0o755)).unwrap();
        Bench { dir, count: 0, layers: vec![base], secrets: Secrets::default(), identity, ssh: SshAgents::default() }
    }

    pub async fn run(&mut self, exec: &Exec, sources: Vec<(usize, MountSource)>) -> Ran {
        self.count += 1;
        let step = self.dir.path().join(format!("step{}", self.count));
        let (upper, work) = (step.join("upper"), step.join("work"));
        std::fs::create_dir_all(&upper).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let (sender, events) = std::sync::mpsc::channel();
        let vertex = Progress::new(sender).vertex("k", "n", vec![]);
        let input = ExecInput {
            lowers: self.layers.clone(),
            upper: upper.clone(),
            work,
            sources,
            cache_root: self.dir.path().join("mounts"),
            travel: Default::default(),
            anew: None,
            secrets: Arc::new(self.secrets.clone()),
            ssh: Arc::new(self.ssh.clone()),
            identity: self.identity.clone(),
            isolation: Isolation::Namespace,
            id: format!("test-{}-{}", std::process::id(), self.dir.path().file_name().unwrap().display()),
            limits: Limits::default(),
            log: step.join("log"),
            on_failure: OnFailure::Abort,
        };
        let limit = tokio::time::sleep(Duration::from_secs(20));
        let ahead = Ahead::begin(upper.clone());
        let mut result = run(exec, input, &vertex, limit).await;
        if let Ok(outcome) = &mut result {
            outcome.root = None;
        }
        let log: Vec<u8> = events
            .try_iter()
            .filter_map(|event| match event {
                Event::Log { data, .. } => Some(data),
                _ => None,
            })
            .flatten()
            .collect();
        if result.is_ok() {
            self.layers.push(upper.clone());
        }
        Ran { result, log: String::from_utf8(log).unwrap(), upper, ahead: ahead.end() }
    }

    /// Runs a script, which must succeed; gives its output.
    pub async fn sh(&mut self, script: &str) -> String {
        let ran = self.run(&exec(script), vec![]).await;
        assert!(ran.result.is_ok(), "{script}: {}", ran.error());
        ran.log
    }
}

pub fn exec(script: &str) -> Exec {
    let (os, architecture) = ("linux".to_string(), if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" });
    let platform =
        Platform { os, architecture: architecture.into(), variant: String::new(), os_version: String::new() };
    Exec {
        root: Some(0),
        args: ["/bin/sh", "-c", script].map(str::to_string).to_vec(),
        env: Arc::new(vec![Arc::from("PATH=/bin")]),
        cwd: "/".into(),
        user: String::new(),
        platform: platform.into(),
        hostname: "buildkitsandbox".into(),
        network: Network::Default,
        security: Security::Sandbox,
        mounts: vec![],
        secret_env: vec![],
        ulimits: vec![],
        shm_size_bytes: None,
        cgroup_parent: None,
        extra_hosts: vec![],
        proxy_env: vec![],
        script: None,
    }
}
