//! What `--sbom` lists.

use super::{attested, attested_in};
use harness::{Kiln, Registry, Tree, skip};
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS base\nCOPY status /var/lib/dpkg/status\nCOPY os-release /etc/os-release\n\
         FROM base\nCOPY Cargo.lock /app/\nRUN echo broken > /app/package-lock.json\n",
    )
    .file("status", "Package: bash\nStatus: install ok installed\nArchitecture: amd64\nVersion: 5.2-1\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n")
    .file("os-release", "ID=debian\nVERSION_ID=\"12\"\n")
    .file("Cargo.lock", "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n")
}

fn purls(document: &Value) -> BTreeSet<&str> {
    let packages = document["packages"].as_array().unwrap();
    packages.iter().filter_map(|package| package["externalRefs"][0]["referenceLocator"].as_str()).collect()
}

/// What SPDX 2.3 requires of a document, its packages and files, and of what refers to them.
fn check_spdx(document: &Value) {
    let text = |value: &Value, key: &str| {
        value[key].as_str().filter(|text| !text.is_empty()).unwrap_or_else(|| panic!("no {key}: {value}")).to_string()
    };
    assert_eq!(
        (text(document, "spdxVersion").as_str(), text(document, "dataLicense").as_str()),
        ("SPDX-2.3", "CC0-1.0")
    );
    assert!(text(document, "documentNamespace").starts_with("https://"));
    assert!(!text(document, "name").is_empty());
    let created = text(&document["creationInfo"], "created");
    assert!(created.len() == 20 && created.ends_with('Z'), "{created}");
    assert!(document["creationInfo"]["creators"][0].as_str().unwrap().starts_with("Tool: kiln-"));
    let mut ids = BTreeSet::from([text(document, "SPDXID")]);
    for package in document["packages"].as_array().unwrap() {
        for key in ["name", "downloadLocation", "licenseConcluded", "licenseDeclared", "copyrightText"] {
            text(package, key);
        }
        assert_eq!(package["filesAnalyzed"], false);
        assert!(ids.insert(text(package, "SPDXID")), "twice: {package}");
    }
    for file in document["files"].as_array().unwrap() {
        assert!(text(file, "fileName").starts_with("./"));
        assert_eq!(file["checksums"][0]["algorithm"], "SHA1");
        assert!(ids.insert(text(file, "SPDXID")), "twice: {file}");
    }
    for id in &ids {
        let is_good = id
            .strip_prefix("SPDXRef-")
            .is_some_and(|id| id.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)));
        assert!(is_good, "{id}");
    }
    let mut related = BTreeSet::new();
    for relationship in document["relationships"].as_array().unwrap() {
        let (from, to) = (text(relationship, "spdxElementId"), text(relationship, "relatedSpdxElement"));
        assert!(ids.contains(&from) && ids.contains(&to), "{relationship}");
        // What is not analysed by file has no files (7.8).
        let is_file = to.starts_with("SPDXRef-File-");
        assert_eq!(relationship["relationshipType"] == "OTHER", is_file, "{relationship}");
        related.insert(to);
    }
    assert_eq!(related.len(), ids.len() - 1, "all but the document itself are in something, or are evidence");
}

#[test]
fn packages_with_their_layers() {
    let kiln = Kiln::new();
    let context = context();
    let build = kiln.build(&context).args(["--sbom=true", "-t", "app:1"]);
    let (index, found) = attested(build, &kiln.out("image.tar"));
    let statement = &found[0].statements[0];
    assert_eq!(statement["predicateType"], "https://spdx.dev/Document");
    assert_eq!(statement["subject"][0]["name"], "pkg:docker/app@1?platform=linux%2Famd64");
    let document = &statement["predicate"];
    check_spdx(document);
    assert_eq!(
        purls(document),
        BTreeSet::from(["pkg:cargo/serde@1.0.0", "pkg:deb/debian/bash@5.2-1?arch=amd64&distro=debian-12"])
    );
    // Busybox, two files, and the crates.
    let image = harness::Image::read_all(&kiln.out("image.tar")).unwrap().remove(0);
    assert_eq!(index["manifests"][0]["digest"], image.digest);
    let packages = document["packages"].as_array().unwrap();
    let bash = packages.iter().find(|package| package["name"] == "bash").unwrap();
    assert_eq!(bash["comment"], format!("layerID: {}", image.manifest["layers"][1]["digest"].as_str().unwrap()));
    assert!(document["comment"].as_str().unwrap().contains("/app/package-lock.json cannot be read"), "{document}");
}

