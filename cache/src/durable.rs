//! What a loss of power may have taken.
//!
//! Blobs and snapshots are renamed in without being synced: as long as the kernel runs that is as good, and to wait for the
//! disk takes longer than many builds. After the kernel stopped, names may be there and bytes not. So what was not
//! confirmed to be on the disk by then is suspect: it is compared with its digest when it is first used, and goes if it is
//! not what it was. Processes that come a minute later confirm it, beside their own work.

use crate::checksum::change_digest;
use crate::db::Db;
use crate::error::{FileError, StoreError};
use crate::ledger::now_ms;
use crate::memo::{note, put_note};
use crate::object::{Kind, ObjectId};
use crate::owners;
use crate::store::Store;
use crate::tree::{Layer, SnapshotId};
use rusqlite::{OptionalExtension, params};
use rustix::fs::{Mode, OFlags};
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::UNIX_EPOCH;

/// By then the kernel has written most of it by itself (`dirty_expire_centisecs` is 30 s), so that syncing is quick.
const WRITTEN_AFTER_MS: i64 = 60_000;
/// A store that is written to all the time is synced nevertheless.
const AT_LATEST_MS: i64 = 600_000;

/// Notes in the store.
const NOTES: &str = "store";
const SYNCED_MS: &str = "synced_ms";
const BOOT_ID: &str = "boot_id";

/// Objects that have to be looked at before they are used. Almost always none.
pub(crate) struct Suspects {
    db: Arc<Db>,
    ids: Mutex<HashSet<ObjectId>>,
}

