//! Which steps the builds of a project used, under which keys. Outlives their records, so that a record that was pruned is
//! known to have been there.

use crate::error::StoreError;
use crate::ledger::now_ms;
use crate::store::Store;
use crate::tree::SnapshotId;
use rusqlite::{OptionalExtension, params};
use solver::key::CacheKey;

/// Runs that are kept of one project; the oldest go first.
const KEPT: i64 = 4096;
/// Those of a project that is not built any more go after this many days, when the store is pruned.
const KEPT_DAYS: i64 = 90;

/// A step of some former build.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Its key then.
    pub key: CacheKey,
    /// Its name then.
    pub name: String,
    /// When it was last used, milliseconds since 1970.
    pub used_ms: i64,
}

impl Store {
    /// Remembers that a build of `project` used these keys, by name.
    pub fn put_runs(&self, project: &str, runs: &[(CacheKey, &str)]) -> Result<(), StoreError> {
        self.inner.db.write("remember what a build used", |db| {
            let mut insert =
                db.prepare_cached("INSERT OR REPLACE INTO runs (project, key, name, used_ms) VALUES (?1, ?2, ?3, ?4)")?;
            for (key, name) in runs {
                insert.execute(params![project, &key.0[..], name, now_ms()])?;
            }
            db.prepare_cached(
                "DELETE FROM runs WHERE project = ?1 AND used_ms < (
                     SELECT used_ms FROM runs WHERE project = ?1 ORDER BY used_ms DESC LIMIT 1 OFFSET ?2)",
            )?
            .execute(params![project, KEPT])
            .map(drop)
        })
    }

    /// What builds of `project` used, newest first.
    pub fn runs(&self, project: &str) -> Result<Vec<Run>, StoreError> {
        self.inner.db.read("look up what builds used", |db| {
            db.prepare_cached("SELECT key, name, used_ms FROM runs WHERE project = ?1 ORDER BY used_ms DESC, key")?
                .query_map([project], |row| {
                    Ok(Run { key: CacheKey(row.get(0)?), name: row.get(1)?, used_ms: row.get(2)? })
                })?
                .collect()
        })
    }

    /// How long the run of a key took, in milliseconds, if there is a record of it.
    pub fn cost_ms(&self, key: &CacheKey) -> Result<Option<u64>, StoreError> {
        self.inner.db.read("look up how long a step took", |db| {
            db.prepare_cached("SELECT cost_ms FROM records WHERE key = ?1")?
                .query_row([&key.0[..]], |row| Ok(row.get::<_, i64>(0)?.max(0) as u64))
                .optional()
        })
    }

    /// The name of the step that made a snapshot, if a record still says so.
    pub fn maker_of(&self, snapshot: &SnapshotId) -> Result<Option<String>, StoreError> {
        self.inner.db.read("look up who made a snapshot", |db| {
            db.prepare_cached("SELECT name FROM records WHERE snapshot = ?1 ORDER BY made_ms DESC LIMIT 1")?
                .query_row([&snapshot.0], |row| row.get(0))
                .optional()
        })
    }
}

/// Lets go of what was not used for long.
pub(crate) fn forget_old(db: &rusqlite::Connection) -> rusqlite::Result<()> {
    db.execute("DELETE FROM runs WHERE used_ms < ?1", [now_ms() - KEPT_DAYS * 24 * 3600 * 1000]).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_come_back_by_project() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (one, two) = (CacheKey([1; 32]), CacheKey([2; 32]));
        store.put_runs("a", &[(one, "RUN 1"), (two, "RUN 2")]).unwrap();
        store.put_runs("b", &[(one, "RUN x")]).unwrap();
        store.put_runs("b", &[(one, "RUN y")]).unwrap();
        let names =
            |project: &str| -> Vec<String> { store.runs(project).unwrap().into_iter().map(|run| run.name).collect() };
        assert_eq!(names("a").len(), 2);
        assert_eq!(names("b"), ["RUN y"]);
        assert!(names("c").is_empty());
    }
}
