//! What was found out once and need not be found out again: small tables in the database.

use crate::db::Db;
use crate::error::StoreError;
use crate::layer::compression::{Compression, LayerBlob};
use crate::store::Store;
use crate::tree::SnapshotId;
use rusqlite::{OptionalExtension, params};
use rustix::fs::Stat;
use solver::key::CacheKey;
use std::time::{SystemTime, UNIX_EPOCH};

/// A file whose last change is not older than this when it is read may change once more without its times telling:
/// the clock that stamps files is coarse (4 ms on Linux, 2 s on FAT and some network file systems).
const SETTLED_AFTER_NS: i128 = 2_000_000_000;

/// Names a state of a file as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatKey {
    /// Device.
    pub dev: u64,
    /// Inode.
    pub ino: u64,
    /// Size in bytes.
    pub size: u64,
    /// Modification time, nanoseconds since 1970.
    pub mtime_ns: i64,
    /// Change time, nanoseconds since 1970.
    pub ctime_ns: i64,
}

impl StatKey {
    /// Of a file's `stat`.
    pub fn of(stat: &Stat) -> StatKey {
        let nanos = |seconds: i64, nanoseconds: i64| seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds);
        StatKey {
            dev: stat.st_dev,
            ino: stat.st_ino,
            size: stat.st_size as u64,
            mtime_ns: nanos(stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime_ns: nanos(stat.st_ctime, stat.st_ctime_nsec as i64),
        }
    }
}

/// What is known of a regular file's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownFile {
    /// SHA-256 of its data.
    pub digest: [u8; 32],
    /// It has no xattrs. If false, it is not known whether it has some.
    pub is_plain: bool,
}

impl KnownFile {
    /// The digest, and one more byte for a plain file.
    fn pack(&self) -> Vec<u8> {
        let mark: &[u8] = if self.is_plain { &[1] } else { &[] };
        [&self.digest, mark].concat()
    }

    fn unpack(bytes: &[u8]) -> Option<KnownFile> {
        let (digest, mark) = bytes.split_first_chunk::<32>()?;
        Some(KnownFile { digest: *digest, is_plain: mark == [1] })
    }
}

impl Store {
    /// The blob that was made of a snapshot with this compression. Whether the blob itself is still stored, the
    /// caller asks the content store.
    pub fn layer_blob(&self, snapshot: &SnapshotId, compression: Compression) -> Result<Option<LayerBlob>, StoreError> {
        self.inner.db.read("look up a layer's blob", |db| {
            db.prepare_cached("SELECT blob FROM layer_blobs WHERE snapshot = ?1 AND compression = ?2")?
                .query_row(params![snapshot.0, compression.to_string()], |row| {
                    let text = row.get_ref(0)?.as_str()?;
                    serde_json::from_str(text).map_err(|error| {
                        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
                    })
                })
                .optional()
        })
    }

    /// The digest of a snapshot's tar, if a blob of any compression is known that was made of it. eStargz does not count:
    /// its tar has a table beside the layer's files.
    pub fn layer_diff_id(&self, snapshot: &SnapshotId) -> Result<Option<String>, StoreError> {
        self.inner.db.read("look up a layer's tar", |db| {
            db.prepare_cached(
                "SELECT json_extract(blob, '$.diff_id') FROM layer_blobs
                 WHERE snapshot = ?1 AND compression NOT LIKE 'estargz%' LIMIT 1",
            )?
            .query_row([&snapshot.0], |row| row.get(0))
            .optional()
        })
    }

    /// Remembers a layer's blob.
    pub fn put_layer_blob(
        &self,
        snapshot: &SnapshotId,
        compression: Compression,
        blob: &LayerBlob,
    ) -> Result<(), StoreError> {
        self.inner.db.write("remember a layer's blob", |db| {
            let text = serde_json::to_string(blob)
                .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
            db.prepare_cached("INSERT OR REPLACE INTO layer_blobs (snapshot, compression, blob) VALUES (?1, ?2, ?3)")?
                .execute(params![snapshot.0, compression.to_string(), text])
                .map(drop)
        })
    }

    /// The digest of what `selector` selects in a tree of this content.
    pub fn selection(&self, content: &CacheKey, selector: &str) -> Result<Option<String>, StoreError> {
        self.inner.db.read("look up a selection", |db| {
            db.prepare_cached("SELECT digest FROM selections WHERE content = ?1 AND selector = ?2")?
                .query_row(params![&content.0[..], selector], |row| row.get(0))
                .optional()
        })
    }

    /// Remembers a selection's digest.
    pub fn put_selection(&self, content: &CacheKey, selector: &str, digest: &str) -> Result<(), StoreError> {
        self.inner.db.write("remember a selection", |db| {
            db.prepare_cached("INSERT OR REPLACE INTO selections (content, selector, digest) VALUES (?1, ?2, ?3)")?
                .execute(params![&content.0[..], selector, digest])
                .map(drop)
        })
    }

    /// What is known of files in these states, in the order asked.
    pub fn stat_digests(&self, keys: &[StatKey]) -> Result<Vec<Option<KnownFile>>, StoreError> {
        self.inner.db.read("look up digests of files", |db| {
            // One snapshot of the database for all of them, and no lock taken and freed for each.
            let transaction = db.unchecked_transaction()?;
            let mut select = transaction.prepare_cached(
                "SELECT digest FROM stats WHERE dev = ?1 AND ino = ?2 AND size = ?3 AND mtime_ns = ?4 AND ctime_ns = ?5",
            )?;
            keys.iter()
                .map(|key| {
                    select
                        .query_row(
                            params![key.dev as i64, key.ino as i64, key.size as i64, key.mtime_ns, key.ctime_ns],
                            |row| Ok(KnownFile::unpack(row.get_ref(0)?.as_blob()?)),
                        )
                        .optional()
                        .map(Option::flatten)
                })
                .collect()
        })
    }

