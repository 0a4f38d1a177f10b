//! ARG, --build-arg and expansion.

use harness::{Kiln, Tree};

#[test]
fn args_before_from_and_in_stages() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "ARG BASE=missing\nARG TAG=1\nFROM $BASE\nARG TAG\nARG NAME=${TAG}x\nRUN echo $NAME ${NAME:+set} ${NOT:-default} > /out\n\
         COPY $NAME /copied\n",
    )
    .file("2x", "two");
    let image = kiln.build(&context).args(["--build-arg", "BASE=busybox", "--build-arg", "TAG=2"]).image();
    assert_eq!((image.text("/out"), image.text("/copied")), ("2x set default\n".into(), "two".into()));
}

#[test]
fn a_value_can_come_from_the_environment() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM scratch\nARG A\nARG B=kept\nENV A=$A B=$B\n");
    let image = kiln.build(&context).env("A", "taken").args(["--build-arg", "A", "--build-arg", "B_UNSET"]).image();
    assert_eq!((image.setting("/Env/1"), image.setting("/Env/2")), (&"A=taken".into(), &"B=kept".into()));
}

#[test]
fn a_required_value() {
    let context = Tree::dockerfile("FROM scratch\nARG A\nENV A=${A:?must be given}\n");
    Kiln::new().build(&context).fails().says(&["must be given", "Dockerfile:3"]);
}
