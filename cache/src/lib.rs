//! What is stored: blobs, snapshots and records, in one folder that several processes share.
//!
//! ```text
//! <root>/version           format of the store, a number
//! <root>/lock              held for the moment in which a process opens the store
//! <root>/db                records, memo tables (SQLite in WAL mode: also db-wal, db-shm)
//! <root>/blobs/<alg>/<hex> compressed layers, configs, manifests
//! <root>/snapshots/<id>/   trees, in overlayfs' upper form
//! <root>/mounts/<id>/      cache mounts
//! <root>/git/<id>/         bare repositories that git sources fetch into, one for each remote
//! <root>/claims/<key>      locked while some process runs the key
//! <root>/logs/<build>/     what a build did, and the output of its steps
//! <root>/ingest/<process>/ everything unfinished; its `lock` is held while the process lives
//! <root>/trash/            what is to be deleted when there is time
//! ```
//!
//! Start with [`store`], which opens all this; [`content`], [`snapshot`] and [`records`] are its three parts, and
//! [`layer`] goes between the first two.
//!
//! Invariant: what is below `blobs/` and `snapshots/` is complete and never changes. It is written aside, in
//! `ingest/`, and renamed in; a process that dies leaves nothing but its `ingest/` folder and locks that the kernel
//! frees.
//!
//! Invariant: snapshotters make no mounts. Whoever mounts snapshots does so as overlayfs with `userxattr`, as root
//! too, so that the same store serves both: opaque directories carry `user.overlay.opaque`, whiteouts are character
//! devices 0:0.
//!
//! Invariant: nothing here holds a layer, or a file of one, in memory.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod claim;
pub mod content;
mod db;
pub mod digest;
pub mod error;
mod failpoint;
pub mod git;
mod ingest;
pub mod layer;
pub mod memo;
#[cfg(any(test, feature = "testing"))]
pub mod properties;
pub mod records;
pub mod snapshot;
pub mod store;
#[cfg(test)]
mod test_tree;
pub mod tree;
mod walk;

pub use error::{FileError, StoreError};
pub use store::Store;
