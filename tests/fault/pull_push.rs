//! Pulls and pushes through a proxy that does harm on chosen requests to a real registry. Each fault is survived, or
//! refused with an error that says what happened; nothing wrong is kept, and the next build works.

use harness::bases::{BaseImage, Layout, Tar, busybox};
use harness::{Fault, FaultProxy, Finished, Kiln, Registry, Rule, Tree, sha256};
use std::sync::OnceLock;
use std::time::Duration;

/// Attempts, milliseconds before the second, the longest of them, and all waits together.
const IMPATIENT: &str = "5,10,200,3000";
const MANIFEST: &str = "/manifests/";
const BLOB: &str = "/blobs/sha256";
const UPLOAD: &str = "/blobs/uploads/";

/// What is to come of a fault.
enum Expect {
    /// The build succeeds.
    Survived,
    /// It fails, and says all this.
    Refused(&'static [&'static str]),
}
use Expect::{Refused, Survived};

/// A registry with a base image, and a way to it that does harm.
fn faulty() -> (&'static Registry, FaultProxy) {
    static REGISTRY: OnceLock<Registry> = OnceLock::new();
    let registry = REGISTRY.get_or_init(|| {
        let registry = Registry::start().unwrap();
        registry.push(&busybox(&["amd64"]).unwrap(), "library/busybox", "latest").unwrap();
        registry
    });
    (registry, FaultProxy::start(&registry.host))
}

fn once(method: &'static str, part: &str, fault: Fault) -> Rule {
    Rule::new(method, part, fault).times(1)
}

