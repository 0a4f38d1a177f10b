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
//! <root>/leases            bytes of it are locked for what live processes use
//! <root>/used              what builds used that wrote nothing else, a line an object
//! <root>/claims/<key>      locked while some process runs the key
//! <root>/logs/<build>/     what a build did, and the output of its steps
//! <root>/ingest/<process>/ everything unfinished; its `lock` is held while the process lives
//! <root>/trash/            what is to be deleted when there is time
//! ```
//!
//! Start with [`store`], which opens all this; [`content`], [`snapshot`] and [`records`] are its three parts, and
//! [`layer`] goes between the first two. What all of it takes is [`usage`]; [`prune`] decides what goes, [`quota`]
//! holds the limit, [`pin`] keeps what somebody comes back for, [`verify`] looks for damage. Images by name are [`images`].
//! What former builds used is in [`runs`], which files their digests are of in
//! [`listing`]; what this build knows of files that it made is in [`known_files`].
//!
//! Invariant: what is below `blobs/` and `snapshots/` is complete and never changes. It is written aside, in
//! `ingest/`, and renamed in; a process that dies leaves nothing but its `ingest/` folder and locks that the kernel
//! frees.
//!
//! Invariant: what a live process has seen in the store stays until that process ends. Whoever looks whether a snapshot
//! or a blob is there leases its name first (`lease.rs`); whoever removes one holds its name exclusively meanwhile.
//! Cache mounts, git repositories and logs have locks of their own, which their users hold.
//!
//! Invariant: nothing waits for the disk. What may not have reached it when the machine stopped is compared with its digest
//! before it is used again (`durable.rs`).
//!
//! Invariant: what is removed is first struck out of the database, with the records that need it, then renamed into
//! `trash/`, then deleted. So a record never outlives its snapshot, whenever the process dies; and a snapshot that
//! lost its entry is found on disk and entered again.
//!
//! Invariant: snapshotters make no mounts. Whoever mounts snapshots does so as overlayfs with `userxattr`, as root
//! too, so that the same store serves both: opaque directories carry `user.overlay.opaque`, whiteouts are character
//! devices 0:0, or where those are refused empty files with `user.overlay.whiteout`. Owners that the kernel refuses are
//! kept beside the files (`owners.rs`).
//!
//! Invariant: nothing here holds a layer, or a file of one, in memory.

#![forbid(unsafe_code)]

pub mod checksum;
pub mod claim;
pub mod content;
mod damage;
mod db;
pub mod digest;
mod durable;
pub mod error;
mod failpoint;
pub mod git;
pub mod images;
mod ingest;
pub mod known_files;
pub mod layer;
mod lease;
pub mod ledger;
pub mod listing;
pub mod memo;
#[cfg(test)]
mod model;
pub mod object;
pub mod owners;
pub mod pin;
#[cfg(any(test, feature = "testing"))]
pub mod properties;
pub mod prune;
pub mod quota;
pub mod records;
pub mod remote;
pub mod runs;
pub mod snapshot;
pub mod store;
#[cfg(test)]
mod test_tree;
pub mod time;
pub mod tree;
pub mod usage;
pub mod verify;
pub mod walk;

pub use error::{FileError, StoreError};
pub use store::Store;
