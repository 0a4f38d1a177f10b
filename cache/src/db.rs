//! The database: one SQLite file that all processes on the store share.
//!
//! Everything in it can be found out again, so a loss costs time and never correctness: a lost row is a miss.
//! Knows its tables; what they mean is in `records.rs`, `memo.rs` and `store.rs`.

use crate::error::StoreError;
use rusqlite::{Connection, OpenFlags, TransactionBehavior};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a process waits for another one's transaction. Transactions take milliseconds; a stopped process may
/// hold one for longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS records (
        key BLOB PRIMARY KEY, name TEXT NOT NULL, recipe TEXT NOT NULL, output BLOB NOT NULL,
        cost_ms INTEGER NOT NULL, observed TEXT NOT NULL, made_ms INTEGER NOT NULL);
    CREATE INDEX IF NOT EXISTS records_by_name ON records (name, made_ms);
    CREATE TABLE IF NOT EXISTS layer_blobs (
        snapshot TEXT NOT NULL, compression TEXT NOT NULL, blob TEXT NOT NULL,
        PRIMARY KEY (snapshot, compression)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS selections (
        content BLOB NOT NULL, selector TEXT NOT NULL, digest TEXT NOT NULL,
        PRIMARY KEY (content, selector)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS stats (
        dev INTEGER NOT NULL, ino INTEGER NOT NULL, size INTEGER NOT NULL,
        mtime_ns INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, digest BLOB NOT NULL,
        PRIMARY KEY (dev, ino)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS notes (
        namespace TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL,
        PRIMARY KEY (namespace, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS synced_snapshots (id TEXT PRIMARY KEY) WITHOUT ROWID;
";

/// A connection, used by one thread at a time.
pub(crate) struct Db(Mutex<Connection>);

impl Db {
    /// Opens the database, making its tables if they are not there.
    pub fn open(path: &Path) -> Result<Db, StoreError> {
        let open = || -> rusqlite::Result<Connection> {
            let flags =
                OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let mut connection = Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(BUSY_TIMEOUT)?;
            connection.set_prepared_statement_cache_capacity(32);
            // NORMAL may lose the last commits when power fails, but never corrupts; that is all a cache needs.
            connection.pragma_update(None, "journal_mode", "wal")?;
            connection.pragma_update(None, "synchronous", "normal")?;
            let ready: bool = connection
                .prepare("SELECT count(*) FROM sqlite_schema WHERE name = 'synced_snapshots'")?
                .query_row([], |row| row.get(0))?;
            if !ready {
                let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
                transaction.execute_batch(SCHEMA)?;
                transaction.commit()?;
            }
            Ok(connection)
        };
        Ok(Db(Mutex::new(open().map_err(|source| StoreError::Database { verb: "open tables", source })?)))
    }

    /// Reads.
    pub fn read<T>(
        &self,
        verb: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        // A thread that panicked left at worst a transaction that rusqlite rolled back.
        let connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        query(&connection).map_err(|source| StoreError::Database { verb, source })
    }

    /// Writes, in one transaction that starts as a writer's: a reader that turns writer cannot wait for its turn.
    pub fn write<T>(
        &self,
        verb: &'static str,
        update: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let mut connection = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let run = || -> rusqlite::Result<T> {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = update(&transaction)?;
            transaction.commit()?;
            Ok(result)
        };
        run().map_err(|source| StoreError::Database { verb, source })
    }
}
