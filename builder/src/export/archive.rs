//! The archive that `oci` and `docker` write: an OCI layout in a tar, entries in bytewise order of name, uid, gid and
//! times 0 (reference/engine.md 2.9 and 2.10). Blobs are streamed from the store.

use super::{Export, ExportError};
use crate::image::assemble::{Assembled, AssembledImage};
use crate::image::manifest::{Entry, IMAGE_NAME, REF_NAME, layout_index};
use cache::digest::Digest;
use cache::tree::{Layer, SnapshotId};
use frontend::reference::Reference;
use std::collections::BTreeMap;
use std::io::Write;

/// A file of the layout, beside the blobs.
pub struct Extra {
    pub name: &'static str,
    pub mode: u32,
    pub content: Vec<u8>,
}

/// `oci-layout` (image-spec image-layout.md).
pub fn oci_layout_file() -> Extra {
    Extra { name: "oci-layout", mode: 0o444, content: br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec() }
}

/// Digests and sizes of all blobs that the documents name, in order of digest, each once.
pub fn blobs<'a>(assembled: &'a Assembled) -> BTreeMap<Digest, u64> {
    let of_image = |image: &'a AssembledImage| {
        let attested = image.attestations.iter().flat_map(|about| [&about.manifest].into_iter().chain(about.blobs()));
        let layers = image.layers.iter().map(|layer| &layer.entry);
        [&image.manifest, &image.config].into_iter().chain(layers).chain(attested)
    };
    let entries = assembled.index.iter().chain(assembled.images.iter().flat_map(of_image));
    entries.map(|entry| (entry.digest.clone(), entry.size)).collect()
}

/// Fetches the layers of base images whose blobs are not in the store yet.
pub async fn fetch_blobs(assembled: &Assembled, export: &Export<'_>) -> Result<(), ExportError> {
    let layers = assembled.images.iter().flat_map(|image| &image.layers).filter_map(|layer| layer.remote.clone());
    let layers = layers.map(|remote| Layer {
        snapshot: SnapshotId(String::new()),
        change: remote.diff_id.hex().to_string(),
        created_ms: None,
        remote: Some(remote),
    });
    let tree = layers.collect();
    Ok(export.sources.ensure_blobs(&tree, export.vertex).await?)
}

/// Entries of `index.json`: one for each name, or a single one without.
pub fn index_entries(assembled: &Assembled, names: &[Reference]) -> Vec<Entry> {
    let mut top = assembled.top().clone();
    let created = assembled.images[0].created.clone().filter(|_| assembled.index.is_none());
    if let Some(created) = created {
        top.annotations.insert("org.opencontainers.image.created".into(), created);
    }
    if names.is_empty() {
        return vec![top];
    }
    let named = |name: &Reference| {
        let mut entry = top.clone();
        entry.annotations.insert(IMAGE_NAME.to_string(), name.to_string());
        let tag = name.tag.clone().or_else(|| name.digest.is_none().then(|| "latest".into()));
        entry.annotations.extend(tag.map(|tag| (REF_NAME.to_string(), tag)));
        entry
    };
    names.iter().map(named).collect()
}

/// `index.json` of the layout.
pub fn index_file(entries: &[Entry]) -> Extra {
    Extra { name: "index.json", mode: 0o644, content: layout_index(entries) }
}

/// Writes the archive. `extras` come after the blobs; their names must sort after `blobs/`.
pub fn write(
    out: &mut dyn Write,
    store: &cache::store::Store,
    blobs: &BTreeMap<Digest, u64>,
    extras: &[Extra],
) -> Result<(), ExportError> {
    let mut archive = tar::Builder::new(out);
    for name in ["blobs/", "blobs/sha256/"] {
        let mut header = header(tar::EntryType::Directory, 0o755, 0);
        archive.append_data(&mut header, name, std::io::empty()).map_err(ExportError::Archive)?;
    }
    for (digest, size) in blobs {
        let mut header = header(tar::EntryType::Regular, 0o444, *size);
        let file = store.content().open_verified(digest)?;
        archive
            .append_data(&mut header, format!("blobs/sha256/{}", digest.hex()), file)
            .map_err(ExportError::Archive)?;
    }
    for extra in extras {
        let mut header = header(tar::EntryType::Regular, extra.mode, extra.content.len() as u64);
        archive.append_data(&mut header, extra.name, extra.content.as_slice()).map_err(ExportError::Archive)?;
    }
    archive.finish().map_err(ExportError::Archive)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}
