//! ADD of git repositories.

use harness::git_server::git;
use harness::{Answer, GitServer, HttpServer, Kiln, Kind, Repo, Tree, run};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// A context that adds a repository to /r.
fn add(source: &str) -> Tree {
    Tree::dockerfile(&format!("FROM scratch\nADD {source} /r/\n"))
}

/// Commits another text of the file `f`; gives the hash.
fn change(repo: &Repo, text: &str) -> String {
    repo.write("f", text);
    repo.commit(text)
}

#[test]
fn references_of_all_kinds() {
    let server = GitServer::start();
    let repo = server.repository("x");
    let first = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["tag", "light"]);
    change(&repo, "annotated");
    repo.git(&["tag", "--annotate", "--message=a", "heavy"]);
    let tag = repo.git(&["rev-parse", "heavy"]);
    change(&repo, "tag");
    repo.git(&["tag", "both"]);
    change(&repo, "branch");
    repo.git(&["branch", "both"]);
    repo.git(&["branch", "feature/x"]);
    repo.git(&["update-ref", "refs/pull/1/head", &first]);
    repo.write("d/e/g", "G");
    change(&repo, "main");
    let kiln = Kiln::new();
    let url = server.url("x");
    let check = |suffix: &str, path: &str, expect: &str| {
        assert_eq!(kiln.image(&add(&format!("{url}{suffix}"))).text(path), expect, "{suffix}");
    };
    check("", "/r/f", "main");
    check("#light", "/r/f", "F");
    check("#heavy", "/r/f", "annotated");
    check("#both", "/r/f", "branch");
    check("#refs/tags/both", "/r/f", "tag");
    check("?tag=both", "/r/f", "tag");
    check("?branch=both", "/r/f", "branch");
    check("#feature/x", "/r/f", "branch");
    check("#refs/pull/1/head", "/r/f", "F");
    check(&format!("#{first}"), "/r/f", "F");
    check(&format!("#{tag}"), "/r/f", "annotated");
    check("#main:d/e", "/r/g", "G");
    check("?ref=main&subdir=/d/../d/e/", "/r/g", "G");
    check("#:d", "/r/e/g", "G");
    assert!(!kiln.image(&add(&url)).tree().keys().any(|path| path.contains(".git")));
}

#[test]
fn what_is_not_there_is_told() {
    let server = GitServer::start();
    let repo = server.repository("x");
    let head = repo.git(&["rev-parse", "HEAD"]);
    let kiln = Kiln::new();
    let check = |source: String, parts: &[&str]| {
        kiln.build(&add(&source)).fails().says(&[parts, &["Dockerfile:2"]].concat());
    };
    let url = server.url("x");
    check(format!("{url}#nope"), &["repository does not contain ref nope", "help: "]);
    check(format!("{url}#{}", &head[..8]), &["repository does not contain ref", "whole hash"]);
    check(format!("{url}#{}", "1".repeat(40)), &["can not be found"]);
    check(format!("{url}#main:nope/d"), &["invalid subdir nope/d", "nope is not a directory"]);
    check(format!("{url}#main:f"), &["f is not a directory"]);
    check(server.url("nowhere"), &["failed to fetch remote", "nowhere", "check the URL"]);
    server.stop();
    check(url, &["failed to fetch remote", "Connection refused", "check the host's name"]);
}

#[test]
fn checksums() {
    let server = GitServer::start();
    let repo = server.repository("x");
    let commit = repo.git(&["rev-parse", "HEAD"]);
    repo.git(&["tag", "--annotate", "--message=a", "v1"]);
    let tag = repo.git(&["rev-parse", "v1"]);
    change(&repo, "main");
    let head = repo.git(&["rev-parse", "HEAD"]);
    let (kiln, url) = (Kiln::new(), server.url("x"));
    let check = |flag: &str, suffix: &str, expect: Result<&str, &str>| {
        let context = add(&format!("{flag} {url}{suffix}"));
        match expect {
            Ok(text) => assert_eq!(kiln.image(&context).text("/r/f"), text, "{flag} {suffix}"),
            Err(message) => {
                kiln.build(&context).fails().says(&[message]);
            }
        }
    };
    check(&format!("--checksum={head}"), "", Ok("main"));
    check(&format!("--checksum={}", &head[..7]), "#main", Ok("main"));
    check("", &format!("?commit={}&ref=main", &head[..12]), Ok("main"));
    check(&format!("--checksum={commit}"), "#v1", Ok("F"));
    check(&format!("--checksum={tag}"), "#v1", Ok("F"));
    let moved = format!("expected checksum to match {commit}, got {head}");
    check(&format!("--checksum={commit}"), "#main", Err(&moved));
    check("--checksum=123", &format!("#{commit}"), Err("expected checksum to match 123, got"));
    // The commit alone counts, though main is elsewhere.
    check("", &format!("?ref=main&commit={commit}&fetch-by-commit=true"), Ok("F"));
    check("", "?ref=main&commit=abc&fetch-by-commit=true", Err("fetch-by-commit requires a full commit"));
}

