//! `kiln push`: pushes what a build made and could not push.

use super::{Cli, exit, online, open_store, printed};
use crate::progress::chain;
use crate::progress::render::Mode;
use crate::publish::{self, Failure, NotPushed, Pending, PublishError};
use crate::sandbox::userns::Identity;
use crate::source::image::ImageSource;
use crate::time::rfc3339_millis;
use anyhow::{Result, bail};
use cache::store::Store;
use clap::Args;
use std::io::{self, Write};

/// Flags of the command.
#[derive(Args, Debug)]
pub struct PushArgs {
    /// Images, by the names that they could not be pushed to; all of them, if none is given
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Say what waits to be pushed, and push nothing
    #[arg(long, conflicts_with = "forget")]
    list: bool,
    /// Push nothing, and no longer keep what waits
    #[arg(long, requires = "names")]
    forget: bool,
    /// How progress is shown: auto, plain, tty, rawjson, quiet, none
    #[arg(long, value_name = "MODE", default_value = "auto", env = "BUILDKIT_PROGRESS")]
    progress: String,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &PushArgs, identity: &Identity) -> Result<u8> {
    let mode = online::mode(&args.progress)?;
    let store = open_store(cli, identity)?;
    let meant = meant(publish::pending(&store)?, &args.names)?;
    if args.list {
        return printed(list(&mut io::stdout().lock(), &meant));
    }
    if args.forget {
        for (name, _) in &meant {
            store.unpin(name)?;
        }
        return Ok(exit::SUCCESS);
    }
    if meant.is_empty() {
        eprintln!("nothing waits to be pushed");
        return Ok(exit::SUCCESS);
    }
    push(cli, &store, &meant, mode)
}

fn push(cli: &Cli, store: &Store, meant: &[(String, Pending)], mode: Mode) -> Result<u8> {
    let registry = online::registry(&online::config(cli)?, online::patience());
    let outcomes = online::run(mode, registry, |progress, registry| async move {
        let images = ImageSource::new(registry, store.clone(), Default::default());
        let pushing = meant.iter().map(|(name, pending)| {
            let (images, vertex) = (&images, progress.task(&format!("pushing {name}")));
            async move { vertex.finish(publish::resume(images, store, pending, &vertex).await) }
        });
        futures::future::join_all(pushing).await
    })?;
    store.settle()?;
    let (mut pushed, mut failures, mut lost) = (vec![], vec![], None);
    for ((name, pending), outcome) in meant.iter().zip(outcomes) {
        match outcome {
            Ok(()) => {
                let digest = pending.digest().map(|digest| format!("@{digest}")).unwrap_or_default();
                let name = name.split('@').next().unwrap_or(name);
                pushed.push(format!("{name}{digest}"));
            }
            Err(PublishError::NotPushed(error)) => failures.extend(error.failures),
            Err(error) => {
                let missing = format!("what was kept of {name} cannot be pushed; build it again");
                lost = lost.or(Some(anyhow::Error::new(error).context(missing)));
            }
        }
    }
    let code = conclude(&pushed, failures)?;
    lost.map_or(Ok(code), Err)
}

/// Says what was pushed, as NAME@DIGEST, and what was not and waits; gives the program's exit code.
pub(super) fn conclude(pushed: &[String], failures: Vec<Failure>) -> Result<u8> {
    let mut out = io::stdout().lock();
    printed(pushed.iter().try_for_each(|line| writeln!(out, "{line}")))?;
    if failures.is_empty() {
        return Ok(exit::SUCCESS);
    }
    let error = NotPushed { failures };
    online::say_failure(&chain(&error), error.help());
    Ok(exit::NOT_PUSHED)
}

/// What waits under these names.
fn meant(pending: Vec<(String, Pending)>, names: &[String]) -> Result<Vec<(String, Pending)>> {
    if names.is_empty() {
        return Ok(pending);
    }
    let mut meant = vec![];
    for text in names {
        let name = online::reference(text)?.to_string();
        let Some(found) = pending.iter().find(|(known, _)| *known == name) else {
            let known: Vec<&str> = pending.iter().map(|(name, _)| name.as_str()).collect();
            let known = if known.is_empty() { "nothing".to_string() } else { known.join(", ") };
            bail!("no image waits to be pushed to {name}; what waits: {known}");
        };
        meant.push(found.clone());
    }
    Ok(meant)
}

fn list(out: &mut impl Write, pending: &[(String, Pending)]) -> io::Result<()> {
    for (name, pending) in pending {
        let built = rfc3339_millis(pending.built_ms);
        writeln!(out, "{name}\n  built {built}: {}\n  {}", pending.digest().map_or("", |d| d.as_str()), pending.error)?;
    }
    Ok(())
}
