//! Blobs as files, `blobs/<algorithm>/<hex>`: written aside, renamed in.
//!
//! Knows nothing of what blobs mean, nor who still needs one.

use crate::checksum::file_digest;
use crate::damage::Damage;
use crate::digest::Digest;
use crate::durable::Suspects;
use crate::error::{FileError, StoreError};
use crate::failpoint::fail_point;
use crate::ingest::Ingest;
use crate::ledger::Ledger;
use crate::memo::StatKey;
use crate::object::{Kind, ObjectId, Size};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The most that [`LocalContent::read_small`] reads, in bytes. Registries refuse manifests over 4 MiB; attestations,
/// read the same way, may have 40 MiB.
pub const SMALL_LIMIT_BYTES: u64 = 64 << 20;

/// Blobs in a folder.
pub struct LocalContent {
    dir: PathBuf,
    ingest: Arc<Ingest>,
    ledger: Arc<Ledger>,
    damage: Arc<Damage>,
    suspects: Arc<Suspects>,
    hashed: Arc<Hashed>,
}

/// The states of files that this process has hashed, when it wrote or when it read them: to read them again takes no
/// hashing.
#[derive(Default)]
struct Hashed(Mutex<HashMap<Digest, StatKey>>);

impl Hashed {
    fn add(&self, digest: Digest, state: StatKey) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(digest, state);
    }

    fn has(&self, digest: &Digest, state: StatKey) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(digest) == Some(&state)
    }
}

impl LocalContent {
    pub(crate) fn new(
        root: &Path,
        ingest: Arc<Ingest>,
        ledger: Arc<Ledger>,
        damage: Arc<Damage>,
        suspects: Arc<Suspects>,
    ) -> LocalContent {
        let dir = root.join("blobs").join("sha256");
        LocalContent { dir, ingest, ledger, damage, suspects, hashed: Arc::default() }
    }

    /// Size in bytes of a blob, if it is stored. If so, it stays as long as this process lives (`lease.rs`).
    pub fn has(&self, digest: &Digest) -> Result<Option<u64>, StoreError> {
        let path = self.path(digest);
        self.begin_use(digest)?;
        match fs::symlink_metadata(&path) {
            Ok(meta) => Ok(Some(meta.len())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(FileError::at("look at", &path)(error).into()),
        }
    }

    /// Where a blob is, or would be.
    pub fn path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(digest.hex())
    }

    /// Opens a blob; [`StoreError::Missing`] if it is not stored. It was verified when it was stored, not now.
    pub fn open(&self, digest: &Digest) -> Result<File, StoreError> {
        let path = self.path(digest);
        self.begin_use(digest)?;
        File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => StoreError::Missing { digest: digest.clone() },
            _ => FileError::at("open", &path)(error).into(),
        })
    }

    /// What is used stays. What was not all on the disk when the machine stopped is dropped first.
    fn begin_use(&self, digest: &Digest) -> Result<(), StoreError> {
        let object = ObjectId::new(Kind::Blob, digest.hex());
        self.ledger.uses(&object)?;
        let path = self.path(digest);
        let is_sound = || match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
            opened => {
                let file = opened.map_err(FileError::at("open", &path))?;
                let actual = file_digest(&file).map_err(FileError::at("read", &path))?;
                Ok(Digest::from_sha256(actual) == *digest)
            }
        };
        match self.suspects.may_use(&object, is_sound)? {
            true => Ok(()),
            false => self.drop_damaged(digest),
        }
    }

    /// The whole of a small blob (a manifest, a config), verified now.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::TooLarge`] over [`SMALL_LIMIT_BYTES`], [`StoreError::Mismatch`].
    pub fn read_small(&self, digest: &Digest) -> Result<Vec<u8>, StoreError> {
        let file = self.open(digest)?;
        let path = self.path(digest);
        let size = file.metadata().map_err(FileError::at("look at", &path))?.len();
        if size > SMALL_LIMIT_BYTES {
            return Err(StoreError::TooLarge { digest: digest.clone(), size, limit: SMALL_LIMIT_BYTES });
        }
        let mut bytes = Vec::with_capacity(size as usize + 1);
        file.take(SMALL_LIMIT_BYTES).read_to_end(&mut bytes).map_err(FileError::at("read", &path))?;
        let actual = Digest::of(&bytes);
        if actual != *digest {
            return Err(StoreError::Mismatch { expected: digest.clone(), actual });
        }
        Ok(bytes)
    }

    /// Stores `bytes`.
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, StoreError> {
        let digest = Digest::of(bytes);
        if self.has(&digest)?.is_some() {
            return Ok(digest);
        }
        let mut writer = self.writer()?;
        writer.write_all(bytes).map_err(FileError::at("write", &writer.path))?;
        Ok(writer.commit(Some(&digest))?.0)
    }

    /// A blob whose digest is known when all of it is written.
    pub fn writer(&self) -> Result<BlobWriter, StoreError> {
        let path = self.ingest.fresh("blob");
        let file = File::create_new(&path).map_err(FileError::at("create", &path))?;
        Ok(BlobWriter {
            file,
            path,
            dir: self.dir.clone(),
            hasher: Sha256::new(),
            size: 0,
            renamed: false,
            ledger: self.ledger.clone(),
            suspects: self.suspects.clone(),
            hashed: self.hashed.clone(),
            _ingest: self.ingest.clone(),
        })
    }

    /// Opens a blob to be given away: what is read is hashed, unless this process has hashed it before. If at its end it
    /// is not what its name says, the last read fails, the blob is dropped, and
    /// [`Store::take_damaged_blobs`](crate::Store::take_damaged_blobs) names it.
    pub fn open_verified(&self, digest: &Digest) -> Result<Verified<'_>, StoreError> {
        let file = self.open(digest)?;
        let state = StatKey::of(&rustix::fs::fstat(&file).map_err(FileError::at("look at", self.path(digest)))?);
        let hasher = (!self.hashed.has(digest, state)).then(Sha256::new);
        Ok(Verified { file, state, hasher, digest: digest.clone(), content: self })
    }

    /// Whether a blob is there and is what its name says. One that is not is dropped and noted as damaged.
    pub fn verify(&self, digest: &Digest) -> Result<bool, StoreError> {
        let mut reader = match self.open_verified(digest) {
            Err(StoreError::Missing { .. }) => return Ok(false),
            reader => reader?,
        };
        if reader.hasher.is_none() {
            return Ok(true);
        }
        match io::copy(&mut reader, &mut io::sink()) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            Err(error) => Err(FileError::at("read", self.path(digest))(error).into()),
        }
    }

    /// Drops a blob that is not what its name says.
    pub fn drop_damaged(&self, digest: &Digest) -> Result<(), StoreError> {
        self.delete(digest)?;
        self.damage.blob(digest);
        Ok(())
    }

    /// Removes a blob; success if there was none.
    pub fn delete(&self, digest: &Digest) -> Result<(), StoreError> {
        let path = self.path(digest);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(FileError::at("delete", &path)(error).into()),
            _ => Ok(()),
        }
    }
}

