//! `--annotation`: on each of the four places that have annotations, and refused where there is none.

use harness::{Image, Kiln, Tree};
use serde_json::{Value, json};

fn context() -> Tree {
    Tree::dockerfile("FROM scratch\nCOPY f /f\n").file("f", "F")
}

/// A document of a layout by its descriptor.
fn document(image: &Image, descriptor: &Value) -> Value {
    let path = format!("blobs/{}", descriptor["digest"].as_str().unwrap().replace(':', "/"));
    serde_json::from_slice(&image.files[&path]).unwrap()
}

#[test]
fn every_level() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    let annotations = [
        "--annotation=plain=0",
        "--annotation=index:a=1",
        "--annotation=index-descriptor:b=2",
        "--annotation=manifest,manifest-descriptor:c=3",
        "--annotation=manifest[linux/arm64]:d=4,5",
    ];
    let context = context();
    let build = kiln.build(&context).args(annotations).args(["--platform=linux/amd64,linux/arm64"]);
    build.output("oci", &archive).ok();
    let image = Image::read_all(&archive).unwrap().remove(0);
    let top = &image.index["manifests"][0];
    assert_eq!(top["annotations"]["b"], "2");
    let index = document(&image, top);
    assert_eq!(index["annotations"], json!({ "a": "1" }));
    let of_manifests: Vec<Value> = index["manifests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|entry| document(&image, entry)["annotations"].clone())
        .collect();
    assert_eq!(of_manifests, [json!({ "c": "3", "plain": "0" }), json!({ "c": "3", "d": "4,5", "plain": "0" })]);
    assert!(index["manifests"].as_array().unwrap().iter().all(|entry| entry["annotations"] == json!({ "c": "3" })));
}

#[test]
fn of_a_single_platform() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    let descriptor = ["--annotation=a=1", "--annotation=manifest-descriptor:b=2"];
    kiln.build(&context()).args(descriptor).output("oci", &archive).ok();
    let image = Image::read(&archive).unwrap();
    assert_eq!(
        (&image.manifest["annotations"], &image.index["manifests"][0]["annotations"]["b"]),
        (&json!({ "a": "1" }), &json!("2"))
    );
    // An index that is there for attestations has annotations too.
    let index = ["--annotation=index:a=1"];
    kiln.build(&context()).args(index).output("oci", &archive).fails().says(&["index annotations need an image index"]);
    kiln.build(&context()).args(index).args(["--provenance=mode=min"]).output("oci", &archive).ok();
    let image = Image::read_all(&archive).unwrap().remove(0);
    assert_eq!(document(&image, &image.index["manifests"][0])["annotations"], json!({ "a": "1" }));
}

#[test]
fn refused_where_nothing_has_annotations() {
    let kiln = Kiln::new();
    let local = format!("--output={}", kiln.out("files").display());
    kiln.build(&context()).args(["--annotation=a=1", &local]).fails().says(&["annotation", "no image"]);
    let check = |annotation: &str, expect: &str| {
        let annotation = format!("--annotation={annotation}");
        kiln.build(&context()).args([&annotation]).output("oci", &kiln.out("image.tar")).fails().says(&[expect]);
    };
    check("a", "key=value");
    check("layer:a=1", "unknown annotation type");
    check("index[linux/amd64]:a=1", "annotation[-type[platform]].name");
    let docker =
        format!("--output=type=oci,oci-mediatypes=false,annotation-index.a=1,dest={}", kiln.out("x").display());
    kiln.build(&context()).args([&docker]).fails().says(&["Docker's indexes have no annotations"]);
}
