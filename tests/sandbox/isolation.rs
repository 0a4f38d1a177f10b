//! What a step sees of the machine.

use harness::{Kiln, Tree};

#[test]
fn a_step_has_its_own_processes_and_mounts() {
    let context = Tree::dockerfile(
        "FROM busybox\nRUN echo $$ > /pid && test -d /proc/1 && test -c /dev/null && test -d /dev/shm && hostname > /host\n",
    );
    let image = Kiln::new().image(&context);
    assert_eq!((image.text("/pid"), image.text("/host")), ("1\n".into(), "buildkitsandbox\n".into()));
    let tree = image.tree();
    assert!(!tree.contains_key("/dev/null") && !tree.contains_key("/proc/1"));
}

#[test]
fn the_store_is_out_of_sight() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(&format!("FROM busybox\nRUN test ! -e {}\n", kiln.root().display()));
    kiln.build(&context).ok();
}

#[test]
fn dangerous_things_are_refused() {
    let kiln = Kiln::new();
    for command in ["mount -t tmpfs none /mnt", "mknod /sda b 8 0 && cat /sda", "echo 1 > /proc/sys/kernel/panic"] {
        kiln.build(&Tree::dockerfile(&format!("FROM busybox\nRUN mkdir -p /mnt; {command}\n"))).fails();
    }
}

#[test]
fn background_processes_end_with_the_step() {
    let kiln = Kiln::new();
    let started = std::time::Instant::now();
    kiln.build(&Tree::dockerfile("FROM busybox\nRUN sleep 120 & echo on\n")).ok();
    assert!(started.elapsed().as_secs() < 60);
}
