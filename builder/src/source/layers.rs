//! Layers of images: blobs fetched and unpacked when they are needed. A blob goes from the network into its file, its
//! digest, its decompressor and its snapshot in one pass, several layers at a time; what depends on the layers below is
//! done when those are there. One process, and in it one task, fetches a layer; the others wait for it.

use super::bomb::Bounded;
use super::image::{ImageError, ImageSource, blocking};
use super::oci_layout;
use crate::progress::Vertex;
use crate::registry::RegistryError;
use crate::registry::pull::BlobReader;
use crate::remote_cache::objects::ObjectReader;
use bytes::{Buf, Bytes};
use cache::content::local::BlobWriter;
use cache::digest::{Descriptor, Digest};
use cache::images::is_stored_origin;
use cache::layer::LayerError;
use cache::layer::apply::{Deferred, apply, finish_deferred};
use cache::layer::compression::decompressor;
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::owners::Owners;
use cache::snapshot::overlay::Draft;
use cache::tree::{Layer, RemoteLayer, SnapshotId, Tree};
use cache::{Store, StoreError};
use frontend::reference::Reference;
use futures::future::try_join_all;
use solver::key::CacheKey;
use solver::record::RecordStore;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Pieces of a blob between the network and the thread that unpacks it. Each is some 16 KiB or less.
pub(super) const PIECES_AHEAD: usize = 64;
/// Between two progress reports of a transfer.
pub(super) const REPORT_INTERVAL: Duration = Duration::from_millis(100);
const COPY_BUFFER: usize = 128 << 10;
/// How much larger than its blob an unpacked layer is, as a rule.
const UNPACKED_SIZE: u64 = 3;

/// A layer whose files are there, but for what depends on those below.
struct Prepared {
    draft: Draft,
    deferred: Deferred,
}

impl ImageSource {
    /// Has all layers on disk as snapshots, and gives their folders, lowest first.
    pub async fn ensure_unpacked(&self, tree: &Tree, vertex: &Vertex) -> Result<Vec<PathBuf>, ImageError> {
        let snapshots = self.inner.store.snapshots();
        let lowers = snapshots.lowers(tree);
        if tree.layers().iter().all(|layer| snapshots.exists(&layer.snapshot)) {
            return Ok(lowers);
        }
        let gone: Vec<_> =
            tree.layers().iter().filter(|layer| layer.remote.is_none() && !snapshots.exists(&layer.snapshot)).collect();
        if let Some(first) = gone.first() {
            gone.iter().for_each(|layer| self.inner.imports.lose_snapshot(&layer.snapshot));
            return Err(ImageError::SnapshotLost(first.snapshot.0.clone()));
        }
        let mut below = None;
        let layers = tree.layers().iter().enumerate().map(|(index, layer)| {
            let (done, is_done) = oneshot::channel();
            let below = below.replace(is_done);
            let lowers = &lowers[..index];
            async move {
                self.ensure_layer(layer, lowers, below, vertex).await?;
                // Nobody waits for the topmost layer.
                let _ = done.send(());
                Ok::<(), ImageError>(())
            }
        });
        try_join_all(layers.collect::<Vec<_>>()).await?;
        Ok(lowers)
    }

    /// Has the blobs of all remote layers of the tree in the store, without unpacking them.
    pub async fn ensure_blobs(&self, tree: &Tree, vertex: &Vertex) -> Result<(), ImageError> {
        let remotes = tree.layers().iter().filter_map(|layer| layer.remote.as_ref());
        let fetches = remotes.map(|remote| async {
            let fetched = self.fetch_blob(&remote.descriptor, &remote.origin, vertex).await;
            fetched.map_err(|error| self.blame(&remote.descriptor, error))
        });
        try_join_all(fetches.collect::<Vec<_>>()).await.map(drop)
    }

