//! Reads images from OCI layouts (image-spec image-layout.md): folders with `index.json` and `blobs/`.

use crate::image::manifest::{IMAGE_NAME, REF_NAME};
use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Largest document that is read, in bytes.
const DOCUMENT_LIMIT: u64 = 16 << 20;

/// An OCI layout that is a named context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its folder, absolute.
    pub path: PathBuf,
    /// A tag, a full name, or a digest; `None` is the only image, else the one tagged `latest`.
    pub name: Option<String>,
}

/// Why a layout cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// A file cannot be read.
    #[error("cannot read `{}` of the OCI layout", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// `index.json` is not an index.
    #[error("`{}` is not the index of an OCI layout", path.display())]
    Index {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// There is no such image.
    #[error("the OCI layout `{}` has no image `{name}`; it has {}", path.display(), available.join(", "))]
    NoImage {
        /// The layout's folder.
        path: PathBuf,
        /// As asked for.
        name: String,
        /// Tags and digests that there are.
        available: Vec<String>,
    },
    /// Bytes are not what their digest says.
    #[error("blob {expected} of the OCI layout `{}` is damaged: its bytes are {actual}", path.display())]
    Digest {
        /// The layout's folder.
        path: PathBuf,
        /// The name of the file.
        expected: Digest,
        /// Of its bytes.
        actual: Digest,
    },
    /// A document is larger than any has to be.
    #[error("`{}` is larger than {DOCUMENT_LIMIT} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
}

#[derive(Deserialize)]
struct IndexJson {
    #[serde(default)]
    manifests: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(default)]
    media_type: String,
    digest: String,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Entry {
    fn annotation(&self, name: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(name).map(String::as_str)
    }

    fn descriptor(&self) -> Option<Descriptor> {
        let digest = self.digest.parse().ok()?;
        Some(Descriptor { media_type: self.media_type.clone(), digest, size: self.size })
    }
}

/// What the layout's name means: by digest, image name, or tag.
pub fn resolve(layout: &Layout) -> Result<Descriptor, LayoutError> {
    let path = layout.path.join("index.json");
    let text = read(&path)?;
    let index: IndexJson =
        serde_json::from_slice(&text).map_err(|source| LayoutError::Index { path: path.clone(), source })?;
    let entries = index.manifests.unwrap_or_default();
    if let Some(descriptor) = find(&entries, layout.name.as_deref()) {
        return Ok(descriptor);
    }
    // A digest may also name what is below an index.
    if let Some(digest) = layout.name.as_deref().and_then(|name| name.parse::<Digest>().ok())
        && let Ok(bytes) = read_small(&layout.path, &digest)
    {
        return Ok(Descriptor { media_type: String::new(), digest, size: bytes.len() as u64 });
    }
    let name = layout.name.clone().unwrap_or_else(|| "latest".into());
    let called = |entry: &Entry| entry.annotation(REF_NAME).unwrap_or(&entry.digest).to_string();
    Err(LayoutError::NoImage { path: layout.path.clone(), name, available: entries.iter().map(called).collect() })
}

fn find(entries: &[Entry], name: Option<&str>) -> Option<Descriptor> {
    let wanted = match name {
        None if entries.len() == 1 => return entries[0].descriptor(),
        None => "latest",
        Some(name) => name,
    };
    let normalised = Reference::parse(wanted).ok().map(|reference| reference.to_string());
    let by_name = |entry: &&Entry| {
        let has = entry.annotation(IMAGE_NAME);
        has.is_some() && (has == Some(wanted) || has == normalised.as_deref())
    };
    let by_tag = |entry: &&Entry| entry.annotation(REF_NAME) == Some(wanted);
    let by_digest = |entry: &&Entry| entry.digest == wanted;
    let found = entries.iter().find(by_digest).or_else(|| entries.iter().find(by_name));
    found.or_else(|| entries.iter().find(by_tag))?.descriptor()
}

/// A manifest, index or config of a layout, verified.
pub fn read_small(layout: &Path, digest: &Digest) -> Result<Vec<u8>, LayoutError> {
    let bytes = read(&blob_path(layout, digest))?;
    let actual = Digest::of(&bytes);
    if actual != *digest {
        return Err(LayoutError::Digest { path: layout.to_owned(), expected: digest.clone(), actual });
    }
    Ok(bytes)
}

/// Opens a blob of a layout. Whoever reads it verifies it.
pub fn open(layout: &Path, digest: &Digest) -> Result<File, LayoutError> {
    let path = blob_path(layout, digest);
    File::open(&path).map_err(|source| LayoutError::Read { path, source })
}

fn blob_path(layout: &Path, digest: &Digest) -> PathBuf {
    layout.join("blobs/sha256").join(digest.hex())
}

fn read(path: &Path) -> Result<Vec<u8>, LayoutError> {
    let failed = |source| LayoutError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).map_err(failed)?.take(DOCUMENT_LIMIT + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > DOCUMENT_LIMIT {
        return Err(LayoutError::TooLarge { path: path.to_owned() });
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, image: Option<&str>, tag: Option<&str>) -> Entry {
        let named = [(IMAGE_NAME, image), (REF_NAME, tag)];
        let annotations = named.iter().filter_map(|(key, value)| Some((key.to_string(), value.as_ref()?.to_string())));
        Entry {
            media_type: String::new(),
            digest: Digest::of(content.as_bytes()).to_string(),
            size: 1,
            annotations: Some(annotations.collect()),
        }
    }

    #[test]
    fn names_in_a_layout() {
        let entries = [
            entry("a", Some("docker.io/library/x:1"), Some("1")),
            entry("b", Some("docker.io/library/y:1"), Some("1")),
            entry("c", None, Some("latest")),
        ];
        let check = |entries: &[Entry], name: Option<&str>, expect: Option<&str>| {
            let found = find(entries, name).map(|descriptor| descriptor.digest);
            assert_eq!(found, expect.map(|content| Digest::of(content.as_bytes())), "{name:?}");
        };
        check(&entries, None, Some("c"));
        check(&entries, Some("1"), Some("a"));
        check(&entries, Some("y:1"), Some("b"));
        check(&entries, Some("docker.io/library/y:1"), Some("b"));
        check(&entries, Some(Digest::of(b"b").as_str()), Some("b"));
        check(&entries, Some("2"), None);
        check(&entries[..1], None, Some("a"));
        check(&entries[..2], None, None);
        check(&[], None, None);
    }
}
