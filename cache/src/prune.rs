//! What to remove, and removing it. The plan is a pure function of what there is and what is asked for.
//!
//! What goes first is what it costs least to lose: an object is worth the time that it took to make, for each byte
//! that it takes, less the longer ago it was used. A snapshot is worth at least what those on top of it are worth,
//! which are of no use without it, so the topmost go first.

use crate::claim;
use crate::error::{FileError, StoreError};
use crate::failpoint::fail_point;
use crate::ingest;
use crate::lease::Remover;
use crate::ledger::strike;
use crate::object::{Kind, ObjectId};
use crate::runs;
use crate::store::Store;
use crate::usage::{Object, Usage};
use rusqlite::{ErrorCode, OptionalExtension, params};
use rustix::fs::FlockOperation;
use solver::key::CacheKey;
use std::collections::HashMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Objects that are struck out of the database together.
const BATCH: usize = 64;

/// How much the store may take. BuildKit's three numbers (reference/engine.md 3.8), in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// It is made no smaller than this.
    pub reserved: u64,
    /// It is made no larger than this; `None`: no such limit.
    pub max_used: Option<u64>,
    /// It is made smaller while the disk has less free than this.
    pub min_free: Option<u64>,
}

impl Limits {
    /// What the store may take now, if it takes `total` and the disk has `free`. `None`: anything.
    pub fn allowed(&self, total: u64, free: u64) -> Option<u64> {
        let mut allowed = self.max_used;
        if let Some(lacking) = self.min_free.and_then(|wanted| wanted.checked_sub(free)).filter(|lacking| *lacking > 0)
        {
            let shrunk = total.saturating_sub(lacking);
            allowed = Some(allowed.map_or(shrunk, |allowed| allowed.min(shrunk)));
        }
        allowed.map(|allowed| allowed.max(self.reserved))
    }
}

/// What is asked for.
#[derive(Clone, Copy)]
pub struct Policy<'a> {
    /// Also logs, and what several others lie on.
    pub all: bool,
    /// Only these.
    pub matches: &'a dyn Fn(&Object) -> bool,
    /// Not what was used later than this, milliseconds since 1970.
    pub used_before_ms: Option<i64>,
    /// Only as much as these want to be gone; `None`: everything.
    pub limits: Option<Limits>,
}

/// What will be removed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct PrunePlan {
    /// In this order.
    pub remove: Vec<Object>,
}

impl PrunePlan {
    /// Bytes that will be free.
    pub fn bytes(&self) -> u64 {
        self.remove.iter().map(|object| object.size.bytes).sum()
    }
}

/// Decides what to remove. `free` is what the disk has left in bytes, `now_ms` milliseconds since 1970.
///
/// Invariant: nothing in use is planned to be removed, and nothing that a named image holds.
pub fn plan_prune(usage: &Usage, policy: Policy<'_>, free: u64, now_ms: i64) -> PrunePlan {
    let may_go = |object: &&Object| {
        !object.in_use
            && object.images.is_empty()
            && (policy.all || !(object.shared || object.id.kind == Kind::Log))
            && policy.used_before_ms.is_none_or(|before| object.used_ms < before)
            && (policy.matches)(object)
    };
    let worth = worths(usage, now_ms);
    let mut candidates: Vec<(&Object, Worth)> =
        usage.objects.iter().filter(may_go).map(|object| (object, worth[&object.id])).collect();
    candidates.sort_by(|(one, a), (other, b)| {
        a.value.total_cmp(&b.value).then(b.depth.cmp(&a.depth)).then_with(|| one.id.cmp(&other.id))
    });
    let mut total = usage.total_bytes();
    let target = match policy.limits {
        None => None,
        Some(limits) => match limits.allowed(total, free) {
            None => return PrunePlan::default(),
            target => target,
        },
    };
    let mut plan = PrunePlan::default();
    for (object, _) in candidates {
        if target.is_some_and(|target| total <= target) {
            break;
        }
        total -= object.size.bytes;
        plan.remove.push(object.clone());
    }
    plan
}

#[derive(Clone, Copy)]
struct Worth {
    value: f64,
    /// Snapshots below.
    depth: u32,
}

