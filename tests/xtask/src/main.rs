//! `cargo xtask`: the one way to run everything, here and in CI. Ordinary programs are called; no state is kept but
//! what is below the target folder.

mod bench;
mod check;
mod conform;
mod demo;
mod dist;
mod fuzz;
mod setup;
mod suite;

use anyhow::{Context, Result, bail, ensure};
use std::path::PathBuf;
use std::process::{Command, ExitCode};

const USAGE: &str = "\
usage: cargo xtask COMMAND

  demo                     build examples/hello with kiln, twice, and show the image
  setup                    install the Debian packages that tests need
  check                    formatting, clippy, documentation, and which crate knows which
  test                     unit tests of all crates
  e2e [FILTER...]          end-to-end tests of the built kiln (KILN_NETWORK=1: also those that need the network)
  conform [--bless] [--user | --confined] [AREA...]
                           compare with images that BuildKit made; --bless adds to the list of cases that must pass,
                           --user builds as an ordinary user
  bench [--work DIR] [WORKLOAD...]
                           time builds, with a release build of kiln
  bless                    accept what error messages and snapshots have become
  fuzz [--seconds N] [TARGET...]
                           run fuzz targets one after another, N seconds each (60); without TARGET, all
  dist                     one static binary
  ci                       check, test, e2e, conform
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all is well.
fn run(arguments: &[String]) -> Result<bool> {
    let Some((command, rest)) = arguments.split_first() else { bail!("no command\n\n{USAGE}") };
    let passed = |counts: suite::Counts| counts.report();
    match command.as_str() {
        "demo" => demo::run().map(|()| true),
        "setup" => setup::run().map(|()| true),
        "check" => check::run().map(passed),
        "test" => suite::unit().map(passed),
        "e2e" => suite::end_to_end(rest).map(passed),
        "conform" => conform::run(rest).map(passed),
        "bench" => bench::run(rest).map(|()| true),
        "bless" => suite::bless().map(passed),
        "fuzz" => fuzz::run(rest).map(passed),
        "dist" => dist::run().map(|()| true),
        "ci" => ci(),
        _ => bail!("unknown command {command}\n\n{USAGE}"),
    }
}

/// Everything; goes on after a failure, so that one run tells all.
fn ci() -> Result<bool> {
    let mut all = suite::Counts::default();
    type Part = fn() -> Result<suite::Counts>;
    let parts: [(&str, Part); 4] = [
        ("check", check::run),
        ("test", suite::unit),
        ("e2e", || suite::end_to_end(&[])),
        ("conform", || conform::run(&[])),
    ];
    for (name, part) in parts {
        eprintln!("== {name}");
        match part() {
            Ok(counts) => all += counts,
            Err(error) => {
                eprintln!("{name}: {error:#}");
                all.failed += 1;
            }
        }
    }
    Ok(all.report())
}

/// Root of the source tree.
fn root() -> PathBuf {
    harness::workspace().canonicalize().unwrap_or_else(|_| harness::workspace().to_path_buf())
}

/// Where cargo puts what it makes.
fn target() -> Result<PathBuf> {
    let output = cargo(&["metadata", "--no-deps", "--format-version=1"]).output().context("run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(metadata["target_directory"].as_str().context("cargo metadata names no target folder")?.into())
}

/// Builds kiln; gives its path. `dev` or `release`.
fn build(profile: &str) -> Result<PathBuf> {
    call(&mut cargo(&["build", "--package=builder", "--bin=kiln", "--profile", profile]))?;
    let folder = if profile == "dev" { "debug" } else { profile };
    Ok(target()?.join(folder).join("kiln"))
}

/// Cargo, in the source tree. Not with what `cargo run` tells of this package: ring's build script depends on it, and
/// it and all that needs it would be built anew whenever xtask and cargo take turns.
fn cargo(arguments: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).current_dir(root());
    command
}

/// Runs a program with this one's output; an error unless it succeeds.
fn call(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    ensure!(status.success(), "{command:?}: {status}");
    Ok(())
}
