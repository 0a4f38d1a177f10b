//! Manifests and indexes as BuildKit writes them: two spaces of indentation, members in the order of the structs,
//! maps sorted (reference/engine.md 2.4). The crate oci-spec keeps annotations in a hash map, whose order changes from
//! run to run and with it the digest, so these documents are written from structs of our own.

use super::config::go_escape;
use cache::digest::{Descriptor, Digest};
use cache::layer::compression::{Compression, MediaTypes};
use frontend::platform::Platform;
use serde::Serialize;
use std::collections::BTreeMap;

/// Annotation of an entry of an index that is about another one: what it is.
pub const REFERENCE_TYPE: &str = "vnd.docker.reference.type";
/// And which one it is about: a digest.
pub const REFERENCE_DIGEST: &str = "vnd.docker.reference.digest";

/// Annotations, sorted by name.
pub type Annotations = BTreeMap<String, String>;

/// Annotation of an entry of a layout's index: the image's whole name, as containerd reads it.
pub const IMAGE_NAME: &str = "io.containerd.image.name";
/// Annotation of an entry of a layout's index: its tag (image-spec annotations.md).
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// Media type of a manifest.
pub fn manifest_type(types: MediaTypes) -> &'static str {
    match types {
        MediaTypes::Oci => "application/vnd.oci.image.manifest.v1+json",
        MediaTypes::Docker => "application/vnd.docker.distribution.manifest.v2+json",
    }
}

/// Media type of an index.
pub fn index_type(types: MediaTypes) -> &'static str {
    match types {
        MediaTypes::Oci => "application/vnd.oci.image.index.v1+json",
        MediaTypes::Docker => "application/vnd.docker.distribution.manifest.list.v2+json",
    }
}

/// Media type of an image config.
pub fn config_type(types: MediaTypes) -> &'static str {
    match types {
        MediaTypes::Oci => "application/vnd.oci.image.config.v1+json",
        MediaTypes::Docker => "application/vnd.docker.container.image.v1+json",
    }
}

/// The name in a family of a layer's media type, whichever family it came in.
pub fn layer_type(types: MediaTypes, media_type: &str) -> &'static str {
    let compression = match media_type.rsplit(['+', '.']).next() {
        Some("gzip") => Compression::Gzip { level: None },
        Some("zstd") => Compression::Zstd { level: None },
        _ => Compression::Uncompressed,
    };
    compression.media_type(types)
}

/// A descriptor as it stands in manifests and indexes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    pub annotations: Annotations,
    /// The content itself, in base64, of what is tiny.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub platform: Option<PlatformEntry>,
}

impl Entry {
    /// Without annotations and platform.
    pub fn plain(descriptor: Descriptor) -> Entry {
        let Descriptor { media_type, digest, size } = descriptor;
        Entry { media_type, digest, size, annotations: Annotations::new(), data: None, platform: None }
    }

    /// Type, digest and size alone.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest.clone(), size: self.size }
    }
}

/// `platform` of a descriptor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlatformEntry {
    pub architecture: String,
    pub os: String,
    #[serde(rename = "os.version", skip_serializing_if = "String::is_empty")]
    pub os_version: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub variant: String,
}

impl From<&Platform> for PlatformEntry {
    fn from(platform: &Platform) -> PlatformEntry {
        PlatformEntry {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            os_version: platform.os_version.clone(),
            variant: platform.variant.clone(),
        }
    }
}

/// A manifest's bytes. An image without layers says `null`, as BuildKit does.
pub fn manifest(types: MediaTypes, config: &Entry, layers: &[Entry], annotations: &Annotations) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Manifest<'a> {
        schema_version: u32,
        media_type: &'a str,
        config: &'a Entry,
        layers: Option<&'a [Entry]>,
        #[serde(skip_serializing_if = "Annotations::is_empty")]
        annotations: &'a Annotations,
    }
    let layers = (!layers.is_empty()).then_some(layers);
    pretty(&Manifest { schema_version: 2, media_type: manifest_type(types), config, layers, annotations })
}

/// A manifest's bytes of what is no image, but something about the image that `subject` names.
pub fn artifact(artifact_type: &str, config: &Entry, layers: &[Entry], subject: &Entry) -> Vec<u8> {
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Artifact<'a> {
        schema_version: u32,
        media_type: &'a str,
        artifact_type: &'a str,
        config: &'a Entry,
        layers: &'a [Entry],
        subject: &'a Entry,
    }
    let media_type = manifest_type(MediaTypes::Oci);
    pretty(&Artifact { schema_version: 2, media_type, artifact_type, config, layers, subject })
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Index<'a, E> {
    schema_version: u32,
    media_type: &'a str,
    manifests: &'a [E],
    #[serde(skip_serializing_if = "Annotations::is_empty")]
    annotations: &'a Annotations,
}

/// An index's bytes. The entries are ours, or as others wrote them.
pub fn index(types: MediaTypes, manifests: &[impl Serialize], annotations: &Annotations) -> Vec<u8> {
    pretty(&Index { schema_version: 2, media_type: index_type(types), manifests, annotations })
}

/// Bytes of a layout's `index.json`, which BuildKit writes without indentation (image-spec image-layout.md).
pub fn layout_index(manifests: &[Entry]) -> Vec<u8> {
    let (media_type, annotations) = (index_type(MediaTypes::Oci), &Annotations::new());
    let index = Index { schema_version: 2, media_type, manifests, annotations };
    go_escape(&serde_json::to_string(&index).expect("documents are plain data")).into_bytes()
}

fn pretty(document: &impl Serialize) -> Vec<u8> {
    go_escape(&serde_json::to_string_pretty(document).expect("documents are plain data")).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layer_types_change_family() {
        let check = |types: MediaTypes, from: &str, want: &str| assert_eq!(layer_type(types, from), want);
        let (oci, docker) = (MediaTypes::Oci, MediaTypes::Docker);
        check(oci, "application/vnd.docker.image.rootfs.diff.tar.gzip", "application/vnd.oci.image.layer.v1.tar+gzip");
        check(
            docker,
            "application/vnd.oci.image.layer.v1.tar+zstd",
            "application/vnd.docker.image.rootfs.diff.tar.zstd",
        );
        check(docker, "application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar");
        check(oci, "application/vnd.oci.image.layer.v1.tar+gzip", "application/vnd.oci.image.layer.v1.tar+gzip");
    }

    #[test]
    fn documents_have_a_fixed_form() {
        let config = Entry::plain(Descriptor { media_type: "c".into(), digest: Digest::of(b""), size: 0 });
        let text = String::from_utf8(manifest(MediaTypes::Oci, &config, &[], &Annotations::new())).unwrap();
        let start = "{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\",\n";
        assert!(text.starts_with(start), "{text}");
        assert!(text.ends_with("  \"layers\": null\n}"), "{text}");
    }
}
