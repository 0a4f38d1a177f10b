//! eStargz (containerd/stargz-snapshotter, docs/estargz.md): gzip of which each file can be had alone.
//!
//! The data of each file, or of each chunk of a large one, begins a gzip member. After the tar comes a table of contents, as
//! one more entry of a tar, and a footer that says where it begins. Who knows nothing of this reads a gzip of a tar, since
//! the table lies behind the end of that.

use super::LayerError;
use super::compression::{LayerBlob, Members};
use super::header::{BLOCK, Header, pad};
use super::reader::{TarEntry, TarReader, read_buffered};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use solver::key::hex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::rc::Rc;

/// Bytes of a file in one member, as in stargz-snapshotter.
pub(super) const CHUNK: usize = 4 << 20;
/// The entry that the table is.
const TOC_NAME: &str = "stargz.index.json";
const TOC_DIGEST: &str = "containerd.io/snapshot/stargz/toc.digest";
const UNCOMPRESSED_SIZE: &str = "io.containers.estargz.uncompressed-size";

#[derive(Serialize)]
struct Toc {
    version: u32,
    entries: Vec<TocEntry>,
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct TocEntry {
    name: String,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "is_zero")]
    size: u64,
    #[serde(rename = "modtime", skip_serializing_if = "String::is_empty")]
    modified: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    link_name: String,
    #[serde(skip_serializing_if = "is_zero")]
    mode: u64,
    #[serde(skip_serializing_if = "is_zero")]
    uid: u64,
    #[serde(skip_serializing_if = "is_zero")]
    gid: u64,
    /// Of the member in the blob; first its number.
    #[serde(skip_serializing_if = "is_zero")]
    offset: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_major: u64,
    #[serde(skip_serializing_if = "is_zero")]
    dev_minor: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    xattrs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    digest: String,
    #[serde(skip_serializing_if = "is_zero")]
    chunk_offset: u64,
    /// Missing in the last chunk of a file.
    #[serde(skip_serializing_if = "is_zero")]
    chunk_size: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    chunk_digest: String,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl TocEntry {
    fn of(entry: &TarEntry) -> TocEntry {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let kind = match entry.typeflag {
            b'1' => "hardlink",
            b'2' => "symlink",
            b'3' => "char",
            b'4' => "block",
            b'5' => "dir",
            b'6' => "fifo",
            _ => "reg",
        };
        TocEntry {
            name: text(&entry.path),
            kind,
            size: if kind == "reg" { entry.size } else { 0 },
            modified: crate::time::rfc3339_millis(entry.mtime.0.saturating_mul(1000)),
            link_name: text(&entry.link),
            mode: entry.mode.into(),
            uid: entry.uid,
            gid: entry.gid,
            dev_major: entry.device.0.into(),
            dev_minor: entry.device.1.into(),
            xattrs: entry.xattrs.iter().map(|(name, value)| (text(name), BASE64_STANDARD.encode(value))).collect(),
            ..TocEntry::default()
        }
    }
}

/// Writes the blob of a tar.
pub(super) fn write(members: Members, tar: impl Read) -> Result<LayerBlob, LayerError> {
    let members = Rc::new(RefCell::new(members));
    let recorder = Recorder { tar: BufReader::with_capacity(256 << 10, tar), members: members.clone(), failed: None };
    let mut tar = TarReader::new(recorder);
    let mut entries = Vec::new();
    while let Some(entry) = tar.next()? {
        if entry.sparse.is_some() {
            return Err(LayerError::Malformed {
                offset: tar.offset(),
                what: "a sparse file, which eStargz cannot have",
            });
        }
        let mut file = TocEntry::of(&entry);
        if file.kind != "reg" || file.size == 0 {
            entries.push(file);
            continue;
        }
        let first = entries.len();
        let (mut whole, mut done, size) = (Sha256::new(), 0, file.size);
        while done < size {
            file.offset = members.borrow_mut().cut().map_err(LayerError::Write)? as u64;
            file.chunk_offset = done;
            let length = (size - done).min(CHUNK as u64);
            file.chunk_size = if done + length < size { length } else { 0 };
            file.chunk_digest = chunk(&mut tar, length, &mut whole)?;
            done += length;
            let next = TocEntry { name: file.name.clone(), kind: "chunk", ..TocEntry::default() };
            entries.push(std::mem::replace(&mut file, next));
        }
        entries[first].digest = named(whole);
    }
    tar.drain()?;
    drop(tar);
    let members = Rc::into_inner(members).expect("the reader is gone").into_inner();
    finish(members, entries).map_err(|error| match error {
        Failed::Io(error) => LayerError::Write(error),
        Failed::Layer(error) => error,
    })
}

