//! Runs cargo's tests and counts them.

use anyhow::{Context, Result};
use std::io::{BufRead, BufReader};
use std::ops::AddAssign;
use std::process::{Command, Stdio};

/// Tests that passed and failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub passed: usize,
    pub failed: usize,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.passed += other.passed;
        self.failed += other.failed;
    }
}

impl Counts {
    /// Prints the line that tools read; true if nothing failed.
    pub fn report(self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0
    }

    /// One thing that went well, or not.
    pub fn of(ok: bool) -> Counts {
        Counts { passed: ok.into(), failed: (!ok).into() }
    }
}

/// Unit tests of all crates.
pub fn unit() -> Result<Counts> {
    cargo_test(&mut crate::cargo(&["test", "--workspace", "--exclude=e2e", "--no-fail-fast"]))
}

/// Runs the unit tests, and takes what they got for what they expect: errors in `tests/corpus/errors`, snapshots.
pub fn bless() -> Result<Counts> {
    let mut command = crate::cargo(&["test", "--workspace", "--exclude=e2e", "--no-fail-fast"]);
    cargo_test(command.env("KILN_BLESS", "1").env("INSTA_UPDATE", "always"))
}

/// Builds kiln, then drives it.
pub fn end_to_end(filters: &[String]) -> Result<Counts> {
    let kiln = match std::env::var_os("KILN_BIN") {
        Some(kiln) => kiln.into(),
        None => crate::build("dev")?,
    };
    let mut command = crate::cargo(&["test", "--package=e2e", "--test=e2e", "--"]);
    // Reasons of skipped tests are on standard error, which the test runner would swallow.
    command.args(filters).arg("--show-output").env("KILN_BIN", kiln);
    cargo_test(&mut command)
}

/// Runs `cargo test`, passing its output on.
fn cargo_test(command: &mut Command) -> Result<Counts> {
    let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("run {command:?}"))?;
    let stdout = child.stdout.take().context("standard output is a pipe")?;
    let mut counts = Counts::default();
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        counts += result_line(&line).unwrap_or_default();
    }
    let status = child.wait()?;
    // A test program that does not compile, or dies, has no result line.
    if !status.success() && counts.failed == 0 {
        counts.failed = 1;
    }
    Ok(counts)
}

/// `test result: ok. 12 passed; 0 failed; …`
fn result_line(line: &str) -> Option<Counts> {
    let (_, numbers) = line.strip_prefix("test result: ")?.split_once(". ")?;
    let number = |unit: &str| {
        let part = numbers.split("; ").find_map(|part| part.strip_suffix(unit))?;
        part.trim().parse().ok()
    };
    Some(Counts { passed: number("passed")?, failed: number("failed")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn result_lines_are_counted() {
        let check = |line, passed, failed| assert_eq!(result_line(line), Some(Counts { passed, failed }));
        check("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.14s", 12, 0);
        check("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out", 3, 2);
        assert_eq!(result_line("test a ... ok"), None);
    }
}
