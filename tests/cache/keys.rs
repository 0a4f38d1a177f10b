//! What a key is made of, seen from outside: contents decide, not how they came to be.

use harness::bases::{BaseImage, Layout, busybox_images};
use harness::{Image, Kiln, Registry, Tree};
use serde_json::json;

/// Pushes a base image that differs from others by its label and by a file.
fn push_base(name: &str, text: &str) {
    let registry = Registry::shared();
    let mut image: BaseImage = busybox_images(&["amd64"]).unwrap().remove(0);
    image.config["Labels"] = json!({ "text": text });
    // Bytes after a tar's end are in its digest, and nowhere else.
    image.layer.extend(text.bytes().cycle().take(512));
    registry.push(&Layout::temporary(&[image]).unwrap(), name, "latest").unwrap();
}

#[test]
fn a_run_that_changes_nothing_new_leaves_the_rest_and_the_digest() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS build\nCOPY a /a\nRUN wc -c < /a > /size\nFROM busybox\nCOPY --from=build /size /size\nRUN cat /size > /copy\n",
    )
    .file("a", "A");
    let first = kiln.image(&context).digest;
    context.write("a", "B");
    let output = kiln.out("second.tar");
    let second = kiln.build(&context).output("oci", &output).ok();
    assert_eq!(second.ran(), ["[build 2/3] COPY a /a", "[build 3/3] RUN wc -c < /a > /size"]);
    assert_eq!(Image::read(&output).unwrap().digest, first);
}

#[test]
fn running_all_again_gives_the_same_image() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nCOPY a /a\nRUN cat /a > /b\nRUN cat /b > /c\n").file("a", "A");
    let first = kiln.image(&context).digest;
    let output = kiln.out("second.tar");
    let second = kiln.build(&context).args(["--no-cache"]).output("oci", &output).ok();
    assert_eq!(second.ran().len(), 3);
    assert_eq!(Image::read(&output).unwrap().digest, first, "the first layers of a content are the ones that count");
}

#[test]
fn the_filter_runs_a_stage_and_no_other() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS one\nRUN echo 1 > /1\nFROM busybox AS two\nRUN echo 2 > /2\nFROM busybox\nCOPY --from=one /1 /\nCOPY --from=two /2 /\n",
    );
    kiln.build(&context).ok();
    let ran = kiln.build(&context).args(["--no-cache-filter=one"]).ok().ran();
    assert_eq!(ran, ["[one 2/2] RUN echo 1 > /1"], "what it makes is the same");
    let ran = kiln.build(&context).args(["--no-cache-filter=one,two"]).ok().ran();
    assert_eq!(ran.len(), 2, "{ran:?}");
}

#[test]
fn a_copy_is_keyed_by_what_it_selects() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS made\nCOPY all /all\nFROM busybox\nCOPY --exclude=*.md docs /docs\nCOPY --from=made /all/one /one\nCOPY all/o* /some/\n",
    )
    .file("docs/a.txt", "a")
    .file("docs/b.md", "b")
    .file("all/one", "1")
    .file("all/two", "2");
    kiln.build(&context).ok();
    let ran = || kiln.build(&context).ok().ran();
    context.write("docs/b.md", "changed");
    context.write("elsewhere", "new");
    assert!(ran().is_empty());
    context.write("all/two", "changed");
    assert_eq!(ran(), ["[made 2/2] COPY all /all"], "neither the copy of one of its files nor the wildcard");
    context.write("all/other", "new");
    assert_eq!(ran(), ["[made 2/2] COPY all /all", "[stage-1 4/4] COPY all/o* /some/"]);
}

#[test]
fn linked_layers_lie_on_any_base() {
    let kiln = Kiln::new();
    let name = format!("{}/keys/linked", Registry::shared().host);
    push_base("keys/linked", "1");
    let context =
        Tree::dockerfile(&format!("FROM {name}\nCOPY --link a /a\nCOPY --link b /b\n")).file("a", "A").file("b", "B");
    let first = kiln.image(&context);
    push_base("keys/linked", "2");
    let output = kiln.out("second.tar");
    let second = kiln.build(&context).output("oci", &output).ok();
    let ran: Vec<String> = second.ran().into_iter().filter(|name| !name.contains("] LINK ")).collect();
    assert!(ran.is_empty(), "{ran:?}");
    let second = Image::read(&output).unwrap();
    let diff_ids = |image: &Image| image.config["rootfs"]["diff_ids"].as_array().unwrap().clone();
    let (old, new) = (diff_ids(&first), diff_ids(&second));
    assert!(old[0] != new[0] && old[1..] == new[1..] && new.len() == 3, "{old:?} {new:?}");
    assert_eq!((second.text("/a"), second.text("/b")), ("A".into(), "B".into()));
}

#[test]
fn a_tag_that_moved_is_seen_with_and_without_pull() {
    let kiln = Kiln::new();
    let name = format!("{}/keys/pulled", Registry::shared().host);
    let context = Tree::dockerfile(&format!("FROM {name}\nRUN echo x > /x\n"));
    for (number, args) in [&["--pull"][..], &["--pull"], &[]].into_iter().enumerate() {
        push_base("keys/pulled", &number.to_string());
        let built = kiln.build(&context).args(args).ok();
        assert_eq!(built.ran().len(), 1, "{number}");
        assert!(kiln.build(&context).args(args).ok().ran().is_empty());
    }
}
