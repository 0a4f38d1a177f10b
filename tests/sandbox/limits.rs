//! What steps may use: memory and processors.

use harness::{Kiln, Tree, skip};
use std::fs;

/// Why limits cannot be set here, if they cannot: kiln would say so once and go on.
fn missing(kiln: &Kiln) -> Option<String> {
    let context = Tree::dockerfile("FROM busybox\nRUN true\n");
    let build = kiln.build(&context).args(["--memory=64m", "--cpus=1", "--cpuset-cpus=0"]).ok();
    let warning = build.warnings().into_iter().find(|warning| warning.contains("limits of "));
    warning.map(|warning| format!("this machine has no cgroups for it: {warning}"))
}

#[test]
fn a_step_that_needs_more_memory_fails_and_says_so() {
    let kiln = Kiln::new();
    if let Some(reason) = missing(&kiln) {
        skip!("{reason}");
    }
    let context = Tree::dockerfile("FROM busybox\nRUN x=$(head -c 100m /dev/zero | tr '\\0' x); echo ${#x} > /size\n");
    kiln.build(&context).args(["--memory=32m"]).fails().says(&["cannot allocate memory", "exit code: 137"]);
    // The limit is in no key, so the step that failed under one runs without it, and is then found under one.
    assert_eq!(kiln.build(&context).ok().ran().len(), 1);
    assert!(kiln.build(&context).args(["--memory=32m"]).ok().ran().is_empty());
}

#[test]
fn a_step_runs_on_the_processors_that_it_is_given() {
    let kiln = Kiln::new();
    if let Some(reason) = missing(&kiln) {
        skip!("{reason}");
    }
    let context = Tree::dockerfile("FROM busybox\nRUN grep Cpus_allowed_list /proc/self/status > /cpus\n");
    let image = kiln.build(&context).args(["--resource=cpuset-cpus=0,memory=64m"]).image();
    assert_eq!(image.text("/cpus"), "Cpus_allowed_list:\t0\n");
}

#[test]
fn what_a_user_may_not_limit_is_said_once() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    // Where cgroups are delegated to users there is nothing to say.
    if fs::read_to_string("/proc/self/cgroup").is_ok_and(|text| text.contains("user@")) {
        skip!("cgroups are delegated to users here");
    }
    let context = Tree::dockerfile("FROM busybox\nRUN true\nRUN true && true\n");
    let warnings = kiln.build(&context).args(["--memory=64m"]).ok().warnings();
    let about: Vec<_> = warnings.iter().filter(|warning| warning.contains("limits of memory")).collect();
    assert_eq!(about.len(), 1, "{warnings:?}");
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\n");
    for (flag, expect) in [
        ("--memory=lots", "it must be a number of bytes"),
        ("--resource=gpus=1", "`gpus` is no limit"),
        ("--cpus=0", "number of processors"),
        ("--memory-swap=1g", "needs --memory"),
    ] {
        kiln.build(&context).args([flag]).fails().says(&[expect]);
    }
}
