//! Plain progress, as it is read in logs.

use harness::{Kiln, Tree};

#[test]
fn blocks_have_a_head_and_an_end() {
    let finished = Kiln::new().build(&Tree::dockerfile("FROM busybox\nRUN echo hello\n")).progress("plain").ok();
    let lines: Vec<&str> = finished.stderr.lines().collect();
    let head = lines.iter().find(|line| line.ends_with(" [2/2] RUN echo hello")).expect("the step's head");
    let number = head.split(' ').next().unwrap();
    assert!(number.starts_with('#'));
    let of_step: Vec<&&str> = lines.iter().filter(|line| line.starts_with(&format!("{number} "))).collect();
    assert!(of_step.iter().any(|line| line.ends_with(" hello")), "{}", finished.stderr);
    assert!(of_step.last().unwrap().starts_with(&format!("{number} DONE ")), "{}", finished.stderr);
    assert!(finished.stdout.is_empty());
    for name in [
        "[internal] load build definition from Dockerfile",
        "[internal] load .dockerignore",
        "[internal] load metadata for docker.io/library/busybox:latest",
    ] {
        assert!(finished.stderr.contains(name), "{name}: {}", finished.stderr);
    }
}
