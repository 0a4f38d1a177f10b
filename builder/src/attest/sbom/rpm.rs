//! rpm's databases: `rpmdb.sqlite` (SQLite), `Packages.db` (rpm's own, ndb), and the older `Packages` (Berkeley DB).

use super::package::{Distribution, Package};
use super::{rpm_bdb, rpm_header};
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsRawFd;

/// More packages than any system has.
const PACKAGES_MAX: usize = 1_000_000;
/// Larger headers are none.
const HEADER_MAX_BYTES: u32 = 64 << 20;

/// Packages, and what is wrong with entries that could not be read.
pub type Found = (Vec<Package>, Vec<String>);

/// Reads `rpmdb.sqlite`. `Err` says what is wrong with the whole.
pub fn sqlite(file: &File, distribution: &Distribution) -> Result<Found, String> {
    read_sqlite(file, distribution).map_err(|error| error.to_string())
}

fn read_sqlite(file: &File, distribution: &Distribution) -> rusqlite::Result<Found> {
    // Immutable: no locks, no log beside it, nothing is written; the file is one of a finished layer.
    let uri = format!("file:/proc/self/fd/{}?immutable=1", file.as_raw_fd());
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let db = Connection::open_with_flags(uri, flags)?;
    // What the file declares, such as views, must not make this program do anything.
    db.execute_batch("PRAGMA trusted_schema=OFF; PRAGMA cell_size_check=ON;")?;
    let tables =
        "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name = 'Packages' AND sql NOT LIKE '%GENERATED%'";
    if db.query_row(tables, [], |row| row.get::<_, i64>(0))? != 1 {
        return Err(rusqlite::Error::InvalidQuery);
    }
    let mut select = db.prepare("SELECT blob FROM Packages ORDER BY hnum")?;
    let mut rows = select.query([])?;
    let (mut packages, mut remarks) = (vec![], vec![]);
    while let Some(row) = rows.next()? {
        if packages.len() + remarks.len() > PACKAGES_MAX {
            break;
        }
        let header = row.get_ref(0)?.as_blob().unwrap_or_default();
        match rpm_header::package(header, distribution) {
            Ok(package) => packages.extend(package),
            Err(problem) => remarks.push(problem),
        }
    }
    Ok((packages, remarks))
}

/// Reads `Packages.db`: pages of 4096 bytes with slots, each of which says where a header is. All numbers are little
/// endian.
pub fn ndb(mut file: impl Read + Seek, distribution: &Distribution) -> Result<Found, String> {
    const SLOTS_A_PAGE: u64 = 4096 / 16;
    let mut head = [0; 32];
    file.read_exact(&mut head).map_err(|error| error.to_string())?;
    if &head[..4] != b"RpmP" {
        return Err("it is no database of rpm's kind ndb".into());
    }
    let pages = u64::from(word(&head, 12));
    let slots = (pages * SLOTS_A_PAGE).saturating_sub(2).min(PACKAGES_MAX as u64);
    let (mut packages, mut remarks) = (vec![], vec![]);
    for slot in 0..slots {
        let mut bytes = [0; 16];
        let at = 32 + slot * 16;
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut bytes)).map_err(|error| error.to_string())?;
        if &bytes[..4] != b"Slot" {
            return Err(format!("slot {slot} is damaged"));
        }
        if word(&bytes, 4) == 0 {
            continue;
        }
        let header = ndb_header(&mut file, u64::from(word(&bytes, 8)) * 16);
        match header.and_then(|header| rpm_header::package(&header, distribution)) {
            Ok(package) => packages.extend(package),
            Err(problem) => remarks.push(problem),
        }
    }
    Ok((packages, remarks))
}

fn ndb_header(file: &mut (impl Read + Seek), at: u64) -> Result<Vec<u8>, String> {
    let mut head = [0; 16];
    file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut head)).map_err(|error| error.to_string())?;
    let length = word(&head, 12);
    if &head[..4] != b"BlbS" || length > HEADER_MAX_BYTES {
        return Err("a header is damaged".into());
    }
    let mut header = vec![];
    file.take(u64::from(length)).read_to_end(&mut header).map_err(|error| error.to_string())?;
    Ok(header)
}

