//! `-t` leaves a name in the store: what finds it, what moves it, what keeps it from being pruned.

use harness::{Fault, FaultProxy, Image, Kiln, Registry, Rule, Tree, skip};
use serde_json::Value;

fn base() -> Tree {
    Tree::dockerfile(
        "FROM busybox\nENV WHO=base\nRUN echo from the base > /from\nONBUILD RUN echo triggered > /trigger\n",
    )
}

fn images(kiln: &Kiln) -> Vec<Value> {
    let text = kiln.says("image", &["ls", "--format", "json"]);
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn names(kiln: &Kiln) -> Vec<String> {
    images(kiln).iter().map(|image| image["Name"].as_str().unwrap().to_string()).collect()
}

#[test]
fn from_finds_what_was_built_here() {
    let kiln = Kiln::new();
    let built = kiln.build(&base()).args(["-t", "team/base:1"]).progress("plain").ok();
    assert!(built.stderr.contains("team/base:1: now image "), "{}", built.stderr);
    let again = kiln.build(&base()).args(["-t", "team/base:1"]).progress("plain").ok();
    assert!(again.stderr.contains("team/base:1: still image "), "{}", again.stderr);

    let (iid, metadata) = (kiln.out("iid"), kiln.out("metadata.json"));
    let files = ["--iidfile", iid.to_str().unwrap(), "--metadata-file", metadata.to_str().unwrap()];
    kiln.build(&base()).args(["-t", "team/base:1"]).args(files).ok();
    let id = std::fs::read_to_string(iid).unwrap();
    assert_eq!(images(&kiln)[0]["ID"], id);
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(metadata["image.name"], "docker.io/team/base:1");

    let child = Tree::dockerfile(
        "FROM busybox AS other\nFROM team/base:1\nRUN echo $WHO > /who\nCOPY --from=team/base:1 /from /copied\n",
    );
    let plain = kiln.build(&child).progress("plain").ok();
    assert!(plain.stderr.contains("from kiln's store: image "), "{}", plain.stderr);
    let image = kiln.image(&child);
    assert_eq!((image.text("/who").as_str(), image.text("/trigger").as_str()), ("base\n", "triggered\n"));
    assert_eq!(image.text("/copied"), image.text("/from"));
    // Its history is the base's and its own, with a time each.
    let history = image.config["history"].as_array().unwrap();
    assert!(history.iter().all(|entry| entry["created"].is_string()), "{history:?}");
    assert!(history[0]["created_by"].as_str().unwrap().starts_with("base rootfs"), "{history:?}");
    assert_eq!(history.iter().filter(|entry| entry["empty_layer"] != true).count(), image.layers.len());

    let named = Tree::dockerfile("FROM x\nRUN cat /from\n");
    kiln.build(&named).args(["--build-context", "x=docker-image://team/base:1"]).ok();
}

#[test]
fn layers_are_those_that_the_base_has() {
    let kiln = Kiln::new();
    let base_image = kiln.build(&base()).args(["-t", "base"]).image();
    kiln.build(&base()).args(["-t", "base"]).ok();
    let image = kiln.image(&Tree::dockerfile("FROM base\n"));
    assert_eq!(image.layers[..2], base_image.layers[..]);
    assert_eq!(image.manifest["layers"][1], base_image.manifest["layers"][1]);
}

#[test]
fn pull_asks_the_registry_and_steps_hit_by_content() {
    let kiln = Kiln::new();
    let mine = Tree::dockerfile("FROM busybox\nRUN echo mine > /mine\n");
    kiln.build(&mine).args(["-t", "busybox"]).ok();
    let child = Tree::dockerfile("FROM busybox\nRUN ls / > /list\n");
    assert!(kiln.image(&child).text("/list").contains("mine"));
    assert!(!kiln.build(&child).args(["--pull"]).image().text("/list").contains("mine"));
    // A platform that the named image is not for.
    let other = Tree::dockerfile("FROM busybox\n");
    kiln.build(&other).args(["--platform=linux/arm64"]).ok();
    kiln.says("image", &["rm", "busybox"]);
    assert!(!kiln.image(&child).text("/list").contains("mine"));
}

#[test]
fn names_move_and_go() {
    let kiln = Kiln::new();
    let one = base().file("x", "");
    kiln.build(&one).args(["-t", "app", "-t", "app:old"]).ok();
    let first = images(&kiln)[0]["ID"].clone();
    one.write("Dockerfile", "FROM busybox\nRUN echo other > /from\n");
    kiln.build(&one).args(["-t", "app"]).ok();
    let list = images(&kiln);
    assert_eq!(names(&kiln), ["docker.io/library/app:latest", "docker.io/library/app:old"]);
    assert_eq!(list[1]["ID"], first);
    assert_ne!(list[0]["ID"], first);

    kiln.says("image", &["tag", &first.as_str().unwrap()[7..15], "example.org/kept:2"]);
    assert_eq!(kiln.says("image", &["rm", "app:old"]), "Untagged: app:old\n");
    assert_eq!(names(&kiln), ["docker.io/library/app:latest", "example.org/kept:2"]);
    let missing = kiln.run("image", &["rm", "app", "none"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(missing.stderr.contains("kiln has no image `none`"), "{}", missing.stderr);
    assert_eq!(names(&kiln).len(), 2, "all or nothing");
    kiln.says("image", &["rm", "--force", "app", "none"]);
    assert_eq!(kiln.says("image", &["ls", "-q", "--filter", "reference=example.org/*"]).lines().count(), 1);
    assert_eq!(kiln.says("image", &["ls", "-q", "--filter", "reference=example.org"]), "");
}

#[test]
fn pruning_keeps_what_has_a_name() {
    let kiln = Kiln::new();
    kiln.build(&base()).args(["-t", "kept"]).ok();
    let lost = Tree::dockerfile("FROM busybox\nRUN echo lost > /lost\n");
    kiln.build(&lost).ok();
    kiln.says("prune", &["--all", "--force"]);
    let held: Vec<Value> =
        kiln.says("du", &["--format", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(!held.is_empty());
    for object in held {
        assert_eq!(object["Images"], serde_json::json!(["docker.io/library/kept:latest"]), "{object}");
        assert_eq!(object["Reclaimable"], false);
    }
    // All of it is there: no registry is asked for anything but what was never fetched.
    let archive = kiln.out("kept.tar");
    kiln.says("image", &["save", "-o", archive.to_str().unwrap(), "kept"]);
    assert_eq!(Image::read(&archive).unwrap().text("/from"), "from the base\n");
    kiln.says("image", &["rm", "kept"]);
    kiln.says("prune", &["--all", "--force"]);
    assert_eq!(kiln.says("du", &["--format", "json"]), "");
    assert_eq!(kiln.says("debug", &["verify"]).lines().filter(|line| line.contains("damaged")).count(), 0);
}

#[test]
fn the_limit_says_that_images_are_in_the_way() {
    let kiln = Kiln::with_config(&format!(
        "{}\n[gc]\nmaxUsedSpace = 3000000\nminFreeSpace = 0\nreservedSpace = 0\n",
        Registry::shared().kiln_toml()
    ));
    let large = Tree::dockerfile("FROM scratch\nCOPY big /\n").file("big", &"x".repeat(4_000_000));
    kiln.build(&large).args(["-t", "large"]).ok();
    large.write("more", "m");
    large.write("Dockerfile", "FROM scratch\nCOPY more /\n");
    let next = kiln.build(&large).progress("plain").ok();
    assert!(next.stderr.contains("named images hold") && next.stderr.contains("kiln image rm"), "{}", next.stderr);
    assert_eq!(names(&kiln), ["docker.io/library/large:latest"]);
    kiln.says("image", &["save", "-o", kiln.out("l.tar").to_str().unwrap(), "large"]);
}

#[test]
fn the_image_exporter_names_unless_it_pushes() {
    let kiln = Kiln::new();
    let registry = Registry::shared();
    let name = format!("{}/named/by-exporter:1", registry.host);
    kiln.build(&base()).args(["-o", &format!("type=image,name={name},push=true")]).ok();
    assert_eq!(names(&kiln), Vec::<String>::new());
    kiln.build(&base()).args(["-o", "type=image,name=here"]).ok();
    let metadata = kiln.out("metadata.json");
    kiln.build(&base())
        .args(["-o", &format!("type=image,name={name},push=true,store=true")])
        .args(["--metadata-file", metadata.to_str().unwrap()])
        .ok();
    assert_eq!(names(&kiln), [name.clone(), "docker.io/library/here:latest".into()]);
    let metadata: Value = serde_json::from_slice(&std::fs::read(metadata).unwrap()).unwrap();
    assert_eq!(images(&kiln)[0]["ID"], metadata["containerimage.config.digest"]);
    assert_eq!(images(&kiln)[0]["Digest"], metadata["containerimage.digest"]);
}

#[test]
fn named_images_are_pushed_as_a_build_pushes_them() {
    let kiln = Kiln::new();
    let host = &Registry::shared().host;
    let (one, other) = (format!("{host}/named/pushed:build"), format!("{host}/named/pushed:image"));
    kiln.build(&base()).args(["-t", &one, "--push"]).ok();
    kiln.build(&base()).args(["-t", "app"]).ok();
    kiln.says("image", &["tag", "app", &other]);
    let said = kiln.says("image", &["push", &other]);
    let manifest = |tag: &str| Registry::shared().get_manifest("named/pushed", tag).unwrap().body;
    assert!(manifest("build") == manifest("image"), "the manifests differ");
    assert_eq!(said, format!("{other}@{}\n", harness::sha256(&manifest("image"))));
    let refused = kiln.run("image", &["push", &format!("{host}/named/none")]);
    assert_eq!(refused.status.code(), Some(1));
    // One that was loaded goes as it came.
    let archive = kiln.out("a.tar");
    kiln.says("image", &["save", "-o", archive.to_str().unwrap(), &other]);
    kiln.says("image", &["rm", "app", &other]);
    kiln.says("image", &["load", "-i", archive.to_str().unwrap(), "--tag", &other]);
    assert_eq!(kiln.says("image", &["push", &other]), said);
}

#[test]
fn what_could_not_be_pushed_waits_as_that_of_a_build() {
    let kiln = Kiln::new();
    let proxy = FaultProxy::start(&Registry::shared().host);
    let [one, other] = ["one", "other"].map(|tag| format!("{}/named/later:{tag}", proxy.host));
    kiln.build(&base()).args(["-t", &one, "-t", &other]).ok();
    proxy.set([Rule::new("PUT", "/manifests/", Fault::Status(500, &[], ""))]);
    let mut push = kiln.command("image");
    let refused = push.args(["push", &one, &other]).env("KILN_TEST_RETRY", "2,10,10,1000").output().unwrap();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(75), "{said}");
    assert!(said.contains("500 Internal Server Error") && said.contains(&format!("kiln push {one} {other}")), "{said}");
    proxy.set([]);
    assert!(kiln.says("push", &[&one]).starts_with(&format!("{one}@sha256:")));
    // What is pushed takes the place of what waits.
    assert!(kiln.says("push", &["--list"]).starts_with(&other));
    kiln.says("image", &["push", &other]);
    assert_eq!(kiln.says("push", &["--list"]), "");
}

#[test]
fn history_and_inspect_say_what_docker_says() {
    let kiln = Kiln::new();
    kiln.build(&base()).args(["-t", "app", "--label", "team=red"]).ok();
    let lines = kiln.says("image", &["history", "--format", "json", "app"]);
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["CreatedBy"], "RUN /bin/sh -c echo from the base > /from # buildkit");
    assert_eq!(lines[0]["Bytes"], 14);
    assert_eq!((&lines[1]["CreatedBy"], &lines[1]["EmptyLayer"]), (&"ENV WHO=base".into(), &true.into()));
    assert!(lines.last().unwrap()["Bytes"].as_u64().unwrap() > 500_000);
    let inspected: Value = serde_json::from_str(&kiln.says("image", &["inspect", "app"])).unwrap();
    assert_eq!(inspected[0]["RepoTags"], serde_json::json!(["app:latest"]));
    assert_eq!(inspected[0]["Config"]["Labels"]["team"], "red");
    assert_eq!(inspected[0]["RootFS"]["Layers"], Value::Null);
    assert_eq!(kiln.says("image", &["ls", "-q", "--filter", "label=team=red"]).lines().count(), 1);
    assert_eq!(kiln.says("image", &["ls", "-q", "--filter", "label=team=blue"]), "");
    // The layers' digests are known once they were made.
    let archive = kiln.out("a.tar");
    kiln.says("image", &["save", "-o", archive.to_str().unwrap(), "app"]);
    let image = Image::read(&archive).unwrap();
    let inspected: Value = serde_json::from_str(&kiln.says("image", &["inspect", "app"])).unwrap();
    assert_eq!(inspected[0]["RootFS"]["Layers"], image.config["rootfs"]["diff_ids"]);
}

#[test]
fn without_namespaces_too() {
    let kiln = match Kiln::confined() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    kiln.build(&base()).args(["-t", "base"]).ok();
    kiln.build(&Tree::dockerfile("FROM base\nRUN rm -r /tmp && mkdir /tmp && echo new > /tmp/new\n"))
        .args(["-t", "app"])
        .ok();
    let archive = kiln.out("saved.tar");
    kiln.says("image", &["save", "-o", archive.to_str().unwrap(), "app"]);
    let tree = Image::read(&archive).unwrap().tree();
    assert!(tree.contains_key("/tmp/new") && tree.contains_key("/from"));
    kiln.says("analyze", &["app"]);
}

#[test]
fn an_ordinary_user_has_names_too() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    kiln.build(&base()).args(["-t", "base"]).ok();
    let image = kiln.image(&Tree::dockerfile("FROM base\nRUN cat /from > /seen && chown 7:8 /seen\n"));
    assert_eq!(image.text("/seen"), "from the base\n");
    let archive = kiln.out("saved.tar");
    kiln.says("image", &["save", "-o", archive.to_str().unwrap(), "base"]);
    kiln.says("image", &["rm", "base"]);
    kiln.says("image", &["load", "-i", archive.to_str().unwrap()]);
    assert_eq!(names(&kiln), ["docker.io/library/base:latest"]);
}

#[test]
fn a_canonical_name_stays_with_its_image() {
    let kiln = Kiln::with_config("");
    let context = Tree::dockerfile("FROM scratch\nCOPY f /f\n").file("f", "one");
    let metadata = kiln.out("metadata.json");
    let file = format!("--metadata-file={}", metadata.display());
    let build = |args: &[&str]| {
        kiln.build(&context).args(args).args([&file]).ok();
        let metadata: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
        metadata["containerimage.digest"].as_str().unwrap().to_string()
    };
    let one = build(&["-t", "app:1", "-o", "type=image,name-canonical=true"]);
    assert_eq!(names(&kiln), ["docker.io/library/app:1".to_string(), format!("docker.io/library/app@{one}")]);
    // The tag moves; the other name finds what it found, without a registry.
    context.write("f", "two");
    let two = build(&["-t", "app:1", "-o", "type=image"]);
    for name in [format!("app@{one}"), format!("app:1@{one}")] {
        let child = Tree::dockerfile(&format!("FROM {name}\nCOPY --from={name} /f /g\n"));
        let plain = kiln.build(&child).progress("plain").ok();
        assert!(plain.stderr.contains("from kiln's store: image "), "{}", plain.stderr);
        assert_eq!(kiln.image(&child).text("/g"), "one");
    }
    let table = kiln.says("image", &["ls"]);
    assert!(table.contains(&format!("\napp@{}  ", &one[..19])), "{table}");
    assert!(kiln.says("image", &["ls", "--no-trunc"]).contains(&format!("\napp@{one} ")));
    assert_eq!(kiln.says("image", &["ls", "-q", "--filter", "reference=app"]).lines().count(), 2);
    let listed = images(&kiln);
    assert_eq!((&listed[1]["Repository"], &listed[1]["Tag"]), (&"app".into(), &"".into()));
    let shown: Value = serde_json::from_str(&kiln.says("image", &["inspect", &format!("app@{one}")])).unwrap();
    assert_eq!(shown[0]["RepoTags"], serde_json::json!([]));
    assert_eq!(shown[0]["RepoDigests"], serde_json::json!([format!("app@{one}")]));

    // It goes through archives, and is no tag for docker.
    let archive = kiln.out("one.tar");
    let path = archive.to_str().unwrap();
    kiln.says("image", &["save", "-o", path, &format!("app@{one}")]);
    let files = Image::read_all(&archive).unwrap().remove(0).files;
    let manifest: Value = serde_json::from_slice(&files["manifest.json"]).unwrap();
    assert_eq!(manifest[0]["RepoTags"], Value::Null);
    kiln.says("image", &["rm", &format!("app:x@{one}")]);
    assert_eq!(names(&kiln), ["docker.io/library/app:1"]);
    kiln.says("image", &["load", "-i", path]);
    assert_eq!(names(&kiln), ["docker.io/library/app:1".to_string(), format!("docker.io/library/app@{one}")]);
    kiln.says("image", &["rm", &format!("app@{one}")]);
    assert_ne!(one, two);

    kiln.build(&context).args(["-o", "type=image,name-canonical=true"]).fails().says(&["give name=NAME"]);
    kiln.build(&context).args(["-o", &format!("type=image,name=app@{one}")]).fails().says(&["name-canonical=true"]);
}

#[test]
fn what_is_pushed_by_digest_has_that_name_here() {
    let kiln = Kiln::new();
    let registry = Registry::shared();
    let repository = format!("{}/named/by-digest", registry.host);
    let metadata = kiln.out("metadata.json");
    kiln.build(&base())
        .args([format!("--output=type=image,name={repository},push=true,push-by-digest=true,store=true")])
        .args(["--metadata-file", metadata.to_str().unwrap()])
        .ok();
    let metadata: Value = serde_json::from_slice(&std::fs::read(&metadata).unwrap()).unwrap();
    let name = format!("{repository}@{}", metadata["containerimage.digest"].as_str().unwrap());
    assert_eq!(names(&kiln), std::slice::from_ref(&name));
    assert_eq!(kiln.says("image", &["push", &name]), format!("{name}\n"));
}
