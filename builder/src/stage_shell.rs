//! `kiln debug shell`: builds a stage and runs a shell or a command in it, in the sandbox of a RUN. What it writes is
//! thrown away.

use crate::cli::options::BuildOptions;
use crate::pipeline::{self, BuildError, World};
use crate::progress::{Event, Progress};
use crate::remote_cache::RemoteCache;
use crate::remote_cache::mounts::MountTravel;
use crate::step::exec::ExecInput;
use crate::step::exec_shell::{self, Attached, OnFailure, ShellError};
use cache::snapshot::overlay::Draft;
use frontend::compile::hostname;
use frontend::diagnostic::Diagnostic;
use frontend::op::{Exec, Security};
use frontend::path;
use frontend::span::SourceText;
use std::sync::Arc;

/// A stage that is built and can be entered.
pub struct Stage {
    /// Build checks that fired, and the text they point into.
    pub warnings: Vec<Diagnostic>,
    pub source: Arc<SourceText>,
    exec: Exec,
    input: ExecInput,
    /// The folders that take what is written; removed with this.
    _draft: Draft,
}

/// Builds the target, exports nothing, and makes it ready to be entered. `command` is empty for a shell.
pub async fn build(options: &BuildOptions, command: &[String], world: &World) -> Result<Stage, BuildError> {
    let cache = RemoteCache::open(&options.cache_from, &[], None, world)?;
    let mut solved = pipeline::solve_images(options, world, vec![], &cache).await?;
    let vertex = world.progress.task("[internal] prepare the stage");
    let image = match solved.images.len() {
        1 => solved.images.remove(0),
        count => return vertex.finish(Err(BuildError::NotOneStage { count })),
    };
    let unpacked = solved.tools.images.ensure_unpacked(&image.tree, &vertex).await;
    let lowers = unpacked.map_err(|error| BuildError::Stage(Box::new(error)));
    let lowers = vertex.finish(lowers)?;
    let draft = world.store.snapshots().prepare()?;
    if let Some(top) = lowers.last() {
        draft.inherit_root(top)?;
    }
    let config = &image.config.config;
    let hostname = hostname(&options.build_args);
    let exec = Exec {
        root: None,
        args: command.to_vec(),
        env: Arc::new(config.env.iter().map(|entry| Arc::from(entry.as_str())).collect()),
        cwd: path::clean(&format!("/{}", config.working_dir)),
        user: config.user.clone(),
        platform: image.platform.clone().into(),
        hostname: hostname.into(),
        network: options.network,
        security: Security::Sandbox,
        mounts: vec![],
        secret_env: vec![],
        ulimits: options.ulimits.clone(),
        shm_size_bytes: options.shm_size_bytes,
        cgroup_parent: options.cgroup_parent.clone(),
        extra_hosts: options.extra_hosts.clone(),
        proxy_env: vec![],
        script: None,
    };
    let input = ExecInput {
        lowers,
        upper: draft.upper().to_path_buf(),
        work: draft.work().to_path_buf(),
        sources: vec![],
        cache_root: world.store.mounts_dir(),
        travel: MountTravel::default(),
        anew: None,
        secrets: solved.tools.secrets.clone(),
        ssh: solved.tools.ssh.clone(),
        identity: world.identity.clone(),
        isolation: world.isolation.clone(),
        id: format!("{}-shell", std::process::id()),
        limits: options.limits.clone(),
        log: world.logs.join("shell"),
        on_failure: OnFailure::Abort,
    };
    Ok(Stage { warnings: solved.warnings, source: solved.source, exec, input, _draft: draft })
}

impl Stage {
    /// Runs it until it ends; gives its exit code. In a tokio runtime; nobody else writes to the terminal.
    pub async fn enter(&self, to: Attached) -> Result<i32, ShellError> {
        let (sender, events) = std::sync::mpsc::channel();
        let vertex = Progress::new(sender).vertex("shell", "shell", vec![]);
        let entering = exec_shell::attached(&self.exec, &self.input, &vertex, to, || {
            for event in events.try_iter() {
                if let Event::Warning { warning, .. } = event {
                    eprintln!("WARNING: {}", warning.short);
                }
            }
        });
        entering.await
    }
}
