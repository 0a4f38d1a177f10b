//! Named images keep what is attested of them: it is shown, saved, loaded and pushed with them, and goes with their names.

use harness::attestations::{Attested, attestations, of_files};
use harness::bases::Tar;
use harness::{Image, Kiln, Registry, Tree, sha256};
use serde_json::{Value, json};
use std::path::Path;

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const SPDX: &str = "https://spdx.dev/Document";
const SLSA: &str = "https://slsa.dev/provenance/v1";

fn app() -> Tree {
    Tree::dockerfile("FROM busybox\nCOPY f /f\n").file("f", "F")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("text")
}

/// The document that an archive's only name stands for, its digest, and what is attested in it.
fn read(archive: &Path) -> (Value, String, Vec<Attested>) {
    let image = Image::read_all(archive).unwrap().remove(0);
    let blob = of_files(&image.files);
    let digest = image.index["manifests"][0]["digest"].as_str().unwrap().to_string();
    let index: Value = serde_json::from_slice(&blob(&digest).unwrap()).unwrap();
    let found = if index["manifests"].is_array() { attestations(&index, &blob).unwrap() } else { vec![] };
    (index, digest, found)
}

fn types(about: &Attested) -> Vec<&str> {
    about.statements.iter().map(|statement| statement["predicateType"].as_str().unwrap()).collect()
}

fn inspect(kiln: &Kiln, name: &str) -> Value {
    serde_json::from_str::<Value>(&kiln.says("image", &["inspect", name])).unwrap()
}

