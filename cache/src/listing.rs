//! What a digest of files was made of: kept beside the digest, so that two digests that differ can be told apart by file.
//!
//! Kept for a while and not for ever: a listing that is gone costs an explanation, never a build.

use crate::error::StoreError;
use crate::ledger::now_ms;
use crate::store::Store;
use rusqlite::{OptionalExtension, params};
use std::fmt::Write;

/// Bytes that all listings may take; the oldest go first.
const LIMIT_BYTES: i64 = 16 << 20;

/// One file of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// In the tree that it was taken from, without a slash at the beginning.
    pub path: String,
    /// As in [`crate::checksum::Kind`].
    pub kind: char,
    /// Permission bits with set-user-id, set-group-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Of a regular file, in bytes.
    pub size: u64,
    /// The beginning of its data's digest in hex, a link's target, a device's numbers; empty if it has none.
    pub data: String,
    /// The beginning of a digest of its attributes, in hex; empty if it has none.
    pub xattrs: String,
}

impl Store {
    /// Keeps what a digest was made of.
    pub fn put_listing(&self, digest: &str, files: &[Listed]) -> Result<(), StoreError> {
        let packed = zstd::bulk::compress(encode(files).as_bytes(), 1).unwrap_or_default();
        if packed.is_empty() || packed.len() as i64 > LIMIT_BYTES / 4 {
            return Ok(());
        }
        self.inner.db.write("keep a listing", |db| {
            db.prepare_cached(
                "INSERT OR REPLACE INTO listings (digest, made_ms, length, files) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![digest, now_ms(), packed.len() as i64, packed])?;
            let sum: i64 = db.prepare_cached("SELECT sum(length) FROM listings")?.query_row([], |row| row.get(0))?;
            if sum > LIMIT_BYTES {
                // A part of them at once, so that it is not to be done each time.
                db.execute(
                    "DELETE FROM listings WHERE digest IN (SELECT digest FROM (
                         SELECT digest, sum(length) OVER (ORDER BY made_ms DESC, digest) AS newer FROM listings)
                     WHERE newer > ?1)",
                    [LIMIT_BYTES / 2],
                )?;
            }
            Ok(())
        })
    }

    /// What two digests were made of, if that is still known, but for files that both have at the beginning or at the
    /// end: of many, few differ. `None` for a digest is no file.
    pub fn listings(&self, before: Option<&str>, now: Option<&str>) -> Result<Option<[Vec<Listed>; 2]>, StoreError> {
        let (Some(before), Some(now)) = (self.listing_text(before)?, self.listing_text(now)?) else { return Ok(None) };
        let (before, now) = apart(&before, &now);
        Ok(decode(before).zip(decode(now)).map(|(before, now)| [before, now]))
    }

    fn listing_text(&self, digest: Option<&str>) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(digest) = digest else { return Ok(Some(vec![])) };
        let packed: Option<Vec<u8>> = self.inner.db.read("read a listing", |db| {
            db.prepare_cached("SELECT files FROM listings WHERE digest = ?1")?
                .query_row([digest], |row| row.get(0))
                .optional()
        })?;
        // A hundred times smaller is what listings can get at best; the limit only guards against damage.
        let unpack = |packed: Vec<u8>| zstd::bulk::decompress(&packed, packed.len().saturating_mul(200) + 4096).ok();
        Ok(packed.and_then(unpack))
    }
}

/// Without the files that both begin with, and those that both end with.
fn apart<'a>(mut before: &'a [u8], mut now: &'a [u8]) -> (&'a [u8], &'a [u8]) {
    while let (Some(length), Some(other)) = (first_file(before), first_file(now))
        && before[..length] == now[..other]
    {
        (before, now) = (&before[length..], &now[length..]);
    }
    while let (Some(start), Some(other)) = (last_file(before), last_file(now))
        && before[start..] == now[other..]
    {
        (before, now) = (&before[..start], &now[..other]);
    }
    (before, now)
}

/// Where the first file ends; `None` if there is none.
fn first_file(text: &[u8]) -> Option<usize> {
    text.iter().enumerate().filter(|(_, byte)| **byte == 0).nth(FIELDS - 1).map(|(end, _)| end + 1)
}

/// Where the last file begins; `None` if there is none.
fn last_file(text: &[u8]) -> Option<usize> {
    let mut ends = text.iter().enumerate().rev().filter(|(_, byte)| **byte == 0);
    // Its own, and then the end of the one before it.
    ends.nth(FIELDS - 1)?;
    Some(ends.next().map_or(0, |(end, _)| end + 1))
}