    /// Has a blob in the store, from the first of the origins that gives it.
    pub(super) async fn fetch_from_any(
        &self,
        descriptor: &Descriptor,
        origins: &[String],
        vertex: &Vertex,
    ) -> Result<(), ImageError> {
        let mut failure = ImageError::Store(StoreError::Missing { digest: descriptor.digest.clone() });
        for origin in origins {
            match self.fetch_blob(descriptor, origin, vertex).await {
                Ok(()) => return Ok(()),
                Err(error) => failure = error,
            }
        }
        Err(self.blame(descriptor, failure))
    }

    /// Notes that a remote cache does not give what it promised, if this is one's blob: whatever needs it is made again.
    fn blame(&self, descriptor: &Descriptor, error: ImageError) -> ImageError {
        let is_ours = match &error {
            // Of the store's own troubles none is the cache's.
            ImageError::Store(error) => !matches!(error, StoreError::Mismatch { .. } | StoreError::Missing { .. }),
            _ => false,
        };
        if !is_ours {
            self.inner.imports.lose_blob(&descriptor.digest, &error);
        }
        error
    }

    /// Has one layer's snapshot. `below` tells when those below are there.
    async fn ensure_layer(
        &self,
        layer: &Layer,
        lowers: &[PathBuf],
        below: Option<oneshot::Receiver<()>>,
        vertex: &Vertex,
    ) -> Result<(), ImageError> {
        let store = &self.inner.store;
        if store.snapshots().exists(&layer.snapshot) {
            return Ok(());
        }
        let Some(remote) = &layer.remote else {
            return Err(ImageError::SnapshotLost(layer.snapshot.0.clone()));
        };
        let _claim = store.claim(&CacheKey::of(format!("unpack {}", layer.snapshot.0).as_bytes())).await?;
        if store.snapshots().exists(&layer.snapshot) {
            return Ok(());
        }
        let prepared = self.unpack(remote, vertex).await.map_err(|error| self.blame(&remote.descriptor, error))?;
        let digest = remote.descriptor.digest.clone();
        if let Some(below) = below {
            below.await.map_err(|_| ImageError::Interrupted(digest.clone()))?;
        }
        let (store, id, lowers) = (store.clone(), layer.snapshot.clone(), lowers.to_vec());
        let (origin, under) = (remote.origin.clone(), lowers_top(&lowers));
        blocking(move || {
            finish(&store, prepared, &id, &lowers, &digest, under)?;
            let description = format!("layer {digest} of {origin}");
            store.describe(ObjectId::new(Kind::Snapshot, &*id.0), About { description, category: "" });
            Ok(())
        })
        .await
    }

    /// Unpacks a layer from the store's blob; without one, while fetching it into the store.
    async fn unpack(&self, remote: &RemoteLayer, vertex: &Vertex) -> Result<Prepared, ImageError> {
        let digest = &remote.descriptor.digest;
        let _claim = self.claim_blob(digest).await?;
        let limit = self.inner.registry.unpacked_limit(remote.descriptor.size);
        self.make_room(remote.descriptor.size.saturating_mul(1 + UNPACKED_SIZE)).await?;
        let status = format!("extracting {digest}");
        if self.inner.store.content().has(digest)?.is_some() {
            vertex.status(&status, 0, 0);
            let (store, remote) = (self.inner.store.clone(), remote.clone());
            let unpacked = blocking(move || {
                let file = store.content().open(&remote.descriptor.digest)?;
                unpack_from(&store, &remote, limit, file, None)
            });
            match unpacked.await {
                // A blob that was damaged in the store is fetched again; one that was bad from the start fails again.
                Err(error @ (ImageError::Unpack { .. } | ImageError::DiffId { .. })) => {
                    tracing::warn!(%error, "stored blob will be fetched again");
                    self.inner.store.content().drop_damaged(digest)?;
                }
                result => {
                    vertex.status_done(&status, 0, 0);
                    return result;
                }
            }
        }
        self.describe_blob(remote);
        vertex.status(&status, 0, 0);
        let work = || {
            let (store, remote) = (self.inner.store.clone(), remote.clone());
            move |input: Box<dyn Read + Send>| {
                let writer = store.content().writer()?;
                unpack_from(&store, &remote, limit, input, Some(writer))
            }
        };
        let prepared = self.fetch(&remote.descriptor, &remote.origin, vertex, work).await?;
        vertex.status_done(&status, 0, 0);
        Ok(prepared)
    }

