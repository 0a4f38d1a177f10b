//! Cache mounts that travel: their contents go into a cache with `--cache-to …,mounts=true`, and an empty one begins with
//! what a `--cache-from` has of it.
//!
//! A mount's contents are a layer without anything below. They are looked at when the steps are done, and sent only if
//! they are not what the cache has.

use super::export::{CarryError, Exports, Target};
use super::place::{OpenBlob, Place};
use crate::image::layers::BlobError;
use crate::progress::Vertex;
use crate::source::image::{ImageError, ImageSource, blocking};
use cache::checksum::change_digest;
use cache::layer::LayerError;
use cache::layer::apply::{Deferred, apply, finish_deferred};
use cache::layer::compression::{decompressor, write_blob};
use cache::layer::tar::{Mtime, write_layer};
use cache::ledger::now_ms;
use cache::remote::{Index, RemoteBlob, RemoteMount};
use cache::store::Store;
use cache::tree::{Layer, RemoteLayer, SnapshotId, Tree};
use rustix::fs::FlockOperation;
use solver::key::CacheKey;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// What a step's cache mounts have to do with remote caches; the default: nothing.
#[derive(Clone, Default)]
pub struct MountTravel(Option<Travel>);

#[derive(Clone)]
struct Travel {
    images: ImageSource,
    exports: Exports,
    store: Store,
    vertex: Vertex,
}

impl fmt::Debug for MountTravel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "MountTravel" } else { "no MountTravel" })
    }
}

/// Contents that have come, in the store.
pub struct Arrived {
    travel: Travel,
    mount: RemoteMount,
}

impl MountTravel {
    /// For a step; what comes is shown on `vertex`.
    pub fn new(images: ImageSource, exports: Exports, store: Store, vertex: Vertex) -> MountTravel {
        MountTravel(Some(Travel { images, exports, store, vertex }))
    }

    /// Fetches what a cache has of the mount `key` (64 hex digits). What cannot be had is told: the mount then begins as it
    /// would have.
    pub async fn fetch(&self, key: &str) -> Option<Arrived> {
        let travel = self.0.clone()?;
        let (mount, origin) = travel.images.imports().mount(&CacheKey::from_hex(key)?)?;
        let remote = RemoteLayer {
            descriptor: mount.blob.descriptor(),
            diff_id: mount.blob.diff_id.clone(),
            origin,
            made: Some(mount.blob.made.clone()),
        };
        let change = mount.content.to_hex();
        let layer = Layer { snapshot: SnapshotId(String::new()), change, created_ms: None, remote: Some(remote) };
        match travel.images.ensure_blobs(&Tree::from_iter([layer]), &travel.vertex).await {
            Ok(()) => Some(Arrived { travel, mount }),
            Err(error) => {
                travel.without(&mount, &error);
                None
            }
        }
    }

    /// Notes that a step uses a cache mount: `place` has its `tree` and its `lock`.
    pub fn note(&self, key: &str, place: &Path) {
        if let (Some(travel), Some(key)) = (&self.0, CacheKey::from_hex(key)) {
            travel.exports.mount(key, place);
        }
    }
}

impl Travel {
    fn without(&self, mount: &RemoteMount, error: &dyn std::error::Error) {
        self.images.imports().lose_mount(&mount.blob.digest);
        let why = crate::progress::chain(error);
        self.vertex.warn(format!("a cache mount begins without what the cache has of it: {why}"));
    }
}

impl Arrived {
    /// Fills an empty folder; says whether it has. If not, the folder is empty again.
    pub fn unpack(&self, to: &Path) -> bool {
        let digest = &self.mount.blob.digest;
        let failed = |source| ImageError::Unpack { digest: digest.clone(), source };
        let unpacked = || {
            let file = self.travel.store.content().open(digest)?;
            let tar = decompressor(file).map_err(LayerError::Read).map_err(failed)?;
            let applied = apply(tar, to).map_err(failed)?;
            if applied.diff_id != self.mount.blob.diff_id {
                let (expected, actual) = (self.mount.blob.diff_id.clone(), applied.diff_id);
                return Err(ImageError::DiffId { digest: digest.clone(), expected, actual });
            }
            if applied.deferred != Deferred::default() {
                finish_deferred(to, &applied.deferred, None, None).map_err(failed)?;
            }
            Ok(())
        };
        let Err(error) = unpacked() else { return true };
        for entry in fs::read_dir(to).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let _ = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        }
        self.travel.without(&self.mount, &error);
        false
    }
}

/// Has the contents of mounts at a place; gives those that `known` does not say already.
pub(super) async fn carry(
    mounts: BTreeMap<CacheKey, PathBuf>,
    known: &Index,
    target: &Target,
    place: &Place,
    store: &Store,
    vertex: &Vertex,
) -> Result<BTreeMap<CacheKey, RemoteMount>, CarryError> {
    let mut carried = BTreeMap::new();
    for (key, folder) in mounts {
        let (store_of_thread, compression) = (store.clone(), target.compression);
        let before = known.mounts.get(&key).map(|mount| mount.content);
        let taken = blocking(move || take(&folder, before, &store_of_thread, compression)).await;
        let mount = match taken {
            Ok(Some(mount)) => mount,
            Ok(None) => continue,
            // Another build may be writing to it.
            Err(error) => {
                let why = crate::progress::chain(&error);
                vertex.warn(format!("a cache mount does not travel: {why}"));
                continue;
            }
        };
        let open: &OpenBlob<'_> = &|descriptor| {
            let path = store.content().path(&descriptor.digest);
            Box::pin(async move { Ok(path) })
        };
        place.put(&mount.blob.descriptor(), vec![], open, vertex).await?;
        carried.insert(key, mount);
    }
    Ok(carried)
}

/// The contents of a mount as a blob; `None` if they are what they were, or somebody has the mount for himself.
fn take(
    folder: &Path,
    before: Option<CacheKey>,
    store: &Store,
    compression: cache::layer::compression::Compression,
) -> Result<Option<RemoteMount>, BlobError> {
    let lock_path = folder.join("lock");
    let lock = File::open(&lock_path).map_err(cache::FileError::at("open", &lock_path)).map_err(of_store)?;
    // Held as a step holds it: who prunes leaves the mount alone.
    if rustix::fs::flock(&lock, FlockOperation::NonBlockingLockShared).is_err() {
        return Ok(None);
    }
    let tree = folder.join("tree");
    let change = change_digest(&tree).map_err(of_store)?;
    let content = CacheKey::from_hex(&change).expect("a digest has 64 hex digits");
    if before == Some(content) {
        return Ok(None);
    }
    store.reserve(0)?;
    let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
    let blob = write_blob(store.content(), compression, threads, |sink| write_layer(&tree, None, Mtime::Keep, sink))
        .map_err(|source| BlobError::Write { snapshot: SnapshotId(tree.display().to_string()), source })?;
    Ok(Some(RemoteMount { taken: now_ms(), content, blob: RemoteBlob::of(&blob, compression.to_string()) }))
}

fn of_store(error: cache::FileError) -> BlobError {
    BlobError::Store(error.into())
}
