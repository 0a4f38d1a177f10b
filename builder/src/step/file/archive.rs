//! Archives that ADD unpacks: tar, plain or compressed by gzip, bzip2, xz or zstd, told by content (reference 2.7).
//! The directory they are unpacked into is a root of its own: neither names nor links lead out of it.

use super::dest::{Dest, Links, NewDir, absolute, ancestors, at};
use super::sparse::Sparse;
use super::tree::{Tree, components};
use super::{FileError, xattr};
use crate::source::dir;
use rustix::fs::{FileType, Mode, OFlags, makedev};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;
use tar::EntryType;

/// Directories that an archive implies without having an entry for them.
const IMPLIED_MODE: u32 = 0o755;

/// An archive in a source tree.
pub struct Archive {
    file: File,
    path: String,
}

/// What a member's header and extended headers say.
struct Header {
    kind: EntryType,
    name: Vec<u8>,
    link: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    device: (u32, u32),
    xattrs: xattr::Xattrs,
    sparse: Sparse,
}

/// Mode, owner, time and attributes of a directory, set when all is unpacked.
type DirMeta = (u32, (u32, u32), (i64, u32), xattr::Xattrs);

impl Archive {
    /// Looks at a file: an archive is what decompresses to a valid tar header.
    pub fn probe(tree: &Tree, path: &[u8]) -> Result<Option<Archive>, FileError> {
        let mut file = tree.open_file(path)?;
        let is_archive = is_archive(&file);
        file.rewind().map_err(|error| tree.error("read", path, error))?;
        Ok(is_archive.then(|| Archive { file, path: dir::text(path) }))
    }

    /// Unpacks into the canonical directory `root`, which is in the upper dir. `owner` replaces all members' owners.
    pub fn unpack(self, dest: &mut Dest, root: &[u8], owner: Option<(u32, u32)>) -> Result<(), FileError> {
        let broken = |source| FileError::Archive { archive: self.path.clone(), source };
        let reader = decompress(&self.file).map_err(broken)?;
        let unpacking = Unpacking { name: &self.path, dest, root, owner, dirs: BTreeMap::new() };
        unpacking.run(reader)
    }
}

/// Unpacks an archive that comes as a stream into the existing directory `into`. `name` is for messages.
pub fn unpack_stream(reader: impl Read, name: &str, into: &Path, owner: Option<(u32, u32)>) -> Result<(), FileError> {
    let broken = |source| FileError::Archive { archive: name.to_string(), source };
    let mut dest = Dest::open(into, &[])?;
    let reader = decompress(reader).map_err(broken)?;
    let unpacking = Unpacking { name, dest: &mut dest, root: b"", owner, dirs: BTreeMap::new() };
    unpacking.run(reader)
}

/// The time of the newest regular file in an archive, in seconds since 1970; `None` if it is no archive, or has none.
pub fn newest_member(reader: impl Read) -> Option<i64> {
    let mut archive = tar::Archive::new(decompress(reader).ok()?);
    let mut newest = None;
    for entry in archive.entries().ok()? {
        let mut entry = entry.ok()?;
        let header = Header::read(&mut entry).ok()?;
        if header.kind.is_file() {
            newest = newest.max(Some(header.mtime.0));
        }
    }
    newest
}

/// Whether a file of which `start` are the first bytes (512 or more, if it has so many) is a tar, or compressed.
pub fn looks_like_archive(start: &[u8]) -> bool {
    if Compression::of(start) != Compression::None {
        return true;
    }
    let mut archive = tar::Archive::new(start);
    archive.entries().is_ok_and(|mut entries| matches!(entries.next(), Some(Ok(_))))
}

struct Unpacking<'a> {
    /// For messages.
    name: &'a str,
    dest: &'a mut Dest,
    root: &'a [u8],
    owner: Option<(u32, u32)>,
    /// By canonical path.
    dirs: BTreeMap<Vec<u8>, DirMeta>,
}

