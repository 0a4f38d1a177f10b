//! Compares kiln's images with those that BuildKit made of the same Dockerfiles. The cases are kept outside this source
//! tree, in $KILN_CONFORMANCE or ../shared/conformance; without them there is nothing to compare.
//!
//! tests/conformance-passing.txt lists the cases that must pass, so that nothing that once worked is lost in silence.

use crate::suite::Counts;
use anyhow::{Context, Result, ensure};
use harness::{Registry, User};
use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ARCHITECTURES: &str = "amd64,arm64,arm/v7,386,s390x,ppc64le";

/// `[--bless] [--user | --confined] [AREA...]`
pub fn run(arguments: &[String]) -> Result<Counts> {
    let (flags, areas): (Vec<_>, Vec<_>) = arguments.iter().partition(|argument| argument.starts_with("--"));
    for flag in &flags {
        ensure!(["--bless", "--user", "--confined"].contains(&flag.as_str()), "unknown option {flag}");
    }
    let given = |name: &str| flags.iter().any(|flag| *flag == name);
    ensure!(!(given("--user") && given("--confined")), "--user and --confined are two modes: choose one");
    let Some(folder) = folder() else {
        eprintln!("conformance: skipped, as there are no cases; KILN_CONFORMANCE names their folder");
        return Ok(Counts::default());
    };
    let user = if given("--user") { Some(User::ordinary().map_err(anyhow::Error::msg)?) } else { None };
    let cases = cases(&folder, &areas)?;
    let runner = if given("--confined") { harness::confined().map_err(anyhow::Error::msg)? } else { vec![] };
    let failing = check(&folder, &areas, user.as_ref(), &runner)?;
    let passing: BTreeSet<String> = cases.difference(&failing).cloned().collect();
    let list = crate::root().join(match (&user, &runner[..]) {
        (Some(_), _) => "tests/conformance-passing-rootless.txt",
        (None, [_, ..]) => "tests/conformance-passing-confined.txt",
        (None, []) => "tests/conformance-passing.txt",
    });
    let counts = compare(&list, &cases, &passing, given("--bless"))?;
    eprintln!("conformance: {} of {} cases pass", passing.len(), cases.len());
    Ok(counts)
}

/// The folder with `conform` and `cases`.
fn folder() -> Option<PathBuf> {
    let named = std::env::var_os("KILN_CONFORMANCE").map(PathBuf::from);
    let folder = named.unwrap_or_else(|| crate::root().join("../shared/conformance")).canonicalize().ok()?;
    folder.join("conform").is_file().then_some(folder)
}

/// Names of the cases, as `area/name`.
fn cases(folder: &Path, areas: &[&String]) -> Result<BTreeSet<String>> {
    let mut cases = BTreeSet::new();
    for area in fs::read_dir(folder.join("cases")).context("list the conformance cases")? {
        let area = area?;
        if !area.path().is_dir() {
            continue;
        }
        let name = area.file_name().to_string_lossy().into_owned();
        let wanted = |case: &str| {
            areas.is_empty() || areas.iter().any(|wanted| **wanted == name || **wanted == format!("{name}/{case}"))
        };
        for case in fs::read_dir(area.path())? {
            let case = case?;
            let case_name = case.file_name().to_string_lossy().into_owned();
            if wanted(&case_name) && case.path().join("case.json").is_file() {
                cases.insert(format!("{name}/{case_name}"));
            }
        }
    }
    ensure!(!cases.is_empty(), "no conformance case is named {areas:?}");
    Ok(cases)
}

