//! Content digests of what steps take from their sources, for cache keys: reference 7.3. No times, no names of
//! directories above; hashed by several threads, and not at all where nothing changed since it was last hashed.

use super::layers::Layers;
use super::select::{Selected, select, select_path};
use super::tree::{Tree, lock};
use super::{FileError, SourceTree, xattr};
use crate::source::dir::{self, Meta};
use cache::checksum::{BUFFER_BYTES, Entry, Kind, TreeHasher, file_digest_with};
use cache::listing::Listed;
use cache::memo::{KnownFile, StatKey};
use cache::store::Store;
use frontend::ignore::has_wildcard;
use frontend::op::Copy;
use rustix::fs::{FileType, major, minor};
use sha2::{Digest as _, Sha256};
use solver::key::hex;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// A file that changed later than this before it was looked at may change again without its time telling.
const SETTLED: Duration = Duration::from_secs(2);

/// Namespace of notes in the store: fingerprint of all that was selected -> digest.
const NOTES: &str = "selection";

/// Content digest (hex) of what `copy` selects from `source`. A missing source is [`FileError::NotFound`]. `store`
/// remembers what was found, and which files; without it all is computed.
pub fn digest(copy: &Copy, source: &SourceTree, store: Option<&Store>) -> Result<String, FileError> {
    let names = if copy.parents || has_wildcard(&copy.source) { Names::Kept } else { Names::Dropped };
    let tree = &Tree::open(source)?;
    let selected = select(copy, tree)?;
    let known = Known::of(source, store)?;
    digest_selected(tree, &selected, copy.from_client && tree.is_of_the_client(), names, known)
}

/// Content digest (hex) of the file or directory that a bind mount takes from its source. `label` is how messages call
/// the source, such as `the build context`.
pub fn bind_digest(path: &str, source: &SourceTree, label: &str, store: Option<&Store>) -> Result<String, FileError> {
    let tree = &Tree::open(source)?;
    let selected = select_path(path, tree, label)?;
    digest_selected(tree, &[selected], tree.is_of_the_client(), Names::Dropped, Known::of(source, store)?)
}

/// What is known before anything is read.
struct Known<'a> {
    store: Option<&'a Store>,
    /// Those of a tree of layers of which files are known.
    layers: Option<Layers>,
}

impl Known<'_> {
    fn of<'a>(source: &SourceTree, store: Option<&'a Store>) -> Result<Known<'a>, FileError> {
        let layers = match source {
            SourceTree::Layers(layers) => Some(Layers::open(layers, store)?).filter(Layers::know_files),
            SourceTree::Client(_) | SourceTree::Empty => None,
        };
        Ok(Known { store, layers })
    }

    /// What is known of files, in the order asked; nothing at all if the list is empty.
    fn files(&self, tree: &Tree, files: &[&Item<'_>]) -> Vec<Option<KnownFile>> {
        if let Some(layers) = &self.layers {
            return files.iter().map(|file| layers.find(&file.path, file.meta)?.known).collect();
        }
        let Some(store) = self.store.filter(|_| tree.context().is_some()) else { return vec![] };
        let keys: Vec<StatKey> = files.iter().map(|file| stat_key(file.meta)).collect();
        store.stat_digests(&keys).unwrap_or_else(|error| {
            tracing::warn!(?error, "cannot read remembered digests of files");
            vec![]
        })
    }
}

/// Whether the names of selected files are part of the digest.
#[derive(Clone, Copy, PartialEq)]
enum Names {
    /// Wildcards and `--parents`: a rename changes the result.
    Kept,
    /// A plain path, which is in the key itself.
    Dropped,
}

/// A selected file, directories included.
struct Item<'a> {
    /// In the digest.
    name: Vec<u8>,
    /// In the tree.
    path: Vec<u8>,
    meta: &'a Meta,
    /// A directory that is copied into: only what it holds counts, not its own mode and owner.
    top: bool,
}

fn digest_selected(
    tree: &Tree,
    selected: &[Selected],
    from_client: bool,
    names: Names,
    known: Known<'_>,
) -> Result<String, FileError> {
    let store = known.store;
    let items = items(selected, names);
    let started = SystemTime::now();
    // One look-up tells that nothing at all changed.
    let fingerprint = (tree.context().is_some() && settled(&items, started)).then(|| fingerprint(&items, from_client));
    if let (Some(fingerprint), Some(store)) = (&fingerprint, store) {
        match store.note(NOTES, fingerprint) {
            Ok(Some(digest)) => return Ok(dir::text(&digest)),
            Ok(None) => {}
            Err(error) => tracing::warn!(?error, "cannot read a remembered selection"),
        }
    }
    let data = data_digests(tree, &items, &known, started)?;
    let mut hasher = TreeHasher::new();
    let mut listing = vec![];
    for (item, data) in items.iter().zip(&data) {
        let listed = add(&mut hasher, tree, item, from_client, *data)?;
        listing.extend(store.and(listed));
    }
    let digest = hasher.finish();
    if let Some(store) = store
        && let Err(error) = store.put_listing(&digest, &listing)
    {
        tracing::warn!(?error, "cannot keep which files a digest is of");
    }
    if let (Some(fingerprint), Some(store)) = (&fingerprint, store)
        && let Err(error) = store.put_note(NOTES, fingerprint, digest.as_bytes())
    {
        tracing::warn!(?error, "cannot remember a selection");
    }
    Ok(digest)
}

