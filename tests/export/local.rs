//! `type=local` and `type=tar`: the files alone.

use harness::{Kiln, Tree, layer_entries};
use std::fs;
use std::os::unix::fs::MetadataExt;

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS make\nRUN mkdir /o && echo 1 > /o/f && chmod 640 /o/f && ln -s f /o/l\nFROM scratch\nCOPY --from=make /o /\n",
    )
}

#[test]
fn a_folder() {
    let kiln = Kiln::new();
    let folder = kiln.out("files");
    kiln.build(&context()).args(["-o".into(), folder.display().to_string()]).ok();
    assert_eq!(fs::read_to_string(folder.join("f")).unwrap(), "1\n");
    assert_eq!(fs::metadata(folder.join("f")).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read_link(folder.join("l")).unwrap().to_str(), Some("f"));
}

#[test]
fn a_tar_on_standard_output() {
    let kiln = Kiln::new();
    let finished = kiln.build(&context()).args(["-o", "-"]).ok();
    let paths: Vec<_> = layer_entries(&finished.stdout).unwrap().into_iter().map(|(path, _)| path).collect();
    assert_eq!(paths, ["/f", "/l"]);
}
