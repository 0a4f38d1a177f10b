//! ADD of a URL.

use harness::bases::Tar;
use harness::{Answer, Entry, Finished, HttpServer, Kiln, Kind, Tree, sha256};
use rustix::process::{Pid, Signal, kill_process};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
const SECONDS: u64 = 784_111_777;

/// A context that adds a URL to /added.
fn add(url: &str) -> Tree {
    Tree::dockerfile(&format!("FROM scratch\nADD {url} /added\n"))
}

#[test]
fn name_mode_owner_and_time() {
    let server = HttpServer::start();
    server.set("/d/file%20name.txt", Answer::new("hello").header("Last-Modified", DATE));
    server.set("/", Answer::new("root"));
    let (named, unnamed) = (server.url("/d/file%20name.txt?token=x/y"), server.url("/"));
    let image = Kiln::new().image(&Tree::dockerfile(&format!(
        "FROM scratch\nADD {named} /d/\nADD {named} /plain\nADD {unnamed} /d/\n\
         ADD --chown=7:8 --chmod=0751 {named} /changed\n"
    )));
    let tree = image.tree();
    let check = |path: &str, text: &str, mode: u32, owner: (u64, u64), mtime: u64| {
        let kind = Kind::File(text.as_bytes().to_vec());
        let expect = Entry { kind, mode, uid: owner.0, gid: owner.1, mtime };
        assert_eq!(tree.get(path), Some(&expect), "{path}");
    };
    check("/d/file name.txt", "hello", 0o600, (0, 0), SECONDS);
    check("/plain", "hello", 0o600, (0, 0), SECONDS);
    check("/d/__unnamed__", "root", 0o600, (0, 0), 0);
    check("/changed", "hello", 0o751, (7, 8), SECONDS);
    let agents: Vec<_> =
        server.requests().iter().map(|asked| asked.header("user-agent").unwrap().to_string()).collect();
    assert!(agents.iter().all(|agent| agent.starts_with("kiln/")), "{agents:?}");
    assert_eq!(agents.len(), 2, "a URL is fetched once a build");
}

#[test]
fn a_checksum_is_compared_and_makes_the_network_needless() {
    let server = HttpServer::start();
    server.set("/f", Answer::new("hello"));
    let (kiln, right) = (Kiln::new(), sha256(b"hello"));
    let wrong = format!("sha256:{}", "0".repeat(64));
    let with = |checksum: &str| add(&format!("--checksum={checksum} {}", server.url("/f")));
    let mismatch = format!("digest mismatch for {}: {right} (expected: {wrong})", server.url("/f"));
    kiln.build(&with(&wrong)).fails().says(&[&mismatch, "Dockerfile:2", "nothing of it was kept"]);
    assert_eq!(kiln.image(&with(&right)).text("/added"), "hello");
    server.requests();
    // Neither adding nor removing it makes the step run again.
    assert_eq!(kiln.build(&add(&server.url("/f"))).ok().ran(), Vec::<String>::new());
    server.requests();
    server.stop();
    assert_eq!(kiln.image(&with(&right)).text("/added"), "hello");
    assert_eq!(server.requests().len(), 0);
    kiln.build(&add(&server.url("/f"))).fails().says(&["cannot connect", "--checksum"]);
}

#[test]
fn what_did_not_change_is_not_sent_again() {
    let server = HttpServer::start();
    let (kiln, context) = (Kiln::new(), add(&server.url("/f")));
    let statuses = || server.requests().iter().map(|asked| asked.status).collect::<Vec<_>>();
    let check = |answer: Answer, expect: &[u16], ran: bool| {
        server.set("/f", answer);
        let finished = kiln.build(&context).ok();
        assert_eq!(finished.ran().len(), usize::from(ran), "{:?}", finished.steps());
        assert_eq!(statuses(), expect);
    };
    let tagged = |text: &str, etag: &str| Answer::new(text).header("ETag", etag);
    check(tagged("one", "\"1\""), &[200], true);
    check(tagged("one", "\"1\""), &[304], false);
    check(tagged("two", "\"2\""), &[200], true);
    check(tagged("two", "\"3\""), &[200], false);
    check(Answer::new("two").header("Last-Modified", DATE), &[200], false);
    check(Answer::new("two").header("Last-Modified", DATE), &[304], false);
    check(Answer::new("two"), &[200], false);
    check(Answer::new("two"), &[200], false);
    check(Answer::new("three"), &[200], true);
}

#[test]
fn redirects_are_followed_and_statuses_are_told() {
    let server = HttpServer::start();
    server.set("/f", Answer::new("hello"));
    server.set("/old/name", Answer::redirect("/f"));
    server.set("/circle", Answer::redirect("/circle"));
    let kiln = Kiln::new();
    let context = Tree::dockerfile(&format!("FROM scratch\nADD {} /d/\n", server.url("/old/name")));
    assert_eq!(kiln.image(&context).text("/d/name"), "hello");
    let missing = server.url("/missing");
    kiln.build(&add(&missing)).fails().says(&["invalid response status 404", &missing, "Dockerfile:2", "help: "]);
    kiln.build(&add(&server.url("/circle"))).fails().says(&["redirect"]);
    assert_eq!(
        server.requests().iter().filter(|asked| asked.path == "/missing").count(),
        1,
        "404 is no reason to wait"
    );
}