fn worths(usage: &Usage, now_ms: i64) -> HashMap<ObjectId, Worth> {
    let own = |object: &Object| {
        // A minute, so that two things used by the same build compare by what they cost.
        let age_ms = (now_ms - object.used_ms).max(0) + 60_000;
        // Less than a block is no gain.
        (object.cost_ms + 1) as f64 / object.size.bytes.max(4096) as f64 / age_ms as f64
    };
    let snapshots: HashMap<&str, &Object> = usage
        .objects
        .iter()
        .filter(|object| object.id.kind == Kind::Snapshot)
        .map(|object| (&*object.id.name, object))
        .collect();
    let below = |object: &Object| object.parent.as_deref().and_then(|parent| snapshots.get(parent).copied());
    let mut worths: HashMap<ObjectId, Worth> =
        usage.objects.iter().map(|object| (object.id.clone(), Worth { value: own(object), depth: 0 })).collect();
    for object in snapshots.values() {
        let value = own(object);
        let mut at = below(object);
        let mut depth = 0;
        // Names are digests of what is below, so there is no circle; a damaged ledger may claim one.
        while let Some(parent) = at.filter(|_| depth < 10_000) {
            depth += 1;
            if let Some(worth) = worths.get_mut(&parent.id) {
                worth.value = worth.value.max(value);
            }
            at = below(parent);
        }
        if let Some(worth) = worths.get_mut(&object.id) {
            worth.depth = depth;
        }
    }
    worths
}

impl Store {
    /// Removes what is planned, except what has come into use since; gives what was removed. Its files are deleted
    /// when this returns.
    pub fn prune(&self, plan: &PrunePlan) -> Result<Vec<Object>, StoreError> {
        let remover = Remover::open(self.root())?;
        let mut removed = vec![];
        let (named, locked): (Vec<&Object>, Vec<&Object>) =
            plan.remove.iter().partition(|object| matches!(object.id.kind, Kind::Snapshot | Kind::Blob));
        for batch in named.chunks(BATCH) {
            removed.extend(self.remove_named(batch, &remover)?.into_iter().cloned());
            remover.release()?;
        }
        for object in locked {
            if self.remove_locked(&object.id)? {
                removed.push(object.clone());
            }
        }
        claim::sweep(&self.claims_dir())?;
        ingest::empty_trash_waiting(self.root())?;
        Ok(removed)
    }

