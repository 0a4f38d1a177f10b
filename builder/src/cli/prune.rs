//! `kiln prune`: plans what to remove from the store, asks, and removes it.

use super::filter::{self, Filter};
use super::object::{self, Format};
use super::{Cli, open_store};
use crate::progress::track::bytes;
use crate::sandbox::userns::Identity;
use crate::space::Space;
use anyhow::{Context, Result, bail};
use cache::ledger::now_ms;
use cache::prune::{Limits, Policy, plan_prune};
use cache::usage::Object;
use clap::Args;
use std::io::{self, BufRead, Write};

/// Flags of the command.
#[derive(Args, Debug)]
pub struct PruneArgs {
    /// Also logs of builds, what several objects lie on, and what is remembered of files
    #[arg(short, long)]
    all: bool,
    /// Only what matches, such as type=exec.cachemount, until=24h, description~=REGEXP
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Remove only until the store is this small, such as 20GB or 60% (of the disk)
    #[arg(long, visible_alias = "keep-storage", value_name = "SPACE")]
    max_used_space: Option<String>,
    /// Never make the store smaller than this
    #[arg(long, value_name = "SPACE")]
    reserved_space: Option<String>,
    /// Remove only until the disk has this much free
    #[arg(long, value_name = "SPACE")]
    min_free_space: Option<String>,
    /// Leave what was used within this time, such as 48h
    #[arg(long, value_name = "DURATION")]
    keep_duration: Option<String>,
    /// Show what would be removed
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// Say all that is known of what is removed
    #[arg(long)]
    verbose: bool,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &PruneArgs, identity: &Identity) -> Result<u8> {
    let filter = Filter::parse(&args.filters)?;
    let space = |flag: &str, text: &Option<String>| -> Result<Option<Space>> {
        let parse = |text: &String| Space::parse(text).map_err(|problem| anyhow::anyhow!("--{flag} {text}: {problem}"));
        text.as_ref().map(parse).transpose()
    };
    let max_used = space("max-used-space", &args.max_used_space)?;
    let reserved = space("reserved-space", &args.reserved_space)?;
    let min_free = space("min-free-space", &args.min_free_space)?;
    let keep = match &args.keep_duration {
        None => filter.until,
        Some(text) => match filter::duration(text) {
            Some(keep) => Some(keep.max(filter.until.unwrap_or_default())),
            None => bail!("--keep-duration {text}: it must be a duration such as 48h"),
        },
    };

    let store = open_store(cli, identity)?;
    let disk = store.disk()?;
    let now_ms = now_ms();
    let is_limited = max_used.is_some() || reserved.is_some() || min_free.is_some();
    let limits = Limits {
        reserved: reserved.map_or(0, |space| space.bytes(&disk)),
        // Only a floor: down to it.
        max_used: max_used.map(|space| space.bytes(&disk)).or(min_free.is_none().then_some(0)),
        min_free: min_free.map(|space| space.bytes(&disk)),
    };
    let policy = Policy {
        all: args.all,
        matches: &|object| filter.matches(object),
        used_before_ms: keep.map(|keep| now_ms.saturating_sub(keep.as_millis().min(i64::MAX as u128) as i64)),
        limits: is_limited.then_some(limits),
    };
    let plan = plan_prune(&store.usage()?, policy, disk.free, now_ms);
    let format = if args.verbose { Format::Verbose } else { Format::Table };
    let mut out = io::stdout().lock();
    if args.dry_run {
        return report(&mut out, &plan.remove, format, now_ms);
    }
    if !args.force && !is_confirmed(&plan.remove, args.all)? {
        bail!("nothing was removed: answer y, or give --force");
    }
    let removed = store.prune(&plan)?;
    if args.all && !is_limited && filter.is_empty() {
        store.forget_memos()?;
    }
    report(&mut out, &removed, format, now_ms)
}

fn report(out: &mut dyn Write, objects: &[Object], format: Format, now_ms: i64) -> Result<u8> {
    let total = objects.iter().map(|object| object.size.bytes).sum();
    let printed = object::print(out, objects, format, now_ms).and_then(|()| writeln!(out, "Total:\t{}", bytes(total)));
    super::printed(printed)
}

fn is_confirmed(objects: &[Object], all: bool) -> Result<bool> {
    let total: u64 = objects.iter().map(|object| object.size.bytes).sum();
    let what =
        if all { "all build cache and logs that no build uses now" } else { "the build cache that no build uses now" };
    eprint!(
        "WARNING! This removes {what}: {} objects, {}. Are you sure you want to continue? [y/N] ",
        objects.len(),
        bytes(total)
    );
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer).context("read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}
