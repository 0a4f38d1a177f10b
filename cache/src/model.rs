//! The store against a model: whatever is put, used, pruned and lost with killed processes, in whatever order.

use crate::digest::Digest;
use crate::ledger::now_ms;
use crate::object::{Kind, ObjectId, measure};
use crate::prune::{Limits, Policy, plan_prune};
use crate::store::Store;
use crate::tree::{Layer, SnapshotId, stack};
use crate::verify::Mode;
use proptest::prelude::*;
use solver::key::{CacheKey, KeyRecipe};
use solver::record::{Record, RecordStore};
use std::collections::BTreeMap;
use std::fs;

#[derive(Clone, Debug)]
enum Action {
    /// Makes a snapshot with a record, on the one made before.
    Step(u8),
    Blob(u8),
    /// A process looks whether it is there, and relies on it.
    UseStep(u8),
    UseBlob(u8),
    Settle,
    /// The process dies: what it did not write down is lost.
    Die,
    Prune,
    PruneTo(u32),
    Remove(u8),
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        4 => (0u8..12).prop_map(Action::Step),
        2 => (0u8..12).prop_map(Action::Blob),
        2 => (0u8..12).prop_map(Action::UseStep),
        1 => (0u8..12).prop_map(Action::UseBlob),
        2 => Just(Action::Settle),
        2 => Just(Action::Die),
        1 => Just(Action::Prune),
        2 => (0u32..200_000).prop_map(Action::PruneTo),
        1 => (0u8..12).prop_map(Action::Remove),
    ]
}

fn recipe(number: u8) -> KeyRecipe {
    let mut recipe = KeyRecipe::new();
    recipe.push("step", number.to_string());
    recipe
}

fn content(number: u8) -> Vec<u8> {
    vec![number; usize::from(number) * 3000]
}

/// Makes a step's snapshot as a build does.
fn step(store: &Store, number: u8) -> SnapshotId {
    let mut draft = store.snapshots().prepare().unwrap();
    fs::write(draft.upper().join("file"), content(number)).unwrap();
    if number > 0 {
        draft.lies_on(&snapshot(number - 1));
    }
    let change = crate::checksum::change_digest(draft.upper()).unwrap();
    let id = snapshot(number);
    store.snapshots().commit(draft, &id).unwrap();
    let layer = Layer { snapshot: id.clone(), change, created_ms: Some(0), remote: None };
    let record = Record {
        name: format!("RUN {number}"),
        recipe: recipe(number),
        output: serde_json::to_vec(&layer).unwrap(),
        cost_ms: u64::from(number) * 100,
        observed: vec![],
    };
    store.insert(&recipe(number).key(), record).unwrap();
    id
}

fn snapshot(number: u8) -> SnapshotId {
    SnapshotId(stack(&CacheKey([0; 32]), &number.to_string()).to_hex())
}

