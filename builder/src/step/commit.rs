//! A finished upper dir -> a layer, named by what it changes.

use crate::sandbox::{SandboxError, rootfs};
use cache::checksum::{Change, Hint, change};
use cache::error::{FileError, StoreError};
use cache::layer::changes::normalise;
use cache::owners::{OwnerNotes, Owners};
use cache::snapshot::overlay::Draft;
use cache::store::Store;
use cache::tree::{Layer, SnapshotId, Tree, stack};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

/// Who wrote the upper dir.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// kiln: it holds nothing but what was asked for.
    Copier,
    /// The kernel, through overlayfs: it may hold folders that were only copied up, and whiteouts of nothing.
    Overlay,
}

/// Why a layer could not be made of an upper dir.
#[derive(Debug, thiserror::Error)]
pub enum CommitError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("could not read what the step changed")]
    Read(#[from] FileError),
    #[error(transparent)]
    View(#[from] SandboxError),
}

/// Gives what a step made to `owner`, as whom it would have run if this machine had the id.
pub fn give_new_files(draft: &Draft, lowers: &[PathBuf], owner: (u32, u32)) -> Result<(), CommitError> {
    let view = rootfs::view(lowers)?;
    OwnerNotes::mark(draft.upper())?;
    Ok(cache::owners::give_new_files(draft.upper(), view.as_ref().map(|view| view.as_fd()), owner)?)
}

/// Names the draft by content. If an earlier run made the same change on the same base, its snapshot stays and is
/// used: what comes after then hits, and no blob is made twice. `hint` may know files of
/// the draft.
pub fn commit(
    store: &Store,
    mut draft: Draft,
    base: &Tree,
    lowers: &[PathBuf],
    writer: Writer,
    hint: Hint<'_>,
) -> Result<Layer, CommitError> {
    if writer == Writer::Overlay {
        let view = rootfs::view(lowers)?;
        let owners = Owners::read(lowers)?;
        if owners.is_some() {
            // What was copied up or renamed brought its owner along.
            OwnerNotes::mark(draft.upper())?;
        }
        normalise(draft.upper(), view.as_ref().map(|view| view.as_fd()), owners.as_ref())?;
    }
    let Change { digest: change, size, files } = change(draft.upper(), hint)?;
    let snapshot = SnapshotId(stack(&base.content(), &change).to_hex());
    if let Some(below) = base.layers().last() {
        draft.lies_on(&below.snapshot);
    }
    store.snapshots().commit_measured(draft, &snapshot, size)?;
    store.know_files(&snapshot, files);
    // How much a step writes is known only now.
    store.reserve(0)?;
    // An image that is made again of the same contents is to be the same to the byte, and so as old.
    if let Some(first) = store.first_layer_of(&snapshot)?.filter(|first| first.change == change) {
        return Ok(first);
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Ok(Layer { snapshot, change, created_ms: Some(now), remote: None })
}
