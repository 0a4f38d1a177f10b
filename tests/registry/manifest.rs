//! `kiln manifest`: pushes of several machines joined to one image.

use harness::{Kiln, Registry, Tree, sha256};
use serde_json::{Value, json};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Builds for a platform and pushes by digest, as one of several machines does; gives the digest.
fn pushed(kiln: &Kiln, repository: &str, platform: &str, content: &str) -> String {
    let context = Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", content);
    let metadata = kiln.out("metadata.json");
    kiln.build(&context)
        .args([
            format!("--output=type=image,name={repository},push-by-digest=true,push=true"),
            format!("--metadata-file={}", metadata.display()),
            format!("--platform={platform}"),
        ])
        .ok();
    let text = std::fs::read_to_string(metadata).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["containerimage.digest"].as_str().unwrap().to_string()
}

fn index(registry: &Registry, repository: &str, tag: &str) -> Value {
    let answer = registry.get_manifest(repository, tag).unwrap();
    assert_eq!(answer.status, 200, "{repository}:{tag}");
    serde_json::from_slice(&answer.body).unwrap()
}

fn platforms(index: &Value) -> Vec<String> {
    let entries = index["manifests"].as_array().unwrap().iter();
    let text = |entry: &Value, key: &str| entry["platform"][key].as_str().unwrap_or_default().to_string();
    entries.map(|entry| text(entry, "architecture") + &text(entry, "variant")).collect()
}

/// What is in an image for a platform.
fn content(name: &str, platform: &str) -> String {
    let context = Tree::dockerfile(&format!("FROM {name}\nCOPY b /b\n")).file("b", "B");
    Kiln::with_config("").build(&context).args([format!("--platform={platform}")]).image().text("/a")
}

#[test]
fn several_machines_make_one_image() {
    let registry = Registry::shared();
    let kiln = Kiln::with_config("");
    let repository = format!("{}/manifest/app", registry.host);
    let amd = pushed(&kiln, &repository, "linux/amd64", "amd");
    let arm = pushed(&kiln, &repository, "linux/arm64", "arm");
    let name = format!("{repository}:1");
    let dry = kiln.says("manifest", &["create", "--dry-run", &name, &amd, &arm]);
    assert_eq!(registry.get_manifest("manifest/app", "1").unwrap().status, 404);

    let said = kiln.says("manifest", &["create", &name, &amd, &arm]);
    let answer = registry.get_manifest("manifest/app", "1").unwrap();
    assert_eq!(said.trim(), format!("{name}@{}", sha256(&answer.body)));
    assert_eq!(dry.trim_end().as_bytes(), answer.body);
    assert_eq!(platforms(&index(registry, "manifest/app", "1")), ["amd64", "arm64"]);
    assert_eq!([content(&name, "linux/amd64"), content(&name, "linux/arm64")], ["amd", "arm"]);

    // Another machine is late, and one comes again.
    let v7 = pushed(&kiln, &repository, "linux/arm/v7", "v7");
    kiln.says("manifest", &["create", "--append", &name, &v7, "--annotation", "a=1"]);
    let newer = pushed(&kiln, &repository, "linux/amd64", "newer");
    kiln.says("manifest", &["create", "--append", &name, &newer]);
    let joined = index(registry, "manifest/app", "1");
    assert_eq!(platforms(&joined), ["amd64", "arm64", "armv7"]);
    assert_eq!(joined["annotations"], json!({"a": "1"}));
    assert_eq!(content(&name, "linux/amd64"), "newer");

    let twice = kiln.run("manifest", &["create", &name, &amd, &newer]);
    assert_eq!(twice.status.code(), Some(1));
    twice.says(&["are both for linux/amd64", &amd, &newer, "help: name one of them only"]);
    let missing = kiln.run("manifest", &["create", &name, &amd, "-p", "linux/s390x"]);
    missing.says(&["no image is for linux/s390x; there are linux/amd64"]);
    let nothing = kiln.run("manifest", &["create", &name, &format!("{repository}:none")]);
    nothing.says(&["cannot read", ":none", "404 Not Found"]);
}

#[test]
fn machines_that_append_at_once_lose_nothing() {
    let registry = Registry::shared();
    let kiln = Kiln::with_config("");
    let repository = format!("{}/manifest/at-once", registry.host);
    let name = format!("{repository}:1");
    let architectures = ["amd64", "arm64", "ppc64le", "riscv64", "s390x"];
    let images = architectures.map(|name| pushed(&kiln, &repository, &format!("linux/{name}"), name));
    for _ in 0..3 {
        std::thread::scope(|scope| {
            for image in &images {
                scope.spawn(|| Kiln::with_config("").says("manifest", &["create", "--append", &name, image]));
            }
        });
        let mut joined = platforms(&index(registry, "manifest/at-once", "1"));
        joined.sort();
        assert_eq!(joined, architectures);
        // And again where there are other images for all of them.
        let newer = architectures.map(|name| pushed(&kiln, &repository, &format!("linux/{name}"), "older"));
        let create = [&["create", name.as_str()][..], &newer.each_ref().map(String::as_str)].concat();
        kiln.says("manifest", &create);
    }
}

