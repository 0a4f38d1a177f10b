//! `type=image,push=true` and `--push`, to a real registry.

use harness::{Kiln, Registry, Tree, installed, run, sha256};
use serde_json::Value;
use std::process::Command;

#[test]
fn what_is_pushed_can_be_pulled() {
    let registry = Registry::shared();
    let kiln = Kiln::new();
    let name = format!("{}/push/app:1", registry.host);
    let metadata = kiln.out("metadata.json");
    kiln.build(&Tree::dockerfile("FROM busybox\nRUN echo pushed > /f\n"))
        .args([format!("--output=type=image,name={name},push=true"), format!("--metadata-file={}", metadata.display())])
        .ok();
    let answer = registry.get_manifest("push/app", "1").unwrap();
    let metadata: Value = serde_json::from_str(&std::fs::read_to_string(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], sha256(&answer.body));

    // By another kiln, which has nothing of it, and by skopeo.
    assert_eq!(
        Kiln::new().image(&Tree::dockerfile(&format!("FROM {name}\nRUN cat /f /f > /g\n"))).text("/g"),
        "pushed\npushed\n"
    );
    if installed("skopeo") {
        run(Command::new("skopeo").args(["inspect", "--tls-verify=false", &format!("docker://{name}")]));
    }
}

#[test]
fn tags_are_pushed() {
    let registry = Registry::shared();
    let names = ["2", "latest"].map(|tag| format!("--tag={}/push/tags:{tag}", registry.host));
    Kiln::new().build(&Tree::dockerfile("FROM scratch\nLABEL a=1\n")).args(names).args(["--push"]).ok();
    let digests = ["2", "latest"].map(|tag| sha256(&registry.get_manifest("push/tags", tag).unwrap().body));
    assert_eq!(digests[0], digests[1]);
}

#[test]
fn pushing_nameless_is_an_error() {
    Kiln::new().build(&Tree::dockerfile("FROM scratch\nLABEL a=1\n")).args(["--push"]).fails().says(&["tag is needed"]);
}
