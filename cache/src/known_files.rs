//! What this process knows of files in snapshots, because it made them: a COPY of such files need not read them again, neither
//! for its key nor for its content id.

use crate::memo::KnownFile;
use crate::store::Store;
use crate::tree::SnapshotId;
use std::collections::{HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// So many files are known at most, of all snapshots together; each takes about 130 bytes. The snapshots that were made
/// first are forgotten first.
const LIMIT: usize = 100_000;

/// Regular files of one snapshot that are not empty, by their paths in it.
pub type KnownFiles = HashMap<Vec<u8>, KnownFile>;

/// Files by the folder of the snapshot that they are in, in the order in which those became known.
#[derive(Default)]
pub(crate) struct Known(Mutex<VecDeque<(PathBuf, Arc<KnownFiles>)>>);

impl Store {
    /// Remembers the files of a snapshot, while this process lives.
    pub fn know_files(&self, snapshot: &SnapshotId, files: Vec<(Vec<u8>, KnownFile)>) {
        if files.is_empty() || files.len() > LIMIT {
            return;
        }
        let folder = self.snapshots().path(snapshot);
        let mut known = self.inner.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(other, _)| *other != folder);
        let mut count = files.len() + known.iter().map(|(_, files)| files.len()).sum::<usize>();
        while count > LIMIT {
            count -= known.pop_front().map_or(count, |(_, files)| files.len());
        }
        known.push_back((folder, Arc::new(files.into_iter().collect())));
    }

    /// What is known of the files of the snapshot that is in `folder`.
    pub fn known_files(&self, folder: &Path) -> Option<Arc<KnownFiles>> {
        let known = self.inner.known.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.iter().find(|(other, _)| other == folder).map(|(_, files)| files.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_first_is_forgotten_first() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let id = |name: &str| SnapshotId(name.into());
        let file = KnownFile { digest: [1; 32], is_plain: true };
        let files = |count: usize| (0..count).map(|number| (number.to_string().into_bytes(), file)).collect::<Vec<_>>();
        let known = |name: &str| store.known_files(&store.snapshots().path(&id(name))).map(|files| files.len());
        store.know_files(&id("a"), files(2));
        store.know_files(&id("b"), files(LIMIT - 3));
        store.know_files(&id("c"), files(1));
        store.know_files(&id("too many"), files(LIMIT + 1));
        assert_eq!(["a", "b", "c", "too many"].map(known), [Some(2), Some(LIMIT - 3), Some(1), None]);
        store.know_files(&id("c"), files(3));
        assert_eq!(["a", "b", "c"].map(known), [None, Some(LIMIT - 3), Some(3)]);
        let folder = store.snapshots().path(&id("c"));
        assert_eq!(store.known_files(&folder).unwrap().get(b"2".as_slice()), Some(&file));
    }
}
