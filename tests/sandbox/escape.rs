//! What a step must not be able to do: see or signal the machine's processes, write outside its root, read what belongs
//! to another step, or outlive its build.

use harness::{Kiln, Tree};
use std::fs;
use std::process::Command;

/// A file of the machine that no step may see or change.
fn marker(kiln: &Kiln) -> std::path::PathBuf {
    let path = kiln.out("marker");
    fs::write(&path, "untouched").expect("write the marker");
    path
}

#[test]
fn processes_of_the_machine_are_out_of_reach() {
    let mut sleeper = Command::new("sleep").arg("300").spawn().expect("start a process to be spared");
    let context = Tree::dockerfile(&format!(
        "FROM busybox\nRUN ps -o pid | wc -l > /count; for i in $(seq 2 40) {pid}; do kill -9 $i 2>/dev/null; done; \
         kill -9 -1; true\nRUN ! ls /proc/{pid}/root\n",
        pid = sleeper.id()
    ));
    let image = Kiln::new().image(&context);
    let alive = sleeper.try_wait().expect("ask for the process").is_none();
    let _ = sleeper.kill();
    let _ = sleeper.wait();
    assert!(alive, "a step has killed a process of the machine");
    let count: usize = image.text("/count").trim().parse().expect("a number");
    assert!(count < 8, "{count} processes are in sight");
}

#[test]
fn nothing_outside_the_root_is_written() {
    let kiln = Kiln::new();
    let marker = marker(&kiln);
    let path = marker.display();
    let attempts = [
        format!("echo gotcha > {path}"),
        format!("echo gotcha > /../../../../..{path}"),
        format!("ln -s / /up; echo gotcha > /up/..{path}"),
        format!("echo gotcha > /proc/self/root{path}"),
        format!("echo gotcha > /proc/1/root{path}"),
        format!("echo gotcha > /proc/self/cwd/../..{path}"),
        format!("for fd in /proc/self/fd/*; do echo gotcha > $fd/../../..{path}; done"),
        format!("mkdir -p /m && mount -t proc proc /m && echo gotcha > /m/1/root{path}"),
        format!("chroot /proc/1/root /bin/sh -c 'echo gotcha > {path}'"),
        format!("mkdir -p $(dirname /x{path}) && ln {path} /x{path} && echo gotcha > /x{path}"),
        format!("unshare -m sh -c 'umount -l /; echo gotcha > {path}'"),
        format!("nsenter -t 1 -m sh -c 'echo gotcha > {path}'"),
        "echo /tmp/x > /proc/sys/kernel/core_pattern".to_string(),
        "echo c > /proc/sysrq-trigger".to_string(),
        "mknod /k c 1 11 && echo gotcha > /k".to_string(),
    ];
    for attempt in attempts {
        // Whether it fails or only writes into its own root does not matter, as long as it stays there.
        kiln.build(&Tree::dockerfile(&format!("FROM busybox\nRUN {attempt}; true\n"))).ok();
        assert_eq!(fs::read_to_string(&marker).expect("read the marker"), "untouched", "{attempt}");
    }
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    assert_ne!(pattern.trim(), "/tmp/x");
}

#[test]
fn copies_stay_in_the_root() {
    let kiln = Kiln::new();
    let marker = marker(&kiln);
    let path = marker.display();
    let folder = kiln.out("");
    let context = Tree::dockerfile(&format!(
        "FROM busybox\nRUN ln -s {folder} /out && ln -s {path} /file && ln -s ../../../../../../..{folder} /rel\n\
         COPY a /out/marker\nCOPY a /file\nCOPY a /rel/marker\nWORKDIR /out/w\nADD t.tar /out/\n",
        folder = folder.display()
    ))
    .file("a", "gotcha");
    let archive = Command::new("tar")
        .args(["--create", "--file=t.tar", "--absolute-names", "--transform=s,^a$,../../../../marker,", "a"])
        .current_dir(context.path())
        .status();
    assert!(archive.expect("run tar").success());
    kiln.build(&context).ok();
    assert_eq!(fs::read_to_string(&marker).expect("read the marker"), "untouched");
    assert!(!folder.join("w").exists());
}

#[test]
fn secrets_are_for_the_step_that_mounts_them() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS a\nRUN --mount=type=secret,id=s test $(wc -c < /run/secrets/s) = 14 && sleep 2\n\
         FROM busybox AS b\n\
         RUN sleep 1; ! test -e /run/secrets/s && ! grep -rs h[u]sh-h /proc/*/environ /run /tmp /dev/shm\n\
         FROM scratch\nCOPY --from=a /etc/passwd /a\nCOPY --from=b /etc/passwd /b\n",
    )
    .file("secret", "hush-hush-4711");
    let build = kiln.build(&context).args(["--secret=id=s,src=secret"]).ok();
    assert!(!build.log().contains("hush-hush") && !build.report().contains("hush-hush"));
    // Not in the store: no layer, no record, no log, no half-made thing.
    let found = Command::new("grep")
        .args(["--recursive", "--text", "--files-with-matches", "hush-hush"])
        .arg(kiln.root())
        .output();
    assert_eq!(String::from_utf8_lossy(&found.expect("run grep").stdout), "");
}

#[test]
fn nothing_outlives_a_build_that_is_killed() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox\nRUN (while true; do sleep 0.1; done) & setsid sleep 4711 & echo up; sleep 4711\n",
    );
    let mut child = kiln.build(&context).progress("plain").spawn();
    harness::wait_for_line(&mut child, " up");
    child.kill().expect("kill kiln");
    child.wait().expect("wait for kiln");
    // The kernel ends a pid namespace with its first process, which dies with kiln.
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while running("sleep 4711") {
        assert!(std::time::Instant::now() < deadline, "a process of the step is still there");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("read mountinfo");
    assert!(!mounts.contains(&kiln.root().display().to_string()), "a mount is left behind");
}

/// Whether some process has this command line.
fn running(command: &str) -> bool {
    let processes = fs::read_dir("/proc").expect("list processes").flatten();
    let mut lines = processes.filter_map(|process| fs::read(process.path().join("cmdline")).ok());
    lines.any(|line| String::from_utf8_lossy(&line).replace('\0', " ").trim_end() == command)
}