    /// Remembers what files are. `read_at` is a time before the first of them was looked at: files that changed
    /// less than two seconds before it are passed over, since they may change again within the clock's grain.
    /// The state must be that of before the file was read.
    pub fn put_stat_digests(&self, entries: &[(StatKey, KnownFile)], read_at: SystemTime) -> Result<(), StoreError> {
        let read_at_ns = read_at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as i128);
        let settled = |key: &StatKey| i128::from(key.ctime_ns) + SETTLED_AFTER_NS < read_at_ns;
        if !entries.iter().any(|(key, _)| settled(key)) {
            return Ok(());
        }
        self.inner.db.write("remember digests of files", |db| {
            let mut insert = db.prepare_cached(
                "INSERT OR REPLACE INTO stats (dev, ino, size, mtime_ns, ctime_ns, digest)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?;
            for (key, file) in entries.iter().filter(|(key, _)| settled(key)) {
                insert.execute(params![
                    key.dev as i64,
                    key.ino as i64,
                    key.size as i64,
                    key.mtime_ns,
                    key.ctime_ns,
                    file.pack()
                ])?;
            }
            Ok(())
        })
    }

    /// A value that another module keeps here.
    pub fn note(&self, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
        note(&self.inner.db, namespace, key)
    }

    /// Keeps a value; replaces the one that was there.
    pub fn put_note(&self, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
        put_note(&self.inner.db, namespace, key, value)
    }
}

/// As [`Store::note`].
pub(crate) fn note(db: &Db, namespace: &str, key: &str) -> Result<Option<Vec<u8>>, StoreError> {
    db.read("read a note", |db| {
        db.prepare_cached("SELECT value FROM notes WHERE namespace = ?1 AND key = ?2")?
            .query_row(params![namespace, key], |row| row.get(0))
            .optional()
    })
}

/// As [`Store::put_note`].
pub(crate) fn put_note(db: &Db, namespace: &str, key: &str, value: &[u8]) -> Result<(), StoreError> {
    db.write("keep a note", |db| {
        db.prepare_cached("INSERT OR REPLACE INTO notes (namespace, key, value) VALUES (?1, ?2, ?3)")?
            .execute(params![namespace, key, value])
            .map(drop)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::{Descriptor, Digest};
    use std::time::Duration;

    #[test]
    fn a_tar_is_known_from_any_compression_but_estargz() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = SnapshotId("ab".into());
        let blob = |diff_id: &[u8]| {
            let descriptor = Descriptor { media_type: "x".into(), digest: Digest::of(b"y"), size: 3 };
            LayerBlob::plain(descriptor, Digest::of(diff_id))
        };
        assert_eq!(store.layer_diff_id(&id).unwrap(), None);
        store.put_layer_blob(&id, Compression::Estargz { level: None }, &blob(b"with a table")).unwrap();
        assert_eq!(store.layer_diff_id(&id).unwrap(), None);
        store.put_layer_blob(&id, Compression::Zstd { level: Some(9) }, &blob(b"tar")).unwrap();
        assert_eq!(store.layer_diff_id(&id).unwrap(), Some(Digest::of(b"tar").to_string()));
    }

    #[test]
    fn what_is_remembered_comes_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (id, content) = (SnapshotId("ab".into()), CacheKey([5; 32]));
        let descriptor = Descriptor { media_type: "x".into(), digest: Digest::of(b"y"), size: 3 };
        let blob = LayerBlob::plain(descriptor, Digest::of(b"z"));
        let (default, three, zstd) = (
            Compression::Zstd { level: None },
            Compression::Zstd { level: Some(3) },
            Compression::Gzip { level: None },
        );
        assert_eq!(store.layer_blob(&id, default).unwrap(), None);
        store.put_layer_blob(&id, default, &blob).unwrap();
        assert_eq!(store.layer_blob(&id, three).unwrap(), Some(blob));
        assert_eq!(store.layer_blob(&id, zstd).unwrap(), None);
        store.put_selection(&content, "/a", "d1").unwrap();
        assert_eq!(store.selection(&content, "/a").unwrap().as_deref(), Some("d1"));
        assert_eq!(store.selection(&content, "/b").unwrap(), None);
        store.put_note("image", "alpine", b"1").unwrap();
        store.put_note("image", "alpine", b"2").unwrap();
        assert_eq!(store.note("image", "alpine").unwrap().as_deref(), Some(&b"2"[..]));
        assert_eq!(store.note("git", "alpine").unwrap(), None);
    }

    #[test]
    fn only_settled_files_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let key = |ino, ctime_s: i64| StatKey {
            dev: u64::MAX,
            ino,
            size: 1,
            mtime_ns: -5,
            ctime_ns: ctime_s * 1_000_000_000,
        };
        let known = |byte, is_plain| KnownFile { digest: [byte; 32], is_plain };
        let entries = [(key(1, 90), known(1, true)), (key(2, 99), known(2, false))];
        store.put_stat_digests(&entries, at(100)).unwrap();
        let changed = StatKey { size: 2, ..key(1, 90) };
        assert_eq!(store.stat_digests(&[key(2, 99), key(1, 90), changed]).unwrap(), [None, Some(known(1, true)), None]);
        store.put_stat_digests(&entries, at(102)).unwrap();
        assert_eq!(store.stat_digests(&[key(2, 99)]).unwrap(), [Some(known(2, false))]);
    }
}
