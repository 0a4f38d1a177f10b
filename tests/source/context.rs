//! Build contexts that come from URLs, and from standard input.

use harness::{Answer, Finished, GitServer, HttpServer, Image, Kiln, Kind, Tree};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A tar with a Dockerfile that copies everything; its files belong to 1234:55, as old as 1,000,000,000 s.
fn archive() -> Vec<u8> {
    let mut tar = tar::Builder::new(vec![]);
    let files: [(&str, &[u8]); 4] = [
        ("Dockerfile", b"FROM scratch\nCOPY . /c/\nADD f /added\n"),
        ("other.Dockerfile", b"FROM scratch\nCOPY f /other\n"),
        ("f", b"F"),
        (".dockerignore", b"*\n"),
    ];
    for (name, data) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(data.len() as u64);
        header.set_mode(0o640);
        header.set_uid(1234);
        header.set_gid(55);
        header.set_mtime(1_000_000_000);
        tar.append_data(&mut header, name, data).unwrap();
    }
    tar.into_inner().unwrap()
}

fn compressed(program: &str, data: &[u8]) -> Vec<u8> {
    let mut child = Command::new(program)
        .arg("-c")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("start a compressor");
    let mut input = child.stdin.take().unwrap();
    let data = data.to_vec();
    let writer = std::thread::spawn(move || input.write_all(&data));
    let output = child.wait_with_output().unwrap().stdout;
    writer.join().unwrap().unwrap();
    output
}

fn archives() -> Vec<(&'static str, Vec<u8>)> {
    let plain = archive();
    let packed = ["gzip", "bzip2", "xz", "zstd"].map(|program| (program, compressed(program, &plain)));
    [("tar", plain)].into_iter().chain(packed).collect()
}

/// What the Dockerfile of [`archive`] makes: nothing is ignored, and owners are kept.
fn check_archive(image: &Image, name: &str) {
    let tree = image.tree();
    for path in ["/c/f", "/added", "/c/.dockerignore", "/c/Dockerfile"] {
        let entry = &tree[path];
        let seen = (entry.mode, entry.uid, entry.gid, entry.mtime);
        assert_eq!(seen, (0o640, 1234, 55, 1_000_000_000), "{path} of {name}");
    }
}

#[test]
fn git_repositories() {
    let server = GitServer::start();
    let repo = server.repository("x");
    repo.write("Dockerfile", "FROM scratch\nCOPY . /c/\n");
    repo.write("d/dockerfile", "FROM scratch\nCOPY g /lower\n");
    repo.write("d/g", "G");
    repo.write("d/sub/my.Dockerfile", "FROM scratch\nCOPY g /named\n");
    repo.write(".dockerignore", "*\n");
    repo.commit("more");
    let kiln = Kiln::new();
    let nothing = Tree::new();
    let url = server.url("x");
    let build = |context: &str| kiln.build(&nothing).context(context);
    let image = build(&url).image();
    assert_eq!((image.text("/c/f"), image.text("/c/.dockerignore")), ("F".into(), "*\n".into()));
    assert!(!image.tree().contains_key("/c/.git"));
    assert_eq!(build(&format!("{url}#main:d")).image().text("/lower"), "G");
    assert_eq!(build(&format!("{url}#:d")).args(["-f", "sub/my.Dockerfile"]).image().text("/named"), "G");
    let kept = build(&url).args(["--build-arg=BUILDKIT_CONTEXT_KEEP_GIT_DIR=1"]).image();
    assert!(kept.tree().contains_key("/c/.git/HEAD"));
    let finished = build(&url).ok();
    assert_eq!(finished.ran(), Vec::<String>::new());
    let name = format!("[internal] load git source {url}");
    assert!(finished.steps().contains_key(&name) && !finished.steps().contains_key("[internal] load .dockerignore"));
    let local = Tree::new().file("here", "FROM scratch\nCOPY f /from-stdin\n");
    let from_stdin = kiln.build(&local).context(&url).args(["-f", "-"]).stdin(local.join("here"));
    assert_eq!(from_stdin.image().text("/from-stdin"), "F");
    let missing = build(&url).args(["-f", "nope"]).fails();
    missing.says(&["failed to read dockerfile: open nope: no such file or directory"]);
    build(&format!("{url}?x=1")).fails().says(&["unexpected query \"x\""]);
    build(&format!("{url}#nope")).fails().says(&["repository does not contain ref nope"]);
    build("ftp://host/x").fails().says(&["unable to prepare context", "not found"]);
}

