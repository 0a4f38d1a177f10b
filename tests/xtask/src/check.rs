//! What needs no running: formatting, lints, documentation, and the arrows between crates.

use crate::suite::Counts;
use anyhow::{Context, Result};
use serde_json::Value;

/// Which crate may know which (ARCHITECTURE.md). `builder` knows everyone, `solver` no one.
const ARROWS: [(&str, &[&str]); 4] =
    [("solver", &[]), ("frontend", &["solver"]), ("cache", &["solver"]), ("builder", &["frontend", "solver", "cache"])];

/// Runs all checks, also after one has failed.
pub fn run() -> Result<Counts> {
    let mut counts = Counts::default();
    for arguments in [
        &["fmt", "--all", "--check"][..],
        &["clippy", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"],
        &["doc", "--workspace", "--no-deps", "--document-private-items", "--quiet"],
    ] {
        let status = crate::cargo(arguments).env("RUSTDOCFLAGS", "-D warnings").status().context("run cargo")?;
        if !status.success() {
            eprintln!("failed: cargo {}", arguments.join(" "));
        }
        counts += Counts::of(status.success());
    }
    let wrong = wrong_arrows()?;
    for arrow in &wrong {
        eprintln!("failed: {arrow}");
    }
    counts += Counts::of(wrong.is_empty());
    Ok(counts)
}

fn wrong_arrows() -> Result<Vec<String>> {
    let output =
        crate::cargo(&["metadata", "--no-deps", "--format-version=1"]).output().context("run cargo metadata")?;
    let metadata: Value = serde_json::from_slice(&output.stdout).context("read cargo metadata")?;
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    let mut wrong = vec![];
    for (krate, allowed) in ARROWS {
        let Some(package) = packages.iter().find(|package| package["name"] == krate) else { continue };
        for dependency in package["dependencies"].as_array().into_iter().flatten() {
            let name = dependency["name"].as_str().unwrap_or_default();
            let sibling = ARROWS.iter().any(|(known, _)| *known == name);
            if sibling && name != krate && !allowed.contains(&name) {
                wrong.push(format!("{krate} must not depend on {name}"));
            }
        }
    }
    Ok(wrong)
}
