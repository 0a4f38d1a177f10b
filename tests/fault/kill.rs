//! kiln is killed or interrupted in the middle of a step.

use harness::{Finished, Kiln, Tree, wait_for_line};
use rustix::process::{Pid, Signal, kill_process};
use std::process::Child;

/// Starts a build and waits until its RUN has said "now".
fn start(kiln: &Kiln, context: &Tree) -> Child {
    let mut child = kiln.build(context).progress("plain").spawn();
    wait_for_line(&mut child, " now");
    child
}

fn context() -> Tree {
    Tree::dockerfile("FROM busybox\nRUN echo 1 > /1\nRUN echo now; sleep 100; echo 2 > /2\n")
}

#[test]
fn killed() {
    let kiln = Kiln::new();
    let context = context();
    let mut child = start(&kiln, &context);
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    context.write("Dockerfile", "FROM busybox\nRUN echo 1 > /1\nRUN echo 2 > /2\n");
    let image = kiln.image(&context);
    assert_eq!((image.text("/1"), image.text("/2")), ("1\n".into(), "2\n".into()));
}

#[test]
fn interrupted() {
    let kiln = Kiln::new();
    for signal in [Signal::INT, Signal::TERM] {
        let child = start(&kiln, &context());
        let started = std::time::Instant::now();
        kill_process(Pid::from_child(&child), signal).unwrap();
        assert_eq!(Finished::wait(child).status.code(), Some(130));
        assert!(started.elapsed().as_secs() < 30, "the step is stopped, not waited for");
    }
}
