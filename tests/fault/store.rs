//! What is damaged in the store, and a store whose users are killed at any moment.

use harness::{Image, Kiln, Registry, Tree};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

fn context() -> Tree {
    Tree::dockerfile("FROM busybox\nCOPY a /a\nRUN cat /a /a > /b\n").file("a", "A")
}

/// Changes a byte in the middle, or all after it is gone.
fn damage(path: &Path, whole: bool) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    match whole {
        true => bytes[middle] ^= 1,
        false => bytes.truncate(middle),
    }
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

fn blobs(kiln: &Kiln) -> Vec<PathBuf> {
    fs::read_dir(kiln.root().join("blobs/sha256")).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn damaged_blobs_are_made_again() {
    for whole in [true, false] {
        let kiln = Kiln::new();
        let context = context();
        let good = kiln.image(&context);
        blobs(&kiln).iter().for_each(|blob| damage(blob, whole));
        let verdict = kiln.run("debug", &["verify"]);
        assert_eq!(verdict.status.code(), Some(3), "{}", verdict.text());
        let output = kiln.out("again.tar");
        let finished = kiln.build(&context).output("oci", &output).ok();
        finished.says(&["was damaged in the store"]);
        let image = Image::read(&output).unwrap();
        assert_eq!((image.digest, finished.ran()), (good.digest, vec![]));
        kiln.says("debug", &["verify"]);
    }
}

#[test]
fn verify_repairs() {
    let kiln = Kiln::new();
    let context = context();
    kiln.image(&context);
    blobs(&kiln).iter().for_each(|blob| damage(blob, true));
    for entry in fs::read_dir(kiln.root().join("snapshots")).unwrap() {
        let file = entry.unwrap().path().join("b");
        if file.exists() {
            damage(&file, true);
        }
    }
    let found = kiln.run("debug", &["verify"]);
    assert!(found.text().contains("is not what its step made"), "{}", found.text());
    kiln.says("debug", &["verify", "--repair"]);
    kiln.says("debug", &["verify"]);
    let finished = kiln.build(&context).ok();
    assert_eq!(finished.ran().len(), 1, "{:?}", finished.ran());
    assert_eq!(kiln.image(&context).text("/b"), "AA");
}

#[test]
fn a_missing_snapshot_and_a_damaged_database_are_misses() {
    let kiln = Kiln::new();
    let context = context();
    kiln.build(&context).ok();
    for entry in fs::read_dir(kiln.root().join("snapshots")).unwrap() {
        let path = entry.unwrap().path();
        if path.join("b").exists() {
            fs::remove_dir_all(path).unwrap();
        }
    }
    let finished = kiln.build(&context).ok();
    assert_eq!(finished.ran().len(), 1, "{:?}", finished.ran());
    finished.says(&["is missing from the store"]);
    assert!(kiln.build(&context).ok().ran().is_empty());

    for name in ["db-wal", "db-shm"] {
        let _ = fs::remove_file(kiln.root().join(name));
    }
    fs::write(kiln.root().join("db"), vec![b'?'; 20_000]).unwrap();
    let finished = kiln.build(&context).ok();
    finished.says(&["database was damaged"]);
    assert_eq!(finished.ran().len(), 2);
    assert_eq!(kiln.image(&context).text("/b"), "AA");
    kiln.says("debug", &["verify"]);
}

/// Kills builds, prunes, and exports to and imports from a remote cache at any moment. `KILN_KILLS` says how many.
#[test]
fn killed_at_any_moment() {
    let kills: u64 = std::env::var("KILN_KILLS").map_or(60, |text| text.parse().expect("KILN_KILLS is a number"));
    let kiln = Kiln::new();
    let contexts: Vec<Tree> = (0..4)
        .map(|number| {
            Tree::dockerfile(
                "FROM busybox\nCOPY a /a\nRUN head -c 200000 /dev/zero > /z; cat /a /a > /b\nRUN cat /b > /c\n",
            )
            .file("a", &number.to_string())
        })
        .collect();
    kiln.build(&contexts[0]).ok();
    let place = format!("type=registry,ref={}/kills/app:cache", Registry::shared().host);
    let cache = [format!("--cache-from={place}"), format!("--cache-to={place},mode=max")];
    // Of a fixed sequence, so that a failure can be had again.
    let mut random = 7u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for _ in 0..kills {
        let mut children = vec![];
        for _ in 0..2 {
            children.push(match next(4) {
                0 => {
                    let mut command = kiln.command("prune");
                    command.args(["--force", "--all", "--keep-storage", &next(4_000_000).to_string()]);
                    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
                }
                kind => {
                    let build = kiln.build(&contexts[next(4) as usize]);
                    let flags = if kind == 1 { &cache[..] } else { &[] };
                    build.args(flags).output("oci", &kiln.out(&format!("{}.tar", next(4)))).spawn()
                }
            });
        }
        std::thread::sleep(Duration::from_millis(next(200)));
        for mut child in children {
            let _ = kill_process(Pid::from_child(&child), Signal::KILL);
            child.wait().unwrap();
        }
    }
    kiln.says("debug", &["verify"]);
    for (number, context) in contexts.iter().enumerate() {
        assert_eq!(kiln.image(context).text("/c"), format!("{number}{number}"));
    }
    kiln.says("prune", &["--force", "--all"]);
    kiln.says("debug", &["verify"]);
    // What was exported in between is good as well, however far each got.
    for (number, context) in contexts.iter().enumerate() {
        let folder = kiln.out(&format!("imported-{number}"));
        kiln.build(context).args(&cache[..1]).output("local", &folder).ok();
        assert_eq!(fs::read_to_string(folder.join("c")).unwrap(), format!("{number}{number}"));
    }
    kiln.says("debug", &["verify"]);
}
