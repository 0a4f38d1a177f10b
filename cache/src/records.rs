//! Records in the database.

use crate::claim::{self, Claim};
use crate::db::snapshot_of;
use crate::error::StoreError;
use crate::ledger::now_ms;
use crate::store::Store;
use crate::tree::{Layer, SnapshotId};
use rusqlite::{OptionalExtension, Row, params};
use serde::de::DeserializeOwned;
use solver::key::CacheKey;
use solver::record::{Record, RecordStore};
use std::future::Future;

impl RecordStore for Store {
    type Error = StoreError;
    type Claim = Claim;

    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, StoreError> {
        let found = self.inner.db.read("look up a record", |db| {
            db.prepare_cached("SELECT name, recipe, output, cost_ms, observed FROM records WHERE key = ?1")?
                .query_row([&key.0[..]], read)
                .optional()
        });
        match found {
            Err(StoreError::Database { source: rusqlite::Error::FromSqlConversionFailure(..), .. }) => {
                self.inner.damage.remark(format!("the record of key {key} cannot be read; its step runs again"));
                self.forget(key)?;
                Ok(None)
            }
            found => found,
        }
    }

    fn insert(&self, key: &CacheKey, record: Record) -> Result<(), StoreError> {
        let encode = |verb, result: serde_json::Result<String>| {
            result.map_err(|error| StoreError::Database {
                verb,
                source: rusqlite::Error::ToSqlConversionFailure(Box::new(error)),
            })
        };
        let recipe = encode("write a recipe", serde_json::to_string(&record.recipe))?;
        let observed = encode("write observed inputs", serde_json::to_string(&record.observed))?;
        self.inner.db.write("insert a record", |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO records (key, name, recipe, output, cost_ms, observed, made_ms, snapshot)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                &key.0[..],
                record.name,
                recipe,
                record.output,
                i64::try_from(record.cost_ms).unwrap_or(i64::MAX),
                observed,
                now_ms(),
                snapshot_of(&record.output)
            ])
            .map(drop)
        })
    }

    fn claim(&self, key: &CacheKey) -> impl Future<Output = Result<Claim, StoreError>> + Send {
        let (dir, key) = (self.claims_dir(), *key);
        async move { claim::claim(&dir, &key).await }
    }
}

impl Store {
    /// Says to those who wait for a key that this process has claimed who runs it, such as where its output can be read.
    pub fn leave_note(&self, key: &CacheKey, note: &str) -> Result<(), StoreError> {
        Ok(claim::leave_note(&self.claims_dir(), key, note)?)
    }

    /// What the process that has claimed a key says, if it says something.
    pub fn note_of(&self, key: &CacheKey) -> Option<String> {
        claim::note_of(&self.claims_dir(), key)
    }

    /// Forgets a record; says whether there was one.
    pub fn forget(&self, key: &CacheKey) -> Result<bool, StoreError> {
        self.inner.db.write("forget a record", |db| {
            db.prepare_cached("DELETE FROM records WHERE key = ?1")?.execute([&key.0[..]]).map(|rows| rows > 0)
        })
    }

    /// The layer of a snapshot as the first record that is still there has it.
    pub fn first_layer_of(&self, snapshot: &SnapshotId) -> Result<Option<Layer>, StoreError> {
        let output: Option<Vec<u8>> = self.inner.db.read("look for the record of a snapshot", |db| {
            db.prepare_cached("SELECT output FROM records WHERE snapshot = ?1 ORDER BY made_ms, rowid LIMIT 1")?
                .query_row([&snapshot.0], |row| row.get(0))
                .optional()
        })?;
        Ok(output.and_then(|output| serde_json::from_slice(&output).ok()))
    }

    /// The newest records of steps of this name, newest first, at most `limit`: what a missed key is compared with.
    pub fn records_named(&self, name: &str, limit: u32) -> Result<Vec<Record>, StoreError> {
        self.inner.db.read("look for records by name", |db| {
            db.prepare_cached(
                "SELECT name, recipe, output, cost_ms, observed FROM records WHERE name = ?1
                 ORDER BY made_ms DESC, rowid DESC LIMIT ?2",
            )?
            .query_map(params![name, limit], read)?
            .collect()
        })
    }
}

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        name: row.get(0)?,
        recipe: json(row, 1)?,
        output: row.get(2)?,
        cost_ms: row.get::<_, i64>(3)?.max(0) as u64,
        observed: json(row, 4)?,
    })
}

fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    let text = row.get_ref(column)?.as_str()?;
    serde_json::from_str(text).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;
    use solver::key::KeyRecipe;

    fn record(name: &str, value: &str) -> Record {
        let mut recipe = KeyRecipe::new();
        recipe.push("arg", value);
        let observed = vec![("/etc/passwd".into(), "ab".into())];
        Record { name: name.into(), recipe, output: vec![0, 255, 7], cost_ms: 12, observed }
    }

    #[test]
    fn records_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (first, second) = (record("RUN make", "1"), record("RUN make", "2"));
        store.insert(&first.recipe.key(), first.clone()).unwrap();
        store.insert(&second.recipe.key(), second.clone()).unwrap();
        store.insert(&CacheKey([9; 32]), record("COPY", "3")).unwrap();
        let again = Store::open(dir.path()).unwrap();
        assert_eq!(again.lookup(&first.recipe.key()).unwrap(), Some(first.clone()));
        assert_eq!(again.lookup(&CacheKey([0; 32])).unwrap(), None);
        assert_eq!(again.records_named("RUN make", 10).unwrap(), [second, first.clone()]);
        assert_eq!(again.records_named("RUN make", 1).unwrap().len(), 1);
        again.forget(&first.recipe.key()).unwrap();
        assert_eq!(store.lookup(&first.recipe.key()).unwrap(), None);
    }

    #[test]
    fn a_claim_is_held_by_one() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, theirs) = (Store::open(dir.path()).unwrap(), Store::open(dir.path()).unwrap());
        let key = CacheKey([1; 32]);
        let held = block_on(ours.claim(&key)).unwrap();
        let mut waiting = Box::pin(theirs.claim(&key));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(block_on(theirs.claim(&CacheKey([2; 32]))).is_ok());
        assert_eq!(theirs.note_of(&key), None);
        ours.leave_note(&key, "it runs").unwrap();
        assert_eq!(theirs.note_of(&key).as_deref(), Some("it runs"));
        drop(held);
        drop(block_on(waiting).unwrap());
        assert_eq!(theirs.note_of(&key), None);
        assert_eq!(std::fs::read_dir(dir.path().join("claims")).unwrap().count(), 0);
    }

    #[test]
    fn claims_exclude_each_other_however_files_come_and_go() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let holders = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..50 {
                        let claim = block_on(store.claim(&CacheKey([3; 32]))).unwrap();
                        assert_eq!(holders.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                        holders.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                        drop(claim);
                    }
                });
            }
        });
    }
}
