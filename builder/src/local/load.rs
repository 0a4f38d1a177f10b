//! An archive -> images of the store: what `docker save` writes, old and new, and OCI layouts. Every layer and document is
//! verified. Manifests of a layout are kept to the byte; for images that have none they are made.

use super::archive::Contents;
use crate::image::attestation;
use crate::image::manifest::{self, Annotations, Entry, PlatformEntry};
use crate::image::select::{self, Document, DocumentError, Index, Manifest};
use cache::digest::{Descriptor, Digest};
use cache::error::StoreError;
use cache::images::{AttestationDocuments, Documents, ImageRecord, PlatformImage, STORED, Statement};
use cache::layer::compression::{Compression, MediaTypes, decompressor};
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::store::Store;
use cache::tree::{RemoteLayer, Tree};
use frontend::image_config::ImageConfig;
use frontend::platform::Platform;
use frontend::reference::Reference;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{self, Read};

/// How deep indexes may lie in indexes.
const INDEX_DEPTH: usize = 8;

/// An archive that cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error("this is no tar archive")]
    NotAnArchive(#[source] io::Error),
    #[error("could not read the archive")]
    Read(#[source] io::Error),
    #[error("could not write a layer into the store")]
    Write(#[source] io::Error),
    #[error("the archive has neither manifest.json nor index.json: it holds no images")]
    NoImages,
    #[error("the archive's documents are larger than any images need")]
    TooManyDocuments,
    #[error("`{file}` of the archive cannot be read")]
    Document { file: String, source: serde_json::Error },
    #[error("`{file}` is missing in the archive")]
    Missing { file: String },
    #[error("the archive is damaged: {expected} has the bytes of {actual}")]
    Digest { expected: Digest, actual: Digest },
    #[error("the archive is damaged: the files of layer {layer} are {actual}, but the image config says {expected}")]
    DiffId { layer: String, expected: String, actual: Digest },
    #[error("image {image} has {layers} layers, but its config has {diff_ids}")]
    LayerCount { image: String, layers: usize, diff_ids: usize },
    #[error("the archive's index cannot be used")]
    Select(#[from] DocumentError),
    #[error("the archive has an index of which only some images are there")]
    Incomplete,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// An image of an archive.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// As the archive says; none if it says none.
    pub names: Vec<Reference>,
    pub record: ImageRecord,
    /// How many entries of the archive's index are not in the store: they are neither images, nor attestations of images of
    /// which all is there.
    pub left_out: usize,
}

/// Reads an archive's images. `origin` says where it came from; `read` is told how many bytes have come.
pub fn load(store: &Store, input: impl Read, origin: &str, read: &dyn Fn(u64)) -> Result<Vec<Loaded>, LoadError> {
    let contents = Contents::read(store, input, read)?;
    let loader = Loader { store, contents: &contents, origin, diff_ids: RefCell::default() };
    if let (Some(index), Some(_)) = (contents.document("index.json"), contents.document("oci-layout")) {
        return loader.layout(index);
    }
    match contents.document("manifest.json") {
        Some(list) => loader.docker_archive(list),
        None => Err(LoadError::NoImages),
    }
}

struct Loader<'a> {
    store: &'a Store,
    contents: &'a Contents,
    origin: &'a str,
    /// Of the compressed blobs that were read: images share layers.
    diff_ids: RefCell<BTreeMap<Digest, Digest>>,
}

/// An element of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Option<Vec<String>>,
}

#[derive(Deserialize)]
struct LayoutIndex {
    manifests: Option<Vec<LayoutEntry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct LayoutEntry {
    digest: String,
    annotations: Option<BTreeMap<String, String>>,
}

/// A manifest of attestations, of either form.
#[derive(Deserialize)]
struct AttestationManifest {
    config: Descriptor,
    layers: Option<Vec<StatementEntry>>,
}

#[derive(Deserialize)]
struct StatementEntry {
    #[serde(flatten)]
    blob: Descriptor,
    annotations: Option<BTreeMap<String, String>>,
}

impl Loader<'_> {
    fn layout(&self, index: &[u8]) -> Result<Vec<Loaded>, LoadError> {
        let index: LayoutIndex = parse("index.json", index)?;
        let mut loaded: Vec<(Digest, Loaded)> = vec![];
        for entry in index.manifests.unwrap_or_default() {
            let digest = digest_of(&entry.digest)?;
            let name = entry.annotations.and_then(|annotations| name_of(&annotations));
            match loaded.iter_mut().find(|(known, _)| *known == digest) {
                Some((_, image)) => image.names.extend(name),
                None => {
                    let (record, left_out) = self.layout_image(&digest, INDEX_DEPTH)?;
                    let names = name.into_iter().collect();
                    loaded.push((digest, Loaded { names, record, left_out }));
                }
            }
        }
        // docker writes its tags into the other list alone.
        let tags = self.contents.document("manifest.json").map(|list| parse::<Vec<DockerImage>>("manifest.json", list));
        for image in tags.transpose()?.unwrap_or_default() {
            let names: Vec<Reference> = references(image.repo_tags.unwrap_or_default());
            let config = image.config.rsplit('/').next().unwrap_or_default().trim_end_matches(".json").to_string();
            let has = |loaded: &Loaded| {
                let documents = loaded.record.platforms.iter().filter_map(|image| image.documents.as_ref());
                documents.into_iter().any(|documents| documents.config.digest.hex() == config)
            };
            if let Some((_, loaded)) = loaded.iter_mut().find(|(_, loaded)| has(loaded)) {
                let new: Vec<Reference> = names.into_iter().filter(|name| !loaded.names.contains(name)).collect();
                loaded.names.extend(new);
            }
        }
        for (_, loaded) in &mut loaded {
            // Of an index that is not whole another one was made, which has another digest.
            loaded.names.retain(|name| super::record::may_be_named(&loaded.record, name));
        }
        Ok(loaded.into_iter().map(|(_, loaded)| loaded).collect())
    }

    /// The image of a manifest or index of the layout, and how many entries of an index are left out.
    fn layout_image(&self, digest: &Digest, depth: usize) -> Result<(ImageRecord, usize), LoadError> {
        let bytes = self.needed_document(digest)?;
        let index = match select::parse(bytes, digest)? {
            Document::Manifest(manifest) => {
                let platform = self.layout_manifest(&manifest, bytes)?;
                let top = platform.documents.as_ref().map(|documents| documents.manifest.clone());
                return Ok((self.record(vec![platform], top), 0));
            }
            Document::Index(index) => index,
        };
        let listed: LayoutIndex = parse(&format!("blob {digest}"), bytes)?;
        let (mut platforms, mut entries, mut is_whole) = (vec![], vec![], true);
        for entry in &index.images {
            let digest = digest_of(&entry.digest)?;
            let Some(bytes) = self.contents.document_of(&digest)? else {
                is_whole = false;
                continue;
            };
            match select::parse(bytes, &digest)? {
                Document::Manifest(manifest) => {
                    let platform = self.layout_manifest(&manifest, bytes)?;
                    let manifest = Descriptor {
                        media_type: select::media_type(bytes, &entry.media_type),
                        digest,
                        size: bytes.len() as u64,
                    };
                    let mut listed = Entry::plain(manifest);
                    listed.platform = Some(PlatformEntry::from(&super::record::platform_of(&platform)));
                    entries.push(listed);
                    platforms.push(platform);
                }
                // Of an index in an index kiln knows no other use than a wrapping.
                Document::Index(_) if depth > 0 && index.images.len() == 1 => {
                    return self.layout_image(&digest, depth - 1);
                }
                Document::Index(_) => is_whole = false,
            }
        }
        let left_out = self.attestations(listed.manifests.unwrap_or_default(), &index, &mut platforms)?;
        for documents in platforms.iter().filter_map(|platform| platform.documents.as_ref()) {
            let about = documents.attestations.iter().map(|about| about.manifest.clone());
            entries.extend(about.map(|manifest| attestation::index_entry(manifest, &documents.manifest.digest)));
        }
        let top = match (&entries[..], is_whole && left_out == 0) {
            ([], _) => return Err(LoadError::Incomplete),
            (_, true) => self.put(&select::media_type(bytes, ""), bytes)?,
            ([only], false) => only.descriptor(),
            (_, false) => {
                let bytes = manifest::index(MediaTypes::Oci, &entries, &Annotations::new());
                self.put(manifest::index_type(MediaTypes::Oci), &bytes)?
            }
        };
        Ok((self.record(platforms, Some(top)), left_out))
    }

    /// Gives the images what the index lists about them; how many other entries there are. What is about an image that is not
    /// in the archive counts no more than the image.
    fn attestations(
        &self,
        listed: Vec<LayoutEntry>,
        index: &Index,
        platforms: &mut [PlatformImage],
    ) -> Result<usize, LoadError> {
        let is_image = |digest: &str| index.images.iter().any(|image| image.digest == digest);
        let mut left_out = 0;
        for entry in listed.into_iter().filter(|entry| !is_image(&entry.digest)) {
            let annotations = entry.annotations.unwrap_or_default();
            let annotation = |name: &str| annotations.get(name).map(String::as_str).unwrap_or_default();
            let subject = annotation(manifest::REFERENCE_DIGEST);
            let is_attestation = annotation(manifest::REFERENCE_TYPE) == attestation::ATTESTATION;
            let mut documents = platforms.iter_mut().filter_map(|image| image.documents.as_mut());
            let of = documents.find(|documents| documents.manifest.digest.as_str() == subject);
            let about = match (is_attestation, of) {
                (true, Some(documents)) => self.attestation(&entry.digest)?.map(|about| (documents, about)),
                (true, None) if is_image(subject) => continue,
                _ => None,
            };
            match about {
                Some((documents, about)) => documents.attestations.push(about),
                None => left_out += 1,
            }
        }
        Ok(left_out)
    }

    /// An attestation manifest with all that it names; `None` if something is missing, or it is none.
    fn attestation(&self, digest: &str) -> Result<Option<AttestationDocuments>, LoadError> {
        let Ok(digest) = digest.parse() else { return Ok(None) };
        let Some(bytes) = self.contents.document_of(&digest)? else { return Ok(None) };
        let Ok(found) = serde_json::from_slice::<AttestationManifest>(bytes) else { return Ok(None) };
        let listed = found.layers.unwrap_or_default();
        for blob in listed.iter().map(|statement| &statement.blob).chain([&found.config]) {
            if self.contents.blob_of(self.store, &blob.digest)? != Some(blob.size) {
                return Ok(None);
            }
            self.describe("attestation", &blob.digest);
        }
        let manifest = self.put(&select::media_type(bytes, ""), bytes)?;
        self.describe("attestation", &manifest.digest);
        let statement = |entry: StatementEntry| Statement {
            predicate_type: entry
                .annotations
                .unwrap_or_default()
                .remove(attestation::PREDICATE_TYPE)
                .unwrap_or_default(),
            blob: entry.blob,
        };
        let statements = listed.into_iter().map(statement).collect();
        Ok(Some(AttestationDocuments { manifest, config: found.config, statements }))
    }

    fn layout_manifest(&self, manifest: &Manifest, bytes: &[u8]) -> Result<PlatformImage, LoadError> {
        let config = self.needed_document(&manifest.config.digest)?;
        let mut layers = vec![];
        for layer in &manifest.layers {
            match self.contents.blob_of(self.store, &layer.digest)? {
                Some(_) => layers.push(layer.clone()),
                None => return Err(LoadError::Missing { file: format!("blob {}", layer.digest) }),
            }
        }
        let manifest = self.put(&select::media_type(bytes, ""), bytes)?;
        self.platform(config, layers, Some(manifest))
    }

    fn docker_archive(&self, list: &[u8]) -> Result<Vec<Loaded>, LoadError> {
        let images: Vec<DockerImage> = parse("manifest.json", list)?;
        let mut loaded = vec![];
        for image in images {
            let config = self.contents.document(&image.config);
            let config = config.ok_or_else(|| LoadError::Missing { file: image.config.clone() })?;
            let mut layers = vec![];
            for path in image.layers.unwrap_or_default() {
                let blob = self.contents.blob(self.store, &path)?;
                let (digest, size) = blob.ok_or_else(|| LoadError::Missing { file: path.clone() })?;
                let media_type = self.compression(&digest)?.media_type(MediaTypes::Oci).to_string();
                layers.push(Descriptor { media_type, digest, size });
            }
            let platform = self.platform(config, layers, None)?;
            let top = platform.documents.as_ref().map(|documents| documents.manifest.clone());
            let names = references(image.repo_tags.unwrap_or_default());
            loaded.push(Loaded { names, record: self.record(vec![platform], top), left_out: 0 });
        }
        Ok(loaded)
    }

    fn record(&self, platforms: Vec<PlatformImage>, top: Option<Descriptor>) -> ImageRecord {
        ImageRecord { platforms, top, origin: self.origin.to_string() }
    }

    /// One image: its layers are held against the config. Without a manifest one is made.
    fn platform(
        &self,
        config_bytes: &[u8],
        blobs: Vec<Descriptor>,
        manifest: Option<Descriptor>,
    ) -> Result<PlatformImage, LoadError> {
        let digest = Digest::of(config_bytes);
        let config: ImageConfig = parse(&format!("config {digest}"), config_bytes)?;
        let diff_ids = config.rootfs.diff_ids.clone().unwrap_or_default();
        if diff_ids.len() != blobs.len() {
            let (layers, diff_ids) = (blobs.len(), diff_ids.len());
            return Err(LoadError::LayerCount { image: digest.to_string(), layers, diff_ids });
        }
        let mut remotes = vec![];
        for (blob, expected) in blobs.iter().zip(diff_ids) {
            let diff_id = self.diff_id(blob)?;
            if diff_id.as_str() != expected {
                return Err(LoadError::DiffId { layer: blob.digest.to_string(), expected, actual: diff_id });
            }
            self.describe("layer", &blob.digest);
            remotes.push(RemoteLayer { descriptor: blob.clone(), diff_id, origin: STORED.into(), made: None });
        }
        let config_entry = self.put(manifest::config_type(MediaTypes::Oci), config_bytes)?;
        let manifest = match manifest {
            Some(manifest) => manifest,
            None => {
                let entries: Vec<Entry> = blobs.iter().cloned().map(Entry::plain).collect();
                let entry = Entry::plain(config_entry.clone());
                let bytes = manifest::manifest(MediaTypes::Oci, &entry, &entries, &Annotations::new());
                self.put(manifest::manifest_type(MediaTypes::Oci), &bytes)?
            }
        };
        let platform = Platform::from_parts(&config.os, &config.architecture, &config.variant, &config.os_version);
        Ok(PlatformImage {
            platform: platform.to_string(),
            config: String::from_utf8_lossy(config_bytes).into_owned(),
            base_history_len: config.history.len(),
            epoch: None,
            layers: Tree::of_image(remotes).layers().iter().map(|layer| (**layer).clone()).collect(),
            documents: Some(Documents { manifest, config: config_entry, layers: blobs, attestations: vec![] }),
        })
    }

    /// Says what a blob is, for those who look at what the store has.
    fn describe(&self, what: &str, digest: &Digest) {
        let about = About { description: format!("{what} of an image, {}", self.origin), category: "" };
        self.store.describe(ObjectId::new(Kind::Blob, digest.hex()), about);
    }

    /// Stores a document.
    fn put(&self, media_type: &str, bytes: &[u8]) -> Result<Descriptor, LoadError> {
        let digest = self.store.content().put(bytes)?;
        Ok(Descriptor { media_type: media_type.into(), digest, size: bytes.len() as u64 })
    }

    fn needed_document(&self, digest: &Digest) -> Result<&[u8], LoadError> {
        self.contents.document_of(digest)?.ok_or_else(|| LoadError::Missing { file: format!("blob {digest}") })
    }

    fn compression(&self, digest: &Digest) -> Result<Compression, LoadError> {
        let mut start = Vec::with_capacity(4);
        self.store.content().open(digest)?.take(4).read_to_end(&mut start).map_err(LoadError::Read)?;
        Ok(Compression::of_start(&start))
    }

    /// Of a layer's tar. That of a blob that is not compressed is its digest, which was computed when it came.
    fn diff_id(&self, blob: &Descriptor) -> Result<Digest, LoadError> {
        if let Compression::Uncompressed = self.compression(&blob.digest)? {
            return Ok(blob.digest.clone());
        }
        if let Some(diff_id) = self.diff_ids.borrow().get(&blob.digest) {
            return Ok(diff_id.clone());
        }
        let mut tar = decompressor(self.store.content().open(&blob.digest)?).map_err(LoadError::Read)?;
        let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
        loop {
            match tar.read(&mut buffer).map_err(LoadError::Read)? {
                0 => break,
                count => hasher.update(&buffer[..count]),
            }
        }
        let diff_id = Digest::from_sha256(hasher.finalize().into());
        self.diff_ids.borrow_mut().insert(blob.digest.clone(), diff_id.clone());
        Ok(diff_id)
    }
}

fn parse<T: for<'de> Deserialize<'de>>(file: &str, bytes: &[u8]) -> Result<T, LoadError> {
    serde_json::from_slice(bytes).map_err(|source| LoadError::Document { file: file.into(), source })
}

/// By what is no sha256 digest no file of a layout is found.
fn digest_of(text: &str) -> Result<Digest, LoadError> {
    text.parse().map_err(|_| LoadError::Missing { file: format!("blob {text}") })
}

/// The name of an entry of `index.json`: containerd's annotation, else a reference with a name in it; a tag alone is none.
fn name_of(annotations: &BTreeMap<String, String>) -> Option<Reference> {
    if let Some(name) = annotations.get(manifest::IMAGE_NAME) {
        return Reference::parse(name).ok();
    }
    let name = annotations.get(manifest::REF_NAME)?;
    if name.contains([':', '/']) { Reference::parse(name).ok() } else { None }
}

fn references(tags: Vec<String>) -> Vec<Reference> {
    tags.iter().filter_map(|tag| Reference::parse(tag).ok()).collect()
}
