//! Why a step ran: seeded causes, each named by the build that ran the step again.

use harness::bases::{Layout, busybox_images};
use harness::{Finished, Kiln, Registry, Tree};
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

const BASE: &str = "FROM busybox\nCOPY src /src\nRUN cat /src/a\n";

fn context(dockerfile: &str) -> Tree {
    Tree::dockerfile(dockerfile).file("src/a", "a").file("src/b", "b")
}

/// Builds, changes something, builds again with `args`; the reason of the step with `part` in its name must be `expect`.
#[track_caller]
fn check(context: &Tree, change: impl Fn(&Tree), args: &[&str], part: &str, expect: &str) {
    let kiln = Kiln::new();
    kiln.build(context).ok();
    change(context);
    let second = kiln.build(context).args(args).ok();
    assert_eq!(second.reason(part), expect);
}

#[track_caller]
fn rewritten(before: &str, after: &str, part: &str, expect: &str) {
    check(&context(before), |tree| tree.write("Dockerfile", after), &[], part, expect);
}

#[test]
fn files_of_the_context() {
    let check = |change: &dyn Fn(&Tree), expect: &str| check(&context(BASE), change, &[], "COPY src", expect);
    check(&|tree| tree.write("src/a", "A"), "src/a changed");
    check(&|tree| tree.write("src/new/file", "n"), "src/new/file is new");
    check(&|tree| tree.remove("src/b"), "src/b is gone");
    let mode = |tree: &Tree| fs::set_permissions(tree.join("src/a"), fs::Permissions::from_mode(0o755)).unwrap();
    check(&mode, "mode of src/a: 0644 -> 0755");
    let link = |tree: &Tree| {
        tree.remove("src/b");
        symlink("a", tree.join("src/b")).unwrap();
    };
    check(&link, "src/b changed");
    let both = |tree: &Tree| {
        tree.write("src/a", "A");
        tree.write("src/b", "B");
    };
    check(&both, "src/a changed (and 1 more)");
}

#[test]
fn what_follows_a_changed_step() {
    check(&context(BASE), |tree| tree.write("src/a", "A"), &[], "RUN cat", "[2/3] COPY src /src made something else");
}

