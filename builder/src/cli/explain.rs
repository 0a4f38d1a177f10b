//! `kiln explain`: why the steps of a build ran, from the history.

use super::{Cli, exit, open_store};
use crate::explain::{Cause, Change, Why};
use crate::history::{self, BuildRecord, StepRecord};
use crate::sandbox::userns::Identity;
use anyhow::Result;
use clap::Args;
use serde::Serialize;
use std::io::{self, Write};

/// Flags of the command.
#[derive(Args, Debug)]
pub struct ExplainArgs {
    /// Build, by its id or the beginning or end of it, or `latest` (default)
    build: Option<String>,
    /// Step: its place such as 2/5, its stage, or a part of its name (default: all)
    step: Option<String>,
    /// How it is printed; json is an object a step and line
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &ExplainArgs, identity: &Identity) -> Result<u8> {
    let store = open_store(cli, identity)?;
    let (_, record) = history::find(&store, args.build.as_deref())?;
    if let Some(why_not) = history::has_no_steps(&record) {
        eprintln!("ERROR: {why_not}");
        return Ok(exit::FAILURE);
    }
    let steps: Vec<&StepRecord> = match &args.step {
        None => record.steps.iter().filter(|step| step.why.is_some()).collect(),
        Some(wanted) => history::called(&record.steps, wanted),
    };
    if let (Some(wanted), []) = (&args.step, &steps[..]) {
        eprintln!("ERROR: {}", history::not_called(&record, wanted));
        return Ok(exit::FAILURE);
    }
    let mut out = io::stdout().lock();
    let printed = match args.format.as_str() {
        "json" => json(&mut out, &steps),
        _ if args.step.is_some() => in_full(&mut out, &steps),
        _ => overview(&mut out, &record, &steps),
    };
    super::printed(printed)
}

fn overview(out: &mut dyn Write, record: &BuildRecord, steps: &[&StepRecord]) -> io::Result<()> {
    writeln!(out, "build {} of {} ({})", record.id, record.about.line(), record.status.word())?;
    for step in steps {
        writeln!(out, "{}", line(step))?;
        if let Some(reason) = step.why.as_ref().and_then(Why::line) {
            writeln!(out, "               {reason}")?;
        }
    }
    let cached = steps.iter().filter(|step| step.outcome == "cached").count();
    writeln!(out, "{cached} of {} steps were cached", steps.len())?;
    if cached < steps.len() {
        writeln!(out, "`kiln explain {} STEP` says more about a step", record.id)?;
    }
    Ok(())
}

/// How a step went, such as `ran     1.2 s  [2/5] RUN make`.
pub(super) fn line(step: &StepRecord) -> String {
    let (word, ms) = match step.outcome.as_str() {
        "done" if step.why.is_some() => ("ran", Some(step.duration_ms)),
        "" => ("-", None),
        "cached" => ("cached", None),
        word => (word, Some(step.duration_ms)),
    };
    let seconds = ms.map_or(String::new(), seconds);
    format!("{word:8} {seconds:>6}  {}", step.name)
}

/// Such as `1.2s`.
pub(super) fn seconds(ms: u64) -> String {
    format!("{:.1}s", ms as f64 / 1000.0)
}

fn in_full(out: &mut dyn Write, steps: &[&StepRecord]) -> io::Result<()> {
    for (number, step) in steps.iter().enumerate() {
        if number > 0 {
            writeln!(out)?;
        }
        writeln!(out, "{}", line(step))?;
        let Some(why) = &step.why else {
            writeln!(out, "  it has no cache key: what it gives is known before it is looked at")?;
            continue;
        };
        match &why.cause {
            Cause::Recorded { cost_ms } => {
                writeln!(out, "  a former run of {} with the same inputs had its result", seconds(*cost_ms))?;
            }
            Cause::Changed => {
                let former = why.former.as_deref().unwrap_or("a former run");
                writeln!(out, "  what differs from its nearest former run, {former}:")?;
                for change in &why.changes {
                    for line in lines(change) {
                        writeln!(out, "    {line}")?;
                    }
                }
            }
            _ => writeln!(out, "  {}", why.line().unwrap_or_default())?,
        }
        writeln!(out, "  key {}", why.key)?;
    }
    Ok(())
}

/// All that is known of a difference.
fn lines(change: &Change) -> Vec<String> {
    let both = |name: &str, before: &Option<String>, now: &Option<String>| {
        let value = |value: &Option<String>| value.as_ref().map_or("not there".to_string(), |text| format!("{text:?}"));
        vec![format!("{name}:"), format!("  before: {}", value(before)), format!("  now:    {}", value(now))]
    };
    match change {
        Change::Command { before, now } => both("command", before, now),
        Change::Variable { name, before, now } => both(&format!("{name} (ARG or ENV)"), before, now),
        Change::Setting { name, before, now } => both(name, before, now),
        Change::Files { files, total: 0, .. } if files.is_empty() => {
            vec![format!("{change}; which ones is not known any more")]
        }
        Change::Files { from, files, total } => {
            let of = from.as_deref().unwrap_or("the build context");
            let mut lines = vec![format!("files of {of}:")];
            lines.extend(files.iter().map(|file| format!("  {file}")));
            if *total > files.len() {
                lines.push(format!("  and {} more", total - files.len()));
            }
            lines
        }
        Change::Base { before, now } => {
            let origin = |origin: &Option<crate::explain::Origin>| match origin {
                Some(origin) => origin.in_full(),
                None => "not known any more".to_string(),
            };
            let (old, new) = (origin(before), origin(now));
            match old == new {
                true => vec![change.to_string()],
                false => vec![change.to_string(), format!("  before: {old}"), format!("  now:    {new}")],
            }
        }
    }
}

#[derive(Serialize)]
struct Explained<'a> {
    name: &'a str,
    outcome: &'a str,
    duration_ms: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    #[serde(flatten)]
    why: Option<&'a Why>,
}

fn json(out: &mut dyn Write, steps: &[&StepRecord]) -> io::Result<()> {
    for step in steps {
        let StepRecord { name, outcome, duration_ms, why, .. } = step;
        let reason = why.as_ref().and_then(Why::line);
        let explained = Explained { name, outcome, duration_ms: *duration_ms, reason, why: why.as_ref() };
        serde_json::to_writer(&mut *out, &explained)?;
        writeln!(out)?;
    }
    Ok(())
}