fn items(selected: &[Selected], names: Names) -> Vec<Item<'_>> {
    let mut items = Vec::with_capacity(selected.iter().map(|selected| selected.entries.len() + 1).sum());
    for found in selected {
        let name = match names {
            Names::Kept if !found.meta.is_dir() => found.name.clone(),
            _ => Vec::new(),
        };
        items.push(Item { name, path: found.path.clone(), meta: &found.meta, top: found.meta.is_dir() });
        items.extend(found.entries.iter().map(|picked| Item {
            name: picked.rel.clone(),
            path: found.source_of(picked),
            meta: &picked.meta,
            top: false,
        }));
    }
    items
}

/// Gives what people may be told of the item; nothing of a directory that only its content counts of.
fn add(
    hasher: &mut TreeHasher,
    tree: &Tree,
    item: &Item<'_>,
    from_client: bool,
    known: Option<KnownFile>,
) -> Result<Option<Listed>, FileError> {
    let meta = item.meta;
    let kind = match meta.kind {
        // Sockets of the client arrive as empty files.
        FileType::Socket if from_client => Kind::File,
        FileType::Socket => Kind::Socket,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::CharacterDevice => Kind::CharDevice,
        FileType::BlockDevice => Kind::BlockDevice,
        FileType::Fifo => Kind::Fifo,
        FileType::RegularFile | FileType::Unknown => Kind::File,
    };
    let target = if meta.is_symlink() { tree.read_link(&item.path)? } else { Vec::new() };
    let xattrs = match tree.root() {
        Some(root) if !item.top && (meta.is_dir() || meta.is_file() && !known.is_some_and(|file| file.is_plain)) => {
            xattr::read_at(root, &item.path)
        }
        _ => Vec::new(),
    };
    let is_device = matches!(kind, Kind::CharDevice | Kind::BlockDevice);
    let entry = Entry {
        kind,
        mode: if item.top { 0 } else { meta.mode },
        uid: if from_client || item.top { 0 } else { meta.uid },
        gid: if from_client || item.top { 0 } else { meta.gid },
        size: if meta.is_file() { meta.size } else { 0 },
        target: &target,
        device: if is_device { (major(meta.rdev), minor(meta.rdev)) } else { (0, 0) },
        xattrs: &xattrs,
        opaque: false,
    };
    let data = known.as_ref().map(|file| &file.digest);
    hasher.add(&item.name, &entry, data);
    Ok((!item.top).then(|| listed(&item.path, &entry, data)))
}

fn listed(path: &[u8], entry: &Entry<'_>, data: Option<&[u8; 32]>) -> Listed {
    let attributes = || {
        let mut hasher = Sha256::new();
        for text in entry.xattrs.iter().flat_map(|(name, value)| [name, value]) {
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text);
        }
        hex(&hasher.finalize()[..8])
    };
    let path = dir::text(path);
    Listed {
        path: path.trim_start_matches('/').to_string(),
        kind: char::from(entry.kind as u8),
        mode: entry.mode,
        uid: entry.uid,
        gid: entry.gid,
        size: entry.size,
        data: match (data, entry.kind) {
            (Some(data), _) => hex(&data[..8]),
            (None, Kind::CharDevice | Kind::BlockDevice) => format!("{}:{}", entry.device.0, entry.device.1),
            (None, _) => dir::text(entry.target),
        },
        xattrs: if entry.xattrs.is_empty() { String::new() } else { attributes() },
    }
}