/// Runs `conform check`; gives the cases that differ. `runner` is what starts the program.
fn check(folder: &Path, areas: &[&String], user: Option<&User>, runner: &[PathBuf]) -> Result<BTreeSet<String>> {
    let kiln = crate::build("dev")?;
    let bases = bases(&folder.join("../lab/mkbases"), ARCHITECTURES, "")?;
    let registry = Registry::start()?;
    push(&bases, "busybox", &registry.host)?;
    let scratch = tempfile::Builder::new().prefix("kiln-conform-").tempdir()?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let config = scratch.path().join("kiln.toml");
    fs::write(&config, registry.kiln_toml())?;
    // Where the program was built may be closed to other users.
    let program = scratch.path().join("kiln");
    fs::copy(&kiln, &program).with_context(|| format!("copy {}", kiln.display()))?;

    let mut command = Command::new(folder.join("conform"));
    command.args(["check", "-j2", "--bases"]).arg(bases.join("bases.json"));
    let words: Vec<_> = runner.iter().chain([&program]).map(|word| word.display().to_string()).collect();
    command.arg(format!("--builder={} --config {} --root {{root}} build", words.join(" "), config.display()));
    if let Some(user) = user {
        command.args(["--user", &user.name]);
    }
    let paths = areas.iter().map(|area| format!("cases/{area}"));
    command.args(if areas.is_empty() { vec!["cases".to_string()] } else { paths.collect() });
    let mut child = command.current_dir(folder).stdout(Stdio::piped()).spawn().context("run conform")?;
    let mut failing = BTreeSet::new();
    let mut finished = false;
    for line in BufReader::new(child.stdout.take().context("standard output is a pipe")?).lines() {
        let line = line?;
        // Its last line counts by its own measure; ours is the list.
        finished |= line.contains(" passed, ");
        if let Some(path) = line.strip_prefix("DIFFER ") {
            failing.insert(path.trim().strip_prefix("cases/").unwrap_or(path).to_string());
        }
        eprintln!("{line}");
    }
    let status = child.wait()?;
    ensure!(finished, "conform did not finish: {status}");
    Ok(failing)
}

/// The base images, made once and kept below the target folder.
pub fn bases(mkbases: &Path, architectures: &str, debian: &str) -> Result<PathBuf> {
    let kind = if debian.is_empty() { "bases" } else { "bases-debian" };
    let folder = crate::target()?.join(kind);
    if !folder.join("bases.json").is_file() {
        let mut command = Command::new(mkbases);
        command.arg("--out").arg(&folder).args(["--arch", architectures]).stdout(Stdio::null());
        if !debian.is_empty() {
            command.args(["--debian", debian]);
        }
        crate::call(&mut command)?;
    }
    Ok(folder)
}

/// Copies a base into a registry, as `library/<name>`.
pub fn push(bases: &Path, name: &str, host: &str) -> Result<()> {
    let source = format!("oci:{}:latest", bases.join(name).display());
    let target = format!("docker://{host}/library/{name}:latest");
    crate::call(Command::new("skopeo").args(["copy", "--quiet", "--all", "--dest-tls-verify=false", &source, &target]))
}

/// A listed case that fails counts as failed, whatever else passes or not; an unlisted one that passes is named.
fn compare(list: &Path, cases: &BTreeSet<String>, passing: &BTreeSet<String>, bless: bool) -> Result<Counts> {
    let text = fs::read_to_string(list).unwrap_or_default();
    let listed: BTreeSet<String> = text.lines().filter(|line| !line.is_empty()).map(str::to_string).collect();
    let lost: Vec<_> = listed.intersection(cases).filter(|case| !passing.contains(*case)).collect();
    let new: Vec<_> = passing.difference(&listed).collect();
    for case in &lost {
        eprintln!("failed: {case} is listed as passing");
    }
    if !new.is_empty() && bless {
        let all: Vec<&str> = listed.union(passing).map(String::as_str).collect();
        fs::write(list, all.join("\n") + "\n").with_context(|| format!("write {}", list.display()))?;
        eprintln!("{} cases added to {}", new.len(), list.display());
    } else if !new.is_empty() {
        eprintln!("cases that pass and are not listed (add them with `cargo xtask conform --bless`):");
        new.iter().for_each(|case| eprintln!("  {case}"));
    }
    Ok(Counts { passed: passing.len(), failed: lost.len() })
}