/// Reads `Packages`: headers by their numbers. Number 0 is none, but says which one is given next.
pub fn bdb(file: impl Read + Seek, distribution: &Distribution) -> Result<Found, String> {
    let (mut packages, mut remarks) = (BTreeMap::new(), vec![]);
    rpm_bdb::Database::open(file)?.each(|key, header| {
        if key.iter().all(|byte| *byte == 0) || packages.len() + remarks.len() > PACKAGES_MAX {
            return;
        }
        match header.and_then(|header| rpm_header::package(&header, distribution)) {
            Ok(package) => packages.extend(package.map(|package| (key.to_vec(), package))),
            Err(problem) => remarks.push(problem),
        }
    })?;
    Ok((packages.into_values().collect(), remarks))
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

#[cfg(test)]
mod tests {
    use super::super::rpm_header::tests::header;
    use super::*;
    use std::io::Cursor;

    fn bash() -> Vec<u8> {
        header(&[(1000, "bash"), (1001, "5.2"), (1002, "1")], None)
    }

    fn purls(found: &Found) -> Vec<&str> {
        found.0.iter().map(|package| package.purl.as_str()).collect()
    }

    #[test]
    fn sqlite_databases() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("rpmdb.sqlite");
        let db = Connection::open(&path).unwrap();
        db.execute_batch("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY AUTOINCREMENT, blob BLOB NOT NULL)").unwrap();
        for blob in [bash(), vec![1, 2, 3]] {
            db.execute("INSERT INTO Packages (blob) VALUES (?1)", [blob]).unwrap();
        }
        drop(db);
        let found = sqlite(&File::open(&path).unwrap(), &Distribution::default()).unwrap();
        assert_eq!(purls(&found), ["pkg:rpm/redhat/bash@5.2-1"]);
        assert_eq!(found.1.len(), 1);
        std::fs::write(&path, "no database").unwrap();
        assert!(sqlite(&File::open(&path).unwrap(), &Distribution::default()).is_err());
    }

    #[test]
    fn berkeley_databases() {
        let zsh = header(&[(1000, "zsh"), (1001, "5.8"), (1002, "9.el8"), (1014, &"MIT ".repeat(100))], None);
        let pairs: [(&[u8], &[u8]); 4] =
            [(&[2, 0, 0, 0], &zsh), (&[0; 4], &[3, 0, 0, 0]), (&[1, 0, 0, 0], &bash()), (&[3, 0, 0, 0], &[1, 2, 3])];
        let db = super::super::rpm_bdb::tests::database(&pairs, false);
        let found = bdb(Cursor::new(&db), &Distribution::default()).unwrap();
        assert_eq!(purls(&found), ["pkg:rpm/redhat/bash@5.2-1", "pkg:rpm/redhat/zsh@5.8-9.el8"]);
        assert_eq!(found.1, ["a header is cut off"]);
        assert!(bdb(Cursor::new(b"SQLite"), &Distribution::default()).is_err());
    }

    #[test]
    fn ndb_databases() {
        let mut db = vec![0; 4096];
        db[..4].copy_from_slice(b"RpmP");
        db[12] = 1;
        for slot in 0..254 {
            db[32 + slot * 16..][..4].copy_from_slice(b"Slot");
        }
        db[32 + 4] = 1;
        db[32 + 8..][..4].copy_from_slice(&(4096u32 / 16).to_le_bytes());
        let blob = bash();
        db.extend(b"BlbS");
        db.extend([1, 0, 0, 0, 0, 0, 0, 0]);
        db.extend((blob.len() as u32).to_le_bytes());
        db.extend(blob);
        let found = ndb(Cursor::new(&db), &Distribution::default()).unwrap();
        assert_eq!(purls(&found), ["pkg:rpm/redhat/bash@5.2-1"]);
        assert!(ndb(Cursor::new(&db[..100]), &Distribution::default()).is_err());
        assert!(ndb(Cursor::new(b"BDB"), &Distribution::default()).is_err());
    }
}
