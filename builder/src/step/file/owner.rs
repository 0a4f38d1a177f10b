//! `--chown`: names looked up in `/etc/passwd` and `/etc/group` of the tree that is changed.

use super::FileError;
use super::dest::{Dest, Links};
use frontend::op::{Id, Owner};
use std::fs::File;
use std::io::{BufRead, BufReader};

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
        Id::Name(name) => find(dest, b"etc/passwd", |fields| match fields {
            [user, _, uid, gid, ..] if user == name => Some((uid.parse().ok()?, gid.parse().ok()?)),
            _ => None,
        })?
        .unwrap_or((0, 0)),
    };
    let gid = match &owner.group {
        None => primary,
        Some(Id::Number(gid)) => *gid,
        Some(Id::Name(name)) if name == "root" => 0,
        Some(Id::Name(name)) => find(dest, b"etc/group", |fields| match fields {
            [group, _, gid, ..] if group == name => gid.parse().ok(),
            _ => None,
        })?
        .unwrap_or(primary),
    };
    Ok((uid, gid))
}

/// The first line of a colon-separated file that `take` takes.
fn find<T>(dest: &Dest, path: &[u8], take: impl Fn(&[&str]) -> Option<T>) -> Result<Option<T>, FileError> {
    let path = dest.resolve(b"", path, Links::Follow)?;
    let Some(file) = dest.open_file(&path)? else { return Ok(None) };
    let mut reader = BufReader::new(File::from(file));
    let mut line = Vec::new();
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line);
        if length.map_err(FileError::at("read", super::dest::absolute(&path)))? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line);
        let fields: Vec<&str> = text.trim_end().split(':').collect();
        if let Some(value) = take(&fields) {
            return Ok(Some(value));
        }
    }
}
