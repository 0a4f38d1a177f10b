//! COPY and ADD of local files.

use harness::{Kiln, Kind, Tree};

#[test]
fn files_folders_and_links() {
    let context = Tree::dockerfile("FROM scratch\nCOPY a /x/\nCOPY dir /y/\nCOPY a dir/b /z/\nADD a /added\n")
        .file("a", "A")
        .mode("a", 0o755)
        .file("dir/b", "B")
        .file("dir/sub/c", "C")
        .symlink("dir/link", "b");
    let image = Kiln::new().image(&context);
    let tree = image.tree();
    assert_eq!((image.text("/x/a"), tree["/x/a"].mode & 0o777), ("A".into(), 0o755));
    assert_eq!((image.text("/y/b"), image.text("/y/sub/c")), ("B".into(), "C".into()));
    assert_eq!(tree["/y/link"].kind, Kind::Symlink("b".into()));
    assert_eq!((image.text("/z/a"), image.text("/z/b"), image.text("/added")), ("A".into(), "B".into(), "A".into()));
    assert!(tree.values().all(|entry| (entry.uid, entry.gid) == (0, 0)));
}

#[test]
fn chown_and_chmod() {
    let context = Tree::dockerfile(
        "FROM busybox\nCOPY --chown=1:4 a /one\nCOPY --chown=daemon:adm --chmod=640 a /two\nCOPY --chmod=4755 a /three\n",
    )
    .file("a", "A");
    let tree = Kiln::new().image(&context).tree();
    let entry = |path: &str| (tree[path].uid, tree[path].gid, tree[path].mode & 0o7777);
    assert_eq!(entry("/one"), (1, 4, 0o644));
    assert_eq!(entry("/two"), (1, 4, 0o640));
    assert_eq!(entry("/three"), (0, 0, 0o4755));
}

#[test]
fn from_another_stage_and_from_an_image() {
    let context = Tree::dockerfile(
        "FROM busybox AS make\nRUN mkdir /o && echo made > /o/f && ln -s f /o/l\n\
         FROM scratch\nCOPY --from=make /o /got\nCOPY --from=0 /o/f /zero\nCOPY --from=busybox /etc/group /group\n",
    );
    let image = Kiln::new().image(&context);
    assert_eq!((image.text("/got/f"), image.text("/zero")), ("made\n".into(), "made\n".into()));
    assert_eq!(image.tree()["/got/l"].kind, Kind::Symlink("f".into()));
    assert!(image.text("/group").starts_with("root:"));
}

#[test]
fn heredocs_are_files() {
    let image = Kiln::new().image(&Tree::dockerfile("FROM scratch\nCOPY <<one <<two /d/\n1\none\n2\ntwo\n"));
    assert_eq!((image.text("/d/one"), image.text("/d/two")), ("1\n".into(), "2\n".into()));
}

#[test]
fn archives_are_unpacked_by_add_only() {
    let context = Tree::dockerfile("FROM scratch\nADD a.tar /add/\nCOPY a.tar /copy/\n");
    let mut tar = harness::bases::Tar::new();
    tar.file("in/side", 0o600, b"S").unwrap();
    std::fs::write(context.join("a.tar"), tar.finish().unwrap()).unwrap();
    let image = Kiln::new().image(&context);
    assert_eq!(image.text("/add/in/side"), "S");
    let tree = image.tree();
    assert!(tree.contains_key("/copy/a.tar") && !tree.contains_key("/add/a.tar"));
}

#[test]
fn links_do_not_lead_out_of_the_image() {
    let context = Tree::dockerfile(
        "FROM busybox AS base\nRUN ln -s /../../../tmp/kiln-escape /out && ln -s /etc /e\nFROM base\nCOPY a /e/new\n",
    )
    .file("a", "A");
    assert_eq!(Kiln::new().image(&context).text("/etc/new"), "A");
    assert!(!std::path::Path::new("/tmp/kiln-escape").exists() && !std::path::Path::new("/etc/new").exists());
}
