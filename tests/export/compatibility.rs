//! `compatibility-version`: images as former BuildKits put them together.

use harness::attestations::{attestations, of_files};
use harness::{Image, Kiln, Registry, Tree, sha256};
use serde_json::{Value, json};

const DOCKER: &str = "application/vnd.docker.distribution.manifest.v2+json";
const OCI: &str = "application/vnd.oci.image.manifest.v1+json";

fn context() -> Tree {
    Tree::dockerfile("FROM scratch\nCOPY f /f\n").file("f", "F")
}

/// What a tag stands for after a build with these options of `type=image`.
fn pushed(kiln: &Kiln, options: &str, args: &[&str]) -> Value {
    let registry = Registry::shared();
    let output = format!("--output=type=image,name={}/compatibility/app:1,push=true{options}", registry.host);
    kiln.build(&context()).args([output.as_str()]).args(args).env("SOURCE_DATE_EPOCH", "1700000000").ok();
    serde_json::from_slice(&registry.get_manifest("compatibility/app", "1").unwrap().body).unwrap()
}

#[test]
fn media_types_are_dockers_unless_something_is_attested() {
    let kiln = Kiln::with_config("");
    let manifest = pushed(&kiln, ",compatibility-version=20", &[]);
    assert_eq!(manifest["mediaType"], DOCKER);
    assert_eq!(manifest["config"]["mediaType"], "application/vnd.docker.container.image.v1+json");
    assert_eq!(manifest["layers"][0]["mediaType"], "application/vnd.docker.image.rootfs.diff.tar.gzip");
    assert_eq!(manifest, pushed(&kiln, ",oci-mediatypes=false", &[]));
    let now = pushed(&kiln, "", &[]);
    assert_eq!(now["mediaType"], OCI);
    assert_eq!(now, pushed(&kiln, ",compatibility-version=30", &[]));
    assert_eq!(now, pushed(&kiln, ",compatibility-version=20,oci-mediatypes=true", &[]));

    let index = pushed(&kiln, ",compatibility-version=20", &["--provenance=mode=min"]);
    assert_eq!(index["manifests"][0]["mediaType"], OCI);
    let blob = |digest: &str| Registry::shared().get_blob("compatibility/app", digest);
    let about = attestations(&index, &blob).unwrap().remove(0);
    assert_eq!((&about.manifest["artifactType"], &about.manifest["subject"]), (&Value::Null, &Value::Null));
    let request = &about.statements[0]["predicate"]["buildDefinition"]["externalParameters"]["request"];
    assert_eq!(request["compatibilityVersion"], 20);
    let index = pushed(&kiln, "", &["--provenance=mode=min,version=v0.2"]);
    let about = attestations(&index, &blob).unwrap().remove(0);
    assert_eq!(about.statements[0]["predicate"]["invocation"]["parameters"]["compatibilityVersion"], 30);
}

#[test]
fn archives() {
    let kiln = Kiln::with_config("");
    let archive = kiln.out("image.tar");
    let build = |kind: &str, args: &[&str]| {
        let output = format!("--output=type={kind},compatibility-version=20,dest={}", archive.display());
        kiln.build(&context()).args([output.as_str()]).args(args).ok();
        Image::read_all(&archive).unwrap().remove(0)
    };
    // A layout is OCI's, whatever the version; only attestations differ.
    assert_eq!(build("oci", &[]).index["manifests"][0]["mediaType"], OCI);
    assert_eq!(build("docker", &[]).index["manifests"][0]["mediaType"], DOCKER);
    let image = build("oci", &["--provenance=mode=min"]);
    let blob = of_files(&image.files);
    let top = blob(image.index["manifests"][0]["digest"].as_str().unwrap()).unwrap();
    let found = attestations(&serde_json::from_slice(&top).unwrap(), &blob).unwrap();
    assert_eq!(found[0].manifest["config"]["mediaType"], "application/vnd.oci.image.config.v1+json");
    assert_eq!(found[0].manifest["artifactType"], json!(null));
    assert_eq!(sha256(&top), image.index["manifests"][0]["digest"].as_str().unwrap());
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let kiln = Kiln::with_config("");
    let refused = |options: &str, expect: &str| {
        let output = format!("--output=type=image,name=x{options}");
        kiln.build(&context()).args([output]).fails().says(&[expect]);
        assert_eq!(kiln.says("image", &["ls", "-q"]), "");
    };
    refused(",compatibility-version=10", "20 gives what 10 does");
    refused(",compatibility-version=99", "upgrade it");
    refused(",compatibility-version=x", "kiln has 20 and 30");
    refused(",compatibility-version=20,compression=estargz", "it needs oci-mediatypes=true");
    refused(",compatibility-version=20,annotation-index.a=b", "Docker's indexes have no annotations");
    let two = format!("--output=type=oci,compatibility-version=20,dest={}", kiln.out("x").display());
    let finished = kiln.build(&context()).args(["--output=type=image,name=x", &two]).fails();
    finished.says(&["different values of compatibility-version"]);
    kiln.build(&context())
        .args(["--output=type=tar,dest=x,compatibility-version=20"])
        .fails()
        .says(&["unknown attribute"]);
}
