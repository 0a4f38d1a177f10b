//! Trees to tars: the same tree gives the same bytes (image-spec layer.md).
//!
//! A layer names what a snapshot in upper form changes: parents before children, names in bytewise order, times in
//! whole seconds, owners as numbers, of all xattrs only the capabilities, deletions as `.wh.` files. A directory that
//! hides all that is below it is written as deletions of what is there, never as `.wh..wh..opq`, since not every
//! reader of layers knows that. `changes.rs` has removed before what is no change.

use super::changes::hidden_names;
use super::header::{Header, pad};
use super::{LayerError, header};
use crate::owners::Owners;
use crate::walk::{self, CAPABILITY, Found, Walk, Xattr, XattrReader};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What to do with modification times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mtime {
    /// As they are, in whole seconds.
    Keep,
    /// Those later than this become this (`rewrite-timestamp`). Seconds since 1970.
    Clamp(i64),
    /// All become this. Seconds since 1970.
    Set(i64),
}

/// Writes the layer that `upper` is. `lower` is the opened root of a mounted view of all that is below; it is read
/// only for opaque directories, and `None` if nothing is below.
pub fn write_layer(
    upper: &Path,
    lower: Option<BorrowedFd<'_>>,
    mtime: Mtime,
    out: &mut impl Write,
) -> Result<(), LayerError> {
    let mut walk = Walk::new(walk::open_root(upper)?, upper)?.with_owners(Owners::read(&[upper])?);
    let mut writer = Writer::new(Form::Layer, b"", mtime, out);
    while let Some(found) = walk.next()? {
        let Some(stat) = found.stat.filter(|stat| !walk::is_whiteout(stat)) else {
            writer.whiteout(walk.path())?;
            continue;
        };
        writer.entry(&walk, &found, &stat)?;
        if walk::file_type(&stat) == FileType::Directory {
            let dir = walk.open(&found)?;
            let opaque = walk.in_opaque() || walk::is_opaque(dir.as_fd()).map_err(|errno| walk.error("read", errno))?;
            let hidden = match lower.filter(|_| opaque) {
                Some(lower) => {
                    hidden_names(dir.as_fd(), lower, walk.path()).map_err(|errno| walk.error("look below", errno))?
                }
                None => Vec::new(),
            };
            walk.enter(dir, hidden, opaque)?;
        }
    }
    finish(out)
}

/// Writes a plain tree (the root of a mounted view, say) with all its xattrs, each name below `prefix` (empty, or
/// ending with `/`). Does not end the archive: several trees can follow one another, then [`finish`]. The root
/// itself has no entry. `owners` are those that the tree's files do not have on the disk.
pub fn write_tree(
    root: BorrowedFd<'_>,
    owners: Option<Owners>,
    prefix: &str,
    mtime: Mtime,
    out: &mut impl Write,
) -> Result<(), LayerError> {
    let label = Path::new("/");
    let root = walk::reopen(root).map_err(crate::error::FileError::at("open", label))?;
    let mut walk = Walk::new(root, label)?.with_owners(owners);
    let mut writer = Writer::new(Form::Tree, prefix.as_bytes(), mtime, out);
    while let Some(found) = walk.next()? {
        let Some(stat) = found.stat.filter(|stat| !walk::is_whiteout(stat)) else { continue };
        writer.entry(&walk, &found, &stat)?;
        if walk::file_type(&stat) == FileType::Directory {
            let dir = walk.open(&found)?;
            walk.enter(dir, Vec::new(), false)?;
        }
    }
    Ok(())
}

/// Ends an archive: two blocks of zeros.
pub fn finish(out: &mut impl Write) -> Result<(), LayerError> {
    out.write_all(&[0; 2 * header::BLOCK]).map_err(LayerError::Write)
}

#[derive(Clone, Copy, PartialEq)]
enum Form {
    Layer,
    Tree,
}

struct Writer<'a, W> {
    form: Form,
    prefix: &'a [u8],
    mtime: Mtime,
    out: &'a mut W,
    /// Device and inode -> name of the first entry.
    links: HashMap<(u64, u64), Vec<u8>>,
    xattrs: XattrReader,
    name: Vec<u8>,
    data: Vec<u8>,
}