fn objects(kiln: &Kiln) -> Vec<Value> {
    kiln.says("du", &["--format", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn a_name_alone_keeps_them() {
    let kiln = Kiln::new();
    let host = &Registry::shared().host;
    let name = format!("{host}/named/attested:1");
    let iid = kiln.out("iid");
    let flags = ["--provenance=mode=min", "--sbom=true", "--iidfile", text(&iid)];
    let built = kiln.build(&app()).args(["-t", "app", "-t", &name]).args(flags).progress("plain").ok();
    assert!(built.stderr.contains(": now image ") && !built.stderr.contains("WARNING"), "{}", built.stderr);
    let shown = inspect(&kiln, "app");
    assert_eq!(shown[0]["Attestations"][0]["PredicateTypes"], json!([SPDX, SLSA]));
    // The file for the id has the index, which is a name for the image, too.
    let id = std::fs::read_to_string(iid).unwrap();
    assert_eq!(shown[0]["RepoDigests"], json!([format!("app@{id}")]));
    assert_eq!(inspect(&kiln, &id)[0]["Id"], shown[0]["Id"]);

    let archive = kiln.out("app.tar");
    kiln.says("image", &["save", "--type", "oci", "-o", text(&archive), "app"]);
    let (index, digest, found) = read(&archive);
    assert_eq!((index["manifests"].as_array().unwrap().len(), &digest), (2, &id));
    assert_eq!(found[0].image, index["manifests"][0]["digest"].as_str().unwrap());
    assert_eq!(types(&found[0]), [SPDX, SLSA]);
    let subjects = found[0].statements[1]["subject"].as_array().unwrap();
    let names: Vec<&str> = subjects.iter().map(|subject| subject["name"].as_str().unwrap()).collect();
    let pushed = format!("pkg:docker/{}/named/attested@1?platform=linux%2Famd64", host);
    assert_eq!(names, ["pkg:docker/app@latest?platform=linux%2Famd64", &pushed]);

    assert_eq!(kiln.says("image", &["push", &name]), format!("{name}@{id}\n"));
    let body = Registry::shared().get_manifest("named/attested", "1").unwrap().body;
    let blob = |digest: &str| Registry::shared().get_blob("named/attested", digest);
    let about = attestations(&serde_json::from_slice(&body).unwrap(), &blob).unwrap();
    assert_eq!((sha256(&body), types(&about[0])), (id, vec![SPDX, SLSA]));

    // An image for docker is the image alone; based on it is a build without them.
    let docker = kiln.out("docker.tar");
    kiln.says("image", &["save", "-o", text(&docker), "app"]);
    let (manifest, digest, none) = read(&docker);
    assert_eq!((none.len(), &manifest["layers"][1]["size"].is_u64()), (0, &true));
    assert_eq!(digest, found[0].image);
    assert_eq!(kiln.image(&Tree::dockerfile("FROM app\nCOPY --from=app /f /g\n")).text("/g"), "F");
}

#[test]
fn they_live_as_long_as_the_name() {
    let kiln = Kiln::new();
    kiln.build(&app()).args(["-o", "type=image,name=app", "--provenance=mode=min"]).ok();
    kiln.says("prune", &["--all", "--force"]);
    let held: Vec<Value> = objects(&kiln);
    let is_about = |object: &&Value| object["Description"].as_str().unwrap().contains("attestation");
    assert_eq!(held.iter().filter(is_about).count(), 3, "manifest, config and statement: {held:?}");
    assert!(held.iter().all(|object| object["Images"] == json!(["docker.io/library/app:latest"])), "{held:?}");
    let archive = kiln.out("app.tar");
    kiln.says("image", &["save", "--type", "oci", "-o", text(&archive), "app"]);
    assert_eq!(types(&read(&archive).2[0]), [SLSA]);

    // Another build of the same image is attested anew: what was attested before goes.
    let former = inspect(&kiln, "app")[0]["Attestations"][0]["Digest"].clone();
    kiln.build(&app()).args(["-t", "app", "--provenance=mode=min"]).ok();
    assert_ne!(inspect(&kiln, "app")[0]["Attestations"][0]["Digest"], former);
    kiln.says("prune", &["--all", "--force"]);
    assert_eq!(objects(&kiln).iter().filter(is_about).count(), 3);
    kiln.says("image", &["rm", "app"]);
    kiln.says("prune", &["--all", "--force"]);
    assert_eq!(objects(&kiln), Vec::<Value>::new());
    kiln.says("debug", &["verify"]);
}

#[test]
fn an_archive_brings_them_and_gives_them_back() {
    let kiln = Kiln::new();
    let (exported, saved) = (kiln.out("exported.tar"), kiln.out("saved.tar"));
    let platforms = "--platform=linux/amd64,linux/arm64";
    kiln.build(&app()).args(["-t", "app:1", platforms, "--provenance=mode=min"]).output("oci", &exported).ok();
    let other = Kiln::with_config("");
    let loaded = other.run("image", &["load", "-i", text(&exported)]);
    assert!(loaded.status.success() && !loaded.stderr.contains("WARNING"), "{}", loaded.stderr);
    let all: Vec<usize> = inspect(&other, "app:1")
        .as_array()
        .unwrap()
        .iter()
        .map(|image| image["Attestations"].as_array().unwrap().len())
        .collect();
    assert_eq!(all, [1, 1]);
    other.says("image", &["save", "--type", "oci", "-o", text(&saved), "app:1"]);
    assert!(std::fs::read(&exported).unwrap() == std::fs::read(&saved).unwrap(), "to the byte");
    // One platform is an index of the image and what is about it.
    let one = other.out("one.tar");
    other.says("image", &["save", "--type", "oci", "--platform", "linux/arm64", "-o", text(&one), "app:1"]);
    let (index, _, found) = read(&one);
    let entries = index["manifests"].as_array().unwrap().iter();
    let kinds: Vec<&str> = entries.map(|entry| entry["platform"]["architecture"].as_str().unwrap()).collect();
    assert_eq!((kinds, found.len()), (vec!["arm64", "unknown"], 1));
}

/// An archive in which something else stands for the documents of another.
fn rewritten(archive: &Path, to: &Path, keep: impl Fn(&str) -> bool, top: &Value) {
    let image = Image::read_all(archive).unwrap().remove(0);
    let top = top.to_string();
    let mut tar = Tar::new();
    let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": INDEX, "digest": sha256(top.as_bytes()),
        "size": top.len(), "annotations": {"io.containerd.image.name": "docker.io/library/re:1"}}]});
    tar.file("index.json", 0o644, index.to_string().as_bytes()).unwrap();
    tar.file("oci-layout", 0o644, &image.files["oci-layout"]).unwrap();
    tar.file(&format!("blobs/{}", sha256(top.as_bytes()).replace(':', "/")), 0o644, top.as_bytes()).unwrap();
    for (name, data) in image.files.iter().filter(|(name, _)| name.starts_with("blobs/") && keep(name)) {
        tar.file(name, 0o644, data).unwrap();
    }
    std::fs::write(to, tar.finish().unwrap()).unwrap();
}

