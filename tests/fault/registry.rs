//! A registry that holds damaged data.

use harness::bases::busybox;
use harness::{Kiln, Registry, Tree};
use std::fs;

#[test]
fn a_flipped_bit_in_a_layer_is_noticed() {
    let registry = Registry::start().unwrap();
    let base = busybox(&["amd64"]).unwrap();
    registry.push(&base, "library/busybox", "latest").unwrap();
    let layer = base.blobs.iter().find(|blob| blob.kind.contains("layer")).unwrap();
    let hex = layer.digest.strip_prefix("sha256:").unwrap();
    let path = registry.storage().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]));
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    let middle = bad.len() / 2;
    bad[middle] ^= 1;
    fs::write(&path, bad).unwrap();

    let kiln = Kiln::with_config(&registry.kiln_toml());
    let context = Tree::dockerfile("FROM busybox\nRUN echo ran > /f\n");
    kiln.build(&context).fails().says(&[hex]);
    fs::write(&path, good).unwrap();
    assert_eq!(kiln.image(&context).text("/f"), "ran\n");
}