#[test]
fn arguments_and_variables() {
    let text = "FROM busybox\nARG VERSION=1\nENV MODE=fast\nRUN echo x\n";
    check(&context(text), |_| {}, &["--build-arg=VERSION=2"], "RUN", r#"VERSION: "1" -> "2""#);
    rewritten(text, "FROM busybox\nARG VERSION=1\nENV MODE=slow\nRUN echo x\n", "RUN", r#"MODE: "fast" -> "slow""#);
    rewritten(text, "FROM busybox\nENV MODE=fast\nRUN echo x\n", "RUN", r#"VERSION: "1" is gone"#);
    let more = text.replace("RUN", "ENV MORE=1\nRUN");
    rewritten(text, &more, "RUN", r#"MORE: "1" is new"#);
    // With more than one difference the first is named.
    let two = "FROM busybox\nARG VERSION=2\nENV MODE=slow\nRUN echo x\n";
    rewritten(text, two, "RUN", r#"VERSION: "1" -> "2", and 1 more"#);
}

#[test]
fn what_the_instruction_says() {
    let text = "FROM busybox\nRUN echo one\n";
    rewritten(text, "FROM busybox\nRUN echo two\n", "RUN", r#"command: "echo one" -> "echo two""#);
    rewritten(text, "FROM busybox\nUSER nobody\nRUN echo one\n", "RUN", r#"USER: "" -> "nobody""#);
    rewritten(text, "FROM busybox\nRUN --network=none echo one\n", "RUN", r#"network: "default" -> "none""#);
    let copy = "FROM busybox\nCOPY src /src\n";
    rewritten(copy, "FROM busybox\nCOPY src /other\n", "COPY", r#"destination: "/src" -> "/other""#);
    let chmod = "FROM busybox\nCOPY --chmod=700 src /src\n";
    rewritten(copy, chmod, "COPY", r#"--chmod: "700" is new"#);
    let chown = "FROM busybox\nCOPY --chown=1:1 src /src\n";
    rewritten(copy, chown, "COPY", r#"--chown: "1:1" is new"#);
    let here = |text: &str| format!("FROM busybox\nCOPY <<f /f\n{text}\nf\n");
    rewritten(&here("1"), &here("2"), "COPY", r#"heredoc: "1\n" -> "2\n""#);
}

#[test]
fn base_images() {
    let registry = Registry::shared();
    let mut image = busybox_images(&["amd64"]).unwrap().remove(0);
    let mut push = |name: &str, label: &str| {
        image.config["Labels"] = json!({"label": label});
        image.layer.extend_from_slice(&[0; 1024]);
        let layout = Layout::temporary(std::slice::from_ref(&image)).unwrap();
        registry.push(&layout, name, "latest").unwrap();
    };
    let name = format!("{}/explain/moving", registry.host);
    push("explain/moving", "1");
    let kiln = Kiln::new();
    let context = context(&format!("FROM {name}\nRUN echo x\n"));
    kiln.build(&context).ok();
    push("explain/moving", "2");
    let reason = kiln.build(&context).ok().reason("RUN");
    let digests = reason.strip_prefix(&format!("base image {name}:latest: ")).unwrap_or_else(|| panic!("{reason}"));
    let (old, new) = digests.split_once(" -> ").unwrap();
    assert!(old.starts_with("sha256:") && new.starts_with("sha256:") && old != new, "{reason}");
    context.write("Dockerfile", "FROM busybox\nRUN echo x\n");
    let reason = kiln.build(&context).ok().reason("RUN");
    assert_eq!(reason, format!("base image: {name}:latest -> busybox:latest"));
}

#[test]
fn mounts() {
    let text = "FROM busybox AS tools\nCOPY src/b /b\nFROM busybox\nRUN --mount=target=/m,source=src cat /m/a\n";
    check(&context(text), |tree| tree.write("src/a", "A"), &[], "RUN", "src/a changed, in the mount /m");
    let writable = text.replace("target=/m", "target=/m,rw");
    rewritten(text, &writable, "RUN", r#"mount /m readonly: "true" -> "false""#);
    let stage = text.replace("--mount=", "--mount=from=tools,target=/b --mount=");
    rewritten(text, &stage, "RUN", r#"mount /b: "bind" is new"#);
    check(&context(&stage), |tree| tree.write("src/b", "B"), &[], "RUN", "b changed, in the mount /b, and 1 more");
}

#[test]
fn files_of_another_stage() {
    let text = |owner: &str| {
        format!(
            "FROM busybox AS made\nRUN mkdir /d && echo 1 > /d/f && chown {owner} /d/f\nFROM busybox\nCOPY --from=made /d /d\n"
        )
    };
    rewritten(&text("0:0"), &text("1:2"), "COPY", r#"owner of d/f: 0:0 -> 1:2, in stage "made""#);
}

#[test]
fn flags() {
    check(&context(BASE), |_| {}, &["--no-cache"], "RUN", "--no-cache");
    let stages = "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox\nCOPY --from=one /1 /1\nRUN cat /1\n";
    check(&context(stages), |_| {}, &["--no-cache-filter=one"], "RUN echo 1", "--no-cache-filter");
    let reason = r#"platform: "linux/amd64" -> "linux/arm64""#;
    check(&context("FROM busybox\nCOPY src /src\n"), |_| {}, &["--platform=linux/arm64"], "COPY", reason);
}

#[test]
fn what_was_never_built() {
    let kiln = Kiln::new();
    let context = context(BASE);
    let first = kiln.build(&context).ok();
    assert_eq!((first.reason("COPY"), first.reason("RUN")), ("never built here".into(), "never built here".into()));
    // Nor is another project's step of the same name a former run, if all that it took was something else.
    let other = Tree::dockerfile(BASE).file("src/x", "1").file("src/y", "2").file("src/a", "3");
    assert_eq!(kiln.build(&other).ok().reason("COPY"), "never built here");
}

#[test]
fn a_checkout_in_another_folder_is_the_same_project() {
    let kiln = Kiln::new();
    kiln.build(&context(BASE)).ok();
    let again = context(BASE);
    again.write("src/a", "A");
    assert_eq!(kiln.build(&again).ok().reason("COPY"), "src/a changed");
}

#[test]
fn a_step_before_it_that_came_or_went() {
    let text = "FROM busybox\nRUN echo one > /1\nRUN cat /1\n";
    let more = "FROM busybox\nRUN echo one > /1\nRUN echo two > /2\nRUN cat /1\n";
    rewritten(text, more, "RUN echo two", "never built here");
    rewritten(text, more, "RUN cat", "it follows [3/4] RUN echo two > /2 now, not [2/3] RUN echo one > /1");
    rewritten(more, text, "RUN cat", "it follows [2/3] RUN echo one > /1 now, not [3/4] RUN echo two > /2");
}

#[test]
fn what_the_store_lost() {
    let kiln = Kiln::new();
    let context = context(BASE);
    kiln.build(&context).ok();
    kiln.says("prune", &["--force", "--filter", "description~=COPY src"]);
    let reason = kiln.build(&context).ok().reason("COPY");
    assert!(reason.starts_with("its result was removed from the store (last used 20"), "{reason}");
    for snapshot in fs::read_dir(kiln.root().join("snapshots")).unwrap() {
        fs::remove_dir_all(snapshot.unwrap().path()).unwrap();
    }
    assert_eq!(kiln.build(&context).ok().reason("COPY"), "its result is missing from the store");
}

/// Progress for people, and what `kiln explain` says afterwards.
#[test]
fn it_is_said_while_it_runs_and_afterwards() {
    let kiln = Kiln::new();
    let context = context(BASE);
    let plain = kiln.build(&context).progress("plain").ok();
    assert!(plain.stderr.contains(" not cached: never built here\n"), "{}", plain.stderr);
    context.write("src/a", "A");
    context.write("src/c", "C");
    let plain = kiln.build(&context).progress("plain").ok();
    let lines: Vec<&str> = plain.stderr.lines().collect();
    let head = lines.iter().position(|line| line.ends_with(" [2/3] COPY src /src")).expect("the step's head");
    assert!(lines[head + 1].ends_with(" not cached: src/a changed (and 1 more)"), "{}", plain.stderr);

    let all = kiln.says("explain", &[]);
    assert!(all.contains("[2/3] COPY src /src\n               src/a changed (and 1 more)\n"), "{all}");
    assert!(all.contains("0 of 2 steps were cached"), "{all}");
    let one = kiln.says("explain", &["latest", "2/3"]);
    for part in ["files of the build context:", "  src/a changed\n", "  src/c is new\n", "  key "] {
        assert!(one.contains(part), "{part}: {one}");
    }
    let json = kiln.says("explain", &["--format=json", "", "COPY"]);
    let step: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&step["cause"], &step["changes"][0]["files"][1]["path"]), (&json!("changed"), &json!("src/c")));
    let refused: Finished = kiln.run("explain", &["latest", "9/9"]);
    assert!(refused.status.code() == Some(1) && refused.stderr.contains("it has\n  "), "{}", refused.stderr);
    kiln.build(&context).ok();
    let all = kiln.says("explain", &[]);
    assert!(all.contains("2 of 2 steps were cached"), "{all}");
    assert!(kiln.says("explain", &["latest", "RUN"]).contains("with the same inputs had its result"));
}
