//! Builds by an ordinary user without subordinate ids: there is one id, and images have all owners nevertheless.

use harness::{Image, Kiln, Kind, Tree, skip};

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS one\nCOPY --chown=5:6 a /x/a\nUSER daemon\nRUN echo mine > /tmp/m && ln -s m /tmp/l && mkdir /tmp/d\n\
         USER root\nRUN echo root > /r && mv /x/a /x/b && rm -r /home\n\
         FROM busybox\nCOPY --from=one / /all/\nCOPY --from=one --chown=7 /tmp/l /l\nRUN chmod 4755 /all/x/b\n",
    )
    .file("a", "A")
}

fn describe(image: &Image) -> Vec<(String, Kind, u32, u64, u64)> {
    let tree = image.tree().into_iter();
    tree.map(|(path, entry)| (path, entry.kind, entry.mode, entry.uid, entry.gid)).collect()
}

#[test]
fn the_image_is_the_same_as_roots() {
    let kiln = match Kiln::as_lone_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    let archive = kiln.out("image.tar");
    let finished = kiln.build(&context()).output("oci", &archive).ok();
    let warnings = finished.warnings().join("\n");
    for part in ["there is one id for all users in RUN", "/etc/subuid", "files that it makes are given to 1:1"] {
        assert!(warnings.contains(part), "{part} is missing in {warnings}");
    }
    let image = Image::read(&archive).unwrap();
    let tree = image.tree();
    let owner = |path: &str| (tree[path].uid, tree[path].gid);
    assert_eq!((owner("/all/x/b"), owner("/all/tmp/m"), owner("/all/r")), ((5, 6), (1, 1), (0, 0)));
    assert_eq!((owner("/all/tmp/l"), owner("/all/tmp/d")), ((1, 1), (1, 1)));
    assert_eq!(describe(&image), describe(&Kiln::new().image(&context())));
    assert!(kiln.build(&context()).ok().ran().is_empty());
}

#[test]
fn a_failure_says_what_is_missing() {
    let kiln = match Kiln::as_lone_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    let failed = kiln.build(&Tree::dockerfile("FROM busybox\nRUN chown 1:1 /etc\n")).fails();
    failed.says(&["there is one id for all users here", "usermod --add-subuids"]);
}