/// Reads a chunk; its digest.
fn chunk(tar: &mut TarReader<Recorder<impl Read>>, length: u64, whole: &mut Sha256) -> Result<String, LayerError> {
    let (mut hasher, mut left) = (Sha256::new(), length);
    while left > 0 {
        let data = tar.data()?;
        let taken = data.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if taken == 0 {
            return Err(LayerError::Read(io::ErrorKind::UnexpectedEof.into()));
        }
        hasher.update(&data[..taken]);
        whole.update(&data[..taken]);
        tar.consume(taken);
        left -= taken as u64;
    }
    Ok(named(hasher))
}

fn named(hasher: Sha256) -> String {
    format!("sha256:{}", hex(&hasher.finalize()))
}

enum Failed {
    Io(io::Error),
    Layer(LayerError),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Failed {
        Failed::Io(error)
    }
}

/// Writes the table, which knows where members begin, and the footer.
fn finish(mut members: Members, mut entries: Vec<TocEntry>) -> Result<LayerBlob, Failed> {
    members.cut()?;
    let mut offsets = vec![0];
    offsets.extend(members.sizes()?.iter().scan(0, |end, size| {
        *end += size;
        Some(*end)
    }));
    for entry in entries.iter_mut().filter(|entry| !entry.chunk_digest.is_empty()) {
        entry.offset = offsets[entry.offset as usize];
    }
    let start = offsets[offsets.len() - 1];
    let json = serde_json::to_vec(&Toc { version: 1, entries }).expect("the table is plain data");
    Header { name: TOC_NAME.as_bytes(), size: json.len() as u64, mode: 0o444, ..Header::whiteout(b"") }
        .write(&mut members)?;
    members.write_all(&json)?;
    pad(json.len() as u64, &mut members)?;
    // What ends a tar.
    members.write_all(&[0; 2 * BLOCK])?;
    let size = members.tar_size();
    let mut blob = members.finish(&footer(start)).map_err(Failed::Layer)?;
    blob.annotations.insert(TOC_DIGEST.into(), format!("sha256:{}", hex(&Sha256::digest(&json))));
    blob.annotations.insert(UNCOMPRESSED_SIZE.into(), size.to_string());
    Ok(blob)
}

/// An empty gzip member whose extra field (RFC 1952 2.3.1.1) says where the table begins: 51 bytes.
fn footer(start: u64) -> Vec<u8> {
    let field = format!("{start:016x}STARGZ");
    let mut footer = vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 255, 26, 0, b'S', b'G', 22, 0];
    footer.extend(field.as_bytes());
    // A stored block of nothing, its checksum and length.
    footer.extend([1, 0, 0, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]);
    footer
}

/// Writes to the members what is read.
struct Recorder<R: Read> {
    tar: BufReader<R>,
    members: Rc<RefCell<Members>>,
    failed: Option<io::Error>,
}

impl<R: Read> Read for Recorder<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        read_buffered(self, buffer)
    }
}

