//! `--build-context name=oci-layout://…`: a base without any registry.

use harness::bases::busybox;
use harness::{Kiln, Tree};

#[test]
fn replaces_an_image() {
    let base = busybox(&["amd64"]).unwrap();
    let kiln = Kiln::with_config("");
    let argument = format!("--build-context=busybox=oci-layout://{}:latest", base.folder().display());
    let image = kiln.build(&Tree::dockerfile("FROM busybox\nRUN echo ran > /f\n")).args([argument]).image();
    assert_eq!(image.text("/f"), "ran\n");
}
