//! `type=image,unpack=true`: into a containerd that runs here, else into a dockerd.

use harness::{Containerd, Dockerd, Finished, Kiln, Tree, run, skip};
use std::path::Path;

/// The one that is taken if none is named.
const DEFAULT_SOCKET: &str = "/run/containerd/containerd.sock";

fn app(file: &str) -> Tree {
    Tree::dockerfile(&format!("FROM busybox\nRUN echo {file} > /{file}\nCMD [\"cat\", \"/{file}\"]\n"))
}

fn unpack(kiln: &Kiln, tree: &Tree, containerd: &Containerd, args: &[&str]) -> Finished {
    let build = kiln.build(tree).args(args).env("CONTAINERD_ADDRESS", containerd.address());
    build.progress("plain").ok()
}

/// How many blobs containerd had of how many.
fn had(said: &Finished) -> (u32, u32) {
    let line = said.stderr.lines().find(|line| line.contains("sending image to containerd"));
    let line = line.unwrap_or_else(|| panic!("nothing was sent: {}", said.stderr));
    let numbers = line.split_once("which has ").map(|(_, rest)| rest).unwrap_or("0 of 0");
    let mut words = numbers.split(' ').filter_map(|word| word.parse().ok());
    (words.next().unwrap(), words.next().unwrap())
}

/// Has containerd collect what nothing refers to, and waits for it.
fn collect(containerd: &Containerd) {
    let lease = run(containerd.ctr().args(["leases", "create"]));
    run(containerd.ctr().args(["leases", "delete", "--sync", lease.trim()]));
}

fn lines(text: &str) -> Vec<&str> {
    text.lines().collect()
}

#[test]
fn a_containerd_gets_what_it_lacks_and_runs_it() {
    let kiln = Kiln::new();
    let containerd = match Containerd::start(&kiln.out("ctrd")) {
        Ok(containerd) => containerd,
        Err(reason) => skip!("containerd does not start here: {reason}"),
    };
    let name = "docker.io/kiln-test/app:1";
    let output = ["-o", "type=image,\"name=kiln-test/app:1,kiln-test/app:also\",unpack=true", "--provenance=true"];
    let first = unpack(&kiln, &app("cow"), &containerd, &output);
    assert_eq!(had(&first), (0, 0), "{}", first.stderr);
    let images = run(containerd.ctr().args(["images", "ls", "-q"]));
    assert_eq!(lines(&images), [name, "docker.io/kiln-test/app:also"]);
    assert_eq!(kiln.says("image", &["ls", "-q"]), "", "one place is enough");

    // The lease is over, and nothing that the names need goes.
    assert_eq!(run(containerd.ctr().args(["leases", "ls", "-q"])), "");
    collect(&containerd);
    let complete = |name: &str| {
        let check = run(containerd.ctr().args(["images", "check", &format!("name=={name}")]));
        let line = check.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{check}")).to_string();
        assert!(line.contains(" complete ") && line.trim_end().ends_with("true"), "{check}");
        line
    };
    complete(name);
    let runs = |name: &str, container: &str| run(containerd.ctr().args(["run", "--rm", name, container]));
    assert_eq!(runs(name, "first"), "cow\n");

    // Again: nothing is sent, nothing is unpacked.
    let output = "type=image,name=kiln-test/app:1,unpack=true";
    let plain = ["-o", output, "--provenance=false"];
    unpack(&kiln, &app("cow"), &containerd, &plain);
    let snapshots = || run(containerd.ctr().args(["snapshots", "ls"]));
    let before = snapshots();
    let again = unpack(&kiln, &app("cow"), &containerd, &plain);
    let (has, of) = had(&again);
    assert!(of >= 4 && has == of && again.stderr.contains("has all layers"), "{}", again.stderr);
    assert_eq!(snapshots(), before);
    assert_eq!(lines(&run(containerd.ctr().args(["content", "active"]))).len(), 1, "nothing is unfinished");

    // Of a base image that containerd has, another store needs no layer.
    let other = Kiln::new();
    let on_it = Tree::dockerfile("FROM busybox\nCMD [\"echo\", \"bare\"]\n");
    unpack(&other, &on_it, &containerd, &["-o", "type=image,name=bare,unpack=true"]);
    assert_eq!(runs("docker.io/library/bare:latest", "bare"), "bare\n");
    let blobs = std::fs::read_dir(other.root().join("blobs/sha256")).unwrap();
    let largest = blobs.map(|blob| blob.unwrap().metadata().unwrap().len()).max().unwrap();
    assert!(largest < 20_000, "a blob of {largest} bytes was pulled");
    run(containerd.ctr().args(["images", "rm", "docker.io/library/bare:latest"]));

    // To a namespace that shares blobs, in which other references hold them.
    let cow = app("cow");
    let shared = kiln.build(&cow).args(plain).env("CONTAINERD_ADDRESS", containerd.address());
    shared.env("CONTAINERD_NAMESPACE", "shared").ok();
    collect(&containerd);
    let check = run(containerd.ctr().args(["--namespace", "shared", "images", "check"]));
    assert!(check.contains(" complete ") && check.trim_end().ends_with("true"), "{check}");
    run(containerd.ctr().args(["--namespace", "shared", "images", "rm", "--sync", name]));
    assert_eq!(run(containerd.ctr().args(["--namespace", "shared", "content", "ls", "-q"])), "");

    // Another image under the name, on the same base.
    let moved = unpack(&kiln, &app("calf"), &containerd, &plain);
    let (has, of) = had(&moved);
    assert!(has >= 1 && has < of, "{}", moved.stderr);
    complete(name);
    assert_eq!(runs(name, "second"), "calf\n");
    collect(&containerd);
    complete(name);
    assert_eq!(runs("docker.io/kiln-test/app:also", "third"), "cow\n");
    run(containerd.ctr().args(["images", "rm", "--sync", name, "docker.io/kiln-test/app:also"]));
    assert_eq!(run(containerd.ctr().args(["content", "ls", "-q"])), "", "nothing is held by anything else");
}

