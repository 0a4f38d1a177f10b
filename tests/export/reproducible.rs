//! The same inputs give the same digests, on other stores and at other times.

use harness::{Kiln, Tree};

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox\nCOPY dir /dir\nRUN mkdir -p /a/b && echo 1 > /a/b/c && rm -r /home && ln /a/b/c /a/d\n",
    )
    .file("dir/x", "X")
    .file("dir/sub/y", "Y")
}

#[test]
fn one_store_gives_the_same_image_again() {
    let kiln = Kiln::new();
    assert_eq!(kiln.image(&context()).digest, kiln.image(&context()).digest);
}

#[test]
fn an_epoch_makes_it_the_same_everywhere() {
    let digest = || {
        let kiln = Kiln::new();
        let output = kiln.out("image.tar");
        let spec = format!("--output=type=oci,rewrite-timestamp=true,dest={}", output.display());
        kiln.build(&context()).env("SOURCE_DATE_EPOCH", "1700000000").args([spec]).ok();
        let image = harness::Image::read(&output).unwrap();
        assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
        image.digest
    };
    assert_eq!(digest(), digest());
}
