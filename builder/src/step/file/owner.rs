//! `--chown`: names looked up in `/etc/passwd` and `/etc/group` of the tree that is changed.

use super::FileError;
use super::dest::{Dest, Links, absolute, at};
use frontend::op::{Id, Owner};
use rustix::io::Errno;
use std::fs::File;
use std::io::{BufRead, BufReader};

/// A larger file of users is refused, as by BuildKit.
const MAX_BYTES: u64 = 10 << 20;

/// Uid and gid that `owner` means. Unknown users count as root, unknown groups as the user's own: BuildKit gives no
/// error either.
pub fn lookup(owner: &Owner, dest: &Dest, links: Links) -> Result<(u32, u32), FileError> {
    if links == Links::Ignore {
        // The layer is made without the base, so there is nothing to look names up in.
        for id in std::iter::once(&owner.user).chain(&owner.group) {
            if let Id::Name(name) = id
                && name != "root"
            {
                return Err(FileError::NamedOwnerWithLink { name: name.clone() });
            }
        }
    }
    let (uid, primary) = match &owner.user {
        Id::Number(uid) => (*uid, *uid),
        Id::Name(name) if name == "root" => (0, 0),
        Id::Name(name) => {
            find(dest, b"etc/passwd", |fields| (fields[0] == name).then(|| (number(fields, 2), number(fields, 3))))?
                .unwrap_or((0, 0))
        }
    };
    let gid = match &owner.group {
        None => primary,
        Some(Id::Number(gid)) => *gid,
        Some(Id::Name(name)) if name == "root" => 0,
        Some(Id::Name(name)) => {
            find(dest, b"etc/group", |fields| (fields[0] == name).then(|| number(fields, 2)))?.unwrap_or(primary)
        }
    };
    Ok((uid, gid))
}

/// A number of a line: 0 if it is missing or none, and negative ones as chown(2) takes them, as BuildKit reads it.
fn number(fields: &[&str], index: usize) -> u32 {
    fields.get(index).and_then(|field| field.parse::<i64>().ok()).map_or(0, |number| number as u32)
}

/// The first line of a colon-separated file that `take` takes.
fn find<T>(dest: &Dest, path: &[u8], take: impl Fn(&[&str]) -> Option<T>) -> Result<Option<T>, FileError> {
    let path = dest.resolve(b"", path, Links::Follow)?;
    match dest.lookup(&path)? {
        None => return Ok(None),
        Some(found) if found.meta.is_file() && found.meta.size <= MAX_BYTES => {}
        Some(found) if found.meta.is_file() => return Err(at("read", &path)(Errno::FBIG)),
        Some(_) => return Err(FileError::NotRegular { path: absolute(&path) }),
    }
    let Some(file) = dest.open_file(&path)? else { return Ok(None) };
    let mut reader = BufReader::new(File::from(file));
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line);
        if length.map_err(FileError::at("read", absolute(&path)))? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let fields: Vec<&str> = text.trim().split(':').collect();
        if let Some(value) = take(&fields) {
            return Ok(Some(value));
        }
    }
}
