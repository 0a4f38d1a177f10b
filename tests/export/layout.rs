//! `type=oci`: as an archive and as a folder, read by us, by skopeo and by umoci.

use harness::{Image, Kiln, Tree, installed, run, skip};
use std::process::Command;

fn context() -> Tree {
    Tree::dockerfile("FROM busybox\nRUN echo hello > /hello && rm /etc/group\nCMD [\"cat\", \"/hello\"]\n")
}

#[test]
fn archive_and_folder_hold_the_same_image() {
    let kiln = Kiln::new();
    let (archive, folder) = (kiln.out("image.tar"), kiln.out("image"));
    kiln.build(&context()).output("oci", &archive).ok();
    kiln.build(&context()).args([format!("-o=type=oci,tar=false,dest={}", folder.display())]).ok();
    let (archive, folder) = (Image::read(&archive).unwrap(), Image::read(&folder).unwrap());
    assert_eq!(archive.text("/hello"), "hello\n");
    assert!(!archive.tree().contains_key("/etc/group"));
    assert_eq!(archive.digest, folder.digest);
}

#[test]
fn names_are_annotated() {
    let kiln = Kiln::new();
    let image = kiln.build(&context()).args(["-t", "example.org/app:1", "-t", "app"]).image();
    let names: Vec<&str> = image.index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|descriptor| descriptor["annotations"]["io.containerd.image.name"].as_str())
        .collect();
    assert_eq!(names, ["example.org/app:1", "docker.io/library/app:latest"]);
}

#[test]
fn estargz_is_gzip_with_a_table() {
    let kiln = Kiln::new();
    let plain = kiln.build(&context()).image();
    let archive = kiln.out("estargz.tar");
    let to = |rest: &str| format!("-o=type=oci,dest={},compression=estargz{rest}", archive.display());
    kiln.build(&context()).args([to(",force-compression=true")]).ok();
    let image = Image::read(&archive).unwrap();
    assert_eq!(image.text("/hello"), "hello\n");
    // The table lies behind the end of the tar: whoever unpacks it sees no other files.
    assert_eq!(image.tree(), plain.tree());
    let layers = image.manifest["layers"].as_array().unwrap();
    for layer in layers {
        assert_eq!(layer["mediaType"], "application/vnd.oci.image.layer.v1.tar+gzip");
        for key in ["containerd.io/snapshot/stargz/toc.digest", "io.containers.estargz.uncompressed-size"] {
            assert!(layer["annotations"][key].is_string(), "{key}: {layer}");
        }
    }
    // Those of the base are as they were unless it is asked for.
    kiln.build(&context()).args([to("")]).ok();
    let image = Image::read(&archive).unwrap();
    assert!(image.manifest["layers"][0]["annotations"].is_null());
    let refused = kiln.build(&context()).args([to(",oci-mediatypes=false").replace("type=oci", "type=docker")]).fails();
    assert!(refused.stderr.contains("it needs oci-mediatypes=true"), "{}", refused.stderr);
}

#[test]
fn skopeo_reads_it() {
    if !installed("skopeo") {
        skip!("skopeo is not installed");
    }
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    kiln.build(&context()).args(["-t", "app:1"]).output("oci", &archive).ok();
    let copy = kiln.out("copy");
    let source = format!("oci-archive:{}", archive.display());
    run(Command::new("skopeo").args(["inspect", &source]));
    run(Command::new("skopeo").args(["copy", "--quiet", &source, &format!("dir:{}", copy.display())]));
}

#[test]
fn umoci_unpacks_it() {
    if !installed("umoci") || !rustix::process::geteuid().is_root() {
        skip!("needs umoci, and root to unpack owners");
    }
    let kiln = Kiln::new();
    let folder = kiln.out("image");
    kiln.build(&context()).args(["-t", "app:1", &format!("-o=type=oci,tar=false,dest={}", folder.display())]).ok();
    let image = Image::read(&folder).unwrap();
    let tag = image.index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"].as_str().unwrap();
    let bundle = kiln.out("bundle");
    run(Command::new("umoci").args(["unpack", "--image", &format!("{}:{tag}", folder.display())]).arg(&bundle));
    assert_eq!(std::fs::read_to_string(bundle.join("rootfs/hello")).unwrap(), "hello\n");
    assert!(!bundle.join("rootfs/etc/group").exists());
}
