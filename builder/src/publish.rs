//! An image of the store to registries: all its names, several registries at once, each blob once to a registry. What could
//! not be pushed is kept with all that it takes to push it later, without building.

use crate::progress::{Vertex, chain};
use crate::registry::Trust;
use crate::registry::push::{PushBlob, PushImage, PushManifest};
use crate::registry::retry::may_pass;
use crate::source::image::{ImageError, ImageSource};
use cache::StoreError;
use cache::digest::{Descriptor, Digest};
use cache::ledger::now_ms;
use cache::pin::Pin;
use cache::store::Store;
use frontend::reference::Reference;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long it is kept what could not be pushed.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 3600);

/// Where an image goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// Without a tag, the image is pushed by its digest alone.
    pub name: Reference,
    /// Whether the registry's certificate counts.
    pub trust: Trust,
}

/// What could not be pushed, and is kept. Displays and has as its source what its first error does.
#[derive(Debug)]
pub struct NotPushed {
    /// At least one.
    pub failures: Vec<Failure>,
}

/// A name under which the image is not in its registry.
#[derive(Debug)]
pub struct Failure {
    /// As `kiln push` takes it.
    pub name: String,
    /// Why.
    pub error: Arc<ImageError>,
}

/// Why an image is not at all its places.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// It can be pushed later.
    #[error(transparent)]
    NotPushed(#[from] NotPushed),
    /// The store does not have what it should have.
    #[error(transparent)]
    Image(#[from] Arc<ImageError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What waits to be pushed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pending {
    domain: String,
    path: String,
    tag: Option<String>,
    trust: Trust,
    blobs: Vec<PushBlob>,
    /// Children first.
    manifests: Vec<Descriptor>,
    /// Why it was not pushed when that was last tried.
    pub error: String,
    /// When it was first tried; milliseconds since 1970.
    pub built_ms: i64,
}

/// Pushes to all targets. Those at one registry follow each other, so that what the first has sent need only be mounted by
/// the next.
pub async fn publish(
    images: &ImageSource,
    store: &Store,
    image: &PushImage,
    targets: &[Target],
    vertex: &Vertex,
) -> Result<(), PublishError> {
    let mut by_registry: BTreeMap<&str, Vec<&Target>> = BTreeMap::new();
    for target in targets {
        by_registry.entry(&target.name.domain).or_default().push(target);
    }
    let pushing = by_registry.values().map(|targets| push_in_turn(images, image, targets, vertex));
    let outcomes = join_all(pushing).await.into_iter().flatten();
    let mut failures = vec![];
    for (target, outcome) in outcomes {
        let name = kept_as(&target.name, image);
        match outcome {
            // What may be kept under the name is older.
            Ok(()) => drop(store.unpin(&name)?),
            Err(error) => {
                if !is_elsewhere(&error) {
                    return Err(PublishError::Image(error));
                }
                keep(store, image, target, &name, &error)?;
                failures.push(Failure { name, error });
            }
        }
    }
    if failures.is_empty() { Ok(()) } else { Err(NotPushed { failures }.into()) }
}

async fn push_in_turn<'a>(
    images: &ImageSource,
    image: &PushImage,
    targets: &[&'a Target],
    vertex: &Vertex,
) -> Vec<(&'a Target, Result<(), Arc<ImageError>>)> {
    let mut image = image.clone();
    let mut outcomes = vec![];
    let mut down: Option<Arc<ImageError>> = None;
    for target in targets {
        if let Some(error) = &down {
            outcomes.push((*target, Err(error.clone())));
            continue;
        }
        let pushed = images.push(&target.name, target.trust, &image, vertex).await.map_err(Arc::new);
        match &pushed {
            Ok(_) => image.blobs.iter_mut().for_each(|blob| blob.origins.insert(0, target.name.to_string())),
            // It was waited for as long as for anything: the next name need not wait again.
            Err(error) if matches!(&**error, ImageError::Push { source, .. } if may_pass(source)) => {
                down = Some(error.clone());
            }
            Err(_) => {}
        }
        outcomes.push((*target, pushed.map(drop)));
    }
    outcomes
}

/// Whether it is not the store that failed.
fn is_elsewhere(error: &ImageError) -> bool {
    match error {
        ImageError::Push { .. } | ImageError::Pull { .. } => true,
        ImageError::Shared(error) => is_elsewhere(error),
        _ => false,
    }
}

/// The name under which an image is kept for a target: of what has no tag it is the digest that counts.
fn kept_as(name: &Reference, image: &PushImage) -> String {
    match (&name.tag, image.manifests.last()) {
        (None, Some(top)) => name.with_digest(Digest::of(&top.bytes).as_str()).to_string(),
        _ => name.to_string(),
    }
}

fn keep(store: &Store, image: &PushImage, target: &Target, name: &str, error: &ImageError) -> Result<(), StoreError> {
    let former = pending(store)?.into_iter().find(|(known, _)| known == name);
    let manifest = |manifest: &PushManifest| Descriptor {
        media_type: manifest.media_type.clone(),
        digest: Digest::of(&manifest.bytes),
        size: manifest.bytes.len() as u64,
    };
    let manifests: Vec<Descriptor> = image.manifests.iter().map(manifest).collect();
    let is_same = |former: &&(String, Pending)| former.1.manifests == manifests;
    let built_ms = former.as_ref().filter(is_same).map_or_else(now_ms, |(_, former)| former.built_ms);
    let blobs = image.blobs.iter().map(|blob| &blob.descriptor).chain(&manifests);
    let blobs = blobs.map(|descriptor| descriptor.digest.clone()).collect();
    let purpose = Pending {
        domain: target.name.domain.clone(),
        path: target.name.path.clone(),
        tag: target.name.tag.clone(),
        trust: target.trust,
        blobs: image.blobs.clone(),
        manifests,
        error: chain(error),
        built_ms,
    };
    store.pin(name, &Pin { blobs, until_ms: now_ms() + KEPT.as_millis() as i64, purpose })?;
    // Whoever comes back for it may do so after a loss of power.
    store.sync()
}

/// All that waits to be pushed, by name.
pub fn pending(store: &Store) -> Result<Vec<(String, Pending)>, StoreError> {
    Ok(store.pins::<Pending>()?.into_iter().map(|(name, pin)| (name, pin.purpose)).collect())
}

/// Pushes what was kept, and forgets it if that succeeds.
pub async fn resume(
    images: &ImageSource,
    store: &Store,
    pending: &Pending,
    vertex: &Vertex,
) -> Result<(), PublishError> {
    let mut manifests = vec![];
    for manifest in &pending.manifests {
        let bytes = store.content().read_small(&manifest.digest)?;
        manifests.push(PushManifest { media_type: manifest.media_type.clone(), bytes });
    }
    let image = PushImage { blobs: pending.blobs.clone(), manifests };
    publish(images, store, &image, &[pending.target()], vertex).await
}

impl Pending {
    /// Where it goes.
    pub fn target(&self) -> Target {
        let name =
            Reference { domain: self.domain.clone(), path: self.path.clone(), tag: self.tag.clone(), digest: None };
        Target { name, trust: self.trust }
    }

    /// Digest of what the name will stand for.
    pub fn digest(&self) -> Option<&Digest> {
        self.manifests.last().map(|manifest| &manifest.digest)
    }
}

impl NotPushed {
    /// What the user can do about it.
    pub fn help(&self) -> Vec<String> {
        let mut help: Vec<String> = self.failures.iter().take(1).filter_map(|failure| failure.error.help()).collect();
        help.extend(self.failures.iter().skip(1).map(|failure| format!("{} was not pushed either", failure.name)));
        let names: Vec<&str> = self.failures.iter().map(|failure| failure.name.as_str()).collect();
        let days = KEPT.as_secs() / 24 / 3600;
        help.push(format!(
            "the image was built and is kept for {days} days; push it without building again: kiln push {}",
            names.join(" ")
        ));
        help
    }
}

impl fmt::Display for NotPushed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failures.first().map_or(Ok(()), |failure| failure.error.fmt(f))
    }
}

impl Error for NotPushed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.failures.first().and_then(|failure| failure.error.source())
    }
}
