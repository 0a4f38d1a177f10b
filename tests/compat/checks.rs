//! `--check` and `--call`, as docker's users and their scripts know them; and kiln's own advice, which must not get into
//! their way.

use harness::{Finished, Kiln, Registry, Tree};
use serde_json::Value;

const UNTIDY: &str = "FROM busybox AS Base\nRUN apk add curl\nCMD run me\n";

/// Standard output, to the last blank.
fn said(finished: &Finished) -> String {
    String::from_utf8(finished.stdout.clone()).expect("the answer is UTF-8")
}

#[test]
fn a_check_says_what_it_finds_and_builds_nothing() {
    let kiln = Kiln::new();
    let finished = kiln.build(&Tree::dockerfile(UNTIDY)).args(["--check", "--push", "-t", "localhost:1/x"]).fails();
    let text = said(&finished);
    assert!(
        text.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: StageNameCasing - https://"),
        "{text}"
    );
    let excerpt = "Dockerfile:3\n--------------------\n   1 |     FROM busybox AS Base\n   2 |     RUN apk add curl\n   3 | >>> CMD run me\n";
    assert!(text.contains(excerpt), "{text}");
    assert!(text.contains("\nADVICE: ApkCacheKept - docs/checks.md#apkcachekept\n"), "{text}");
    assert_eq!(finished.status.code(), Some(1));
    assert!(!finished.stderr.contains("RUN apk"), "nothing runs: {}", finished.stderr);
}

