//! The rules of reference 2.5 to 2.7, one table row each. Needs root, as owners and devices do; skipped otherwise.

mod archives;

use super::*;
use crate::source::dir::Meta;
use frontend::ignore::Ignore;
use frontend::op::Id;
use frontend::platform::Platform;
use rustix::fs::{CWD, FileType};
use std::fmt::Write as _;

/// Makes files as lines tell: `d a 755 1:2`, `f a/b 644 0:0 text`, `l a/c - 0:0 target`, `h a/d - - a/b` (hard link),
/// `p fifo 600 0:0`, `c null 666 0:0 1,3`, `s socket 755 0:0`. Mode and owner may be left out at the end.
pub fn make(root: &Path, lines: &str) {
    for line in lines.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let mut words = line.splitn(5, ' ');
        let mut next = |default| words.next().unwrap_or(default);
        let (kind, name, mode, owner, rest) = (next(""), next(""), next("-"), next("0:0"), next(""));
        let path = root.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let mut plain = 0o644;
        match kind {
            "d" => {
                plain = 0o755;
                std::fs::create_dir_all(&path).unwrap();
            }
            "f" => std::fs::write(&path, rest).unwrap(),
            "l" => std::os::unix::fs::symlink(rest, &path).unwrap(),
            "h" => std::fs::hard_link(root.join(rest), &path).unwrap(),
            "p" => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::RWXU, 0).unwrap(),
            "s" => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            "c" => {
                let (major, minor) = rest.split_once(',').unwrap();
                let device = rustix::fs::makedev(major.parse().unwrap(), minor.parse().unwrap());
                rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::RWXU, device).unwrap();
            }
            other => panic!("{other}"),
        }
        if matches!(kind, "h") {
            continue;
        }
        let (uid, gid) = owner.split_once(':').unwrap();
        std::os::unix::fs::lchown(&path, Some(uid.parse().unwrap()), Some(gid.parse().unwrap())).unwrap();
        if kind != "l" {
            let mode = u32::from_str_radix(mode, 8).unwrap_or(plain);
            rustix::fs::chmod(&path, Mode::from_raw_mode(mode)).unwrap();
        }
    }
}

/// The tree in the form that `make` reads, sorted, with everything spelt out.
fn show(root: &Path) -> String {
    fn walk(fd: &std::os::fd::OwnedFd, dir: &[u8], inodes: &mut Vec<(u64, String)>, out: &mut String) {
        use std::os::fd::AsFd;
        for entry in dir::list(fd.as_fd(), dir).unwrap() {
            let path = dir::join(dir, &entry.name);
            let name = dir::text(&path);
            let Meta { mode, uid, gid, .. } = entry.meta;
            let known = inodes.iter().find(|(inode, _)| *inode == entry.meta.ino);
            match entry.meta.kind {
                FileType::Directory => {
                    writeln!(out, "d {name} {mode:o} {uid}:{gid}").unwrap();
                    walk(fd, &path, inodes, out);
                }
                FileType::Symlink => {
                    let target = tree::read_link(fd.as_fd(), &path).unwrap();
                    writeln!(out, "l {name} - {uid}:{gid} {}", dir::text(&target)).unwrap();
                }
                FileType::RegularFile if known.is_some() => {
                    writeln!(out, "h {name} - - {}", known.unwrap().1).unwrap();
                }
                FileType::RegularFile => {
                    inodes.push((entry.meta.ino, name.clone()));
                    let opened = dir::open(fd.as_fd(), &path, OFlags::RDONLY).unwrap();
                    let text = std::io::read_to_string(File::from(opened)).unwrap();
                    writeln!(out, "f {name} {mode:o} {uid}:{gid} {text}").unwrap();
                }
                FileType::Fifo => writeln!(out, "p {name} {mode:o} {uid}:{gid}").unwrap(),
                FileType::Socket => writeln!(out, "s {name} {mode:o} {uid}:{gid}").unwrap(),
                _ => {
                    let (major, minor) = (rustix::fs::major(entry.meta.rdev), rustix::fs::minor(entry.meta.rdev));
                    writeln!(out, "c {name} {mode:o} {uid}:{gid} {major},{minor}").unwrap();
                }
            }
        }
    }
    let fd = rustix::fs::open(root, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).unwrap();
    let mut out = String::new();
    walk(&fd, b"", &mut Vec::new(), &mut out);
    out
}