/// A package's header as rpm keeps it: how many entries and bytes, the entries (tag, type, place, count), and the texts.
fn rpm_header(texts: &[(u32, &str)]) -> Vec<u8> {
    let (mut index, mut data) = (vec![], vec![]);
    for (tag, text) in texts {
        const TEXT: u32 = 6;
        index.extend([*tag, TEXT, data.len() as u32, 1].map(u32::to_be_bytes).concat());
        data.extend(text.bytes().chain([0]));
    }
    let head = [texts.len() as u32, data.len() as u32].map(u32::to_be_bytes).concat();
    [head, index, data].concat()
}

/// A database as RHEL 8 and older have it, made by Berkeley DB's own program.
#[test]
fn packages_of_old_rpm() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM scratch\nCOPY Packages /var/lib/rpm/\n");
    // From small ones to those that take several pages.
    let header = |number: u32| {
        let (name, license) = (format!("p{number}"), "MIT ".repeat(number as usize * 8));
        rpm_header(&[(1000, &name), (1001, "1.0"), (1002, "3.el8"), (1014, license.trim_end()), (1022, "x86_64")])
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let next = (0u32, 301u32.to_le_bytes().to_vec());
    let pairs = (1..=300).map(|number| (number, header(number))).chain([next]);
    let pairs: String = pairs.map(|(key, value)| format!(" {}\n {}\n", hex(&key.to_le_bytes()), hex(&value))).collect();
    let dump = format!("VERSION=3\nformat=bytevalue\ntype=hash\ndb_pagesize=4096\nHEADER=END\n{pairs}DATA=END\n");
    let mut load = Command::new("db5.3_load").arg(context.join("Packages")).stdin(Stdio::piped()).spawn().unwrap();
    load.stdin.take().unwrap().write_all(dump.as_bytes()).unwrap();
    assert!(load.wait().unwrap().success());

    let (_, found) = attested(kiln.build(&context).args(["--sbom=true"]), &kiln.out("image.tar"));
    let document = &found[0].statements[0]["predicate"];
    check_spdx(document);
    let expect: BTreeSet<String> = (1..=300).map(|n| format!("pkg:rpm/redhat/p{n}@1.0-3.el8?arch=x86_64")).collect();
    assert_eq!(purls(document), expect.iter().map(String::as_str).collect());
}

#[test]
fn the_same_result_gives_the_same_document() {
    let document = |kiln: &Kiln| {
        let context = context();
        let build = kiln.build(&context).env("SOURCE_DATE_EPOCH", "1700000000").args(["--sbom=true"]);
        let (index, _) = attested(build, &kiln.out("image.tar"));
        index["manifests"].as_array().unwrap().iter().map(|entry| entry["digest"].clone()).collect::<Vec<_>>()
    };
    let kiln = Kiln::new();
    let first = document(&kiln);
    assert_eq!(first.len(), 2);
    assert_eq!(first, document(&kiln));
}

#[test]
fn files_and_both_kinds_at_once() {
    let kiln = Kiln::new();
    let folder = kiln.out("files");
    let out = format!("type=local,dest={}", folder.display());
    let finished = kiln.build(&context()).args(["-o", &out, "--attest=type=sbom", "--provenance=mode=min"]).ok();
    let read = |name: &str| -> Value { serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap() };
    let (sbom, provenance) = (read("sbom.spdx.json"), read("provenance.json"));
    check_spdx(&sbom["predicate"]);
    assert_eq!(sbom["subject"], provenance["subject"]);
    assert!(finished.stderr.contains("generating sbom using kiln"));
    let paths: Vec<_> = sbom["subject"].as_array().unwrap().iter().map(|subject| subject["name"].clone()).collect();
    assert!(paths.contains(&"var/lib/dpkg/status".into()), "{paths:?}");
}

