//! Blobs of layers, made once each: in the background while later steps run, or when an exporter asks.

use crate::sandbox::rootfs;
use cache::layer::LayerError;
use cache::layer::compression::{Compression, LayerBlob, decompressor, write_blob};
use cache::layer::tar::{Mtime, write_layer};
use cache::store::Store;
use cache::tree::{SnapshotId, Tree, stack};
use solver::key::CacheKey;
use std::collections::HashMap;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex};
use tokio::sync::{OnceCell, Semaphore};

/// What decides the bytes of a layer's blob, beside the layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LayerOptions {
    pub compression: Compression,
    /// `rewrite-timestamp`: file times later than this, in seconds since 1970, become this.
    pub clamp: Option<i64>,
}

/// A layer whose blob could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    #[error("could not write the layer of snapshot {}", snapshot.0)]
    Write { snapshot: SnapshotId, source: LayerError },
    #[error("could not recompress layer {digest}")]
    Recompress { digest: cache::digest::Digest, source: LayerError },
    #[error("could not mount what lies below snapshot {}", snapshot.0)]
    View { snapshot: SnapshotId, source: crate::sandbox::SandboxError },
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error("the thread that made a layer's blob died")]
    Join(#[from] tokio::task::JoinError),
}

type Blobs = HashMap<(SnapshotId, LayerOptions), Arc<OnceCell<LayerBlob>>>;

/// Layers that are compressed at once, each by several threads: what bounds the memory for it.
const AT_ONCE: usize = 2;

/// Makes blobs, each once. Cheap to clone.
#[derive(Clone)]
pub struct LayerBlobs {
    store: Store,
    blobs: Arc<Mutex<Blobs>>,
    turns: Arc<Semaphore>,
}

impl LayerBlobs {
    /// Blobs go into `store`.
    pub fn new(store: Store) -> LayerBlobs {
        LayerBlobs { store, blobs: Arc::default(), turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Starts to make the blob of the topmost layer of `tree`, and does not wait for it. Whoever asks for it later
    /// waits for this; an error is told to them.
    pub fn start(&self, tree: Tree, options: LayerOptions) {
        let blobs = self.clone();
        tokio::spawn(async move { blobs.of_top(tree, options).await.map(drop) });
    }

    /// The blob of the topmost layer of `tree`, a layer made by a step: from the store, or made now.
    pub async fn of_top(&self, tree: Tree, options: LayerOptions) -> Result<LayerBlob, BlobError> {
        let top = tree.layers().last().expect("only trees with layers have a topmost one").snapshot.clone();
        let store = self.store.clone();
        self.once(top.clone(), options, move || make(&store, &tree, &top, options)).await
    }

    /// Whether the layers below have to be on disk to make the blob of the topmost one.
    pub fn needs_below(&self, tree: &Tree, options: LayerOptions) -> Result<bool, BlobError> {
        let top = &tree.layers().last().expect("only trees with layers have a topmost one").snapshot;
        Ok(!lies_on_nothing(top, tree) && known(&self.store, &memo(top, options), options.compression)?.is_none())
    }

    /// The blob of a pulled layer, which is in the store, in another compression.
    pub async fn recompressed(&self, from: &LayerBlob, compression: Compression) -> Result<LayerBlob, BlobError> {
        let id = SnapshotId(from.descriptor.digest.hex().to_string());
        let (store, from) = (self.store.clone(), from.clone());
        let options = LayerOptions { compression, clamp: None };
        self.once(id.clone(), options, move || recompress(&store, &from, &id, compression)).await
    }

    /// Makes a blob when it is its turn, unless it is made, or being made, already.
    async fn once(
        &self,
        id: SnapshotId,
        options: LayerOptions,
        make: impl FnOnce() -> Result<LayerBlob, BlobError> + Send + 'static,
    ) -> Result<LayerBlob, BlobError> {
        let cell = self.cell(id, options);
        let made = cell.get_or_try_init(|| async {
            let _turn = self.turns.acquire().await.expect("nobody closes it");
            tokio::task::spawn_blocking(make).await?
        });
        made.await.cloned()
    }

    fn cell(&self, id: SnapshotId, options: LayerOptions) -> Arc<OnceCell<LayerBlob>> {
        self.blobs.lock().expect("no holder panics").entry((id, options)).or_default().clone()
    }
}

fn make(store: &Store, tree: &Tree, top: &SnapshotId, options: LayerOptions) -> Result<LayerBlob, BlobError> {
    let memo = memo(top, options);
    if let Some(blob) = known(store, &memo, options.compression)? {
        return Ok(blob);
    }
    let below = tree.lowest(tree.layers().len() - 1);
    let view = match lies_on_nothing(top, tree) {
        true => None,
        false => Some(
            rootfs::overlay(&store.snapshots().lowers(&below), None)
                .map_err(|source| BlobError::View { snapshot: top.clone(), source })?,
        ),
    };
    store.reserve(0)?;
    let mtime = options.clamp.map_or(Mtime::Keep, Mtime::Clamp);
    let upper = store.snapshots().path(top);
    let blob = write_blob(store.content(), options.compression, threads(), |sink| {
        write_layer(&upper, view.as_ref().map(|view| view.as_fd()), mtime, sink)
    })
    .map_err(|source| BlobError::Write { snapshot: top.clone(), source })?;
    store.put_layer_blob(&memo, options.compression, &blob)?;
    Ok(blob)
}

fn recompress(
    store: &Store,
    from: &LayerBlob,
    memo: &SnapshotId,
    compression: Compression,
) -> Result<LayerBlob, BlobError> {
    if let Some(blob) = known(store, memo, compression)? {
        return Ok(blob);
    }
    let file = store.content().open(&from.descriptor.digest)?;
    let blob = write_blob(store.content(), compression, threads(), |sink| {
        let mut tar = decompressor(file).map_err(LayerError::Write)?;
        std::io::copy(&mut tar, sink).map_err(LayerError::Write).map(drop)
    })
    .map_err(|source| BlobError::Recompress { digest: from.descriptor.digest.clone(), source })?;
    store.put_layer_blob(memo, compression, &blob)?;
    Ok(blob)
}

/// What a blob of the layer is remembered under.
fn memo(top: &SnapshotId, options: LayerOptions) -> SnapshotId {
    match options.clamp {
        None => top.clone(),
        Some(seconds) => SnapshotId(format!("{}@{seconds}", top.0)),
    }
}

/// A blob that was made before and is still there.
fn known(store: &Store, memo: &SnapshotId, compression: Compression) -> Result<Option<LayerBlob>, BlobError> {
    match store.layer_blob(memo, compression)? {
        Some(blob) => match store.content().has(&blob.descriptor.digest)? {
            Some(size) if size == blob.descriptor.size => Ok(Some(blob)),
            Some(_) => {
                store.content().drop_damaged(&blob.descriptor.digest)?;
                Ok(None)
            }
            None => Ok(None),
        },
        None => Ok(None),
    }
}

/// Whether the layer was made on an empty tree: the lowest one, or one that `COPY --link` put on others later. Such a
/// layer hides nothing, so its tar needs no look at what is below.
fn lies_on_nothing(top: &SnapshotId, tree: &Tree) -> bool {
    let change = &tree.layers()[tree.layers().len() - 1].change;
    tree.layers().len() == 1 || stack(&CacheKey([0; 32]), change).to_hex() == top.0
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, |threads| threads.get())
}
