//! What the same COPY made in a former build. Files of the client that have not changed since are not written again: they
//! become hard links to those of the former snapshot, which nothing ever writes to. Of files of other stages (`share.rs`) it
//! tells which are links already.
//!
//! A tree never shows a file together with the one that it is a link to, because both have the same path in it; so no
//! program in a step takes them for one file.

use super::dest::Dest;
use super::digest::stat_key;
use super::layers::is_same_file;
use super::tree::lock;
use crate::source::dir::Meta;
use cache::error::StoreError;
use cache::memo::{KnownFile, StatKey};
use cache::store::Store;
use cache::tree::SnapshotId;
use rustix::fs::{AtFlags, Mode, OFlags};
use sha2::{Digest as _, Sha256};
use solver::key::hex;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Namespace of notes in the store: a COPY -> its latest snapshot, and what its files were copied from.
const NOTES: &str = "copied";
/// Fewer files than this are copied as quickly as they are looked up.
const WORTHWHILE: usize = 64;
/// A note of more bytes is not kept: about 700,000 files.
const LIMIT_BYTES: usize = 64 << 20;

/// The state and the data's digest of a file that was copied.
type Known = (StatKey, [u8; 32]);

/// A copy's path, the state of what it was copied from, and the data's digest if it is known already.
type Copied = (Vec<u8>, StatKey, Option<[u8; 32]>);

/// Files of one COPY: those of its former snapshot, and those that it copies now.
pub struct Copies {
    note: String,
    former: Option<(OwnedFd, HashMap<Vec<u8>, Known>)>,
    store: Store,
    copied: Mutex<Vec<Copied>>,
    /// Files of other stages, as far as they are known.
    lent: Mutex<HashMap<Vec<u8>, KnownFile>>,
    /// How many files of other stages are links.
    linked: AtomicUsize,
    /// Something replaced a file of these.
    replaced: AtomicBool,
}

impl Copies {
    /// `name` tells this COPY from all others of all projects, and from itself with another tree to copy from. A former
    /// snapshot that is found stays as long as this process lives.
    pub fn open(store: &Store, name: &str) -> Result<Copies, StoreError> {
        let note = hex(&Sha256::digest(name));
        let former = match store.note(NOTES, &note)?.and_then(|bytes| decode(&bytes)) {
            Some((snapshot, files)) if store.snapshots().exists(&snapshot) => {
                let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
                let root = rustix::fs::open(store.snapshots().path(&snapshot), flags, Mode::empty());
                root.ok().map(|root| (root, files))
            }
            _ => None,
        };
        Ok(Copies {
            note,
            former,
            store: store.clone(),
            copied: Mutex::default(),
            lent: Mutex::default(),
            linked: AtomicUsize::new(0),
            replaced: AtomicBool::new(false),
        })
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Makes `target` a link to the former copy of the same file, if there is one with the metadata that is wanted.
    /// False if there is none, or the kernel refuses.
    pub fn link(&self, source: &Meta, dest: &Dest, target: &[u8], owner: (u32, u32), mode: u32) -> bool {
        let Some((root, files)) = &self.former else { return false };
        let Some((state, digest)) = files.get(target) else { return false };
        if *state != stat_key(source) {
            return false;
        }
        let Ok(stat) = rustix::fs::statat(root, target, AtFlags::SYMLINK_NOFOLLOW) else { return false };
        let found = Meta::of(&stat);
        let wanted = (source.size, source.mtime, mode, owner);
        if !found.is_file() || (found.size, found.mtime, found.mode, (found.uid, found.gid)) != wanted {
            return false;
        }
        if rustix::fs::linkat(root, target, dest.upper(), target, AtFlags::empty()).is_err() {
            return false;
        }
        lock(&self.copied).push((target.to_vec(), *state, Some(*digest)));
        true
    }

    /// Remembers a copy of a file that has no attributes and no other names.
    pub fn copied(&self, source: &Meta, target: &[u8]) {
        lock(&self.copied).push((target.to_vec(), stat_key(source), None));
    }

    /// Whether a file of another stage is the one that the former snapshot has at `target`: this COPY has linked it there,
    /// so it had no other name in its own layer, and layers do not change.
    pub fn has_linked(&self, source: &Meta, target: &[u8]) -> bool {
        let Some((root, _)) = &self.former else { return false };
        let found = rustix::fs::statat(root, target, AtFlags::SYMLINK_NOFOLLOW);
        found.is_ok_and(|found| is_same_file(&Meta::of(&found), source))
    }

    /// A file of another stage became a link.
    pub fn linked(&self, target: &[u8], known: Option<KnownFile>) {
        self.linked.fetch_add(1, Ordering::Relaxed);
        known.inspect(|known| self.lent(target, *known));
    }

    /// A file of another stage, of which this is known, was linked or copied.
    pub fn lent(&self, target: &[u8], known: KnownFile) {
        lock(&self.lent).insert(target.to_vec(), known);
    }

    /// A file was there already: a later source of the step replaces those of an earlier one, and which stays is not
    /// kept account of.
    pub fn replaced(&self) {
        self.replaced.store(true, Ordering::Relaxed);
    }

    /// When all is copied: what is known of the copies.
    pub fn finish(self) -> Result<Finished, StoreError> {
        let Copies { note, store, linked, .. } = self;
        let copied = self.copied.into_inner().unwrap_or_else(PoisonError::into_inner);
        let lent = self.lent.into_inner().unwrap_or_else(PoisonError::into_inner);
        let finished = Finished { note, files: HashMap::new(), lent, linked: linked.into_inner() };
        if self.replaced.into_inner() {
            return Ok(Finished { lent: HashMap::new(), ..finished });
        }
        if copied.len() < WORTHWHILE {
            return Ok(finished);
        }
        let unknown: Vec<StatKey> =
            copied.iter().filter(|(_, _, digest)| digest.is_none()).map(|(_, state, _)| *state).collect();
        let mut found = store.stat_digests(&unknown)?.into_iter();
        let known = copied.into_iter().filter_map(|(path, state, digest)| {
            let digest = digest.or_else(|| found.next().flatten().map(|file| file.digest))?;
            Some((path, (state, digest)))
        });
        Ok(Finished { files: known.collect(), ..finished })
    }
}

/// What is known of the files of a COPY.
pub struct Finished {
    note: String,
    files: HashMap<Vec<u8>, Known>,
    lent: HashMap<Vec<u8>, KnownFile>,
    linked: usize,
}

impl Finished {
    /// What is known of a file, by its path in the layer.
    pub fn file(&self, path: &Path) -> Option<KnownFile> {
        use std::os::unix::ffi::OsStrExt;
        let path = path.as_os_str().as_bytes();
        let of_the_client = self.files.get(path).map(|(_, digest)| KnownFile { digest: *digest, is_plain: true });
        of_the_client.or_else(|| self.lent.get(path).copied())
    }

