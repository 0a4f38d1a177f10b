//! `kiln plan`: which steps a build would run, and why. `kiln build --dry-run` is the same with the text form.

use super::build::{self, Purpose};
use super::build_args::BuildArgs;
use super::{Cli, exit};
use crate::forecast::{Foretold, ForetoldStep, Status};
use crate::report;
use crate::sandbox::isolation::Rights;
use anyhow::Result;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::io::{self, Write};

/// `kiln plan [FLAGS OF BUILD] PATH`.
#[derive(Args, Debug)]
pub struct PlanArgs {
    #[command(flatten)]
    pub build: BuildArgs,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    format: Format,
}

/// How a plan is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A line a step.
    Text,
    /// One object.
    Json,
}

/// Runs the command; gives the program's exit code: 0 if every step is cached, [`exit::WOULD_RUN`] if not.
pub fn run(cli: &Cli, args: &PlanArgs, rights: Rights) -> Result<u8> {
    build::run_purpose(cli, &args.build, Purpose::Foretell(args.format), rights)
}

/// Prints it; gives the exit code.
pub(super) fn say(foretold: &Foretold, format: Format) -> Result<u8> {
    let mut out = io::stdout().lock();
    let printed = match format {
        Format::Text => text(&mut out, &foretold.steps),
        Format::Json => json(&mut out, &foretold.steps),
    };
    super::printed(printed)?;
    let look = super::failure::look();
    eprint!("{}", report::warnings(&foretold.source, &foretold.warnings, report::Detail::Short, look.colour));
    let all_cached = foretold.steps.iter().all(|step| step.status == Status::Cached);
    Ok(if all_cached { exit::SUCCESS } else { exit::WOULD_RUN })
}

fn text(out: &mut dyn Write, steps: &[ForetoldStep]) -> io::Result<()> {
    for step in steps {
        let word = match step.status {
            Status::Cached => "cached ",
            Status::Run => "run    ",
            Status::MayRun => "may run",
        };
        writeln!(out, "{word}  {}", step.name)?;
        if let Some(reason) = &step.reason {
            writeln!(out, "           {reason}")?;
        }
    }
    let count = |status| steps.iter().filter(|step| step.status == status).count();
    let steps = match steps.len() {
        1 => "1 step".to_string(),
        count => format!("{count} steps"),
    };
    let (cached, run, may_run) = (count(Status::Cached), count(Status::Run), count(Status::MayRun));
    let may_run = if may_run > 0 { format!(", {may_run} may run") } else { String::new() };
    writeln!(out, "{steps}: {cached} cached, {run} would run{may_run}")
}

#[derive(Serialize)]
struct Plan<'a> {
    /// Steps that would be found, run, and run or be found.
    cached: usize,
    run: usize,
    may_run: usize,
    steps: &'a [ForetoldStep],
}

fn json(out: &mut dyn Write, steps: &[ForetoldStep]) -> io::Result<()> {
    let count = |status| steps.iter().filter(|step| step.status == status).count();
    let plan = Plan { cached: count(Status::Cached), run: count(Status::Run), may_run: count(Status::MayRun), steps };
    serde_json::to_writer_pretty(&mut *out, &plan)?;
    writeln!(out)
}
