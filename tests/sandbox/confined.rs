//! Builds as root in an unprivileged container, where namespaces and mounts are refused: RUN falls back to chroot(2).

use harness::{Finished, Image, Kiln, Tree, skip, wait_for_line};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

const NOTICE: &str = "RUN is isolated by chroot alone";

macro_rules! confined {
    () => {
        match Kiln::confined() {
            Ok(kiln) => kiln,
            Err(reason) => skip!("{reason}"),
        }
    };
}

#[test]
fn the_image_is_the_same_as_roots() {
    let kiln = confined!();
    let context = || {
        Tree::dockerfile(
            "FROM busybox AS one\nCOPY --chown=5:6 a /x/a\nUSER daemon\nRUN echo mine > /tmp/m && ln -s m /tmp/l\n\
             USER root\nRUN chown 3:4 /x/a && chmod 4755 /x/a && mv /x /y && rm -r /home && ln /y/a /y/b\n\
             RUN rm -r /y && mkdir /y && echo n > /y/n && echo out > /dev/stdout && echo err > /dev/stderr\n\
             FROM busybox\nCOPY --from=one / /all/\nWORKDIR /w\nRUN cat /all/y/n > n && test -c /dev/null\n",
        )
        .file("a", "A")
    };
    let archive = kiln.out("image.tar");
    let finished = kiln.build(&context()).output("oci", &archive).ok();
    assert!(finished.warnings().iter().any(|warning| warning.contains(NOTICE)), "{:?}", finished.warnings());
    assert!(finished.log().contains("out\n") && finished.log().contains("err\n"), "{}", finished.log());
    let describe = |image: Image| {
        let tree = image.tree().into_iter();
        tree.map(|(path, entry)| (path, entry.kind, entry.mode, entry.uid, entry.gid)).collect::<Vec<_>>()
    };
    let image = Image::read(&archive).unwrap();
    assert_eq!(image.text("/w/n"), "n\n");
    assert_eq!(describe(image), describe(Kiln::new().image(&context())));
    assert!(kiln.build(&context()).ok().ran().is_empty());
}

#[test]
fn what_is_lent_is_in_no_layer() {
    let kiln = confined!();
    let context = Tree::dockerfile(
        "FROM busybox\nRUN --mount=type=secret,id=s --mount=type=cache,target=/c --mount=type=tmpfs,target=/t \\\n\
         grep -q 7391 /run/secrets/s && ln /run/secrets/s /linked && echo 1 >> /c/n && wc -l < /c/n > /count && echo x > /t/x\n\
         RUN --mount=type=cache,target=/c echo 1 >> /c/n && wc -l < /c/n > /count2\n\
         RUN --mount=type=bind,target=/src cat /src/a > /bound && echo gone > /src/new\n\
         RUN --mount=type=secret,id=s mv /run/secrets/s /stolen\n",
    )
    .file("a", "A");
    context.write("secret", "hush-7391");
    context.write(".dockerignore", "secret");
    let secret = format!("--secret=id=s,src={}", context.join("secret").display());
    let archive = kiln.out("image.tar");
    kiln.build(&context).args([&secret]).output("oci", &archive).ok();
    let image = Image::read(&archive).unwrap();
    assert_eq!(
        (image.text("/count"), image.text("/count2"), image.text("/bound")),
        ("1\n".into(), "2\n".into(), "A".into())
    );
    let above = image.paths_above(1);
    let lent = ["/c/", "/t/", "/src", "/run", "/stolen", "/linked", "/etc", "/proc/", "/sys/", "/dev/"];
    for path in &above {
        assert!(!lent.iter().any(|lent| path.starts_with(lent)), "{path} in {above:?}");
    }
    assert_eq!(files_with(&kiln.root(), "hush-7391"), Vec::<String>::new());
}

#[test]
fn nothing_goes_on_after_an_end() {
    let kiln = confined!();
    for (signal, seconds) in [(Signal::INT, "7391.1"), (Signal::TERM, "7391.2"), (Signal::KILL, "7391.3")] {
        let context = Tree::dockerfile(&format!(
            "FROM busybox\nRUN --mount=type=secret,id=s (trap '' TERM INT HUP; sleep {seconds}) & echo now; sleep {seconds}\n"
        ));
        context.write("secret", "hush-7392");
        let secret = format!("--secret=id=s,src={}", context.join("secret").display());
        let mut child = kiln.build(&context).args([&secret]).progress("plain").spawn();
        wait_for_line(&mut child, " now");
        assert!(!processes_with(seconds).is_empty());
        kill_process(Pid::from_child(&child), signal).unwrap();
        if signal == Signal::KILL {
            child.wait().unwrap();
        } else {
            assert_eq!(Finished::wait(child).status.code(), Some(130));
        }
        // After SIGKILL it is the supervisor that ends them, a moment later.
        let started = Instant::now();
        while !processes_with(seconds).is_empty() {
            assert!(started.elapsed() < Duration::from_secs(20), "{:?}", processes_with(seconds));
            std::thread::sleep(Duration::from_millis(50));
        }
        if signal != Signal::KILL {
            assert_eq!(files_with(&kiln.root(), "hush-7392"), Vec::<String>::new());
        }
    }
}

#[test]
fn background_processes_end_with_the_step() {
    let kiln = confined!();
    kiln.build(&Tree::dockerfile("FROM busybox\nRUN sleep 7391.4 & setsid sleep 7391.4 & echo on\n")).ok();
    assert!(processes_with("7391.4").is_empty());
}

#[test]
fn what_cannot_be_had_is_refused() {
    let kiln = confined!();
    let step =
        |options: &str| Tree::dockerfile(&format!("# syntax=docker/dockerfile:1\nFROM busybox\nRUN {options} true\n"));
    let refused = kiln.build(&step("--network=none")).fails();
    refused.says(&["--network=none", "not to be had with --isolation=chroot", "namespaces were refused"]);
    let refused = kiln.build(&step("--security=insecure")).args(["--allow=security.insecure"]).fails();
    refused.says(&["--security=insecure", "not to be had with --isolation=chroot"]);
    let refused = kiln.build(&step("")).args(["--isolation=namespace"]).fails();
    refused.says(&["user namespace", "seccomp"]);
    // Asked for, it needs no notice.
    let finished = kiln.build(&step("")).args(["--isolation=chroot"]).ok();
    assert!(!finished.warnings().iter().any(|warning| warning.contains(NOTICE)), "{:?}", finished.warnings());
}

#[test]
fn chroot_may_be_asked_for_anywhere() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nRUN test ! -e /proc/self && echo 1 > /f\n");
    let image = kiln.build(&context).args(["--isolation=chroot"]).image();
    assert_eq!(image.text("/f"), "1\n");
}

/// Ids of processes that have a word in their command line.
fn processes_with(word: &str) -> Vec<String> {
    let ids = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let has = |folder: &Path| {
        let line = fs::read(folder.join("cmdline")).unwrap_or_default();
        // The shell has the word in its script: sleep has it as an argument of its own.
        line.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes())
    };
    ids.filter(|folder| has(folder)).map(|folder| folder.display().to_string()).collect()
}

/// Files below a folder that have a text.
fn files_with(folder: &Path, text: &str) -> Vec<String> {
    let mut found = vec![];
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if kind.is_dir() {
            found.extend(files_with(&path, text));
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap_or_default();
            if content.windows(text.len()).any(|window| window == text.as_bytes()) {
                found.push(path.display().to_string());
            }
        }
    }
    found
}