    /// Has one blob in the store.
    async fn fetch_blob(&self, descriptor: &Descriptor, origin: &str, vertex: &Vertex) -> Result<(), ImageError> {
        let store = &self.inner.store;
        if store.content().has(&descriptor.digest)?.is_some() {
            return Ok(());
        }
        let _claim = self.claim_blob(&descriptor.digest).await?;
        if store.content().has(&descriptor.digest)?.is_some() {
            return Ok(());
        }
        self.make_room(descriptor.size).await?;
        let work = || {
            let (store, digest) = (store.clone(), descriptor.digest.clone());
            move |input: Box<dyn Read + Send>| keep(&store, &digest, input)
        };
        self.fetch(descriptor, origin, vertex, work).await
    }

    /// Runs what `work` makes on the bytes of a blob. What a mirror has damaged is had from the registry itself.
    async fn fetch<T: Send + 'static, W>(
        &self,
        descriptor: &Descriptor,
        origin: &str,
        vertex: &Vertex,
        work: impl Fn() -> W,
    ) -> Result<T, ImageError>
    where
        W: FnOnce(Box<dyn Read + Send>) -> Result<T, ImageError> + Send + 'static,
    {
        let input = self.open(descriptor, origin).await?;
        let may_be_a_mirror = matches!(input, Input::Network(_));
        let error = match feed(input, descriptor, origin, vertex, work()).await {
            Err(error) if may_be_a_mirror && is_damage(&error) => error,
            result => return result,
        };
        let Ok(reference) = Reference::parse(origin) else { return Err(error) };
        match self.inner.registry.blob_of_origin(&reference, descriptor).await {
            Ok(Some(reader)) => {
                tracing::warn!(%error, "a mirror's blob is damaged");
                feed(Input::Network(Box::new(reader)), descriptor, origin, vertex, work()).await
            }
            Ok(None) | Err(_) => Err(error),
        }
    }

    async fn make_room(&self, bytes: u64) -> Result<(), ImageError> {
        let store = self.inner.store.clone();
        Ok(blocking(move || store.reserve(bytes)).await?)
    }

    fn describe_blob(&self, remote: &RemoteLayer) {
        let description = format!("pulled from {}", remote.origin);
        let id = ObjectId::new(Kind::Blob, remote.descriptor.digest.hex());
        self.inner.store.describe(id, About { description, category: "" });
    }

    async fn claim_blob(&self, digest: &Digest) -> Result<cache::claim::Claim, ImageError> {
        Ok(self.inner.store.claim(&CacheKey::of(format!("blob {digest}").as_bytes())).await?)
    }

    /// Opens a blob where it comes from.
    async fn open(&self, descriptor: &Descriptor, origin: &str) -> Result<Input, ImageError> {
        self.inner.imports.check_alive(origin)?;
        if let Some(place) = self.inner.imports.place(origin) {
            let opened = Box::pin(place.open(descriptor)).await;
            return opened.map(|reader| Input::Object(Box::new(reader))).map_err(|error| pull_error(origin, error));
        }
        if is_stored_origin(origin) {
            return Err(ImageError::NotStored { digest: descriptor.digest.clone() });
        }
        if origin.starts_with('/') {
            return Ok(Input::File(oci_layout::open(Path::new(origin), &descriptor.digest)?));
        }
        let reference =
            Reference::parse(origin).map_err(|source| ImageError::Origin { origin: origin.to_string(), source })?;
        match self.inner.registry.blob(&reference, descriptor).await {
            Ok(reader) => Ok(Input::Network(Box::new(reader))),
            Err(source) => Err(pull_error(origin, source)),
        }
    }
}

