//! .dockerignore.

use harness::{Kiln, Tree};

#[test]
fn patterns_and_exceptions() {
    let context = Tree::dockerfile("FROM scratch\nCOPY . /\n")
        .file(".dockerignore", "# a remark\n*.log\n**/tmp\nsecret\n!keep.log\nDockerfile\n.dockerignore\n")
        .file("a.log", "")
        .file("keep.log", "")
        .file("secret/key", "")
        .file("deep/tmp/x", "")
        .file("deep/y", "");
    let paths: Vec<String> = Kiln::new().image(&context).tree().into_keys().collect();
    assert_eq!(paths, ["/deep", "/deep/y", "/keep.log"]);
}

#[test]
fn the_file_named_for_the_dockerfile_wins() {
    let context = Tree::new()
        .file("app.Dockerfile", "FROM scratch\nCOPY . /\n")
        .file("app.Dockerfile.dockerignore", "*\n!b\n")
        .file(".dockerignore", "b\n")
        .file("a", "")
        .file("b", "");
    let kiln = Kiln::new();
    let image = kiln.build(&context).args(["-f", "app.Dockerfile"]).image();
    assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["/b"]);
}

#[test]
fn copying_an_ignored_file_says_so() {
    let context = Tree::dockerfile("FROM scratch\nCOPY gone /\n").file(".dockerignore", "go*\n").file("gone", "");
    Kiln::new().build(&context).fails().says(&[
        "gone",
        "not found",
        "Dockerfile:2:6",
        "2 | COPY gone /",
        "excluded by .dockerignore line 1",
    ]);
}
