//! `kiln logs`: the complete output of the steps of a build.

use super::{Cli, exit, open_store};
use crate::history::{self, BuildRecord, Status, StepRecord};
use crate::sandbox::userns::Identity;
use anyhow::{Context, Result};
use clap::Args;
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Flags of the command.
#[derive(Args, Debug)]
pub struct LogsArgs {
    /// Build, by its id or the beginning or end of it (default: the latest)
    build: Option<String>,
    /// Step: its place such as 2/5, its stage, or a part of its name (default: all with output)
    step: Option<String>,
    /// List the builds instead
    #[arg(long, conflicts_with_all = ["build", "step"])]
    list: bool,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &LogsArgs, identity: &Identity) -> Result<u8> {
    let store = open_store(cli, identity)?;
    let printed = match args.list {
        true => print_list(&history::list(&store)?),
        false => {
            let (folder, record) = history::find(&store, args.build.as_deref())?;
            match print_logs(&folder, &record, args.step.as_deref())? {
                Printed::Nothing(why) => {
                    eprintln!("ERROR: {why}");
                    return Ok(exit::FAILURE);
                }
                Printed::Some => Ok(()),
            }
        }
    };
    super::printed(printed)
}

fn print_list(records: &[BuildRecord]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{:23} {:10} {:>9}  WHAT", "BUILD", "STATUS", "SECONDS")?;
    for record in records {
        let seconds = record.duration_ms.map_or("-".to_string(), |ms| format!("{:.1}", ms as f64 / 1000.0));
        let (status, what) = (record.status.word(), record.about.line());
        writeln!(out, "{:23} {status:10} {seconds:>9}  {what}", record.id)?;
    }
    Ok(())
}

enum Printed {
    Some,
    /// Why.
    Nothing(String),
}

fn print_logs(folder: &Path, record: &BuildRecord, wanted: Option<&str>) -> Result<Printed> {
    let nothing = |why: String| Ok(Printed::Nothing(why));
    let build = &record.id;
    match record.status {
        Status::Running => return nothing(format!("build {build} still runs; its steps are listed when it ends")),
        Status::Killed => {
            let folder = folder.display();
            return nothing(format!(
                "build {build} was killed, so its steps are not listed; what they wrote is in {folder}"
            ));
        }
        Status::Completed | Status::Failed | Status::Canceled => {}
    }
    let steps = match wanted {
        None => record.steps.iter().collect(),
        Some(wanted) => history::called(&record.steps, wanted),
    };
    let with_output: Vec<(&StepRecord, &String)> =
        steps.iter().filter_map(|step| step.log.as_ref().map(|log| (*step, log))).collect();
    match (wanted, steps.as_slice()) {
        (Some(wanted), []) => {
            return nothing(history::not_called(record, wanted));
        }
        (Some(_), [.., step]) if with_output.is_empty() => {
            return nothing(match step.outcome.as_str() {
                "cached" => format!("{} was cached: what it wrote is with the build that ran it", step.name),
                _ => format!("{} wrote nothing", step.name),
            });
        }
        (None, _) if with_output.is_empty() => return nothing(format!("no step of build {build} wrote anything")),
        _ => {}
    }
    let mut out = io::stdout().lock();
    for (step, log) in &with_output {
        // A single log is given as it is, to be piped.
        if with_output.len() > 1 {
            let seconds = step.duration_ms as f64 / 1000.0;
            end_of_pipe(writeln!(out, "==> {} ({}, {seconds:.1} s)", step.name, step.outcome))?;
        }
        let path = folder.join(log);
        let mut file = File::open(&path).with_context(|| format!("open {}", path.display()))?;
        end_of_pipe(io::copy(&mut file, &mut out).map(drop))?;
    }
    Ok(Printed::Some)
}

/// A closed pipe is no error.
fn end_of_pipe(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => std::process::exit(i32::from(exit::SUCCESS)),
        result => result.context("write to standard output"),
    }
}