/// Fields of a file.
const FIELDS: usize = 8;

/// Fields of each file, each ended by a zero byte: a listing of many files is read while a step waits to run.
fn encode(files: &[Listed]) -> String {
    let mut text = String::new();
    for Listed { path, kind, mode, uid, gid, size, data, xattrs } in files {
        write!(text, "{path}\0{kind}\0{mode}\0{uid}\0{gid}\0{size}\0{data}\0{xattrs}\0").expect("a String takes all");
    }
    text
}

fn decode(text: &[u8]) -> Option<Vec<Listed>> {
    let mut fields = std::str::from_utf8(text).ok()?.split_terminator('\0');
    let mut files = vec![];
    while let Some(path) = fields.next() {
        files.push(Listed {
            path: path.to_string(),
            kind: fields.next()?.chars().next()?,
            mode: fields.next()?.parse().ok()?,
            uid: fields.next()?.parse().ok()?,
            gid: fields.next()?.parse().ok()?,
            size: fields.next()?.parse().ok()?,
            data: fields.next()?.to_string(),
            xattrs: fields.next()?.to_string(),
        });
    }
    Some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Digits that do not compress.
    fn mixed(number: u64) -> u64 {
        let number = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (number ^ number >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9)
    }

    fn listed(count: usize, salt: u64) -> Vec<Listed> {
        let file = |number: usize| Listed {
            path: format!("d/{number}"),
            kind: '0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: number as u64,
            data: (1..40).map(|part| format!("{:x}", mixed((number as u64 + salt) * part))).collect(),
            xattrs: String::new(),
        };
        (0..count).map(file).collect()
    }

    #[test]
    fn odd_ones_come_back() {
        let link = Listed { path: String::new(), kind: '2', data: "a b\nc".into(), ..listed(1, 0).remove(0) };
        let files = vec![link.clone(), Listed { path: "é\n".into(), xattrs: "x".into(), data: String::new(), ..link }];
        assert_eq!(decode(encode(&files).as_bytes()), Some(files));
        for bad in [&b"a"[..], b"a\0", b"a\x000\0x\0", b"\xff"] {
            assert_eq!(decode(bad), None);
        }
    }

    #[test]
    fn what_differs_is_left() {
        let files = listed(5, 0);
        let changed = Listed { size: 77, ..files[2].clone() };
        let renamed = Listed { path: "d/22".into(), ..files[2].clone() };
        let check = |now: &[Listed], left: (&[Listed], &[Listed])| {
            let (before, now) = (encode(&files), encode(now));
            let (before, now) = apart(before.as_bytes(), now.as_bytes());
            let (before, now) = (decode(before).unwrap(), decode(now).unwrap());
            assert_eq!((before, now), (left.0.to_vec(), left.1.to_vec()));
        };
        let with = |file: &Listed| [&files[..2], std::slice::from_ref(file), &files[3..]].concat();
        check(&files, (&[], &[]));
        check(&with(&changed), (&files[2..3], std::slice::from_ref(&changed)));
        check(&with(&renamed), (&files[2..3], std::slice::from_ref(&renamed)));
        check(&files[1..], (&files[..1], &[]));
        check(&files[..4], (&files[4..], &[]));
        check(&[], (&files, &[]));
        check(&[&files[..], std::slice::from_ref(&changed)].concat(), (&[], std::slice::from_ref(&changed)));
    }

    #[test]
    fn the_newest_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        for salt in 0..60 {
            store.put_listing(&format!("d{salt}"), &listed(1000, salt * 1_000_003)).unwrap();
        }
        let all_of = |digest| Ok::<_, StoreError>(store.listings(None, Some(digest))?.map(|[_, files]| files));
        assert_eq!(all_of("d59").unwrap(), Some(listed(1000, 59 * 1_000_003)));
        assert_eq!(all_of("d0").unwrap(), None);
        store.put_listing("small", &[]).unwrap();
        assert_eq!(all_of("small").unwrap(), Some(vec![]));
        let bytes = std::fs::metadata(dir.path().join("db")).unwrap().len();
        assert!((LIMIT_BYTES as u64 / 2..2 * LIMIT_BYTES as u64).contains(&bytes), "{bytes}");
    }
}
