//! RUN on platforms that are not the machine's. Nothing is registered on the machine for that.

use harness::{Kiln, Tree, foreign, installed, skip};
use std::fs;
use std::process::Stdio;

/// A context with a program of that platform.
fn context(program: &[u8], run: &str) -> Tree {
    let context = Tree::dockerfile(&format!("FROM scratch\nCOPY program /program\nRUN {run}\n"));
    fs::write(context.join("program"), program).expect("write the program");
    context.mode("program", 0o755)
}

fn builds_for(kiln: &Kiln, platform: &str, program: &[u8], said: &str) {
    let context = context(program, "[\"/program\"]");
    let built = kiln.build(&context).args([&format!("--platform={platform}")]).ok();
    assert_eq!(built.log(), said);
    assert_eq!(kiln.build(&context).args([&format!("--platform={platform}")]).ok().ran().len(), 0);
}

/// What keeps emulation from being tested here.
fn no_emulation() -> Option<String> {
    if !cfg!(target_arch = "x86_64") {
        return Some("the programs are foreign to amd64".into());
    }
    let emulator = "qemu-aarch64-static";
    (!installed(emulator)).then(|| format!("needs {emulator} (package qemu-user-static)"))
}

#[test]
fn programs_of_386_run_natively_on_amd64() {
    if !cfg!(target_arch = "x86_64") {
        skip!("needs amd64");
    }
    builds_for(&Kiln::new(), "linux/386", &foreign::i386(), "386 ran\n");
}

#[test]
fn emulated_as_root() {
    if let Some(reason) = no_emulation() {
        skip!("{reason}");
    }
    let handlers = || fs::read_dir("/proc/sys/fs/binfmt_misc").map_or(0, Iterator::count);
    let before = handlers();
    builds_for(&Kiln::new(), "linux/arm64", &foreign::arm64(), "arm64 ran\n");
    assert_eq!(handlers(), before);
}

#[test]
fn emulated_as_an_ordinary_user() {
    if let Some(reason) = no_emulation() {
        skip!("{reason}");
    }
    match Kiln::as_user() {
        Ok(kiln) => builds_for(&kiln, "linux/arm64", &foreign::arm64(), "arm64 ran\n"),
        Err(reason) => skip!("{reason}"),
    }
}

#[test]
fn a_missing_emulator_is_named_and_one_elsewhere_is_used() {
    if let Some(reason) = no_emulation() {
        skip!("{reason}");
    }
    let (kiln, context) = (Kiln::new(), context(&foreign::arm64(), "[\"/program\"]"));
    // In a mount namespace where the installed emulator is hidden.
    let script = "for f in /usr/bin/qemu-aarch64* /usr/local/bin/qemu-aarch64*; do \
                  if [ -e $f ]; then mount --bind /dev/null $f; fi; done; exec \"$@\"";
    let build = |folder: &str| {
        let mut command = kiln.command_through(&["unshare", "--mount", "sh", "-c", script, "sh"], "build");
        command.args(["--platform=linux/arm64", "--progress=plain", "."]).current_dir(context.path());
        let output = command.env("KILN_QEMU_DIR", folder).output().expect("run kiln in a mount namespace");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = build("/nowhere");
    assert_eq!(code, Some(1), "{said}");
    for part in ["linux/arm64", "qemu-user-static", "KILN_QEMU_DIR", "qemu-aarch64-static"] {
        assert!(said.contains(part), "{part} is missing in:\n{said}");
    }
    let folder = kiln.out("qemu");
    fs::create_dir(&folder).unwrap();
    fs::copy("/usr/bin/qemu-aarch64-static", folder.join("qemu-aarch64-static")).expect("copy the emulator");
    let (code, said) = build(folder.to_str().unwrap());
    assert!(code == Some(0) && said.contains("arm64 ran"), "{said}");
}

/// The handler is opened when it is registered, so its emulator is used though it is hidden afterwards.
#[test]
fn a_handler_of_the_host_is_used() {
    if let Some(reason) = no_emulation() {
        skip!("{reason}");
    }
    let (kiln, context) = (Kiln::new(), context(&foreign::arm64(), "[\"/program\"]"));
    let hide = "for f in /usr/bin/qemu-aarch64* /usr/local/bin/qemu-aarch64*; do \
                if [ -e $f ]; then mount --bind /dev/null $f; fi; done";
    let starter = foreign::with_arm64("/usr/bin/qemu-aarch64-static", hide);
    let mut command = kiln.command_through(&starter.iter().map(String::as_str).collect::<Vec<_>>(), "build");
    command.args(["--platform=linux/arm64", "--progress=plain", "."]).current_dir(context.path());
    command.stderr(Stdio::piped()).env("KILN_QEMU_DIR", "/nowhere");
    let child = foreign::register_arm64(&mut command);
    let output = child.wait_with_output().expect("wait for kiln");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("arm64 ran"), "{said}");
}

/// qemu tells such a crash by a signal to itself, which as pid 1 it would never get.
#[test]
fn a_crash_under_emulation_is_called_that() {
    if let Some(reason) = no_emulation() {
        skip!("{reason}");
    }
    for kiln in [Ok(Kiln::new()), Kiln::as_user()] {
        let kiln = match kiln {
            Ok(kiln) => kiln,
            Err(reason) => skip!("{reason}"),
        };
        let context = context(&foreign::arm64(), "[\"/program\", \"crash\"]");
        let failed = kiln.build(&context).args(["--platform=linux/arm64"]).fails();
        for part in ["exit code: 139", "uncaught target signal 11", "while qemu emulated", "--platform=$BUILDPLATFORM"]
        {
            assert!(failed.stderr.contains(part), "{part} is missing in:\n{}", failed.stderr);
        }
        let missing = context_of_missing_program();
        let failed = kiln.build(&missing).args(["--platform=linux/arm64"]).fails();
        assert!(failed.stderr.contains("no such file or directory"), "{}", failed.stderr);
    }
}

fn context_of_missing_program() -> Tree {
    Tree::dockerfile("FROM scratch\nRUN [\"/nosuch\"]\n")
}