#[test]
fn images_come_from_other_repositories_and_registries() {
    let (registry, other) = (Registry::shared(), Registry::start().unwrap());
    let kiln = Kiln::with_config("");
    let [here, there] = [&registry.host, &other.host].map(|host| format!("{host}/manifest/from"));
    let (amd, arm) = (pushed(&kiln, &here, "linux/amd64", "amd"), pushed(&kiln, &there, "linux/arm64", "arm"));
    let name = format!("{}/manifest/joined:1", registry.host);
    let sources = [format!("{here}@{amd}"), format!("{there}@{arm}")];
    kiln.says("manifest", &["create", &name, &sources[0], &sources[1]]);
    assert_eq!([content(&name, "linux/amd64"), content(&name, "linux/arm64")], ["amd", "arm"]);

    // An index is copied as it is, to another registry; one platform of it can be taken.
    let copy = format!("{}/copy:1", other.host);
    kiln.says("manifest", &["create", &copy, &name]);
    let bodies = [registry.get_manifest("manifest/joined", "1"), other.get_manifest("copy", "1")];
    let [one, same] = bodies.map(|answer| answer.unwrap().body);
    assert_eq!(one, same);
    assert_eq!(content(&copy, "linux/arm64"), "arm");
    kiln.says("manifest", &["create", &copy, &name, "--platform=linux/arm64"]);
    assert_eq!(platforms(&index(&other, "copy", "1")), ["arm64"]);
    // A lone image becomes an index, or not.
    kiln.says("manifest", &["create", "--prefer-index=false", &copy, &sources[0]]);
    assert_eq!(sha256(&other.get_manifest("copy", "1").unwrap().body), amd);
    kiln.says("manifest", &["create", &copy, &sources[0]]);
    assert_eq!(platforms(&index(&other, "copy", "1")), ["amd64"]);
}

#[test]
fn attestations_follow_their_images() {
    let registry = Registry::shared();
    let kiln = Kiln::with_config("");
    let repository = format!("{}/manifest/attested", registry.host);
    let mut entries = vec![];
    let mut about = vec![];
    for platform in ["linux/amd64", "linux/arm64"] {
        let digest = pushed(&kiln, &repository, platform, platform);
        let size = registry.get_manifest("manifest/attested", &digest).unwrap().body.len();
        let arch = platform.strip_prefix("linux/").unwrap();
        entries.push(json!({"mediaType": MANIFEST, "digest": digest, "size": size,
            "platform": {"architecture": arch, "os": "linux"}}));
        let statement = format!("{{\"about\":\"{platform}\"}}");
        let blob = sha256(statement.as_bytes());
        registry.put_blob("manifest/attested", &blob, statement.as_bytes()).unwrap();
        let descriptor = |kind: &str| json!({"mediaType": kind, "digest": blob, "size": statement.len()});
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json"),
            "layers": [descriptor("application/vnd.in-toto+json")]});
        let manifest = manifest.to_string();
        let attestation = sha256(manifest.as_bytes());
        registry.put_manifest("manifest/attested", &attestation, MANIFEST, manifest.as_bytes()).unwrap();
        about.push(json!({"mediaType": MANIFEST, "digest": attestation, "size": manifest.len(),
            "platform": {"architecture": "unknown", "os": "unknown"},
            "annotations": {"vnd.docker.reference.type": "attestation-manifest", "vnd.docker.reference.digest": digest}}));
    }
    let all = [entries.clone(), about.clone()].concat();
    let text = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": all}).to_string();
    registry.put_manifest("manifest/attested", "all", INDEX, text.as_bytes()).unwrap();

    let name = format!("{}/manifest/attested-copy:arm", registry.host);
    kiln.says("manifest", &["create", &name, &format!("{repository}:all"), "-p", "linux/arm64"]);
    let joined = index(registry, "manifest/attested-copy", "arm");
    assert_eq!(joined["manifests"], json!([entries[1], about[1]]));
    let statement = about[1]["digest"].as_str().unwrap();
    assert_eq!(registry.get_manifest("manifest/attested-copy", statement).unwrap().status, 200);

    // An index that is copied as it is needs all that it names, also what is about no image of its own.
    let text = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entries[1], about[0]]}).to_string();
    registry.put_manifest("manifest/attested", "odd", INDEX, text.as_bytes()).unwrap();
    let name = format!("{}/manifest/odd-copy:1", registry.host);
    kiln.says("manifest", &["create", &name, &format!("{repository}:odd")]);
    assert_eq!(registry.get_manifest("manifest/odd-copy", "1").unwrap().body, text.as_bytes());
}

