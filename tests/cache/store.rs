//! The store's size: what `kiln du` says, what `kiln prune` frees, the limit; and stores of earlier formats.

use flate2::read::GzDecoder;
use harness::{Finished, Image, Kiln, Tree, skip, wait_for_line};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox\nCOPY a /a\nRUN --mount=type=cache,target=/cache head -c 300000 /dev/zero > /cache/z; \
         head -c 900000 /dev/urandom > /big; ln /big /linked\nRUN echo small > /small\n",
    )
    .file("a", "A")
}

/// Bytes that the disk gives to a folder.
fn du(folder: &Path) -> u64 {
    let output = Command::new("du").args(["-s", "-B1"]).arg(folder).output().expect("run du");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.split_whitespace().next().and_then(|bytes| bytes.parse().ok()).expect("a number")
}

fn objects(kiln: &Kiln, args: &[&str]) -> Vec<Value> {
    let text = kiln.says("du", &[args, &["--format", "json"]].concat());
    text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect()
}

fn bytes(objects: &[Value]) -> u64 {
    objects.iter().map(|object| object["Bytes"].as_u64().unwrap()).sum()
}

/// Of `Total: 1.23MB` and the like.
fn amount(text: &str, name: &str) -> f64 {
    let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name} in {text}"));
    let amount = line.split_whitespace().last().unwrap();
    let digits = amount.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &amount[digits.len()..] {
        "B" => 1.0,
        "kB" => 1e3,
        "MB" => 1e6,
        unit => panic!("{unit}"),
    };
    digits.parse::<f64>().unwrap() * unit
}

/// Within a hundredth, or what the looking itself may add to the database's log.
fn close(one: f64, other: f64) -> bool {
    (one - other).abs() <= (other * 0.01).max(48.0 * 1024.0)
}

#[test]
fn du_says_what_du_says() {
    let kiln = Kiln::new();
    kiln.build(&context()).output("oci", &kiln.out("o.tar")).ok();
    kiln.build(&context()).ok();
    let table = kiln.says("du", &[]);
    let (said, real) = (amount(&table, "Total:"), du(&kiln.root()) as f64);
    assert!(close(said, real), "{said} is not {real}\n{table}");
    assert!(close(amount(&table, "Reclaimable:"), bytes(&objects(&kiln, &[])) as f64), "{table}");

    let big = objects(&kiln, &["--filter", "description~=head -c 300000,type=regular,id!=x"]);
    let step = big.iter().find(|object| !object["ID"].as_str().unwrap().starts_with("sha256:")).unwrap();
    assert_eq!(step["UsageCount"], 2, "{step}");
    assert_eq!(step["Reclaimable"], true);
    assert!((900_000..950_000).contains(&step["Bytes"].as_u64().unwrap()), "hard links count once: {step}");
    let parent = objects(&kiln, &["--filter", &format!("id={}", step["Parents"][0].as_str().unwrap())]);
    assert!(parent[0]["Description"].as_str().unwrap().contains("COPY a /a"), "{parent:?}");
    let mounts = objects(&kiln, &["--filter", "type=exec.cachemount"]);
    assert_eq!((mounts.len(), &mounts[0]["Mutable"]), (1, &Value::Bool(true)));
    assert!(mounts[0]["Bytes"].as_u64().unwrap() >= 300_000);
    assert!(kiln.says("du", &["--verbose"]).contains("Usage count:\t2"));
    assert!(objects(&kiln, &["--filter", "until=1h"]).is_empty());
    let refused = kiln.run("du", &["--filter", "colour=red"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(refused.stderr.contains("there is no field `colour`"), "{}", refused.stderr);
}

#[test]
fn prune_frees_what_it_says() {
    let kiln = Kiln::new();
    let context = context();
    kiln.build(&context).output("oci", &kiln.out("o.tar")).ok();
    assert!(kiln.run("prune", &[]).status.code() == Some(1), "nobody said yes");
    let plan = kiln.says("prune", &["--dry-run"]);
    // The database grows by what is written down of it, and what the build has put away is no object any more.
    let others = ["db", "db-wal", "trash"];
    let objects_on_disk = || du(&kiln.root()) - others.map(|name| du(&kiln.root().join(name))).iter().sum::<u64>();
    let before = objects_on_disk();
    let done = kiln.says("prune", &["--force"]);
    let freed = (before - objects_on_disk()) as f64;
    assert!(close(amount(&done, "Total:"), freed) && close(amount(&plan, "Total:"), freed), "{freed}\n{done}\n{plan}");
    assert_eq!(objects(&kiln, &["--filter", "type!=internal"]), Vec::<Value>::new());
    // A store that was emptied is as good as a new one.
    let again = kiln.build(&context).ok();
    assert!(again.cached().is_empty(), "{:?}", again.cached());
    assert!(again.report().is_empty() || !again.report().contains("missing"), "{}", again.report());

    kiln.says("prune", &["--all", "--force", "--filter", "description~=echo small"]);
    let third = kiln.build(&context).ok();
    assert_eq!(third.ran().len(), 1, "{:?}", third.ran());
    // The base and the blobs, but not what lies on that base.
    kiln.says("prune", &["--all", "--force", "--filter", "description~=busybox"]);
    kiln.says("prune", &["--all", "--force", "--filter", "id~=^sha256:"]);
    let fourth = kiln.build(&context).output("oci", &kiln.out("o.tar")).ok();
    assert!(fourth.ran().is_empty(), "{:?}", fourth.ran());
    kiln.says("prune", &["--all", "--force"]);
    assert!(objects(&kiln, &[]).is_empty());
    assert!(du(&kiln.root()) < 400_000, "{}", du(&kiln.root()));
}

#[test]
fn an_ordinary_users_store() {
    let kiln = match Kiln::as_user() {
        Ok(kiln) => kiln,
        Err(reason) => skip!("{reason}"),
    };
    // Files of other ids than the user's own, closed to him.
    let context = Tree::dockerfile("FROM busybox\nRUN mkdir /d && echo x > /d/f && chown -R 7:7 /d && chmod 700 /d\n");
    kiln.build(&context).ok();
    let table = kiln.says("du", &[]);
    let (said, real) = (amount(&table, "Total:"), du(&kiln.root()) as f64);
    assert!(close(said, real), "{said} is not {real}\n{table}");
    kiln.says("debug", &["verify"]);
    kiln.says("prune", &["--all", "--force"]);
    assert!(objects(&kiln, &[]).is_empty());
    assert!(!kiln.build(&context).ok().ran().is_empty());
}

#[test]
fn prune_beside_a_running_build_leaves_what_that_needs() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox\nRUN echo 1 > /1\nRUN --mount=type=cache,target=/c echo c > /c/c; echo now; \
         while [ ! -e /c/go ]; do sleep 0.05; done; cat /1 /c/c > /2\nRUN cat /2 /1 > /3\n",
    );
    let other = Tree::dockerfile("FROM busybox\nRUN echo other > /other\n");
    kiln.build(&other).ok();
    let output = kiln.out("o.tar");
    let mut child = kiln.build(&context).progress("plain").output("oci", &output).spawn();
    wait_for_line(&mut child, " now");
    let removed = kiln.says("prune", &["--all", "--force"]);
    assert!(removed.contains("echo other"), "{removed}");
    assert!(!removed.contains("echo 1"), "{removed}");
    let in_use = objects(&kiln, &["--filter", "inuse"]);
    assert!(in_use.len() >= 3, "a base, a step, a cache mount: {in_use:?}");
    let mount = fs::read_dir(kiln.root().join("mounts")).unwrap().next().unwrap().unwrap().path();
    fs::write(mount.join("0/tree/go"), "").unwrap();
    let finished = Finished::wait(child);
    assert!(finished.status.success(), "{}", finished.stderr);
    assert_eq!(Image::read(&output).unwrap().text("/3"), "1\nc\n1\n");
    kiln.says("debug", &["verify"]);
}

