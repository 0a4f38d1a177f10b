//! The same inputs give the same digests: in other stores, at other times, with more or fewer processors, as another user.

use harness::{Image, Kiln, Tree, installed, skip};
use serde_json::Value;
use std::fs::{self, File, FileTimes};
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

const EPOCH: &str = "1700000000";

/// Several stages that may run at once, files larger than a block of any compression, links, and removals.
fn context() -> Tree {
    let text: String = (0..60_000u32).map(|line| format!("{} {line}\n", line.wrapping_mul(2_654_435_761))).collect();
    Tree::dockerfile(
        "FROM busybox AS a\nRUN mkdir -p /a/b && cat /etc/passwd > /a/b/c && ln /a/b/c /a/d && ln -s c /a/b/s\n\
         FROM busybox AS b\nCOPY dir /dir\nRUN for i in 1 2 3 4 5 6 7 8; do cat /dir/large; done > /larger\n\
         FROM busybox\nWORKDIR /w/x\nCOPY --from=a /a /a\nCOPY --from=b /larger /w/\nCOPY --link dir /l/\n\
         RUN rm -r /home && touch /w/new && chmod 4755 /w/new\nENV A=1\n",
    )
    .file("dir/x", "X")
    .file("dir/sub/y", "Y")
    .file("dir/large", &text)
}

/// What the metadata file says the result's digest is.
fn digest(kiln: &Kiln, context: &Tree, output: &str, before: &[&str], args: &[&str]) -> String {
    let metadata = kiln.out("metadata.json");
    let mut command = kiln.command_through(before, "build");
    command.args(args).arg(format!("--metadata-file={}", metadata.display()));
    command.arg(format!("--output={output},dest={}", kiln.out("image.tar").display())).arg(context.path());
    command.env("SOURCE_DATE_EPOCH", EPOCH).stdout(Stdio::piped()).stderr(Stdio::piped());
    let finished = harness::Finished::wait(command.spawn().unwrap());
    assert!(finished.status.success(), "{}", finished.stderr);
    let metadata: Value = serde_json::from_slice(&fs::read(metadata).unwrap()).unwrap();
    metadata["containerimage.digest"].as_str().unwrap().to_string()
}

#[test]
fn one_store_gives_the_same_image_again() {
    let kiln = Kiln::new();
    assert_eq!(kiln.image(&context()).digest, kiln.image(&context()).digest);
}

#[test]
fn an_epoch_makes_it_the_same_everywhere() {
    let digest = || {
        let kiln = Kiln::new();
        let output = kiln.out("image.tar");
        let spec = format!("--output=type=oci,rewrite-timestamp=true,dest={}", output.display());
        kiln.build(&context()).env("SOURCE_DATE_EPOCH", EPOCH).args([spec]).ok();
        let image = Image::read(&output).unwrap();
        assert_eq!(image.config["created"], "2023-11-14T22:13:20Z");
        let latest = image.tree().values().map(|entry| entry.mtime).max();
        assert!(latest <= Some(1_700_000_000), "{latest:?}");
        image.digest
    };
    assert_eq!(digest(), digest());
}

#[test]
fn processors_and_jobs_do_not_matter() {
    let one: &[&str] = if installed("taskset") { &["taskset", "-c", "0"] } else { &[] };
    let context = context();
    let (few, many) = (Kiln::new(), Kiln::new());
    let ways = ["gzip", "gzip,compression-level=1", "zstd", "zstd,compression-level=9", "uncompressed"];
    let mut digests = vec![];
    for way in ways {
        let output = format!("type=oci,rewrite-timestamp=true,force-compression=true,compression={way}");
        let first = digest(&few, &context, &output, one, &["--jobs=1"]);
        assert_eq!(first, digest(&many, &context, &output, &[], &["--jobs=8"]), "{way}");
        digests.push(first);
    }
    digests.sort();
    digests.dedup();
    assert_eq!(digests.len(), ways.len());
}

#[test]
fn platforms_and_attestations_of_packages_too() {
    let context = context();
    let args = ["--platform=linux/amd64,linux/arm64", "--sbom=true", "--target=c"];
    context.write("Dockerfile", "FROM busybox AS c\nCOPY dir /d\nWORKDIR /w\n");
    let output = "type=oci,rewrite-timestamp=true";
    let digest = |jobs: &str| digest(&Kiln::new(), &context, output, &[], &[&args[..], &[jobs]].concat());
    assert_eq!(digest("--jobs=1"), digest("--jobs=8"));
}

#[test]
fn an_ordinary_user_makes_the_same() {
    let user = match Kiln::as_user() {
        Ok(user) => user,
        Err(reason) => skip!("{reason}"),
    };
    let image = |kiln: &Kiln| {
        let output = kiln.out("image.tar");
        let spec = format!("--output=type=oci,rewrite-timestamp=true,dest={}", output.display());
        kiln.build(&context()).env("SOURCE_DATE_EPOCH", EPOCH).args([spec]).ok();
        Image::read(&output).unwrap()
    };
    let (of_root, of_user) = (image(&Kiln::new()), image(&user));
    assert_eq!(of_root.config, of_user.config);
    assert_eq!(of_root.digest, of_user.digest);
}

#[test]
fn copies_need_no_epoch() {
    let made = SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000);
    // In another order each time, which is the order that some file systems list them in.
    let layers = |names: [&str; 3]| {
        let context = Tree::dockerfile("FROM scratch\nCOPY d /\nCOPY d/b d/c /\nADD --chmod=600 d/a /z\n");
        names.iter().for_each(|name| context.write(&format!("d/{name}"), name));
        for path in ["d/a", "d/b", "d/c", "d"] {
            set_time(&context.join(path), made);
        }
        let image = Kiln::new().image(&context);
        assert!(image.tree().values().all(|entry| entry.mtime == 1_500_000_000), "{:?}", image.tree());
        image.manifest["layers"].clone()
    };
    assert_eq!(layers(["a", "b", "c"]), layers(["c", "a", "b"]));
}

fn set_time(path: &Path, time: SystemTime) {
    File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
}