impl<R: Read> BufRead for Recorder<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.failed.take() {
            Some(error) => Err(error),
            None => self.tar.fill_buf(),
        }
    }

    fn consume(&mut self, length: usize) {
        if let Err(error) = self.members.borrow_mut().write_all(&self.tar.buffer()[..length]) {
            self.failed = Some(error);
        }
        self.tar.consume(length);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::compression::{Compression, decompressor, write_blob};
    use crate::store::Store;
    use serde_json::Value;

    /// Reads from a blob what a snapshotter would: the table by the footer, then each chunk alone.
    fn read_by_the_table(blob: &[u8]) -> (Vec<u8>, Value) {
        let footer = &blob[blob.len() - 51..];
        assert_eq!(
            (&footer[..4], &footer[10..16], &footer[32..38]),
            (&[0x1f, 0x8b, 8, 4][..], &b"\x1a\0SG\x16\0"[..], &b"STARGZ"[..])
        );
        let start = usize::from_str_radix(std::str::from_utf8(&footer[16..32]).unwrap(), 16).unwrap();
        let mut table = Vec::new();
        decompressor(&blob[start..]).unwrap().read_to_end(&mut table).unwrap();
        let mut archive = tar::Archive::new(&table[..]);
        let mut entry = archive.entries().unwrap().next().unwrap().unwrap();
        assert_eq!(entry.path().unwrap().to_str(), Some(TOC_NAME));
        let mut json = Vec::new();
        entry.read_to_end(&mut json).unwrap();
        let toc: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(toc["version"], 1);
        (json, toc)
    }

    #[test]
    fn each_chunk_can_be_read_alone() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let large: Vec<u8> =
            (0..(CHUNK as u32 * 2 + 77) / 4).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        let files: [(&str, &[u8]); 4] = [("d/a", b"hello"), ("d/empty", b""), ("d/large", &large), ("z", b"end")];
        let mut plain = Vec::new();
        let mut archive = tar::Builder::new(&mut plain);
        for (name, data) in files {
            let mut header = tar::Header::new_ustar();
            header.set_size(data.len() as u64);
            header.set_mode(0o640);
            header.set_mtime(1_000_000_000);
            archive.append_data(&mut header, name, data).unwrap();
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        archive.append_link(&mut header, "link", "d/a").unwrap();
        archive.into_inner().unwrap();
        let write = |threads| {
            write_blob(store.content(), Compression::Estargz { level: None }, threads, |sink| {
                plain.chunks(100_000).try_for_each(|piece| sink.write_all(piece)).map_err(LayerError::Write)
            })
            .unwrap()
        };
        let made = write(1);
        assert_eq!(made, write(3));
        let blob = std::fs::read(store.content().path(&made.descriptor.digest)).unwrap();

        // As gzip it is the tar, and the table behind it.
        let mut all = Vec::new();
        decompressor(&blob[..]).unwrap().read_to_end(&mut all).unwrap();
        assert!(all.starts_with(&plain));
        assert_eq!(made.diff_id, crate::digest::Digest::of(&all));
        assert_eq!(made.annotations[UNCOMPRESSED_SIZE], all.len().to_string());

        let (json, toc) = read_by_the_table(&blob);
        assert_eq!(made.annotations[TOC_DIGEST], crate::digest::Digest::of(&json).to_string());
        let entries = toc["entries"].as_array().unwrap();
        let kinds: Vec<&str> = entries.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["reg", "reg", "reg", "chunk", "chunk", "reg", "symlink"]);
        assert_eq!(
            (entries[0]["mode"].as_u64(), entries[0]["modtime"].as_str()),
            (Some(0o640), Some("2001-09-09T01:46:40Z"))
        );
        assert_eq!(entries[6]["linkName"], "d/a");
        let mut found: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for entry in entries.iter().filter(|entry| entry["chunkDigest"].is_string()) {
            let name = entry["name"].as_str().unwrap();
            let data = files.iter().find(|(other, _)| *other == name).unwrap().1;
            let start = entry["chunkOffset"].as_u64().unwrap_or(0) as usize;
            let length = entry["chunkSize"].as_u64().map_or(data.len() - start, |size| size as usize);
            let mut chunk = vec![0; length];
            let offset = entry["offset"].as_u64().unwrap_or(0) as usize;
            decompressor(&blob[offset..]).unwrap().read_exact(&mut chunk).unwrap();
            assert_eq!(entry["chunkDigest"], crate::digest::Digest::of(&chunk).to_string());
            found.entry(name.to_string()).or_default().extend(chunk);
        }
        for (name, data) in files.iter().filter(|(_, data)| !data.is_empty()) {
            assert!(found[*name] == *data, "{name}");
        }
        let large = entries.iter().find(|entry| entry["name"] == "d/large").unwrap();
        assert_eq!(large["digest"], crate::digest::Digest::of(files[2].1).to_string());
    }

    #[test]
    fn what_is_no_tar_gives_no_blob() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let result = write_blob(store.content(), Compression::Estargz { level: Some(1) }, 2, |sink| {
            sink.write_all(&[7; 3 << 20]).map_err(LayerError::Write)
        });
        assert!(matches!(result, Err(LayerError::Malformed { .. })), "{result:?}");
        assert_eq!(std::fs::read_dir(dir.path().join("blobs/sha256")).unwrap().count(), 0);
    }
}
