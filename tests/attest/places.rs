//! Where attestations go: indexes, files, registries; and who refuses them.

use super::{attested, attested_in};
use harness::attestations::attestations;
use harness::{Kiln, Registry, Tree, installed, layer_entries, run, sha256};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

fn context() -> Tree {
    Tree::dockerfile("FROM scratch\nCOPY f /d/f\n").file("f", "F")
}

#[test]
fn legacy_form() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    let spec = format!("--output=type=oci,oci-artifact=false,dest={}", archive.display());
    kiln.build(&context()).args([&spec, "--provenance=mode=min"]).ok();
    let image = harness::Image::read_all(&archive).unwrap().remove(0);
    let blob = harness::attestations::of_files(&image.files);
    let about = attested_in(&archive).1.remove(0);
    assert_eq!((&about.manifest["artifactType"], &about.manifest["subject"]), (&Value::Null, &Value::Null));
    let config: Value =
        serde_json::from_slice(&blob(about.manifest["config"]["digest"].as_str().unwrap()).unwrap()).unwrap();
    assert_eq!((&config["os"], &config["architecture"]), (&"unknown".into(), &"unknown".into()));
    assert_eq!(config["rootfs"]["diff_ids"][0], about.manifest["layers"][0]["digest"]);
}

#[test]
fn one_manifest_for_each_platform_after_all_images() {
    let kiln = Kiln::new();
    let context = context();
    let build = kiln.build(&context).args(["--platform=linux/amd64,linux/arm64", "--provenance=mode=min"]);
    let (index, found) = attested(build, &kiln.out("image.tar"));
    let entries = index["manifests"].as_array().unwrap();
    let platforms: Vec<_> = entries.iter().map(|entry| entry["platform"]["architecture"].as_str().unwrap()).collect();
    assert_eq!(platforms, ["amd64", "arm64", "unknown", "unknown"]);
    let about: Vec<_> = found.iter().map(|about| about.image.as_str()).collect();
    assert_eq!(about, [&entries[0]["digest"], &entries[1]["digest"]].map(|digest| digest.as_str().unwrap()));
    let ids: Vec<_> = found
        .iter()
        .map(|about| about.statements[0]["predicate"]["runDetails"]["metadata"]["invocationID"].clone())
        .collect();
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn files_beside_those_of_the_result() {
    let kiln = Kiln::new();
    let folder = kiln.out("files");
    let out = format!("type=local,attestation-prefix=about-,dest={}", folder.display());
    kiln.build(&context()).args(["-o", &out, "--provenance=true"]).ok();
    let path = folder.join("about-provenance.json");
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    let statement: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let subjects = statement["subject"].as_array().unwrap();
    assert_eq!((subjects.len(), &subjects[0]["name"]), (1, &"d/f".into()));
    assert_eq!(format!("sha256:{}", subjects[0]["digest"]["sha256"].as_str().unwrap()), sha256(b"F"));

    let finished = kiln.build(&context()).args(["-o", "-", "--provenance=mode=min"]).ok();
    let paths: Vec<_> = layer_entries(&finished.stdout).unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/d", "/d/f", "/provenance.json"]);

    // Two platforms in one tree, and a file of the result in the way.
    let folder = kiln.out("both");
    let out = format!("type=local,platform-split=false,dest={}", folder.display());
    let two = Tree::dockerfile("FROM scratch\nARG TARGETARCH\nCOPY f /f-$TARGETARCH\n").file("f", "F");
    kiln.build(&two).args(["-o", &out, "--platform=linux/amd64,linux/arm64", "--provenance=true"]).ok();
    for name in ["provenance.linux_amd64.json", "provenance.linux_arm64.json", "f-amd64", "f-arm64"] {
        assert!(folder.join(name).is_file(), "{name}");
    }
    let taken = Tree::dockerfile("FROM scratch\nCOPY f /provenance.json\n").file("f", "F");
    let out = format!("type=local,dest={}", kiln.out("taken").display());
    kiln.build(&taken).args(["-o", &out, "--provenance=true"]).fails().says(&["attestation-prefix"]);
}

#[test]
fn who_refuses_them() {
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    let check = |output: &str, flag: &str, expect: &str| {
        let output = format!("--output={output},dest={}", archive.display());
        kiln.build(&context()).args([output.as_str(), flag]).fails().says(&[expect]);
        assert!(!archive.exists());
    };
    check("type=docker", "--provenance=true", "use the oci exporter instead");
    check("type=docker,oci-artifact=true,oci-mediatypes=false", "--provenance=false", "oci-artifact");
    check("type=oci", "--provenance=mode=medium", "min or max");
    check("type=oci", "--provenance=nonsense=1", "unknown option \"nonsense\"");
    check("type=oci", "--attest=type=vsa", "type=provenance or type=sbom");
    let image = ["--output=type=image,oci-mediatypes=false", "--provenance=true"];
    kiln.build(&context()).args(image).fails().says(&["oci-mediatypes"]);
    // What is only for images that are pushed comes to no archive.
    kiln.build(&context()).args(["--provenance=inline-only=true"]).output("docker", &archive).ok();
    assert!(harness::Image::read(&archive).is_ok());
}

#[test]
fn an_index_that_was_pushed_is_a_base() {
    let registry = Registry::shared();
    let kiln = Kiln::new();
    let name = format!("{}/attest/index:1", registry.host);
    kiln.build(&context()).args(["-t", &name, "--push", "--provenance=inline-only=true,mode=min"]).ok();
    let raw = match installed("skopeo") {
        true => {
            run(Command::new("skopeo").args(["inspect", "--tls-verify=false", "--raw", &format!("docker://{name}")]))
        }
        false => String::from_utf8(registry.get_manifest("attest/index", "1").unwrap().body).unwrap(),
    };
    let index: Value = serde_json::from_str(&raw).unwrap();
    let blob = |digest: &str| registry.get_blob("attest/index", digest);
    let about = attestations(&index, &blob).unwrap();
    assert_eq!(about[0].image, index["manifests"][0]["digest"].as_str().unwrap());
    let image = Kiln::new().image(&Tree::dockerfile(&format!("FROM {name}\nCOPY --from={name} /d/f /g\n")));
    assert_eq!((image.text("/d/f"), image.text("/g")), ("F".into(), "F".into()));
}

/// Statements about a manifest, found as distribution-spec says for a registry that lists no referrers.
fn referrers(registry: &Registry, repository: &str, subject: &str) -> Vec<Value> {
    let tag = subject.replace(':', "-");
    let list: Value = serde_json::from_slice(&registry.get_manifest(repository, &tag).unwrap().body).unwrap();
    let blob = |digest: &str| registry.get_blob(repository, digest);
    let mut statements = vec![];
    for entry in list["manifests"].as_array().unwrap() {
        assert_eq!(entry["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
        let bytes = blob(entry["digest"].as_str().unwrap()).unwrap();
        let manifest: Value = serde_json::from_slice(&bytes).unwrap();
        assert_eq!(manifest["subject"]["digest"], subject);
        statements.extend(harness::attestations::statements(&manifest, &blob).unwrap());
    }
    statements
}

#[test]
fn referrers_leave_the_image_as_it_is() {
    let registry = Registry::shared();
    let kiln = Kiln::new();
    let name = format!("{}/attest/referrers:1", registry.host);
    let output = format!("--output=type=image,name={name},push=true");
    let tagged = || sha256(&registry.get_manifest("attest/referrers", "1").unwrap().body);
    kiln.build(&context()).args([&output]).ok();
    let plain = tagged();
    let output = format!("{output},attestation-referrers=true");
    kiln.build(&context()).args([&output, "--provenance=mode=min", "--sbom=true"]).ok();
    assert_eq!(tagged(), plain);
    let kinds = |statements: Vec<Value>| -> Vec<String> {
        statements.iter().map(|statement| statement["predicateType"].as_str().unwrap().to_string()).collect()
    };
    let found = kinds(referrers(registry, "attest/referrers", &plain));
    assert_eq!(found, ["https://spdx.dev/Document", "https://slsa.dev/provenance/v1"]);
    // Another build of the same image is one more witness.
    kiln.build(&context()).args([&output, "--provenance=mode=min"]).ok();
    assert_eq!(kinds(referrers(registry, "attest/referrers", &plain)).len(), 3);

    kiln.build(&context())
        .args(["--output=type=image,name=x,attestation-referrers=true", "--provenance=true"])
        .fails()
        .says(&["push=true"]);
}

#[test]
fn referrers_of_each_platform() {
    let registry = Registry::shared();
    let kiln = Kiln::new();
    let name = format!("{}/attest/platforms:1", registry.host);
    let output = format!("--output=type=image,name={name},push=true,attestation-referrers=true");
    kiln.build(&context()).args([&output, "--provenance=mode=min", "--platform=linux/amd64,linux/arm64"]).ok();
    let index: Value = serde_json::from_slice(&registry.get_manifest("attest/platforms", "1").unwrap().body).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!(referrers(registry, "attest/platforms", entry["digest"].as_str().unwrap()).len(), 1);
    }
}
