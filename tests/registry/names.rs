//! One image under several names, without a name, and by its digest alone; and what could not be pushed.

use harness::{Fault, FaultProxy, Kiln, Registry, Rule, Tree, sha256};
use serde_json::Value;

const MANIFEST: &str = "/manifests/";

fn context(content: &str) -> Tree {
    Tree::dockerfile("FROM scratch\nCOPY a /a\n").file("a", content)
}

/// The digest that a build has written for `--metadata-file`.
fn digest(kiln: &Kiln) -> String {
    let text = std::fs::read_to_string(kiln.out("metadata.json")).unwrap();
    serde_json::from_str::<Value>(&text).unwrap()["containerimage.digest"].as_str().unwrap().to_string()
}

fn metadata(kiln: &Kiln) -> String {
    format!("--metadata-file={}", kiln.out("metadata.json").display())
}

#[test]
fn blobs_are_sent_once_to_each_registry() {
    let (registry, other) = (Registry::start().unwrap(), Registry::start().unwrap());
    let (proxy, second) = (FaultProxy::start(&registry.host), FaultProxy::start(&other.host));
    let kiln = Kiln::with_config("");
    let names = ["a/app:1", "b/app:1", "a/app:2"].map(|name| format!("--tag={}/{name}", proxy.host));
    kiln.build(&context("names")).args(names).args([format!("--tag={}/c:1", second.host), "--push".into()]).ok();
    let puts = |proxy: &FaultProxy, part: &str| {
        proxy.log().iter().filter(|(line, _)| line.starts_with("PUT") && line.contains(part)).count()
    };
    // A layer and a config; the second repository mounts them.
    assert_eq!((puts(&proxy, "/blobs/uploads/"), puts(&proxy, MANIFEST)), (2, 3), "{:?}", proxy.log());
    assert_eq!((puts(&second, "/blobs/uploads/"), puts(&second, MANIFEST)), (2, 1), "{:?}", second.log());
    let at = |registry: &Registry, repository, tag| sha256(&registry.get_manifest(repository, tag).unwrap().body);
    let digest = at(&registry, "a/app", "1");
    assert_eq!(
        [at(&registry, "b/app", "1"), at(&registry, "a/app", "2"), at(&other, "c", "1")],
        [&digest; 3].map(String::clone)
    );
}

#[test]
fn by_digest_alone() {
    let registry = Registry::shared();
    let kiln = Kiln::with_config("");
    let name = format!("{}/names/digest", registry.host);
    let output = format!("--output=type=image,\"name={name}\",push-by-digest=true,name-canonical=true,push=true");
    kiln.build(&context("by digest")).args([output, metadata(&kiln)]).ok();
    assert_eq!(registry.get_manifest("names/digest", &digest(&kiln)).unwrap().status, 200);
    assert_eq!(registry.get_manifest("names/digest", "latest").unwrap().status, 404);
    let check = |options: &str, expect: &str| {
        let output = format!("--output=type=image,{options},push-by-digest=true");
        kiln.build(&context("by digest")).args([output]).fails().says(&[expect]);
    };
    check(&format!("name={name}:1,push=true"), "can't push tagged ref");
    check(&format!("name={name}"), "nothing is pushed");
}

#[test]
fn one_registry_that_refuses_does_not_stop_the_others() {
    let registry = Registry::shared();
    let proxy = FaultProxy::start(&registry.host);
    let kiln = Kiln::with_config("");
    let [good, bad] = [&registry.host, &proxy.host].map(|host| format!("{host}/names/partly:1"));
    proxy.set([Rule::new("*", "/v2/", Fault::Status(503, &[], ""))]);
    let flags = [format!("--tag={bad}"), format!("--tag={good}"), "--push".into()];
    let build = kiln.build(&context("partly")).env("KILN_TEST_RETRY", "2,10,10,1000").args(&flags).run();
    assert_eq!(build.status.code(), Some(75), "{}", build.report());
    build.says(&["503 Service Unavailable", &format!("kiln push {bad}")]);
    assert_eq!(registry.get_manifest("names/partly", "1").unwrap().status, 200);

    // It is kept, whatever is pruned, and known by its name.
    kiln.says("prune", &["--force", "--all"]);
    assert!(kiln.says("push", &["--list"]).contains(&bad));
    let unknown = kiln.run("push", &["127.0.0.1:1/other:1"]);
    assert_eq!(unknown.status.code(), Some(1));
    unknown.says(&["no image waits to be pushed to 127.0.0.1:1/other:1", &bad]);
    let mut again = kiln.command("push");
    again.args([&bad]).env("KILN_TEST_RETRY", "2,10,10,1000");
    let again = again.output().unwrap();
    assert_eq!(again.status.code(), Some(75));

    proxy.set([]);
    let pushed = kiln.says("push", &[]);
    assert!(pushed.starts_with(&format!("{bad}@sha256:")), "{pushed}");
    assert_eq!(kiln.says("push", &["--list"]), "");
    assert_eq!(kiln.says("push", &[]), "");
    kiln.says("debug", &["verify"]);
}

#[test]
fn a_later_build_of_the_name_takes_the_place_of_what_waits() {
    let registry = Registry::shared();
    let proxy = FaultProxy::start(&registry.host);
    let kiln = Kiln::with_config("");
    let name = format!("{}/names/later:1", proxy.host);
    let flags = [format!("--tag={name}"), "--push".into()];
    let impatient = "2,10,10,1000";
    proxy.set([Rule::new("PUT", MANIFEST, Fault::Status(500, &[], ""))]);
    assert_eq!(
        kiln.build(&context("earlier")).env("KILN_TEST_RETRY", impatient).args(&flags).run().status.code(),
        Some(75)
    );
    proxy.set([]);
    kiln.build(&context("later")).args(&flags).ok();
    assert_eq!(kiln.says("push", &["--list"]), "");
    proxy.set([Rule::new("PUT", MANIFEST, Fault::Status(500, &[], ""))]);
    assert_eq!(
        kiln.build(&context("last")).env("KILN_TEST_RETRY", impatient).args(&flags).run().status.code(),
        Some(75)
    );
    kiln.says("push", &["--forget", &name]);
    assert_eq!(kiln.says("push", &["--list"]), "");
}

#[test]
fn an_ordinary_user_pushes_later() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => harness::skip!("{reason}"),
    };
    let registry = Registry::shared();
    let proxy = FaultProxy::start(&registry.host);
    let name = format!("{}/names/user:1", proxy.host);
    proxy.set([Rule::new("POST", "/v2/", Fault::Status(503, &[], ""))]);
    let flags = [format!("--tag={name}"), "--push".into()];
    let build = kiln.build(&context("user")).env("KILN_TEST_RETRY", "2,10,10,1000").args(&flags).run();
    assert_eq!(build.status.code(), Some(75), "{}", build.report());
    proxy.set([]);
    assert!(kiln.says("push", &[&name]).starts_with(&name));
    assert_eq!(registry.get_manifest("names/user", "1").unwrap().status, 200);
}
