//! What is remembered of a step that ran, and who remembers it.
//!
//! Read `step.rs` next: it turns a [`Record`] back into an output.

use crate::key::{CacheKey, KeyRecipe};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::sync::{Arc, Mutex};

/// What is remembered of one run of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The step's name when it ran, for people; not part of the key.
    pub name: String,
    /// What the key was made of. Stores that keep nothing but the key leave it empty: whoever looks up has it.
    pub recipe: KeyRecipe,
    /// The output, in the encoding of the [`Steps`](crate::step::Steps) that made it.
    pub output: Vec<u8>,
    /// How long the step ran, in milliseconds.
    pub cost_ms: u64,
    /// Paths that the step was seen to read, with digests of what it found there. Empty: not observed.
    pub observed: Vec<(String, String)>,
}

/// Where records are kept. Shared by all `kiln` processes on one store.
pub trait RecordStore: Send + Sync {
    /// What a failing store says.
    type Error: Send;
    /// Held while a key's step runs; whoever else wants the key waits. Dropped, or lost with its process, it is free.
    type Claim: Send;

    /// The record of a key, if there is one.
    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, Self::Error>;

    /// Remembers a run. A later record of the same key replaces an earlier one.
    fn insert(&self, key: &CacheKey, record: Record) -> Result<(), Self::Error>;

    /// Waits until nobody else, in any process, holds the key, and takes it.
    fn claim(&self, key: &CacheKey) -> impl Future<Output = Result<Self::Claim, Self::Error>> + Send;
}

/// Records in memory, for one process and for tests.
#[derive(Default)]
pub struct MemoryRecords {
    records: Mutex<HashMap<CacheKey, Record>>,
    claims: Mutex<HashMap<CacheKey, Arc<futures::lock::Mutex<()>>>>,
}

impl RecordStore for MemoryRecords {
    type Error = Infallible;
    type Claim = futures::lock::OwnedMutexGuard<()>;

    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, Infallible> {
        Ok(self.records.lock().expect("no holder panics").get(key).cloned())
    }

    fn insert(&self, key: &CacheKey, record: Record) -> Result<(), Infallible> {
        self.records.lock().expect("no holder panics").insert(*key, record);
        Ok(())
    }

    async fn claim(&self, key: &CacheKey) -> Result<Self::Claim, Infallible> {
        let lock = self.claims.lock().expect("no holder panics").entry(*key).or_default().clone();
        Ok(lock.lock_owned().await)
    }
}
