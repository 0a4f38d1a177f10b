//! The sums: layers, one after the other -> what each changes, which bytes are visible at the end, which are not. Holds
//! paths and sizes, no contents.

use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// An entry of a layer's tar.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Of any kind that is no folder; `bytes` of its content.
    File {
        bytes: u64,
    },
    Folder,
    /// `.wh.NAME`: what is below at this path goes.
    Whiteout,
    /// `.wh..wh..opq` in this folder: all that is below in it goes.
    Opaque,
}

/// What a layer does to a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ChangeKind {
    Added,
    Changed,
    Removed,
}

/// A path that a layer changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    /// Without a slash at its start.
    pub path: String,
    pub kind: ChangeKind,
    pub is_folder: bool,
    /// Of the new content; of what is removed, the old one's, for a folder all that was in it.
    pub bytes: u64,
}

/// One layer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct LayerReport {
    pub created_by: String,
    /// Of all files in it.
    pub bytes: u64,
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
    /// By path.
    pub changes: Vec<Change>,
}

/// A path of which bytes are in the image that nobody sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Wasted {
    pub path: String,
    pub bytes: u64,
    /// Copies that are not visible.
    pub copies: u64,
}

/// All of an image.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Analysis {
    /// Lowest first.
    pub layers: Vec<LayerReport>,
    /// Of all files in all layers.
    pub total_bytes: u64,
    /// Of the files that a container sees.
    pub visible_bytes: u64,
    /// Of files that a later layer overwrites or removes.
    pub wasted_bytes: u64,
    /// Of all layers but the lowest.
    pub user_bytes: u64,
    /// Visible bytes of each byte in the image, 0 to 1.
    pub efficiency: f64,
    /// The most wasteful first.
    pub wasted: Vec<Wasted>,
}

impl Analysis {
    /// Wasted bytes for each byte above the lowest layer; 0 if there is none.
    pub fn user_wasted(&self) -> f64 {
        if self.user_bytes == 0 { 0.0 } else { self.wasted_bytes as f64 / self.user_bytes as f64 }
    }
}

/// Does the sums; layers are given lowest first.
#[derive(Default)]
pub struct Account {
    /// What is visible: `None` for a folder, else the bytes of its content.
    visible: BTreeMap<String, Option<u64>>,
    layers: Vec<LayerReport>,
    wasted: BTreeMap<String, (u64, u64)>,
}

impl Account {
    /// Adds a layer on top. Of entries for the same path the last one counts (image-spec layer.md).
    pub fn layer(&mut self, created_by: String, entries: impl IntoIterator<Item = (String, Entry)>) {
        let (mut new, mut gone, mut opaque) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
        for (path, entry) in entries {
            match entry {
                Entry::File { bytes } => drop(new.insert(path, Some(bytes))),
                Entry::Folder => drop(new.insert(path, None)),
                Entry::Whiteout => drop(gone.insert(path)),
                Entry::Opaque => drop(opaque.insert(path)),
            }
        }
        let mut report = LayerReport { created_by, ..LayerReport::default() };
        // Deletions are of what is below, wherever in the tar they stand.
        let inside = opaque.iter().flat_map(|folder| self.children(folder));
        let removed: Vec<String> = gone.into_iter().chain(inside).collect();
        for path in removed {
            let is_folder = matches!(self.visible.get(&path), Some(None));
            let Some(bytes) = self.remove(&path) else { continue };
            if !new.contains_key(&path) {
                report.removed += 1;
                report.changes.push(Change { path, kind: ChangeKind::Removed, is_folder, bytes });
            }
        }
        for (path, bytes) in new {
            let is_folder = bytes.is_none();
            let former_is_folder = self.visible.get(&path).map(Option::is_none);
            // A folder stays the folder that it is.
            if former_is_folder != Some(true) || !is_folder {
                self.remove(&path);
            }
            let (kind, count) = match former_is_folder {
                None => (ChangeKind::Added, &mut report.added),
                Some(_) => (ChangeKind::Changed, &mut report.changed),
            };
            *count += 1;
            report.bytes += bytes.unwrap_or(0);
            self.visible.insert(path.clone(), bytes);
            report.changes.push(Change { path, kind, is_folder, bytes: bytes.unwrap_or(0) });
        }
        report.changes.sort_by(|one, other| one.path.cmp(&other.path));
        self.layers.push(report);
    }

    /// Takes a path and all below it away; its bytes are wasted from now on. `None` if there is nothing.
    fn remove(&mut self, path: &str) -> Option<u64> {
        let own = self.visible.remove(path)?;
        let mut total = 0;
        let mut waste = |path: String, bytes: Option<u64>| {
            let Some(bytes) = bytes.filter(|bytes| *bytes > 0) else { return };
            total += bytes;
            let (wasted, copies) = self.wasted.entry(path).or_default();
            *wasted += bytes;
            *copies += 1;
        };
        waste(path.to_string(), own);
        // `0` follows `/`.
        let below: Vec<String> =
            self.visible.range(format!("{path}/")..format!("{path}0")).map(|(path, _)| path.clone()).collect();
        for path in below {
            let bytes = self.visible.remove(&path).flatten();
            waste(path, bytes);
        }
        Some(total)
    }

    /// Paths directly in a folder; the root is the empty path.
    fn children(&self, folder: &str) -> Vec<String> {
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let inside =
            self.visible.range(prefix.clone()..).map(|(path, _)| path).take_while(|path| path.starts_with(&prefix));
        inside.filter(|path| !path[prefix.len()..].contains('/')).cloned().collect()
    }

