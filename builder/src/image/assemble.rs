//! A built file system and its planned config -> layers, config, manifest and index, as blobs in the store.

use super::attestation::{self, AssembledAttestation, AttestationOptions, Place};
use super::config::{self, LayerFacts};
use super::layers::{BlobError, LayerBlobs, LayerOptions};
use super::manifest::{self, Annotations, Entry};
use crate::attest::statement::Attestation;
use crate::progress::Vertex;
use crate::remote_cache::export::Exports;
use crate::remote_cache::inline;
use crate::source::image::{ImageError, ImageSource};
use cache::digest::{Descriptor, Digest};
use cache::layer::compression::{Compression, LayerBlob, MediaTypes};
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::remote::RemoteBlob;
use cache::store::Store;
use cache::tree::{Layer, RemoteLayer, SnapshotId, Tree};
use frontend::image_config::ImageConfig;
use frontend::platform::Platform;

/// One platform's result of a build.
#[derive(Clone, Debug)]
pub struct BuiltImage {
    pub platform: Platform,
    pub tree: Tree,
    /// As planned: without `rootfs` and the times of new history entries.
    pub config: ImageConfig,
    /// Entries at the start of the history that came with the base.
    pub base_history_len: usize,
    /// What is attested of it, whichever exporter takes it.
    pub attestations: Vec<Attestation>,
}

/// What exporters decide about the documents.
#[derive(Clone, Debug)]
pub struct AssembleOptions {
    pub types: MediaTypes,
    pub layer: LayerOptions,
    /// Also layers of the base image get `layer.compression`.
    pub force_compression: bool,
    /// No time of the documents is later than this, in seconds since 1970.
    pub epoch: Option<i64>,
    /// The build's `SOURCE_DATE_EPOCH`, which an exporter's own leaves as it is.
    pub build_epoch: Option<i64>,
    pub annotations: AnnotationSet,
    /// An index even for one platform.
    pub multi_platform: bool,
    pub attestations: AttestationOptions,
}

/// `--annotation` and `annotation…` attributes, by where they go.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AnnotationSet {
    /// Platform (`None`: all), annotations.
    pub manifest: Vec<(Option<Platform>, String, String)>,
    pub manifest_descriptor: Vec<(Option<Platform>, String, String)>,
    pub index: Annotations,
    pub index_descriptor: Annotations,
}

impl AnnotationSet {
    fn select(list: &[(Option<Platform>, String, String)], platform: Option<&Platform>) -> Annotations {
        let applies = |of: &Option<Platform>| of.is_none() || of.as_ref() == platform;
        list.iter().filter(|(of, ..)| applies(of)).map(|(_, name, value)| (name.clone(), value.clone())).collect()
    }
}

/// A layer as it stands in a manifest, and where its blob can be fetched if it is not in the store.
#[derive(Clone, Debug)]
pub struct AssembledLayer {
    pub entry: Entry,
    pub remote: Option<RemoteLayer>,
}

/// One platform's documents.
#[derive(Clone, Debug)]
pub struct AssembledImage {
    pub platform: Platform,
    pub layers: Vec<AssembledLayer>,
    pub config: Entry,
    /// With platform and descriptor annotations.
    pub manifest: Entry,
    /// The config's `created`.
    pub created: Option<String>,
    /// What is attested of it; a build makes one manifest at most.
    pub attestations: Vec<AssembledAttestation>,
}

/// All documents of a build's result. They are in the store; layers of base images may not be.
#[derive(Clone, Debug)]
pub struct Assembled {
    pub images: Vec<AssembledImage>,
    /// Present for several platforms, and where attestations are beside the image.
    pub index: Option<Entry>,
}

impl Assembled {
    /// What the image's name stands for: the index, else the only manifest.
    pub fn top(&self) -> &Entry {
        self.index.as_ref().unwrap_or(&self.images[0].manifest)
    }
}

/// Why the documents could not be made.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Fetch(#[from] ImageError),
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error("index annotations need an image index: build for several platforms, or with attestations")]
    IndexAnnotations,
}

/// What the documents are made with.
#[derive(Clone, Copy)]
pub struct Workshop<'a> {
    pub store: &'a Store,
    pub blobs: &'a LayerBlobs,
    pub images: &'a ImageSource,
    /// Remote caches, of which one may be the image itself.
    pub caches: &'a Exports,
    /// Where transfers are shown.
    pub vertex: &'a Vertex,
}

/// Makes the documents of all platforms.
pub async fn assemble(
    built: &[BuiltImage],
    options: &AssembleOptions,
    workshop: Workshop<'_>,
) -> Result<Assembled, AssembleError> {
    let mut assembled = vec![];
    let holds_attestations = options.attestations.place == Place::Index
        && built.iter().flat_map(|image| &image.attestations).any(|attestation| options.attestations.take(attestation));
    let is_index = built.len() > 1 || options.multi_platform || holds_attestations;
    for image in built {
        assembled.push(assemble_one(image, is_index, options, workshop).await?);
    }
    let index = match is_index {
        false if !options.annotations.index.is_empty() => return Err(AssembleError::IndexAnnotations),
        false => None,
        true => {
            let images = assembled.iter().map(|image| image.manifest.clone());
            let attestations = assembled.iter().flat_map(|image| &image.attestations);
            let attestations = attestations.filter(|_| options.attestations.place == Place::Index);
            let entries: Vec<Entry> = images.chain(attestations.map(|about| about.manifest.clone())).collect();
            let bytes = manifest::index(options.types, &entries, &options.annotations.index);
            let mut entry = Entry::plain(put(workshop.store, manifest::index_type(options.types), &bytes)?);
            entry.annotations = options.annotations.index_descriptor.clone();
            Some(entry)
        }
    };
    Ok(Assembled { images: assembled, index })
}

