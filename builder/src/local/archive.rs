//! An archive of images, read as a stream: documents are kept, layers become blobs of the store as they come. Knows names
//! in the archive and nothing of images; `load.rs` reads the documents.

use super::load::LoadError;
use crate::step::file::archive::decompress;
use cache::digest::Digest;
use cache::store::Store;
use std::collections::BTreeMap;
use std::io::{self, Read, Write};

/// Largest document, in bytes. What is larger is a layer.
const DOCUMENT_LIMIT: u64 = 16 << 20;
/// Of all documents together.
const DOCUMENTS_LIMIT: u64 = 128 << 20;
const COPY_BUFFER: usize = 256 << 10;
/// Bytes between two reports of how much was read.
const REPORTED_AFTER: u64 = 4 << 20;

/// What an archive holds, by path.
#[derive(Default)]
pub struct Contents {
    documents: BTreeMap<String, Vec<u8>>,
    /// In the store now.
    blobs: BTreeMap<String, (Digest, u64)>,
    links: BTreeMap<String, String>,
}

impl Contents {
    /// Reads all of an archive, plain or compressed. `read` is told now and then how many bytes have come.
    pub fn read(store: &Store, input: impl Read, read: &dyn Fn(u64)) -> Result<Contents, LoadError> {
        let mut contents = Contents::default();
        let mut total = 0;
        let counted = Counted { input, count: 0, read };
        let mut archive = tar::Archive::new(decompress(counted).map_err(LoadError::Read)?);
        for entry in archive.entries().map_err(LoadError::NotAnArchive)? {
            let mut entry = entry.map_err(LoadError::NotAnArchive)?;
            let name = clean(&String::from_utf8_lossy(&entry.path_bytes()));
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name_bytes().unwrap_or_default();
                let target = String::from_utf8_lossy(&target).into_owned();
                let folder = name.rsplit_once('/').map_or("", |(folder, _)| folder);
                let target = if kind.is_symlink() { clean(&format!("{folder}/{target}")) } else { clean(&target) };
                contents.links.insert(name, target);
                continue;
            }
            if !kind.is_file() {
                continue;
            }
            let size = entry.size();
            let mut first = [0];
            let count = entry.read(&mut first).map_err(LoadError::Read)?;
            let start = first[..count].to_vec();
            let mut whole = io::Cursor::new(start.clone()).chain(&mut entry);
            if size <= DOCUMENT_LIMIT && matches!(start[..], [] | [b'{' | b'[']) {
                total += size;
                if total > DOCUMENTS_LIMIT {
                    return Err(LoadError::TooManyDocuments);
                }
                let mut bytes = Vec::with_capacity(size as usize);
                whole.read_to_end(&mut bytes).map_err(LoadError::Read)?;
                contents.documents.insert(name, bytes);
                continue;
            }
            store.reserve(size)?;
            let mut writer = store.content().writer()?;
            let mut buffer = vec![0; COPY_BUFFER];
            loop {
                match whole.read(&mut buffer).map_err(LoadError::Read)? {
                    0 => break,
                    count => writer.write_all(&buffer[..count]).map_err(LoadError::Write)?,
                }
            }
            contents.blobs.insert(name, writer.commit(None)?);
        }
        Ok(contents)
    }

    /// A document by its path.
    pub fn document(&self, path: &str) -> Option<&[u8]> {
        self.documents.get(self.follow(path)).map(Vec::as_slice)
    }

    /// A document by its digest, in an OCI layout; verified.
    pub fn document_of(&self, digest: &Digest) -> Result<Option<&[u8]>, LoadError> {
        let Some(bytes) = self.document(&blob_path(digest)) else { return Ok(None) };
        let actual = Digest::of(bytes);
        if actual != *digest {
            return Err(LoadError::Digest { expected: digest.clone(), actual });
        }
        Ok(Some(bytes))
    }

    /// A layer by its path: its digest and size. It is in the store.
    pub fn blob(&self, store: &Store, path: &str) -> Result<Option<(Digest, u64)>, LoadError> {
        let path = self.follow(path);
        if let Some(blob) = self.blobs.get(path) {
            return Ok(Some(blob.clone()));
        }
        // A layer whose first file has such a name that it looks like a document.
        match self.documents.get(path) {
            Some(bytes) => Ok(Some((store.content().put(bytes)?, bytes.len() as u64))),
            None => Ok(None),
        }
    }

    /// A blob of an OCI layout; verified.
    pub fn blob_of(&self, store: &Store, digest: &Digest) -> Result<Option<u64>, LoadError> {
        let Some((actual, size)) = self.blob(store, &blob_path(digest))? else { return Ok(None) };
        if actual != *digest {
            return Err(LoadError::Digest { expected: digest.clone(), actual });
        }
        Ok(Some(size))
    }

    /// Symbolic links, as older dockers made for layers that two images share.
    fn follow<'a>(&'a self, path: &'a str) -> &'a str {
        let mut path = path.strip_prefix("./").unwrap_or(path);
        // As many as the kernel follows.
        for _ in 0..40 {
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        path
    }
}

fn blob_path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

/// Without `.`, `..` and slashes that say nothing. Names never leave the archive: they are only compared.
fn clean(path: &str) -> String {
    frontend::path::clean(path).split_off(1)
}

/// Tells how much was read.
struct Counted<'a, R> {
    input: R,
    count: u64,
    read: &'a dyn Fn(u64),
}

impl<R: Read> Read for Counted<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        let before = self.count / REPORTED_AFTER;
        self.count += count as u64;
        if self.count / REPORTED_AFTER != before {
            (self.read)(self.count);
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        let check = |path: &str, expect: &str| assert_eq!(clean(path), expect, "{path}");
        check("./a/b", "a/b");
        check("a//b/./c", "a/b/c");
        check("abc/../../def/layer.tar", "def/layer.tar");
        check("../../../etc/passwd", "etc/passwd");
        check("/a", "a");
    }

    #[test]
    fn links_are_followed_and_never_for_ever() {
        let links = [("a", "b"), ("b", "c"), ("x", "y"), ("y", "x")].map(|(a, b)| (a.into(), b.into())).into();
        let documents = [("c".to_string(), b"{}".to_vec())].into();
        let contents = Contents { documents, links, ..Contents::default() };
        assert_eq!(contents.document("a"), Some(&b"{}"[..]));
        assert_eq!(contents.document("x"), None);
    }
}
