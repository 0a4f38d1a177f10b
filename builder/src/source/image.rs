//! Images of registries and layouts as sources: name -> pinned manifest -> config -> layers, each fetched when needed.
//! Every document that was ever read is in the content store, so a pinned image needs no network a second time. The
//! layers themselves are `layers.rs`.

pub use super::image_error::ImageError;
use super::local::{LocalNames, Picked};
use super::oci_layout::{self, Layout};
use crate::image::select::{self, Document, DocumentError, Manifest};
use crate::progress::Vertex;
use crate::registry::push::{self, Opened, PushBlob, PushError, PushImage};
use crate::registry::referrers::Referrer;
use crate::registry::{Registry, Trust};
use crate::remote_cache::import::Imports;
use cache::digest::{Descriptor, Digest};
use cache::tree::{RemoteLayer, Tree};
use cache::{Store, StoreError};
use frontend::compile::{ImageInfo, ImageLocation, ImageRequest};
use frontend::image_config::ImageConfig;
use frontend::platform::Platform;
use frontend::reference::Reference;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::OnceCell;

/// The images of one build. Cheap to clone. What is asked twice is answered from the first time.
#[derive(Clone)]
pub struct ImageSource {
    pub(super) inner: Arc<Inner>,
}

pub(super) struct Inner {
    pub registry: Registry,
    pub store: Store,
    /// Steps' layers that are in remote caches.
    pub imports: Imports,
    layouts: BTreeMap<String, Layout>,
    /// Names of images in a dockerd, by the names of their contexts.
    daemons: BTreeMap<String, String>,
    /// Whether names of the store count.
    pub locals: LocalNames,
    /// Images that were found at hand, by the digests that this build knows them by.
    pub picked: Mutex<BTreeMap<Digest, Picked>>,
    tops: Once<ImageLocation, Descriptor>,
    infos: Once<(ImageLocation, Platform), ImageInfo>,
    trees: Once<(ImageLocation, Digest), Tree>,
}

/// Where images and layers may be, beside registries.
#[derive(Clone, Default)]
pub struct Places {
    /// OCI layouts by the names of their contexts.
    pub layouts: BTreeMap<String, Layout>,
    /// Names of images in a dockerd, by the names of their contexts.
    pub daemons: BTreeMap<String, String>,
    /// Whether images that the store knows by name are used.
    pub locals: LocalNames,
    /// Remote caches that layers may come from.
    pub imports: Imports,
}

/// Answers that are computed once each; errors too.
type Once<K, V> = Mutex<BTreeMap<K, Arc<OnceCell<Result<V, Arc<ImageError>>>>>>;

impl ImageSource {
    /// `layouts` are the named contexts of kind `oci-layout://`, by name.
    pub fn new(registry: Registry, store: Store, layouts: BTreeMap<String, Layout>) -> ImageSource {
        ImageSource::with_places(registry, store, Places { layouts, ..Places::default() })
    }

    /// The same, where images may be elsewhere, too.
    pub fn with_places(registry: Registry, store: Store, places: Places) -> ImageSource {
        let (tops, infos, trees, picked) = Default::default();
        let Places { layouts, daemons, locals, imports } = places;
        ImageSource {
            inner: Arc::new(Inner { registry, store, imports, layouts, daemons, locals, picked, tops, infos, trees }),
        }
    }

    /// The registries.
    pub fn registry(&self) -> Registry {
        self.inner.registry.clone()
    }

    /// Remote caches that layers may come from.
    pub fn imports(&self) -> &Imports {
        &self.inner.imports
    }

    /// Resolves a name, picks the platform's manifest, and reads its config.
    pub async fn info(&self, request: &ImageRequest) -> Result<ImageInfo, ImageError> {
        self.info_shown(request, None).await
    }

    /// The same; what is found at hand, or read from a daemon, is said on the vertex.
    pub async fn info_shown(&self, request: &ImageRequest, vertex: Option<&Vertex>) -> Result<ImageInfo, ImageError> {
        let key = (request.source.clone(), request.platform.clone());
        once(&self.inner.infos, key, self.find_info(&request.source, &request.platform, vertex)).await
    }

    /// The layers of an image by the digest of its platform's manifest. Only manifest and config are fetched, if they
    /// are not there from resolving.
    pub async fn tree(&self, location: &ImageLocation, manifest: &str) -> Result<Tree, ImageError> {
        let digest: Digest =
            manifest.parse().map_err(|source| ImageError::Digest { reference: display(location), source })?;
        once(&self.inner.trees, (location.clone(), digest.clone()), self.find_tree(location, &digest)).await
    }

    /// What a name means in this build: the descriptor of the index or manifest that it named when first asked for.
    pub async fn resolve(&self, location: &ImageLocation) -> Result<Descriptor, ImageError> {
        once(&self.inner.tops, location.clone(), self.find_top(location)).await
    }