impl Unpacking<'_> {
    fn run(mut self, reader: impl Read) -> Result<(), FileError> {
        let mut archive = tar::Archive::new(reader);
        let name = self.name;
        let broken = |source| FileError::Archive { archive: name.to_string(), source };
        for entry in archive.entries().map_err(broken)? {
            let mut entry = entry.map_err(broken)?;
            let header = Header::read(&mut entry).map_err(broken)?;
            self.member(header, &mut entry)?;
        }
        // Deepest first, since the last names sort last.
        for (path, (mode, owner, mtime, xattrs)) in self.dirs.iter().rev() {
            // A later member may have replaced it.
            if !self.dest.lookup(path)?.is_some_and(|found| found.meta.is_dir() && found.in_upper) {
                continue;
            }
            self.dest.set_owner(path, *owner)?;
            self.dest.set_mode(path, *mode)?;
            if !xattrs.is_empty() {
                xattr::write(self.dest.open_dir(path)?, xattrs).map_err(at("set attributes of", path))?;
            }
            self.dest.set_mtime(path, *mtime)?;
        }
        Ok(())
    }

    fn member(&mut self, header: Header, data: &mut impl Read) -> Result<(), FileError> {
        if header.kind.is_pax_global_extensions() {
            return Ok(());
        }
        let owner = self.owner.unwrap_or(header.owner);
        let names = clean(&header.name);
        let Some((name, parents)) = names.split_last() else {
            // Written as `.` it is the archive's own root, and the destination stays as it is; `/` and `..` are not.
            if header.kind.is_dir() && !is_dot(&header.name) {
                self.dirs.insert(self.root.to_vec(), (header.mode, owner, header.mtime, header.xattrs));
            }
            return Ok(());
        };
        let parent = self.parent(parents)?;
        let path = dir::join(&parent, name);
        if header.kind.is_dir() {
            self.directory(&path)?;
            self.dirs.insert(path, (header.mode, owner, header.mtime, header.xattrs));
            return Ok(());
        }
        if header.kind.is_hard_link() {
            return self.hard_link(&path, &header, owner);
        }
        self.dest.remove(&path)?;
        let upper = self.dest.upper();
        let private = Mode::from_raw_mode(0o600);
        match header.kind {
            EntryType::Symlink => {
                let link = header.link.as_slice();
                rustix::fs::symlinkat(link, upper, &path).map_err(at("create", &path))?;
                self.dest.set_owner(&path, owner)?;
                self.dest.set_mtime(&path, header.mtime)
            }
            EntryType::Fifo | EntryType::Char | EntryType::Block => {
                let kind = match header.kind {
                    EntryType::Fifo => FileType::Fifo,
                    EntryType::Char => FileType::CharacterDevice,
                    _ => FileType::BlockDevice,
                };
                if kind == FileType::CharacterDevice && header.device == (0, 0) {
                    // The number by which overlayfs marks a removed name: it cannot be a file of a layer.
                    return Ok(());
                }
                let device = makedev(header.device.0, header.device.1);
                rustix::fs::mknodat(upper, &path, kind, private, device).map_err(at("create", &path))?;
                self.dest.set_owner(&path, owner)?;
                self.dest.set_mode(&path, header.mode)?;
                self.dest.set_mtime(&path, header.mtime)
            }
            EntryType::Regular => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let opened = rustix::fs::openat(upper, path.as_slice(), flags, private).map_err(at("create", &path))?;
                let mut output = File::from(opened);
                if header.sparse.is_sparse() {
                    let broken = |source| FileError::Archive { archive: self.name.to_string(), source };
                    let on_write = |error| FileError::at("write", absolute(&path))(error);
                    header.sparse.write(data, &mut output, broken, on_write)?;
                } else {
                    self.write(data, &mut output, &path)?;
                }
                self.dest.finish(&output, owner, header.mode, &header.xattrs, header.mtime).map_err(at("write", &path))
            }
            // What another program means by it nobody knows; leaving a file out in silence would be worse.
            kind => {
                let what = format!("unhandled tar header type {} of `{}`", kind.as_byte(), dir::text(&header.name));
                let source = io::Error::new(io::ErrorKind::InvalidData, what);
                Err(FileError::Archive { archive: self.name.to_string(), source })
            }
        }
    }

    /// The directory that a member's name leads to. What is missing on the way is made, for root whatever `--chown` says;
    /// a link has to lead to a directory, and a file in the way is an error.
    fn parent(&mut self, names: &[&[u8]]) -> Result<Vec<u8>, FileError> {
        let mut parent = self.root.to_vec();
        for name in names {
            let next = dir::join(&parent, name);
            match self.dest.lookup(&next)? {
                Some(found) if found.meta.is_symlink() => {
                    let below = next.get(self.root.len()..).unwrap_or_default();
                    let target = self.dest.resolve(self.root, below, Links::Follow)?;
                    match self.dest.lookup(&target)? {
                        Some(found) if found.meta.is_dir() => self.copy_up(&target)?,
                        Some(_) => return Err(at("create files in", &next)(Errno::NOTDIR)),
                        None => return Err(at("create files in", &next)(Errno::NOENT)),
                    }
                    parent = target;
                    continue;
                }
                Some(found) if !found.meta.is_dir() => return Err(at("create files in", &next)(Errno::NOTDIR)),
                _ => self.directory(&next)?,
            }
            parent = next;
        }
        Ok(parent)
    }

    /// Copies a member's data, telling a broken archive from a full disk.
    fn write(&self, data: &mut impl Read, output: &mut File, path: &[u8]) -> Result<(), FileError> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            match data.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    output.write_all(&buffer[..length]).map_err(FileError::at("write", absolute(path)))?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::Archive { archive: self.name.to_string(), source: error }),
            }
        }
    }

    /// Brings an existing directory and those above it into the upper dir.
    fn copy_up(&mut self, path: &[u8]) -> Result<(), FileError> {
        for path in ancestors(path).filter(|path| path.len() > self.root.len()) {
            self.directory(path)?;
        }
        Ok(())
    }

    /// Makes a directory, or takes the one that is there; its directory is in the upper dir.
    fn directory(&mut self, path: &[u8]) -> Result<(), FileError> {
        let new = NewDir { mode: IMPLIED_MODE, owner: (0, 0), epoch: None };
        match self.dest.lookup(path)? {
            Some(found) if found.meta.is_dir() && found.in_upper => Ok(()),
            Some(found) if found.meta.is_dir() => self.dest.copy_up_dir(path, &found.meta),
            Some(found) if found.in_upper => {
                self.dest.remove(path)?;
                self.dest.make_dir(path, &new)?;
                // The file hid a directory of the base, whose content must not show again.
                match self.dest.base_meta(path)? {
                    Some(meta) if meta.is_dir() => self.dest.make_opaque(path),
                    _ => Ok(()),
                }
            }
            Some(_) | None => self.dest.make_dir(path, &new),
        }
    }

    /// Makes another name of a file, which gets the metadata that this name comes with.
    fn hard_link(&mut self, path: &[u8], header: &Header, owner: (u32, u32)) -> Result<(), FileError> {
        let names = clean(&header.link);
        let (name, parents) = names.split_last().map_or((b"".as_slice(), [].as_slice()), |(n, p)| (*n, p));
        let parent = self.dest.resolve(self.root, &parents.join(&b'/'), Links::Follow)?;
        let target = dir::join(&parent, name);
        let found = self.dest.lookup(&target)?.filter(|found| !found.meta.is_dir() && target != path);
        let Some(found) = found else {
            return Err(FileError::DanglingLink {
                archive: self.name.to_string(),
                member: dir::text(&header.name),
                target: dir::text(&header.link),
            });
        };
        if !found.in_upper {
            self.copy_up_file(&target, &found.meta)?;
        }
        self.dest.remove(path)?;
        self.dest.link(&target, path).map_err(at("create", path))?;
        self.dest.set_owner(path, owner)?;
        if found.meta.is_symlink() {
            return Ok(());
        }
        if found.meta.is_file() && !header.xattrs.is_empty() {
            let file = dir::open(self.dest.upper(), path, OFlags::RDONLY).map_err(at("open", path))?;
            xattr::write(file, &header.xattrs).map_err(at("set attributes of", path))?;
        }
        self.dest.set_mode(path, header.mode)?;
        self.dest.set_mtime(path, header.mtime)
    }

    /// Brings a file of the base into the upper dir, so that it can get another name there.
    fn copy_up_file(&mut self, path: &[u8], meta: &dir::Meta) -> Result<(), FileError> {
        let Some(input) = self.dest.open_file(path)? else {
            return Err(at("link to", path)(rustix::io::Errno::PERM));
        };
        self.copy_up(dir::split(path).0)?;
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.dest.upper(), path, flags, Mode::from_raw_mode(0o600));
        let mut output = File::from(opened.map_err(at("create", path))?);
        let mut input = File::from(input);
        io::copy(&mut input, &mut output).map_err(FileError::at("write", absolute(path)))?;
        let xattrs = xattr::read(&input);
        self.dest.finish(&output, (meta.uid, meta.gid), meta.mode, &xattrs, meta.mtime).map_err(at("write", path))
    }
}