#[test]
fn times_of_files_are_those_of_the_commit_if_it_is_asked_for() {
    let server = GitServer::start();
    let repo = server.repository("x");
    repo.write("Dockerfile", "FROM scratch\nCOPY f /f\n");
    repo.commit("more");
    let mtime = |context: &str, arguments: &[&str]| {
        Kiln::new().build(&Tree::new()).context(context).args(arguments).image().tree()["/f"].mtime
    };
    assert!(mtime(&server.url("x"), &[]) > 1_600_000_000);
    assert_eq!(mtime(&format!("{}?mtime=commit", server.url("x")), &[]), 1_000_000_001);
    assert_eq!(mtime(&server.url("x"), &["--build-arg=SOURCE_DATE_EPOCH=5"]), 1_000_000_001);
}

#[test]
fn archives_from_a_url_and_from_standard_input() {
    let server = HttpServer::start();
    let (kiln, nothing) = (Kiln::new(), Tree::new());
    for (name, data) in archives() {
        nothing.write("stdin", "");
        std::fs::write(nothing.join("stdin"), &data).unwrap();
        server.set("/c", Answer::new(data));
        let url = server.url("/c");
        check_archive(&kiln.build(&nothing).context(&url).image(), name);
        check_archive(&kiln.build(&nothing).context("-").stdin(nothing.join("stdin")).image(), name);
        let other = ["-f", "other.Dockerfile"];
        assert_eq!(kiln.build(&nothing).context(&url).args(other).image().text("/other"), "F");
        assert_eq!(
            kiln.build(&nothing).context("-").args(other).stdin(nothing.join("stdin")).image().text("/other"),
            "F"
        );
        assert_eq!(kiln.build(&nothing).context(&url).ok().ran(), Vec::<String>::new());
    }
    // Nothing but what the store holds is left.
    assert_eq!(std::fs::read_dir(kiln.root().join("ingest")).unwrap().count(), 0);
}

#[test]
fn any_other_file_is_the_dockerfile() {
    let server = HttpServer::start();
    server.set("/d", Answer::new("FROM scratch\nCOPY context /c\n"));
    let image = Kiln::new().build(&Tree::new()).context(&server.url("/d")).args(["-f", "ignored"]).image();
    assert_eq!(image.text("/c"), "FROM scratch\nCOPY context /c\n");
    server.set("/bad", Answer::new("FROM scratch\nCOPY nope /c\n"));
    let failed = Kiln::new().build(&Tree::new()).context(&server.url("/bad")).fails();
    failed.says(&["\"/nope\": not found", &format!("{}:2", server.url("/bad"))]);
    let missing = server.url("/missing");
    Kiln::new().build(&Tree::new()).context(&missing).fails().says(&["invalid response status 404", &missing]);
    let (kiln, nothing) = (Kiln::new(), Tree::new());
    let both = kiln.build(&nothing).context("-").args(["-f", "d"]).stdin(PathBuf::from("/dev/null"));
    both.fails().says(&["ambiguous Dockerfile source"]);
}

