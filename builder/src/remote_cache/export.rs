//! `--cache-to`: what this build used is handed on. Layers leave while later steps run; the index, which is written last,
//! names only what has arrived, so a build that is killed leaves the cache as it was.

use super::RemoteCache;
use super::import::{Mounts, today};
use super::mounts;
use super::place::{Found, Place, PlaceError, Written};
use crate::image::layers::{BlobError, LayerBlobs, LayerOptions};
use crate::pipeline::World;
use crate::progress::{Outcome, Progress, Vertex};
use crate::registry::settle::{back_off, settle};
use crate::source::image::{ImageError, ImageSource, blocking};
use cache::digest::{Descriptor, Digest};
use cache::layer::compression::{Compression, LayerBlob};
use cache::remote::index::{Selection, selection_key};
use cache::remote::{Index, RemoteBlob, RemoteRecord};
use cache::store::Store;
use cache::tree::{Layer, SnapshotId, Tree};
use futures::future::join_all;
use solver::key::CacheKey;
use solver::record::Record;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// The most records of a cache: those that were used last stay. Their blobs fit into a manifest of 4 MiB.
const RECORDS_LIMIT: usize = 10_000;
/// How old a time of use may be before it is worth an upload.
const STALE_DAYS: u32 = 7;
/// Layers that are made at once for caches, beside those that the image needs.
const TURNS: usize = 2;
/// Attempts to write an index while others write theirs.
const ATTEMPTS: u32 = 40;

/// A `--cache-to`.
#[derive(Clone)]
pub struct Target {
    /// `None`: in the image itself.
    pub place: Option<Place>,
    pub mode: Mode,
    pub compression: Compression,
    pub compress: Compress,
    pub on_error: OnError,
    /// `mounts=true`.
    pub mounts: Mounts,
}

/// Whose layers are exported. Of other steps it is only said what they came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Those that the result consists of.
    Min,
    /// All.
    Max,
}

/// Which layers get the target's compression.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Those that are made here.
    New,
    /// Also those that another cache has in another compression.
    All,
}

/// What follows when a cache cannot be exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    Warn,
    Fail,
}

/// A cache that was not exported, where that fails the build.
#[derive(Debug, thiserror::Error)]
#[error("the cache was not exported to {name}")]
pub struct ExportFailure {
    pub name: String,
    pub source: CarryError,
}

/// Why a cache, or a part of it, was not exported.
#[derive(Debug, thiserror::Error)]
pub enum CarryError {
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error("an image is there, which is not overwritten; give the cache a tag of its own")]
    IsImage,
    #[error("there is something else, which is not overwritten: `{0}`")]
    IsForeign(String),
    #[error("other writers did not let it come to rest")]
    Restless,
    #[error("a thread of the build died")]
    Join(#[from] tokio::task::JoinError),
}

/// The caches that a build is exported to. Cheap to clone; the default has none.
#[derive(Clone, Default)]
pub struct Exports(Option<Arc<Inner>>);

struct Inner {
    targets: Vec<Target>,
    /// What is there at the beginning, in the order of `targets`.
    known: OnceLock<Vec<Index>>,
    state: Mutex<State>,
    turns: Semaphore,
    store: Store,
    progress: Progress,
}

#[derive(Default)]
struct State {
    steps: BTreeMap<CacheKey, Used>,
    selections: BTreeMap<CacheKey, String>,
    /// Folders of cache mounts.
    mounts: BTreeMap<CacheKey, PathBuf>,
    /// By position of the target.
    carried: HashMap<(usize, SnapshotId), Carrying>,
}

enum Carrying {
    OnItsWay(JoinHandle<Result<RemoteBlob, CarryError>>),
    There(RemoteBlob),
}

struct Used {
    layer: Arc<Layer>,
    cost_ms: u64,
}

/// What makes and fetches layers.
#[derive(Clone)]
pub struct Makers {
    pub images: ImageSource,
    pub blobs: LayerBlobs,
}

/// Whether a step's layer is part of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    OfResult,
    Beside,
}

impl Exports {
    pub(super) fn new(targets: Vec<Target>, world: &World) -> Exports {
        if targets.is_empty() {
            return Exports::default();
        }
        Exports(Some(Arc::new(Inner {
            targets,
            known: OnceLock::new(),
            state: Mutex::default(),
            turns: Semaphore::new(TURNS),
            store: world.store.clone(),
            progress: world.progress.clone(),
        })))
    }