pub fn plain(source: &str, dest: &str) -> Copy {
    Copy {
        from: Some(0),
        source: source.to_string(),
        dest: dest.to_string(),
        owner: None,
        chmod: None,
        exclude: Vec::new(),
        parents: false,
        unpack: false,
        from_client: true,
        link: false,
        source_label: "the build context".into(),
    }
}

pub fn operation(copies: &[Copy]) -> FileOp {
    FileOp {
        base: Some(1),
        actions: copies.iter().map(|copy| FileAction::Copy(Box::new(copy.clone()))).collect(),
        platform: Platform::from_parts("linux", "amd64", "", "").into(),
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Copies from a context made of `context` (or, if the copy is not from the client, from a layer) over a base.
fn copied(context: &str, base: &str, copies: &[Copy]) -> Result<String, FileError> {
    let temp = tempfile::tempdir().unwrap();
    let (source, lower, upper) = (temp.path().join("source"), temp.path().join("lower"), temp.path().join("upper"));
    for path in [&source, &lower, &upper] {
        std::fs::create_dir(path).unwrap();
    }
    make(&source, context);
    make(&lower, base);
    let tree = match copies[0].from_client {
        true => SourceTree::Client(Arc::new(ContextDir::open(&source, Ignore::default()).unwrap())),
        false => SourceTree::Layers(vec![source]),
    };
    apply(&operation(copies), &[lower], &[tree], &upper, None)?;
    Ok(show(&upper))
}

#[track_caller]
fn check(context: &str, base: &str, copies: &[Copy], expect: &str) {
    if !is_root() {
        return;
    }
    let trim = |text: &str| text.lines().map(|l| l.trim().to_string() + "\n").filter(|l| l != "\n").collect::<String>();
    assert_eq!(trim(&copied(context, base, copies).unwrap()), trim(expect));
}

#[track_caller]
fn check_error(context: &str, base: &str, copies: &[Copy], expect: &str) {
    if !is_root() {
        return;
    }
    assert_eq!(copied(context, base, copies).unwrap_err().to_string(), expect);
}

#[test]
fn files_and_destinations() {
    check("f a 640 7:8 x", "", &[plain("a", "/b")], "f b 640 0:0 x");
    check("f a 640 7:8 x", "", &[plain("/a", "/d/")], "d d 755 0:0\nf d/a 640 0:0 x");
    check("f a 640 7:8 x", "", &[plain("../a", "/p/q/r")], "d p 755 0:0\nd p/q 755 0:0\nf p/q/r 640 0:0 x");
    check("f a 4755 0:0 x", "d d 711 5:6", &[plain("a", "/d")], "d d 711 5:6\nf d/a 4755 0:0 x");
    check("f a 644 0:0 x", "f b 600 1:1 old", &[plain("a", "/b")], "f b 644 0:0 x");
    check("f a 644 0:0 x", "l b - 0:0 c", &[plain("a", "/b")], "f c 644 0:0 x");
    check("f a 644 0:0 x", "l b - 0:0 /d\nd d 700 1:1", &[plain("a", "/b")], "d d 700 1:1\nf d/a 644 0:0 x");
    check("f a 644 0:0 x", "l b - 0:0 ../../d\nd d", &[plain("a", "/b/c")], "d d 755 0:0\nf d/c 644 0:0 x");
    check_error("f a", "l b - 0:0 c\nl c - 0:0 b", &[plain("a", "/b")], "too many symbolic links in `/b`");
    check_error("f a", "f b", &[plain("a", "/b/c")], "cannot copy to non-directory: /b");
    check_error("f a", "d b/a", &[plain("a", "/b")], "cannot replace to directory /b/a with file");
    check("f a 644 0:0 1\nf b 644 0:0 2", "", &[plain("a", "/n"), plain("b", "/n")], "f n 644 0:0 2");
}

#[test]
fn directories() {
    check(
        "d s 700 9:9\nf s/x 600 9:9 x\nd s/e 2770",
        "",
        &[plain("s", "/n")],
        "d n 755 0:0\nd n/e 2770 0:0\nf n/x 600 0:0 x",
    );
    check(
        "d s 750\nd s/sub 705\nf s/sub/n 644 0:0 n\nf s/f 664 0:0 new",
        "d d 700 1:4\nd d/sub 711 1:4\nf d/f 600 1:4 old\nf d/keep 600 1:1 k",
        &[plain("s/", "/d")],
        "d d 700 1:4\nf d/f 664 0:0 new\nd d/sub 705 0:0\nf d/sub/n 644 0:0 n",
    );
    check("d s", "", &[plain("s", "/e/f")], "d e 755 0:0\nd e/f 755 0:0");
    check("f .x 644 0:0 h\nf d/y 644 0:0 y", "", &[plain(".", "/")], "f .x 644 0:0 h\nd d 755 0:0\nf d/y 644 0:0 y");
    check_error("d s", "f d", &[plain("s", "/d")], "cannot copy to non-directory: /d");
    check_error("d s/x", "f d/x", &[plain("s", "/d")], "cannot copy to non-directory: /d/x");
    check_error("d s/x", "l d/x - 0:0 y\nd d/y", &[plain("s", "/d")], "cannot copy to non-directory: /d/x");
    check_error("f s/x", "d d/x", &[plain("s", "/d")], "cannot replace to directory /d/x with file");
    check("f a/f 644 0:0 1\nf b/f 644 0:0 2", "", &[plain("?", "/d")], "d d 755 0:0\nf d/f 644 0:0 2");
}

#[test]
fn links() {
    let context =
        "f t 644 0:0 x\nl file - 0:0 t\nl root - 0:0 /t\nd r\nf r/i 644 0:0 i\nl dir - 0:0 r\nl up - 0:0 ../../t";
    check(
        context,
        "",
        &[plain("file", "/a"), plain("root", "/b"), plain("up", "/c")],
        "f a 644 0:0 x\nf b 644 0:0 x\nf c 644 0:0 x",
    );
    check(context, "", &[plain("dir", "/a"), plain("dir/i", "/b")], "d a 755 0:0\nf a/i 644 0:0 i\nf b 644 0:0 i");
    check(context, "", &[plain("fil*", "/a/")], "d a 755 0:0\nf a/file 644 0:0 x");
    check("l s/l - 3:4 /nowhere", "f d/l", &[plain("s", "/d")], "d d 755 0:0\nl d/l - 0:0 /nowhere");
    check("f s/l 644 0:0 x", "l d/l - 0:0 /nowhere", &[plain("s", "/d")], "d d 755 0:0\nf d/l 644 0:0 x");
    check_error("l a - 0:0 b\nl b - 0:0 a", "", &[plain("a", "/x")], "too many symbolic links in `a`");
    check(
        "f h/one 644 0:0 x\nh h/two - - h/one\nh h/s/three - - h/one",
        "",
        &[plain("h", "/h")],
        "d h 755 0:0\nf h/one 644 0:0 x\nd h/s 755 0:0\nh h/s/three - - h/one\nh h/two - - h/one",
    );
}

#[test]
fn special_files() {
    let files = "p n/pipe 622 1:2\nc n/null 640 3:4 1,3\ns n/sock 755 5:6";
    check(files, "", &[plain("n", "/n")], "d n 755 0:0\nc n/null 640 0:0 1,3\np n/pipe 622 0:0\nf n/sock 755 0:0 ");
    let stage = Copy { from_client: false, ..plain("n", "/n") };
    check(files, "", &[stage], "d n 755 0:0\nc n/null 640 3:4 1,3\np n/pipe 622 1:2\ns n/sock 755 5:6");
}

#[test]
fn owners() {
    let base = "f etc/passwd 644 0:0 root:x:0:0::/:/bin/sh\nf etc/group 644 0:0 adm:x:4:";
    let named = |user: Id, group: Option<Id>| Copy { owner: Some(Owner { user, group }), ..plain("f", "/n/f") };
    let name = |name: &str| Id::Name(name.to_string());
    let expect = |ids: &str| format!("d n 755 {ids}\nf n/f 644 {ids} x");
    check("f f 644 7:7 x", base, &[named(Id::Number(55), None)], &expect("55:55"));
    check("f f 644 7:7 x", base, &[named(Id::Number(5), Some(Id::Number(6)))], &expect("5:6"));
    check("f f 644 7:7 x", base, &[named(Id::Number(1), Some(name("adm")))], &expect("1:4"));
    check("f f 644 7:7 x", base, &[named(name("ghost"), None)], &expect("0:0"));
    check("f f 644 7:7 x", base, &[named(Id::Number(77), Some(name("ghosts")))], &expect("77:77"));
    check("f f 644 7:7 x", "f etc/passwd 644 0:0 bob:x:11:22:::", &[named(name("bob"), None)], &expect("11:22"));
    check("f f 644 7:8 x", "", &[Copy { from_client: false, ..plain("f", "/f") }], "f f 644 7:8 x");
    let link = Copy { link: true, ..named(name("bob"), None) };
    check_error(
        "f f",
        "",
        &[link],
        "invalid user index: -1: `--chown` names \"bob\", but `--link` copies without the stage's /etc/passwd and /etc/group",
    );
}

#[test]
fn modes() {
    let with = |source: &str, dest: &str, chmod| Copy { chmod: Some(chmod), ..plain(source, dest) };
    let tree = "d t 700\nf t/a 640 0:0 a\nd t/s 700\nl t/l - 0:0 a";
    check(
        tree,
        "",
        &[with("t", "/n", Chmod::Octal(0o1750))],
        "d n 750 0:0\nf n/a 1750 0:0 a\nl n/l - 0:0 a\nd n/s 1750 0:0",
    );
    let symbolic = Chmod::Symbolic("u=rwX,go=rX".to_string());
    check(tree, "", &[with("t", "/n", symbolic)], "d n 755 0:0\nf n/a 644 0:0 a\nl n/l - 0:0 a\nd n/s 755 0:0");
    check(
        "f f 644 0:0 x",
        "",
        &[with("f", "/m/n/f", Chmod::Octal(0o700))],
        "d m 700 0:0\nd m/n 700 0:0\nf m/n/f 700 0:0 x",
    );
}

#[test]
fn wildcards() {
    let files = "f a.txt 644 0:0 a\nf .h.txt 644 0:0 h\nf b.md 644 0:0 b\nf s/x/leaf 644 0:0 l";
    check(files, "", &[plain("*.txt", "/d/")], "d d 755 0:0\nf d/.h.txt 644 0:0 h\nf d/a.txt 644 0:0 a");
    check(files, "", &[plain("s/*/leaf", "/d/")], "d d 755 0:0\nf d/leaf 644 0:0 l");
    check(files, "", &[plain("**/leaf", "/d/")], "");
    check(files, "", &[plain("[^a].md", "/d/")], "d d 755 0:0\nf d/b.md 644 0:0 b");
    check(files, "", &[plain("none*", "/d/")], "");
    check_error(
        files,
        "",
        &[plain("gone/*", "/d/")],
        "failed to compute cache key: failed to calculate checksum of the build context: \"/gone\": not found",
    );
    check("f q\\? 644 0:0 x", "", &[plain("q\\\\[?]", "/d")], "f d 644 0:0 x");
}

#[test]
fn excludes() {
    let with = |source: &str, exclude: &[&str]| Copy {
        exclude: exclude.iter().map(|pattern| pattern.to_string()).collect(),
        ..plain(source, "/d/")
    };
    let files = "f s/a.log 644 0:0 l\nf s/k/b.log 644 0:0 k\nf s/k/c 644 0:0 c\nf f.log 644 0:0 f";
    check(files, "", &[with("s", &["*.log"])], "d d 755 0:0\nd d/k 755 0:0\nf d/k/b.log 644 0:0 k\nf d/k/c 644 0:0 c");
    check(files, "", &[with("s", &["**/*.log"])], "d d 755 0:0\nd d/k 755 0:0\nf d/k/c 644 0:0 c");
    check(
        files,
        "",
        &[with("s", &["s/k"])],
        "d d 755 0:0\nf d/a.log 644 0:0 l\nd d/k 755 0:0\nf d/k/b.log 644 0:0 k\nf d/k/c 644 0:0 c",
    );
    check(files, "", &[with("s", &["**", "!k/c"])], "d d 755 0:0\nd d/k 755 0:0\nf d/k/c 644 0:0 c");
    check(files, "", &[with("s", &["k/**"])], "d d 755 0:0\nf d/a.log 644 0:0 l\nd d/k 755 0:0");
    check(files, "", &[with("*.log", &["*.log"])], "d d 755 0:0\nf d/f.log 644 0:0 f");
}

#[test]
fn parents() {
    let with = |source: &str| Copy { parents: true, ..plain(source, "/p/") };
    let files = "d a 711\nd a/b 700\nf a/b/1.txt 600 0:0 1\nf a/c/2.txt 644 0:0 2\nf t 644 0:0 t";
    let one = "d p 755 0:0\nd p/a 711 0:0\nd p/a/b 700 0:0\nf p/a/b/1.txt 600 0:0 1";
    check(files, "", &[with("a/b/1.txt")], one);
    check(files, "", &[with("a/b")], one);
    check(files, "", &[with("**/1.txt")], one);
    check(files, "", &[with("a/./b/1.txt")], "d p 755 0:0\nd p/b 700 0:0\nf p/b/1.txt 600 0:0 1");
    check(files, "", &[with("./a/./b/*.txt")], "d p 755 0:0\nd p/b 700 0:0\nf p/b/1.txt 600 0:0 1");
    check(files, "", &[with("a/*/*.txt")], &format!("{one}\nd p/a/c 755 0:0\nf p/a/c/2.txt 644 0:0 2"));
    check(files, "", &[with("x*/y")], "d p 755 0:0");
    check(files, "", &[with("t")], "d p 755 0:0\nf p/t 644 0:0 t");
    // Links are neither followed nor gone through, but before the pivot by a wildcard.
    let linked = "d a\nf a/x/1 644 0:0 1\nl l - 0:0 a\nl a/m - 0:0 x\nf t 644 0:0 t";
    check(linked, "", &[with("a/m")], "d p 755 0:0\nd p/a 755 0:0\nl p/a/m - 0:0 x");
    check(linked, "", &[with("**/1")], "d p 755 0:0\nd p/a 755 0:0\nd p/a/x 755 0:0\nf p/a/x/1 644 0:0 1");
    check(linked, "", &[with("l/./x/*")], "d p 755 0:0\nd p/x 755 0:0\nf p/x/1 644 0:0 1");
    check(linked, "", &[with("*/./x")], "d p 755 0:0\nd p/x 755 0:0\nf p/x/1 644 0:0 1");
    let not_found = |source: &str, path: &str| {
        let message = "failed to compute cache key: failed to calculate checksum of the build context";
        check_error(linked, "", &[with(source)], &format!("{message}: \"{path}\": not found"));
    };
    not_found("l/x/1", "/l/x/1");
    not_found("l/./x", "/l/x");
    not_found("t/./x", "/t/x");
    not_found(".", "/");
    not_found("a/./", "/a");
    // A directory that is there gets the mode of the source's, and keeps its owner.
    let flags = Copy {
        chmod: Some(Chmod::Octal(0o640)),
        owner: Some(Owner { user: Id::Number(5), group: None }),
        ..with("a/b/1.txt")
    };
    let kept = "d p 755 0:0\nd p/a 711 7:8\nd p/a/b 640 5:5\nf p/a/b/1.txt 640 5:5 1";
    check(files, "d p 755 0:0\nd p/a 700 7:8", &[flags], kept);
    let excluded = Copy { exclude: vec!["a/b".to_string()], ..with("a/b") };
    let message = "failed to compute cache key: failed to calculate checksum of the build context: \"/a/b\": not found";
    check_error(files, "", &[excluded], message);
    let excluding = Copy { exclude: vec!["**/b".to_string()], ..with("a") };
    check(files, "", &[excluding], "d p 755 0:0\nd p/a 711 0:0\nd p/a/c 755 0:0\nf p/a/c/2.txt 644 0:0 2");
    check_error(
        files,
        "",
        &[with("a/x")],
        "failed to compute cache key: failed to calculate checksum of the build context: \"/a/x\": not found",
    );
}

#[test]
fn link_follows_nothing() {
    // The frontend gives such a step no base; here even one that is there is not asked for links.
    let linked = Copy { link: true, ..plain("f", "/alias/f") };
    check("f f 644 0:0 x", "", &[linked], "d alias 755 0:0\nf alias/f 644 0:0 x");
}

#[test]
fn times_are_kept() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (source, upper) = (temp.path().join("source"), temp.path().join("upper"));
    std::fs::create_dir(&upper).unwrap();
    make(&source, "f s/d/f");
    for path in ["s/d/f", "s/d", "s"] {
        rustix::fs::utimensat(CWD, source.join(path), &dest::times((1_000_000, 5)), rustix::fs::AtFlags::empty())
            .unwrap();
    }
    let tree = SourceTree::Client(Arc::new(ContextDir::open(&source, Ignore::default()).unwrap()));
    apply(&operation(&[plain("s", "/n")]), &[], &[tree], &upper, None).unwrap();
    for path in ["n", "n/d", "n/d/f"] {
        let meta = Meta::of(&rustix::fs::stat(upper.join(path)).unwrap());
        assert_eq!(meta.mtime, (1_000_000, 5), "{path}");
    }
}

#[test]
fn two_layers_are_one_base() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let at = |name: &str| temp.path().join(name);
    make(&at("low"), "d app 700 1:1\nd app/data 711 2:2\nl link - 0:0 /app");
    make(&at("high"), "d app 750 3:3\nc app/data - 0:0 0,0");
    make(&at("source"), "f f 644 0:0 x");
    std::fs::create_dir(at("upper")).unwrap();
    let tree = SourceTree::Layers(vec![at("source")]);
    let copy = Copy { from_client: false, ..plain("f", "/link/data/f") };
    match apply(&operation(&[copy]), &[at("low"), at("high")], &[tree], &at("upper"), None) {
        // Containers may not mount.
        Err(FileError::View { .. }) => return,
        other => other.unwrap(),
    }
    assert_eq!(show(&at("upper")), "d app 750 3:3\nd app/data 755 0:0\nf app/data/f 644 0:0 x\n");
}

