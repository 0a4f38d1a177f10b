//! Starts kiln: enters a user namespace where one is needed, then runs the command.

use builder::cli::{Cli, Command, build, debug, du, exit, logs, prune};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread exists: the kernel refuses a new user namespace to a program that has several.
    let cli = Cli::parse();
    let identity = match builder::sandbox::userns::enter_if_needed() {
        Ok(identity) => identity,
        Err(error) => {
            eprintln!("ERROR: {}", builder::progress::chain(&error));
            return ExitCode::from(exit::FAILURE);
        }
    };
    let result = match &cli.command {
        Command::Build(args) => build::run(&cli, args, identity),
        Command::Debug(args) => debug::run(&cli, args, identity),
        Command::Logs(args) => logs::run(&cli, args, &identity),
        Command::Du(args) => du::run(&cli, args, &identity),
        Command::Prune(args) => prune::run(&cli, args, &identity),
    };
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::from(exit::FAILURE)
        }
    }
}
