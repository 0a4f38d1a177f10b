//! Builds by an ordinary user, with subordinate ids.

use harness::{Kiln, Tree, skip};

#[test]
fn steps_are_root_and_may_change_owners() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    let context = Tree::dockerfile(
        "FROM busybox\nRUN id -u > /id && echo x > /f && chown 1:4 /f && chmod 4755 /f\nUSER daemon\nRUN id -u > /tmp/id\n\
         USER root\nCOPY --chown=65534:65534 a /a\n",
    )
    .file("a", "A");
    let image = kiln.image(&context);
    let tree = image.tree();
    assert_eq!((image.text("/id"), image.text("/tmp/id")), ("0\n".into(), "1\n".into()));
    assert_eq!((tree["/f"].uid, tree["/f"].gid, tree["/f"].mode & 0o7777), (1, 4, 0o4755));
    assert_eq!((tree["/a"].uid, tree["/tmp/id"].uid), (65534, 1));
    assert!(kiln.build(&context).ok().ran().is_empty());
}

#[test]
fn the_image_is_the_same_as_roots() {
    let user = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    let context =
        || Tree::dockerfile("FROM busybox\nCOPY a /a\nRUN mkdir /d && cp /a /d/b && rm -r /home\n").file("a", "A");
    let describe = |kiln: &Kiln| {
        let image = kiln.image(&context());
        let tree = image.tree().into_iter();
        tree.map(|(path, entry)| (path, entry.kind, entry.mode, entry.uid, entry.gid)).collect::<Vec<_>>()
    };
    assert_eq!(describe(&user), describe(&Kiln::new()));
}
