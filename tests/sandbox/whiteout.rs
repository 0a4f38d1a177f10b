//! Deletions and replaced folders, in the layers and in what later steps see.

use harness::{Kiln, Kind, Tree};

fn check(kiln: &Kiln) {
    let context = Tree::dockerfile(
        "FROM busybox\nRUN mkdir -p /d/sub && echo 1 > /d/old && echo 1 > /d/sub/f && echo 1 > /gone && echo 1 > /kind\n\
         RUN rm /gone && rm -r /d && mkdir /d && echo 2 > /d/new && rm /kind && mkdir /kind && echo 3 > /kind/k\n\
         RUN ls /d > /list; test ! -e /gone && cat /kind/k >> /list\n",
    );
    let image = kiln.image(&context);
    assert_eq!(image.text("/list"), "new\n3\n");
    let tree = image.tree();
    assert!(!tree.contains_key("/gone") && !tree.contains_key("/d/old") && !tree.contains_key("/d/sub/f"));
    assert_eq!((image.text("/d/new"), &tree["/kind"].kind), ("2\n".into(), &Kind::Folder));
    assert!(image.paths_above(2).contains(&"/.wh.gone".to_string()), "{:?}", image.paths_above(2));
}

#[test]
fn as_root_or_whoever_runs_the_tests() {
    check(&Kiln::new());
}

#[test]
fn as_an_ordinary_user() {
    match Kiln::as_user() {
        Ok(kiln) => check(&kiln),
        Err(reason) => harness::skip!("{reason}"),
    }
}
