//! `--cache-from`: records of other machines. The indexes are read before the first step is looked up; a layer is fetched
//! when a step needs its files, and a record whose layer then cannot be had is forgotten, so that its step runs.

use super::place::{Found, Place};
use crate::progress::{Outcome, Progress, Vertex, chain};
use crate::source::image::ImageError;
use cache::StoreError;
use cache::digest::Digest;
use cache::ledger::now_ms;
use cache::remote::index::{Selection, selection_key};
use cache::remote::{Index, RemoteMount, RemoteRecord};
use cache::store::Store;
use cache::tree::{Layer, RemoteLayer, SnapshotId};
use futures::future::join_all;
use solver::graph::VertexId;
use solver::key::{CacheKey, KeyRecipe};
use solver::record::Record;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// A `--cache-from`.
#[derive(Clone)]
pub struct Source {
    pub place: Place,
    /// Whether cache mounts begin with what is there.
    pub mounts: Mounts,
}

/// Whether cache mounts come along.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mounts {
    Travel,
    Stay,
}

/// The records that a build may use of others. Cheap to clone; the default has none.
#[derive(Clone, Default)]
pub struct Imports(Arc<Inner>);

#[derive(Default)]
struct Inner {
    sources: Vec<Source>,
    /// In the order of `sources`; set once read.
    indexes: OnceLock<Vec<Index>>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Records that have been used, by the snapshot that they promise.
    loaded: HashMap<SnapshotId, Vec<Loaded>>,
    /// Snapshots that turned out not to be had, until they are asked for.
    lost: Vec<SnapshotId>,
    /// Blobs that turned out not to be had.
    lost_blobs: BTreeSet<Digest>,
    /// Keys whose records are not to be used any more.
    excluded: HashSet<CacheKey>,
    /// Origins that no longer answer.
    dead: BTreeSet<String>,
    /// What to tell at the next occasion.
    remarks: Vec<String>,
    selections: BTreeMap<(CacheKey, String), String>,
}

struct Loaded {
    vertex: VertexId,
    key: CacheKey,
    record: Record,
    layer: Layer,
}

impl Imports {
    /// From these places, the first that has a key first.
    pub fn new(sources: Vec<Source>) -> Imports {
        Imports(Arc::new(Inner { sources, ..Inner::default() }))
    }

    /// Reads all indexes. A place that has none, or cannot be read, is told and passed over.
    pub async fn read(&self, progress: &Progress) {
        if self.0.indexes.get().is_some() {
            return;
        }
        let reads = self.0.sources.iter().map(|Source { place, .. }| async move {
            let vertex = progress.task(&format!("importing cache manifest from {}", place.name()));
            let index = read_one(place, &vertex).await;
            vertex.end(Outcome::Done);
            index
        });
        let _ = self.0.indexes.set(join_all(reads).await);
    }

    /// The record of a key.
    pub fn record(&self, key: &CacheKey) -> Option<Record> {
        if self.state().excluded.contains(key) {
            return None;
        }
        let indexes = self.0.indexes.get().map(Vec::as_slice).unwrap_or_default();
        let mut found: Option<(&Place, &RemoteRecord)> = None;
        for (Source { place, .. }, index) in self.0.sources.iter().zip(indexes) {
            match index.records.get(key) {
                // One that has the layer is worth more than one that only knows what it was.
                Some(record) if found.is_none_or(|(_, found)| found.blob.is_none() && record.blob.is_some()) => {
                    found = Some((place, record));
                }
                _ => {}
            }
        }
        let (place, record) = found?;
        let remote = record.blob.as_ref().map(|blob| RemoteLayer {
            descriptor: blob.descriptor(),
            diff_id: blob.diff_id.clone(),
            origin: place.origin(),
            made: Some(blob.made.clone()),
        });
        let layer = Layer {
            // Follows from what it lies on, which only the step knows: see `Imports::loaded`.
            snapshot: SnapshotId(String::new()),
            change: record.change.to_hex(),
            created_ms: Some(record.created),
            remote,
        };
        Some(Record {
            name: String::new(),
            recipe: KeyRecipe::new(),
            output: serde_json::to_vec(&layer).expect("a layer is plain data"),
            cost_ms: record.cost,
            observed: vec![],
        })
    }

    /// What a selection from a tree comes to.
    pub fn selection(&self, content: &CacheKey, selector: &str) -> Option<String> {
        let key = selection_key(content, selector);
        let Selection { digest, .. } =
            self.0.indexes.get()?.iter().find_map(|index| index.selections.get(&key))?.clone();
        self.state().selections.insert((*content, selector.to_string()), digest.clone());
        Some(digest)
    }

    /// Contents of a cache mount, and where they are.
    pub fn mount(&self, key: &CacheKey) -> Option<(RemoteMount, String)> {
        let indexes = self.0.indexes.get()?;
        let sources = self.0.sources.iter().zip(indexes).filter(|(source, _)| source.mounts == Mounts::Travel);
        let found = sources.filter_map(|(source, index)| Some((index.mounts.get(key)?, &source.place)));
        let lost = &self.state().lost_blobs;
        let usable = found.filter(|(mount, _)| !lost.contains(&mount.blob.digest));
        usable.max_by_key(|(mount, _)| mount.taken).map(|(mount, place)| (mount.clone(), place.origin()))
    }

    /// Notes that a vertex relies on a record: `layer` is what it promises, of which `name` is the step.
    pub fn loaded(&self, vertex: VertexId, name: &str, record: &Record, layer: &Layer) {
        let record = Record { name: name.to_string(), ..record.clone() };
        let loaded = Loaded { vertex, key: record.recipe.key(), record, layer: layer.clone() };
        self.state().loaded.entry(layer.snapshot.clone()).or_default().push(loaded);
    }