#[test]
fn what_is_not_whole_is_left_out_and_said() {
    let kiln = Kiln::new();
    let (archive, other) = (kiln.out("a.tar"), kiln.out("b.tar"));
    kiln.build(&app()).args(["-t", "app", "--provenance=mode=min"]).output("oci", &archive).ok();
    let (index, _, found) = read(&archive);
    let statement = found[0].manifest["layers"][0]["digest"].as_str().unwrap().replace(':', "/");
    let load = |expect: &str| {
        let loaded = kiln.run("image", &["load", "-i", text(&other)]);
        assert!(loaded.status.success(), "{}", loaded.stderr);
        assert_eq!(loaded.stderr.contains("WARNING"), !expect.is_empty(), "{}", loaded.stderr);
        assert!(loaded.stderr.contains(expect), "{}", loaded.stderr);
        let shown = inspect(&kiln, "re:1");
        (shown[0]["Attestations"].as_array().unwrap().len(), shown[0]["RepoDigests"][0].clone())
    };
    let image = format!("re@{}", found[0].image);
    rewritten(&archive, &other, |name| !name.ends_with(&statement), &index);
    assert_eq!(load("attestations of them: 1"), (0, json!(image)));
    // Another entry is about nothing in the archive; the attestation stays.
    let mut odd = index.clone();
    let mut entry = index["manifests"][1].clone();
    entry["annotations"]["vnd.docker.reference.type"] = "signature".into();
    odd["manifests"].as_array_mut().unwrap().push(entry);
    rewritten(&archive, &other, |_| true, &odd);
    let (count, digest) = load("attestations of them: 1");
    assert_eq!(count, 1);
    assert_ne!(digest, json!(image));
    // An archive for one of the platforms that its index has: what is about the others is not missed.
    let mut more = index.clone();
    let (mut absent, mut about) = (index["manifests"][0].clone(), index["manifests"][1].clone());
    let nowhere = sha256(b"nowhere");
    absent["digest"] = nowhere.clone().into();
    absent["platform"]["architecture"] = "arm64".into();
    about["digest"] = sha256(b"about nowhere").into();
    about["annotations"]["vnd.docker.reference.digest"] = nowhere.into();
    more["manifests"].as_array_mut().unwrap().extend([absent, about]);
    rewritten(&archive, &other, |_| true, &more);
    assert_eq!(load("").0, 1);
}

#[test]
fn what_an_image_at_hand_was_is_said() {
    let kiln = Kiln::with_config("");
    kiln.build(&Tree::dockerfile("FROM scratch\nCOPY f /f\n").file("f", "F")).args(["-t", "plain"]).ok();
    kiln.build(&Tree::dockerfile("FROM scratch\nCOPY f /f\n").file("f", "G")).args(["-o", "type=image,name=made"]).ok();
    // No registry has either.
    let child = Tree::dockerfile("FROM plain\nCOPY --from=made /f /g\n");
    let (archive, metadata) = (kiln.out("child.tar"), kiln.out("metadata.json"));
    let args = ["--provenance=mode=min", "--metadata-file", text(&metadata)];
    kiln.build(&child).args(args).output("oci", &archive).ok();
    let (_, _, found) = read(&archive);
    let predicate = &found[0].statements[0]["predicate"];
    let digest = inspect(&kiln, "made")[0]["RepoDigests"][0].as_str().unwrap().rsplit(':').next().unwrap().to_string();
    // One was never written out, so no digest names it, and nobody else could find it.
    let expect = json!([
        {"uri": "pkg:docker/made@latest?platform=linux%2Famd64", "digest": {"sha256": digest}},
        {"uri": "pkg:docker/plain@latest?platform=linux%2Famd64"},
    ]);
    assert_eq!(predicate["buildDefinition"]["resolvedDependencies"], expect);
    let completeness = &predicate["runDetails"]["metadata"]["buildkit_completeness"];
    assert_eq!(completeness["resolvedDependencies"], false);
    let metadata: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    assert_eq!(metadata["buildx.build.provenance"]["materials"], expect);
}
