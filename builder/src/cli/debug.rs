//! `kiln debug`: looking into builds, and into what went wrong.

use super::build_args::BuildArgs;
use super::{Cli, build, exit, open_store};
use crate::sandbox::isolation::{Rights, Wanted};
use crate::sandbox::userns::Identity;
use anyhow::Result;
use cache::verify::Mode;
use clap::{Args, Subcommand};

/// The command.
#[derive(Args, Debug)]
pub struct DebugArgs {
    #[command(subcommand)]
    command: DebugCommand,
}

#[derive(Subcommand, Debug)]
enum DebugCommand {
    /// Check all that is stored: blobs, snapshots, records
    Verify(VerifyArgs),
    /// Build a stage and open a shell in it, or run a command; what is written there is thrown away
    Shell(Box<ShellArgs>),
}

#[derive(Args, Debug)]
struct VerifyArgs {
    /// Remove what is damaged, so that it is made again
    #[arg(long)]
    repair: bool,
}

/// `kiln debug shell [FLAGS OF BUILD] PATH [-- COMMAND...]`.
#[derive(Args, Debug)]
pub(super) struct ShellArgs {
    #[command(flatten)]
    pub build: BuildArgs,
    /// Command to run in place of a shell
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl DebugArgs {
    /// `--isolation`.
    pub fn isolation(&self) -> Wanted {
        match &self.command {
            DebugCommand::Verify(_) => Wanted::Auto,
            DebugCommand::Shell(args) => args.build.isolation(),
        }
    }
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &DebugArgs, rights: Rights) -> Result<u8> {
    match &args.command {
        DebugCommand::Verify(args) => verify(cli, args, &rights.identity),
        DebugCommand::Shell(args) => build::run_purpose(cli, &args.build, build::Purpose::Enter(&args.command), rights),
    }
}

fn verify(cli: &Cli, args: &VerifyArgs, identity: &Identity) -> Result<u8> {
    let store = open_store(cli, identity)?;
    let report = store.verify(if args.repair { Mode::Repair } else { Mode::Look })?;
    for finding in &report.findings {
        let done = if finding.is_repaired { " (removed)" } else { "" };
        println!("{}{done}", crate::progress::chain(&finding.problem));
    }
    store.take_remarks().iter().for_each(|remark| println!("{remark}"));
    let found = match report.findings.len() {
        0 => "no damage".to_string(),
        1 => "1 damage".to_string(),
        count => format!("{count} damages"),
    };
    println!("{} blobs, {} snapshots, {} records: {found} found", report.blobs, report.snapshots, report.records);
    if report.is_clean() {
        return Ok(exit::SUCCESS);
    }
    if !args.repair {
        println!("`kiln debug verify --repair` removes what is damaged; the next build makes it again");
    }
    Ok(exit::DAMAGED)
}