    /// Throws away all that was found out once and can be found out again, and gives its space back to the disk.
    pub fn forget_memos(&self) -> Result<(), StoreError> {
        self.inner.db.write("forget what was remembered", |db| {
            db.execute_batch(
                "DELETE FROM stats; DELETE FROM selections; DELETE FROM listings;
                 DELETE FROM layer_blobs WHERE NOT EXISTS (
                     SELECT 1 FROM objects WHERE kind = 'blob'
                     AND name = substr(json_extract(layer_blobs.blob, '$.descriptor.digest'), 8));",
            )?;
            runs::forget_old(db)
        })?;
        let compacted = self.inner.db.read("compact", |db| {
            db.execute_batch("VACUUM")?;
            db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        });
        match compacted {
            // Builds are at it, or there is no room for a copy. The pages that are free are used again.
            Err(StoreError::Database { source, .. })
                if matches!(
                    source.sqlite_error_code(),
                    Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked | ErrorCode::DiskFull)
                ) =>
            {
                Ok(())
            }
            compacted => compacted,
        }
    }

    /// Snapshots and blobs.
    fn remove_named<'a>(&self, batch: &[&'a Object], remover: &Remover) -> Result<Vec<&'a Object>, StoreError> {
        let mut taken = vec![];
        for object in batch {
            if remover.take(&object.id)? {
                taken.push(*object);
            }
        }
        // A build may have used or pinned it and ended, since the plan was made.
        let pinned = self.pinned()?;
        taken.retain(|object| !pinned.contains(&object.id));
        self.inner.ledger.take_journal()?;
        let unused = self.inner.db.read("look when objects were used", |db| {
            let mut select = db.prepare_cached("SELECT used_ms FROM objects WHERE kind = ?1 AND name = ?2")?;
            let mut unused = vec![];
            for object in &taken {
                let used: Option<i64> =
                    select.query_row(params![object.id.kind.as_str(), object.id.name], |row| row.get(0)).optional()?;
                if used.is_none_or(|used| used <= object.used_ms) {
                    unused.push(*object);
                }
            }
            Ok(unused)
        })?;
        // An image may have got its name since, too.
        let held = self.held_by_images()?;
        let unused: Vec<&Object> = unused.into_iter().filter(|object| !held.contains_key(&object.id)).collect();
        let ids: Vec<ObjectId> = unused.iter().map(|object| object.id.clone()).collect();
        let strike_out = || self.inner.db.write("strike out what is removed", |db| strike(db, &ids));
        match strike_out() {
            // Even that takes space. What goes first then are the files; a record without its snapshot is a miss.
            Err(StoreError::Database { source, .. }) if source.sqlite_error_code() == Some(ErrorCode::DiskFull) => {
                self.discard_files(&ids)?;
                ingest::empty_trash_waiting(self.root())?;
                strike_out()?;
            }
            struck => {
                struck?;
                fail_point!("prune.struck");
                self.discard_files(&ids)?;
            }
        }
        Ok(unused)
    }

    fn discard_files(&self, ids: &[ObjectId]) -> Result<(), StoreError> {
        for id in ids {
            self.discard(&id.path(self.root()))?;
            fail_point!("prune.discarded");
            if id.kind == Kind::Snapshot {
                for beside in beside(self.root(), &id.name) {
                    self.discard(&beside)?;
                }
            }
        }
        Ok(())
    }

    /// Objects that have locks of their own; `false` if somebody uses it.
    fn remove_locked(&self, id: &ObjectId) -> Result<bool, StoreError> {
        let path = id.path(self.root());
        let _lock = match id.kind {
            Kind::Git => {
                // A repository has the name of the key that its users claim.
                let Some(key) = CacheKey::from_hex(&id.name) else { return Ok(false) };
                match claim::try_claim(&self.claims_dir(), &key)? {
                    Some(claim) => Lock::Claim(claim),
                    None => return Ok(false),
                }
            }
            Kind::Log => match lock_exclusive(&path.join("running"))? {
                Some(lock) => lock,
                None => return Ok(false),
            },
            _ => match lock_exclusive(&path.join("lock"))? {
                Some(lock) => lock,
                None => return Ok(false),
            },
        };
        let ids = [id.clone()];
        self.inner.db.write("strike out what is removed", |db| strike(db, &ids))?;
        self.discard(&path)?;
        if id.kind == Kind::CacheMount
            && let Some(folder) = path.parent()
        {
            let is_empty =
                fs::read_dir(folder).is_ok_and(|mut entries| entries.all(|e| e.is_ok_and(|e| !e.path().is_dir())));
            if is_empty {
                let _ = fs::remove_file(folder.join("about"));
                let _ = fs::remove_dir(folder);
            }
        }
        Ok(true)
    }
}

/// Held while something is removed.
enum Lock {
    Claim(#[allow(dead_code, reason = "held, not looked at")] claim::Claim),
    File(#[allow(dead_code, reason = "held, not looked at")] File),
    /// There is no lock, so nobody has got that far.
    None,
}

/// `None`: somebody holds it.
fn lock_exclusive(path: &Path) -> Result<Option<Lock>, FileError> {
    let file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Some(Lock::None)),
        file => file.map_err(FileError::at("open", path))?,
    };
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        return Ok(None);
    }
    let named = fs::metadata(path).map(|meta| (meta.dev(), meta.ino())).ok();
    let ours = file.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
    // Else another process has just removed it, and somebody may have begun it anew.
    Ok((named.is_some() && named == ours).then_some(Lock::File(file)))
}