#[test]
fn workdirs_and_heredocs() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make(&temp.path().join("base"), "d a 700 1:1\nl l - 0:0 a");
    let upper = temp.path().join("upper");
    std::fs::create_dir(&upper).unwrap();
    let owner = Some(Owner { user: Id::Number(7), group: None });
    let file = |dest: &str, chmod| FileAction::MkFile {
        name: "EOF".into(),
        dest: dest.into(),
        mode: 0o644,
        data: "text".into(),
        owner: None,
        chmod,
    };
    let actions = vec![
        FileAction::MkDir { path: "/l/b/c".into(), mode: 0o755, owner, epoch: Some(77) },
        file("/a/b/", None),
        file("/a/x", Some(Chmod::Octal(0o500))),
    ];
    let op = FileOp { actions, ..operation(&[]) };
    apply(&op, &[temp.path().join("base")], &[], &upper, None).unwrap();
    assert_eq!(
        show(&upper),
        "d a 700 1:1\nd a/b 755 7:7\nf a/b/EOF 644 0:0 text\nd a/b/c 755 7:7\nf a/x 500 0:0 text\n"
    );
    assert_eq!(Meta::of(&rustix::fs::stat(upper.join("a/b/c")).unwrap()).mtime, (77, 0));
}

#[test]
fn ignored_files_are_not_there() {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    make(&temp.path().join("source"), "f a 644 0:0 a\nf n/x 644 0:0 x\nf n/k/y 644 0:0 y\nd n/e\nf b.log");
    let ignore = Ignore::parse("n\n!n/k\n*.log\n").unwrap();
    let context = Arc::new(ContextDir::open(&temp.path().join("source"), ignore).unwrap());
    let run = |source: &str, name: &str| {
        let upper = temp.path().join(name);
        std::fs::create_dir(&upper).unwrap();
        let tree = SourceTree::Client(context.clone());
        apply(&operation(&[plain(source, "/d/")]), &[], &[tree], &upper, None).map(|()| show(&upper))
    };
    assert_eq!(
        run(".", "1").unwrap(),
        "d d 755 0:0\nf d/a 644 0:0 a\nd d/n 755 0:0\nd d/n/k 755 0:0\nf d/n/k/y 644 0:0 y\n"
    );
    let error = run("b.log", "2").unwrap_err();
    assert_eq!(
        error.help(),
        ["`b.log` exists, but .dockerignore line 3 (`*.log`) excludes it: remove that line, or add `!b.log` below it"]
    );
    let error = run("../A", "3").unwrap_err();
    assert_eq!(error.help().len(), 1, "{:?}", error.help());
    let FileError::NotFound { missing } = error else { panic!("{error} is about something else") };
    assert_eq!(missing.near, ["a"]);
}
