//! `kiln du`: what the store holds, how large it is, who uses it.

use super::filter::Filter;
use super::object::{self, Format};
use super::{Cli, open_store};
use crate::progress::track::bytes;
use crate::sandbox::userns::Identity;
use anyhow::Result;
use cache::ledger::now_ms;
use cache::usage::Object;
use clap::Args;
use std::io::{self, Write};

/// Flags of the command.
#[derive(Args, Debug)]
pub struct DuArgs {
    /// Only what matches, such as type=exec.cachemount, until=24h, description~=REGEXP, inuse, shared
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// Say all that is known of each object
    #[arg(long, conflicts_with = "format")]
    verbose: bool,
    /// How it is printed; json is an object a line
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &DuArgs, identity: &Identity) -> Result<u8> {
    let filter = Filter::parse(&args.filters)?;
    let store = open_store(cli, identity)?;
    let usage = store.usage()?;
    let now_ms = now_ms();
    let before_ms = filter.until.map(|until| now_ms - until.as_millis() as i64);
    let is_meant = |object: &&Object| filter.matches(object) && before_ms.is_none_or(|before| object.used_ms < before);
    let mut objects: Vec<Object> = usage.objects.iter().filter(is_meant).cloned().collect();
    objects.sort_by(|one, other| (one.size.bytes, &one.id).cmp(&(other.size.bytes, &other.id)));
    let format = match (args.verbose, args.format.as_str()) {
        (true, _) => Format::Verbose,
        (false, "json") => Format::Json,
        (false, _) => Format::Table,
    };
    let other = if filter.is_empty() { usage.other_bytes } else { 0 };
    let mut out = io::stdout().lock();
    let printed = object::print(&mut out, &objects, format, now_ms).and_then(|()| match format {
        Format::Json => Ok(()),
        Format::Table | Format::Verbose => summary(&mut out, &objects, other),
    });
    super::printed(printed)
}

/// `other` is the database, locks and unfinished work.
fn summary(out: &mut dyn Write, objects: &[Object], other: u64) -> io::Result<()> {
    let sum = |wanted: &dyn Fn(&Object) -> bool| -> u64 {
        objects.iter().filter(|object| wanted(object)).map(|object| object.size.bytes).sum()
    };
    let (shared, all) = (sum(&|object| object.shared), sum(&|_| true));
    if shared > 0 {
        writeln!(out, "Shared:\t\t{}", bytes(shared))?;
        writeln!(out, "Private:\t{}", bytes(all - shared))?;
    }
    if other > 0 {
        writeln!(out, "Database:\t{}", bytes(other))?;
    }
    let held = sum(&|object| !object.images.is_empty());
    if held > 0 {
        writeln!(out, "Images:\t\t{}", bytes(held))?;
    }
    writeln!(out, "Reclaimable:\t{}", bytes(sum(&object::is_reclaimable)))?;
    writeln!(out, "Total:\t\t{}", bytes(all + other))
}
