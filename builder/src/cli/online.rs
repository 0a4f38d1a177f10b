//! What commands that talk to registries have in common: the client as the configuration says, progress, threads, and how
//! names are read and failures said.

use super::Cli;
use crate::config::Config;
use crate::progress::Progress;
use crate::progress::render::{self, Mode};
use crate::registry::Registry;
use crate::registry::credentials::Credentials;
use crate::registry::retry::RetryPolicy;
use anyhow::{Context, Result, anyhow};
use frontend::reference::Reference;
use std::future::Future;
use std::time::Duration;

/// Reads the configuration, and says what is odd about it.
pub(super) fn config(cli: &Cli) -> Result<Config> {
    let config = Config::load(cli.config.as_deref(), |name| std::env::var_os(name))?;
    config.warnings.iter().for_each(|warning| eprintln!("WARNING: {warning}"));
    Ok(config)
}

/// The client that the configuration asks for, with the user's logins.
pub(super) fn registry(config: &Config, policy: RetryPolicy) -> Registry {
    let credentials = Credentials::from_environment(|name| std::env::var_os(name));
    Registry::with_policy(config, credentials, policy)
}

/// How patient it is.
pub(super) fn patience() -> RetryPolicy {
    RetryPolicy::from_environment(|name| std::env::var_os(name))
}

/// Runs `work` to its end, and shows its progress on standard error. It must keep neither of what it is given.
pub(super) fn run<T, F: Future<Output = T>>(
    mode: Mode,
    registry: Registry,
    work: impl FnOnce(Progress, Registry) -> F,
) -> Result<T> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let progress = Progress::new(sender);
    let renderer = render::spawn(mode, receiver, progress.gate());
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    let result = runtime.block_on(async {
        registry.tell(&progress);
        work(progress, registry).await
    });
    // Of what was canceled, a thread may still be at work.
    runtime.shutdown_timeout(Duration::from_secs(5));
    let _ = renderer.join();
    Ok(result)
}

/// What `--progress` says.
pub(super) fn mode(text: &str) -> Result<Mode> {
    text.parse().map_err(|error| anyhow!("--progress {text}: {error}"))
}

/// The name of an image.
pub(super) fn reference(text: &str) -> Result<Reference> {
    Reference::parse(text).with_context(|| format!("`{text}` is not the name of an image"))
}

/// Says on standard error what failed, and what can be done about it.
pub(super) fn say_failure(message: &str, help: impl IntoIterator<Item = String>) {
    eprintln!("ERROR: {message}");
    help.into_iter().for_each(|help| eprintln!("help: {help}"));
}
