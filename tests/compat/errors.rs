//! Failed builds.

use harness::{Kiln, Tree};

#[test]
fn a_failing_step_is_shown_with_its_log_and_place() {
    let context = Tree::dockerfile(
        "FROM busybox\nRUN echo fine\nRUN for i in $(seq 20); do echo line $i; done; exit 7\nRUN true\n",
    );
    let finished = Kiln::new().build(&context).progress("plain").fails();
    let expect = "Dockerfile:3
--------------------
   1 |     FROM busybox
   2 |     RUN echo fine
   3 | >>> RUN for i in $(seq 20); do echo line $i; done; exit 7
   4 |     RUN true
   5 |     
--------------------
ERROR: failed to build: failed to solve: process \"/bin/sh -c for i in $(seq 20); do echo line $i; done; exit 7\" did not complete successfully: exit code: 7
";
    assert!(finished.stderr.contains(expect), "{}", finished.stderr);
    let (_, block) = finished.stderr.split_once("------\n > [3/4] RUN for i in $(seq 20)").expect("the failed step");
    let (block, _) = block.split_once("------\n").expect("end of the failed step");
    assert!(block.contains("line 20") && !block.contains("line 9\n"), "{block}");
}

#[test]
fn bad_dockerfiles_get_a_place_and_a_suggestion() {
    for (text, expect) in [
        (
            "FROM busybox\nRNU x\n",
            &["Dockerfile:2", "dockerfile parse error on line 2", "unknown instruction: RNU", "RUN"][..],
        ),
        ("FROM scratch\nCOPY --chwn=1 a /\n", &["Dockerfile:2", "unknown flag: --chwn", "chown"]),
        ("RUN x\n", &["no build stage in current context"]),
        ("", &["the Dockerfile cannot be empty"]),
        ("FROM scratch\nCOPY nothing /\n", &["Dockerfile:2", "nothing", "not found"]),
        (
            "FROM scratch AS early\nCOPY --from=later /x /\nFROM scratch AS later\nFROM early\n",
            &["Dockerfile:2", "later"],
        ),
    ] {
        Kiln::new()
            .build(&Tree::dockerfile(text))
            .fails()
            .says(expect)
            .says(&["ERROR: failed to build: failed to solve: "]);
    }
}

#[test]
fn missing_files_are_underlined_and_explained() {
    let check = |dockerfile: &str, expect: &[&str]| {
        let context = Tree::dockerfile(dockerfile).file("package.json", "{}").file("app/main.rs", "x");
        let context = context.file(".dockerignore", "# not needed\napp/\n");
        let finished = Kiln::new().build(&context).fails();
        finished
            .says(expect)
            .says(&["ERROR: failed to build: failed to solve: failed to compute cache key", "not found"]);
    };
    check(
        "FROM scratch\nCOPY \\\n  packge.json /x/\n",
        &[
            "error: `packge.json` is not in the build context\n --> Dockerfile:3:3",
            "^^^^^^^^^^^ did you mean `package.json`?",
        ],
    );
    check(
        "FROM scratch\nCOPY app/main.rs /x/\n",
        &["^^^^^^^^^^^ excluded by .dockerignore line 2: `app/`", "help: ", "add `!app/main.rs` below it"],
    );
    check("FROM scratch\nCOPY ../up /x/\n", &["`../up` leads out of the build context", "--build-context"]);
    check(
        "FROM busybox\nRUN --mount=type=bind,source=packge.json,target=/x true\n",
        &["Dockerfile:2:30", "did you mean `package.json`?"],
    );
}

#[test]
fn well_known_exit_codes_are_explained() {
    let check = |command: &str, expect: &[&str]| {
        let context = Tree::dockerfile(&format!("FROM busybox\nRUN {command}\n"));
        Kiln::new().build(&context).fails().says(expect);
    };
    check("no-such-command", &["exit code: 127", "help: the shell did not find a command"]);
    check("touch /f && /f", &["exit code: 126", "chmod +x"]);
    // The shell itself is process 1, which such signals do not reach.
    check("sh -c 'kill -9 $$'; exit $?", &["exit code: 137", "SIGKILL"]);
}

#[test]
fn build_args_without_an_arg_are_noted() {
    let context = Tree::dockerfile("FROM scratch\nARG VERSION\n");
    let finished = Kiln::new().build(&context).args(["--build-arg", "VERSIN=1"]).progress("plain").ok();
    let notice = "[Warning] One or more build-args [VERSIN] were not consumed (did you mean VERSION?)";
    assert!(finished.stderr.contains(notice), "{}", finished.stderr);
}

#[test]
fn usage_errors_exit_with_1_too() {
    let kiln = Kiln::new();
    kiln.build(&Tree::dockerfile("FROM scratch\n")).args(["--output=type=nonsense"]).fails().says(&["nonsense"]);
    kiln.build(&Tree::dockerfile("FROM scratch\n")).args(["-t", "UPPER"]).fails().says(&["UPPER"]);
}
