//! Reads manifests and indexes, and chooses the manifest of a platform (reference/engine.md 4.6). Knows nothing of
//! where the bytes came from.

use super::manifest::REFERENCE_TYPE;
use cache::digest::{BadDigest, Descriptor, Digest};
use frontend::platform::Platform;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// Media types of indexes.
pub const INDEX_TYPES: [&str; 2] =
    ["application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json"];

/// Media types of manifests.
pub const MANIFEST_TYPES: [&str; 2] =
    ["application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json"];

/// Why a document cannot be used as an image.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not JSON, or not the JSON of a manifest or an index.
    #[error("manifest {digest} cannot be read")]
    Parse {
        /// Of the document.
        digest: Digest,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// It names a blob by something that is not a sha256 digest.
    #[error("manifest {digest} names a blob that cannot be checked")]
    Digest {
        /// Of the document.
        digest: Digest,
        /// What was found.
        source: BadDigest,
    },
    /// Docker's first format.
    #[error(
        "{digest} is a Docker image of manifest version 2, schema 1, support for which has been removed; \
         push the image again with a current tool (https://docs.docker.com/go/deprecated-image-specs/)"
    )]
    Schema1 {
        /// Of the document.
        digest: Digest,
    },
    /// Both lists are there, so that two readers could see two images.
    #[error("{digest} has both `layers` and `manifests` and is refused as ambiguous")]
    Ambiguous {
        /// Of the document.
        digest: Digest,
    },
    /// Neither a manifest nor an index.
    #[error("{digest} is not an image: its media type is `{media_type}`")]
    NotAnImage {
        /// Of the document.
        digest: Digest,
        /// As the document or its descriptor says.
        media_type: String,
    },
    /// An artifact, such as a chart or a signature.
    #[error("{digest} is not a container image: its config is of type `{config_type}`")]
    Artifact {
        /// Of the document.
        digest: Digest,
        /// Media type of the config.
        config_type: String,
    },
    /// The index has nothing for the platform.
    #[error(
        "no match for platform in manifest: not found: {digest} has no image for {wanted}; it has {}",
        list(available)
    )]
    NoMatch {
        /// Of the index.
        digest: Digest,
        /// What was asked for.
        wanted: Box<Platform>,
        /// What there is.
        available: Vec<String>,
    },
    /// The config has another number of diff_ids than the manifest has layers.
    #[error("manifest {digest} has {layers} layers, but its config has {diff_ids} diff_ids")]
    LayerCount {
        /// Of the manifest.
        digest: Digest,
        /// In the manifest.
        layers: usize,
        /// In the config.
        diff_ids: usize,
    },
}

fn list(available: &[String]) -> String {
    if available.is_empty() { "none".to_string() } else { available.join(", ") }
}

/// A manifest or an index, read.
#[derive(Clone, Debug, PartialEq)]
pub enum Document {
    /// Of several images.
    Index(Index),
    /// Of one image.
    Manifest(Manifest),
}

/// The images of an index (image-spec image-index.md), attestations and the like left out.
#[derive(Clone, Debug, PartialEq)]
pub struct Index {
    /// Its own.
    pub digest: Digest,
    /// In its order.
    pub images: Vec<IndexEntry>,
}

/// One image of an index.
#[derive(Clone, Debug, PartialEq)]
pub struct IndexEntry {
    /// As written; an algorithm that kiln does not know matters only if this entry is chosen.
    pub digest: String,
    /// As written.
    pub media_type: String,
    /// In bytes.
    pub size: u64,
    /// Normalised. `None` if not written: then it is in the image's config.
    pub platform: Option<Platform>,
}

/// What a manifest says about an image (image-spec manifest.md).
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Its own.
    pub digest: Digest,
    /// The image config.
    pub config: Descriptor,
    /// Base layer first.
    pub layers: Vec<Descriptor>,
}

/// Any of the documents, as written. Go writes null for empty lists.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Wire {
    schema_version: u32,
    media_type: String,
    config: Option<WireDescriptor>,
    #[serde(deserialize_with = "null_is_none")]
    layers: Option<Vec<WireDescriptor>>,
    #[serde(deserialize_with = "null_is_none")]
    manifests: Option<Vec<WireDescriptor>>,
    fs_layers: Option<serde::de::IgnoredAny>,
}

