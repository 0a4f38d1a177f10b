//! `kiln analyze`: sums that are known beforehand, of images in all their places.

use harness::{Kiln, Tree};
use serde_json::Value;

fn app() -> Tree {
    let text =
        "FROM scratch\nCOPY big small /\nCOPY other /big\nCOPY --from=busybox /bin/busybox /bin/sh\nRUN rm /small\n";
    let tree = Tree::dockerfile(text);
    tree.file("big", &"b".repeat(1000)).file("small", &"s".repeat(100)).file("other", &"o".repeat(500))
}

fn analyse(kiln: &Kiln, image: &str) -> Value {
    serde_json::from_str(&kiln.says("analyze", &["--format", "json", "--contents", image])).unwrap()
}

#[test]
fn the_same_sums_wherever_the_image_is() {
    let kiln = Kiln::new();
    let (docker, oci, layout) = (kiln.out("docker.tar"), kiln.out("oci.tar"), kiln.out("layout"));
    kiln.build(&app()).args(["-t", "app"]).ok();
    let sums = analyse(&kiln, "app");
    assert_eq!(sums["wasted_bytes"], 1100);
    let total = sums["total_bytes"].as_u64().unwrap();
    assert_eq!(sums["visible_bytes"].as_u64().unwrap(), total - 1100);
    assert_eq!(sums["layers"][0]["bytes"], 1100);
    assert_eq!(sums["wasted"][0], serde_json::json!({"path": "big", "bytes": 1000, "copies": 1}));
    assert_eq!(sums["wasted"][1]["path"], "small");
    let changes = |layer: usize| sums["layers"][layer]["changes"].as_array().unwrap().clone();
    assert_eq!(changes(1)[0]["kind"], "changed");
    assert!(changes(3).iter().any(|change| change["kind"] == "removed" && change["path"] == "small"), "{sums:#}");
    assert_eq!(sums["layers"][3]["created_by"], "RUN /bin/sh -c rm /small # buildkit");

    kiln.build(&app()).output("docker", &docker).ok();
    kiln.build(&app()).output("oci", &oci).ok();
    kiln.build(&app()).args([format!("-o=type=oci,tar=false,dest={}", layout.display())]).ok();
    for place in [docker, oci, layout] {
        assert_eq!(analyse(&kiln, place.to_str().unwrap()), sums, "{}", place.display());
    }
    let table = kiln.says("analyze", &["--contents", "app"]);
    assert!(table.contains("Wasted:     1.10kB") && table.contains("  /big\n"), "{table}");
    let none = kiln.run("analyze", &["none"]);
    assert_eq!(none.status.code(), Some(1));
    assert!(none.stderr.contains("neither an image of kiln's store"), "{}", none.stderr);
}

#[test]
fn rules_decide_the_exit_code() {
    let kiln = Kiln::new();
    kiln.build(&app()).args(["-t", "app"]).ok();
    let check = |rules: &str, code: i32, says: &[&str]| {
        let path = kiln.out("rules.yml");
        std::fs::write(&path, rules).unwrap();
        let done = kiln.run("analyze", &["--rules", path.to_str().unwrap(), "app"]);
        let out = String::from_utf8_lossy(&done.stdout).into_owned() + &done.stderr;
        assert_eq!(done.status.code(), Some(code), "{out}");
        assert!(says.iter().all(|text| out.contains(text)), "{out}");
    };
    check(
        "rules:\n  lowestEfficiency: 0.5\n  highestWastedBytes: 1.1kB\n",
        0,
        &["PASS  lowestEfficiency", "PASS  highestWasted"],
    );
    check(
        "rules:\n  lowestEfficiency: 1\n  highestWastedBytes: 2kB\n",
        1,
        &["FAIL  lowestEfficiency", "PASS  highestWasted"],
    );
    check("rules:\n  highestUserWastedPercent: 0.00001\n", 1, &["FAIL  highestUserWastedPercent"]);
    check("rules:\n  most: 1\n", 1, &["line 2: there is no rule `most`"]);
}