impl<'a, W: Write> Writer<'a, W> {
    fn new(form: Form, prefix: &'a [u8], mtime: Mtime, out: &'a mut W) -> Self {
        let (links, xattrs) = (HashMap::new(), XattrReader::new());
        Writer { form, prefix, mtime, out, links, xattrs, name: Vec::new(), data: vec![0; 128 << 10] }
    }

    fn whiteout(&mut self, path: &[u8]) -> Result<(), LayerError> {
        let base = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
        let name = [&path[..base], b".wh.", &path[base..]].concat();
        Header::whiteout(&name).write_ustar(self.out).map_err(LayerError::Write)
    }

    fn entry(&mut self, walk: &Walk, found: &Found, stat: &Stat) -> Result<(), LayerError> {
        let kind = walk::file_type(stat);
        let Some(mut typeflag) = typeflag(kind) else { return Ok(()) };
        self.name.clear();
        self.name.extend_from_slice(self.prefix);
        self.name.extend_from_slice(walk.path());
        let mut link = Vec::new();
        match kind {
            FileType::Directory => self.name.push(b'/'),
            FileType::Symlink => {
                link = rustix::fs::readlinkat(walk.dir(), &found.name, Vec::new())
                    .map_err(|errno| walk.error("read the link", errno))?
                    .into_bytes();
            }
            _ => {}
        }
        if kind != FileType::Directory && stat.st_nlink > 1 {
            match self.links.get(&(stat.st_dev, stat.st_ino)) {
                Some(first) => (typeflag, link) = (b'1', first.clone()),
                None => drop(self.links.insert((stat.st_dev, stat.st_ino), self.name.clone())),
            }
        }
        let xattrs = self.xattrs(walk, found, kind)?;
        let size = if typeflag == b'0' { stat.st_size as u64 } else { 0 };
        let is_device = matches!(kind, FileType::CharacterDevice | FileType::BlockDevice);
        let header = Header {
            typeflag,
            name: &self.name,
            link: &link,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            size,
            mtime: match self.mtime {
                Mtime::Keep => stat.st_mtime,
                Mtime::Clamp(latest) => stat.st_mtime.min(latest),
                Mtime::Set(time) => time,
            },
            device: match is_device {
                true => (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)),
                false => (0, 0),
            },
            xattrs: &xattrs,
        };
        header.write(self.out).map_err(LayerError::Write)?;
        if size > 0 { self.data(walk, found, size) } else { Ok(()) }
    }

    fn xattrs(&mut self, walk: &Walk, found: &Found, kind: FileType) -> Result<Vec<Xattr>, LayerError> {
        let result = match self.form {
            Form::Layer if kind == FileType::RegularFile => self
                .xattrs
                .get(walk.dir(), &found.name, CAPABILITY)
                .map(|value| value.map(|value| (CAPABILITY.to_vec(), value)).into_iter().collect()),
            Form::Layer => Ok(Vec::new()),
            Form::Tree => self.xattrs.all(walk.dir(), &found.name, |_| true),
        };
        result.map_err(|errno| walk.error("read the xattrs of", errno).into())
    }

    fn data(&mut self, walk: &Walk, found: &Found, size: u64) -> Result<(), LayerError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(walk.dir(), &found.name, flags, Mode::empty())
            .map_err(|errno| walk.error("open", errno))?;
        let mut file = std::fs::File::from(file);
        let mut left = size;
        while left > 0 {
            let wanted = self.data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let length = match file.read(&mut self.data[..wanted]) {
                Ok(length) => length,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(walk.error("read", error).into()),
            };
            if length == 0 {
                return Err(LayerError::Changed { path: PathBuf::from(OsStr::from_bytes(walk.path())) });
            }
            self.out.write_all(&self.data[..length]).map_err(LayerError::Write)?;
            left -= length as u64;
        }
        pad(size, self.out).map_err(LayerError::Write)
    }
}

