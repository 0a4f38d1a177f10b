//! What ADD makes of archives, and of what only looks like one.

use super::*;

/// A tar of members: name, type, link target or data, mode.
fn tar_of(members: &[(&str, tar::EntryType, &str, u32)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, kind, text, mode) in members {
        let mut header = tar::Header::new_gnu();
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(*mode);
        header.set_uid(7);
        header.set_gid(8);
        header.set_mtime(1000);
        let mut data = "";
        if matches!(kind, tar::EntryType::Symlink | tar::EntryType::Link) {
            header.set_link_name_literal(text).unwrap();
        } else {
            data = text;
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        builder.append(&header, data.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

#[track_caller]
fn check_archive(bytes: &[u8], base: &str, owner: Option<Owner>, expect: &str) {
    if !is_root() {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let (source, lower, upper) = (temp.path().join("source"), temp.path().join("lower"), temp.path().join("upper"));
    for path in [&source, &lower, &upper] {
        std::fs::create_dir(path).unwrap();
    }
    std::fs::write(source.join("a.tar"), bytes).unwrap();
    make(&lower, base);
    let tree = SourceTree::Client(Arc::new(ContextDir::open(&source, Ignore::default()).unwrap()));
    let copy = Copy { unpack: true, owner, chmod: Some(Chmod::Octal(0o700)), ..plain("a.tar", "/d") };
    apply(&operation(&[copy]), &[lower], &[tree], &upper, None).unwrap();
    assert_eq!(show(&upper), expect);
}

#[test]
fn archives() {
    use tar::EntryType::{Directory, Link, Regular, Symlink};
    let simple = tar_of(&[("./", Directory, "", 0o700), ("./f", Regular, "x", 0o640)]);
    let expect = "d d 755 0:0\nf d/f 640 7:8 x\n";
    check_archive(&simple, "", None, expect);
    let owner = Owner { user: Id::Number(5), group: Some(Id::Number(6)) };
    check_archive(&simple, "", Some(owner), "d d 755 5:6\nf d/f 640 5:6 x\n");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&simple).unwrap();
    check_archive(&gzip.finish().unwrap(), "", None, expect);
    check_archive(&zstd::encode_all(simple.as_slice(), 1).unwrap(), "", None, expect);
    let mut bzip2 = bzip2::write::BzEncoder::new(Vec::new(), bzip2::Compression::fast());
    bzip2.write_all(&simple).unwrap();
    check_archive(&bzip2.finish().unwrap(), "", None, expect);
    // By xz(1), as the decoder brings no encoder.
    let xz = b"\xfd\x37\x7a\x58\x5a\x00\x00\x04\xe6\xd6\xb4\x46\x02\x00\x21\x01\x1c\x00\x00\x00\x10\xcf\x58\xcc\xe0\
        \x27\xff\x00\x66\x5d\x00\x17\x0b\xbc\x1c\x7d\x01\x95\xc0\x29\x14\xe0\xc6\xb4\x92\xdb\x7e\xda\xf1\x23\
        \xb5\xee\x53\x88\x3a\x47\x1e\x76\x52\x34\xdf\xad\x3f\xa6\xaf\x49\xa9\x2a\x97\x1e\x48\x08\x8e\xd2\xb2\
        \x73\x6f\x12\x26\x2c\x50\x4b\x6a\xbf\xcc\x26\xab\xaf\x59\x74\x8d\x09\x7c\x83\xec\xbc\x79\xbb\x9c\x98\
        \x7b\xf9\x0b\xdf\x0e\x40\xd9\x17\x3f\x55\x0f\x70\x13\xf8\x8f\x7c\x6c\xa8\x31\x04\xa1\xf8\x88\x6a\x62\
        \x1a\x29\xf2\x2c\x1a\x54\x1e\x00\x00\x00\x00\xb5\xbe\x40\xdc\x3c\x2d\x64\x87\x00\x01\x82\x01\x80\x50\
        \x00\x00\x35\xd0\xa8\x2c\xb1\xc4\x67\xfb\x02\x00\x00\x00\x00\x04\x59\x5a";
    check_archive(xz, "", None, expect);

    let escaping = tar_of(&[
        ("/abs", Regular, "a", 0o644),
        ("../../up", Regular, "u", 0o644),
        ("out", Symlink, "/../..", 0o777),
        ("out/x", Regular, "x", 0o644),
        ("root", Symlink, "/s", 0o777),
        ("s", Directory, "", 0o750),
        ("root/y", Regular, "y", 0o600),
        ("hard", Link, "/s/y", 0o644),
        ("..", Directory, "", 0o711),
    ]);
    let expect = "d d 711 7:8\nf d/abs 644 7:8 a\nf d/hard 644 7:8 y\nl d/out - 7:8 /../..\nl d/root - 7:8 /s\nd d/s 750 7:8\nh d/s/y - - d/hard\nf d/up 644 7:8 u\nf d/x 644 7:8 x\n";
    check_archive(&escaping, "", None, expect);

    let twice = tar_of(&[
        ("a", Regular, "1", 0o644),
        ("a", Regular, "2", 0o600),
        ("i/n", Regular, "n", 0o644),
        ("t", Directory, "", 0o755),
        ("t", Regular, "f", 0o644),
        ("b", Regular, "f", 0o644),
        ("b", Directory, "", 0o700),
    ]);
    let expect = "d d 755 0:0\nf d/a 600 7:8 2\nd d/b 700 7:8\nd d/i 755 0:0\nf d/i/n 644 7:8 n\nf d/t 644 7:8 f\n";
    check_archive(&twice, "", None, expect);
    // A hard link to a file of the base copies it up; what the base has stays below.
    let over =
        tar_of(&[("old/new", Regular, "n", 0o644), ("hard", Link, "old/f", 0o644), ("l/z", Regular, "z", 0o644)]);
    let expect = "d d 700 1:1\nf d/hard 644 7:8 o\nd d/old 711 3:3\nh d/old/f - - d/hard\nf d/old/new 644 7:8 n\nf d/old/z 644 7:8 z\n";
    check_archive(&over, "d d 700 1:1\nd d/old 711 3:3\nf d/old/f 640 2:2 o\nl d/l - 0:0 /old", None, expect);

    // What a member's name implies belongs to root, whatever --chown says.
    let owner = Owner { user: Id::Number(5), group: Some(Id::Number(6)) };
    let implied = tar_of(&[("i/f", Regular, "x", 0o644)]);
    check_archive(&implied, "", Some(owner), "d d 755 5:6\nd d/i 755 0:0\nf d/i/f 644 5:6 x\n");

    check_archive(b"no tar", "", None, "f d 700 0:0 no tar\n");
    check_archive(&[0; 10240], "", None, &format!("f d 700 0:0 {}\n", "\0".repeat(10240)));
}

#[test]
fn archives_that_cannot_be_unpacked() {
    use tar::EntryType::{self, Link, Regular, Symlink};
    if !is_root() {
        return;
    }
    let check = |members: &[(&str, EntryType, &str, u32)], expect: &str| {
        let temp = tempfile::tempdir().unwrap();
        let (source, upper) = (temp.path().join("source"), temp.path().join("upper"));
        std::fs::create_dir(&upper).unwrap();
        std::fs::create_dir(&source).unwrap();
        std::fs::write(source.join("a.tar"), tar_of(members)).unwrap();
        let tree = SourceTree::Client(Arc::new(ContextDir::open(&source, Ignore::default()).unwrap()));
        let copy = Copy { unpack: true, ..plain("a.tar", "/d/") };
        let error = apply(&operation(&[copy]), &[], &[tree], &upper, None).unwrap_err();
        let causes = std::iter::successors(Some(&error as &dyn std::error::Error), |error| error.source());
        let text: Vec<String> = causes.map(|error| error.to_string()).collect();
        assert!(text.join(": ").contains(expect), "{text:?} has no {expect:?}");
    };
    check(
        &[("l", Symlink, "/gone", 0o777), ("l/x", Regular, "x", 0o644)],
        "cannot create files in `/d/l`: No such file",
    );
    check(
        &[("f", Regular, "x", 0o644), ("f/x", Regular, "x", 0o644)],
        "cannot create files in `/d/f`: Not a directory",
    );
    check(&[("f", Regular, "x", 0o644), ("f", Link, "f", 0o644)], "f");
    check(&[("h", Link, "gone", 0o644)], "gone");
    check(&[("v", EntryType::new(b'V'), "", 0o644)], "unhandled tar header type 86 of `v`");
}

#[test]
fn opaque_directories_hide_the_base() {
    use tar::EntryType::{Directory, Regular};
    let swapped = tar_of(&[("o", Regular, "f", 0o644), ("o", Directory, "", 0o755), ("o/n", Regular, "n", 0o644)]);
    check_archive(&swapped, "f d/o/old", None, "d d 755 0:0\nd d/o 755 7:8\nf d/o/n 644 7:8 n\n");
}

/// What an archive holds, whatever it is, ends up below its destination.
#[test]
fn no_archive_escapes() {
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};
    if !is_root() {
        return;
    }
    let path = "(/|)((a|b|\\.\\.|c)/){0,3}(a|b|c|\\.\\.)";
    let kind =
        prop_oneof![Just(tar::EntryType::Symlink), Just(tar::EntryType::Regular), Just(tar::EntryType::Directory)];
    let members = proptest::collection::vec((path, kind, path), 1..12);
    let config = Config { cases: 64, failure_persistence: None, ..Config::default() };
    let checked = TestRunner::new(config).run(&members, |members| {
        let temp = tempfile::tempdir().unwrap();
        let (upper, source) = (temp.path().join("upper"), temp.path().join("source"));
        make(&source, "f keep 644 0:0 k");
        std::fs::create_dir(&upper).unwrap();
        let members: Vec<_> =
            members.iter().map(|(name, kind, text)| (name.as_str(), *kind, text.as_str(), 0o755)).collect();
        std::fs::write(source.join("a.tar"), tar_of(&members)).unwrap();
        let tree = SourceTree::Client(Arc::new(ContextDir::open(&source, Ignore::default()).unwrap()));
        let copy = Copy { unpack: true, ..plain("a.tar", "/d/") };
        // Links that lead to one another, or to files, are refused; that is no escape either.
        let _ = apply(&operation(&[copy]), &[], &[tree], &upper, None);
        let names = |dir: &Path| std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        prop_assert_eq!(names(&upper), ["d"]);
        prop_assert_eq!(names(temp.path()).len(), 2);
        prop_assert_eq!(names(&source).len(), 2);
        Ok(())
    });
    checked.unwrap();
}
