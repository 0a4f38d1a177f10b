//! `kiln plan`: what a build would run, and why.

use harness::{Finished, Kiln, Tree};
use serde_json::Value;

fn plan(kiln: &Kiln, context: &Tree, args: &[&str]) -> Finished {
    let folder = context.path().to_str().unwrap();
    kiln.run("plan", &[args, &[folder]].concat())
}

/// Name and status of each step, and the exit code.
fn statuses(kiln: &Kiln, context: &Tree, args: &[&str]) -> (Vec<String>, Option<i32>) {
    let finished = plan(kiln, context, &[args, &["--format=json"]].concat());
    let plan: Value = serde_json::from_slice(&finished.stdout).unwrap_or_else(|_| panic!("{}", finished.stderr));
    let text = |step: &Value, key: &str| step[key].as_str().unwrap_or_default().to_string();
    let steps = plan["steps"].as_array().unwrap();
    let shown = |step: &Value| format!("{}: {}", text(step, "name"), text(step, "status"));
    (steps.iter().map(shown).collect(), finished.status.code())
}

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS build\nCOPY src /src\nRUN cat /src/* | wc -c > /size\nFROM busybox\nCOPY --from=build /size /size\nRUN cat /size\n",
    )
    .file("src/a", "a")
}

#[test]
fn nothing_runs_and_what_would_is_said() {
    let kiln = Kiln::new();
    let context = context();
    let (steps, code) = statuses(&kiln, &context, &[]);
    let expect = [
        "[build 2/3] COPY src /src: run",
        "[build 3/3] RUN cat /src/* | wc -c > /size: run",
        "[stage-1 2/3] COPY --from=build /size /size: may_run",
        "[stage-1 3/3] RUN cat /size: may_run",
    ];
    assert_eq!((steps, code), (expect.map(String::from).to_vec(), Some(4)));
    assert!(kiln.says("history", &["ls"]).lines().count() == 1, "a plan is no build");
    let ran = kiln.build(&context).ok().ran();
    assert_eq!(ran.len(), 4, "the plan ran nothing: {ran:?}");
    let (steps, code) = statuses(&kiln, &context, &[]);
    assert!(code == Some(0) && steps.iter().all(|step| step.ends_with(": cached")), "{steps:?}");

    context.write("src/a", "b");
    let text = plan(&kiln, &context, &[]);
    for part in [
        "run      [build 2/3] COPY src /src\n           src/a changed\n",
        "run      [build 3/3] RUN cat /src/* | wc -c > /size\n           it follows [build 2/3] COPY src /src\n",
        "may run  [stage-1 2/3] COPY --from=build /size /size\n           unless [build 3/3] RUN",
        "4 steps: 0 cached, 2 would run, 2 may run\n",
    ] {
        assert!(text.text().contains(part.trim_end()), "{part}:\n{}", text.text());
    }
    // As was said, what may run need not: the size is the same.
    let built = kiln.build(&context).ok();
    assert_eq!((built.ran().len(), built.cached().len()), (2, 2));
    let dry = kiln.build(&context).args(["--dry-run"]).run();
    assert!(dry.status.success() && dry.text().ends_with("4 steps: 4 cached, 0 would run"), "{}", dry.text());
    let (steps, code) = statuses(&kiln, &context, &["--no-cache"]);
    assert!(code == Some(4) && steps[0].ends_with(": run"), "{steps:?}");
}

#[test]
fn no_layer_is_fetched() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM scratch\nCOPY --from=busybox /bin/busybox /b\n");
    let finished = plan(&kiln, &context, &[]);
    assert!(
        finished.status.code() == Some(4) && finished.text().contains("has not been fetched"),
        "{}",
        finished.text()
    );
    let snapshots = std::fs::read_dir(kiln.root().join("snapshots")).unwrap().count();
    assert_eq!(snapshots, 0);
}

#[test]
fn what_a_build_would_refuse_is_refused() {
    let kiln = Kiln::new();
    let finished = plan(&kiln, &Tree::dockerfile("FROM busybox\nCOPY missing /\n"), &[]);
    assert_eq!(finished.status.code(), Some(1));
    finished.says(&["missing", "Dockerfile:2"]);
    let other = plan(&kiln, &Tree::dockerfile("FROM busybox\n"), &["--call=outline"]);
    assert!(
        other.status.code() == Some(1) && other.stderr.contains("leave --call and --check out"),
        "{}",
        other.stderr
    );
}
