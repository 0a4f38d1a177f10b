//! What is written down of objects: how large, since when, last used, by how many builds, made from what.
//!
//! A build keeps its entries in memory and writes them in one transaction, at its end or when it has grown much. One
//! that made nothing, and so has not written to the database, appends a line for each object to the file `used`: the
//! transaction would cost it more than all else, and 128 of them at once would queue. What
//! a killed build did not write is found by `usage.rs`, which looks at the disk; so an entry may be missing for a
//! while, and nothing but sizes and dates depends on it.

use crate::db::Db;
use crate::error::{FileError, StoreError};
use crate::lease::Leases;
use crate::object::{Kind, ObjectId, Size};
use rusqlite::{Connection, params};
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// What an object is, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// One line: the step, or where it was pulled from.
    pub description: String,
    /// `du`'s type, such as `source.local`; empty for the kind's own.
    pub category: &'static str,
}

/// Counts and sizes of this process' doings, until they are in the database.
pub(crate) struct Ledger {
    root: PathBuf,
    db: Arc<Db>,
    leases: Leases,
    pending: Mutex<Pending>,
}

/// The file `used` is taken into the database when it is larger than this.
const JOURNAL_BYTES: u64 = 256 << 10;

#[derive(Default)]
struct Pending {
    made: HashMap<ObjectId, (Size, Option<String>)>,
    about: HashMap<ObjectId, About>,
    counted: HashSet<ObjectId>,
}

