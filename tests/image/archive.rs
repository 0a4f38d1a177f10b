//! `kiln image save` and `load`: archives that others read, and archives of others.

use harness::bases::{Tar, busybox};
use harness::{Finished, Image, Kiln, Tree, installed, run, sha256, skip};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use std::io::Write;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

fn app() -> Tree {
    Tree::dockerfile("FROM busybox\nRUN echo hello > /hello && rm /etc/group\nCMD [\"cat\", \"/hello\"]\n")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

#[test]
fn what_is_saved_is_what_is_exported() {
    let kiln = Kiln::new();
    let (exported, saved) = (kiln.out("exported.tar"), kiln.out("saved.tar"));
    kiln.build(&app()).args(["-t", "app:1"]).ok();
    kiln.build(&app()).args(["-t", "app:1"]).output("docker", &exported).ok();
    kiln.says("image", &["save", "-o", text(&saved), "app:1"]);
    assert!(std::fs::read(&exported).unwrap() == std::fs::read(&saved).unwrap(), "the archives differ");
    let piped = kiln.run("image", &["save", "app:1"]);
    assert!(piped.stdout == std::fs::read(&saved).unwrap(), "standard output differs");
}

#[test]
fn several_names_in_one_archive_come_back() {
    let kiln = Kiln::new();
    kiln.build(&app()).args(["-t", "app:1", "-t", "example.org/app:2"]).ok();
    kiln.build(&Tree::dockerfile("FROM app:1\nRUN echo more > /more\n")).args(["-t", "child"]).ok();
    let archive = kiln.out("all.tar");
    kiln.says("image", &["save", "-o", text(&archive), "app:1", "child", "example.org/app:2"]);
    let manifest: Value =
        serde_json::from_slice(&Image::read_all(&archive).unwrap()[0].files["manifest.json"]).unwrap();
    let tags: Vec<&Value> = manifest.as_array().unwrap().iter().map(|image| &image["RepoTags"]).collect();
    assert_eq!(tags, [&json!(["app:1", "example.org/app:2"]), &json!(["child:latest"])]);

    let other = Kiln::with_config("");
    let said = other.says("image", &["load", "-i", text(&archive)]);
    assert_eq!(said.lines().count(), 3, "{said}");
    // No registry: all that is needed came with the archive.
    let image = other.image(&Tree::dockerfile("FROM child\nRUN cat /hello /more > /both\n"));
    assert_eq!(image.text("/both"), "hello\nmore\n");
    assert!(!image.tree().contains_key("/etc/group"));
    let again = other.out("again.tar");
    other.says("image", &["save", "-o", text(&again), "app:1", "child", "example.org/app:2"]);
    assert!(std::fs::read(&archive).unwrap() == std::fs::read(&again).unwrap(), "to the byte");
}

#[test]
fn several_platforms_take_an_oci_archive() {
    let kiln = Kiln::new();
    let both = Tree::dockerfile("FROM busybox\nCOPY f /f\n").file("f", "F");
    kiln.build(&both).args(["-t", "multi", "--platform=linux/amd64,linux/arm64"]).ok();
    let archive = kiln.out("multi.tar");
    let refused = kiln.run("image", &["save", "-o", text(&archive), "multi"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("--platform") && !archive.exists(), "{}", refused.stderr);
    kiln.says("image", &["save", "--type", "oci", "-o", text(&archive), "multi"]);
    assert_eq!(Image::read_all(&archive).unwrap().len(), 2);
    let other = Kiln::with_config("");
    other.says("image", &["load", "-i", text(&archive)]);
    let list: Value = serde_json::from_str(&other.says("image", &["ls", "--format", "json"])).unwrap();
    assert_eq!(list["Platforms"], json!(["linux/amd64", "linux/arm64"]));
    let one = other.out("one.tar");
    other.says("image", &["save", "--platform", "linux/arm64", "-o", text(&one), "multi"]);
    assert_eq!(Image::read(&one).unwrap().config["architecture"], "arm64");
    let again = other.out("again.tar");
    other.says("image", &["save", "--type", "oci", "-o", text(&again), "multi"]);
    assert!(std::fs::read(&archive).unwrap() == std::fs::read(&again).unwrap(), "to the byte");
}

/// As docker wrote it before version 25: a folder for each layer, a link where two images share one.
fn old_archive(layers: &[Vec<u8>; 2]) -> Vec<u8> {
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&layers[0]), sha256(&layers[1])]},
        "history": [{"created_by": "one"}, {"created_by": "none", "empty_layer": true}, {"created_by": "two"}],
    });
    let config = serde_json::to_vec(&config).unwrap();
    let name = format!("{}.json", &sha256(&config)[7..]);
    let manifest = json!([{"Config": name, "RepoTags": ["old:1"], "Layers": ["b/layer.tar", "c/layer.tar"]}]);
    let mut tar = Tar::new();
    tar.folder("a", 0o755).unwrap();
    tar.file("a/layer.tar", 0o644, &layers[0]).unwrap();
    tar.folder("b", 0o755).unwrap();
    tar.symlink("b/layer.tar", "../a/layer.tar").unwrap();
    tar.file("c/VERSION", 0o644, b"1.0").unwrap();
    tar.file("c/layer.tar", 0o644, &layers[1]).unwrap();
    tar.file(&name, 0o644, &config).unwrap();
    tar.file("manifest.json", 0o644, &serde_json::to_vec(&manifest).unwrap()).unwrap();
    tar.finish().unwrap()
}