/// The files beside a snapshot that belong to it.
fn beside(root: &Path, name: &str) -> Vec<std::path::PathBuf> {
    // There is one kind so far, and listing the folder for each snapshot would take long.
    let path = root.join(Kind::Snapshot.folder()).join(format!("{name}.owners"));
    if path.symlink_metadata().is_ok() { vec![path] } else { vec![] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::Size;
    use proptest::prelude::*;

    fn object(kind: Kind, name: &str, bytes: u64) -> Object {
        Object {
            id: ObjectId::new(kind, name),
            size: Size { bytes, inodes: 1, length: bytes },
            created_ms: 0,
            used_ms: 0,
            uses: 1,
            parent: None,
            description: String::new(),
            category: String::new(),
            cost_ms: 100,
            in_use: false,
            shared: false,
            images: vec![],
        }
    }

    const ALL: Policy<'static> = Policy { all: true, matches: &|_| true, used_before_ms: None, limits: None };

    fn names(plan: &PrunePlan) -> Vec<&str> {
        plan.remove.iter().map(|object| object.id.name.as_str()).collect()
    }

    fn up_to(bytes: u64) -> Option<Limits> {
        Some(Limits { reserved: 0, max_used: Some(bytes), min_free: None })
    }

    #[test]
    fn the_cheapest_and_oldest_go_first() {
        const MB: u64 = 1 << 20;
        let cheap = object(Kind::Snapshot, "cheap", MB);
        let dear = Object { cost_ms: 60_000, ..object(Kind::Snapshot, "dear", MB) };
        let large = Object { cost_ms: 60_000, ..object(Kind::Snapshot, "large", 1000 * MB) };
        let fresh = Object { used_ms: 10_000_000, ..object(Kind::Snapshot, "fresh", MB) };
        let usage = Usage { objects: vec![dear, fresh, cheap, large], other_bytes: 0 };
        let plan = plan_prune(&usage, ALL, 0, 10_000_000);
        assert_eq!(names(&plan), ["large", "cheap", "fresh", "dear"]);
        let plan = plan_prune(&usage, Policy { limits: up_to(3 * MB), ..ALL }, 0, 10_000_000);
        assert_eq!(names(&plan), ["large"]);
        let plan = plan_prune(&usage, Policy { used_before_ms: Some(5), ..ALL }, 0, 10_000_000);
        assert_eq!(plan.remove.len(), 3);
    }

    #[test]
    fn logs_and_what_is_shared_stay_unless_all_goes() {
        let shared = Object { shared: true, ..object(Kind::Snapshot, "shared", 1) };
        let used = Object { in_use: true, ..object(Kind::Blob, "used", 1) };
        let objects = vec![shared, used, object(Kind::Log, "log", 1), object(Kind::Git, "git", 1)];
        let usage = Usage { objects, other_bytes: 0 };
        assert_eq!(names(&plan_prune(&usage, Policy { all: false, ..ALL }, 0, 0)), ["git"]);
        assert_eq!(plan_prune(&usage, ALL, 0, 0).remove.len(), 3);
    }

    #[test]
    fn the_three_limits() {
        let check = |reserved, max_used, min_free, expect: Option<u64>| {
            let limits = Limits { reserved, max_used, min_free };
            assert_eq!(limits.allowed(100, 10), expect, "{limits:?}");
        };
        check(0, None, None, None);
        check(0, Some(50), None, Some(50));
        check(60, Some(50), None, Some(60));
        check(0, None, Some(5), None);
        check(0, None, Some(40), Some(70));
        check(0, Some(80), Some(40), Some(70));
        check(90, None, Some(400), Some(90));
    }

    proptest! {
        #[test]
        fn plans_keep_their_promises(
            seeds in prop::collection::vec((0u64..5000, 0i64..1000, 0u64..1000, any::<bool>(), any::<prop::sample::Index>()), 1..40),
            limit in 0u64..60_000,
        ) {
            let mut objects: Vec<Object> = vec![];
            for (number, (bytes, used_ms, cost_ms, in_use, parent)) in seeds.iter().enumerate() {
                let parent = (number > 0 && number % 3 > 0).then(|| parent.index(number).to_string());
                let object = object(Kind::Snapshot, &number.to_string(), *bytes);
                objects.push(Object { used_ms: *used_ms, cost_ms: *cost_ms, in_use: *in_use && number % 5 == 0, parent, ..object });
            }
            let usage = Usage { objects, other_bytes: 7 };
            let plan = plan_prune(&usage, Policy { limits: up_to(limit), ..ALL }, 0, 1000);
            prop_assert!(plan.remove.iter().all(|object| !object.in_use));
            let left = usage.total_bytes() - plan.bytes();
            let free = usage.objects.iter().filter(|object| !object.in_use).count();
            prop_assert!(left <= limit || plan.remove.len() == free);
            if let Some(last) = plan.remove.last() {
                prop_assert!(left + last.size.bytes > limit, "one too many");
            }
            for (at, object) in plan.remove.iter().enumerate() {
                let is_below = |later: &Object| later.parent.as_deref() == Some(&*object.id.name);
                prop_assert!(!plan.remove[at..].iter().any(is_below), "a parent goes before its child");
            }
        }
    }
}
