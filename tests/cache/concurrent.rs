//! Several processes on one store.

use harness::{Finished, Image, Kiln, Tree};

#[test]
fn two_builds_of_the_same_run_it_once() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /uuid\n");
    let outputs = ["one.tar", "two.tar"].map(|name| kiln.out(name));
    let children = outputs.each_ref().map(|output| kiln.build(&context).output("oci", output).spawn());
    for child in children {
        let finished = Finished::wait(child);
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    let [one, two] = outputs.map(|output| Image::read(&output).unwrap().text("/uuid"));
    assert_eq!(one, two);
}

#[test]
fn eight_different_builds() {
    let kiln = Kiln::new();
    let builds: Vec<_> = (0..8)
        .map(|number| {
            let context =
                Tree::dockerfile("FROM busybox\nCOPY f /f\nRUN cat /f /f > /g\n").file("f", &format!("{number}"));
            let output = kiln.out(&format!("{number}.tar"));
            let child = kiln.build(&context).output("oci", &output).spawn();
            (context, output, child)
        })
        .collect();
    for (number, (_context, output, child)) in builds.into_iter().enumerate() {
        let finished = Finished::wait(child);
        assert!(finished.status.success(), "{}", finished.stderr);
        assert_eq!(Image::read(&output).unwrap().text("/g"), format!("{number}{number}"));
    }
}