fn layer(name: &str, data: &[u8]) -> Vec<u8> {
    let mut tar = Tar::new();
    tar.file(name, 0o644, data).unwrap();
    tar.finish().unwrap()
}

#[test]
fn old_docker_archives_are_read_compressed_or_not() {
    let layers = [layer("one", b"1"), layer("two", b"2")];
    let archive = old_archive(&layers);
    let kiln = Kiln::with_config("");
    let path = kiln.out("old.tar");
    std::fs::write(&path, &archive).unwrap();
    assert!(kiln.says("image", &["load", "-i", text(&path)]).starts_with("Loaded image: old:1"));
    let image = kiln.image(&Tree::dockerfile("FROM old:1\nCOPY x /x\n").file("x", "X"));
    assert_eq!((image.text("/one").as_str(), image.text("/two").as_str()), ("1", "2"));
    assert_eq!(image.setting("/Env/0"), "A=b");
    let config = image.config["history"].as_array().unwrap().len();
    assert_eq!(config, 4);

    let compressed = kiln.out("old.tar.gz");
    run(Command::new("sh").arg("-c").arg(format!("gzip -c {} > {}", path.display(), compressed.display())));
    let mut command = kiln.command("image");
    command.args(["load", "--tag", "other:1"]).stdin(std::fs::File::open(compressed).unwrap());
    let said = run(&mut command);
    assert!(said.starts_with("Loaded image: other:1"), "{said}");
    let inspect: Value = serde_json::from_str(&kiln.says("image", &["inspect", "other:1"])).unwrap();
    assert_eq!(inspect[0]["RepoTags"], json!(["old:1", "other:1"]), "the same image");
}

