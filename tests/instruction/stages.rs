//! FROM: several stages, which of them run, and when.

use harness::{Kiln, Tree};

#[test]
fn unreferenced_stages_do_not_run() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS broken\nRUN false\nFROM busybox AS used\nRUN echo x > /x\nFROM scratch\nCOPY --from=used /x /\n",
    );
    assert_eq!(kiln.image(&context).text("/x"), "x\n");
}

#[test]
fn target_chooses_a_stage() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM scratch AS one\nLABEL n=1\nFROM one AS two\nLABEL n=2\n");
    assert_eq!(kiln.build(&context).args(["--target", "one"]).image().setting("/Labels/n"), "1");
    assert_eq!(kiln.build(&context).args(["--target", "TWO"]).image().setting("/Labels/n"), "2");
    kiln.build(&context).args(["--target", "tow"]).fails().says(&["tow", "two"]);
}

#[test]
fn independent_stages_run_at_the_same_time() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS a\nRUN sleep 2; echo a > /a\nFROM busybox AS b\nRUN sleep 2; echo b > /b\n\
         FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
    );
    let finished = kiln.build(&context).ok();
    let steps: Vec<_> = finished.steps().into_iter().filter(|(name, _)| name.contains("sleep 2")).collect();
    let [(_, a), (_, b)] = steps.as_slice() else { panic!("{steps:?}") };
    // RFC 3339 in one zone orders as text does, up to whole seconds.
    assert!(a.started[..19] < b.completed[..19] && b.started[..19] < a.completed[..19], "{a:?} {b:?}");
}

#[test]
fn long_chains_of_stages() {
    let mut text = String::from("FROM scratch AS s0\nCOPY f /f0\n");
    for number in 1..150 {
        text += &format!("FROM s{} AS s{number}\nCOPY f /f{number}\n", number - 1);
    }
    let image = Kiln::new().image(&Tree::dockerfile(&text).file("f", "x"));
    assert_eq!((image.layers.len(), image.text("/f149")), (150, "x".into()));
}

#[test]
fn an_empty_stage_can_be_copied() {
    let context = Tree::dockerfile(
        "FROM scratch AS none\nFROM scratch\nCOPY --from=none / /a/\nCOPY --from=scratch . /b/c\nCOPY --from=none x* /d/\n",
    );
    let kiln = Kiln::new();
    assert_eq!(kiln.image(&context).paths_above(0), ["/a", "/b", "/b/c"]);
    kiln.build(&Tree::dockerfile("FROM scratch\nCOPY --from=scratch x /\n")).fails().says(&["\"/x\": not found"]);
}

#[test]
fn steps_of_triggers_are_numbered_with_all_triggers() {
    let text = "FROM busybox AS t\nONBUILD ENV A=1\nONBUILD RUN echo $A > /a\nFROM t\nRUN cat /a > /b\n";
    let finished = Kiln::new().build(&Tree::dockerfile(text)).ok();
    let names: Vec<_> = finished.steps().into_keys().filter(|name| name.contains("RUN")).collect();
    assert_eq!(names, ["[stage-1 1/3] ONBUILD RUN echo 1 > /a", "[stage-1 2/3] RUN cat /a > /b"]);
}