#[test]
fn of_several_platforms_this_machines_is_unpacked() {
    let kiln = Kiln::new();
    let containerd = match Containerd::start(&kiln.out("ctrd")) {
        Ok(containerd) => containerd,
        Err(reason) => skip!("containerd does not start here: {reason}"),
    };
    let tree = Tree::dockerfile("FROM scratch\nARG TARGETARCH\nCOPY . /$TARGETARCH/\n");
    tree.write("f", "F");
    let unpacked = |platforms: &str, name: &str| {
        let output = format!("type=image,name={name},unpack=true,compression=zstd,name-canonical=true");
        let build = kiln.build(&tree).args(["--platform", platforms, "-o", &output]);
        let build = build.env("CONTAINERD_ADDRESS", containerd.address()).env("CONTAINERD_SNAPSHOTTER", "native");
        build.env("CONTAINERD_NAMESPACE", "other").ok();
        let snapshots = run(ctr(&containerd).args(["snapshots", "--snapshotter=native", "ls"]));
        snapshots.lines().filter(|line| line.contains("Committed")).count()
    };
    fn ctr(containerd: &Containerd) -> std::process::Command {
        let mut command = containerd.ctr();
        command.args(["--namespace", "other"]);
        command
    }
    let (own, two) = match std::env::consts::ARCH {
        "x86_64" => ("linux/amd64", "linux/arm64,linux/amd64"),
        _ => ("linux/arm64", "linux/amd64,linux/arm64"),
    };
    assert_eq!(unpacked(two, "two"), 1);
    let names = run(ctr(&containerd).args(["images", "ls", "-q"]));
    let names = lines(&names);
    assert!(names.len() == 2 && names[1].starts_with("docker.io/library/two@sha256:"), "{names:?}");
    let check = run(ctr(&containerd).args(["images", "check", "--snapshotter=native"]));
    assert!(check.lines().skip(1).all(|line| line.contains(" complete ") && line.contains("true")), "{check}");
    // The layer is known from the index.
    assert_eq!(unpacked(own, "one"), 1);
    let failed = kiln.build(&tree).args(["-o", "type=image,name=none,unpack=true"]);
    let failed = failed.env("CONTAINERD_ADDRESS", containerd.address()).env("CONTAINERD_SNAPSHOTTER", "none").fails();
    failed.says(&["snapshotter not loaded: none", "ctr plugins ls"]);
    // A lease that failed is over as well, and the image has no name.
    assert_eq!(run(containerd.ctr().args(["leases", "ls", "-q"])), "");
    assert_eq!(run(containerd.ctr().args(["images", "ls", "-q"])), "");
    // What is for other machines alone is unpacked all the same.
    assert_eq!(unpacked("linux/s390x", "far"), 2);
}

#[test]
fn a_dockerd_gets_it_where_there_is_no_containerd() {
    if Path::new(DEFAULT_SOCKET).exists() {
        skip!("a containerd has the default socket");
    }
    let kiln = Kiln::new();
    let daemon = match Dockerd::start(&kiln.out("docker")) {
        Ok(daemon) => daemon,
        Err(reason) => skip!("dockerd does not start here: {reason}"),
    };
    if Path::new(DEFAULT_SOCKET).exists() {
        skip!("this dockerd has its containerd at the default socket");
    }
    let output = ["-o", "type=image,name=kiln-test/app:1,unpack=true", "--provenance=true"];
    let said = kiln.build(&app("cow")).args(output).env("DOCKER_HOST", &daemon.host()).progress("plain").ok();
    assert!(said.stderr.contains("sending image to dockerd"), "{}", said.stderr);
    assert_eq!(run(daemon.docker().args(["run", "--rm", "--network=none", "kiln-test/app:1"])), "cow\n");
}

#[test]
fn without_either_nothing_is_built() {
    let kiln = Kiln::new();
    let tree = app("cow");
    let build = |output: &str| kiln.build(&tree).args(["-o", output]);
    let failed = build("type=image,name=x,unpack=true").env("CONTAINERD_ADDRESS", "/there/is/none").fails();
    failed.says(&["cannot speak to containerd at /there/is/none", "No such file", "CONTAINERD_ADDRESS"]);
    assert!(!failed.stderr.contains("echo cow"), "{}", failed.stderr);
    build("type=image,unpack=true").fails().says(&["name is required"]);
    if Path::new(DEFAULT_SOCKET).exists() {
        skip!("a containerd has the default socket");
    }
    let failed = build("type=image,name=x,unpack=true").env("DOCKER_HOST", "unix:///nor/here").fails();
    failed.says(&["wants a running containerd or dockerd", DEFAULT_SOCKET, "/nor/here", "DOCKER_HOST", "push=true"]);
}