    /// Pushes an image whose new blobs are in the store; those of base images are mounted where the registry has them,
    /// and else fetched. Gives the digest of the last manifest.
    pub async fn push(
        &self,
        to: &Reference,
        trust: Trust,
        image: &PushImage,
        vertex: &Vertex,
    ) -> Result<Digest, ImageError> {
        let open = |blob: PushBlob| -> Opened<'_, ImageError> {
            Box::pin(async move {
                let (store, digest) = (self.inner.store.clone(), blob.descriptor.digest.clone());
                // What is damaged would be refused by the registry, after all of it was sent.
                if !blocking(move || store.content().verify(&digest)).await? {
                    self.fetch_from_any(&blob.descriptor, &blob.origins, vertex).await?;
                }
                Ok(self.inner.store.content().path(&blob.descriptor.digest))
            })
        };
        let registry = self.inner.registry.trusting(trust, &to.domain);
        push::push(&registry, to, image, &open, vertex).await.map_err(|error| match error {
            PushError::Registry(error) => ImageError::Push { reference: to.to_string(), source: Box::new(error) },
            PushError::Open(error) => error,
            PushError::Empty => ImageError::NothingToPush(to.to_string()),
        })
    }

    /// Makes a manifest that was pushed be found through its subject.
    pub async fn list_referrer(
        &self,
        to: &Reference,
        trust: Trust,
        referrer: &Referrer,
        vertex: &Vertex,
    ) -> Result<(), ImageError> {
        let registry = self.inner.registry.trusting(trust, &to.domain);
        let listed = registry.list_referrer(to, referrer, vertex).await;
        listed.map_err(|error| ImageError::Push { reference: to.to_string(), source: Box::new(error) })
    }

    async fn find_top(&self, location: &ImageLocation) -> Result<Descriptor, ImageError> {
        match location {
            ImageLocation::Registry(reference) => match &reference.digest {
                Some(digest) => {
                    let digest: Digest = digest
                        .parse()
                        .map_err(|source| ImageError::Digest { reference: reference.to_string(), source })?;
                    let bytes = self.document(location, &digest).await?;
                    Ok(described(digest, &bytes, ""))
                }
                None => {
                    let resolved = self.inner.registry.resolve(reference).await;
                    let resolved = resolved.map_err(|error| ImageError::pull(reference, error))?;
                    if let Some(bytes) = &resolved.document {
                        self.inner.store.content().put(bytes)?;
                    }
                    Ok(resolved.descriptor)
                }
            },
            ImageLocation::OciLayout(name) => {
                let layout = self.layout(name)?.clone();
                Ok(blocking(move || oci_layout::resolve(&layout)).await?)
            }
        }
    }

    async fn find_info(
        &self,
        location: &ImageLocation,
        platform: &Platform,
        vertex: Option<&Vertex>,
    ) -> Result<ImageInfo, ImageError> {
        match location {
            ImageLocation::Registry(reference) => {
                if let Some(info) = self.named_info(reference, platform, vertex)? {
                    return Ok(info);
                }
            }
            ImageLocation::OciLayout(context) => {
                if let Some(name) = self.inner.daemons.get(context) {
                    return self.daemon_info(name, platform, vertex).await;
                }
            }
        }
        let top = self.resolve(location).await?;
        let manifest = self.manifest_for(location, &top.digest, platform).await?;
        let config = self.config(location, &manifest).await?;
        Ok(ImageInfo { digest: manifest.digest.to_string(), top_digest: top.digest.to_string(), config })
    }

    /// Follows indexes, which may name indexes, to the platform's manifest.
    async fn manifest_for(
        &self,
        location: &ImageLocation,
        top: &Digest,
        platform: &Platform,
    ) -> Result<Manifest, ImageError> {
        let failed = |source| ImageError::Document { reference: display(location), source };
        let mut digest = top.clone();
        for _ in 0..8 {
            let bytes = self.document(location, &digest).await?;
            match select::parse(&bytes, &digest).map_err(failed)? {
                Document::Manifest(manifest) => return Ok(manifest),
                Document::Index(mut index) => {
                    self.fill_platforms(location, &mut index).await?;
                    digest = index.choose(platform).map_err(failed)?.digest;
                }
            }
        }
        Err(failed(DocumentError::NotAnImage { digest, media_type: select::INDEX_TYPES[0].into() }))
    }

    /// Entries that do not say their platform have it in their configs.
    async fn fill_platforms(&self, location: &ImageLocation, index: &mut select::Index) -> Result<(), ImageError> {
        for entry in index.images.iter_mut().filter(|entry| entry.platform.is_none()) {
            let Ok(digest) = entry.digest.parse::<Digest>() else { continue };
            let bytes = self.document(location, &digest).await?;
            // What is not an image has no platform either, and is not chosen.
            let Ok(Document::Manifest(manifest)) = select::parse(&bytes, &digest) else { continue };
            let config = self.config(location, &manifest).await?;
            entry.platform =
                Some(Platform::from_parts(&config.os, &config.architecture, &config.variant, &config.os_version));
        }
        Ok(())
    }

    async fn find_tree(&self, location: &ImageLocation, digest: &Digest) -> Result<Tree, ImageError> {
        if let Some(Picked { tree, .. }) = self.picked(digest) {
            return Ok(tree);
        }
        let bytes = self.document(location, digest).await?;
        let failed = |source| ImageError::Document { reference: display(location), source };
        let manifest = match select::parse(&bytes, digest).map_err(failed)? {
            Document::Manifest(manifest) => manifest,
            Document::Index(index) => {
                let media_type = select::INDEX_TYPES[0].to_string();
                return Err(failed(DocumentError::NotAnImage { digest: index.digest, media_type }));
            }
        };
        let config = self.config(location, &manifest).await?;
        let origin = match location {
            ImageLocation::Registry(reference) => reference.with_digest(digest.as_str()).to_string(),
            ImageLocation::OciLayout(name) => self.layout(name)?.path.to_string_lossy().into_owned(),
        };
        let mut remotes = vec![];
        for (descriptor, diff_id) in manifest.layers.iter().zip(config.rootfs.diff_ids.unwrap_or_default()) {
            let diff_id: Digest =
                diff_id.parse().map_err(|source| ImageError::Digest { reference: display(location), source })?;
            remotes.push(RemoteLayer { descriptor: descriptor.clone(), diff_id, origin: origin.clone(), made: None });
        }
        Ok(Tree::of_image(remotes))
    }

    /// The config of a manifest, with as many diff_ids as the manifest has layers.
    async fn config(&self, location: &ImageLocation, manifest: &Manifest) -> Result<ImageConfig, ImageError> {
        let digest = &manifest.config.digest;
        let bytes = match self.stored(digest)? {
            Some(bytes) => bytes,
            None => {
                let bytes = match location {
                    ImageLocation::Registry(reference) => {
                        let bytes = self.inner.registry.small_blob(reference, &manifest.config).await;
                        bytes.map_err(|error| ImageError::pull(reference, error))?
                    }
                    ImageLocation::OciLayout(name) => self.layout_blob(name, digest).await?,
                };
                self.inner.store.content().put(&bytes)?;
                bytes
            }
        };
        let config: ImageConfig = serde_json::from_slice(&bytes).map_err(|source| ImageError::Config {
            reference: display(location),
            digest: digest.clone(),
            source,
        })?;
        let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.as_ref().map_or(0, Vec::len));
        if layers != diff_ids {
            let source = DocumentError::LayerCount { digest: manifest.digest.clone(), layers, diff_ids };
            return Err(ImageError::Document { reference: display(location), source });
        }
        Ok(config)
    }

    /// A manifest or index: from the store, else from where it is, and then in the store.
    async fn document(&self, location: &ImageLocation, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        if let Some(bytes) = self.stored(digest)? {
            return Ok(bytes);
        }
        let bytes = match location {
            ImageLocation::Registry(reference) => {
                let document = self.inner.registry.manifest(reference, digest).await;
                document.map_err(|error| ImageError::pull(reference, error))?.bytes
            }
            ImageLocation::OciLayout(name) => self.layout_blob(name, digest).await?,
        };
        self.inner.store.content().put(&bytes)?;
        Ok(bytes)
    }

    /// A document of the store. One that is damaged there is as good as missing: it will be written again.
    fn stored(&self, digest: &Digest) -> Result<Option<Vec<u8>>, ImageError> {
        let content = self.inner.store.content();
        match content.read_small(digest) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(StoreError::Missing { .. }) => Ok(None),
            Err(StoreError::Mismatch { .. }) => {
                content.drop_damaged(digest)?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn layout_blob(&self, name: &str, digest: &Digest) -> Result<Vec<u8>, ImageError> {
        let (path, digest) = (self.layout(name)?.path.clone(), digest.clone());
        Ok(blocking(move || oci_layout::read_small(&path, &digest)).await?)
    }

    fn layout(&self, name: &str) -> Result<&Layout, ImageError> {
        self.inner.layouts.get(name).ok_or_else(|| ImageError::NoLayout(name.to_string()))
    }
}

/// Computes a value for a key once, for all who ask, while they wait.
async fn once<K: Ord, V: Clone>(
    answers: &Once<K, V>,
    key: K,
    compute: impl Future<Output = Result<V, ImageError>>,
) -> Result<V, ImageError> {
    let cell = answers.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
    let answer = cell.get_or_init(|| async { compute.await.map_err(Arc::new) }).await;
    answer.clone().map_err(ImageError::Shared)
}

/// Runs what reads files where waiting for a disk stops no one else.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Blocking tasks are not cancelled once they run, and ours is awaited at once; only a runtime that is
            // being shut down refuses it, and then nothing polls us again.
            Err(_) => std::future::pending().await,
        },
    }
}

fn described(digest: Digest, bytes: &[u8], told: &str) -> Descriptor {
    Descriptor { media_type: select::media_type(bytes, told), digest, size: bytes.len() as u64 }
}

fn display(location: &ImageLocation) -> String {
    match location {
        ImageLocation::Registry(reference) => reference.to_string(),
        ImageLocation::OciLayout(name) => format!("oci-layout://{name}"),
    }
}