impl Suspects {
    /// Reads which those are.
    pub fn read(db: Arc<Db>) -> Result<Suspects, StoreError> {
        let rows: Vec<(String, String)> = db.read("read what is suspect", |db| {
            let mut select = db.prepare_cached("SELECT kind, name FROM suspects")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        let id = |(kind, name): (String, String)| Some(ObjectId::new(Kind::parse(&kind)?, name));
        let ids = Mutex::new(rows.into_iter().filter_map(id).collect());
        Ok(Suspects { db, ids })
    }

    /// Whether an object may be used. A suspect is looked at by `is_sound`; whoever asks for any meanwhile waits. One that is
    /// not sound is for the caller to remove.
    pub fn may_use(
        &self,
        id: &ObjectId,
        is_sound: impl FnOnce() -> Result<bool, StoreError>,
    ) -> Result<bool, StoreError> {
        let mut ids = self.ids.lock().unwrap_or_else(PoisonError::into_inner);
        if !ids.contains(id) {
            return Ok(true);
        }
        let is_sound = is_sound()?;
        self.db.write("clear a suspect", |db| {
            db.execute("DELETE FROM suspects WHERE kind = ?1 AND name = ?2", params![id.kind.as_str(), id.name])
                .map(drop)
        })?;
        ids.remove(id);
        Ok(is_sound)
    }

    /// Whether a snapshot is what its step made. Of one that no step made, as a layer of a base image, that cannot be told.
    pub fn is_sound(&self, snapshot: &SnapshotId, path: &Path) -> Result<bool, StoreError> {
        let output: Option<Vec<u8>> = self.db.read("look up what made a snapshot", |db| {
            db.query_row("SELECT output FROM records WHERE snapshot = ?1", [&snapshot.0], |row| row.get(0)).optional()
        })?;
        let layer = output.and_then(|output| serde_json::from_slice::<Layer>(&output).ok());
        Ok(layer.is_some_and(|layer| change_digest(path).is_ok_and(|change| change == layer.change)))
    }
}

/// What is known to be on the disk.
#[derive(Clone)]
pub(crate) struct Durable {
    root: PathBuf,
    db: Arc<Db>,
}

impl Store {
    /// Waits until all that is stored is on the disk, and remembers that it is.
    pub fn sync(&self) -> Result<(), StoreError> {
        self.durable().sync()
    }

    /// What is known to be on the disk.
    pub(crate) fn durable(&self) -> Durable {
        Durable::new(self.root(), self.inner.db.clone())
    }
}

impl Durable {
    /// Of the store in `root`.
    pub fn new(root: &Path, db: Arc<Db>) -> Durable {
        Durable { root: root.to_path_buf(), db }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let started_ms = now_ms();
        let unconfirmed = self.unconfirmed()?;
        let dir = rustix::fs::open(&self.root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(FileError::at("open", &self.root))?;
        rustix::fs::syncfs(&dir).map_err(FileError::at("sync", &self.root))?;
        self.db.write("mark what is on the disk", |db| {
            let mut insert = db.prepare_cached("INSERT OR IGNORE INTO durable (kind, name) VALUES (?1, ?2)")?;
            unconfirmed.iter().try_for_each(|id| insert.execute([id.kind.as_str(), &id.name]).map(drop))
        })?;
        put_note(&self.db, NOTES, SYNCED_MS, started_ms.to_string().as_bytes())
    }

    /// As [`Store::sync`], if something was stored since the last time and the kernel had time to write it.
    pub fn sync_what_is_old(&self) -> Result<(), StoreError> {
        let synced_ms = note(&self.db, NOTES, SYNCED_MS)?.and_then(|text| String::from_utf8(text).ok()?.parse().ok());
        let synced_ms: i64 = synced_ms.unwrap_or_default();
        let newest_ms = folders(&self.root).map(|(_, path)| modified_ms(&path)).into_iter().max().unwrap_or_default();
        let now = now_ms();
        let is_written = now - newest_ms > WRITTEN_AFTER_MS || now - synced_ms > AT_LATEST_MS;
        if newest_ms >= synced_ms && is_written { self.sync() } else { Ok(()) }
    }

    /// Makes suspects of what was not synced before the machine stopped. To be called when the store is opened, under its
    /// lock.
    pub fn distrust_after_reboot(&self) -> Result<(), StoreError> {
        let Ok(boot) = fs::read("/proc/sys/kernel/random/boot_id") else { return Ok(()) };
        let known = note(&self.db, NOTES, BOOT_ID)?;
        if known.as_deref() == Some(&boot) {
            return Ok(());
        }
        if known.is_some() {
            let unconfirmed = self.unconfirmed()?;
            self.db.write("mark what is suspect", |db| {
                let mut insert = db.prepare_cached("INSERT OR IGNORE INTO suspects (kind, name) VALUES (?1, ?2)")?;
                unconfirmed.iter().try_for_each(|id| insert.execute([id.kind.as_str(), &id.name]).map(drop))
            })?;
        }
        put_note(&self.db, NOTES, BOOT_ID, &boot)
    }

    /// What is stored and was never confirmed to be on the disk.
    fn unconfirmed(&self) -> Result<Vec<ObjectId>, StoreError> {
        let mut found = Vec::new();
        for (kind, folder) in folders(&self.root) {
            for entry in fs::read_dir(&folder).map_err(FileError::at("list", &folder))? {
                let name = entry.map_err(FileError::at("list", &folder))?.file_name();
                // A list of owners goes with its snapshot.
                let name = name.into_string().ok().filter(|name| !owners::is_list(name));
                found.extend(name.map(|name| ObjectId::new(kind, name)));
            }
        }
        if found.is_empty() {
            return Ok(found);
        }
        let confirmed: HashSet<(String, String)> = self.db.read("read what is on the disk", |db| {
            let mut select = db.prepare_cached("SELECT kind, name FROM durable")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })?;
        found.retain(|id| !confirmed.contains(&(id.kind.as_str().to_string(), id.name.clone())));
        Ok(found)
    }
}

fn folders(root: &Path) -> [(Kind, PathBuf); 2] {
    [(Kind::Snapshot, root.join("snapshots")), (Kind::Blob, root.join("blobs/sha256"))]
}

/// When a folder last got or lost an entry; long ago if it cannot be told.
fn modified_ms(path: &Path) -> i64 {
    let modified = fs::metadata(path).and_then(|meta| meta.modified()).ok();
    modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).map_or(0, |since| since.as_millis() as i64)
}

#[cfg(test)]
mod tests {
    use crate::digest::Digest;
    use crate::store::Store;
    use crate::test_tree::make;
    use crate::tree::{Layer, SnapshotId};
    use solver::key::{CacheKey, KeyRecipe};
    use solver::record::{Record, RecordStore};
    use std::fs;
    use std::path::Path;

    /// A snapshot and a blob, made by a step of this name.
    fn store_both(store: &Store, name: &str) -> (SnapshotId, Digest) {
        let draft = store.snapshots().prepare().unwrap();
        make(draft.upper(), &[&format!("f file {name}")]);
        let change = crate::checksum::change_digest(draft.upper()).unwrap();
        let snapshot = SnapshotId(CacheKey([name.len() as u8; 32]).to_hex());
        store.snapshots().commit(draft, &snapshot).unwrap();
        let layer = Layer { snapshot: snapshot.clone(), change, created_ms: None, remote: None };
        let mut recipe = KeyRecipe::new();
        recipe.push("step", name);
        let output = serde_json::to_vec(&layer).unwrap();
        let key = recipe.key();
        store.insert(&key, Record { name: name.into(), recipe, output, cost_ms: 0, observed: vec![] }).unwrap();
        (snapshot, store.content().put(name.as_bytes()).unwrap())
    }

    fn damage(root: &Path, (snapshot, blob): &(SnapshotId, Digest)) {
        fs::write(root.join("snapshots").join(&snapshot.0).join("file"), "").unwrap();
        let path = root.join("blobs/sha256").join(blob.hex());
        fs::remove_file(&path).unwrap();
        fs::write(path, "").unwrap();
    }

    #[test]
    fn what_was_not_synced_is_looked_at_after_a_reboot() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let synced = store_both(&store, "a");
        store.sync().unwrap();
        let (whole, lost) = (store_both(&store, "bb"), store_both(&store, "ccc"));
        store.put_note("store", "boot_id", b"an earlier one").unwrap();
        damage(dir.path(), &lost);
        // It is not forgotten when the first process after the reboot ends.
        drop(Store::open(dir.path()).unwrap());
        let later = Store::open(dir.path()).unwrap();
        for (of, is_there) in [(&synced, true), (&whole, true), (&lost, false)] {
            assert_eq!(later.snapshots().exists(&of.0), is_there);
            assert_eq!(later.content().has(&of.1).unwrap().is_some(), is_there);
            assert_eq!(later.content().open(&of.1).is_ok(), is_there);
        }
        assert_eq!(later.take_damaged_blobs(), std::slice::from_ref(&lost.1));
        // Made again, they are as good as any.
        let again = store_both(&later, "ccc");
        assert!(later.snapshots().exists(&again.0) && later.content().has(&again.1).unwrap().is_some());
    }

    #[test]
    fn only_what_is_old_is_synced_aside() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        store_both(&store, "a");
        store.put_note("store", "synced_ms", (crate::ledger::now_ms() - 1000).to_string().as_bytes()).unwrap();
        store.durable().sync_what_is_old().unwrap();
        assert_eq!(store.durable().unconfirmed().unwrap().len(), 2);
        store.put_note("store", "synced_ms", b"0").unwrap();
        store.durable().sync_what_is_old().unwrap();
        assert!(store.durable().unconfirmed().unwrap().is_empty());
    }
}