#[test]
fn advice_has_no_exit_status_until_it_is_asked_for() {
    let kiln = Kiln::new();
    let check = |text: &str, args: &[&str], code: i32, begins: &str| {
        let finished = kiln.build(&Tree::dockerfile(text)).args(args).run();
        assert_eq!(finished.status.code(), Some(code), "{args:?} {}", finished.report());
        assert!(said(&finished).starts_with(begins), "{}", said(&finished));
    };
    let (clean, one) = ("Check complete, no warnings found.\n", "Check complete, 1 warning has been found!\n");
    let advised = "FROM busybox:latest\nRUN cd /x\n";
    check(advised, &["--check"], 0, clean);
    check(advised, &["--check=strict"], 1, "Check complete, 2 warnings have been found!\n");
    check(advised, &["--call=check,strict=true,ignorestatus=true"], 0, "Check complete, 2 warnings");
    check(&format!("# check=experimental=RunStateLost\n{advised}"), &["--check"], 1, one);
    check(&format!("# check=skip=kiln\n{advised}"), &["--check=strict"], 0, clean);
    check(UNTIDY, &["--call=frontend.lint,ignorestatus=1"], 0, "Check complete, 2 warnings");
    check(UNTIDY, &["--check", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=all"], 0, clean);
}

#[test]
fn all_stages_are_checked_unless_a_target_is_given() {
    let kiln = Kiln::new();
    let tree = Tree::dockerfile("FROM busybox AS unused\nENV A=$X\nFROM busybox AS last\nENV B=$Y\n");
    let found = |args: &[&str]| -> Vec<String> {
        let finished = kiln.build(&tree).args(["--call=check,format=json"]).args(args).run();
        let found: Value = serde_json::from_str(&said(&finished)).expect("the answer is JSON");
        let details = found["warnings"].as_array().into_iter().flatten();
        details.map(|warning| warning["detail"].as_str().unwrap().to_string()).collect()
    };
    let undefined = |name: &str| format!("Usage of undefined variable '${name}'");
    assert_eq!(found(&[]), [undefined("X"), undefined("Y")]);
    assert_eq!(found(&["--target", "last"]), [undefined("Y")]);
    let built = kiln.build(&tree).progress("plain").ok();
    assert!(built.stderr.contains(&format!(" - UndefinedVar: {} (line 4)\n", undefined("Y"))), "{}", built.stderr);
    assert!(!built.stderr.contains(&undefined("X")), "{}", built.stderr);
}

#[test]
fn a_build_lists_warnings_each_time_and_once() {
    let kiln = Kiln::new();
    let tree = Tree::dockerfile("FROM busybox as base\nRUN true\n");
    let listed = "\n 1 warning found (use --debug to expand):\n - FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n";
    for _ in 0..2 {
        let finished = kiln.build(&tree).progress("plain").ok();
        assert!(finished.stderr.contains(listed), "{}", finished.stderr);
        let logged = "WARN: FromAsCasing: 'as' and 'FROM' keywords' casing do not match (line 1)\n";
        assert_eq!(finished.stderr.matches(logged).count(), 1, "{}", finished.stderr);
        assert!(finished.stdout.is_empty());
    }
    let expanded = kiln.build(&tree).args(["--debug"]).progress("plain").ok();
    expanded.says(&[
        "1 warning found:\n",
        "More info: https://docs.docker.com/go/dockerfile/rule/from-as-casing/\nDockerfile:1\n",
    ]);
    let quiet = kiln.build(&tree).args(["--quiet"]).ok();
    assert!(!quiet.stderr.contains("FromAsCasing"), "{}", quiet.stderr);
}

#[test]
fn raw_progress_has_warnings_with_their_place() {
    let tree = Tree::dockerfile("FROM busybox\nMAINTAINER me\n");
    let finished = Kiln::new().build(&tree).progress("rawjson").ok();
    let updates = finished.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let warnings: Vec<Value> =
        updates.flat_map(|update| update["warnings"].as_array().cloned().unwrap_or_default()).collect();
    let [warning] = warnings.as_slice() else { panic!("{warnings:?}") };
    assert_eq!(warning["level"], 1);
    assert_eq!(warning["url"], "https://docs.docker.com/go/dockerfile/rule/maintainer-deprecated/");
    assert_eq!(warning["sourceInfo"]["filename"], "Dockerfile");
    assert_eq!(warning["range"][0]["start"]["line"], 2);
}

#[test]
fn warnings_can_be_errors_before_anything_runs() {
    let tree = Tree::dockerfile("# check=error=true\nFROM busybox AS Base\nRUN touch /x\n");
    let finished = Kiln::new().build(&tree).progress("plain").fails();
    finished.says(&[
        "lint violation found for rules: StageNameCasing",
        " - StageNameCasing: Stage name 'Base' should be lowercase (line 2)",
    ]);
    assert!(!finished.stderr.contains("RUN touch"), "{}", finished.stderr);
}

#[test]
fn a_dockerfile_that_cannot_be_built_is_checked_as_far_as_it_goes() {
    let kiln = Kiln::new();
    let tree = Tree::dockerfile("FROM busybox AS Base\nFOO\n");
    let finished = kiln.build(&tree).args(["--call=check,format=json,ignorestatus=true"]).fails();
    let found: Value = serde_json::from_str(&said(&finished)).expect("the answer is JSON");
    let message = found["buildError"]["message"].as_str().unwrap();
    assert!(message.starts_with("dockerfile parse error on line 2: unknown instruction: FOO"), "{message}");
    assert_eq!(found["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    assert_eq!(found["warnings"][0]["ruleName"], "StageNameCasing");
    finished.says(&["ERROR: dockerfile parse error on line 2: unknown instruction: FOO", "   2 | >>> FOO\n"]);
    let missing = format!("FROM {}/no/such:image\n", Registry::shared().host);
    let missing = kiln.build(&Tree::dockerfile(&missing)).args(["--check"]).fails();
    missing.says(&["/no/such:image: not found"]);
}

#[test]
fn a_registry_that_cannot_be_reached_takes_away_only_what_depends_on_it() {
    let kiln = Kiln::new();
    // Nothing listens there.
    let tree = Tree::dockerfile("FROM 127.0.0.1:1/base:1\nENV A=$FROM_BASE\nMAINTAINER me\n");
    let finished = kiln.build(&tree).args(["--check"]).fails();
    assert!(said(&finished).starts_with("Check complete, 1 warning has been found!\n\nWARNING: MaintainerDeprecated"));
    finished.says(&["NOTE: the config of 127.0.0.1:1/base:1 could not be read"]);
    let clean = kiln.build(&Tree::dockerfile("FROM 127.0.0.1:1/base:1\nENV A=$FROM_BASE\n")).args(["--check"]).ok();
    assert_eq!(said(&clean), "Check complete, no warnings found.\n");
}

#[test]
fn outline_targets_and_requests() {
    let kiln = Kiln::new();
    let text = "ARG V=1\n# base the tools\nFROM busybox AS base\n# WHO is greeted\nARG WHO=you$V\n\
                # app the program\nFROM base AS app\nARG V\nRUN --mount=type=secret,id=t,required --mount=type=ssh x\n";
    let tree = Tree::dockerfile(text);
    let answer = |args: &[&str]| said(&kiln.build(&tree).args(args).ok());
    let outline = "TARGET:      app\nDESCRIPTION: the program\n\nBUILD ARG   VALUE   DESCRIPTION\nV           1       \n\
                   WHO         they    is greeted\n\nSECRET   REQUIRED\nt        true\n\nSSH       REQUIRED\ndefault   \n\n";
    assert_eq!(answer(&["--call=outline", "--build-arg", "WHO=they"]), outline);
    let found: Value = serde_json::from_str(&answer(&["--call=outline,format=json", "--target=base"])).unwrap();
    assert_eq!((&found["name"], &found["args"][0]["name"]), (&"base".into(), &"WHO".into()));
    assert_eq!(found["args"].as_array().unwrap().len(), 1);
    assert_eq!(
        answer(&["--call=targets"]),
        "TARGET        DESCRIPTION\nbase          the tools\napp (default) the program\n"
    );
    let found: Value = serde_json::from_str(&answer(&["--call=frontend.targets,format=json"])).unwrap();
    assert_eq!((&found["targets"][1]["default"], &found["targets"][0]["base"]), (&true.into(), &"busybox".into()));
    assert!(answer(&["--call=subrequests.describe"]).contains("\ntargets              1.0.0   List all targets"));
    let unknown = kiln.build(&tree).args(["--call=frobnicate"]).fails();
    unknown.says(&["unsupported request `frobnicate`; kiln has: build, check, outline, targets, subrequests.describe"]);
}

#[test]
fn rules_are_switched_in_the_configuration_file() {
    let toml = format!(
        "{}\n[checks]\nskip = [\"StageNameCasing\"]\nexperimental = [\"ApkCacheKept\"]\n",
        Registry::shared().kiln_toml()
    );
    let finished = Kiln::with_config(&toml).build(&Tree::dockerfile(UNTIDY)).args(["--check"]).fails();
    let text = said(&finished);
    assert!(text.starts_with("Check complete, 2 warnings have been found!\n\nWARNING: ApkCacheKept"), "{text}");
    assert!(!text.contains("StageNameCasing"), "{text}");
}
