//! Where a cache is kept: a few operations that every kind of place has. Those that keep OCI artefacts are told apart
//! from what else may be under the same name here; see `document.rs`.

use super::document::{self, Kind};
use super::gha::{Gha, Unknown};
use super::inline::{self, Inline};
use super::layout::Layout;
use super::objects::{ObjectReader, Objects};
use super::registry::Repository;
use crate::progress::Vertex;
use crate::registry::RegistryError;
use crate::source::image::ImageError;
use cache::digest::{Descriptor, Digest};
use cache::remote::{Index, IndexError};
use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// A place that holds a cache.
#[derive(Clone)]
pub enum Place {
    Registry(Repository),
    Local(Layout),
    Objects(Objects),
    Gha(Gha),
}

/// What is at a place.
#[derive(Debug)]
pub enum Found {
    Nothing,
    Cache(Index),
    /// An image, with what it says of the steps that made it.
    Image(Index),
    /// BuildKit's cache, as an artefact or inside of an image.
    BuildKit,
    /// Something else: its media type.
    Foreign(String),
}

/// What is at a place, and which version of it; `None` if nothing is.
#[derive(Debug)]
pub struct Reading {
    pub found: Found,
    pub version: Option<String>,
}

/// What came of writing an index.
#[derive(Debug)]
pub enum Written {
    Done,
    /// Somebody else has written meanwhile.
    Changed,
    /// Blobs that the index names are not there.
    Missing(BTreeSet<Digest>),
}

