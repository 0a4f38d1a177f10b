//! `--on-failure=shell` and `kiln debug shell`, on a pty.

use harness::{Kiln, Tree, skip};
use rustix::process::Signal;

const FAILS: &str = "FROM busybox\nENV FOO=bar\nRUN mkdir /src && chown daemon /src\nWORKDIR /src\nUSER daemon\n\
    RUN --network=none --mount=type=cache,target=/c,mode=777 --mount=type=tmpfs,target=/t \
    --mount=type=secret,id=s,mode=444 --mount=type=bind,rw,source=d,target=/b \
    echo made > made; echo cached > /c/f; mkdir /t/d; echo tmp > /t/d/f; chmod 500 /t/d; echo bound > /b/f; exit 3\n";

fn check_state(kiln: &Kiln) {
    let context =
        Tree::dockerfile(FAILS).file("secret", "hidden").file("d/f", "old").mode("d", 0o777).mode("d/f", 0o666);
    let args = ["build", "--on-failure=shell", "--secret=id=s,src=secret", "--progress=tty", "."];
    let mut terminal = kiln.on_terminal(&context, &args);
    terminal.wait_for("failed with exit code 3").wait_for("as user daemon, in /src").wait_for("$ ");
    assert!(!terminal.is_cooked());
    terminal.send("echo $(cat made /c/f /t/d/f /b/f /run/secrets/s) $FOO $(id -un) $PWD; echo $((40+2))\n");
    terminal.wait_for("made cached tmp bound hidden bar daemon /src").wait_for("42");
    terminal.send("stat -c %a:%U /t/d; ls /sys/class/net | wc -l; tty; echo $((40+3))\n");
    terminal.wait_for("500:daemon\r\n1\r\n/dev/console\r\n43");
    // The command can be run again, and changes what the shell sees.
    terminal.send("rm made; eval \"$KILN_COMMAND\"; echo code=$? $(cat made)\n").wait_for("code=3 made");
    terminal.resize(77, 33);
    terminal.send("while ! stty size | grep '33 77'; do :; done; echo si''zed\n").wait_for("sized");
    // Interrupts what runs in the shell, not the build. One command says that it runs and waits: a shell that is just
    // starting another loses the interrupt.
    terminal.send("sh -c 'echo sle\"\"eps; exec sleep 1000'\n").wait_for("sleeps").send("\x03").wait_for("$ ");
    terminal.send("exit\n").wait_for("the shell has ended");
    let (status, shown) = terminal.end();
    assert_eq!(status.code(), Some(1), "{shown}");
    assert!(shown.contains("did not complete successfully: exit code: 3"), "{shown}");
    // Nothing of the failed step, or of what was done in the shell, is kept.
    let again = kiln.build(&context).args(["--secret=id=s,src=secret"]).fails();
    assert_eq!(again.steps().values().filter(|step| step.error.contains("exit code: 3")).count(), 1);
}

#[test]
fn a_shell_opens_in_what_the_failed_command_left() {
    check_state(&Kiln::new());
}

