//! What `--provenance` says of a build.

use super::attested;
use harness::bases::busybox;
use harness::{GitServer, Kiln, Tree};
use serde_json::{Value, json};

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS made\nARG COLOUR\nRUN --mount=type=secret,id=token --network=none echo $COLOUR > /c\n\
         FROM busybox\nCOPY f /f\nCOPY --from=made /c /c\n",
    )
    .file("f", "F")
}

#[test]
fn a_plain_manifest_unless_it_is_asked_for() {
    let image = Kiln::new().image(&context());
    let entry = &image.index["manifests"][0];
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(entry["digest"], image.digest);
}

#[test]
fn max() {
    let kiln = Kiln::new();
    let context = context().file("token", "s3cret");
    let build = kiln.build(&context).args(["-t", "example.org/app:1", "--provenance=true", "--build-arg=COLOUR=red"]);
    let build = build.args(["--secret=id=token,src=token"]);
    let (index, found) = attested(build, &kiln.out("image.tar"));
    let [about] = &found[..] else { panic!("{} attestation manifests", found.len()) };
    assert_eq!(index["manifests"].as_array().unwrap().len(), 2);
    assert_eq!(index["manifests"][0]["digest"], about.image);
    assert_eq!(about.manifest["artifactType"], "application/vnd.docker.attestation.manifest.v1+json");
    assert_eq!(about.manifest["config"]["data"], "e30=");
    assert_eq!(about.manifest["subject"]["digest"], about.image);

    let [statement] = &about.statements[..] else { panic!("{} statements", about.statements.len()) };
    assert_eq!(statement["predicateType"], "https://slsa.dev/provenance/v1");
    assert_eq!(statement["subject"][0]["name"], "pkg:docker/example.org/app@1?platform=linux%2Famd64");
    assert_eq!(format!("sha256:{}", statement["subject"][0]["digest"]["sha256"].as_str().unwrap()), about.image);
    let definition = &statement["predicate"]["buildDefinition"];
    let request = &definition["externalParameters"]["request"];
    assert_eq!(request["args"]["build-arg:COLOUR"], "red");
    assert_eq!(request["secrets"], json!([{ "id": "token", "optional": true }]));
    assert_eq!(request["locals"], json!([{ "name": "context" }, { "name": "dockerfile" }]));
    let base = busybox(&["amd64", "arm64"]).unwrap();
    let material = json!({
        "uri": "pkg:docker/busybox@latest?platform=linux%2Famd64",
        "digest": { "sha256": base.top.trim_start_matches("sha256:") },
    });
    assert_eq!(definition["resolvedDependencies"], json!([material]));
    let steps = definition["internalParameters"]["buildConfig"]["llbDefinition"].as_array().unwrap();
    let commands: Vec<&Value> = steps.iter().map(|step| &step["op"]["Op"]["exec"]["meta"]["args"][2]).collect();
    assert!(commands.contains(&&json!("echo $COLOUR > /c")), "{commands:?}");
    let metadata = &statement["predicate"]["runDetails"]["metadata"];
    // The context is the client's; no step had a network.
    assert_eq!(metadata["buildkit_completeness"], json!({ "request": true, "resolvedDependencies": false }));
    let id = metadata["invocationID"].as_str().unwrap();
    assert!(kiln.says("history", &["show", id]).contains(id));
    let last = format!("step{}:0", steps.len() - 1);
    let layers = metadata["buildkit_metadata"]["layers"][&last][0].as_array().unwrap();
    assert_eq!(layers.len(), 3);
    assert!(!statement.to_string().contains("s3cret"));
}