/// A blob that is being read, and hashed if it has to be.
pub struct Verified<'a> {
    file: File,
    state: StatKey,
    hasher: Option<Sha256>,
    digest: Digest,
    content: &'a LocalContent,
}

impl Read for Verified<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        let Some(hasher) = &mut self.hasher else { return Ok(read) };
        hasher.update(&buffer[..read]);
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let actual = Digest::from_sha256(hasher.clone().finalize().into());
        if actual == self.digest {
            self.content.hashed.add(actual, self.state);
            return Ok(0);
        }
        self.content.drop_damaged(&self.digest).map_err(io::Error::other)?;
        let error = StoreError::Mismatch { expected: self.digest.clone(), actual };
        Err(io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

/// A blob that is being written; hashed on the way. Dropped without [`BlobWriter::commit`], it is gone.
///
/// It does not buffer: write large pieces.
pub struct BlobWriter {
    file: File,
    path: PathBuf,
    dir: PathBuf,
    hasher: Sha256,
    size: u64,
    renamed: bool,
    ledger: Arc<Ledger>,
    suspects: Arc<Suspects>,
    hashed: Arc<Hashed>,
    // The folder that the file is in lives as long as this.
    _ingest: Arc<Ingest>,
}

impl BlobWriter {
    /// Bytes written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Names the blob by what was written; returns its digest and its size in bytes. Success if it was there already.
    ///
    /// # Errors
    /// [`StoreError::Mismatch`] if what was written is not what was `expected`; nothing is stored then.
    pub fn commit(mut self, expected: Option<&Digest>) -> Result<(Digest, u64), StoreError> {
        let digest = Digest::from_sha256(std::mem::take(&mut self.hasher).finalize().into());
        if let Some(expected) = expected.filter(|expected| **expected != digest) {
            return Err(StoreError::Mismatch { expected: expected.clone(), actual: digest });
        }
        let target = self.dir.join(digest.hex());
        let object = ObjectId::new(Kind::Blob, digest.hex());
        self.ledger.uses(&object)?;
        // A suspect is replaced, whatever it is.
        let may_stay = self.suspects.may_use(&object, || Ok(false))?;
        if may_stay && fs::symlink_metadata(&target).is_ok_and(|meta| meta.len() == self.size) {
            return Ok((digest, self.size));
        }
        let read_only = fs::Permissions::from_mode(0o444);
        self.file.set_permissions(read_only).map_err(FileError::at("set the mode of", &self.path))?;
        fail_point!("content.before_rename");
        fs::rename(&self.path, &target).map_err(FileError::at("rename", &self.path))?;
        fail_point!("content.after_rename");
        self.renamed = true;
        let stat = rustix::fs::fstat(&self.file).map_err(FileError::at("look at", &target))?;
        self.hashed.add(digest.clone(), StatKey::of(&stat));
        self.ledger.made(object, Size::of(&stat), None);
        Ok((digest, self.size))
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.file.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for BlobWriter {
    fn drop(&mut self) {
        if !self.renamed {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn blobs_are_what_their_digest_says() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let content = store.content();
        let digest = content.put(b"hello").unwrap();
        assert_eq!(content.put(b"hello").unwrap(), digest);
        assert_eq!(content.has(&digest).unwrap(), Some(5));
        assert_eq!(content.read_small(&digest).unwrap(), b"hello");

        let other = Digest::of(b"other");
        let mut writer = content.writer().unwrap();
        writer.write_all(b"hello, but not other").unwrap();
        assert!(matches!(writer.commit(Some(&other)), Err(StoreError::Mismatch { .. })));
        assert_eq!(content.has(&other).unwrap(), None);
        assert!(matches!(content.open(&other), Err(StoreError::Missing { .. })));

        fs::remove_file(content.path(&digest)).unwrap();
        fs::write(content.path(&digest), "hullo").unwrap();
        assert!(matches!(content.read_small(&digest), Err(StoreError::Mismatch { .. })));
        assert!(!content.verify(&digest).unwrap());
        content.delete(&digest).unwrap();
        assert_eq!(content.has(&digest).unwrap(), None);
        let ingest = fs::read_dir(dir.path().join("ingest")).unwrap().next().unwrap().unwrap().path();
        let left: Vec<_> = fs::read_dir(ingest).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(left, ["lock"]);
    }
}
