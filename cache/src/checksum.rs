//! Digests over what files are: kind, mode, owner, xattrs, link target, device, bytes; never times, never inodes
//! (BuildKit's rule, contenthash).
//!
//! One rule for all: what a step changed ([`change_digest`]) and what a COPY selects (a [`TreeHasher`] that the copier
//! feeds), so equal files have equal digests wherever they come from. Hard links count as equal files.

use crate::error::FileError;
use crate::memo::KnownFile;
use crate::object::Size;
use crate::owners::Owners;
use crate::walk::{self, CAPABILITY, Found, Walk, Xattr, XattrReader};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::ScopedJoinHandle;

/// Threads that hash files beside the one that finds them: what a step has cloned from a layer below is not in memory, and
/// a disk is the quicker the more it is asked at once.
const HASHERS: usize = 4;
/// Files that wait for one of them.
const WAITING: usize = 64;
/// So many files below [`LARGE_BYTES`] are hashed before other threads are started.
const ALONE: usize = 16;
const LARGE_BYTES: u64 = 32 << 10;
/// A good size for the buffer of [`file_digest_with`].
pub const BUFFER_BYTES: usize = 128 << 10;

/// Kind of an entry. The numbers are part of every digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// Regular file; its data is a digest of its own.
    File = b'0',
    /// Symbolic link.
    Symlink = b'2',
    /// Character device.
    CharDevice = b'3',
    /// Block device.
    BlockDevice = b'4',
    /// Directory.
    Directory = b'5',
    /// Named pipe.
    Fifo = b'6',
    /// Unix socket.
    Socket = b's',
    /// overlayfs' whiteout: the name is removed.
    Whiteout = b'w',
}

impl Kind {
    /// Of a file's `stat`; `upper` says whether the tree is in upper form, where a device 0:0 is a whiteout.
    pub fn of(stat: &Stat, upper: Form) -> Kind {
        match walk::file_type(stat) {
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice if upper == Form::Upper && walk::is_whiteout(stat) => Kind::Whiteout,
            FileType::CharacterDevice => Kind::CharDevice,
            FileType::BlockDevice => Kind::BlockDevice,
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::RegularFile | FileType::Unknown => Kind::File,
        }
    }
}

/// Whether a tree is a plain one or in overlayfs' upper form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// All files are what they seem.
    Plain,
    /// Devices 0:0 are whiteouts.
    Upper,
}

/// What enters a digest of one file, beside its name and data.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Kind.
    pub kind: Kind,
    /// Permission bits with set-user-id, set-group-id and sticky. Those of symlinks do not count.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of data; 0 if not a regular file.
    pub size: u64,
    /// Target of a symlink; else empty.
    pub target: &'a [u8],
    /// Major and minor number of a device; else 0.
    pub device: (u32, u32),
    /// Name and value, sorted by name: those that [`is_content_xattr`] names.
    pub xattrs: &'a [(Vec<u8>, Vec<u8>)],
    /// Directory that hides what is below (upper form only).
    pub opaque: bool,
}

impl<'a> Entry<'a> {
    /// From a file's `stat` and what it does not tell.
    pub fn of(stat: &Stat, form: Form, target: &'a [u8], xattrs: &'a [(Vec<u8>, Vec<u8>)], opaque: bool) -> Entry<'a> {
        let kind = Kind::of(stat, form);
        let size = if kind == Kind::File { stat.st_size as u64 } else { 0 };
        let device = match kind {
            Kind::CharDevice | Kind::BlockDevice => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
            _ => (0, 0),
        };
        Entry {
            kind,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            target,
            device,
            xattrs,
            opaque,
        }
    }
}

/// Whether an xattr is part of a file's content: not those of the security modules and of the system, which differ
/// between machines, but capabilities are.
pub fn is_content_xattr(name: &[u8]) -> bool {
    name == CAPABILITY
        || !(name.starts_with(b"security.") || name.starts_with(b"system.") || walk::is_overlay_note(name))
}