#[test]
fn a_dockerfile_from_a_url() {
    let server = HttpServer::start();
    server.set("/d", Answer::new("FROM scratch\nCOPY . /\n"));
    server.set("/large", Answer::new(vec![b'#'; (2 << 20) + 1]));
    let context = Tree::new().file("f", "F").file("g", "G").file(".dockerignore", "g\n");
    let kiln = Kiln::new();
    let image = kiln.build(&context).args(["-f", &server.url("/d")]).image();
    assert_eq!((image.text("/f"), image.tree().contains_key("/g")), ("F".into(), false));
    kiln.build(&context).args(["-f", &server.url("/large")]).fails().says(&["/large", "2097152 bytes"]);
    kiln.build(&context).args(["-f", &server.url("/nope")]).fails().says(&["invalid response status 404"]);
}

#[test]
fn links_in_a_fetched_context_do_not_lead_out_of_it() {
    let kiln = Kiln::new();
    let secret = Tree::new().file("secret", "FROM scratch\nRUN the-secret\n");
    let mut tar = harness::bases::Tar::new();
    tar.symlink("Dockerfile", &secret.join("secret").to_string_lossy()).unwrap();
    tar.symlink("inside", "/d/real").unwrap();
    tar.folder("d", 0o755).unwrap();
    tar.file("d/real", 0o644, b"FROM scratch\nCOPY d/real /f\n").unwrap();
    secret.write("stdin", "");
    std::fs::write(secret.join("stdin"), tar.finish().unwrap()).unwrap();
    let build = || kiln.build(&secret).context("-").stdin(secret.join("stdin"));
    let failed = build().fails();
    failed.says(&["failed to read dockerfile"]);
    assert!(!failed.stderr.contains("the-secret"));
    assert_eq!(build().args(["-f", "inside"]).image().text("/f"), "FROM scratch\nCOPY d/real /f\n");
    assert_eq!(build().args(["-f", "../../d/real"]).image().text("/f"), "FROM scratch\nCOPY d/real /f\n");
}

#[test]
fn named_contexts() {
    let (git, http) = (GitServer::start(), HttpServer::start());
    let repo = git.repository("x");
    repo.write("d/g", "G");
    repo.commit("more");
    http.set("/a.tar", Answer::new(archive()));
    let arguments = [
        format!("--build-context=repo={}", git.url("x")),
        format!("--build-context=part={}#main:d", git.url("x")),
        format!("--build-context=file={}", http.url("/a.tar")),
        format!("--build-context=stage={}", git.url("x")),
        // Nobody asks for it.
        format!("--build-context=unused={}", http.url("/unused")),
    ];
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS stage\nRUN false\nFROM part AS on-git\nFROM file AS on-file\nFROM busybox\n\
         COPY --from=repo f /copied\nCOPY --from=part / /part/\nCOPY --from=file / /file/\n\
         COPY --from=stage /f /of-stage\nCOPY --from=on-git / /on-git/\nCOPY --from=on-file / /on-file/\n\
         RUN --mount=from=repo,target=/m cat /m/d/g > /mounted\n",
    );
    let build = || kiln.build(&context).args(&arguments);
    let image = build().image();
    let texts = ["/copied", "/part/g", "/of-stage", "/on-git/g", "/mounted"].map(|path| image.text(path));
    assert_eq!(texts, ["F", "G", "F", "G", "G"]);
    // As in BuildKit, a file that happens to be an archive stays one.
    for path in ["/file/context", "/on-file/context"] {
        let entry = image.tree().remove(path).unwrap();
        assert_eq!((entry.kind, entry.mode), (Kind::File(archive()), 0o600), "{path}");
    }
    assert!(http.requests().iter().all(|asked| asked.path == "/a.tar"));
    let finished = build().ok();
    assert_eq!(finished.ran(), Vec::<String>::new());
    let names =
        [format!("[internal] load git source {}", git.url("x")), format!("[context file] {}", http.url("/a.tar"))];
    let steps = finished.steps();
    assert!(names.iter().all(|name| steps.contains_key(name)), "{:?}", steps.keys());
    let bare = Tree::dockerfile("FROM repo\n");
    assert_eq!(kiln.build(&bare).args(&arguments).image().text("/d/g"), "G");
    kiln.build(&bare).args(["--build-context=repo=ftp://h/x"]).fails().says(&["failed to get build context repo"]);
}

