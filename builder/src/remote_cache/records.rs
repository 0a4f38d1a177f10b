//! The store's records with those of remote caches behind them, and what a build used noted for export.

use super::RemoteCache;
use cache::StoreError;
use cache::claim::Claim;
use cache::store::Store;
use solver::key::CacheKey;
use solver::record::{Record, RecordStore};
use std::future::Future;

/// What the solver looks up in.
pub struct Records<'a> {
    pub store: &'a Store,
    pub cache: &'a RemoteCache,
}

impl RecordStore for Records<'_> {
    type Error = StoreError;
    type Claim = Claim;

    fn lookup(&self, key: &CacheKey) -> Result<Option<Record>, StoreError> {
        match self.store.lookup(key)? {
            Some(record) => Ok(Some(record)),
            None => Ok(self.cache.imports.record(key)),
        }
    }

    fn insert(&self, key: &CacheKey, record: Record) -> Result<(), StoreError> {
        self.cache.exports.record(key, &record);
        self.store.insert(key, record)
    }

    fn claim(&self, key: &CacheKey) -> impl Future<Output = Result<Claim, StoreError>> + Send {
        self.store.claim(key)
    }
}
