//! The layers of a tree one by one: which of them has the file that is seen in all of them together.

use super::FileError;
use crate::source::dir::Meta;
use cache::known_files::KnownFiles;
use cache::memo::KnownFile;
use cache::store::Store;
use rustix::fs::{AtFlags, Mode, OFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;

/// Opened layers of a tree.
pub struct Layers {
    /// Highest first.
    layers: Vec<Layer>,
}

struct Layer {
    folder: OwnedFd,
    path: PathBuf,
    known: Option<Arc<KnownFiles>>,
}

/// Where a file is.
pub struct Place<'a> {
    /// The layer's folder.
    pub folder: BorrowedFd<'a>,
    /// The same.
    pub path: &'a PathBuf,
    /// What this process knows of the file.
    pub known: Option<KnownFile>,
}

/// Whether two paths, of which one may be seen through a view, lead to one file that never changes: the inode tells, so it
/// is not one that is hidden. How many names it has changes, with the time of that, whenever a COPY links it or a build's
/// trash is emptied.
pub fn is_same_file(one: &Meta, other: &Meta) -> bool {
    Meta { dev: other.dev, ctime: other.ctime, nlink: other.nlink, ..*one } == *other
}

impl Layers {
    /// Of a tree of `layers`, lowest first. `store` may know files of them.
    pub fn open(layers: &[PathBuf], store: Option<&Store>) -> Result<Layers, FileError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let open = |path: &PathBuf| {
            let folder = rustix::fs::open(path, flags, Mode::empty()).map_err(FileError::at("open", path))?;
            Ok(Layer { folder, path: path.clone(), known: store.and_then(|store| store.known_files(path)) })
        };
        Ok(Layers { layers: layers.iter().rev().map(open).collect::<Result<_, FileError>>()? })
    }

    /// Whether anything is known of files of any.
    pub fn know_files(&self) -> bool {
        self.layers.iter().any(|layer| layer.known.is_some())
    }

    /// The place of the file at `path`, of which the view of all layers says `meta`.
    pub fn find(&self, path: &[u8], meta: &Meta) -> Option<Place<'_>> {
        let has_it = |layer: &&Layer| {
            let found = rustix::fs::statat(&layer.folder, path, AtFlags::SYMLINK_NOFOLLOW);
            found.is_ok_and(|found| is_same_file(&Meta::of(&found), meta))
        };
        let layer = self.layers.iter().find(has_it)?;
        let known = layer.known.as_ref().and_then(|known| known.get(path).copied());
        Some(Place { folder: layer.folder.as_fd(), path: &layer.path, known })
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{operation, plain};
    use super::super::{Copies, SourceTree, apply, digest};
    use super::*;
    use cache::tree::SnapshotId;
    use frontend::op::{Chmod, Copy};

    /// A store with snapshots `low` and `high`, which both have `d/f`; something is known of the one in `low`.
    fn store(root: &std::path::Path) -> (Store, [PathBuf; 2], KnownFile) {
        let store = Store::open(root).unwrap();
        let folders = ["low", "high"].map(|name| {
            let folder = store.snapshots().path(&SnapshotId(name.into()));
            std::fs::create_dir_all(folder.join("d")).unwrap();
            std::fs::write(folder.join("d/f"), name).unwrap();
            folder
        });
        // Not what the file's digest is, so that it shows who believes it.
        let known = KnownFile { digest: [7; 32], is_plain: true };
        store.know_files(&SnapshotId("low".into()), vec![(b"d/f".to_vec(), known)]);
        (store, folders, known)
    }

    #[test]
    fn what_is_hidden_is_not_known() {
        let temp = tempfile::tempdir().unwrap();
        let (store, folders, known) = store(temp.path());
        let layers = Layers::open(&folders, Some(&store)).unwrap();
        assert!(layers.know_files());
        let [low, high] = folders.each_ref().map(|folder| Meta::of(&rustix::fs::lstat(folder.join("d/f")).unwrap()));
        let found = |meta| layers.find(b"d/f", meta).map(|place| (place.path.clone(), place.known));
        assert_eq!(found(&high), Some((folders[1].clone(), None)));
        assert_eq!(found(&low), Some((folders[0].clone(), Some(known))));
        assert_eq!(found(&Meta { size: 9, ..low }), None);
        assert!(!Layers::open(&folders[1..], Some(&store)).unwrap().know_files());
    }

    #[test]
    fn what_is_known_is_neither_read_for_the_key_nor_for_the_layer() {
        let temp = tempfile::tempdir().unwrap();
        let (store, [low, high], known) = store(temp.path());
        let copy = Copy { from_client: false, ..plain("d", "/x") };
        let digest =
            |folder: &PathBuf, store| digest::digest(&copy, &SourceTree::Layers(vec![folder.clone()]), store).unwrap();
        assert_ne!(digest(&low, Some(&store)), digest(&low, None));
        assert_eq!(digest(&high, Some(&store)), digest(&high, None));
        let variants = [
            copy.clone(),
            Copy { link: true, ..copy.clone() },
            Copy { chmod: Some(Chmod::Octal(0o600)), ..copy.clone() },
        ];
        for (number, copy) in variants.into_iter().enumerate() {
            let copied = |sources: &[&PathBuf]| {
                let upper = temp.path().join(format!("upper-{number}-{}", sources.len()));
                std::fs::create_dir(&upper).unwrap();
                let copies = Copies::open(&store, "x").unwrap();
                let trees = sources.iter().map(|folder| SourceTree::Layers(vec![PathBuf::clone(folder)]));
                let copies_of = |at| Copy { from: Some(at), ..copy.clone() };
                let op = operation(&(0..sources.len()).map(copies_of).collect::<Vec<_>>());
                apply(&op, &[], &trees.collect::<Vec<_>>(), &upper, Some(&copies)).unwrap();
                copies.finish().unwrap().file("x/f".as_ref())
            };
            assert_eq!(copied(&[&low]), Some(known), "{copy:?}");
            // Which of the two stays is not kept account of.
            assert_eq!(copied(&[&low, &high]), None, "{copy:?}");
        }
    }
}