#[test]
fn so_it_does_for_an_ordinary_user() {
    match Kiln::as_user() {
        Ok(kiln) => check_state(&kiln),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn only_the_first_failure_opens_one() {
    let context = Tree::dockerfile(
        "FROM busybox AS a\nRUN exit 4\nFROM busybox AS b\nRUN sleep 1; exit 5\nFROM a\nCOPY --from=b /bin/sh /x\n",
    );
    let kiln = Kiln::new();
    let mut terminal = kiln.on_terminal(&context, &["build", "--on-failure=shell", "--progress=plain", "."]);
    // The other one fails meanwhile, and does not close the shell.
    terminal
        .wait_for("failed with exit code 4")
        .wait_for("exit\r\n")
        .wait_for("# ")
        .send("sleep 2; echo st''ill\n")
        .wait_for("still");
    terminal.send("exit\n");
    let (status, shown) = terminal.end();
    assert_eq!((status.code(), shown.matches("Here is a shell").count()), (Some(1), 1), "{shown}");
}

#[test]
fn a_signal_ends_the_shell_and_gives_the_terminal_back() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nRUN exit 4\n");
    let mut terminal = kiln.on_terminal(&context, &["build", "--on-failure=shell:/bin/sh", "."]);
    terminal.wait_for("exit\r\n").wait_for("# ");
    terminal.kill(Signal::TERM);
    let (status, shown) = terminal.end();
    assert!(!status.success(), "{shown}");
}

#[test]
fn an_image_without_a_shell_says_so() {
    let context =
        Tree::dockerfile("FROM busybox AS b\nFROM scratch\nCOPY --from=b /bin/busybox /b\nRUN [\"/b\", \"false\"]\n");
    let kiln = Kiln::new();
    let mut terminal = kiln.on_terminal(&context, &["build", "--on-failure=shell", "."]);
    terminal.wait_for("the image has no shell: none of /bin/bash, ");
    assert_eq!(terminal.end().0.code(), Some(1));
    let mut terminal = kiln.on_terminal(&context, &["build", "--on-failure=shell:/bin/none", "."]);
    terminal.wait_for("no shell: execute /bin/none: ");
    assert_eq!(terminal.end().0.code(), Some(1));
}

#[test]
fn without_a_terminal_it_is_refused_before_anything_runs() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nRUN exit 4\n");
    kiln.build(&context).args(["--on-failure=shell"]).fails().says(&["--on-failure=shell needs a terminal"]);
    kiln.build(&context).args(["--on-failure=continue"]).fails().says(&["it must be abort, shell or shell:PROGRAM"]);
    assert!(kiln.build(&context).args(["--on-failure=abort"]).fails().log().is_empty());
}

const STAGES: &str = "FROM busybox AS first\nENV FOO=bar\nWORKDIR /w\nRUN echo one > f && chmod 777 . f\nUSER daemon\n\
    FROM first AS second\nRUN exit 9\n";

fn debug(kiln: &Kiln, context: &Tree, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = kiln.command("debug");
    let output = command.arg("shell").args(args).current_dir(context.path()).output().expect("run kiln debug shell");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn a_command_runs_in_a_stage_and_leaves_nothing() {
    let (kiln, context) = (Kiln::new(), Tree::dockerfile(STAGES));
    let in_first = |command: &str| debug(&kiln, &context, &["--target=first", ".", "--", "sh", "-c", command]);
    let (code, stdout, stderr) = in_first("cat f; echo $FOO $(id -un) $PWD; echo two > f; exit 7");
    assert_eq!((code, stdout.as_str()), (Some(7), "one\nbar daemon /w\n"), "{stderr}");
    assert_eq!(in_first("cat f; ls /c").1, "one\n");
    let (code, stdout, stderr) = debug(&kiln, &context, &["--progress=quiet", "--target=first", ".", "--", "none"]);
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.contains("execute none: "), "{stderr}");
    // Of a stage that fails there is nothing to enter.
    let (code, _, stderr) = debug(&kiln, &context, &[".", "--", "true"]);
    assert!(code == Some(1) && stderr.contains("exit code: 9"), "{stderr}");
}

#[test]
fn a_shell_in_a_stage_needs_a_terminal() {
    let (kiln, context) = (Kiln::new(), Tree::dockerfile(STAGES));
    let (code, _, stderr) = debug(&kiln, &context, &["--target=first", "."]);
    assert!(code == Some(1) && stderr.contains("kiln debug shell needs a terminal"), "{stderr}");
    let (code, _, stderr) = debug(&kiln, &context, &["-t", "x", ".", "--", "true"]);
    assert!(code == Some(1) && stderr.contains("leave --"), "{stderr}");

    let mut terminal = kiln.on_terminal(&context, &["debug", "shell", "--target=first", "."]);
    terminal.wait_for("$ ").send("echo $(cat f) $FOO $(tty); exit 5\n").wait_for("one bar /dev/console");
    assert_eq!(terminal.end().0.code(), Some(5));
}