impl Default for Wire {
    fn default() -> Wire {
        Wire {
            schema_version: 2,
            media_type: String::new(),
            config: None,
            layers: None,
            manifests: None,
            fs_layers: None,
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    platform: Option<WirePlatform>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct WirePlatform {
    os: String,
    architecture: String,
    variant: String,
    #[serde(rename = "os.version")]
    os_version: String,
}

/// An empty list for null, `None` if it is not there at all.
fn null_is_none<'de, D, T>(from: D) -> Result<Option<Vec<T>>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Some(Option::deserialize(from)?.unwrap_or_default()))
}

/// Media type of a document: its own word, else `told` (by the registry or a descriptor), else by what it contains.
pub fn media_type(bytes: &[u8], told: &str) -> String {
    let wire: Wire = serde_json::from_slice(bytes).unwrap_or_default();
    let is_known = |text: &str| INDEX_TYPES.contains(&text) || MANIFEST_TYPES.contains(&text);
    match (wire.media_type, wire.manifests) {
        (own, _) if !own.is_empty() => own,
        _ if is_known(told) => told.to_string(),
        (_, Some(_)) => INDEX_TYPES[0].to_string(),
        (_, None) => MANIFEST_TYPES[0].to_string(),
    }
}

/// Reads a document whose bytes have this digest.
pub fn parse(bytes: &[u8], digest: &Digest) -> Result<Document, DocumentError> {
    let wire: Wire =
        serde_json::from_slice(bytes).map_err(|source| DocumentError::Parse { digest: digest.clone(), source })?;
    if wire.schema_version == 1
        || wire.fs_layers.is_some()
        || wire.media_type.contains("docker.distribution.manifest.v1+")
    {
        return Err(DocumentError::Schema1 { digest: digest.clone() });
    }
    let is_index = INDEX_TYPES.contains(&wire.media_type.as_str());
    let is_manifest = MANIFEST_TYPES.contains(&wire.media_type.as_str());
    match (wire.manifests, wire.layers, wire.config) {
        (Some(_), Some(_), _) | (Some(_), _, Some(_)) => Err(DocumentError::Ambiguous { digest: digest.clone() }),
        (Some(manifests), None, None) if !is_manifest => Ok(Document::Index(Index {
            digest: digest.clone(),
            images: manifests.into_iter().filter(is_image).map(index_entry).collect(),
        })),
        (None, layers, Some(config)) if !is_index => manifest(digest, config, layers.unwrap_or_default()),
        _ => Err(DocumentError::NotAnImage { digest: digest.clone(), media_type: wire.media_type }),
    }
}

/// Attestations are manifests of an unknown platform; what is neither manifest nor index is not ours.
fn is_image(entry: &WireDescriptor) -> bool {
    let is_unknown =
        entry.platform.as_ref().is_some_and(|platform| platform.os == "unknown" && platform.architecture == "unknown");
    let is_about_another =
        entry.annotations.as_ref().is_some_and(|annotations| annotations.contains_key(REFERENCE_TYPE));
    !is_unknown && !is_about_another
}

fn index_entry(wire: WireDescriptor) -> IndexEntry {
    let platform = wire.platform.filter(|platform| !platform.os.is_empty() && !platform.architecture.is_empty());
    IndexEntry {
        digest: wire.digest,
        media_type: wire.media_type,
        size: wire.size,
        platform: platform.map(|platform| {
            Platform::from_parts(&platform.os, &platform.architecture, &platform.variant, &platform.os_version)
        }),
    }
}

fn manifest(digest: &Digest, config: WireDescriptor, layers: Vec<WireDescriptor>) -> Result<Document, DocumentError> {
    let is_config = ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json", ""]
        .contains(&config.media_type.as_str());
    if !is_config {
        return Err(DocumentError::Artifact { digest: digest.clone(), config_type: config.media_type });
    }
    let descriptor = |wire: WireDescriptor| match wire.digest.parse() {
        Ok(digest) => Ok(Descriptor { media_type: wire.media_type, digest, size: wire.size }),
        Err(source) => Err(DocumentError::Digest { digest: digest.clone(), source }),
    };
    Ok(Document::Manifest(Manifest {
        digest: digest.clone(),
        config: descriptor(config)?,
        layers: layers.into_iter().map(descriptor).collect::<Result<_, _>>()?,
    }))
}

impl Index {
    /// The best image for a platform; among equals the first. Entries without a platform are passed over.
    pub fn choose(&self, wanted: &Platform) -> Result<Descriptor, DocumentError> {
        let acceptable = wanted.acceptable();
        let rank = |entry: &IndexEntry| {
            let has = entry.platform.as_ref()?;
            acceptable.iter().position(|candidate| matches(candidate, has))
        };
        let ranked = self.images.iter().filter_map(|entry| Some((rank(entry)?, entry)));
        let Some((_, entry)) = ranked.min_by_key(|(rank, _)| *rank) else {
            return Err(DocumentError::NoMatch {
                digest: self.digest.clone(),
                wanted: Box::new(wanted.clone()),
                available: self.images.iter().filter_map(|entry| Some(entry.platform.as_ref()?.to_string())).collect(),
            });
        };
        match entry.digest.parse() {
            Ok(digest) => Ok(Descriptor { media_type: entry.media_type.clone(), digest, size: entry.size }),
            Err(source) => Err(DocumentError::Digest { digest: self.digest.clone(), source }),
        }
    }
}

/// Windows images are for a build of Windows: `10.0.20348.1` is for `10.0.20348`. Elsewhere versions do not count.
fn matches(wanted: &Platform, has: &Platform) -> bool {
    let build = |version: &str| version.splitn(4, '.').take(3).map(str::to_string).collect::<Vec<_>>();
    let is_version_right =
        wanted.os != "windows" || wanted.os_version.is_empty() || build(&wanted.os_version) == build(&has.os_version);
    (&wanted.os, &wanted.architecture, &wanted.variant) == (&has.os, &has.architecture, &has.variant)
        && is_version_right
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(value: Value) -> Result<Document, DocumentError> {
        let bytes = value.to_string().into_bytes();
        parse(&bytes, &Digest::of(&bytes))
    }

    fn descriptor(name: &str) -> Value {
        json!({"mediaType": "m", "digest": Digest::of(name.as_bytes()), "size": 1})
    }

    fn index(platforms: &[&str]) -> Index {
        let entry = |text: &&str| {
            let mut parts = text.split('/');
            let mut part = || parts.next().unwrap_or_default().to_string();
            let (os, architecture, variant) = (part(), part(), part());
            let platform = json!({"os": os, "architecture": architecture, "variant": variant});
            json!({"mediaType": "m", "digest": Digest::of(text.as_bytes()), "size": 1, "platform": platform})
        };
        match read(json!({"schemaVersion": 2, "manifests": platforms.iter().map(entry).collect::<Vec<_>>()})) {
            Ok(Document::Index(index)) => index,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn best_platform_is_chosen() {
        let host = Platform::host_default("x86_64");
        let check = |available: &[&str], wanted: &str, expect: &str| {
            let wanted = Platform::parse(wanted, &host).unwrap();
            let found = match index(available).choose(&wanted) {
                Ok(descriptor) => {
                    available.iter().find(|text| Digest::of(text.as_bytes()) == descriptor.digest).unwrap().to_string()
                }
                Err(error) => error.to_string(),
            };
            assert!(found.contains(expect), "{wanted}: {found}");
        };
        check(&["linux/arm/v6", "linux/arm/v7", "linux/amd64"], "linux/arm/v7", "linux/arm/v7");
        check(&["linux/arm/v6", "linux/amd64"], "linux/arm/v7", "linux/arm/v6");
        check(&["linux/arm64/v8"], "linux/arm64", "linux/arm64/v8");
        check(&["linux/arm/v7"], "linux/arm64", "linux/arm/v7");
        check(&["linux/386", "linux/amd64/v1"], "linux/amd64", "linux/amd64/v1");
        check(&["linux/amd64", "unknown/unknown"], "linux/s390x", "has no image for linux/s390x; it has linux/amd64");
        check(&[], "linux/amd64", "it has none");
    }

    #[test]
    fn documents_that_are_no_images_are_refused() {
        let check = |value: Value, expect: &str| {
            let text = read(value).unwrap_err().to_string();
            assert!(text.contains(expect), "{text}");
        };
        let config = json!({"mediaType": "", "digest": Digest::of(b""), "size": 0});
        check(json!({"schemaVersion": 1, "fsLayers": []}), "schema 1");
        check(json!({"manifests": [], "layers": []}), "ambiguous");
        check(json!({"manifests": [], "config": config}), "ambiguous");
        check(json!({"schemaVersion": 2}), "not an image");
        check(json!({"config": descriptor("c"), "layers": []}), "config is of type `m`");
        check(json!({"config": config, "layers": [{"digest": "md5:1", "size": 1}]}), "cannot be checked");
        check(json!("x"), "cannot be read");
        let null = read(json!({"config": config, "layers": null}));
        assert!(matches!(null, Ok(Document::Manifest(manifest)) if manifest.layers.is_empty()));
    }
}