fn run(actions: Vec<Action>) {
    let dir = tempfile::tempdir().unwrap();
    let mut store = Store::open(dir.path()).unwrap();
    let pruner = Store::open(dir.path()).unwrap();
    // What the process relies on, and what it must find there.
    let mut relied_on: BTreeMap<ObjectId, Vec<u8>> = BTreeMap::new();
    for action in actions {
        match action {
            Action::Step(number) => {
                let id = step(&store, number);
                relied_on.insert(ObjectId::new(Kind::Snapshot, id.0), content(number));
            }
            Action::Blob(number) => {
                let digest = store.content().put(&content(number)).unwrap();
                relied_on.insert(ObjectId::new(Kind::Blob, digest.hex()), content(number));
            }
            Action::UseStep(number) => {
                if store.snapshots().exists(&snapshot(number)) {
                    relied_on.insert(ObjectId::new(Kind::Snapshot, snapshot(number).0), content(number));
                }
            }
            Action::UseBlob(number) => {
                let digest = Digest::of(&content(number));
                if store.content().has(&digest).unwrap().is_some() {
                    relied_on.insert(ObjectId::new(Kind::Blob, digest.hex()), content(number));
                }
            }
            Action::Settle => store.settle().unwrap(),
            Action::Die => {
                drop(store);
                // As if its folder had been left behind.
                fs::create_dir(dir.path().join("ingest/1-dead")).unwrap();
                store = Store::open(dir.path()).unwrap();
                relied_on.clear();
            }
            Action::Prune => prune(&pruner, None),
            Action::PruneTo(bytes) => {
                prune(&pruner, Some(Limits { reserved: 0, max_used: Some(bytes.into()), min_free: None }));
            }
            Action::Remove(number) => {
                let id = ObjectId::new(Kind::Snapshot, snapshot(number).0);
                if !relied_on.contains_key(&id) {
                    // Somebody deletes it by hand.
                    let _ = fs::remove_dir_all(id.path(dir.path()));
                    store.forget(&recipe(number).key()).unwrap();
                }
            }
        }
        for (id, content) in &relied_on {
            let path = id.path(dir.path());
            let path = if id.kind == Kind::Snapshot { path.join("file") } else { path };
            assert_eq!(fs::read(&path).ok().as_ref(), Some(content), "{id:?} is gone");
        }
        for number in 0..12 {
            let has_record = store.lookup(&recipe(number).key()).unwrap().is_some();
            let path = ObjectId::new(Kind::Snapshot, snapshot(number).0).path(dir.path());
            assert!(!has_record || path.is_dir(), "the record of {number} outlived its snapshot");
        }
    }
    let report = pruner.verify(Mode::Look).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    pruner.empty_trash().unwrap();
    let said = pruner.usage().unwrap().total_bytes();
    let own = measure(pruner.inner.ingest.dir()).unwrap().bytes;
    assert_eq!(said + own, measure(dir.path()).unwrap().bytes);
}

fn prune(store: &Store, limits: Option<Limits>) {
    let usage = store.usage().unwrap();
    let policy = Policy { all: true, matches: &|_| true, used_before_ms: None, limits };
    let plan = plan_prune(&usage, policy, 0, now_ms());
    let before = objects_bytes(store);
    let removed = store.prune(&plan).unwrap();
    let freed: u64 = removed.iter().map(|object| object.size.bytes).sum();
    assert_eq!(before - objects_bytes(store), freed, "freed is not what was said");
    assert_eq!(removed, plan.remove, "nobody took leases meanwhile");
}

/// On disk: nothing that is written down.
fn objects_bytes(store: &Store) -> u64 {
    ["snapshots", "blobs"]
        .into_iter()
        .flat_map(|folder| {
            let folder = if folder == "blobs" { "blobs/sha256" } else { folder };
            fs::read_dir(store.root().join(folder)).unwrap()
        })
        .map(|entry| measure(&entry.unwrap().path()).unwrap().bytes)
        .sum()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, max_shrink_iters: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_keeps_its_promises(actions in prop::collection::vec(action(), 1..25)) {
        run(actions);
    }
}

#[test]
fn prune_takes_the_record_too() {
    use Action::*;
    run(vec![Step(0), Step(1), Blob(3), Settle, Die, Prune, Step(1), UseStep(1), Prune]);
}

