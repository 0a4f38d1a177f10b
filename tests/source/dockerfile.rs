//! -f, standard input, and what is missing.

use harness::{Kiln, Tree};

#[test]
fn from_standard_input() {
    let kiln = Kiln::new();
    let context = Tree::new().file("f", "F").file("other", "FROM scratch\nCOPY f /f\n");
    assert_eq!(kiln.build(&context).args(["-f", "-"]).stdin(context.join("other")).image().text("/f"), "F");
}

#[test]
fn by_path_from_the_current_folder() {
    let kiln = Kiln::new();
    let context = Tree::new().file("sub/f", "F").file("build/my.Dockerfile", "FROM scratch\nCOPY f /f\n");
    assert_eq!(kiln.build(&context).args(["-f", "build/my.Dockerfile"]).context("sub").image().text("/f"), "F");
}

#[test]
fn a_missing_one_is_named() {
    let kiln = Kiln::new();
    kiln.build(&Tree::new()).fails().says(&["Dockerfile", "no such file or directory"]);
    kiln.build(&Tree::new()).context("nowhere").fails().says(&["nowhere", "not found"]);
}
