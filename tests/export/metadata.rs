//! --iidfile, --metadata-file and --quiet name what was made.

use harness::{Image, Kiln, Tree};
use serde_json::Value;

#[test]
fn files_and_standard_output_agree_with_the_image() {
    let kiln = Kiln::new();
    let (archive, id, metadata) = (kiln.out("image.tar"), kiln.out("id"), kiln.out("metadata.json"));
    let paths = [format!("--iidfile={}", id.display()), format!("--metadata-file={}", metadata.display())];
    let context = Tree::dockerfile("FROM scratch\nLABEL a=1\n");
    kiln.build(&context).args(paths).args(["-t", "app:1"]).output("oci", &archive).ok();
    let image = Image::read(&archive).unwrap();
    let config = image.manifest["config"]["digest"].as_str().unwrap();
    assert_eq!(std::fs::read_to_string(id).unwrap(), config);
    let metadata: Value = serde_json::from_str(&std::fs::read_to_string(metadata).unwrap()).unwrap();
    assert_eq!(metadata["containerimage.digest"], image.digest);
    assert_eq!(metadata["containerimage.config.digest"], config);
    assert_eq!(metadata["image.name"], "docker.io/library/app:1");

    let quiet = kiln.build(&context).progress("quiet").output("oci", &archive).ok();
    assert_eq!((quiet.text().as_str(), quiet.stderr.as_str()), (config, ""));
}