    /// The result.
    pub fn finish(self) -> Analysis {
        let total_bytes: u64 = self.layers.iter().map(|layer| layer.bytes).sum();
        let visible_bytes: u64 = self.visible.values().flatten().sum();
        let mut wasted: Vec<Wasted> =
            self.wasted.into_iter().map(|(path, (bytes, copies))| Wasted { path, bytes, copies }).collect();
        wasted.sort_by(|one, other| other.bytes.cmp(&one.bytes).then_with(|| one.path.cmp(&other.path)));
        Analysis {
            total_bytes,
            visible_bytes,
            wasted_bytes: wasted.iter().map(|wasted| wasted.bytes).sum(),
            user_bytes: self.layers.iter().skip(1).map(|layer| layer.bytes).sum(),
            efficiency: if total_bytes == 0 { 1.0 } else { visible_bytes as f64 / total_bytes as f64 },
            layers: self.layers,
            wasted,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// `path=BYTES`, `path/` a folder, `-path` a whiteout, `!path` opaque.
    fn entry(text: &str) -> (String, Entry) {
        match (text.strip_prefix('-'), text.strip_prefix('!'), text.split_once('=')) {
            (Some(path), ..) => (path.into(), Entry::Whiteout),
            (_, Some(path), _) => (path.into(), Entry::Opaque),
            (_, _, Some((path, bytes))) => (path.into(), Entry::File { bytes: bytes.parse().unwrap() }),
            _ => (text.trim_end_matches('/').into(), Entry::Folder),
        }
    }

    fn analyse(layers: &[&[&str]]) -> Analysis {
        let mut account = Account::default();
        for (number, layer) in layers.iter().enumerate() {
            account.layer(format!("layer {number}"), layer.iter().map(|text| entry(text)));
        }
        account.finish()
    }

    #[test]
    fn bytes_that_nobody_sees() {
        let check = |layers: &[&[&str]], total: u64, visible: u64, wasted: &[(&str, u64, u64)]| {
            let found = analyse(layers);
            assert_eq!((found.total_bytes, found.visible_bytes), (total, visible), "{layers:?}");
            assert_eq!(found.wasted_bytes, total - visible, "{layers:?}");
            let list: Vec<_> =
                found.wasted.iter().map(|wasted| (wasted.path.as_str(), wasted.bytes, wasted.copies)).collect();
            assert_eq!(list, wasted, "{layers:?}");
        };
        check(&[&["a=10", "b=5"]], 15, 15, &[]);
        check(&[&["a=10"], &["a=12"], &["a=3"]], 25, 3, &[("a", 22, 2)]);
        check(&[&["d/", "d/a=10", "d/b=1"], &["-d"]], 11, 0, &[("d/a", 10, 1), ("d/b", 1, 1)]);
        check(&[&["d/", "d/a=10"], &["d/", "!d", "d/c=2"]], 12, 2, &[("d/a", 10, 1)]);
        // Not what only begins with the same letters.
        check(&[&["d/", "d/a=10", "d.x=4", "d0=1"], &["-d"]], 15, 5, &[("d/a", 10, 1)]);
        // A file in place of a folder hides what was in it.
        check(&[&["d/", "d/a=10"], &["d=1"]], 11, 1, &[("d/a", 10, 1)]);
        check(&[&["d/", "d/a=10"], &["d/"]], 10, 10, &[]);
        // A whiteout is of what is below, also behind the new file in the tar.
        check(&[&["a=10"], &["a=3", "-a"]], 13, 3, &[("a", 10, 1)]);
        check(&[&["a=1", "b/", "b/c=2"], &["!"]], 3, 0, &[("b/c", 2, 1), ("a", 1, 1)]);
        check(&[], 0, 0, &[]);
    }

    #[test]
    fn changes_of_a_layer() {
        let found = analyse(&[&["a=1", "b=2", "c/", "c/d=4"], &["a=9", "-b", "-c", "e=1", "-none"]]);
        let layer = &found.layers[1];
        let lines: Vec<String> =
            layer.changes.iter().map(|change| format!("{:?} {} {}", change.kind, change.path, change.bytes)).collect();
        assert_eq!(lines, ["Changed a 9", "Removed b 2", "Removed c 4", "Added e 1"]);
        assert_eq!((layer.added, layer.changed, layer.removed, layer.bytes), (1, 1, 2, 10));
        assert_eq!(found.user_bytes, 10);
        assert_eq!(found.user_wasted(), 0.7);
    }

    proptest! {
        #[test]
        fn nothing_is_lost(layers in prop::collection::vec(prop::collection::vec(("[ab](/[ab]){0,2}", 0u8..4, 0u64..100), 0..8), 0..6)) {
            let mut account = Account::default();
            for layer in layers {
                let entry = |(path, kind, bytes): (String, u8, u64)| match kind {
                    0 => (path, Entry::File { bytes }),
                    1 => (path, Entry::Folder),
                    2 => (path, Entry::Whiteout),
                    _ => (path, Entry::Opaque),
                };
                account.layer(String::new(), layer.into_iter().map(entry).collect::<Vec<_>>());
            }
            let found = account.finish();
            prop_assert_eq!(found.total_bytes, found.visible_bytes + found.wasted_bytes);
            prop_assert!((0.0..=1.0).contains(&found.efficiency));
        }
    }
}