/// `None` for sockets, which tar has no type for.
fn typeflag(kind: FileType) -> Option<u8> {
    match kind {
        FileType::RegularFile => Some(b'0'),
        FileType::Symlink => Some(b'2'),
        FileType::CharacterDevice => Some(b'3'),
        FileType::BlockDevice => Some(b'4'),
        FileType::Directory => Some(b'5'),
        FileType::Fifo => Some(b'6'),
        FileType::Socket | FileType::Unknown => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::apply::{apply, finish_deferred};
    use crate::test_tree::{is_root, list, list_with_times, make, overlay, path_of};
    use proptest::prelude::*;
    use std::os::fd::OwnedFd;

    const TREE: &[&str] = &[
        "d a 750",
        "f a/big 0123456789 4755 7",
        "h a/link a/big",
        "d a.b",
        "f a/empty- x",
        "l a/sym /target",
        "p pipe",
        "w gone",
        "d sub/deeper",
        "f sub/deeper/ünïcode y 600",
        "x a/big user.note=hidden",
    ];

    fn layer_of(upper: &Path, lower: Option<&OwnedFd>, mtime: Mtime) -> Vec<u8> {
        let mut out = Vec::new();
        write_layer(upper, lower.map(AsFd::as_fd), mtime, &mut out).unwrap();
        out
    }

    fn names(tar: &[u8]) -> Vec<String> {
        let mut archive = ::tar::Archive::new(tar);
        archive
            .entries()
            .unwrap()
            .map(|entry| String::from_utf8(entry.unwrap().path_bytes().into_owned()).unwrap())
            .collect()
    }

    #[test]
    fn an_empty_layer_has_the_well_known_diff_id() {
        let dir = tempfile::tempdir().unwrap();
        let tar = layer_of(dir.path(), None, Mtime::Keep);
        assert_eq!(
            crate::digest::Digest::of(&tar).as_str(),
            "sha256:5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"
        );
    }

    #[test]
    fn what_is_written_is_unpacked_the_same() {
        if !is_root() {
            return;
        }
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(from.path(), TREE);
        let long = format!("d {}", "long/".repeat(60));
        make(from.path(), &[&long]);
        let tar = layer_of(from.path(), None, Mtime::Keep);
        assert_eq!(tar, layer_of(from.path(), None, Mtime::Keep));
        let applied = apply(&tar[..], to.path()).unwrap();
        assert_eq!(applied.diff_id, crate::digest::Digest::of(&tar));
        assert_eq!(applied.size, tar.len() as u64);
        assert_eq!(applied.deferred.parents, [PathBuf::new()]);
        finish_deferred(to.path(), &applied.deferred, None, None).unwrap();
        let mut expect = list_with_times(from.path());
        expect.insert("gone".into(), "whiteout 0 0:0 @".to_string());
        let mut actual = list_with_times(to.path());
        actual.insert("gone".into(), actual["gone"].split('@').next().unwrap().to_string() + "@");
        // Only capabilities go into layers.
        for name in ["a/big", "a/link"] {
            let text = expect[name].replace(" user.note=hidden", "");
            expect.insert(name.into(), text);
        }
        assert_eq!(actual, expect);
    }

    #[test]
    fn entries_are_in_order_and_whole() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        make(dir.path(), TREE);
        let tar = layer_of(dir.path(), None, Mtime::Clamp(500));
        assert_eq!(
            names(&tar),
            [
                "a/",
                "a/big",
                "a/empty-",
                "a/link",
                "a/sym",
                "a.b/",
                ".wh.gone",
                "pipe",
                "sub/",
                "sub/deeper/",
                "sub/deeper/ünïcode"
            ]
        );
        let mut archive = ::tar::Archive::new(&tar[..]);
        for entry in archive.entries().unwrap() {
            let entry = entry.unwrap();
            let header = entry.header();
            let is_whiteout = entry.path_bytes().starts_with(b".wh.");
            assert_eq!(header.mtime().unwrap(), if is_whiteout { 0 } else { 500 });
            if &*entry.path_bytes() == b"a/link" {
                assert_eq!(header.entry_type(), ::tar::EntryType::Link);
                assert_eq!(header.link_name_bytes().unwrap(), &b"a/big"[..]);
            }
            if &*entry.path_bytes() == b"a/big" {
                assert_eq!((header.mode().unwrap(), header.uid().unwrap()), (0o4755, 7));
            }
        }
    }

    #[test]
    fn opaque_directories_become_whiteouts() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["lower", "empty", "upper", "again"] {
            std::fs::create_dir(path(name)).unwrap();
        }
        make(&path("lower"), &["d d/x", "f d/x/old 1", "f d/x/both 1", "f d/a 1", "f d/z 1", "f keep 1"]);
        make(&path("upper"), &["o d", "d d/x", "f d/x/both 2", "f d/m 2"]);
        let below = overlay(&[&path("empty"), &path("lower")], None);
        let tar = layer_of(&path("upper"), Some(&below), Mtime::Keep);
        assert_eq!(names(&tar), ["d/", "d/.wh.a", "d/m", "d/x/", "d/x/both", "d/x/.wh.old", "d/.wh.z"]);
        let applied = apply(&tar[..], &path("again")).unwrap();
        finish_deferred(&path("again"), &applied.deferred, Some(below.as_fd()), None).unwrap();
        let seen = |upper: &str| list(&path_of(&overlay(&[&path("lower"), &path(upper)], None)));
        assert_eq!(seen("again"), seen("upper"));
        assert_eq!(seen("again").into_keys().collect::<Vec<_>>(), ["d", "d/m", "d/x", "d/x/both", "keep"]);
    }

    #[test]
    fn a_plain_tree_keeps_its_xattrs() {
        if !is_root() {
            return;
        }
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        make(from.path(), &["d d", "f d/f x", "x d/f user.note=v", "x d user.dir=w"]);
        let mut tar = Vec::new();
        let root = walk::open_root(from.path()).unwrap();
        write_tree(root.as_fd(), None, "linux_amd64/", Mtime::Set(7), &mut tar).unwrap();
        finish(&mut tar).unwrap();
        assert_eq!(names(&tar), ["linux_amd64/d/", "linux_amd64/d/f"]);
        apply(&tar[..], to.path()).unwrap();
        let expect = |name: &str| list(from.path())[name].clone() + " @7";
        let actual = list_with_times(&to.path().join("linux_amd64"));
        assert_eq!(actual["d/f"], expect("d/f"));
        assert_eq!(actual["d"], expect("d"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]
        #[test]
        fn any_tree_round_trips(files in prop::collection::btree_map("[a-c]{1,2}(/[a-c.é]{1,120}){0,3}", (0usize..3000, 0u32..0o10000, 0u32..3_000_000), 0..12)) {
            if !rustix::process::geteuid().is_root() {
                return Ok(());
            }
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            for (name, (size, mode, uid)) in &files {
                let path = from.path().join(name);
                if name.split('/').any(|part| part == "." || part == "..")
                    || std::fs::create_dir_all(path.parent().unwrap()).is_err() || path.exists() {
                    continue;
                }
                std::fs::write(&path, "x".repeat(*size)).unwrap();
                std::os::unix::fs::chown(&path, Some(*uid), Some(*uid)).unwrap();
                std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(*mode)).unwrap();
            }
            let tar = layer_of(from.path(), None, Mtime::Keep);
            let applied = apply(&tar[..], to.path()).unwrap();
            finish_deferred(to.path(), &applied.deferred, None, None).unwrap();
            prop_assert_eq!(list_with_times(from.path()), list_with_times(to.path()));
            let mut archive = ::tar::Archive::new(&tar[..]);
            let seen: Vec<String> = archive.entries().unwrap()
                .map(|entry| String::from_utf8_lossy(&entry.unwrap().path_bytes()).trim_end_matches('/').to_string())
                .collect();
            let mut sorted = seen.clone();
            sorted.sort();
            prop_assert_eq!(sorted, list(from.path()).into_keys().collect::<Vec<_>>());
        }
    }
}