impl Header {
    fn read(entry: &mut tar::Entry<'_, impl Read>) -> io::Result<Header> {
        let header = entry.header();
        let bad = |_| io::Error::new(io::ErrorKind::InvalidData, "an owner does not fit 32 bits");
        let id = |field: io::Result<u64>| u32::try_from(field.unwrap_or(0)).map_err(bad);
        let mut read = Header {
            kind: header.entry_type(),
            name: entry.path_bytes().into_owned(),
            link: entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
            mode: header.mode().unwrap_or(0o644) & 0o7777,
            // Some writers leave fields empty.
            owner: (id(header.uid())?, id(header.gid())?),
            mtime: (header.mtime().ok().and_then(|time| i64::try_from(time).ok()).unwrap_or(0), 0),
            device: (0, 0),
            xattrs: Vec::new(),
            sparse: Sparse::default(),
        };
        if matches!(read.kind, EntryType::Char | EntryType::Block) {
            read.device = (header.device_major()?.unwrap_or(0), header.device_minor()?.unwrap_or(0));
        }
        // Old tars mark directories by a slash alone.
        if read.kind.is_file() && read.name.ends_with(b"/") {
            read.kind = EntryType::Directory;
        }
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let value = extension.value_bytes();
            let number = || std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
            match extension.key_bytes() {
                b"uid" => read.owner.0 = number().unwrap_or(read.owner.0),
                b"gid" => read.owner.1 = number().unwrap_or(read.owner.1),
                b"mtime" => read.mtime = pax_time(value).unwrap_or(read.mtime),
                key => {
                    read.sparse.read(key, value)?;
                    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.")
                        && xattr::travels(name)
                    {
                        read.xattrs.push((name.to_vec(), value.to_vec()));
                    }
                }
            }
        }
        if let Some(name) = read.sparse.name.take() {
            read.name = name;
        }
        // BuildKit takes times that a signed 64-bit number of nanoseconds cannot hold, and those before 1970, for 1970.
        if !(0..=i64::MAX / 1_000_000_000).contains(&read.mtime.0) {
            read.mtime = (0, 0);
        }
        Ok(read)
    }
}

