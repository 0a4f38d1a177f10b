//! Runs the fuzz targets of `tests/fuzz`, with `tests/corpus` as seeds. What a run finds by itself stays below the
//! target folder; what crashes is to be copied into `tests/corpus/fuzz/TARGET`, where `cargo test` runs it for ever.

use crate::suite::Counts;
use anyhow::{Context, Result, bail, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// Targets that take Dockerfiles, and so those of `tests/corpus/errors` too.
const OF_DOCKERFILES: [&str; 2] = ["dockerfile", "report"];

/// Longest time for one input, in seconds.
const TIMEOUT: u32 = 10;

/// `[--seconds N] [TARGET...]`
pub fn run(arguments: &[String]) -> Result<Counts> {
    let mut seconds: u32 = 60;
    let mut wanted: Vec<&str> = vec![];
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--seconds" => seconds = arguments.next().context("--seconds needs a number")?.parse()?,
            flag if flag.starts_with('-') => bail!("unknown option {flag}"),
            target => wanted.push(target),
        }
    }
    let folder = crate::root().join("tests/fuzz");
    let targets = targets(&folder)?;
    if let Some(unknown) = wanted.iter().find(|name| !targets.iter().any(|target| target == *name)) {
        bail!("there is no target {unknown}; there are: {}", targets.join(", "));
    }
    ensure_tools()?;
    let mut counts = Counts::default();
    for target in targets.iter().filter(|target| wanted.is_empty() || wanted.contains(&target.as_str())) {
        eprintln!("== fuzz {target}, {seconds} seconds");
        counts += Counts::of(fuzz(&folder, target, seconds)?);
    }
    Ok(counts)
}

fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = vec![];
    for entry in std::fs::read_dir(folder.join("fuzz_targets")).context("list the fuzz targets")? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        names.extend(name.strip_suffix(".rs").map(str::to_string));
    }
    names.sort();
    Ok(names)
}

fn ensure_tools() -> Result<()> {
    let works = |arguments: &[&str]| {
        let mut command = Command::new("cargo");
        let command = command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ensure!(works(&["+nightly", "--version"]), "fuzzing needs the nightly toolchain: rustup toolchain install nightly");
    ensure!(works(&["+nightly", "fuzz", "--version"]), "fuzzing needs cargo-fuzz: cargo install cargo-fuzz");
    Ok(())
}

fn fuzz(folder: &Path, target: &str, seconds: u32) -> Result<bool> {
    let corpus = crate::root().join("tests/corpus");
    // New inputs are written to the first folder.
    let found = crate::target()?.join("fuzz-corpus").join(target);
    std::fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
    let mut command = Command::new("cargo");
    // Cargo is to choose its toolchain itself.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").current_dir(folder);
    command.args(["+nightly", "fuzz", "run", "--fuzz-dir=.", "-O", target]).arg(&found);
    command.arg(corpus.join("fuzz").join(target));
    if OF_DOCKERFILES.contains(&target) {
        command.arg(corpus.join("errors"));
    }
    command.arg("--").arg(format!("-max_total_time={seconds}")).arg(format!("-timeout={TIMEOUT}"));
    let status = command.status().with_context(|| format!("run {command:?}"))?;
    Ok(status.success())
}