/// The xattrs of `name` in `dir` that are part of its content, sorted by name. Symlinks are not followed.
pub fn content_xattrs(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<(Vec<u8>, Vec<u8>)>> {
    Ok(XattrReader::new().all(dir, name, is_content_xattr)?)
}

/// Digests entries in the order in which they are added.
#[derive(Clone, Default)]
pub struct TreeHasher {
    hasher: Sha256,
    buffer: Vec<u8>,
}

impl TreeHasher {
    /// Without entries.
    pub fn new() -> TreeHasher {
        TreeHasher::default()
    }

    /// Adds an entry. `name` is its path in what is digested (empty for an object that is digested without its
    /// name); `data` is the [`file_digest`] of a regular file that is not empty.
    pub fn add(&mut self, name: &[u8], entry: &Entry<'_>, data: Option<&[u8; 32]>) {
        self.buffer.clear();
        let mode = match entry.kind {
            Kind::Symlink => 0o777,
            Kind::Whiteout => 0,
            _ => entry.mode,
        };
        let (uid, gid) = if entry.kind == Kind::Whiteout { (0, 0) } else { (entry.uid, entry.gid) };
        self.buffer.extend([entry.kind as u8, u8::from(entry.opaque)]);
        for number in [mode, uid, gid, entry.device.0, entry.device.1, entry.xattrs.len() as u32] {
            self.buffer.extend(number.to_be_bytes());
        }
        self.buffer.extend(entry.size.to_be_bytes());
        let xattrs = entry.xattrs.iter().flat_map(|(name, value)| [&name[..], &value[..]]);
        // All of variable length is preceded by its length, so no two entries give the same bytes.
        for text in [name, entry.target].into_iter().chain(xattrs) {
            self.buffer.extend((text.len() as u64).to_be_bytes());
            self.buffer.extend(text);
        }
        self.buffer.extend(data.unwrap_or(&[0; 32]));
        self.hasher.update(&self.buffer);
    }

    /// 64 hex digits.
    pub fn finish(self) -> String {
        solver::key::CacheKey(self.hasher.finalize().into()).to_hex()
    }
}

/// SHA-256 of a file's bytes from its current position.
pub fn file_digest(file: &File) -> io::Result<[u8; 32]> {
    let size = file.metadata()?.len();
    file_digest_with(file, size, &mut vec![0; size.clamp(4 << 10, BUFFER_BYTES as u64) as usize])
}

/// As [`file_digest`], of so many bytes, or fewer if there are no more, with a buffer that the caller keeps.
pub fn file_digest_with(file: &File, size: u64, buffer: &mut [u8]) -> io::Result<[u8; 32]> {
    Ok(file_digest_while(file, size, buffer, || true)?.expect("nothing stops it"))
}

/// As [`file_digest_with`], until `go_on`, which is asked before each part, says no: `None`.
pub fn file_digest_while(
    mut file: &File,
    size: u64,
    buffer: &mut [u8],
    go_on: impl Fn() -> bool,
) -> io::Result<Option<[u8; 32]>> {
    let mut hasher = Sha256::new();
    let mut left = size;
    while left > 0 {
        if !go_on() {
            return Ok(None);
        }
        let length = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
        match file.read(&mut buffer[..length]) {
            Ok(0) => break,
            Ok(length) => {
                hasher.update(&buffer[..length]);
                left -= length as u64;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Some(hasher.finalize().into()))
}

/// What may know a regular file that is not empty, by its path relative to the upper dir and its status.
pub type Hint<'a> = &'a (dyn Fn(&Path, &Stat) -> Option<KnownFile> + Sync);

/// Nothing is known of any file.
pub const NO_HINT: Hint<'static> = &|_, _| None;

/// What an upper dir holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// 64 hex digits.
    pub digest: String,
    /// What it takes, as [`measure`](crate::object::measure) says.
    pub size: Size,
    /// Its regular files that are not empty, by their paths relative to the upper dir, in order.
    pub files: Vec<(Vec<u8>, KnownFile)>,
}

/// Digest over the changes in the upper dir `upper`: 64 hex digits.
pub fn change_digest(upper: &Path) -> Result<String, FileError> {
    Ok(change(upper, NO_HINT)?.digest)
}

/// Digests and measures the changes in the upper dir `upper`. Sockets count, though no tar can have them: the next step
/// sees them.
pub fn change(upper: &Path, hint: Hint<'_>) -> Result<Change, FileError> {
    let root = walk::open_root(upper)?;
    let owners = Owners::read(&[upper])?;
    let mut root_stat = rustix::fs::fstat(&root).map_err(FileError::at("look at", upper))?;
    (root_stat.st_uid, root_stat.st_gid) = crate::owners::of(owners.as_ref(), root.as_fd(), c".", b"", &root_stat)
        .map_err(FileError::at("read the owner of", upper))?;
    let root_xattrs = content_xattrs(root.as_fd(), c".").map_err(FileError::at("read the xattrs of", upper))?;
    let mut walk = Walk::new(root, upper)?.with_owners(owners);
    let mut found = Contents { items: Vec::new(), size: Size::of(&root_stat) };
    let (unhashed, queue) = sync_channel::<Unhashed>(WAITING);
    let queue = Mutex::new(queue);
    let hashed = std::thread::scope(|scope| {
        let mut hashers = Vec::new();
        let start = || hashers.extend((0..HASHERS).map(|_| scope.spawn(|| hash_all(&queue))));
        let hashing = Hashing { alone: ALONE, start: Some(start), unhashed, buffer: vec![0; BUFFER_BYTES] };
        let result = collect(&mut walk, &mut found, hint, hashing);
        let join = |hasher: ScopedJoinHandle<'_, _>| hasher.join().unwrap_or_else(|panic| resume_unwind(panic));
        let hashed: Vec<_> = hashers.into_iter().flat_map(join).collect();
        result.map(|()| hashed)
    })?;
    let Contents { mut items, size } = found;
    for (index, digest) in hashed {
        let item: &mut Item = &mut items[index];
        let path = upper.join(OsStr::from_bytes(&item.path));
        item.data = Data::Digest(digest.map_err(FileError::at("read", path))?);
    }
    let mut hasher = TreeHasher::new();
    hasher.add(b"", &Entry::of(&root_stat, Form::Upper, b"", &root_xattrs, false), None);
    for item in &items {
        let entry = Entry::of(&item.stat, Form::Upper, &item.target, &item.xattrs, item.opaque);
        hasher.add(&item.path, &entry, data_of(&items, item));
    }
    let known: Vec<_> = items.iter().map(|item| data_of(&items, item).copied()).collect();
    let files = items.into_iter().zip(known).filter_map(|(item, known)| {
        known.map(|digest| (item.path, KnownFile { digest, is_plain: item.xattrs.is_empty() }))
    });
    Ok(Change { digest: hasher.finish(), size, files: files.collect() })
}

struct Contents {
    items: Vec<Item>,
    size: Size,
}

struct Item {
    path: Vec<u8>,
    stat: Stat,
    target: Vec<u8>,
    xattrs: Vec<Xattr>,
    opaque: bool,
    data: Data,
}

enum Data {
    None,
    Digest([u8; 32]),
    /// That of an earlier item, a link to the same inode.
    Same(usize),
}

/// A file of an item that another thread is to hash.
struct Unhashed {
    index: usize,
    file: File,
    size: u64,
}

/// Hashes what comes, until nothing more will.
fn hash_all(queue: &Mutex<Receiver<Unhashed>>) -> Vec<(usize, io::Result<[u8; 32]>)> {
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut digests = Vec::new();
    loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Unhashed { index, file, size }) = next else { return digests };
        digests.push((index, file_digest_with(&file, size, &mut buffer)));
    }
}