#[test]
fn what_may_pass_is_tried_again() {
    let server = HttpServer::start();
    server.set("/busy", Answer::new("busy").fails(2, 503));
    server.set("/many", Answer::new("many").fails(1, 429));
    server.set("/cut", Answer::new("a body that is cut").cuts(2));
    let lines = ["busy", "many", "cut"].map(|name| format!("ADD {} /\n", server.url(&format!("/{name}"))));
    let image = Kiln::new().image(&Tree::dockerfile(&format!("FROM scratch\n{}", lines.concat())));
    assert_eq!(
        (image.text("/busy"), image.text("/many"), image.text("/cut")),
        ("busy".into(), "many".into(), "a body that is cut".into())
    );
}

#[test]
fn secrets_are_for_their_host_alone_and_not_shown() {
    let server = HttpServer::start();
    let other = HttpServer::start();
    server.set("/token", Answer::new("t").needs("Bearer s3cret-token"));
    server.set("/header", Answer::new("h").needs("Basic czNjcmV0"));
    server.set(
        "/away",
        Answer::redirect(&other.url("/f").replace("127.0.0.1", "localhost")).needs("Bearer s3cret-token"),
    );
    other.set("/f", Answer::new("f"));
    let kiln = Kiln::new();
    let build = |path: &str, secret: &str| {
        let argument = format!("--secret=id={secret}_127.0.0.1,env=THE_SECRET");
        let value = if secret.ends_with("HEADER") { "Basic czNjcmV0" } else { "s3cret-token" };
        let finished = kiln.build(&add(&server.url(path))).args([argument]).env("THE_SECRET", value).ok();
        assert!(!finished.stderr.contains("s3cret") && !finished.stderr.contains("czNjcmV0"));
    };
    build("/token", "HTTP_AUTH_TOKEN");
    build("/header", "HTTP_AUTH_HEADER");
    build("/away", "HTTP_AUTH_TOKEN");
    assert!(other.requests().iter().all(|asked| asked.header("authorization").is_none()));
    let missing = ["invalid response status 401", "--secret id=HTTP_AUTH_TOKEN_127.0.0.1"];
    Kiln::new().build(&add(&server.url("/token"))).fails().says(&missing);
    let (kiln, argument) = (Kiln::new(), "--secret=id=HTTP_AUTH_TOKEN_127.0.0.1,env=THE_SECRET");
    let refused = kiln.build(&add(&server.url("/token"))).args([argument]).env("THE_SECRET", "no").fails();
    refused.says(&["does not take the value of secret HTTP_AUTH_TOKEN_127.0.0.1"]);
}

#[test]
fn archives_are_unpacked_if_asked_for() {
    let server = HttpServer::start();
    let mut tar = Tar::new();
    tar.file("d/f", 0o640, b"F").unwrap();
    server.set("/a.tar", Answer::new(tar.finish().unwrap()));
    let url = server.url("/a.tar");
    let text = format!("FROM scratch\nADD {url} /plain\nADD --unpack=true --chown=5 {url} /unpacked\n");
    let image = Kiln::new().image(&Tree::dockerfile(&text));
    assert_eq!(image.text("/unpacked/d/f"), "F");
    let tree = image.tree();
    assert_eq!((tree["/unpacked/d/f"].uid, tree["/unpacked/d/f"].mode), (5, 0o640));
    assert!(matches!(tree["/plain"].kind, Kind::File(_)));
}

#[test]
fn by_an_ordinary_user() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => harness::skip!("{reason}"),
    };
    let server = HttpServer::start();
    server.set("/f", Answer::new("hello").header("ETag", "\"1\""));
    let context = Tree::dockerfile(&format!("FROM busybox\nADD {} /f\nRUN cat /f > /g\n", server.url("/f")));
    let image = kiln.image(&context);
    assert_eq!((image.text("/g"), image.tree()["/f"].uid, image.tree()["/f"].mode), ("hello".into(), 0, 0o600));
    assert_eq!(kiln.build(&context).ok().ran(), Vec::<String>::new());
}

#[test]
fn a_download_can_be_interrupted() {
    let server = HttpServer::start();
    server.set("/f", Answer::new(vec![0; 100_000]).stalls());
    let kiln = Kiln::new();
    let context = add(&server.url("/f"));
    let child = kiln.build(&context).spawn();
    server.wait();
    let started = std::time::Instant::now();
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert_eq!(Finished::wait(child).status.code(), Some(130));
    assert!(started.elapsed().as_secs() < 20, "the download is stopped, not waited for");
    server.set("/f", Answer::new("now"));
    assert_eq!(kiln.image(&context).text("/added"), "now");
}
