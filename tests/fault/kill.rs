//! kiln is killed or interrupted in the middle of a step.

use harness::{Finished, Kiln, Tree};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{BufRead, BufReader, Read};
use std::process::Child;

/// Starts a build and waits until its RUN has said "now".
fn start(kiln: &Kiln, context: &Tree) -> Child {
    let mut child = kiln.build(context).progress("plain").spawn();
    let mut stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
    let mut line = String::new();
    while !line.trim_end().ends_with(" now") {
        line.clear();
        assert!(stderr.read_line(&mut line).expect("read progress") > 0, "the build ended early");
    }
    std::thread::spawn(move || stderr.read_to_end(&mut vec![]));
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