fn data_of<'a>(items: &'a [Item], item: &'a Item) -> Option<&'a [u8; 32]> {
    match &item.data {
        Data::None => None,
        Data::Digest(digest) => Some(digest),
        // An earlier one is never itself a reference, so this ends.
        Data::Same(index) => data_of(items, &items[*index]),
    }
}

fn collect(
    walk: &mut Walk,
    contents: &mut Contents,
    hint: Hint<'_>,
    mut hashing: Hashing<impl FnOnce()>,
) -> Result<(), FileError> {
    let Contents { items, size } = contents;
    let mut xattrs = XattrReader::new();
    let mut links = HashMap::new();
    while let Some(found) = walk.next()? {
        let Some(stat) = found.stat else { continue };
        let kind = Kind::of(&stat, Form::Upper);
        let has_data = kind == Kind::File && stat.st_size > 0;
        let known = has_data.then(|| hint(Path::new(OsStr::from_bytes(walk.path())), &stat)).flatten();
        let mut item = match known {
            Some(KnownFile { is_plain: true, .. }) => Item::without_xattrs(walk, &stat),
            _ => item(walk, &found, &stat, &mut xattrs)?,
        };
        let index = items.len();
        let first = match (stat.st_nlink, kind) {
            (1, _) | (_, Kind::Directory) => index,
            _ => *links.entry((stat.st_dev, stat.st_ino)).or_insert(index),
        };
        if first == index {
            *size += Size::of(&stat);
        }
        if kind == Kind::Directory {
            let dir = walk.open(&found)?;
            item.opaque = walk::is_opaque(dir.as_fd()).map_err(|errno| walk.error("read", errno))?;
            walk.enter(dir, Vec::new(), false)?;
        } else if has_data {
            item.data = match known {
                _ if first != index => Data::Same(first),
                Some(known) => Data::Digest(known.digest),
                None => hashing.digest(walk, &found, stat.st_size as u64, index)?,
            };
        }
        items.push(item);
    }
    Ok(())
}

impl Item {
    fn without_xattrs(walk: &Walk, stat: &Stat) -> Item {
        let path = walk.path().to_vec();
        Item { path, stat: *stat, target: Vec::new(), xattrs: Vec::new(), opaque: false, data: Data::None }
    }
}