/// Why a place cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error("could not {verb} `{}`", path.display())]
    Io { verb: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Layout(#[from] crate::source::oci_layout::LayoutError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("what is there cannot be read")]
    Document(#[source] serde_json::Error),
    #[error("a blob cannot be had")]
    Blob(#[source] Box<ImageError>),
    #[error(transparent)]
    Gha(Unknown),
    #[error("not done within {} s, which is the `timeout`", after.as_secs())]
    TimedOut { after: Duration },
    #[error("a thread of the build died")]
    Join(#[from] tokio::task::JoinError),
}

impl PlaceError {
    /// An IO error, to be given its cause by `map_err`.
    pub fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> PlaceError {
        let path = path.into();
        move |source| PlaceError::Io { verb, path, source }
    }
}

/// The file that a blob is in, fetched first if need be.
pub type OpenBlob<'a> = dyn Fn(Descriptor) -> BoxFuture<'a, Result<PathBuf, ImageError>> + Send + Sync + 'a;

/// Questions for blobs at once.
const QUESTIONS: usize = 16;
/// Images of an index that are looked at for records.
const IMAGES_LIMIT: usize = 32;

impl Place {
    /// For people; two places of one name are one.
    pub fn name(&self) -> String {
        match self {
            Place::Registry(repository) => repository.name(),
            Place::Local(layout) => layout.name(),
            Place::Objects(objects) => objects.name(),
            Place::Gha(gha) => gha.name(),
        }
    }

    /// The kind, as in BuildKit's progress.
    pub fn kind(&self) -> &'static str {
        match self {
            Place::Registry(_) => "registry",
            Place::Local(_) => "client directory",
            Place::Objects(objects) => objects.kind(),
            Place::Gha(_) => "GitHub Actions Cache",
        }
    }

    /// What `RemoteLayer::origin` says of layers that are here.
    pub fn origin(&self) -> String {
        match self {
            Place::Registry(repository) => repository.origin(),
            Place::Local(layout) => layout.origin(),
            Place::Objects(objects) => objects.name(),
            Place::Gha(gha) => gha.origin(),
        }
    }

    /// Whether it is known where it is. If not, reading and writing say what is missing.
    pub fn is_known(&self) -> bool {
        match self {
            Place::Registry(_) | Place::Local(_) | Place::Objects(_) => true,
            Place::Gha(gha) => gha.is_known(),
        }
    }

    /// Opens a blob of a place whose blobs only it can fetch.
    pub(crate) async fn open(&self, blob: &Descriptor) -> Result<ObjectReader, RegistryError> {
        match self {
            Place::Objects(objects) => objects.open(blob).await,
            Place::Gha(gha) => gha.open(blob).await,
            Place::Registry(_) | Place::Local(_) => Err(RegistryError::BadHost(self.origin())),
        }
    }

    /// Whether a writer that met another one may not know: what was written is then looked at once more.
    pub fn may_overwrite(&self) -> bool {
        match self {
            // The distribution-spec has no compare-and-swap.
            Place::Registry(_) => true,
            Place::Local(_) => false,
            Place::Objects(objects) => objects.may_overwrite(),
            Place::Gha(gha) => gha.may_overwrite(),
        }
    }

    /// Reads what is there.
    pub async fn read(&self, vertex: &Vertex) -> Result<Reading, PlaceError> {
        match self {
            Place::Registry(repository) => Artefact::Registry(repository).read(vertex).await,
            Place::Local(layout) => Artefact::Local(layout).read(vertex).await,
            Place::Objects(objects) => objects.read().await,
            Place::Gha(gha) => gha.read().await,
        }
    }

    /// Makes `index` what is there, if that is still `over`.
    pub async fn write(&self, index: &Index, over: Option<&str>, vertex: &Vertex) -> Result<Written, PlaceError> {
        match self {
            Place::Registry(repository) => repository.write(index, document::documents(index), over, vertex).await,
            Place::Local(layout) => layout.write(index, document::documents(index), over).await,
            Place::Objects(objects) => objects.write(index, over).await,
            Place::Gha(gha) => gha.write(index, over).await,
        }
    }

    /// Has a blob there. `origins` are where else it is.
    pub async fn put(
        &self,
        blob: &Descriptor,
        origins: Vec<String>,
        open: &OpenBlob<'_>,
        vertex: &Vertex,
    ) -> Result<(), PlaceError> {
        match self {
            Place::Registry(repository) => repository.put(blob, origins, open, vertex).await,
            Place::Local(layout) => layout.put(blob, open).await,
            Place::Objects(objects) => objects.put(blob, open).await,
            Place::Gha(gha) => gha.put(blob, open).await,
        }
    }
}

/// Blobs that an index names and that are not there; `has` asks for one.
pub(super) async fn missing_blobs<F: Future<Output = Result<bool, RegistryError>>>(
    index: &Index,
    has: impl Fn(Digest) -> F,
) -> Result<BTreeSet<Digest>, RegistryError> {
    let asked = index.blobs().into_keys().map(|digest| {
        let answer = has(digest.clone());
        async move { Ok::<_, RegistryError>((!answer.await?).then_some(digest)) }
    });
    // Made before the first is asked, since the index is borrowed no longer than that.
    let asked: Vec<_> = asked.collect();
    let answers = futures::stream::iter(asked).buffer_unordered(QUESTIONS);
    answers.try_filter_map(|missing| async { Ok(missing) }).try_collect().await
}

/// A place that keeps a cache as an OCI artefact, which other things may be under the same name.
enum Artefact<'a> {
    Registry(&'a Repository),
    Local(&'a Layout),
}

impl Artefact<'_> {
    async fn read(&self, vertex: &Vertex) -> Result<Reading, PlaceError> {
        let (descriptor, bytes) = match self.top().await? {
            Some(top) => top,
            None => return Ok(Reading { found: Found::Nothing, version: None }),
        };
        vertex.status(&format!("inferred cache manifest type: {}", descriptor.media_type), 0, 0);
        let found = match document::classify(&bytes, &descriptor.media_type).map_err(PlaceError::Document)? {
            Kind::Cache(config) => Found::Cache(Index::parse(&self.small(&config).await?)?),
            Kind::BuildKit => Found::BuildKit,
            Kind::Image(config) => self.inline(&[config]).await?,
            Kind::Index(children) => {
                let mut configs = vec![];
                for child in children.iter().take(IMAGES_LIMIT) {
                    let bytes = self.manifest(child).await?;
                    if let Kind::Image(config) =
                        document::classify(&bytes, &child.media_type).map_err(PlaceError::Document)?
                    {
                        configs.push(config);
                    }
                }
                self.inline(&configs).await?
            }
            Kind::Foreign(media_type) => Found::Foreign(media_type),
        };
        vertex.status_done(&format!("inferred cache manifest type: {}", descriptor.media_type), 0, 0);
        Ok(Reading { found, version: Some(descriptor.digest.to_string()) })
    }

    /// What the images of these configs say.
    async fn inline(&self, configs: &[Descriptor]) -> Result<Found, PlaceError> {
        let mut index = Index::default();
        let mut is_buildkit = false;
        for config in configs {
            match inline::read(&self.small(config).await?)? {
                Inline::Nothing => {}
                Inline::BuildKit => is_buildkit = true,
                Inline::Records(records) => index.merge(records),
            }
        }
        Ok(if index.is_empty() && is_buildkit { Found::BuildKit } else { Found::Image(index) })
    }

    async fn top(&self) -> Result<Option<(Descriptor, Vec<u8>)>, PlaceError> {
        match self {
            Artefact::Registry(repository) => repository.top().await,
            Artefact::Local(layout) => layout.top().await,
        }
    }

    async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        match self {
            Artefact::Registry(repository) => repository.manifest(descriptor).await,
            Artefact::Local(layout) => layout.small(descriptor).await,
        }
    }

    async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        match self {
            Artefact::Registry(repository) => repository.small(descriptor).await,
            Artefact::Local(layout) => layout.small(descriptor).await,
        }
    }
}
