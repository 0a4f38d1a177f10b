//! A cache as an OCI artefact: a manifest whose config is the index and whose layers are all blobs that the index names, so
//! that registries keep them. Written as documents, and told from what else a tag may name. Pure.

use crate::image::manifest;
use crate::image::select::{INDEX_TYPES, MANIFEST_TYPES};
use cache::digest::{Descriptor, Digest};
use cache::layer::compression::MediaTypes;
use cache::remote::Index;
use cache::remote::index::MEDIA_TYPE;
use serde::Deserialize;
use serde_json::json;

/// Media type of the config of BuildKit's caches.
const BUILDKIT_TYPE: &str = "application/vnd.buildkit.cacheconfig.v0";

/// What a manifest or an index is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A cache of kiln; its index.
    Cache(Descriptor),
    /// A cache of BuildKit.
    BuildKit,
    /// An image; its config.
    Image(Descriptor),
    /// Several; the manifests.
    Index(Vec<Descriptor>),
    /// Something else; a media type that says what.
    Foreign(String),
}

/// Any of the documents, as written.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct Wire {
    media_type: Option<String>,
    config: Option<WireDescriptor>,
    manifests: Option<Vec<WireDescriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDescriptor {
    #[serde(default)]
    media_type: String,
    digest: Digest,
    size: u64,
}

impl From<WireDescriptor> for Descriptor {
    fn from(wire: WireDescriptor) -> Descriptor {
        Descriptor { media_type: wire.media_type, digest: wire.digest, size: wire.size }
    }
}

/// Says what a document is; `told` is the media type that came with it.
pub fn classify(bytes: &[u8], told: &str) -> Result<Kind, serde_json::Error> {
    let wire: Wire = serde_json::from_slice(bytes)?;
    if let Some(config) = wire.config {
        let config = Descriptor::from(config);
        return Ok(match config.media_type.as_str() {
            MEDIA_TYPE => Kind::Cache(config),
            BUILDKIT_TYPE => Kind::BuildKit,
            kind if [MediaTypes::Oci, MediaTypes::Docker].map(manifest::config_type).contains(&kind) => {
                Kind::Image(config)
            }
            kind => Kind::Foreign(kind.to_string()),
        });
    }
    let children: Vec<Descriptor> = wire.manifests.unwrap_or_default().into_iter().map(Descriptor::from).collect();
    // BuildKit's other form: an index of layers, the config among them.
    if children.iter().any(|child| child.media_type == BUILDKIT_TYPE) {
        return Ok(Kind::BuildKit);
    }
    let media_type = wire.media_type.unwrap_or_else(|| told.to_string());
    match INDEX_TYPES.contains(&media_type.as_str()) {
        true => {
            let is_image = |child: &Descriptor| MANIFEST_TYPES.contains(&child.media_type.as_str());
            Ok(Kind::Index(children.into_iter().filter(is_image).collect()))
        }
        false => Ok(Kind::Foreign(media_type)),
    }
}

/// The documents of a cache.
pub struct Documents {
    pub config: Descriptor,
    pub config_bytes: Vec<u8>,
    pub manifest: Descriptor,
    pub manifest_bytes: Vec<u8>,
}

/// Writes an index as documents.
pub fn documents(index: &Index) -> Documents {
    let describe = |media_type: &str, bytes: &[u8]| Descriptor {
        media_type: media_type.to_string(),
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
    };
    let config_bytes = index.to_bytes();
    let config = describe(MEDIA_TYPE, &config_bytes);
    let layers: Vec<Descriptor> = index.blobs().values().map(|blob| blob.descriptor()).collect();
    let media_type = manifest::manifest_type(MediaTypes::Oci);
    let manifest_bytes = json!({ "schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers });
    let manifest_bytes = manifest_bytes.to_string().into_bytes();
    let manifest = describe(media_type, &manifest_bytes);
    Documents { config, config_bytes, manifest, manifest_bytes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_documents() {
        let check = |json: &str, want: &str| {
            let kind = format!("{:?}", classify(json.as_bytes(), "told").unwrap());
            assert!(kind.starts_with(want), "{json}: {kind}");
        };
        let digest = Digest::of(b"x");
        let config = |kind: &str| format!(r#"{{"config":{{"mediaType":"{kind}","digest":"{digest}","size":1}}}}"#);
        check(&config("application/vnd.buildkit.cacheconfig.v0"), "BuildKit");
        check(&config(MEDIA_TYPE), "Cache");
        check(&config("application/vnd.oci.image.config.v1+json"), "Image");
        check(&config("application/vnd.docker.container.image.v1+json"), "Image");
        check(&config("application/vnd.cncf.helm.config.v1+json"), "Foreign");
        let index = |kind: &str| {
            format!(
                r#"{{"mediaType":"{}","manifests":[{{"mediaType":"{kind}","digest":"{digest}","size":1}}]}}"#,
                INDEX_TYPES[0]
            )
        };
        check(&index("application/vnd.buildkit.cacheconfig.v0"), "BuildKit");
        check(&index(MANIFEST_TYPES[0]), "Index([Descriptor");
        check(r#"{}"#, "Foreign(\"told\")");
        assert!(classify(b"x", "").is_err());
    }

    #[test]
    fn what_is_written_is_known_again() {
        let documents = documents(&Index::default());
        assert_eq!(classify(&documents.manifest_bytes, "").unwrap(), Kind::Cache(documents.config));
    }
}