async fn assemble_one(
    image: &BuiltImage,
    is_index: bool,
    options: &AssembleOptions,
    workshop: Workshop<'_>,
) -> Result<AssembledImage, AssembleError> {
    // All layers at once: their blobs may still be in the making, each on its own thread.
    let layers = (0..image.tree.layers().len()).map(|i| layer(&image.tree, i, options, workshop));
    let made = futures::future::try_join_all(layers).await?;
    let facts: Vec<LayerFacts> = made
        .iter()
        .zip(image.tree.layers())
        .map(|((blob, _), layer)| LayerFacts { diff_id: blob.diff_id.to_string(), created_ms: layer.created_ms })
        .collect();
    let mut planned = image.config.clone();
    if let Some(epoch) = options.build_epoch {
        config::date(&mut planned, image.base_history_len, epoch);
    }
    let completed = config::complete(planned, &facts, image.base_history_len, options.epoch);
    let mut config = config::to_bytes(&completed);
    if let Some(index) = workshop.caches.inline(&steps_layers(&image.tree, &made, options.layer)) {
        config = inline::add(config, &index);
    }
    let config = put(workshop.store, manifest::config_type(options.types), &config)?;
    let layers: Vec<AssembledLayer> = made
        .into_iter()
        .map(|(blob, remote)| {
            let media_type = manifest::layer_type(options.types, &blob.descriptor.media_type).to_string();
            let entry = Entry::plain(Descriptor { media_type, ..blob.descriptor });
            AssembledLayer { entry: Entry { annotations: blob.annotations, ..entry }, remote }
        })
        .collect();

    let config = Entry::plain(config);
    let entries: Vec<Entry> = layers.iter().map(|layer| layer.entry.clone()).collect();
    // Of a lone image no platform counts as named, as in BuildKit.
    let platform = is_index.then_some(&image.platform);
    let annotations = AnnotationSet::select(&options.annotations.manifest, platform);
    let bytes = manifest::manifest(options.types, &config, &entries, &annotations);
    let mut manifest = Entry::plain(put(workshop.store, manifest::manifest_type(options.types), &bytes)?);
    manifest.platform = Some((&image.platform).into());
    manifest.annotations = AnnotationSet::select(&options.annotations.manifest_descriptor, platform);
    let attestation = attestation::assemble(image, &manifest, &entries, &options.attestations, workshop.store)?;
    let platform = image.platform.clone();
    let attestations = attestation.into_iter().collect();
    Ok(AssembledImage { platform, layers, config, manifest, created: completed.created, attestations })
}

/// The layers that steps have made, as a cache names them.
fn steps_layers(
    tree: &Tree,
    made: &[(LayerBlob, Option<RemoteLayer>)],
    options: LayerOptions,
) -> Vec<(SnapshotId, RemoteBlob)> {
    let how = match options.clamp {
        None => options.compression.to_string(),
        Some(epoch) => format!("{}@{epoch}", options.compression),
    };
    let pairs = tree.layers().iter().zip(made).filter(|(layer, _)| layer.created_ms.is_some());
    pairs.map(|(layer, (blob, _))| (layer.snapshot.clone(), RemoteBlob::of(blob, how.clone()))).collect()
}

/// The blob of layer `i`, and where it can be had if it is not in the store.
async fn layer(
    tree: &Tree,
    i: usize,
    options: &AssembleOptions,
    workshop: Workshop<'_>,
) -> Result<(LayerBlob, Option<RemoteLayer>), AssembleError> {
    let Layer { remote: Some(remote), created_ms: None, .. } = &*tree.layers()[i] else {
        let up_to = tree.lowest(i + 1);
        if let Some(remote) = &tree.layers()[i].remote {
            // Of a step, in a remote cache. The image's bytes must not depend on where the layer comes from.
            if options.layer.clamp.is_none() && remote.made == Some(options.layer.compression.to_string()) {
                let blob = LayerBlob::plain(remote.descriptor.clone(), remote.diff_id.clone());
                return Ok((blob, Some(remote.clone())));
            }
            workshop.images.ensure_unpacked(&up_to, workshop.vertex).await?;
        } else if workshop.blobs.needs_below(&up_to, options.layer)? {
            // Of a step that was cached, the base may never have been fetched, or may be gone.
            let below = tree.lowest(i);
            workshop.images.ensure_unpacked(&below, workshop.vertex).await?;
        }
        return Ok((workshop.blobs.of_top(up_to, options.layer).await?, None));
    };
    let blob = LayerBlob::plain(remote.descriptor.clone(), remote.diff_id.clone());
    let wanted = options.layer.compression.media_type(MediaTypes::Oci);
    // That gzip has a table of contents shows in no media type.
    let is_so_already = manifest::layer_type(MediaTypes::Oci, &blob.descriptor.media_type) == wanted
        && !matches!(options.layer.compression, Compression::Estargz { .. });
    if !options.force_compression || is_so_already {
        return Ok((blob, Some(remote.clone())));
    }
    workshop.images.ensure_blobs(&Tree::from_iter([tree.layers()[i].clone()]), workshop.vertex).await?;
    Ok((workshop.blobs.recompressed(&blob, options.layer.compression).await?, None))
}

fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Result<Descriptor, cache::error::StoreError> {
    let digest: Digest = store.content().put(bytes)?;
    let kind = ["config", "index", "list"].into_iter().find(|kind| media_type.contains(kind)).unwrap_or("manifest");
    let about = About { description: format!("{kind} of an image that was built"), category: "" };
    store.describe(ObjectId::new(Kind::Blob, digest.hex()), about);
    Ok(Descriptor { media_type: media_type.into(), digest, size: bytes.len() as u64 })
}
