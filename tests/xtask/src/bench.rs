//! Times builds with the benchmark of $KILN_BENCH or ../shared/bench/bench.

use anyhow::{Context, Result, ensure};
use harness::Registry;
use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

/// Where the benchmark's Dockerfiles expect their bases.
const ADDRESS: &str = "127.0.0.1:5000";

/// `[--work DIR] [WORKLOAD...]`
pub fn run(arguments: &[String]) -> Result<()> {
    let (mut work, mut workloads) = (None, vec![]);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--work" => work = Some(PathBuf::from(rest.next().context("--work needs a folder")?)),
            workload => workloads.push(workload.to_string()),
        }
    }
    let named = std::env::var_os("KILN_BENCH").map(PathBuf::from);
    let bench = named.unwrap_or_else(|| crate::root().join("../shared/bench/bench"));
    ensure!(bench.is_file(), "{} is not there; KILN_BENCH names the benchmark", bench.display());

    let kiln = crate::build("release")?;
    let mkbases = bench.with_file_name("../lab/mkbases");
    let _registry = match TcpStream::connect(ADDRESS) {
        Ok(_) => {
            eprintln!("using the registry that listens on {ADDRESS}");
            None
        }
        Err(_) => {
            let registry = Registry::start_at(ADDRESS)?;
            let bases = crate::conform::bases(&mkbases, "amd64", "amd64")?;
            crate::conform::push(&bases, "busybox", ADDRESS)?;
            crate::conform::push(&bases, "debian", ADDRESS)?;
            Some(registry)
        }
    };
    // Stores and contexts are made anew each time: removing many files makes later creation slow on some file systems.
    let scratch = tempfile::Builder::new().prefix("kiln-bench-").tempdir()?;
    let work = work.unwrap_or_else(|| scratch.path().join("work"));
    let config = scratch.path().join("kiln.toml");
    fs::write(&config, "[registry.\"localhost:5000\"]\nhttp = true\n")?;
    let build = format!(
        "{} --config {} --root {{root}} build --provenance=false --progress=quiet",
        kiln.display(),
        config.display()
    );
    let builders = scratch.path().join("builders.json");
    fs::write(&builders, serde_json::json!({"kiln": {"build": build, "reset": ""}}).to_string())?;
    let mut command = Command::new(&bench);
    command.arg("--builders").arg(&builders).arg("--work").arg(&work);
    if !workloads.is_empty() {
        command.args(["--only", &workloads.join(",")]);
    }
    crate::call(&mut command)
}