/// Where the bytes of a blob come from.
enum Input {
    Network(Box<BlobReader>),
    /// Of an object store, or the like.
    Object(Box<ObjectReader>),
    /// Of a layout.
    File(File),
}

impl Input {
    /// The next bytes of what comes over the network, `None` at the end.
    async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        match self {
            Input::Network(reader) => reader.chunk().await,
            Input::Object(reader) => reader.chunk().await,
            Input::File(_) => Ok(None),
        }
    }

    /// Where it comes from, for errors.
    fn url(&self, origin: &str) -> String {
        match self {
            Input::Network(reader) => reader.url(),
            Input::Object(_) | Input::File(_) => origin.to_string(),
        }
    }

    /// Bytes read so far.
    fn offset(&self) -> u64 {
        match self {
            Input::Network(reader) => reader.offset(),
            Input::Object(reader) => reader.offset(),
            Input::File(_) => 0,
        }
    }
}

/// Runs `work` on a thread that may block, on the bytes of `input`, which come from this task as long as it runs.
async fn feed<T: Send + 'static>(
    input: Input,
    descriptor: &Descriptor,
    origin: &str,
    vertex: &Vertex,
    work: impl FnOnce(Box<dyn Read + Send>) -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    let mut reader = match input {
        Input::File(file) => return blocking(move || work(Box::new(file))).await,
        remote => remote,
    };
    let url = reader.url(origin);
    let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
    let working = blocking(move || work(Box::new(Pieces::new(pieces))));
    let (id, total) = (descriptor.digest.as_str(), descriptor.size);
    let pumping = async move {
        let mut reported = Instant::now();
        vertex.status(id, 0, total);
        while let Some(piece) = reader.chunk().await? {
            if reported.elapsed() >= REPORT_INTERVAL {
                reported = Instant::now();
                vertex.status(id, reader.offset(), total);
            }
            // The thread has failed, and says why itself.
            if sender.send(Ok(piece)).await.is_err() {
                return Ok(());
            }
        }
        vertex.status_done(id, total, total);
        Ok(())
    };
    let (pumped, worked) = tokio::join!(pumping, working);
    pumped.map_err(|source: RegistryError| pull_error(origin, source))?;
    worked.map_err(|error| match error {
        ImageError::Store(StoreError::Mismatch { expected, actual, .. }) => {
            pull_error(origin, RegistryError::Digest { url, expected, actual })
        }
        error => error,
    })
}

fn pull_error(origin: &str, source: RegistryError) -> ImageError {
    ImageError::Pull { reference: origin.to_string(), source: Box::new(source) }
}

/// What was sent through the channel, as a stream. It ends when the sender is gone, be it for a failure: whether all of a
/// blob has come is seen by the digest.
pub(super) struct Pieces {
    pieces: mpsc::Receiver<io::Result<Bytes>>,
    current: Bytes,
}

impl Pieces {
    pub fn new(pieces: mpsc::Receiver<io::Result<Bytes>>) -> Pieces {
        Pieces { pieces, current: Bytes::new() }
    }
}

impl Read for Pieces {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.pieces.blocking_recv() {
                Some(piece) => self.current = piece?,
                None => return Ok(0),
            }
        }
        let length = self.current.len().min(buffer.len());
        self.current.copy_to_slice(&mut buffer[..length]);
        Ok(length)
    }
}

/// Reads a blob, and keeps what was read.
struct Tee<R> {
    input: R,
    writer: Option<BlobWriter>,
    /// The store failed; the blob cannot be kept.
    failure: Option<io::Error>,
}