/// What is known, by now, of those items that are regular files and not empty, in order.
fn data_digests(
    tree: &Tree,
    items: &[Item<'_>],
    known: &Known<'_>,
    started: SystemTime,
) -> Result<Vec<Option<KnownFile>>, FileError> {
    let mut digests: Vec<Option<KnownFile>> = vec![None; items.len()];
    let files: Vec<usize> =
        (0..items.len()).filter(|&at| items[at].meta.is_file() && items[at].meta.size > 0).collect();
    let store = known.store.filter(|_| tree.context().is_some());
    let known = known.files(tree, &files.iter().map(|&at| &items[at]).collect::<Vec<_>>());
    let mut unknown = Vec::new();
    for (i, &at) in files.iter().enumerate() {
        match known.get(i) {
            Some(Some(file)) => digests[at] = Some(*file),
            _ => unknown.push(at),
        }
    }
    let hashed = hash_files(tree, items, &unknown)?;
    let mut learnt = Vec::with_capacity(hashed.len());
    for (at, file, same) in hashed {
        digests[at] = Some(file);
        if same {
            learnt.push((stat_key(items[at].meta), file));
        }
    }
    if let Some(store) = store
        && !learnt.is_empty()
        && let Err(error) = store.put_stat_digests(&learnt, started)
    {
        tracing::warn!(?error, "cannot remember digests of files");
    }
    Ok(digests)
}

/// Index of the item, what it is, and whether its metadata stayed the same meanwhile.
type Hashed = (usize, KnownFile, bool);

fn hash_files(tree: &Tree, items: &[Item<'_>], which: &[usize]) -> Result<Vec<Hashed>, FileError> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Result<Vec<Hashed>, FileError>> = Mutex::new(Ok(Vec::with_capacity(which.len())));
    let work = || {
        let mut buffer = vec![0; BUFFER_BYTES];
        while let Some(&at) = which.get(next.fetch_add(1, Ordering::Relaxed)) {
            let hashed = hash_file(tree, &items[at].path, items[at].meta, tree.context().is_some(), &mut buffer);
            let mut results = lock(&results);
            match (&mut *results, hashed) {
                (Ok(done), Ok((file, same))) => done.push((at, file, same)),
                (Ok(_), Err(error)) => {
                    *results = Err(error);
                    next.store(which.len(), Ordering::Relaxed);
                }
                (Err(_), _) => return,
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..super::threads().min(which.len().div_ceil(8)) {
            scope.spawn(work);
        }
        work();
    });
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// What a file is, and whether the file is still what it was when it was listed.
fn hash_file(
    tree: &Tree,
    path: &[u8],
    listed: &Meta,
    may_change: bool,
    buffer: &mut [u8],
) -> Result<(KnownFile, bool), FileError> {
    let file = tree.open_file(path)?;
    let digest = file_digest_with(&file, listed.size, buffer).map_err(|error| tree.error("read", path, error))?;
    let known = KnownFile { digest, is_plain: xattr::read(&file).is_empty() };
    if !may_change {
        return Ok((known, true));
    }
    let now = rustix::fs::fstat(&file).map_err(|errno| tree.error("look at", path, errno))?;
    let now = Meta::of(&now);
    if (now.size, now.mtime, now.ino) != (listed.size, listed.mtime, listed.ino) {
        return Err(FileError::Changed { path: dir::text(path) });
    }
    Ok((known, now.ctime == listed.ctime))
}

/// Whether all files are old enough that a later change cannot leave their times as they are.
fn settled(items: &[Item<'_>], now: SystemTime) -> bool {
    let newest = items.iter().map(|item| item.meta.ctime.max(item.meta.mtime)).max().unwrap_or_default();
    let limit = now.checked_sub(SETTLED).and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    limit.is_some_and(|limit| (newest.0, newest.1) < (limit.as_secs() as i64, limit.subsec_nanos()))
}

/// Digest of all that `stat` tells about all items. A change of attributes or owners changes a file's ctime.
fn fingerprint(items: &[Item<'_>], from_client: bool) -> String {
    let mut hasher = Sha256::new();
    hasher.update([u8::from(from_client)]);
    for item in items {
        let meta = item.meta;
        hasher.update((item.name.len() as u64).to_le_bytes());
        hasher.update(&item.name);
        hasher.update([u8::from(item.top)]);
        if item.top {
            continue;
        }
        hasher.update(meta.kind.as_raw_mode().to_le_bytes());
        hasher.update(meta.mode.to_le_bytes());
        for number in [meta.size, meta.rdev, meta.dev, meta.ino, u64::from(meta.uid), u64::from(meta.gid)] {
            hasher.update(number.to_le_bytes());
        }
        for (seconds, nanoseconds) in [meta.mtime, meta.ctime] {
            hasher.update(seconds.to_le_bytes());
            hasher.update(nanoseconds.to_le_bytes());
        }
    }
    hex(&hasher.finalize())
}

/// The state that a listing tells.
pub fn stat_key(meta: &Meta) -> StatKey {
    let nanoseconds = |(s, ns): (i64, u32)| s.saturating_mul(1_000_000_000).saturating_add(i64::from(ns));
    StatKey {
        dev: meta.dev,
        ino: meta.ino,
        size: meta.size,
        mtime_ns: nanoseconds(meta.mtime),
        ctime_ns: nanoseconds(meta.ctime),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{make, plain};
    use super::*;
    use crate::source::context::ContextDir;
    use frontend::ignore::Ignore;
    use std::path::Path;
    use std::sync::Arc;

    fn client(path: &Path) -> SourceTree {
        SourceTree::Client(Arc::new(ContextDir::open(path, Ignore::default()).unwrap()))
    }

    /// Whether the digest of what `copy` takes changes when `after` is done to a context.
    #[track_caller]
    fn check(copy: &Copy, after: impl Fn(&Path), changes: bool) {
        let temp = tempfile::tempdir().unwrap();
        make(temp.path(), "f d/a 644 0:0 a\nf d/b 644 0:0 b\nl d/l - 0:0 a\nd d/e\nf other 644 0:0 o\nl link - 0:0 d");
        let before = digest(copy, &client(temp.path()), None).unwrap();
        assert_eq!(before.len(), 64);
        after(temp.path());
        assert_eq!(digest(copy, &client(temp.path()), None).unwrap() != before, changes);
    }

    #[test]
    fn what_changes_a_digest() {
        let write =
            |name: &'static str, text: &'static str| move |root: &Path| std::fs::write(root.join(name), text).unwrap();
        let rename = |from: &'static str, to: &'static str| {
            move |root: &Path| std::fs::rename(root.join(from), root.join(to)).unwrap()
        };
        let chmod = |name: &'static str| {
            move |root: &Path| rustix::fs::chmod(root.join(name), rustix::fs::Mode::from_raw_mode(0o705)).unwrap()
        };
        let dir = plain("d", "/x");
        check(&dir, write("d/a", "a"), false);
        check(&dir, write("d/a", "A"), true);
        check(&dir, write("d/new", ""), true);
        check(&dir, write("other", "changed"), false);
        check(&dir, rename("d/a", "d/c"), true);
        check(&dir, chmod("d/a"), true);
        check(&dir, chmod("d/e"), true);
        // The directory that is copied gives only its content.
        check(&dir, chmod("d"), false);
        check(&plain("d/a", "/x"), chmod("d/a"), true);
        check(&plain("d/a", "/x"), write("d/b", "changed"), false);
        check(&plain("link", "/x"), write("d/a", "changed"), true);
        check(&plain("link/a", "/x"), write("d/b", "changed"), false);
        check(&plain("d/[ab]", "/x"), rename("d/a", "d/c"), true);
        check(&plain("oth*", "/x"), rename("other", "oth"), true);
        check(&Copy { exclude: vec!["a".into()], ..plain("d", "/x") }, write("d/a", "changed"), false);
        check(&Copy { parents: true, ..plain("d/a", "/x/") }, chmod("d"), true);
    }

    #[test]
    fn a_renamed_file_keeps_the_digest_of_a_plain_path() {
        let temp = tempfile::tempdir().unwrap();
        make(temp.path(), "f a 644 0:0 x\nf b 644 0:0 x");
        let of = |name: &str| digest(&plain(name, "/x"), &client(temp.path()), None).unwrap();
        assert_eq!(of("a"), of("b"));
        assert_ne!(of("a"), of("[a]"));
        let bind = |path: &str| bind_digest(path, &client(temp.path()), "the build context", None).unwrap();
        assert_eq!(bind("/a"), bind("b"));
        assert!(bind_digest("c", &client(temp.path()), "the build context", None).is_err());
    }

    #[test]
    fn what_is_remembered_is_what_is_computed() {
        let temp = tempfile::tempdir().unwrap();
        let (source, root) = (temp.path().join("source"), temp.path().join("store"));
        let names: String = (0..300).map(|i| format!("f d{}/{i} 644 0:0 {i}\n", i % 20)).collect();
        make(&source, &names);
        // Files that were changed just now are not remembered.
        std::thread::sleep(Duration::from_millis(2100));
        let store = Store::open(&root).unwrap();
        let copy = plain(".", "/x");
        let fresh = digest(&copy, &client(&source), None).unwrap();
        for _ in 0..3 {
            assert_eq!(digest(&copy, &client(&source), Some(&store)).unwrap(), fresh);
        }
        std::fs::write(source.join("d1/1"), "changed").unwrap();
        let changed = digest(&copy, &client(&source), Some(&store)).unwrap();
        assert_ne!(changed, fresh);
        assert_eq!(changed, digest(&copy, &client(&source), None).unwrap());
        let layers = SourceTree::Layers(vec![source.clone()]);
        let stage = digest(&copy, &layers, Some(&store)).unwrap();
        assert_eq!(digest(&copy, &layers, Some(&store)).unwrap(), stage);
    }
}