#[test]
fn min_of_either_version() {
    let kiln = Kiln::new();
    for (version, of_type) in [("v1", "https://slsa.dev/provenance/v1"), ("v0.2", "https://slsa.dev/provenance/v0.2")] {
        let spec = format!("--attest=type=provenance,mode=min,version={version},builder-id=https://ci.example/1");
        let context = context();
        let build = kiln.build(&context).args([spec, "--build-arg=COLOUR=crimson".into()]);
        let (_, found) = attested(build, &kiln.out("image.tar"));
        let statement = &found[0].statements[0];
        assert_eq!(statement["predicateType"], of_type);
        assert_eq!(statement["subject"][0]["name"], "_");
        let text = statement.to_string();
        assert!(text.contains("https://ci.example/1") && text.contains("pkg:docker/busybox@latest"), "{text}");
        for private in ["crimson", "llbDefinition", "token", "infos"] {
            assert!(!text.contains(private), "{private}: {text}");
        }
    }
}

#[test]
fn sources_from_elsewhere_are_materials() {
    let server = GitServer::start();
    let repository = server.repository("x");
    repository.write("Dockerfile", "FROM scratch\nCOPY . /r\n");
    let commit = repository.commit("dockerfile");
    let kiln = Kiln::new();
    let url = server.url("x");
    let context = Tree::new();
    let build = kiln.build(&context).context(&url).args(["--provenance=mode=min"]);
    let (_, found) = attested(build, &kiln.out("image.tar"));
    let predicate = &found[0].statements[0]["predicate"];
    let dependency = &predicate["buildDefinition"]["resolvedDependencies"][0];
    assert_eq!(dependency["digest"]["sha1"], commit);
    let source = &predicate["buildDefinition"]["externalParameters"]["configSource"];
    assert_eq!((&source["digest"]["sha1"], &source["path"]), (&json!(commit), &json!("Dockerfile")));
    // All that went in is known, and no step ran.
    assert_eq!(predicate["runDetails"]["metadata"]["buildkit_completeness"]["resolvedDependencies"], true);
    assert_eq!(predicate["runDetails"]["metadata"]["buildkit_hermetic"], true);
}

#[test]
fn the_metadata_file_has_it_unless_that_is_switched_off() {
    let kiln = Kiln::new();
    let path = kiln.out("metadata.json");
    let file = format!("--metadata-file={}", path.display());
    let metadata = |provenance: &str, args: &[&str]| -> Value {
        let context = Tree::dockerfile("from busybox\nCOPY f /f\n").file("f", "F");
        let build = kiln.build(&context).env("BUILDX_METADATA_PROVENANCE", provenance);
        build.env("BUILDX_METADATA_WARNINGS", "1").args([&file]).args(args).ok();
        serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
    };
    let min = metadata("", &[]);
    let predicate = &min["buildx.build.provenance"];
    assert_eq!(predicate["buildType"], "https://mobyproject.org/buildkit@v1");
    assert_eq!(predicate["buildConfig"], Value::Null);
    let id = predicate["metadata"]["buildInvocationID"].as_str().unwrap();
    assert_eq!(min["buildx.build.ref"], format!("kiln/kiln/{id}"));
    // `from` in lower case among instructions in upper case.
    assert_eq!(min["buildx.build.warnings"][0]["range"][0]["start"]["line"], 1);
    assert!(metadata("max", &[])["buildx.build.provenance"]["buildConfig"]["llbDefinition"].is_array());
    assert_eq!(metadata("disabled", &[])["buildx.build.provenance"], Value::Null);
    let both = metadata("min", &["--platform=linux/amd64,linux/arm64"]);
    assert!(both["buildx.build.provenance/linux/arm64"]["materials"][0]["uri"].as_str().unwrap().contains("arm64"));
}