#[test]
fn verify_finds_and_repairs() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(dir.path()).unwrap();
    step(&store, 1);
    step(&store, 2);
    let (bad, good) = (store.content().put(&content(4)).unwrap(), store.content().put(&content(5)).unwrap());
    // An image's layer: nothing tells what is in it but how much.
    let pulled = SnapshotId("ab".repeat(32));
    let draft = store.snapshots().prepare().unwrap();
    fs::write(draft.upper().join("f"), "x").unwrap();
    store.snapshots().commit(draft, &pulled).unwrap();
    store.settle().unwrap();
    drop(store);
    let damage = |path: &std::path::Path, text: &str| {
        fs::remove_file(path).unwrap();
        fs::write(path, text).unwrap();
    };
    let store = Store::open(dir.path()).unwrap();
    assert!(store.verify(Mode::Look).unwrap().findings.is_empty());
    damage(&store.content().path(&bad), "other");
    damage(&store.snapshots().path(&snapshot(1)).join("file"), "other");
    damage(&store.snapshots().path(&pulled).join("f"), "xyz");
    fs::remove_dir_all(store.snapshots().path(&snapshot(2))).unwrap();
    fs::write(dir.path().join("blobs/sha256/junk"), "").unwrap();
    // Entered is what is there, so that nothing but the record misses the second step.
    let found = store.verify(Mode::Look).unwrap();
    let texts: Vec<String> = found.findings.iter().map(|finding| finding.problem.to_string()).collect();
    for part in [bad.as_str(), &snapshot(1).0, &pulled.0, "junk"] {
        assert!(texts.iter().any(|text| text.contains(part)), "{part} is missing in {texts:?}");
    }
    assert!(!found.is_clean());
    let repaired = store.verify(Mode::Repair).unwrap();
    assert!(repaired.is_clean(), "{:?}", repaired.findings);
    assert!(store.verify(Mode::Look).unwrap().findings.is_empty());
    assert!(store.content().verify(&good).unwrap());
    assert!(!store.snapshots().exists(&snapshot(1)));
    assert_eq!(store.lookup(&recipe(1).key()).unwrap(), None);
}

#[test]
fn the_limit_holds() {
    let dir = tempfile::tempdir().unwrap();
    let limit = 800_000;
    for number in 0..60 {
        let store = Store::open(dir.path()).unwrap();
        store.set_limits(Limits { reserved: 0, max_used: Some(limit), min_free: None });
        store.reserve(20_000).unwrap();
        step(&store, number);
        store.content().put(&content(number)).unwrap();
        store.settle().unwrap();
        assert!(measure(dir.path()).unwrap().bytes <= limit, "after {number}");
        assert_eq!(store.take_remarks(), Vec::<String>::new());
    }
    let store = Store::open(dir.path()).unwrap();
    store.set_limits(Limits { reserved: 0, max_used: Some(150_000), min_free: None });
    for number in 20..24 {
        step(&store, number);
        store.reserve(0).unwrap();
    }
    // All of it is in use.
    assert!((20..24).all(|number| store.snapshots().exists(&snapshot(number))));
    store.settle().unwrap();
    assert_eq!(store.take_remarks().len(), 1, "said once");
}

/// Runs in a process of its own, for the test below.
#[test]
fn prune_child() {
    let Some(root) = std::env::var_os("KILN_TEST_PRUNE") else { return };
    let store = Store::open(std::path::Path::new(&root)).unwrap();
    prune(&store, None);
    unreachable!("the fail point is not on the way");
}

#[cfg(feature = "failpoints")]
#[test]
fn death_while_pruning_leaves_a_sound_store() {
    for point in ["prune.struck", "prune.discarded"] {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (0..4).for_each(|number| drop(step(&store, number)));
        store.settle().unwrap();
        drop(store);
        let mut child = std::process::Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "model::prune_child"]).env("KILN_TEST_PRUNE", dir.path()).env("KILN_FAILPOINT", point);
        assert!(!child.output().unwrap().status.success(), "{point}");
        let store = Store::open(dir.path()).unwrap();
        let report = store.verify(Mode::Look).unwrap();
        assert!(report.findings.is_empty() && report.records == 0, "{point}: {report:?}");
        assert_eq!(report.snapshots, if point == "prune.struck" { 4 } else { 3 }, "{point}");
        (0..4).for_each(|number| drop(step(&store, number)));
        assert!(store.verify(Mode::Look).unwrap().findings.is_empty(), "{point}");
    }
}
