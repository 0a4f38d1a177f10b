//! FROM an image in a registry.

use harness::bases::{BaseImage, Layout, Tar, busybox};
use harness::{Kiln, Registry, Tree};
use serde_json::json;

#[test]
fn the_mirror_of_docker_io_is_asked() {
    let image = Kiln::new().image(&Tree::dockerfile("FROM docker.io/library/busybox:latest\nRUN echo ran > /f\n"));
    assert_eq!(image.text("/f"), "ran\n");
}

#[test]
fn by_digest() {
    let base = busybox(&["amd64", "arm64"]).unwrap();
    let image = Kiln::new().image(&Tree::dockerfile(&format!("FROM busybox@{}\nRUN echo ran > /f\n", base.top)));
    assert_eq!(image.text("/f"), "ran\n");
}

#[test]
fn of_another_platform() {
    let kiln = Kiln::new();
    let image = kiln
        .build(&Tree::dockerfile("FROM busybox\nCOPY f /f\n").file("f", "F"))
        .args(["--platform=linux/arm64"])
        .image();
    assert_eq!((&image.config["architecture"], image.text("/f")), (&json!("arm64"), "F".into()));
}

#[test]
fn a_missing_one_is_named() {
    let name = format!("{}/no/such:image", Registry::shared().host);
    Kiln::new().build(&Tree::dockerfile(&format!("FROM {name}\nRUN true\n"))).fails().says(&[
        &name,
        "not found",
        "Dockerfile:1",
        &format!("1 | FROM {name}"),
    ]);
}

#[test]
fn whiteouts_in_pulled_layers_are_honoured() {
    let registry = Registry::shared();
    let mut image = harness::bases::busybox_images(&["amd64"]).unwrap().remove(0);
    image.config["Labels"] = json!({"lower": "1"});
    let kiln = Kiln::new();
    let name = format!("{}/source/whiteouts", registry.host);
    let context = Tree::dockerfile(
        "FROM busybox\nRUN mkdir -p /d/sub && echo 1 > /d/old && echo 1 > /d/sub/f && echo 1 > /gone\n\
         RUN rm /gone && rm -r /d && mkdir /d && echo 2 > /d/new\n",
    );
    kiln.build(&context).args([format!("--output=type=image,name={name},push=true")]).ok();
    let image = Kiln::new().image(&Tree::dockerfile(&format!("FROM {name}\nRUN ls / /d > /out; true\n")));
    let listing = image.text("/out");
    assert!(listing.ends_with("/d:\nnew\n") && !listing.contains("gone"), "{listing}");
}

#[test]
fn an_archive_entry_cannot_leave_the_root() {
    let registry = Registry::shared();
    let mut tar = Tar::new();
    tar.symlink("out", "/tmp").unwrap();
    tar.file("out/kiln-escape", 0o644, b"x").unwrap();
    let image = BaseImage { arch: "amd64".into(), layer: tar.finish().unwrap(), config: json!({}) };
    registry.push(&Layout::temporary(&[image]).unwrap(), "source/escape", "latest").unwrap();
    let context = Tree::dockerfile(&format!("FROM {}/source/escape\nCOPY f /f\n", registry.host)).file("f", "F");
    let kiln = Kiln::new();
    kiln.build(&context).output("oci", &kiln.out("image.tar")).run();
    assert!(!std::path::Path::new("/tmp/kiln-escape").exists());
}
