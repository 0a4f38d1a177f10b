//! Two selections of files, told apart.

use cache::listing::Listed;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Files that are named of one difference.
pub const SHOWN: usize = 100;

/// A file that differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileChange {
    /// In the tree that it comes from.
    pub path: String,
    /// In what.
    pub what: What,
}

/// In what a file differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// It was not there.
    Added,
    /// It is gone.
    Removed,
    /// Its bytes, its kind, or where it leads.
    Content,
    /// Its permission bits.
    Mode { before: u32, now: u32 },
    /// Its owner, as `uid:gid`.
    Owner { before: String, now: String },
    /// Its extended attributes.
    Attributes,
}

/// What differs, in order of path, at most [`SHOWN`] of them; and how many do. A folder that came or went is not named beside
/// what came or went with it.
pub fn differences(before: &[Listed], now: &[Listed]) -> (Vec<FileChange>, usize) {
    let mut former: BTreeMap<&str, &Listed> = before.iter().map(|file| (file.path.as_str(), file)).collect();
    let mut found: BTreeMap<&str, What> = BTreeMap::new();
    for file in now {
        let what = match former.remove(file.path.as_str()) {
            None => Some(What::Added),
            Some(old) => difference(old, file),
        };
        found.extend(what.map(|what| (file.path.as_str(), what)));
    }
    found.extend(former.into_keys().map(|path| (path, What::Removed)));
    let paths: Vec<&str> = found.keys().copied().collect();
    let is_shown_by_another = |position: usize| {
        let (path, what) = (paths[position], &found[paths[position]]);
        // What is in a folder comes after it, but for names such as `a.b` between `a` and `a/b`.
        let mut below = paths[position + 1..].iter().take_while(|other| other.starts_with(path));
        matches!(what, What::Added | What::Removed)
            && below.any(|other| other[path.len()..].starts_with('/') && found[*other] == *what)
    };
    let named: Vec<&str> =
        (0..paths.len()).filter(|position| !is_shown_by_another(*position)).map(|p| paths[p]).collect();
    let total = named.len();
    let change = |path: &str| FileChange { path: path.to_string(), what: found[path].clone() };
    (named.into_iter().take(SHOWN).map(change).collect(), total)
}

fn difference(before: &Listed, now: &Listed) -> Option<What> {
    const LINK: char = '2';
    if (before.kind, before.size, &before.data) != (now.kind, now.size, &now.data) {
        Some(What::Content)
    } else if before.mode != now.mode && now.kind != LINK {
        Some(What::Mode { before: before.mode, now: now.mode })
    } else if (before.uid, before.gid) != (now.uid, now.gid) {
        let owner = |file: &Listed| format!("{}:{}", file.uid, file.gid);
        Some(What::Owner { before: owner(before), now: owner(now) })
    } else if before.xattrs != now.xattrs {
        Some(What::Attributes)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(list: &str) -> Vec<Listed> {
        let file = |line: &str| {
            let [path, mode, owner, data] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
            let (uid, gid) = owner.split_once(':').unwrap();
            Listed {
                path: path.into(),
                kind: if data == "-" { '5' } else { '0' },
                mode: u32::from_str_radix(mode, 8).unwrap(),
                uid: uid.parse().unwrap(),
                gid: gid.parse().unwrap(),
                size: 1,
                data: data.into(),
                xattrs: String::new(),
            }
        };
        list.split(", ").filter(|line| !line.is_empty()).map(file).collect()
    }

    #[track_caller]
    fn check(before: &str, now: &str, expect: &str) {
        let (found, total) = differences(&files(before), &files(now));
        let shown: Vec<String> = found.iter().map(|change| change.to_string()).collect();
        assert_eq!((shown.join(", "), total), (expect.to_string(), found.len()));
    }

    #[test]
    fn what_differs() {
        check("a 644 0:0 x", "a 644 0:0 x", "");
        check("a 644 0:0 x", "a 644 0:0 y", "a changed");
        check("a 644 0:0 x", "a 755 0:0 x", "mode of a: 0644 -> 0755");
        check("a 644 0:0 x", "a 644 1:2 x", "owner of a: 0:0 -> 1:2");
        check("a 644 0:0 x", "b 644 0:0 x", "a is gone, b is new");
        check("", "d 755 0:0 -, d.x 644 0:0 x, d/f 644 0:0 x", "d.x is new, d/f is new");
        check("", "d 755 0:0 -", "d is new");
    }
}