    /// Notes that a blob cannot be had. Nothing, if it is not of a remote cache.
    pub fn lose_blob(&self, digest: &Digest, error: &ImageError) {
        let mut state = self.state();
        let of_blob =
            |loaded: &&Loaded| loaded.layer.remote.as_ref().is_some_and(|remote| remote.descriptor.digest == *digest);
        let lost: Vec<(SnapshotId, String)> = state
            .loaded
            .values()
            .flatten()
            .filter(of_blob)
            .map(|loaded| (loaded.layer.snapshot.clone(), loaded.record.name.clone()))
            .collect();
        let Some((_, name)) = lost.first() else { return };
        if state.lost_blobs.insert(digest.clone()) {
            let remark = format!("the cached layer of {name:?} cannot be had, so the step runs: {}", chain(error));
            state.remarks.push(remark);
        }
        if let (true, Some(origin)) = (is_unreachable(error), origin_of(&state, digest)) {
            state.dead.insert(origin);
        }
        state.lost.extend(lost.into_iter().map(|(snapshot, _)| snapshot));
    }

    /// Notes that the contents of a cache mount cannot be had.
    pub fn lose_mount(&self, digest: &Digest) {
        self.state().lost_blobs.insert(digest.clone());
    }

    /// Notes that a snapshot is not there and no blob is known to make it from. Nothing, if no record of a remote cache
    /// promised it.
    pub fn lose_snapshot(&self, snapshot: &SnapshotId) {
        let mut state = self.state();
        if state.loaded.contains_key(snapshot) {
            state.lost.push(snapshot.clone());
        }
    }

    /// Fails for a place that has been found not to answer: trying again for each layer would take long.
    pub fn check_alive(&self, origin: &str) -> Result<(), ImageError> {
        match self.state().dead.contains(origin) {
            true => Err(ImageError::CacheDown(origin.to_string())),
            false => Ok(()),
        }
    }

    /// The place that an origin means, if only the place itself can fetch from there.
    pub fn place(&self, origin: &str) -> Option<Place> {
        let fetches_itself = |place: &&Place| match place {
            Place::Objects(_) | Place::Gha(_) => place.origin() == origin,
            Place::Registry(_) | Place::Local(_) => false,
        };
        self.0.sources.iter().map(|source| &source.place).find(fetches_itself).cloned()
    }

    /// Whether something was lost that [`Imports::take_lost`] has not told yet.
    pub fn has_lost(&self) -> bool {
        !self.state().lost.is_empty()
    }

    /// The vertices that rely on what was lost since the last call. Those records are not used again.
    pub fn take_lost(&self) -> Vec<VertexId> {
        let mut state = self.state();
        let mut vertices = vec![];
        for snapshot in std::mem::take(&mut state.lost) {
            for loaded in state.loaded.remove(&snapshot).into_iter().flatten() {
                state.excluded.insert(loaded.key);
                vertices.push(loaded.vertex);
            }
        }
        vertices
    }

    /// Blobs that turned out not to be had.
    pub fn lost_blobs(&self) -> BTreeSet<Digest> {
        self.state().lost_blobs.clone()
    }

    /// Writes into the store what has come: records whose snapshots are there now, and selections. Says what was lost.
    pub fn settle(&self, store: &Store) -> Result<(), StoreError> {
        use solver::record::RecordStore;
        let mut state = self.state();
        for remark in std::mem::take(&mut state.remarks) {
            store.remark(remark);
        }
        for ((content, selector), digest) in std::mem::take(&mut state.selections) {
            store.put_selection(&content, &selector, &digest)?;
        }
        for loaded in std::mem::take(&mut state.loaded).into_values().flatten() {
            let Loaded { key, record, layer, .. } = loaded;
            if !store.snapshots().exists(&layer.snapshot) || store.lookup(&key)?.is_some() {
                continue;
            }
            let layer = Layer { remote: None, ..layer };
            let output = serde_json::to_vec(&layer).expect("a layer is plain data");
            store.insert(&key, Record { output, ..record })?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn origin_of(state: &State, digest: &Digest) -> Option<String> {
    let remotes = state.loaded.values().flatten().filter_map(|loaded| loaded.layer.remote.as_ref());
    remotes.filter(|remote| remote.descriptor.digest == *digest).map(|remote| remote.origin.clone()).next()
}

fn is_unreachable(error: &ImageError) -> bool {
    use crate::registry::RegistryError::{Connect, Stalled};
    matches!(error, ImageError::Pull { source, .. } if matches!(**source, Connect { .. } | Stalled { .. }))
}

async fn read_one(place: &Place, vertex: &Vertex) -> Index {
    match place.read(vertex).await {
        Ok(reading) => match reading.found {
            Found::Cache(index) => return index,
            Found::Image(index) if !index.is_empty() => return index,
            Found::Nothing => vertex.warn(format!("{} is not there yet: nothing is imported from it", place.name())),
            Found::Image(_) => vertex.warn(format!(
                "{} is an image without cache: nothing is imported from it; build it with --cache-to type=inline",
                place.name()
            )),
            Found::BuildKit => vertex.warn(format!(
                "{} is a cache of BuildKit, which kiln cannot use: nothing is imported from it",
                place.name()
            )),
            Found::Foreign(kind) => {
                vertex.warn(format!("{} is no cache, but `{kind}`: nothing is imported from it", place.name()));
            }
        },
        Err(error) => vertex.warn(format!("nothing is imported from {}: {}", place.name(), chain(&error))),
    }
    Index::default()
}

/// Today, in days since 1970.
pub(super) fn today() -> u32 {
    (now_ms() / cache::remote::index::DAY_MS).max(0) as u32
}