fn item(walk: &Walk, found: &Found, stat: &Stat, xattrs: &mut XattrReader) -> Result<Item, FileError> {
    let kind = Kind::of(stat, Form::Upper);
    let target = match kind {
        Kind::Symlink => rustix::fs::readlinkat(walk.dir(), &found.name, Vec::new())
            .map_err(|errno| walk.error("read the link", errno))?
            .into_bytes(),
        _ => Vec::new(),
    };
    let xattrs = match kind {
        Kind::Whiteout => Vec::new(),
        _ => xattrs
            .all(walk.dir(), &found.name, is_content_xattr)
            .map_err(|errno| walk.error("read the xattrs of", errno))?,
    };
    Ok(Item { target, xattrs, ..Item::without_xattrs(walk, stat) })
}

/// How files are hashed: the first few by the thread that finds them, then by others too.
struct Hashing<F> {
    /// How many more.
    alone: usize,
    start: Option<F>,
    unhashed: SyncSender<Unhashed>,
    buffer: Vec<u8>,
}

impl<F: FnOnce()> Hashing<F> {
    /// The digest of a file that was found, or nothing if another thread will have it.
    fn digest(&mut self, walk: &Walk, found: &Found, size: u64, index: usize) -> Result<Data, FileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(walk.dir(), &found.name, flags, Mode::empty())
            .map(File::from)
            .map_err(|errno| walk.error("open", errno))?;
        let file = match self.alone > 0 && size < LARGE_BYTES {
            true => {
                self.alone -= 1;
                file
            }
            false => {
                if let Some(start) = self.start.take() {
                    start();
                }
                match self.unhashed.try_send(Unhashed { index, file, size }) {
                    Ok(()) => return Ok(Data::None),
                    // This thread need not wait for them.
                    Err(TrySendError::Full(unhashed) | TrySendError::Disconnected(unhashed)) => unhashed.file,
                }
            }
        };
        let digest = file_digest_with(&file, size, &mut self.buffer);
        digest.map(Data::Digest).map_err(|error| walk.error("read", error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_tree::{is_root, make};
    use std::collections::HashSet;

    fn digest(lines: &[&str]) -> String {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), lines);
        change_digest(dir.path()).unwrap()
    }

    #[test]
    fn all_but_times_and_inodes_counts() {
        if !is_root() {
            return;
        }
        let base = ["d a", "f a/f x", "l a/l f"];
        assert_eq!(digest(&base), digest(&base));
        assert_eq!(digest(&["f a x", "h b a"]), digest(&["f a x", "f b x"]));
        let all = [
            &base[..],
            &["d a", "f a/f y", "l a/l f"],
            &["d a", "f a/f x 600", "l a/l f"],
            &["d a", "f a/f x 644 5", "l a/l f"],
            &["d a", "f a/g x", "l a/l f"],
            &["d a", "f a/f x", "l a/l g"],
            &["d a 700", "f a/f x", "l a/l f"],
            &["o a", "f a/f x", "l a/l f"],
            &["d a", "w a/f", "l a/l f"],
            &["d a", "p a/f", "l a/l f"],
            &["d a", "f a/f x", "l a/l f", "x a/f user.n=v"],
            &["d a", "f a/f x", "l a/l f", "x a user.overlay.origin=v", "w b"],
            &[],
        ];
        let distinct: HashSet<String> = all.iter().map(|lines| digest(lines)).collect();
        assert_eq!(distinct.len(), all.len());
        assert_eq!(digest(&["d a", "x a user.overlay.origin=v"]), digest(&["d a"]));
    }

    #[test]
    fn hints_stand_for_reading() {
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), &["d a", "f a/f hello", "h a/g a/f"]);
        let large = "z".repeat(200_000);
        for name in ["l1", "l2", "l3"] {
            std::fs::write(dir.path().join(name), &large).unwrap();
        }
        let read = change_digest(dir.path()).unwrap();
        let file = |path: &Path| file_digest(&File::open(dir.path().join(path)).unwrap()).unwrap();
        let size = crate::object::measure(dir.path()).unwrap();
        assert_eq!(change(dir.path(), NO_HINT).unwrap().size, size);
        for is_plain in [true, false] {
            let known = |path: &Path, _: &Stat| Some(KnownFile { digest: file(path), is_plain });
            let change = change(dir.path(), &known).unwrap();
            assert_eq!((change.digest, change.size), (read.clone(), size));
            let files: Vec<&[u8]> = change.files.iter().map(|(path, _)| path.as_slice()).collect();
            assert_eq!(files, [b"a/f".as_slice(), b"a/g", b"l1", b"l2", b"l3"]);
            assert!(change.files.iter().all(|(path, known)| known.digest == file(Path::new(OsStr::from_bytes(path)))));
        }
        let wrong = KnownFile { digest: [1; 32], is_plain: true };
        assert_ne!(change(dir.path(), &|_, _| Some(wrong)).unwrap().digest, read);
    }
}