    /// Reads what is there, so that it is not sent again.
    pub(super) async fn read(&self) {
        let Some(inner) = self.0.as_ref().filter(|inner| inner.known.get().is_none()) else { return };
        let silent = inner.progress.unseen("cache export", "cache export");
        let reads = inner.targets.iter().map(|target| async {
            match &target.place {
                Some(place) => match place.read(&silent).await {
                    Ok(reading) => match reading.found {
                        Found::Cache(index) => index,
                        _ => Index::default(),
                    },
                    // It will be told when the cache is written.
                    Err(_) => Index::default(),
                },
                None => Index::default(),
            }
        });
        let _ = inner.known.set(join_all(reads).await);
    }

    /// Notes that a step's record was used.
    pub fn record(&self, key: &CacheKey, record: &Record) {
        let Some(inner) = &self.0 else { return };
        if let Ok(layer) = serde_json::from_slice::<Layer>(&record.output) {
            inner.used(key, Arc::new(layer), record.cost_ms);
        }
    }

    /// Notes that a step was found under `key`: its layer is the topmost one of `tree`.
    pub fn found(&self, key: &CacheKey, record: &Record, tree: &Tree, part: Part, makers: &Makers) {
        let (Some(inner), Some(layer)) = (&self.0, tree.layers().last()) else { return };
        inner.used(key, layer.clone(), record.cost_ms);
        inner.carry(tree, Some(key), part, makers);
    }

    /// Notes that a step has run: its layer is the topmost one of `tree`.
    pub fn made(&self, tree: &Tree, part: Part, makers: &Makers) {
        if let Some(inner) = &self.0 {
            inner.carry(tree, None, part, makers);
        }
    }

    /// Notes what a selection from a tree came to.
    pub fn selection(&self, content: &CacheKey, selector: &str, digest: &str) {
        if let Some(inner) = &self.0 {
            inner.state().selections.insert(selection_key(content, selector), digest.to_string());
        }
    }

    /// Notes that a step has used a cache mount: `folder` has its `tree` and its `lock`.
    pub fn mount(&self, key: CacheKey, folder: &Path) {
        if let Some(inner) = &self.0 {
            inner.state().mounts.insert(key, folder.to_path_buf());
        }
    }

    /// The records for an image's config, if they are wanted there: `layers` are those of the image that steps have made.
    /// Nothing in it depends on when or how fast something was built.
    pub fn inline(&self, layers: &[(SnapshotId, RemoteBlob)]) -> Option<Index> {
        let inner = self.0.as_ref().filter(|inner| inner.targets.iter().any(|target| target.place.is_none()))?;
        let blobs: HashMap<&SnapshotId, &RemoteBlob> = layers.iter().map(|(snapshot, blob)| (snapshot, blob)).collect();
        let mut index = inner.index(|snapshot| blobs.get(snapshot).map(|blob| RemoteBlob::clone(blob)));
        index.records.values_mut().for_each(|record| (record.used, record.cost) = (0, 0));
        index.selections.values_mut().for_each(|selection| selection.used = 0);
        Some(index)
    }