    /// Remembers them as those of `snapshot`.
    pub fn keep(&self, store: &Store, snapshot: &SnapshotId) -> Result<(), StoreError> {
        if self.files.len().max(self.linked) < WORTHWHILE {
            return Ok(());
        }
        let bytes = encode(snapshot, &self.files);
        if bytes.len() > LIMIT_BYTES { Ok(()) } else { store.put_note(NOTES, &self.note, &bytes) }
    }
}

/// The snapshot's name, then each file: all numbers in 8 bytes, little-endian, texts after their length.
fn encode(snapshot: &SnapshotId, files: &HashMap<Vec<u8>, Known>) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(128 + files.len() * 128);
    let text = |bytes: &mut Vec<u8>, text: &[u8]| {
        bytes.extend((text.len() as u64).to_le_bytes());
        bytes.extend(text);
    };
    text(&mut bytes, snapshot.0.as_bytes());
    for (path, (state, digest)) in files {
        text(&mut bytes, path);
        for number in [state.dev, state.ino, state.size, state.mtime_ns as u64, state.ctime_ns as u64] {
            bytes.extend(number.to_le_bytes());
        }
        bytes.extend(digest);
    }
    bytes
}

/// `None` for what [`encode`] did not make.
fn decode(mut bytes: &[u8]) -> Option<(SnapshotId, HashMap<Vec<u8>, Known>)> {
    let number = |bytes: &mut &[u8]| {
        let (first, rest) = bytes.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(u64::from_le_bytes(*first))
    };
    let text = |bytes: &mut &[u8]| {
        let length = usize::try_from(number(bytes)?).ok()?;
        let (first, rest) = bytes.split_at_checked(length)?;
        *bytes = rest;
        Some(first.to_vec())
    };
    let snapshot = SnapshotId(String::from_utf8(text(&mut bytes)?).ok()?);
    let mut files = HashMap::with_capacity(bytes.len() / 100);
    while !bytes.is_empty() {
        let path = text(&mut bytes)?;
        let mut next = || number(&mut bytes);
        let (dev, ino, size) = (next()?, next()?, next()?);
        let (mtime_ns, ctime_ns) = (next()? as i64, next()? as i64);
        let (digest, rest) = bytes.split_first_chunk::<32>()?;
        bytes = rest;
        files.insert(path, (StatKey { dev, ino, size, mtime_ns, ctime_ns }, *digest));
    }
    Some((snapshot, files))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{operation, plain};
    use super::super::{SourceTree, apply};
    use super::*;
    use crate::source::context::ContextDir;
    use cache::checksum::{NO_HINT, change};
    use frontend::ignore::Ignore;
    use frontend::op::{Copy, Id, Owner};
    use std::os::unix::fs::MetadataExt;
    use std::sync::Arc;
    use std::time::{Duration, SystemTime};

    const FILES: usize = WORTHWHILE + 10;

    /// A context whose files the store knows, as if they had not been written just now.
    fn know(store: &Store, root: &Path) {
        let files = std::fs::read_dir(root.join("d")).unwrap().map(|entry| entry.unwrap().path());
        let known = |path: std::path::PathBuf| {
            let stat = rustix::fs::lstat(&path).unwrap();
            let digest = Sha256::digest(std::fs::read(&path).unwrap()).into();
            (stat_key(&Meta::of(&stat)), KnownFile { digest, is_plain: true })
        };
        store
            .put_stat_digests(&files.map(known).collect::<Vec<_>>(), SystemTime::now() + Duration::from_secs(60))
            .unwrap();
    }

    /// The folder that the copies make, and how many of its files were known.
    fn copied(store: &Store, root: &Path, copies: &[Copy], id: &str) -> (std::path::PathBuf, usize) {
        let tree = SourceTree::Client(Arc::new(ContextDir::open(root, Ignore::default()).unwrap()));
        let draft = store.snapshots().prepare().unwrap();
        let remembered = Copies::open(store, "COPY d /x").unwrap();
        apply(&operation(copies), &[], &[tree], draft.upper(), Some(&remembered)).unwrap();
        let finished = remembered.finish().unwrap();
        assert_eq!(
            change(draft.upper(), &|path, _| finished.file(path)).unwrap(),
            change(draft.upper(), NO_HINT).unwrap()
        );
        let id = SnapshotId(id.into());
        store.snapshots().commit(draft, &id).unwrap();
        finished.keep(store, &id).unwrap();
        (store.snapshots().path(&id), finished.files.len())
    }

    #[test]
    fn what_did_not_change_is_linked() {
        let (temp, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (store, root) = (Store::open(temp.path()).unwrap(), root.path());
        std::fs::create_dir(root.join("d")).unwrap();
        let file = |number: usize| root.join(format!("d/{number}"));
        (0..FILES).for_each(|number| std::fs::write(file(number), format!("{number}")).unwrap());
        know(&store, root);
        let copy = plain("d", "/x");
        let (first, known) = copied(&store, root, std::slice::from_ref(&copy), "first");
        assert_eq!(known, FILES);

        std::fs::write(file(0), "changed").unwrap();
        rustix::fs::chmod(file(1), Mode::from_raw_mode(0o600)).unwrap();
        std::fs::remove_file(file(2)).unwrap();
        rustix::fs::setxattr(file(3), "user.n", b"v", rustix::fs::XattrFlags::empty()).unwrap();
        std::fs::write(root.join("d/new"), "new").unwrap();
        know(&store, root);
        let (second, known) = copied(&store, root, std::slice::from_ref(&copy), "second");
        assert_eq!(known, FILES - 1);
        let inode = |folder: &Path, name: &str| std::fs::metadata(folder.join("x").join(name)).unwrap().ino();
        for number in 0..FILES {
            let name = number.to_string();
            let is_same = number != 2 && inode(&first, &name) == inode(&second, &name);
            assert_eq!(is_same, number > 3, "{name}");
        }
        assert_eq!(std::fs::read_to_string(second.join("x/0")).unwrap(), "changed");
        assert_eq!(std::fs::metadata(second.join("x/1")).unwrap().mode() & 0o777, 0o600);

        // Of a former snapshot that is gone nothing is taken.
        store.snapshots().remove(&SnapshotId("second".into())).unwrap();
        let (third, _) = copied(&store, root, std::slice::from_ref(&copy), "third");
        assert_ne!(inode(&first, "9"), inode(&third, "9"));
        if rustix::process::geteuid().is_root() {
            let owner = Owner { user: Id::Number(5), group: Some(Id::Number(5)) };
            let (fourth, _) = copied(&store, root, &[Copy { owner: Some(owner), ..copy.clone() }], "fourth");
            assert_eq!(std::fs::metadata(fourth.join("x/9")).unwrap().uid(), 5);
        }
        // Which of two files of one name stays is not known.
        let (_, known) = copied(&store, root, &[copy.clone(), copy], "fifth");
        assert_eq!(known, 0);
    }

    #[test]
    fn notes_are_read_back() {
        let state = StatKey { dev: u64::MAX, ino: 2, size: 3, mtime_ns: -4, ctime_ns: i64::MIN };
        let files = HashMap::from([(b"a/\xff".to_vec(), (state, [7; 32])), (Vec::new(), (state, [0; 32]))]);
        let bytes = encode(&SnapshotId("ab".into()), &files);
        let (snapshot, back) = decode(&bytes).unwrap();
        assert_eq!((snapshot.0.as_str(), &back), ("ab", &files));
        for end in 1..bytes.len() {
            assert!(decode(&bytes[..end]).is_none_or(|(_, back)| back.len() < files.len()));
        }
        assert!(decode(&[0xff; 64]).is_none());
    }
}
