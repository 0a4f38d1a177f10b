//! Layers: tars of what a snapshot changes (image-spec layer.md).

pub mod apply;
pub mod changes;
pub mod compression;
mod deferred;
mod estargz;
mod gzip;
mod header;
mod metadata;
mod pipe;
pub(crate) mod reader;
mod resolve;
pub mod tar;
mod unpack;

pub(crate) use unpack::remove_tree;

use crate::error::{FileError, StoreError};
use std::io;
use std::path::PathBuf;

/// What can go wrong between a tree and its tar.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// A system call on the tree failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The tar could not be read: the source failed, or is damaged.
    #[error("cannot read the layer")]
    Read(#[source] io::Error),
    /// The tar could not be written.
    #[error("cannot write the layer")]
    Write(#[source] io::Error),
    /// The bytes are not a tar that kiln can unpack.
    #[error("malformed layer at byte {offset}: {what}")]
    Malformed {
        /// Where in the uncompressed tar.
        offset: u64,
        /// What is wrong there.
        what: &'static str,
    },
    /// A type of entry that tar defines but a layer cannot have.
    #[error("layer entry `{}` has the unknown type {typeflag:?}", path.display())]
    UnknownType {
        /// The entry's name.
        path: PathBuf,
        /// As in the header.
        typeflag: char,
    },
    /// A hard link to something that is neither in the layer nor below it.
    #[error("layer entry `{}` is a hard link to `{}`, which does not exist", path.display(), target.display())]
    DanglingLink {
        /// The entry's name.
        path: PathBuf,
        /// What it links to.
        target: PathBuf,
    },
    /// A file changed size while it was being written to the tar.
    #[error("`{}` changed while it was read", path.display())]
    Changed {
        /// The file, relative to the tree's root.
        path: PathBuf,
    },
}
