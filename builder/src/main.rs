//! Starts kiln: enters a user namespace where one is needed, then runs the command.

use builder::cli::{
    Cli, Command, analyze, build, debug, du, exit, explain, history, image, login, logs, manifest, plan, prune, push,
};
use builder::sandbox::isolation::{self, Wanted};
use builder::sandbox::supervise;
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    // A copy of the program that watches over a step; no command for people.
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(supervise::COMMAND) {
        return ExitCode::from(supervise::main(arguments.next().as_deref()));
    }
    // Before any thread exists: the kernel refuses a new user namespace to a program that has several.
    let cli = Cli::parse();
    let wanted = match &cli.command {
        // The user's own files and programs are worked with, and no store.
        Command::Login(args) => return ended(login::login(&cli, args)),
        Command::Logout(args) => return ended(login::logout(args)),
        Command::Manifest(args) => return ended(manifest::run(&cli, args)),
        Command::Build(args) => args.isolation(),
        Command::Plan(args) => args.build.isolation(),
        Command::Debug(args) => args.isolation(),
        Command::Explain(_)
        | Command::History(_)
        | Command::Logs(_)
        | Command::Image(_)
        | Command::Analyze(_)
        | Command::Du(_)
        | Command::Push(_)
        | Command::Prune(_) => Wanted::Auto,
    };
    let rights = match isolation::enter(wanted) {
        Ok(rights) => rights,
        Err(error) => {
            eprintln!("ERROR: {}", builder::progress::chain(&error));
            return ExitCode::from(exit::FAILURE);
        }
    };
    ended(match &cli.command {
        Command::Login(_) | Command::Logout(_) | Command::Manifest(_) => unreachable!("ended above"),
        Command::Build(args) => build::run(&cli, args, rights),
        Command::Plan(args) => plan::run(&cli, args, rights),
        Command::Debug(args) => debug::run(&cli, args, rights),
        Command::Explain(args) => explain::run(&cli, args, &rights.identity),
        Command::History(args) => history::run(&cli, args, &rights.identity),
        Command::Logs(args) => logs::run(&cli, args, &rights.identity),
        Command::Image(args) => image::run(&cli, args, &rights),
        Command::Analyze(args) => analyze::run(&cli, args, &rights),
        Command::Du(args) => du::run(&cli, args, &rights.identity),
        Command::Push(args) => push::run(&cli, args, &rights.identity),
        Command::Prune(args) => prune::run(&cli, args, &rights.identity),
    })
}

fn ended(result: anyhow::Result<u8>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("ERROR: {error:#}");
            ExitCode::from(exit::FAILURE)
        }
    }
}