impl Ledger {
    pub fn open(root: &Path, db: Arc<Db>) -> Result<Ledger, FileError> {
        Ok(Ledger { root: root.to_owned(), db, leases: Leases::open(root)?, pending: Mutex::default() })
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before looking whether an object is there: see `lease.rs`.
    pub fn uses(&self, id: &ObjectId) -> Result<(), FileError> {
        self.leases.hold(id)
    }

    /// An object has come into being. `parent` is the snapshot that it lies on.
    pub fn made(&self, id: ObjectId, size: Size, parent: Option<String>) {
        self.pending().made.insert(id, (size, parent));
    }

    /// Says what an object is.
    pub fn describe(&self, id: ObjectId, about: About) {
        self.pending().about.insert(id, about);
    }

    /// Bytes made by this process that are not in the database yet.
    pub fn pending_bytes(&self) -> u64 {
        self.pending().made.values().map(|(size, _)| size.bytes).sum()
    }

    /// Bytes of all objects that are written down.
    pub fn total_bytes(&self) -> Result<u64, StoreError> {
        self.db.read("add up sizes", |db| {
            let sum: i64 =
                db.prepare_cached("SELECT ifnull(sum(bytes), 0) FROM objects")?.query_row([], |r| r.get(0))?;
            Ok(sum.max(0) as u64)
        })
    }

    /// Writes everything down. Each object counts as used once in the life of this process.
    pub fn flush(&self) -> Result<(), StoreError> {
        let (made, about, used) = {
            let mut pending = self.pending();
            let used: Vec<ObjectId> =
                self.leases.held().into_iter().filter(|id| !pending.counted.contains(id)).collect();
            pending.counted.extend(used.iter().cloned());
            (std::mem::take(&mut pending.made), std::mem::take(&mut pending.about), used)
        };
        if made.is_empty() && about.is_empty() && used.is_empty() {
            return Ok(());
        }
        let now = now_ms();
        if made.is_empty() && about.is_empty() {
            return self.append(&used, now);
        }
        self.db.write("write down what was used", |db| {
            for (id, (size, parent)) in &made {
                enter(db, id, *size, parent.as_deref(), now)?;
            }
            let mut describe =
                db.prepare_cached("UPDATE objects SET description = ?3, category = ?4 WHERE kind = ?1 AND name = ?2")?;
            for (id, about) in &about {
                describe.execute(params![id.kind.as_str(), id.name, about.description, about.category])?;
            }
            used.iter().try_for_each(|id| touch(db, id, now))
        })
    }

    /// Appends to the file `used`. Neither synced nor ordered: what is lost is dates.
    fn append(&self, used: &[ObjectId], now_ms: i64) -> Result<(), StoreError> {
        let path = self.root.join(JOURNAL);
        let lines: String = used.iter().map(|id| format!("{now_ms} {} {}\n", id.kind.as_str(), id.name)).collect();
        let mut file = File::options().append(true).create(true).open(&path).map_err(FileError::at("open", &path))?;
        // In one piece, so that lines of several processes do not mix.
        file.write_all(lines.as_bytes()).map_err(FileError::at("write", &path))?;
        if file.metadata().is_ok_and(|meta| meta.len() > JOURNAL_BYTES) {
            self.take_journal()?;
        }
        Ok(())
    }

    /// Takes what is in the file `used` into the database.
    pub fn take_journal(&self) -> Result<(), StoreError> {
        let path = self.root.join(JOURNAL);
        let aside = tempfile::Builder::new().prefix("used-").tempdir_in(self.root.join("trash"));
        let aside = match path.exists() {
            true => aside.map_err(FileError::at("make a folder in", self.root.join("trash")))?,
            false => return Ok(()),
        };
        let taken = aside.path().join(JOURNAL);
        match fs::rename(&path, &taken) {
            // Another process was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            renamed => renamed.map_err(FileError::at("rename", &path))?,
        }
        let text = fs::read_to_string(&taken).unwrap_or_default();
        self.db.write("write down what was used", |db| {
            for line in text.lines() {
                let mut words = line.splitn(3, ' ');
                let at = words.next().and_then(|at| at.parse().ok());
                let kind = words.next().and_then(Kind::parse);
                if let (Some(at), Some(kind), Some(name)) = (at, kind, words.next()) {
                    touch(db, &ObjectId::new(kind, name), at)?;
                }
            }
            Ok(())
        })
    }
}

/// Name of the file.
const JOURNAL: &str = "used";

fn touch(db: &Connection, id: &ObjectId, at_ms: i64) -> rusqlite::Result<()> {
    db.prepare_cached("UPDATE objects SET used_ms = max(used_ms, ?3), uses = uses + 1 WHERE kind = ?1 AND name = ?2")?
        .execute(params![id.kind.as_str(), id.name, at_ms])
        .map(drop)
}

/// Enters an object, or its new size. What was known of it stays, but that it is on the disk.
pub(crate) fn enter(
    db: &Connection,
    id: &ObjectId,
    size: Size,
    parent: Option<&str>,
    at_ms: i64,
) -> rusqlite::Result<()> {
    db.prepare_cached("DELETE FROM durable WHERE kind = ?1 AND name = ?2")?.execute([id.kind.as_str(), &id.name])?;
    db.prepare_cached(
        "INSERT INTO objects (kind, name, bytes, inodes, length, created_ms, used_ms, uses, parent, description, category)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?6, 0, ?7, '', '')
         ON CONFLICT (kind, name) DO UPDATE SET
             bytes = excluded.bytes, inodes = excluded.inodes, length = excluded.length,
             parent = ifnull(excluded.parent, parent)",
    )?
    .execute(params![
        id.kind.as_str(),
        id.name,
        size.bytes as i64,
        size.inodes as i64,
        size.length as i64,
        at_ms,
        parent
    ])
    .map(drop)
}

/// Forgets objects and the records that need them.
pub(crate) fn strike(db: &Connection, ids: &[ObjectId]) -> rusqlite::Result<()> {
    let mut object = db.prepare_cached("DELETE FROM objects WHERE kind = ?1 AND name = ?2")?;
    let mut records = db.prepare_cached("DELETE FROM records WHERE snapshot = ?1")?;
    let mut durable = db.prepare_cached("DELETE FROM durable WHERE kind = ?1 AND name = ?2")?;
    let mut suspects = db.prepare_cached("DELETE FROM suspects WHERE kind = ?1 AND name = ?2")?;
    for id in ids {
        for table in [&mut object, &mut durable, &mut suspects] {
            table.execute(params![id.kind.as_str(), id.name])?;
        }
        if id.kind == Kind::Snapshot {
            records.execute([&id.name])?;
        }
    }
    Ok(())
}

/// The time, in milliseconds since 1970.
pub fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
}
