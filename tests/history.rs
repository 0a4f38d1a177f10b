//! What is kept of builds: `kiln logs`.

use harness::{Kiln, Tree};
use std::process::Output;

fn logs(kiln: &Kiln, args: &[&str]) -> Output {
    kiln.command("logs").args(args).output().expect("run kiln logs")
}

/// Standard output of a successful `kiln logs`.
fn text(kiln: &Kiln, args: &[&str]) -> String {
    let output = logs(kiln, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

fn refused(kiln: &Kiln, args: &[&str], expect: &str) {
    let output = logs(kiln, args);
    let message = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && message.contains(expect), "{args:?}: {message}");
}

#[test]
fn all_of_a_steps_output_is_kept() {
    let kiln = Kiln::new();
    refused(&kiln, &[], "no builds yet");
    // More than progress shows of a step.
    let context = Tree::dockerfile(
        "FROM busybox AS a\nRUN seq 1 600000 && echo error >&2\nFROM busybox\nRUN --mount=from=a,target=/a echo b\n",
    );
    let build = kiln.build(&context).ok();
    assert!(build.log().contains("output clipped"));
    let expect: String = (1..=600_000).map(|number| format!("{number}\n")).collect();
    for step in ["a", "a 2/2", "seq 1"] {
        // Two streams are read, so the one may come before the end of the other.
        let written = text(&kiln, &["", step]);
        assert!(written.contains("error\n") && written.replacen("error\n", "", 1) == expect, "{step}");
    }
    let all = text(&kiln, &[]);
    assert!(
        all.starts_with("==> [a 2/2] RUN seq 1 600000 && echo error >&2 (done, ") && all.contains("\nb\n"),
        "{all:.200}"
    );
    refused(&kiln, &["", "7/7"], "no step of build");
    refused(&kiln, &["nope"], "no build is called \"nope\"");
}

#[test]
fn builds_are_listed_with_how_they_ended() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox AS first\nRUN echo out\nFROM first\nRUN echo why && false\n");
    kiln.build(&context).args(["--target=first", "--tag=app:1"]).ok();
    kiln.build(&context).fails();
    let list = text(&kiln, &["--list"]);
    let lines: Vec<&str> = list.lines().collect();
    let [_, first, second] = lines[..] else { panic!("{list}") };
    assert!(first.contains(" completed ") && first.ends_with(". --target first -t app:1"), "{list}");
    assert!(second.contains(" failed "), "{list}");
    let id = |line: &str| line.split(' ').next().unwrap_or_default().to_string();
    assert_eq!(text(&kiln, &[&id(first)]), "out\n");
    assert_eq!(text(&kiln, &[&id(second)]), "why\n");
    refused(&kiln, &[&id(second), "first"], "was cached");
}

#[test]
fn what_a_step_prints_of_its_secrets_is_masked() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=s --mount=type=secret,id=e,env=E cat /run/secrets/s; echo \"<$E>\" >&2; \
         head -c 5 /run/secrets/s; sleep 1; tail -c +6 /run/secrets/s; false\n",
    )
    .file("secret", "hush-hush-4711\n");
    let build =
        kiln.build(&context).args(["--secret=id=s,src=secret", "--secret=id=e"]).env("e", "very-secret").fails();
    assert!(build.log().contains("<****>"), "{}", build.log());
    for secret in ["hush-hush", "very-secret"] {
        assert!(!build.log().contains(secret) && !build.report().contains(secret));
        let found =
            std::process::Command::new("grep").args(["--recursive", "--text", secret]).arg(kiln.root()).output();
        assert_eq!(String::from_utf8_lossy(&found.expect("run grep").stdout), "");
    }
    assert_eq!(text(&kiln, &[]).matches("****").count(), 3);
}

#[test]
fn history_is_listed_shown_and_forgotten() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nARG A=1\nRUN echo $A > /f\n");
    let digest = kiln.build(&context).args(["--tag=app:1", "--build-arg=A=2"]).image().digest;
    kiln.build(&context).args(["--tag=app:2", "--build-arg=A=2"]).ok();
    context.write("Dockerfile", "FROM busybox\nRUN echo why && false\n");
    kiln.build(&context).fails();
    let list = kiln.says("history", &["ls"]);
    let lines: Vec<&str> = list.lines().skip(1).collect();
    let [newest, second, first] = lines[..] else { panic!("{list}") };
    assert!(newest.contains(" failed ") && newest.contains(" 0/1 "), "{list}");
    assert!(second.contains(" completed ") && second.contains(" 1/1 ") && second.ends_with(". -t app:2"), "{list}");
    let id = first.split(' ').next().unwrap();
    let shown = kiln.says("history", &["show", id]);
    for part in
        [&*format!("Digest:     {digest}"), "Arguments:  A=2", "never built here", "(0 of 1 cached)", "RUN echo 2 > /f"]
    {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let shown = kiln.says("history", &["show"]);
    assert!(shown.contains("Error:") && shown.contains("exit code: 1") && shown.contains("command: "), "{shown}");
    let json: serde_json::Value = serde_json::from_str(&kiln.says("history", &["show", "--format=json", id])).unwrap();
    assert_eq!(json["result"]["containerimage.digest"], digest);

    let count = |args: &[&str]| kiln.says("history", &[&["ls"], args].concat()).lines().count() - 1;
    assert_eq!((count(&["--filter=status=failed"]), count(&["--filter=tag=app"]), count(&["-n", "1"])), (1, 2, 1));
    assert_eq!((count(&["--filter=since=1h"]), count(&["--filter", &format!("id={id}")])), (3, 1));
    let refused = kiln.run("history", &["ls", "--filter=colour=red"]);
    assert!(refused.stderr.contains("there are status, tag"), "{}", refused.stderr);
    assert_eq!(kiln.says("history", &["rm", id]).trim(), id);
    assert_eq!(count(&[]), 2);
    assert!(!kiln.build(&context).fails().cached().is_empty() || count(&[]) == 3);
    kiln.says("history", &["rm", "--all"]);
    assert_eq!(count(&[]), 0);
}