#[test]
fn damaged_archives_are_refused() {
    let kiln = Kiln::with_config("");
    let refused = |name: &str, bytes: &[u8], expect: &str| {
        let path = kiln.out(name);
        std::fs::write(&path, bytes).unwrap();
        let finished = kiln.run("image", &["load", "-i", text(&path)]);
        assert_eq!(finished.status.code(), Some(1), "{name}");
        assert!(finished.stderr.contains(expect), "{name}: {}", finished.stderr);
        assert_eq!(kiln.says("image", &["ls", "-q"]), "", "{name}");
    };
    let layers = [layer("one", b"1"), layer("two", b"2")];
    let archive = old_archive(&layers);
    let mut flipped = archive.clone();
    // The byte of `two`'s content.
    let at =
        archive.windows(512).rposition(|block| block[0] == b'2' && block[1..].iter().all(|byte| *byte == 0)).unwrap();
    flipped[at] = b'3';
    refused("flipped.tar", &flipped, "but the image config says");
    refused("short.tar", &archive[..2000], "");
    refused("no.tar", b"this is no archive at all, whatever it is called", "");
    let mut empty = Tar::new();
    empty.file("hello", 0o644, b"hi").unwrap();
    refused("other.tar", &empty.finish().unwrap(), "neither manifest.json nor index.json");
    let mut unnamed = Tar::new();
    unnamed.file("manifest.json", 0o644, br#"[{"Config":"c.json","RepoTags":null,"Layers":null}]"#).unwrap();
    unnamed.file("c.json", 0o644, br#"{"architecture":"amd64","os":"linux"}"#).unwrap();
    refused("unnamed.tar", &unnamed.finish().unwrap(), "--tag NAME");
}

/// A load that has read the first half of an archive and waits for the rest.
fn half_loaded(kiln: &Kiln, archive: &[u8]) -> (Child, ChildStdin) {
    let mut command = kiln.command("image");
    command.arg("load").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start kiln");
    let mut input = child.stdin.take().expect("standard input is a pipe");
    input.write_all(&archive[..archive.len() / 2]).expect("write half an archive");
    // The layer before the half is in the store when its file is.
    let blobs = kiln.root().join("blobs/sha256");
    let is_there = || std::fs::read_dir(&blobs).is_ok_and(|mut blobs| blobs.next().is_some());
    let waited = (0..600).any(|_| {
        std::thread::sleep(std::time::Duration::from_millis(50));
        is_there()
    });
    if !waited {
        let _ = child.kill();
        let _ = child.wait();
        panic!("no layer came into the store");
    }
    (child, input)
}

/// Layers of which two are in the first half.
fn large_archive() -> Vec<u8> {
    old_archive(&[layer("one", &[b'1'; 400_000]), layer("two", &[b'2'; 1_000_000])])
}

#[test]
fn a_prune_beside_a_load_takes_nothing_of_it() {
    let kiln = Kiln::with_config("");
    let archive = large_archive();
    let (child, mut input) = half_loaded(&kiln, &archive);
    kiln.says("prune", &["--all", "--force"]);
    input.write_all(&archive[archive.len() / 2..]).unwrap();
    drop(input);
    let done = Finished::wait(child);
    assert!(done.status.success(), "{}", done.stderr);
    let image = kiln.image(&Tree::dockerfile("FROM old:1\nCOPY x /x\n").file("x", "X"));
    assert_eq!(image.text("/one").len(), 400_000);
}

#[test]
fn a_load_that_is_killed_leaves_a_sound_store() {
    let kiln = Kiln::with_config("");
    let archive = large_archive();
    let (mut child, input) = half_loaded(&kiln, &archive);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(input);
    assert_eq!(kiln.says("image", &["ls", "-q"]), "");
    kiln.says("debug", &["verify"]);
    kiln.says("prune", &["--all", "--force"]);
    assert_eq!(kiln.says("du", &["--format", "json"]), "");
    let path = kiln.out("old.tar");
    std::fs::write(&path, &archive).unwrap();
    kiln.says("image", &["load", "-i", text(&path)]);
}

#[test]
fn a_load_that_is_stopped_ends_though_more_may_come() {
    let kiln = Kiln::with_config("");
    let (child, input) = half_loaded(&kiln, &large_archive());
    kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
    let stopped = Finished::wait(child);
    drop(input);
    assert_eq!(stopped.status.code(), Some(1));
    assert!(stopped.stderr.contains("canceled"), "{}", stopped.stderr);
    assert_eq!(kiln.says("image", &["ls", "-q"]), "");
}

#[test]
fn other_programs_read_what_is_saved() {
    let kiln = Kiln::new();
    kiln.build(&app()).args(["-t", "app:1"]).ok();
    let (docker, oci) = (kiln.out("docker.tar"), kiln.out("oci.tar"));
    kiln.says("image", &["save", "-o", text(&docker), "app:1"]);
    kiln.says("image", &["save", "--type", "oci", "-o", text(&oci), "app:1"]);
    let mut tried = vec![];
    if installed("skopeo") {
        for source in [format!("docker-archive:{}:app:1", docker.display()), format!("oci-archive:{}:1", oci.display())]
        {
            let copy = kiln.out(&format!("copy{}", tried.len()));
            run(Command::new("skopeo").args(["copy", "--quiet", &source, &format!("dir:{}", copy.display())]));
            tried.push("skopeo");
        }
    }
    if installed("umoci") && rustix::process::geteuid().is_root() {
        let (layout, bundle) = (kiln.out("layout"), kiln.out("bundle"));
        std::fs::create_dir(&layout).unwrap();
        run(Command::new("tar").arg("-xf").arg(&oci).arg("-C").arg(&layout));
        run(Command::new("umoci").args(["unpack", "--image", &format!("{}:1", layout.display())]).arg(&bundle));
        assert_eq!(std::fs::read_to_string(bundle.join("rootfs/hello")).unwrap(), "hello\n");
        tried.push("umoci");
    }
    if installed("buildah") && rustix::process::geteuid().is_root() {
        let state = kiln.out("buildah");
        let buildah = |args: &[&str]| {
            let mut command = Command::new("buildah");
            command.arg("--root").arg(state.join("root")).arg("--runroot").arg(state.join("run"));
            run(command.args(["--storage-driver", "vfs"]).args(args).stderr(Stdio::piped()))
        };
        buildah(&["pull", "--quiet", &format!("docker-archive:{}:app:1", docker.display())]);
        assert!(buildah(&["images"]).contains("app"));
        tried.push("buildah");
    }
    if tried.is_empty() {
        skip!("neither skopeo nor umoci nor buildah is installed");
    }
}

#[test]
fn what_skopeo_writes_is_loaded() {
    if !installed("skopeo") {
        skip!("skopeo is not installed");
    }
    let base = busybox(&["amd64"]).unwrap();
    let kiln = Kiln::with_config("");
    let source = format!("oci:{}:latest", base.folder().display());
    for (number, kind) in ["docker-archive", "oci-archive"].iter().enumerate() {
        let archive = kiln.out(&format!("{number}.tar"));
        run(Command::new("skopeo").args([
            "copy",
            "--quiet",
            &source,
            &format!("{kind}:{}:from/skopeo:{number}", archive.display()),
        ]));
        kiln.says("image", &["load", "-i", text(&archive)]);
        let child = Tree::dockerfile(&format!("FROM from/skopeo:{number}\nRUN echo ran > /ran\n"));
        assert_eq!(kiln.image(&child).text("/ran"), "ran\n");
    }
}