#[test]
fn the_contexts_repository_is_said() {
    let kiln = Kiln::new();
    let server = GitServer::start();
    let repository = server.repository("app");
    repository.write("app/Dockerfile", "FROM scratch\nCOPY . /\n");
    let commit = repository.commit("app");
    repository.git(&["remote", "add", "origin", "https://me:s3cret@example.org/app.git"]);
    let (path, empty) = (repository.path().join("app"), Tree::new());
    let path = path.to_str().unwrap();
    let said = |version: &str, environment: &[(&str, &str)]| -> Value {
        let args = [format!("--provenance=mode=min,version={version}")];
        let mut build = kiln.build(&empty).context(path).args(args);
        for (name, value) in environment {
            build = build.env(name, value);
        }
        let predicate = attested(build, &kiln.out("image.tar")).1.remove(0).statements.remove(0)["predicate"].take();
        match version {
            "v1" => predicate["runDetails"]["metadata"]["buildkit_metadata"]["vcs"].clone(),
            _ => predicate["metadata"]["https://mobyproject.org/buildkit@v1#metadata"]["vcs"].clone(),
        }
    };
    let expect = |revision: &str| {
        json!({"source": "https://xxxxx:xxxxx@example.org/app.git", "revision": revision,
            "localdir:context": "app", "localdir:dockerfile": "app"})
    };
    assert_eq!(said("v1", &[]), expect(&commit));
    assert_eq!(said("v0.2", &[]), expect(&commit));
    assert_eq!(said("v1", &[("BUILDX_GIT_INFO", "false")]), Value::Null);
    // git trusts only its owner's repositories: it is the user's configuration that says so.
    let trusted = kiln.out("gitconfig");
    std::fs::write(&trusted, "[safe]\n\tdirectory = *\n").unwrap();
    let dirty = [("BUILDX_GIT_CHECK_DIRTY", "1"), ("GIT_CONFIG_GLOBAL", trusted.to_str().unwrap())];
    assert_eq!(said("v1", &dirty), expect(&commit));
    repository.write("app/new", "new");
    assert_eq!(said("v1", &dirty), expect(&format!("{commit}-dirty")));

    // Refs in a table, which git reads.
    let version = repository.git(&["version"]);
    let minor: u32 = version.split('.').nth(1).and_then(|text| text.parse().ok()).unwrap_or(0);
    if version.starts_with("git version 2.") && minor < 45 {
        harness::skip!("no reftables: {version}");
    }
    std::fs::remove_dir_all(repository.path().join(".git")).unwrap();
    repository.git(&["init", "--quiet", "--ref-format=reftable", "--initial-branch=main"]);
    repository.git(&["remote", "add", "origin", "https://me:s3cret@example.org/app.git"]);
    let commit = repository.commit("again");
    assert_eq!(said("v1", &dirty[1..]), expect(&commit));
}

#[test]
fn labels_name_the_commit_if_they_are_to() {
    let kiln = Kiln::new();
    let server = GitServer::start();
    let repository = server.repository("labels");
    repository.write("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nLABEL own=1\n");
    let commit = repository.commit("all");
    let (path, empty) = (repository.path().to_str().unwrap().to_string(), Tree::new());
    let labels = |value: &str, args: &[&str]| {
        let build = kiln.build(&empty).context(&path).args(args).env("BUILDX_GIT_LABELS", value);
        build.image().config["config"]["Labels"].clone()
    };
    assert_eq!(labels("0", &[]), json!({"own": "1"}));
    let expect = json!({"own": "1", "org.opencontainers.image.revision": commit,
        "com.docker.image.source.entrypoint": "Dockerfile"});
    assert_eq!(labels("1", &[]), expect);
    assert_eq!(labels("full", &["--label=org.opencontainers.image.revision=x"]), expect);
    let refused = kiln.build(&empty).context(&path).env("BUILDX_GIT_LABELS", "some").fails();
    refused.says(&["BUILDX_GIT_LABELS is \"some\"; it must be true or false"]);
    // A folder that has something that is called .git, but is none, is built, and said.
    let odd = Tree::dockerfile("FROM scratch\nCOPY Dockerfile /\n").file(".git", "nothing");
    let build = kiln.build(&odd).env("BUILDX_GIT_LABELS", "1").progress("plain").ok();
    build.says(&["WARNING: the commit of the context is not said", "is no git repository"]);
}