#[test]
fn an_empty_result_has_an_empty_list() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM scratch\nLABEL a=1\n");
    let (_, found) = attested(kiln.build(&context).args(["--sbom=1"]), &kiln.out("image.tar"));
    check_spdx(&found[0].statements[0]["predicate"]);
}

/// An image in the shared registry whose command is a shell script; gives its name.
fn scanner(repository: &str, script: &str) -> String {
    let name = format!("{}/attest/{repository}:1", Registry::shared().host);
    let text = "FROM busybox\nCOPY scan /scan\nENV FROM_IMAGE=1\nENTRYPOINT [\"/bin/sh\"]\nCMD [\"/scan\"]\n";
    Kiln::new().build(&Tree::dockerfile(text).file("scan", script)).args(["-t", &name, "--push"]).ok();
    name
}

#[test]
fn a_scanner_image() {
    let name = scanner(
        "scanner",
        r#"set -e
test "$FROM_IMAGE" = 1
test -s "$BUILDKIT_SCAN_SOURCE/app/Cargo.lock"
if touch "$BUILDKIT_SCAN_SOURCE/new"; then exit 3; fi
echo x > /tmp/x
cat > "$BUILDKIT_SCAN_DESTINATION/sbom.spdx.json" <<EOF
{"_type": "https://in-toto.io/Statement/v0.1", "predicateType": "https://spdx.dev/Document", "predicate": {
  "name": "$BUILDKIT_SCAN_SELECT", "creationInfo": {"creators": ["Tool: scanner"]},
  "files": [{"SPDXID": "SPDXRef-F", "fileName": "/app/Cargo.lock"}]}}
EOF
"#,
    );
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    let build = || {
        let flag = format!("--sbom=generator={name},select=all");
        kiln.build(&context()).args([flag]).output("oci", &archive).ok()
    };
    let finished = build();
    let image = harness::Image::read_all(&archive).unwrap().remove(0);
    let (_, found) = attested_in(&archive);
    let statement = &found[0].statements[0];
    assert_eq!(statement["subject"][0]["name"], "_");
    let document = &statement["predicate"];
    assert_eq!(document["name"], "all");
    assert_eq!(document["creationInfo"]["creators"].as_array().unwrap().len(), 2);
    // The last but one: the RUN comes after it.
    let layer = image.manifest["layers"].as_array().unwrap().iter().rev().nth(1).unwrap();
    assert_eq!(document["files"][0]["comment"], format!("layerID: {}", layer["digest"].as_str().unwrap()));
    let is_cached = |finished: &harness::Finished| {
        let steps = finished.steps();
        let (name, step) = steps.iter().find(|(name, _)| name.contains("generating sbom using")).unwrap();
        assert!(name.starts_with("[linux/amd64]"), "{name}");
        step.cached
    };
    assert!(!is_cached(&finished));
    assert!(is_cached(&build()), "nothing has changed");
}

#[test]
fn scanner_images_that_do_not_follow_the_protocol() {
    let kiln = Kiln::new();
    let fails = |generator: &str, expect: &str| {
        let flag = format!("--sbom=generator={generator}");
        kiln.build(&context()).args([flag]).output("oci", &kiln.out("image.tar")).fails().says(&[expect]);
    };
    let leaves = |repository: &str, text: &str| {
        scanner(repository, &format!("echo '{text}' > $BUILDKIT_SCAN_DESTINATION/x.json\n"))
    };
    fails(&leaves("bare", "{\"spdxVersion\": \"SPDX-2.3\"}"), "is no in-toto statement");
    fails(&leaves("broken", "["), "is no JSON object");
    fails(&scanner("silent", "true\n"), "has left nothing in /run/out/");
    fails(&scanner("failing", "exit 7\n"), "exit code: 7");
    fails(&format!("{}/attest/none:1", Registry::shared().host), "cannot get the SBOM generator");
}