#[test]
fn the_limit_holds() {
    let kiln = Kiln::new();
    let limit = 12 << 20;
    let build = |number: u32| {
        let context = Tree::dockerfile(&format!("FROM busybox\nRUN head -c 2000000 /dev/urandom > /{number}\n"));
        kiln.build(&context).args([format!("--keep-storage={limit}")]).ok()
    };
    for number in 0..8 {
        let finished = build(number);
        assert!(!finished.stderr.contains("more than the store may take"), "{}", finished.stderr);
        assert!(du(&kiln.root()) <= limit, "{} after {number}", du(&kiln.root()));
    }
    assert!(build(7).ran().is_empty(), "the newest is kept");
    let said = kiln.build(&context()).args(["--keep-storage=1m"]).ok();
    assert_eq!(said.report().matches("more than the store may take").count(), 1, "{}", said.report());
    kiln.says("debug", &["verify"]);
}

#[test]
fn prune_down_to_a_size() {
    let kiln = Kiln::new();
    kiln.build(&context()).ok();
    let before = du(&kiln.root());
    kiln.says("prune", &["--all", "--force", "--keep-storage", &(before - 500_000).to_string()]);
    let after = du(&kiln.root());
    assert!(after <= before - 500_000 && after > 0, "{before} {after}");
    assert!(kiln.says("prune", &["--force", "--keep-duration", "1h"]).contains("Total:\t0B"));
}

#[test]
fn a_store_of_format_1_is_taken_over() {
    let kiln = Kiln::new();
    let archive = Path::new(env!("CARGO_MANIFEST_DIR")).join("stores/format-1.tar.gz");
    fs::create_dir(kiln.root()).unwrap();
    tar::Archive::new(GzDecoder::new(fs::File::open(archive).unwrap())).unpack(kiln.root()).unwrap();
    let context = Tree::dockerfile(
        "FROM scratch AS files\nCOPY a /a\nCOPY b /dir/b\nFROM scratch\nCOPY --from=files /dir /dir\nCOPY a /again\n",
    )
    .file("a", "A\n")
    .file("b", "B\n");
    let finished = kiln.build(&context).ok();
    assert!(finished.ran().is_empty(), "{:?}", finished.ran());
    assert_eq!(fs::read_to_string(kiln.root().join("version")).unwrap(), "3\n");
    let table = kiln.says("du", &[]);
    assert!(table.contains("COPY a /again"), "{table}");
    let (said, real) = (amount(&table, "Total:"), du(&kiln.root()) as f64);
    assert!(close(said, real), "{said} is not {real}\n{table}");
    kiln.says("debug", &["verify"]);
    kiln.says("prune", &["--all", "--force"]);
    assert_eq!(kiln.build(&context).ok().cached().len(), 0);
}