#[test]
fn the_epoch_can_be_that_of_a_source() {
    let (git, http) = (GitServer::start(), HttpServer::start());
    let repo = git.repository("x");
    repo.write("Dockerfile", "FROM scratch\nCOPY f /\n");
    repo.commit("more");
    http.set("/dated", Answer::new("x").header("Last-Modified", DATE));
    http.set("/a.tar", Answer::new(archive()));
    http.set("/undated", Answer::new("x"));
    let stages = format!(
        "FROM scratch AS dated\nARG V=dated\nADD {0}/$V /\nFROM scratch AS tree\nADD {1} /\nFROM scratch AS two\n\
         ADD {0}/dated /\nRUN true\nFROM scratch\nCOPY --from=dated / /\n",
        http.url(""),
        git.url("x")
    );
    let here = Tree::dockerfile(&stages);
    let check = |context: &str, epoch: &str, expect: Option<&str>| {
        let named = [format!("--build-context=repo={}", git.url("x")), "--build-context=dir=.".to_string()];
        let kiln = Kiln::new();
        let build = kiln.build(&here).context(context).args([format!("--build-arg=SOURCE_DATE_EPOCH={epoch}")]);
        let created = build.args(named).image().config["created"].as_str().unwrap().to_string();
        match expect {
            Some(expect) => assert_eq!(created, expect, "{context} {epoch}"),
            None => assert!(created.as_str() > "2020", "{context} {epoch}: {created}"),
        }
    };
    check(&git.url("x"), "context", Some("2001-09-09T01:46:41Z"));
    check(&http.url("/a.tar"), "context", Some("2001-09-09T01:46:40Z"));
    check(".", "context", None);
    check(".", "dir", None);
    check(".", "repo", Some("2001-09-09T01:46:41Z"));
    check(".", "dated", Some("1994-11-06T08:49:37Z"));
    check(".", "Tree", Some("2001-09-09T01:46:41Z"));
    let failed = |epoch: &str| {
        Kiln::new()
            .build(&here)
            .args([format!("--build-arg=SOURCE_DATE_EPOCH={epoch}")])
            .output("oci", "/dev/null".as_ref())
            .fails()
    };
    failed("two").says(&["source-only requirements", "Dockerfile:8"]);
    failed("nowhere").says(&["invalid SOURCE_DATE_EPOCH: nowhere"]);
}

#[test]
fn fetching_a_context_can_be_interrupted() {
    let server = HttpServer::start();
    server.set("/c", Answer::new(vec![0; 100_000]).stalls());
    // A git server that says nothing.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let git = format!("git://{}/x", silent.local_addr().unwrap());
    for context in [server.url("/c"), git] {
        let kiln = Kiln::new();
        let child = kiln.build(&Tree::new()).context(&context).spawn();
        let asked = match context.starts_with("git") {
            true => Some(silent.accept().unwrap()),
            false => {
                server.wait();
                None
            }
        };
        let started = std::time::Instant::now();
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        assert_eq!(Finished::wait(child).status.code(), Some(130), "{context}");
        assert!(started.elapsed().as_secs() < 20, "{context}");
        drop(asked);
    }
}

#[test]
fn by_an_ordinary_user() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => harness::skip!("{reason}"),
    };
    let (git, http) = (GitServer::start(), HttpServer::start());
    let repo = git.repository("x");
    repo.write("Dockerfile", "FROM busybox\nCOPY f /f\nRUN cat /f > /g\n");
    repo.commit("more");
    http.set("/a.tar.gz", Answer::new(compressed("gzip", &archive())));
    assert_eq!(kiln.build(&Tree::new()).context(&git.url("x")).image().text("/g"), "F");
    check_archive(&kiln.build(&Tree::new()).context(&http.url("/a.tar.gz")).image(), "gzip");
}