impl<R: Read> Read for Tee<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        if let Some(writer) = &mut self.writer
            && let Err(error) = writer.write_all(&buffer[..read])
        {
            let kind = error.kind();
            self.failure = Some(error);
            return Err(kind.into());
        }
        Ok(read)
    }
}

/// Writes a blob into the store.
fn keep(store: &Store, digest: &Digest, mut input: impl Read) -> Result<(), ImageError> {
    let mut writer = store.content().writer()?;
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => writer.write_all(&buffer[..read]).map_err(|error| store_write(store, error))?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(source) => {
                return Err(ImageError::Unpack { digest: digest.clone(), source: LayerError::Read(source) });
            }
        }
    }
    writer.commit(Some(digest))?;
    Ok(())
}

/// Whether other bytes came than should have.
fn is_damage(error: &ImageError) -> bool {
    match error {
        ImageError::Pull { source, .. } => {
            matches!(**source, RegistryError::Digest { .. } | RegistryError::Size { .. })
        }
        _ => false,
    }
}

/// Unpacks a compressed layer into a draft, while writing it down if there is a `writer`.
fn unpack_from(
    store: &Store,
    remote: &RemoteLayer,
    limit: u64,
    input: impl Read + Send,
    writer: Option<BlobWriter>,
) -> Result<Prepared, ImageError> {
    let digest = &remote.descriptor.digest;
    let failed = |source| ImageError::Unpack { digest: digest.clone(), source };
    let draft = store.snapshots().prepare()?;
    let mut tee = Tee { input, writer, failure: None };
    let applied = match decompressor(&mut tee) {
        Ok(tar) => apply(Bounded::new(tar, remote.descriptor.size, limit), draft.upper()),
        Err(source) => Err(LayerError::Read(source)),
    };
    if tee.failure.is_none() && tee.writer.is_some() {
        // What follows the tar belongs to the blob. And if unpacking failed, the digest may well say why.
        let drained = io::copy(&mut tee, &mut io::sink());
        if tee.failure.is_none() {
            drained.map_err(|source| failed(LayerError::Read(source)))?;
        }
    }
    if let Some(error) = tee.failure {
        return Err(store_write(store, error));
    }
    if let Some(writer) = tee.writer {
        writer.commit(Some(digest))?;
    }
    let applied = applied.map_err(failed)?;
    if applied.diff_id != remote.diff_id {
        let (expected, actual) = (remote.diff_id.clone(), applied.diff_id);
        return Err(ImageError::DiffId { digest: digest.clone(), expected, actual });
    }
    Ok(Prepared { draft, deferred: applied.deferred })
}

/// Does what was left until the layers below were there, and names the snapshot.
fn finish(
    store: &Store,
    prepared: Prepared,
    id: &SnapshotId,
    lowers: &[PathBuf],
    digest: &Digest,
    under: Option<SnapshotId>,
) -> Result<(), ImageError> {
    let Prepared { mut draft, deferred } = prepared;
    if let Some(under) = under {
        draft.lies_on(&under);
    }
    if deferred != Deferred::default() {
        let failed = |source| ImageError::Unpack { digest: digest.clone(), source };
        let lower = crate::sandbox::rootfs::view(lowers)
            .map_err(|source| ImageError::Mount { digest: digest.clone(), source })?;
        let lower = lower.as_ref().map(AsFd::as_fd);
        let owners = Owners::read(lowers).map_err(StoreError::from)?;
        finish_deferred(draft.upper(), &deferred, lower, owners.as_ref()).map_err(failed)?;
    }
    Ok(store.snapshots().commit(draft, id)?)
}

/// The snapshot of the topmost folder.
fn lowers_top(lowers: &[PathBuf]) -> Option<SnapshotId> {
    let name = lowers.last()?.file_name()?;
    Some(SnapshotId(name.to_string_lossy().into_owned()))
}

fn store_write(store: &Store, error: io::Error) -> ImageError {
    StoreError::File(cache::FileError::at("write a blob in", store.root())(error)).into()
}
