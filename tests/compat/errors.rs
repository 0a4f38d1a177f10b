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
fn usage_errors_exit_with_1_too() {
    let kiln = Kiln::new();
    kiln.build(&Tree::dockerfile("FROM scratch\n")).args(["--output=type=nonsense"]).fails().says(&["nonsense"]);
    kiln.build(&Tree::dockerfile("FROM scratch\n")).args(["-t", "UPPER"]).fails().says(&["UPPER"]);
}