/// Seconds since 1970 with a fraction, such as `1700000000.25`.
fn pax_time(value: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(value).ok()?;
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = seconds.parse().ok()?;
    let mut digits: String = fraction.chars().take(9).collect();
    while digits.len() < 9 {
        digits.push('0');
    }
    let nanoseconds: u32 = digits.parse().ok()?;
    if text.starts_with('-') && nanoseconds > 0 {
        return Some((seconds - 1, 1_000_000_000 - nanoseconds));
    }
    Some((seconds, nanoseconds))
}

/// The names of a member's path: absolute ones begin at the root, `..` ends there.
fn clean(path: &[u8]) -> Vec<&[u8]> {
    let mut names = Vec::new();
    for name in components(path) {
        match name {
            b".." => {
                names.pop();
            }
            name => names.push(name),
        }
    }
    names
}

/// Whether a name means the directory in which it stands, such as `./` and `a/..`.
fn is_dot(path: &[u8]) -> bool {
    let mut depth = 0usize;
    for name in components(path) {
        match name {
            b".." => match depth.checked_sub(1) {
                Some(above) => depth = above,
                None => return false,
            },
            _ => depth += 1,
        }
    }
    depth == 0 && !path.starts_with(b"/")
}

fn is_archive(file: &File) -> bool {
    let Ok(reader) = decompress(file) else { return false };
    let mut archive = tar::Archive::new(reader);
    let Ok(mut entries) = archive.entries() else { return false };
    matches!(entries.next(), Some(Ok(_)))
}

/// Reads what is compressed by gzip, bzip2, xz or zstd, or plain, told by the first bytes.
pub fn decompress<'a>(reader: impl Read + 'a) -> io::Result<Box<dyn Read + 'a>> {
    let mut reader = BufReader::with_capacity(64 << 10, reader);
    let mut magic = [0; 6];
    let mut length = 0;
    while length < magic.len() {
        match reader.read(&mut magic[length..])? {
            0 => break,
            read => length += read,
        }
    }
    let start = magic[..length].to_vec();
    let kind = Compression::of(&start);
    let all = io::Cursor::new(start).chain(reader);
    Ok(match kind {
        Compression::None => Box::new(all),
        Compression::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(BufReader::new(all))),
        Compression::Bzip2 => Box::new(bzip2::bufread::MultiBzDecoder::new(BufReader::new(all))),
        Compression::Xz => Box::new(lzma_rust2::XzReader::new(all, true)),
        Compression::Zstd => Box::new(zstd::Decoder::new(all)?),
    })
}

/// How a file is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// Not, or in a way that nobody unpacks.
    None,
    /// RFC 1952.
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// RFC 8878.
    Zstd,
}

impl Compression {
    /// Tells by the first six bytes.
    pub fn of(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, 0x08, ..] => Compression::Gzip,
            [b'B', b'Z', b'h', ..] => Compression::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Compression::Xz,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }
}