#[test]
fn modes_owners_and_links_are_the_same_everywhere() {
    let server = GitServer::start();
    let repo = server.repository("x");
    repo.write("bin/run", "#!/bin/sh\n");
    fs::set_permissions(repo.path().join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
    symlink("../f", repo.path().join("bin/link")).unwrap();
    // Of a link that leads out of it nothing is read.
    symlink("/etc/passwd", repo.path().join("out")).unwrap();
    repo.write(".gitattributes", "*.crlf text eol=crlf\n*.lfs filter=lfs\n");
    repo.write("a.crlf", "a\nb\n");
    repo.write("a.lfs", "pointer");
    repo.commit("more");
    let program = Kiln::new();
    let mut digests = vec![];
    for umask in ["022", "077"] {
        let kiln = Kiln::new();
        let out = kiln.out("image.tar");
        let context = add(&server.url("x"));
        let mut build = kiln.command("build");
        build.args(["--provenance=false", "--output"]).arg(format!("type=oci,dest={}", out.display()));
        build.arg(context.path());
        let command = format!("umask {umask} && exec \"$@\"");
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", &command, "sh"]).arg(build.get_program()).args(build.get_args());
        run(&mut shell);
        let tree = harness::Image::read(&out).unwrap().tree();
        let seen: Vec<_> = tree
            .iter()
            .filter(|(path, _)| path.starts_with("/r/"))
            .map(|(path, entry)| (path.clone(), entry.kind.clone(), entry.mode, entry.uid, entry.gid))
            .collect();
        digests.push(seen);
    }
    assert_eq!(digests[0], digests[1]);
    let tree = program.image(&add(&server.url("x"))).tree();
    let check = |path: &str, mode: u32, kind: Option<Kind>| {
        assert_eq!(tree[path].mode & 0o777, mode, "{path}");
        if let Some(kind) = kind {
            assert_eq!(tree[path].kind, kind, "{path}");
        }
    };
    let text = |text: &str| Some(Kind::File(text.as_bytes().to_vec()));
    check("/r/f", 0o644, text("F"));
    check("/r/bin", 0o755, Some(Kind::Folder));
    check("/r/bin/run", 0o755, None);
    check("/r/bin/link", 0o777, Some(Kind::Symlink("../f".into())));
    check("/r/out", 0o777, Some(Kind::Symlink("/etc/passwd".into())));
    check("/r/a.crlf", 0o644, text("a\r\nb\r\n"));
    check("/r/a.lfs", 0o644, text("pointer"));
    assert!(tree.iter().filter(|(path, _)| path.starts_with("/r")).all(|(_, entry)| (entry.uid, entry.gid) == (0, 0)));
}

#[test]
fn only_what_changed_runs_again() {
    let server = GitServer::start();
    let repo = server.repository("x");
    let (kiln, url) = (Kiln::new(), server.url("x"));
    let ran = |source: &str| kiln.build(&add(source)).ok().ran().len();
    assert_eq!((ran(&url), ran(&url)), (1, 0));
    repo.commit("nothing");
    assert_eq!(ran(&url), 0, "another commit of the same files is the same");
    repo.write("d/g", "G");
    repo.commit("more");
    assert_eq!((ran(&format!("{url}#:d")), ran(&url)), (1, 1));
    change(&repo, "other");
    assert_eq!(ran(&format!("{url}#:d")), 0, "what changed is not in it");
    let head = change(&repo, "last");
    assert_eq!(ran(&format!("{url}#{head}")), 1);
    server.connections();
    assert_eq!(ran(&format!("{url}#{head}")), 0);
    assert_eq!(server.connections(), 0, "a commit never changes");
    // Each fetch brings one commit, whatever came before it.
    let repositories: Vec<_> =
        fs::read_dir(kiln.root().join("git")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let [bare] = repositories.as_slice() else { panic!("{repositories:?}") };
    assert!(bare.join("shallow").is_file());
}

#[test]
fn the_git_folder_can_be_kept_and_used() {
    let server = GitServer::start();
    let repo = server.repository("x");
    change(&repo, "two");
    repo.git(&["tag", "--annotate", "--message=a", "v1"]);
    let head = repo.git(&["rev-parse", "HEAD"]);
    let kiln = Kiln::new();
    let check = |source: &str, name: &str| {
        let out = kiln.out(&format!("out-{}", name.replace('/', "-")));
        kiln.build(&add(source)).output("local", &out).ok();
        let folder = out.join("r");
        let git = |arguments: &[&str]| run(git(&folder).args(arguments)).trim_end().to_string();
        assert_eq!(git(&["rev-parse", "HEAD"]), head);
        assert_eq!(git(&["status", "--porcelain"]), "", "{source}");
        assert_eq!(git(&["rev-list", "--count", "HEAD"]), "1", "only one commit was fetched");
        assert_eq!(git(&["config", "remote.origin.url"]), server.url("x"));
        assert_eq!(git(&["rev-parse", &format!("{name}^{{commit}}")]), head, "{source}");
        git(&["fsck", "--strict"]);
        for file in ["FETCH_HEAD", "logs", "hooks"] {
            assert!(!folder.join(".git").join(file).exists(), "{file}");
        }
    };
    check(&format!("--keep-git-dir=true {}", server.url("x")), "refs/heads/main");
    check(&format!("--keep-git-dir {}#v1", server.url("x")), "refs/tags/v1");
    check(&format!("{}?keep-git-dir=true#{head}", server.url("x")), "HEAD");
    // As in BuildKit, a part of a repository has none.
    repo.write("d/g", "G");
    repo.commit("more");
    let image = kiln.image(&add(&format!("--keep-git-dir {}#main:d", server.url("x"))));
    assert_eq!((image.text("/r/g"), image.tree().contains_key("/r/.git")), ("G".into(), false));
}

#[test]
fn submodules() {
    let server = GitServer::start();
    let (inner, middle, outer) =
        (server.repository("inner"), server.repository("group/middle"), server.repository("outer"));
    inner.write("i", "I");
    inner.commit("i");
    middle.submodule("deep", &inner, "../../inner");
    outer.submodule("lib/middle", &middle, &server.url("group/middle"));
    // What the submodule has now does not matter, only what was committed.
    inner.write("i", "later");
    inner.commit("later");
    let kiln = Kiln::new();
    let image = kiln.image(&add(&server.url("outer")));
    assert_eq!((image.text("/r/lib/middle/f"), image.text("/r/lib/middle/deep/i")), ("F".into(), "I".into()));
    assert!(!image.tree().keys().any(|path| path.ends_with("/.git")));
    let without = kiln.image(&add(&format!("{}?submodules=false", server.url("outer"))));
    assert_eq!(without.tree()["/r/lib/middle"].kind, Kind::Folder);
    assert!(!without.tree().contains_key("/r/lib/middle/f"));

    let out = kiln.out("kept");
    kiln.build(&add(&format!("--keep-git-dir=true {}", server.url("outer")))).output("local", &out).ok();
    let git = |folder: &str, arguments: &[&str]| run(git(&out.join(folder)).args(arguments)).trim_end().to_string();
    assert_eq!(git("r", &["status", "--porcelain"]), "");
    assert_eq!(git("r/lib/middle/deep", &["rev-parse", "HEAD^{tree}"]), {
        let committed = middle.git(&["rev-parse", "HEAD:deep"]);
        inner.git(&["rev-parse", &format!("{committed}^{{tree}}")])
    });
    let status = git("r", &["submodule", "status", "--recursive"]);
    assert!(status.lines().count() == 2 && status.lines().all(|line| line.starts_with(' ')), "{status:?}");

    let lost = server.repository("lost");
    lost.submodule("sub", &inner, "file:///etc");
    let context = add(&server.url("lost"));
    kiln.build(&context).fails().says(&["failed to update submodule 'sub'", "file:///etc", "is not a git repository"]);
    fs::remove_file(lost.path().join(".gitmodules")).unwrap();
    lost.commit("without");
    kiln.build(&context).fails().says(&["No url found for submodule path 'sub'", "?submodules=false"]);
}

#[test]
fn nothing_of_this_machine_decides_what_git_does() {
    let server = GitServer::start();
    server.repository("x");
    let folder =
        Tree::new().file("hooks/post-checkout", "#!/bin/sh\ntouch \"$MARK\"\n").mode("hooks/post-checkout", 0o755);
    let mark = folder.join("mark");
    let hooks = folder.join("hooks");
    folder.write(
        ".gitconfig",
        &format!(
            "[core]\n\thooksPath = {0}\n\tfsmonitor = {0}/post-checkout\n\tsshCommand = {0}/post-checkout\n\
             [url \"file:///nowhere/\"]\n\tinsteadOf = git://\n[protocol]\n\tallow = never\n",
            hooks.display()
        ),
    );
    let kiln = Kiln::new();
    let build = |context: &Tree| {
        let build = kiln.build(context);
        let path = |path: &Path| path.to_string_lossy().into_owned();
        build
            .env("HOME", &path(folder.path()))
            .env("MARK", &path(&mark))
            .env("GIT_CONFIG_GLOBAL", &path(&folder.join(".gitconfig")))
            .env("GIT_DIR", "/nowhere")
            .env("GIT_SSH_COMMAND", &path(&hooks.join("post-checkout")))
            .env("GIT_EXTERNAL_DIFF", &path(&hooks.join("post-checkout")))
    };
    build(&add(&server.url("x"))).ok();
    let option = add(&format!("{}#--upload-pack=touch$IFS{}", server.url("x"), mark.display()));
    build(&option).fails().says(&["invalid git ref"]);
    build(&add("ssh://-oProxyCommand=touch/x.git")).fails().says(&["is not a git repository that kiln fetches from"]);
    assert!(!mark.exists());
    let without = kiln.build(&add(&server.url("x"))).env("PATH", "/nowhere").fails();
    without.says(&["failed to find git binary", "install the Debian package git"]);
}

#[test]
fn secrets_reach_the_server_and_nothing_else() {
    let files = GitServer::start();
    let repo = files.repository("x");
    repo.git(&["update-server-info"]);
    let server = HttpServer::start();
    // git's "dumb" protocol: plain files, and no fetching of a part.
    let header = "basic eC1hY2Nlc3MtdG9rZW46czNjcmV0LXRva2Vu";
    for entry in files_below(&repo.path().join(".git")) {
        let path = format!("/x.git/{}", entry.strip_prefix(repo.path().join(".git")).unwrap().display());
        server.set(&path, Answer::new(fs::read(&entry).unwrap()).needs(header));
    }
    let kiln = Kiln::new();
    let url = server.url("/x.git");
    kiln.build(&add(&url)).fails().says(&["could not read Username", "--secret id=GIT_AUTH_TOKEN"]);
    let context = add(&format!("--keep-git-dir=true {url}"));
    let build = |secret: &str, value: &str| {
        let argument = format!("--secret=id={secret},env=THE_SECRET");
        kiln.build(&context).args([argument]).env("THE_SECRET", value)
    };
    let finished = build("GIT_AUTH_TOKEN", "s3cret-token").ok();
    assert!(!finished.stderr.contains("s3cret") && !finished.stderr.contains(&header[6..]), "{}", finished.stderr);
    build(&format!("GIT_AUTH_HEADER.{}", server.host), header).ok();
    let refused = build("GIT_AUTH_TOKEN", "wr0ng").fails();
    assert!(!refused.stderr.contains("wr0ng"), "{}", refused.stderr);
    for file in files_below(&kiln.root()) {
        let bytes = fs::read(&file).unwrap();
        assert!(!contains(&bytes, b"s3cret") && !contains(&bytes, &header.as_bytes()[6..]), "{}", file.display());
    }
    // As a part of the URL it is no better kept than the Dockerfile, but kiln does not spread it.
    let inline = format!("http://x-access-token:s3cret-token@{}/x.git", server.host);
    let image = Kiln::new().image(&add(&format!("--keep-git-dir=true {inline}")));
    assert!(!image.text("/r/.git/config").contains("s3cret"));
}

fn files_below(folder: &Path) -> Vec<std::path::PathBuf> {
    let mut files = vec![];
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        match fs::symlink_metadata(&path).unwrap() {
            meta if meta.is_dir() => files.extend(files_below(&path)),
            meta if meta.is_file() => files.push(path),
            _ => {}
        }
    }
    files
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

#[test]
fn a_damaged_repository_is_begun_anew() {
    let server = GitServer::start();
    let repo = server.repository("x");
    let (kiln, context) = (Kiln::new(), add(&server.url("x")));
    kiln.build(&context).ok();
    let bare = fs::read_dir(kiln.root().join("git")).unwrap().next().unwrap().unwrap().path();
    let head = change(&repo, "two");
    // What a killed git leaves.
    fs::write(bare.join("shallow.lock"), "").unwrap();
    fs::write(bare.join("refs/kiln").join(format!("{head}.lock")), "").unwrap();
    assert_eq!(kiln.image(&context).text("/r/f"), "two");
    // What a bad disk leaves.
    for pack in files_below(&bare.join("objects/pack")) {
        fs::set_permissions(&pack, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&pack, "x").unwrap();
    }
    change(&repo, "three");
    assert_eq!(kiln.image(&context).text("/r/f"), "three");
    // Two at once share one repository.
    change(&repo, "four");
    let builds = [kiln.build(&context).spawn(), kiln.build(&context).spawn()];
    for build in builds {
        assert!(harness::Finished::wait(build).status.success());
    }
    assert_eq!(kiln.image(&context).text("/r/f"), "four");
}

#[test]
fn ssh_asks_the_agent_that_was_passed_on() {
    let server = GitServer::start();
    let repo = server.repository("x");
    // Stands in for ssh: notes what it got, and runs the command here.
    let tools = Tree::new().file(
        "ssh",
        "#!/bin/sh\n{ echo \"$@\"; echo \"agent $SSH_AUTH_SOCK\"; cat \"$2\"; } >> \"$(dirname \"$0\")/log\"\n\
         for command; do :; done\nexec sh -c \"$command\"\n",
    );
    let tools = tools.mode("ssh", 0o755).file("log", "").mode("log", 0o666);
    let path = format!("{}:{}", tools.path().display(), std::env::var("PATH").unwrap());
    let source = format!("git@example.org:{}", repo.path().display());
    let kiln = Kiln::new();
    let (scp, url) = (add(&source), add(&format!("ssh://git@example.org:2222{}", repo.path().display())));
    let build = |context| kiln.build(context).env("PATH", &path);
    build(&scp).fails().says(&["no SSH key \"default\" forwarded from the client", "--ssh default"]);
    let socket = tools.join("agent");
    let _agent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let agent = format!("--ssh=default={}", socket.display());
    build(&scp).args([&agent]).ok();
    build(&url).args([&agent]).ok();
    let log = tools.read("log");
    assert!(log.contains("git@example.org git-upload-pack") && log.contains("-p 2222"), "{log}");
    assert!(log.contains("StrictHostKeyChecking accept-new") && log.contains("BatchMode yes"), "{log}");
    let agents: Vec<_> = log.lines().filter(|line| line.starts_with("agent ")).collect();
    assert!(agents.iter().all(|line| line.len() > 6 && !line.ends_with(&*socket.to_string_lossy())), "{agents:?}");
}

#[test]
fn by_an_ordinary_user() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => harness::skip!("{reason}"),
    };
    let server = GitServer::start();
    let (repo, sub) = (server.repository("x"), server.repository("sub"));
    repo.submodule("sub", &sub, "../sub");
    let context = Tree::dockerfile(&format!(
        "FROM busybox\nADD {} /r\nRUN stat -c '%u:%g %a' /r/f /r/sub > /s\n",
        server.url("x")
    ));
    let image = kiln.image(&context);
    assert_eq!((image.text("/r/sub/f"), image.text("/s")), ("F".into(), "0:0 644\n0:0 755\n".into()));
    assert_eq!(kiln.build(&context).ok().ran(), Vec::<String>::new());
}
