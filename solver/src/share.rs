//! One run per key within a build, also where records are to be ignored.
//!
//! Two vertices can turn out to have one key: different definitions over equal contents. The claim of the key makes
//! the second wait for the first, here as across processes. What then remains to be decided is whether the second
//! may use what the first recorded; with `--no-cache` it may, since that record is of this build.

use crate::key::CacheKey;
use std::collections::HashSet;
use std::sync::Mutex;

/// Keys that this build has run.
#[derive(Default)]
pub(crate) struct FreshKeys(Mutex<HashSet<CacheKey>>);

impl FreshKeys {
    /// Remembers that this build ran the key.
    pub(crate) fn add(&self, key: CacheKey) {
        self.0.lock().expect("no holder panics").insert(key);
    }

    /// Whether this build ran it.
    pub(crate) fn contains(&self, key: &CacheKey) -> bool {
        self.0.lock().expect("no holder panics").contains(key)
    }
}
