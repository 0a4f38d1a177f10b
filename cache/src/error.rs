//! What can go wrong with the store itself. Layers have errors of their own (`layer/mod.rs`).

use crate::digest::Digest;
use std::io;
use std::path::{Path, PathBuf};

/// A failed system call: what was tried, on which path. The cause is the `source()`.
#[derive(Debug, thiserror::Error)]
#[error("cannot {verb} `{}`", path.display())]
pub struct FileError {
    /// What was tried, as it follows "cannot".
    pub verb: &'static str,
    /// On what.
    pub path: PathBuf,
    /// The errno.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: `.map_err(FileError::at("open", path))`.
    pub fn at<E: Into<io::Error>>(verb: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> FileError {
        move |source| FileError { verb, path: path.as_ref().to_owned(), source: source.into() }
    }
}

/// What a failing store says.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A system call failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store was written by a newer kiln.
    #[error("the store `{}` has format {found}, but this kiln knows formats up to {supported}", root.display())]
    NewerFormat {
        /// The store's folder.
        root: PathBuf,
        /// What its `version` file says.
        found: u32,
        /// The newest format that this program reads.
        supported: u32,
    },
    /// The `version` file is not a number.
    #[error("`{}` is not a format version: is this the folder of a kiln store?", path.display())]
    BadVersion {
        /// The file.
        path: PathBuf,
    },
    /// The database failed.
    #[error("cannot {verb} in the store's database")]
    Database {
        /// What was tried, as it follows "cannot".
        verb: &'static str,
        /// What SQLite says.
        source: rusqlite::Error,
    },
    /// Bytes are not what their digest says.
    #[error("expected {expected}, but the bytes are {actual}")]
    Mismatch {
        /// The digest that was asked for.
        expected: Digest,
        /// The digest of what came.
        actual: Digest,
    },
    /// No blob of this digest is stored.
    #[error("blob {digest} is not in the store")]
    Missing {
        /// What was asked for.
        digest: Digest,
    },
    /// A blob is too large to be held in memory.
    #[error("blob {digest} has {size} bytes, more than the {limit} that a document may have")]
    TooLarge {
        /// What was asked for.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most that is read at once, in bytes.
        limit: u64,
    },
    /// A name that cannot be a snapshot's folder.
    #[error("`{id}` is not a snapshot's name")]
    BadSnapshotId {
        /// The name.
        id: String,
    },
}
