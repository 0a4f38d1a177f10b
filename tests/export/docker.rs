//! `type=docker`: an archive for `docker load`, tried with a real dockerd where one can be started.

use harness::{Dockerd, Kiln, Tree, run, skip};
use serde_json::Value;

fn context() -> Tree {
    Tree::dockerfile("FROM busybox\nRUN echo moo > /cow\nENTRYPOINT [\"cat\", \"/cow\"]\n")
}

#[test]
fn the_archive_has_both_kinds_of_index() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    kiln.build(&context()).args(["-t", "app:1"]).output("docker", &archive).ok();
    let image = harness::Image::read(&archive).unwrap();
    let manifest: Value = serde_json::from_slice(&image.files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], serde_json::json!(["app:1"]));
    let config = manifest[0]["Config"].as_str().unwrap();
    assert_eq!(format!("blobs/{}", image.manifest["config"]["digest"].as_str().unwrap().replace(':', "/")), config);
    assert_eq!(manifest[0]["Layers"].as_array().unwrap().len(), image.layers.len());
}

#[test]
fn dockerd_loads_and_runs_it() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    kiln.build(&context()).args(["-t", "kiln-test/cow:1"]).output("docker", &archive).ok();
    let daemon = match Dockerd::start(&kiln.out("docker")) {
        Ok(daemon) => daemon,
        Err(reason) => skip!("dockerd does not start here: {reason}"),
    };
    run(daemon.docker().args(["load", "--quiet", "--input"]).arg(&archive));
    let said = run(daemon.docker().args(["run", "--rm", "--network=none", "kiln-test/cow:1"]));
    assert_eq!(said, "moo\n");
}
