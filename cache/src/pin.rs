//! What is kept though no process uses it: blobs that somebody means to come back for, with a note of what for. A pin has a
//! name and a date; when that is past, pruning treats its blobs as any others.
//!
//! Invariant: whoever pins blobs has leased them first (has looked for them), so nobody removes them meanwhile.

use crate::digest::Digest;
use crate::error::StoreError;
use crate::ledger::now_ms;
use crate::object::{Kind, ObjectId};
use crate::store::Store;
use rusqlite::params;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;

/// Namespace of the notes that pins are.
const NOTES: &str = "pin";

/// Blobs that are kept, and why.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pin<T> {
    /// Those of them that are not in the store are no concern of the pin's.
    pub blobs: Vec<Digest>,
    /// Until when; milliseconds since 1970.
    pub until_ms: i64,
    /// What they are kept for.
    pub purpose: T,
}

impl Store {
    /// Keeps blobs under a name; the pin that had the name is replaced.
    pub fn pin<T: Serialize>(&self, name: &str, pin: &Pin<T>) -> Result<(), StoreError> {
        for digest in &pin.blobs {
            self.content().has(digest)?;
        }
        let text = serde_json::to_vec(pin).expect("a pin is plain data");
        self.put_note(NOTES, name, &text)
    }

    /// Takes a pin away, if there is one of the name; says whether there was.
    pub fn unpin(&self, name: &str) -> Result<bool, StoreError> {
        // Most builds have nothing to take away, and then need not wait for a writer's turn.
        if self.note(NOTES, name)?.is_none() {
            return Ok(false);
        }
        self.inner.db.write("remove a pin", |db| {
            db.prepare_cached("DELETE FROM notes WHERE namespace = ?1 AND key = ?2")?
                .execute(params![NOTES, name])
                .map(|removed| removed > 0)
        })
    }

    /// All pins by name whose date is not past and whose purpose is such a one.
    pub fn pins<T: DeserializeOwned>(&self) -> Result<Vec<(String, Pin<T>)>, StoreError> {
        let now = now_ms();
        let rows = self.inner.db.read("list pins", |db| {
            db.prepare_cached("SELECT key, value FROM notes WHERE namespace = ?1 ORDER BY key")?
                .query_map([NOTES], |row| Ok((row.get::<_, String>(0)?, row.get::<_, Vec<u8>>(1)?)))?
                .collect::<rusqlite::Result<Vec<_>>>()
        })?;
        let pins = rows.into_iter().filter_map(|(name, text)| Some((name, serde_json::from_slice(&text).ok()?)));
        Ok(pins.filter(|(_, pin): &(String, Pin<T>)| pin.until_ms > now).collect())
    }

    /// The blobs of all pins.
    pub(crate) fn pinned(&self) -> Result<HashSet<ObjectId>, StoreError> {
        let pins = self.pins::<serde::de::IgnoredAny>()?;
        let blobs = pins.iter().flat_map(|(_, pin)| &pin.blobs);
        Ok(blobs.map(|digest| ObjectId::new(Kind::Blob, digest.hex())).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::{Policy, plan_prune};

    #[test]
    fn what_is_pinned_is_not_pruned_until_its_date() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (kept, other) = (store.content().put(b"kept").unwrap(), store.content().put(b"other").unwrap());
        let pin = |until_ms| Pin { blobs: vec![kept.clone(), Digest::of(b"missing")], until_ms, purpose: 7 };
        store.pin("a", &pin(now_ms() + 60_000)).unwrap();
        drop(store);
        // Whose leases are gone.
        let store = Store::open(dir.path()).unwrap();
        let prune = || {
            let policy = Policy { all: true, matches: &|_| true, used_before_ms: None, limits: None };
            let plan = plan_prune(&store.usage().unwrap(), policy, 0, now_ms());
            store.prune(&plan).unwrap().into_iter().map(|object| object.id.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(prune(), [other.hex()]);
        assert_eq!(store.pins::<u8>().unwrap().len(), 1);
        assert_eq!(store.pins::<String>().unwrap(), []);
        assert!(store.unpin("a").unwrap());
        assert!(!store.unpin("a").unwrap());
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        store.pin("b", &pin(1)).unwrap();
        assert_eq!(store.pins::<u8>().unwrap(), []);
    }
}