#[test]
fn what_a_name_stands_for() {
    let registry = Registry::shared();
    let kiln = Kiln::with_config("");
    let name = format!("{}/library/busybox:latest", registry.host);
    let body = registry.get_manifest("library/busybox", "latest").unwrap().body;
    let text = kiln.says("manifest", &["inspect", &name]);
    let start = format!(
        "Name:      {name}\nMediaType: {INDEX}\nDigest:    {}\n\nManifests:\n  Name:      {name}@",
        sha256(&body)
    );
    assert!(text.starts_with(&start), "{text}");
    assert!(text.contains("  Platform:  linux/arm64\n"), "{text}");
    assert_eq!(kiln.says("manifest", &["inspect", "--raw", &name]).as_bytes(), body);
    let json: Value = serde_json::from_str(&kiln.says("manifest", &["inspect", "--format=json", &name])).unwrap();
    assert_eq!((&json["name"], &json["manifest"]["digest"]), (&json!(name), &json!(sha256(&body))));
    assert_eq!(json["image"]["linux/arm64"]["architecture"], "arm64");
}

#[test]
fn sources_come_from_files_and_the_result_goes_into_one() {
    let registry = Registry::shared();
    let kiln = Kiln::with_config("");
    let repository = format!("{}/manifest/files", registry.host);
    let (amd, arm) =
        (pushed(&kiln, &repository, "linux/amd64", "amd"), pushed(&kiln, &repository, "linux/arm64", "arm"));
    let file = |name: &str, text: &str| {
        let path = kiln.out(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_string()
    };
    let size = registry.get_manifest("manifest/files", &amd).unwrap().body.len();
    let descriptor = json!({"mediaType": MANIFEST, "digest": amd, "size": size, "annotations": {"a": "1"},
        "platform": {"os": "linux", "architecture": "amd64", "os.version": "10.1"}});
    let described = file("amd.json", &descriptor.to_string());
    let named = file("arm", &format!("{repository}@{arm}\n"));
    let name = format!("{repository}:1");
    let metadata = kiln.out("created.json");
    let flags = ["create", &name, "-f", &described, "--file", &named, "--metadata-file", metadata.to_str().unwrap()];
    kiln.says("manifest", &flags);
    let answer = registry.get_manifest("manifest/files", "1").unwrap();
    let joined = index(registry, "manifest/files", "1");
    assert_eq!(joined["manifests"][0], descriptor);
    assert_eq!(platforms(&joined), ["amd64", "arm64"]);
    let written: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let expect = json!({"mediaType": INDEX, "digest": sha256(&answer.body), "size": answer.body.len()});
    assert_eq!(written, json!({"containerimage.descriptor": expect, "image.name": repository}));

    // What a descriptor says of a lone image is in an index, whatever is preferred.
    kiln.says("manifest", &["create", "--prefer-index=false", &name, "-f", &described]);
    assert_eq!(index(registry, "manifest/files", "1")["manifests"], json!([descriptor]));
    let bare = file("bare.json", &json!({"digest": amd}).to_string());
    kiln.says("manifest", &["create", "--prefer-index=false", &name, "-f", &bare]);
    assert_eq!(sha256(&registry.get_manifest("manifest/files", "1").unwrap().body), amd);

    let refused = |name: &str, value: Value, expect: &str| {
        let path = file("refused.json", &value.to_string());
        let finished = kiln.run("manifest", &["create", name, "-f", &path]);
        assert_eq!(finished.status.code(), Some(1), "{value}");
        finished.says(&[expect]);
    };
    refused(&name, json!({"digest": amd, "size": 7}), "says size 7");
    refused(&name, json!({"digest": amd, "mediaType": INDEX}), "says media type");
    refused(&name, json!({"digest": sha256(b"nowhere")}), "404 Not Found");
    refused(&name, json!({"size": 7}), "refused.json");
    refused(&name, json!("x y"), "refused.json");
    let whole = format!("{repository}:whole");
    kiln.says("manifest", &["create", &whole, &amd, &arm]);
    let digest = sha256(&registry.get_manifest("manifest/files", "whole").unwrap().body);
    refused(&name, json!({"digest": digest, "platform": {"os": "linux", "architecture": "amd64"}}), "is an index");
    let dry = kiln.run("manifest", &["create", "--dry-run", "--metadata-file=x", &name, &amd]);
    assert_eq!(dry.status.code(), Some(2), "{}", dry.stderr);
}

#[test]
fn an_attestation_is_a_source_by_its_descriptor() {
    let registry = Registry::shared();
    let kiln = Kiln::new();
    let name = format!("{}/manifest/by-descriptor:1", registry.host);
    kiln.build(&Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", "A"))
        .args(["-t", &name, "--push", "--provenance=mode=min"])
        .ok();
    let whole = index(registry, "manifest/by-descriptor", "1");
    let mut args = vec!["create".to_string(), format!("{}/manifest/by-descriptor:2", registry.host)];
    for (number, entry) in whole["manifests"].as_array().unwrap().iter().enumerate() {
        let path = kiln.out(&format!("{number}.json"));
        std::fs::write(&path, entry.to_string()).unwrap();
        args.extend(["-f".to_string(), path.to_str().unwrap().to_string()]);
    }
    kiln.says("manifest", &args.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(index(registry, "manifest/by-descriptor", "2")["manifests"], whole["manifests"]);
}