const BUSY: Fault = Fault::Status(503, &[], "");
const TOO_MANY: Fault = Fault::Status(429, &[], "");
const WAIT: Fault = Fault::Status(429, &[("Retry-After", "1")], "");
const WAIT_LONG: Fault = Fault::Status(429, &[("Retry-After", "3600")], "slow down");
const DENIED: Fault =
    Fault::Status(403, &[], r#"{"errors":[{"code":"DENIED","message":"requested access is denied"}]}"#);
const ANONYMOUS: Fault = Fault::Status(401, &[("WWW-Authenticate", "Basic realm=\"x\"")], "");
const MISSING: Fault = Fault::Status(404, &[], "");
const BROKEN: Fault = Fault::Status(500, &[], "");

fn pull_faults() -> Vec<(&'static str, Rule, Expect)> {
    let always = Rule::new;
    // Shorter than the four waits of who is impatient, which are 75 ms at least.
    let moment = Duration::from_millis(40);
    vec![
        ("manifest: dropped once", once("*", MANIFEST, Fault::Drop), Survived),
        ("manifest: dropped always", always("*", MANIFEST, Fault::Drop), Refused(&["manifests", "failed"])),
        ("manifest: no answer once", once("*", MANIFEST, Fault::DropAnswer), Survived),
        ("manifest: delayed", always("*", MANIFEST, Fault::Delay(moment)), Survived),
        ("manifest: cut once", once("GET", MANIFEST, Fault::CutBody), Survived),
        ("manifest: cut always", always("GET", MANIFEST, Fault::CutBody), Refused(&["manifests"])),
        (
            "manifest: flipped",
            always("GET", MANIFEST, Fault::FlipBit),
            Refused(&["unexpected digest", "expected sha256:"]),
        ),
        ("manifest: 503 once", once("*", MANIFEST, BUSY), Survived),
        ("manifest: 503 for a while", always("*", MANIFEST, BUSY).lasting(moment), Survived),
        ("manifest: 503 always", always("*", MANIFEST, BUSY), Refused(&["503 Service Unavailable"])),
        ("manifest: 500 twice", always("*", MANIFEST, BROKEN).times(2), Survived),
        ("manifest: 429 twice", always("*", MANIFEST, TOO_MANY).times(2), Survived),
        ("manifest: 429 with a wait", once("*", MANIFEST, WAIT), Survived),
        (
            "manifest: 429 with a long wait",
            always("*", MANIFEST, WAIT_LONG),
            Refused(&["429 Too Many Requests", "limits how often"]),
        ),
        (
            "manifest: 401 always",
            always("*", MANIFEST, ANONYMOUS),
            Refused(&["pull access denied", "no credentials for", "kiln login"]),
        ),
        ("manifest: 403 always", always("*", MANIFEST, DENIED), Refused(&["requested access is denied"])),
        ("manifest: 404 always", always("*", MANIFEST, MISSING), Refused(&["not found"])),
        ("manifest: too long", always("GET", MANIFEST, Fault::Length(8 << 20)), Refused(&["larger than"])),
        (
            "manifest: another digest",
            always(
                "HEAD",
                MANIFEST,
                Fault::Header(
                    "Docker-Content-Digest",
                    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                ),
            ),
            Refused(&["not found"]),
        ),
        ("blob: dropped once", once("GET", BLOB, Fault::Drop), Survived),
        ("blob: dropped always", always("GET", BLOB, Fault::Drop), Refused(&["/blobs/sha256:", "failed"])),
        ("blob: no body twice", always("GET", BLOB, Fault::DropBody).times(2), Survived),
        ("blob: cut three times", always("GET", BLOB, Fault::CutBody).after(1).times(3), Survived),
        ("blob: cut eight times", always("GET", BLOB, Fault::CutBody).times(8), Survived),
        ("blob: cut always", always("GET", BLOB, Fault::CutBody), Refused(&["/blobs/sha256:"])),
        ("blob: never a body", always("GET", BLOB, Fault::DropBody), Refused(&["/blobs/sha256:"])),
        ("blob: flipped", always("GET", BLOB, Fault::FlipBit), Refused(&["digest"])),
        (
            "layer: flipped",
            always("GET", BLOB, Fault::FlipBit).after(1),
            Refused(&["cannot pull", "unexpected digest"]),
        ),
        ("blob: 503 once", once("GET", BLOB, BUSY), Survived),
        ("blob: 500 always", always("GET", BLOB, BROKEN), Refused(&["500 Internal Server Error"])),
        ("blob: 429 with a wait", once("GET", BLOB, WAIT), Survived),
        ("blob: 404 always", always("GET", BLOB, MISSING), Refused(&["404 Not Found"])),
        ("blob: longer", always("GET", BLOB, Fault::Length(1)), Refused(&["bytes, expected"])),
        ("blob: shorter", always("GET", BLOB, Fault::Length(-1)), Refused(&["bytes, expected"])),
        ("layer: cut eight times", always("GET", BLOB, Fault::CutBody).after(1).times(8), Survived),
    ]
}

#[test]
fn pulls() {
    let (_, proxy) = faulty();
    let context = Tree::dockerfile(&format!("FROM {}/library/busybox\nRUN echo ran > /f\n", proxy.host));
    let mut problems = vec![];
    for (name, rule, expect) in pull_faults() {
        let kiln = Kiln::with_config("");
        proxy.set([rule]);
        let archive = kiln.out("image.tar");
        let build = kiln.build(&context).env("KILN_TEST_RETRY", IMPATIENT).output("oci", &archive).run();
        assert!(proxy.struck() > 0, "{name}: no request met the fault: {:?}", proxy.log());
        problems.extend(judge(name, &build, &expect, 1));
        if name.ends_with("with a wait") {
            let steps = build.steps();
            assert!(steps.keys().any(|step| step.ends_with("trying again in 1 s")), "{name}: {steps:?}");
        }
        kiln.says("debug", &["verify"]);
        proxy.set([]);
        assert_eq!(kiln.image(&context).text("/f"), "ran\n", "{name}");
        kiln.says("debug", &["verify"]);
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn mirrors_that_fail_or_damage_are_left_for_the_registry() {
    let (registry, proxy) = faulty();
    let always = Rule::new;
    let faults = [
        ("drops", always("*", "/v2/", Fault::Drop)),
        ("busy", always("*", "/v2/", BUSY)),
        ("limits", always("*", "/v2/", WAIT_LONG)),
        ("denies", always("*", "/v2/", DENIED)),
        ("has nothing", always("*", "/v2/", MISSING)),
        ("damages manifests", always("GET", MANIFEST, Fault::FlipBit)),
        ("damages blobs", always("GET", BLOB, Fault::FlipBit)),
        ("damages layers", always("GET", BLOB, Fault::FlipBit).after(1)),
        ("sends too little", always("GET", BLOB, Fault::DropBody)),
        ("sends too much", always("GET", BLOB, Fault::Length(1))),
    ];
    let config = format!("[registry.\"{}\"]\nmirrors = [\"{}\"]\n", registry.host, proxy.host);
    let context = Tree::dockerfile(&format!("FROM {}/library/busybox\nRUN echo ran > /f\n", registry.host));
    for (name, rule) in faults {
        let kiln = Kiln::with_config(&config);
        proxy.set([rule]);
        let folder = kiln.out("files");
        let build = kiln.build(&context).env("KILN_TEST_RETRY", IMPATIENT).output("local", &folder).run();
        assert!(proxy.struck() > 0, "{name}: no request met the fault: {:?}", proxy.log());
        assert_eq!(build.status.code(), Some(0), "{name}: {}", build.report());
        assert_eq!(std::fs::read_to_string(folder.join("f")).unwrap(), "ran\n", "{name}");
        kiln.says("debug", &["verify"]);
    }
}

#[test]
fn a_layer_that_unpacks_to_too_much_is_refused() {
    let (registry, _) = faulty();
    let mut tar = Tar::new();
    tar.file("zeros", 0o644, &vec![0; 8 << 20]).unwrap();
    let image = BaseImage { arch: "amd64".into(), layer: tar.finish().unwrap(), config: serde_json::json!({}) };
    registry.push(&Layout::temporary(&[image]).unwrap(), "fault/bomb", "latest").unwrap();
    let dockerfile = format!("FROM {}/fault/bomb AS bomb\nFROM scratch\nCOPY --from=bomb /zeros /\n", registry.host);
    let context = Tree::dockerfile(&dockerfile);
    let kiln = Kiln::with_config("[limits]\nunpackedLayer = \"4MB\"\n");
    kiln.build(&context).args(["--platform=linux/amd64"]).fails().says(&["decompression bomb", "unpackedLayer"]);
    kiln.says("debug", &["verify"]);
    let patient = Kiln::with_config("[limits]\nunpackedLayer = \"16MB\"\n");
    patient.build(&context).args(["--platform=linux/amd64"]).ok();
    let wrong = Kiln::with_config("[limits]\nunpackedLayer = \"half\"\n");
    wrong.build(&context).fails().says(&["limits.unpackedLayer"]);
}

/// What is wrong with how a build ended; `refused` is the code of one that was refused.
fn judge(name: &str, build: &Finished, expect: &Expect, refused: i32) -> Option<String> {
    let (code, parts) = match expect {
        Survived => (0, &[][..]),
        Refused(parts) => (refused, *parts),
    };
    let report = build.report();
    let missing: Vec<_> = parts.iter().filter(|part| !report.contains(*part)).collect();
    let is_right = build.status.code() == Some(code) && missing.is_empty();
    (!is_right).then(|| format!("{name}: {}, lacks {missing:?}\n{report}", build.status))
}

fn push_faults() -> Vec<(&'static str, Rule, Expect)> {
    let always = Rule::new;
    // Shorter than the four waits of who is impatient, which are 75 ms at least.
    let moment = Duration::from_millis(40);
    vec![
        ("push check: dropped once", once("HEAD", BLOB, Fault::Drop), Survived),
        ("push check: 403", always("HEAD", BLOB, DENIED), Survived),
        ("push check: 500 always", always("HEAD", BLOB, BROKEN), Refused(&["500 Internal Server Error"])),
        ("push begin: dropped once", once("POST", UPLOAD, Fault::Drop), Survived),
        ("push begin: no answer once", once("POST", UPLOAD, Fault::DropAnswer), Survived),
        ("push begin: 503 for a while", always("POST", UPLOAD, BUSY).lasting(moment), Survived),
        ("push begin: 429 with a wait", once("POST", UPLOAD, WAIT), Survived),
        (
            "push begin: 401 always",
            always("POST", UPLOAD, ANONYMOUS),
            Refused(&["401 Unauthorized", "no credentials for"]),
        ),
        ("push begin: 403 always", always("POST", UPLOAD, DENIED), Refused(&["requested access is denied"])),
        (
            "push begin: no location",
            always("POST", UPLOAD, Fault::Header("Location", "http://[")),
            Refused(&["no location"]),
        ),
        ("push upload: dropped once", once("PUT", UPLOAD, Fault::Drop), Survived),
        ("push upload: dropped always", always("PUT", UPLOAD, Fault::Drop), Refused(&["failed"])),
        ("push upload: half read once", once("PUT", UPLOAD, Fault::CutRequest), Survived),
        ("push upload: no answer once", once("PUT", UPLOAD, Fault::DropAnswer), Survived),
        ("push upload: no answer always", always("PUT", UPLOAD, Fault::DropAnswer), Survived),
        ("push upload: flipped once", once("PUT", UPLOAD, Fault::FlipSentBit), Survived),
        ("push upload: flipped always", always("PUT", UPLOAD, Fault::FlipSentBit), Refused(&["digest invalid"])),
        ("push upload: 404 once", once("PUT", UPLOAD, MISSING), Survived),
        ("push upload: 413", always("PUT", UPLOAD, Fault::Status(413, &[], "")).times(2), Survived),
        ("push upload: 503 always", always("PUT", UPLOAD, BUSY), Refused(&["503 Service Unavailable"])),
        ("push upload: delayed", always("PUT", UPLOAD, Fault::Delay(moment)), Survived),
        ("push manifest: dropped once", once("PUT", MANIFEST, Fault::Drop), Survived),
        ("push manifest: no answer once", once("PUT", MANIFEST, Fault::DropAnswer), Survived),
        ("push manifest: flipped once", once("PUT", MANIFEST, Fault::FlipSentBit), Survived),
        ("push manifest: 500 always", always("PUT", MANIFEST, BROKEN), Refused(&["500 Internal Server Error"])),
        (
            "push manifest: another digest told",
            always(
                "PUT",
                MANIFEST,
                Fault::Header(
                    "Docker-Content-Digest",
                    "sha256:0000000000000000000000000000000000000000000000000000000000000000",
                ),
            ),
            Refused(&["unexpected digest"]),
        ),
        ("push: 429 always", always("*", "/v2/", TOO_MANY), Refused(&["429 Too Many Requests"])),
    ]
}

#[test]
fn pushes() {
    let (registry, proxy) = faulty();
    let kiln = Kiln::with_config("");
    let mut problems = vec![];
    for (number, (name, rule, expect)) in push_faults().into_iter().enumerate() {
        let dockerfile = format!("FROM {}/library/busybox\nRUN echo {number} > /f\n", registry.host);
        let context = Tree::dockerfile(&dockerfile);
        kiln.build(&context).ok();
        let place = format!("{}/fault/push{number}:1", proxy.host);
        let flags = [format!("--output=type=image,name={place},push=true")];
        proxy.set([rule]);
        let build = kiln.build(&context).env("KILN_TEST_RETRY", IMPATIENT).args(&flags).run();
        assert!(proxy.struck() > 0, "{name}: no request met the fault: {:?}", proxy.log());
        problems.extend(judge(name, &build, &expect, 75));
        proxy.set([]);
        if let Refused(_) = expect {
            build.says(&["the image was built and is kept", &format!("kiln push {place}")]);
            let resumed = kiln.run("push", &[&place]);
            assert_eq!(resumed.status.code(), Some(0), "{name}: {}", resumed.stderr);
        }
        let answer = registry.get_manifest(&format!("fault/push{number}"), "1").unwrap();
        assert_eq!(answer.status, 200, "{name}");
        assert_eq!(answer.header("docker-content-digest"), Some(sha256(&answer.body).as_str()), "{name}");
        let pulled = Tree::dockerfile(&format!("FROM {}/fault/push{number}:1\nRUN cp /f /g\n", registry.host));
        assert_eq!(Kiln::with_config("").image(&pulled).text("/g"), format!("{number}\n"), "{name}");
    }
    kiln.says("debug", &["verify"]);
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
