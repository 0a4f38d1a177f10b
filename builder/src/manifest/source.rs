//! Images in registries as lists of what they consist of.

use super::ManifestError;
use super::join::{Entry, Part};
use crate::image::select::{self, INDEX_TYPES};
use crate::registry::Registry;
use crate::registry::pull::Document;
use cache::digest::Digest;
use frontend::image_config::ImageConfig;
use frontend::reference::Reference;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// An image and its document.
#[derive(Clone, Debug)]
pub struct Source {
    /// As the user names it.
    pub name: Reference,
    /// The index or manifest.
    pub document: Document,
    /// What an index lists; of a manifest, itself.
    pub part: Part,
    /// Of an index.
    pub annotations: BTreeMap<String, String>,
    /// The user says of it what it does not say itself.
    pub is_amended: bool,
}

/// What a user names as a source.
#[derive(Clone, Debug)]
pub enum Wanted {
    /// What a name stands for.
    Named(Reference),
    /// What a descriptor names by its digest, and what else that says of it.
    Described { name: Reference, descriptor: Entry },
}

impl Source {
    /// Whether the name stands for an index.
    pub fn is_index(&self) -> bool {
        INDEX_TYPES.contains(&self.document.descriptor.media_type.as_str())
    }
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

/// Reads what a name stands for: mirrors are asked as for pulls.
pub async fn read(registry: &Registry, name: &Reference) -> Result<Source, ManifestError> {
    let failed = |source| ManifestError::Read { name: name.to_string(), source };
    let resolved = registry.resolve(name).await.map_err(failed)?;
    let document = match resolved.document {
        Some(bytes) => Document { descriptor: resolved.descriptor, bytes },
        None => registry.manifest(name, &resolved.descriptor.digest).await.map_err(failed)?,
    };
    describe(registry, name, document).await
}

/// Reads a source.
pub async fn read_wanted(registry: &Registry, wanted: &Wanted) -> Result<Source, ManifestError> {
    let (name, given) = match wanted {
        Wanted::Named(name) => return read(registry, name).await,
        Wanted::Described { name, descriptor } => (name, descriptor),
    };
    let document = registry.manifest(name, &given.digest).await;
    let document = document.map_err(|source| ManifestError::Read { name: name.to_string(), source })?;
    let Document { descriptor, bytes } = &document;
    let differs = |told: String, actual: String| ManifestError::Descriptor { name: name.to_string(), told, actual };
    if given.size != 0 && given.size != bytes.len() as u64 {
        return Err(differs(format!("size {}", given.size), bytes.len().to_string()));
    }
    let media_type = select::media_type(bytes, &descriptor.media_type);
    if !given.media_type.is_empty() && given.media_type != media_type {
        return Err(differs(format!("media type {}", given.media_type), media_type));
    }
    let mut source = match given.attested() {
        None => describe(registry, name, document).await?,
        // What is about an image is none itself.
        Some(_) => {
            let entry = Entry::new(media_type, given.digest.clone(), bytes.len() as u64);
            let part = Part { name: name.to_string(), entries: vec![entry] };
            Source { name: name.clone(), document, part, annotations: BTreeMap::new(), is_amended: true }
        }
    };
    if source.is_index() {
        let refused = |what| Err(ManifestError::NoEntry { name: name.to_string(), what });
        return match (given.annotations.is_empty(), &given.platform) {
            (false, _) => refused("annotations"),
            (true, Some(_)) => refused("a platform"),
            (true, None) => Ok(source),
        };
    }
    let before = source.part.entries.clone();
    source.part.entries.iter_mut().for_each(|entry| entry.amend(given));
    source.is_amended |= source.part.entries != before;
    Ok(source)
}

/// Reads what a tag stands for now, at the registry itself; `None` if there is no such tag.
pub async fn read_target(registry: &Registry, name: &Reference) -> Result<Option<Source>, ManifestError> {
    let tagged = registry.tagged(name).await;
    match tagged.map_err(|source| ManifestError::Read { name: name.to_string(), source })? {
        None => Ok(None),
        Some(document) => describe(registry, name, document).await.map(Some),
    }
}

async fn describe(registry: &Registry, name: &Reference, mut document: Document) -> Result<Source, ManifestError> {
    let told = select::media_type(&document.bytes, &document.descriptor.media_type);
    document.descriptor.media_type = told;
    let descriptor = &document.descriptor;
    // For its refusals: of old formats, of what is neither, of what is both.
    let parsed = select::parse(&document.bytes, &descriptor.digest);
    let parsed = parsed.map_err(|source| ManifestError::Document { name: name.to_string(), source })?;
    let text = name.to_string();
    let (entries, annotations) = match parsed {
        select::Document::Index(_) => {
            let index: Index = parse(name, &descriptor.digest, &document.bytes)?;
            let mut entries = index.manifests.unwrap_or_default();
            for entry in entries.iter_mut().filter(|entry| entry.platform.is_none() && entry.attested().is_none()) {
                fill_platform(registry, name, entry).await?;
            }
            (entries, index.annotations.unwrap_or_default())
        }
        select::Document::Manifest(manifest) => {
            let Document { descriptor, .. } = &document;
            let mut entry = Entry::new(descriptor.media_type.clone(), descriptor.digest.clone(), descriptor.size);
            entry.platform = Some(platform(registry, name, &manifest).await?);
            (vec![entry], BTreeMap::new())
        }
    };
    let part = Part { name: text, entries };
    Ok(Source { name: name.clone(), document, part, annotations, is_amended: false })
}

/// Entries that do not say their platform have it in their configs; what is no image has none.
async fn fill_platform(registry: &Registry, name: &Reference, entry: &mut Entry) -> Result<(), ManifestError> {
    let document = registry.manifest(name, &entry.digest).await;
    let document = document.map_err(|source| ManifestError::Read { name: name.to_string(), source })?;
    if let Ok(select::Document::Manifest(manifest)) = select::parse(&document.bytes, &entry.digest) {
        entry.platform = Some(platform(registry, name, &manifest).await?);
    }
    Ok(())
}

async fn platform(
    registry: &Registry,
    name: &Reference,
    manifest: &select::Manifest,
) -> Result<Map<String, Value>, ManifestError> {
    let config = config(registry, name, manifest).await?;
    let config: ImageConfig = parse(name, &manifest.config.digest, &config)?;
    let parts = [
        ("os", config.os),
        ("architecture", config.architecture),
        ("variant", config.variant),
        ("os.version", config.os_version),
    ];
    let given = parts.into_iter().filter(|(_, value)| !value.is_empty());
    Ok(given.map(|(key, value)| (key.to_string(), Value::String(value))).collect())
}

/// The config of an image, as it is stored.
pub(super) async fn config(
    registry: &Registry,
    name: &Reference,
    manifest: &select::Manifest,
) -> Result<Vec<u8>, ManifestError> {
    let config = registry.small_blob(name, &manifest.config).await;
    config.map_err(|source| ManifestError::Read { name: name.to_string(), source })
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(
    name: &Reference,
    digest: &Digest,
    bytes: &[u8],
) -> Result<T, ManifestError> {
    serde_json::from_slice(bytes).map_err(|source| ManifestError::Parse {
        name: name.to_string(),
        digest: digest.clone(),
        source,
    })
}