    /// Waits for what is on its way, and writes the indexes.
    pub async fn finish(&self, cache: &RemoteCache) -> Result<(), ExportFailure> {
        let Some(inner) = &self.0 else { return Ok(()) };
        let lost = &cache.imports.lost_blobs();
        let finishes = inner.targets.iter().enumerate().filter_map(|(position, target)| {
            let place = target.place.as_ref()?;
            Some(async move { (target, place, inner.finish(position, target, place, lost).await) })
        });
        let mut failure = None;
        for (target, place, result) in join_all(finishes).await {
            let Err(source) = result else { continue };
            let name = place.name();
            match target.on_error {
                OnError::Fail => drop(failure.get_or_insert(ExportFailure { name, source })),
                OnError::Warn => {
                    let why = crate::progress::chain(&source);
                    inner.store.remark(format!("the cache was not exported to {name}: {why}"));
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn used(&self, key: &CacheKey, layer: Arc<Layer>, cost_ms: u64) {
        self.state().steps.insert(*key, Used { layer, cost_ms });
    }

    /// Sends the topmost layer of `tree` on its way to each target that wants it, once.
    fn carry(self: &Arc<Inner>, tree: &Tree, key: Option<&CacheKey>, part: Part, makers: &Makers) {
        let Some(layer) = tree.layers().last() else { return };
        let mut state = self.state();
        for (position, target) in self.targets.iter().enumerate() {
            let Some(place) = target.place.as_ref().filter(|place| place.is_known()) else { continue };
            let is_wanted = target.mode == Mode::Max || part == Part::OfResult;
            let id = (position, layer.snapshot.clone());
            // What was made here counts, even if a cache promised the same: it may have broken its promise.
            if !is_wanted || (key.is_some() && state.carried.contains_key(&id)) {
                continue;
            }
            let carrying = match key.and_then(|key| self.known_blob(position, target, key, layer)) {
                Some(blob) => Carrying::There(blob),
                None => {
                    let (inner, tree, makers) = (self.clone(), tree.clone(), makers.clone());
                    let (place, options) = (place.clone(), (target.compression, target.compress));
                    let carried = async move { carry_layer(&inner, &place, &tree, options, &makers).await };
                    Carrying::OnItsWay(tokio::spawn(carried))
                }
            };
            if let Some(Carrying::OnItsWay(task)) = state.carried.insert(id, carrying) {
                task.abort();
            }
        }
    }

    /// The blob that the target's cache has of a key already.
    fn known_blob(&self, position: usize, target: &Target, key: &CacheKey, layer: &Layer) -> Option<RemoteBlob> {
        let known = self.known.get()?.get(position)?.records.get(key)?;
        let blob = known.blob.as_ref().filter(|_| known.change.to_hex() == layer.change)?;
        let fits = target.compress == Compress::New || blob.made == target.compression.to_string();
        fits.then(|| blob.clone())
    }

    /// All that was used, with the blobs that there are.
    fn index(&self, blob_of: impl Fn(&SnapshotId) -> Option<RemoteBlob>) -> Index {
        let state = self.state();
        let mut index = Index::default();
        let used = today();
        for (key, step) in &state.steps {
            let Some(change) = CacheKey::from_hex(&step.layer.change) else { continue };
            let created = step.layer.created_ms.unwrap_or_default();
            let blob = blob_of(&step.layer.snapshot);
            index.add_record(*key, RemoteRecord { created, change, cost: step.cost_ms, used, blob });
        }
        for (key, digest) in &state.selections {
            index.add_selection(*key, Selection { digest: digest.clone(), used });
        }
        index
    }

    async fn finish(
        &self,
        position: usize,
        target: &Target,
        place: &Place,
        lost: &BTreeSet<Digest>,
    ) -> Result<(), CarryError> {
        let name = format!("exporting cache to {}", place.kind());
        let vertex = self.progress.vertex(&format!("{name} {}", place.name()), &name, vec![]);
        vertex.start();
        let result = self.finish_on(position, target, place, lost, &vertex).await;
        match (&result, target.on_error) {
            (Err(error), OnError::Warn) => {
                vertex.warn(format!("the cache was not exported: {}", crate::progress::chain(error)));
                vertex.end(Outcome::Done);
            }
            (Err(error), OnError::Fail) => vertex.end(Outcome::Failed(crate::progress::chain(error))),
            (Ok(()), _) => vertex.end(Outcome::Done),
        }
        result
    }

    async fn finish_on(
        &self,
        position: usize,
        target: &Target,
        place: &Place,
        lost: &BTreeSet<Digest>,
        vertex: &Vertex,
    ) -> Result<(), CarryError> {
        vertex.status("preparing build cache for export", 0, 0);
        let (blobs, failure) = self.arrived(position).await;
        vertex.status_done("preparing build cache for export", 0, 0);
        let mut known = self.known.get().and_then(|known| known.get(position)).cloned().unwrap_or_default();
        known.drop_blobs(lost);
        let mut ours = self.index(|snapshot| blobs.get(snapshot).cloned());
        if target.mounts == Mounts::Travel {
            let noted = self.state().mounts.clone();
            ours.mounts = mounts::carry(noted, &known, target, place, &self.store, vertex).await?;
        }
        if ours.is_empty() {
            vertex.status_done("skipping cache export for empty result", 0, 0);
            return failure.map_or(Ok(()), Err);
        }
        if !known.covers(&ours, STALE_DAYS) {
            vertex.status("writing cache manifest", 0, 0);
            add(place, &mut ours, lost, vertex).await?;
            vertex.status_done("writing cache manifest", 0, 0);
        }
        failure.map_or(Ok(()), Err)
    }

    /// The layers that have come to the target, by snapshot, and why another did not.
    async fn arrived(&self, position: usize) -> (HashMap<SnapshotId, RemoteBlob>, Option<CarryError>) {
        let carried: Vec<((usize, SnapshotId), Carrying)> = {
            let mut state = self.state();
            state.carried.extract_if(|(at, _), _| *at == position).collect()
        };
        let mut blobs = HashMap::new();
        let mut failure = None;
        for ((_, snapshot), carrying) in carried {
            let blob = match carrying {
                Carrying::There(blob) => Ok(blob),
                Carrying::OnItsWay(task) => task.await.map_err(CarryError::Join).and_then(|result| result),
            };
            match blob {
                Ok(blob) => drop(blobs.insert(snapshot, blob)),
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        // If the build has to be gone through once more, they need not be carried again.
        let there = blobs.iter().map(|(id, blob)| ((position, id.clone()), Carrying::There(blob.clone())));
        self.state().carried.extend(there);
        (blobs, failure)
    }
}

/// Has the topmost layer of a tree at a place.
async fn carry_layer(
    inner: &Inner,
    place: &Place,
    tree: &Tree,
    (compression, compress): (Compression, Compress),
    makers: &Makers,
) -> Result<RemoteBlob, CarryError> {
    let silent = inner.progress.unseen("cache export", "cache export");
    let (layer, below) = tree.layers().split_last().expect("only trees with layers are carried");
    let made = compression.to_string();
    let (blob, origins) = match &layer.remote {
        Some(remote) if compress == Compress::New || remote.made.as_ref() == Some(&made) => {
            let blob = LayerBlob::plain(remote.descriptor.clone(), remote.diff_id.clone());
            let blob = RemoteBlob::of(&blob, remote.made.clone().unwrap_or_default());
            if remote.origin == place.origin() {
                return Ok(blob);
            }
            (blob, vec![remote.origin.clone()])
        }
        remote => {
            let _turn = inner.turns.acquire().await;
            let options = LayerOptions { compression, clamp: None };
            if remote.is_some() {
                makers.images.ensure_unpacked(tree, &silent).await?;
            } else if makers.blobs.needs_below(tree, options)? {
                makers.images.ensure_unpacked(&below.iter().cloned().collect(), &silent).await?;
            }
            (RemoteBlob::of(&makers.blobs.of_top(tree.clone(), options).await?, made), vec![])
        }
    };
    let open = |descriptor: Descriptor| -> futures::future::BoxFuture<'_, Result<PathBuf, ImageError>> {
        let (images, store, tree, silent) = (&makers.images, &inner.store, layer, &silent);
        Box::pin(async move {
            let (content, digest) = (store.clone(), descriptor.digest.clone());
            if !blocking(move || content.content().verify(&digest)).await? {
                images.ensure_blobs(&Tree::from_iter([tree.clone()]), silent).await?;
            }
            Ok(store.content().path(&descriptor.digest))
        })
    };
    place.put(&blob.descriptor(), origins, &open, &silent).await?;
    Ok(blob)
}

/// Adds records to what is at a place, whoever else is adding to it.
async fn add(place: &Place, ours: &mut Index, lost: &BTreeSet<Digest>, vertex: &Vertex) -> Result<(), CarryError> {
    let mut missing = lost.clone();
    for attempt in 0..ATTEMPTS {
        let reading = place.read(vertex).await?;
        let mut merged = match reading.found {
            Found::Cache(index) => index,
            Found::Nothing => Index::default(),
            Found::BuildKit => {
                vertex.warn(format!("{} was a cache of BuildKit, and is now one of kiln", place.name()));
                Index::default()
            }
            Found::Image(_) => return Err(CarryError::IsImage),
            Found::Foreign(kind) => return Err(CarryError::IsForeign(kind)),
        };
        let before = merged.clone();
        merged.drop_blobs(&missing);
        merged.merge(ours.clone());
        merged.trim(RECORDS_LIMIT);
        if merged == before {
            return Ok(());
        }
        let began = Instant::now();
        match place.write(&merged, reading.version.as_deref(), vertex).await? {
            Written::Done if !place.may_overwrite() => return Ok(()),
            Written::Done => settle(began).await,
            Written::Changed => back_off(attempt).await,
            Written::Missing(blobs) => {
                tracing::warn!(?blobs, place = place.name(), "the cache has lost blobs");
                // Of ours, what a step came to is still worth knowing.
                for record in ours.records.values_mut() {
                    record.blob = record.blob.take().filter(|blob| !blobs.contains(&blob.digest));
                }
                ours.mounts.retain(|_, mount| !blobs.contains(&mount.blob.digest));
                missing.extend(blobs);
            }
        }
    }
    Err(CarryError::Restless)
}

impl From<cache::StoreError> for CarryError {
    fn from(error: cache::StoreError) -> CarryError {
        CarryError::Blob(BlobError::Store(error))
    }
}
