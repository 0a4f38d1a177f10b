//! The database: one SQLite file that all processes on the store share.
//!
//! Everything in it but the names of images can be found out again, so a loss costs time and never correctness: a lost
//! row is a miss. So a damaged one is moved aside, and an empty one takes its place.
//! Knows its tables; what they mean is in `records.rs`, `memo.rs`, `runs.rs`, `listing.rs`,
//! `images.rs`, `ledger.rs` and `durable.rs`.

use crate::damage::Damage;
use crate::error::{FileError, StoreError};
use crate::tree::Layer;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior, params};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// How long a process waits for another one's transaction. Transactions take milliseconds; a stopped process may
/// hold one for longer.
const BUSY_TIMEOUT: Duration = Duration::from_secs(20);

const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS records (
        key BLOB PRIMARY KEY, name TEXT NOT NULL, recipe TEXT NOT NULL, output BLOB NOT NULL,
        cost_ms INTEGER NOT NULL, observed TEXT NOT NULL, made_ms INTEGER NOT NULL, snapshot TEXT);
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
    CREATE TABLE IF NOT EXISTS durable (
        kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS suspects (
        kind TEXT NOT NULL, name TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS objects (
        kind TEXT NOT NULL, name TEXT NOT NULL, bytes INTEGER NOT NULL, inodes INTEGER NOT NULL,
        length INTEGER NOT NULL, created_ms INTEGER NOT NULL, used_ms INTEGER NOT NULL, uses INTEGER NOT NULL,
        parent TEXT, description TEXT NOT NULL, category TEXT NOT NULL,
        PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS runs (
        project TEXT NOT NULL, key BLOB NOT NULL, name TEXT NOT NULL, used_ms INTEGER NOT NULL,
        PRIMARY KEY (project, key)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS listings (
        digest TEXT PRIMARY KEY, made_ms INTEGER NOT NULL, length INTEGER NOT NULL, files BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS images (
        name TEXT PRIMARY KEY, id TEXT NOT NULL, named_ms INTEGER NOT NULL, record TEXT NOT NULL) WITHOUT ROWID;
";

/// A connection, used by one thread at a time.
pub(crate) struct Db {
    path: PathBuf,
    damage: Arc<Damage>,
    connection: Mutex<Connection>,
}

impl Db {
    /// Opens the database, making its tables if they are not there. The caller holds the store's `lock`.
    pub fn open(path: &Path, damage: Arc<Damage>) -> Result<Db, StoreError> {
        let failed = |source| StoreError::Database { verb: "open tables", source };
        let connection = match connect(path) {
            Err(error) if is_damage(&error) => {
                move_aside(path, &damage)?;
                connect(path).map_err(failed)?
            }
            connection => connection.map_err(failed)?,
        };
        Ok(Db { path: path.to_owned(), damage, connection: Mutex::new(connection) })
    }

    /// Reads.
    pub fn read<T>(
        &self,
        verb: &'static str,
        query: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.with(verb, |connection| query(connection))
    }

    /// Writes, in one transaction that starts as a writer's: a reader that turns writer cannot wait for its turn.
    pub fn write<T>(
        &self,
        verb: &'static str,
        update: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        self.with(verb, |connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
            let result = update(&transaction)?;
            transaction.commit()?;
            Ok(result)
        })
    }

    /// Does it; if the file turns out to be damaged, once more with a new one.
    fn with<T>(
        &self,
        verb: &'static str,
        run: impl Fn(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, StoreError> {
        let failed = |source| StoreError::Database { verb, source };
        // A thread that panicked left at worst a transaction that rusqlite rolled back.
        let mut connection = self.connection.lock().unwrap_or_else(PoisonError::into_inner);
        match run(&mut connection) {
            Err(error) if is_damage(&error) => {
                self.replace(&mut connection)?;
                run(&mut connection).map_err(failed)
            }
            result => result.map_err(failed),
        }
    }

    /// Other processes notice the damage themselves; what they write to the old file until then is lost.
    fn replace(&self, connection: &mut Connection) -> Result<(), StoreError> {
        let _lock = crate::store::lock(self.path.parent().unwrap_or(Path::new(".")))?;
        let failed = |source| StoreError::Database { verb: "open tables", source };
        let fresh = match connect(&self.path).and_then(|fresh| check(&fresh).map(|()| fresh)) {
            // Another process was faster.
            Ok(fresh) => fresh,
            Err(error) if is_damage(&error) => {
                move_aside(&self.path, &self.damage)?;
                connect(&self.path).map_err(failed)?
            }
            Err(error) => return Err(failed(error)),
        };
        *connection = fresh;
        Ok(())
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let mut connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.set_prepared_statement_cache_capacity(48);
    // NORMAL may lose the last commits when power fails, but never corrupts; that is all a cache needs.
    connection.pragma_update(None, "journal_mode", "wal")?;
    connection.pragma_update(None, "synchronous", "normal")?;
    // The last process that closes would write the log back and wait for the disk, twice. See `write_back`.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    let made_by: i32 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    if made_by != schema_mark() {
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        transaction.execute_batch(SCHEMA)?;
        migrate(&transaction)?;
        transaction.pragma_update(None, "user_version", schema_mark())?;
        transaction.commit()?;
    }
    Ok(connection)
}

/// Bytes of log that are read in a moment by each process that opens the database.
const SMALL_LOG: u64 = 128 << 10;

/// Writes a large log back into the database, beside whatever else the process does.
pub(crate) fn write_back(path: &Path) -> Result<(), StoreError> {
    let log = fs::metadata(path.with_file_name("db-wal")).map_or(0, |meta| meta.len());
    if log <= SMALL_LOG { Ok(()) } else { empty_log(path, Duration::ZERO) }
}

/// Writes the log back into the database, whatever its size. Others may keep it from that for as long as `patience`.
pub(crate) fn empty_log(path: &Path, patience: Duration) -> Result<(), StoreError> {
    let failed = |source| StoreError::Database { verb: "write back the log", source };
    let connection = connect(path).map_err(failed)?;
    connection.busy_timeout(patience).map_err(failed)?;
    // Whether it could is in the row; the next process tries again.
    connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).map_err(failed)
}

/// Tells tables of another schema, which may lack some of these.
fn schema_mark() -> i32 {
    let hash = solver::key::CacheKey::of(SCHEMA.as_bytes()).0;
    i32::from_le_bytes([hash[0], hash[1], hash[2], hash[3]])
}

/// From format 1, in which records did not say which snapshot they need.
fn migrate(db: &Connection) -> rusqlite::Result<()> {
    let columns: i64 =
        db.query_row("SELECT count(*) FROM pragma_table_info('records') WHERE name = 'snapshot'", [], |row| {
            row.get(0)
        })?;
    if columns == 0 {
        db.execute_batch("ALTER TABLE records ADD COLUMN snapshot TEXT")?;
        let mut select = db.prepare("SELECT rowid, output FROM records")?;
        let records: Vec<(i64, Vec<u8>)> =
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<rusqlite::Result<_>>()?;
        let mut update = db.prepare("UPDATE records SET snapshot = ?2 WHERE rowid = ?1")?;
        for (row, output) in records {
            update.execute(params![row, snapshot_of(&output)])?;
        }
    }
    db.execute_batch("CREATE INDEX IF NOT EXISTS records_by_snapshot ON records (snapshot)")
}

/// The snapshot that a record's output needs.
pub(crate) fn snapshot_of(output: &[u8]) -> Option<String> {
    serde_json::from_slice::<Layer>(output).ok().map(|layer| layer.snapshot.0)
}

/// All pages are sound.
pub(crate) fn check(connection: &Connection) -> rusqlite::Result<()> {
    let verdict: String = connection.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    match verdict.as_str() {
        "ok" => Ok(()),
        _ => {
            Err(rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_CORRUPT), Some(verdict)))
        }
    }
}

pub(crate) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}

/// Renames the files of a damaged database to `db.damaged`.
fn move_aside(path: &Path, damage: &Damage) -> Result<(), StoreError> {
    let with = |path: &Path, suffix: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        PathBuf::from(name)
    };
    let aside = with(path, ".damaged");
    for suffix in ["-wal", "-shm", ""] {
        let from = with(path, suffix);
        match fs::rename(&from, with(&aside, suffix)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(FileError::at("rename", &from)(error).into());
            }
            _ => {}
        }
    }
    damage.remark(format!(
        "the store's database was damaged; it is now `{}`, and what it knew is found out again",
        aside.display()
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_damaged_database_is_replaced() {
        let check = |damage_it: &dyn Fn(&Path)| {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("db");
            let damage = Arc::new(Damage::default());
            let db = Db::open(&path, damage.clone()).unwrap();
            db.write("fill", |db| db.execute_batch("INSERT INTO notes VALUES ('a', 'b', zeroblob(200000))")).unwrap();
            write_back(&path).unwrap();
            drop(db);
            damage_it(&path);
            let db = Db::open(&path, damage.clone()).unwrap();
            let count = |db: &Connection| {
                db.query_row("SELECT sum(length(value)) FROM notes", [], |r| r.get::<_, Option<i64>>(0))
            };
            assert_eq!(db.read("count", count).unwrap(), None);
            assert_eq!(damage.take_remarks().len(), 1);
            assert!(dir.path().join("db.damaged").exists());
            db.write("fill", |db| db.execute_batch("INSERT INTO notes VALUES ('a', 'b', 'c')")).unwrap();
            assert_eq!(db.read("count", count).unwrap(), Some(1));
        };
        check(&|path| fs::write(path, vec![b'x'; 8192]).unwrap());
        check(&|path| {
            let mut bytes = fs::read(path).unwrap();
            let length = bytes.len();
            bytes[4096..length].fill(0xee);
            fs::write(path, bytes).unwrap();
        });
    }

    #[test]
    fn a_large_log_is_written_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let db = Db::open(&path, Arc::new(Damage::default())).unwrap();
        let log = || fs::metadata(dir.path().join("db-wal")).map_or(0, |meta| meta.len());
        let put = |length: usize| {
            db.write("keep a note", |db| {
                db.execute("INSERT OR REPLACE INTO notes VALUES ('a', 'b', ?1)", [vec![1u8; length]]).map(drop)
            })
        };
        put(10).unwrap();
        write_back(&path).unwrap();
        assert!((1..=SMALL_LOG).contains(&log()));
        put(1 << 20).unwrap();
        assert!(log() > SMALL_LOG);
        write_back(&path).unwrap();
        assert_eq!(log(), 0);
        drop(db);
        let db = Db::open(&path, Arc::new(Damage::default())).unwrap();
        let length = db
            .read("read a note", |db| db.query_row("SELECT length(value) FROM notes", [], |row| row.get::<_, i64>(0)));
        assert_eq!(length.unwrap(), 1 << 20);
    }
}