fn two_stages() -> Tree {
    Tree::dockerfile(
        "ARG BUILDKIT_SBOM_SCAN_CONTEXT=true\nFROM busybox AS build\nARG BUILDKIT_SBOM_SCAN_STAGE=true\n\
         COPY Cargo.lock /src/\nRUN echo built > /out\nFROM scratch\nCOPY --from=build /out /\nCOPY f /f\n",
    )
    .file("Cargo.lock", "[[package]]\nname = \"serde\"\nversion = \"1.0.0\"\n")
    .file("requirements.txt", "flask==3.0.0\n")
    .file("f", "F")
}

#[test]
fn stages_and_the_context_beside_the_result() {
    let kiln = Kiln::new();
    let folder = kiln.out("files");
    let out = format!("type=local,dest={}", folder.display());
    kiln.build(&two_stages()).args(["-o", &out, "--sbom=true"]).ok();
    let of = |name: &str| -> Vec<String> {
        let statement: Value = serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap();
        check_spdx(&statement["predicate"]);
        purls(&statement["predicate"]).into_iter().map(str::to_string).collect()
    };
    assert_eq!(of("sbom.spdx.json"), Vec::<String>::new());
    assert_eq!(of("sbom-build.spdx.json"), ["pkg:cargo/serde@1.0.0"]);
    assert_eq!(of("sbom-context.spdx.json"), ["pkg:cargo/serde@1.0.0", "pkg:pypi/flask@3.0.0"]);

    // The same for a scanner image, and nothing of it unless SBOMs are asked for.
    let name = scanner(
        "extras",
        r#"set -e
cd "$BUILDKIT_SCAN_SOURCE_EXTRAS"
test "$(cat sbom-build/out)" = built && test "$(cat sbom-context/f)" = F
echo '{"predicateType": "https://spdx.dev/Document", "predicate": {"name": "'$(echo *)'"}}' > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json
"#,
    );
    let flag = format!("--sbom=generator={name}");
    kiln.build(&two_stages()).args(["-o", &out, &flag]).ok();
    let text = std::fs::read_to_string(folder.join("sbom.spdx.json")).unwrap();
    assert!(text.contains("sbom-build sbom-context"), "{text}");
    let plain = kiln.build(&two_stages()).output("oci", &kiln.out("plain.tar")).ok();
    assert!(!plain.stderr.contains("sbom"));
}

/// Lists a result by kiln and by a scanner image, and says how it was made.
fn check_all(kiln: &Kiln, generator: &str) {
    let folder = kiln.out("files");
    let out = format!("type=local,dest={}", folder.display());
    let generator = format!("--sbom=generator={generator}");
    for (flag, name) in [("--sbom=true", "app"), (generator.as_str(), "scanned")] {
        kiln.build(&context()).args(["-o", &out, flag, "--provenance=true", "-t", "app"]).ok();
        let text = std::fs::read_to_string(folder.join("sbom.spdx.json")).unwrap();
        let statement: Value = serde_json::from_str(&text).unwrap();
        assert!(statement["predicate"]["name"].as_str().unwrap().starts_with(name), "{text}");
        assert!(folder.join("provenance.json").is_file());
    }
}

#[test]
fn ordinary_users_and_unprivileged_containers_have_them_too() {
    let generator = scanner(
        "plain",
        r#"test -s $BUILDKIT_SCAN_SOURCE/app/Cargo.lock || exit 3
echo '{"predicateType": "https://spdx.dev/Document", "predicate": {"name": "scanned"}}' > $BUILDKIT_SCAN_DESTINATION/sbom.spdx.json
"#,
    );
    match Kiln::as_user() {
        Ok(kiln) => check_all(&kiln, &generator),
        Err(reason) => skip!("{reason}"),
    }
    match Kiln::confined() {
        Ok(kiln) => check_all(&kiln, &generator),
        Err(reason) => skip!("{reason}"),
    }
}
