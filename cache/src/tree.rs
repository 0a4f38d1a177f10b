//! What a step's result is: a stack of layers, each a snapshot on disk, or a blob from which one can be made.

use crate::digest::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use solver::key::CacheKey;

/// Names a snapshot: the folder `snapshots/<id>`. Made from contents, so equal trees on equal parents share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SnapshotId(pub String);

/// One layer of a [`Tree`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// Where its files are, or will be once it is unpacked: in overlayfs' upper form.
    pub snapshot: SnapshotId,
    /// What it changes, whatever it lies on: the diff_id's digest for a layer of an image, the checksum of the
    /// changes (`checksum.rs`) for a layer made by a step. Hex.
    pub change: String,
    /// When it was made, milliseconds since 1970; `None` for layers of images.
    pub created_ms: Option<i64>,
    /// The blob it can be made from, for a layer of an image.
    pub remote: Option<RemoteLayer>,
}

/// A layer of an image that was pulled, or could be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RemoteLayer {
    /// Of the compressed blob.
    pub descriptor: Descriptor,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// Canonical reference of the image, or path of the layout, or name of the remote cache, to fetch the blob from.
    pub origin: String,
    /// For a step's layer in a remote cache: how kiln compressed it, as `Compression` prints it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<String>,
}

/// A file system: layers, lowest first. Empty for an empty one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Tree {
    /// Lowest first (image-spec config.md, `rootfs.diff_ids`).
    pub layers: Vec<Layer>,
}

impl Tree {
    /// Digest of the whole content: each layer's change hashed onto the digest of those below it. All zero if empty.
    pub fn content(&self) -> CacheKey {
        self.layers.iter().fold(CacheKey([0; 32]), |below, layer| stack(&below, &layer.change))
    }

    /// The tree with one more layer on top.
    pub fn with(&self, layer: Layer) -> Tree {
        let mut layers = self.layers.clone();
        layers.push(layer);
        Tree { layers }
    }
}

/// Content id of a layer with this change on top of `below`; its hex form is the layer's [`SnapshotId`].
pub fn stack(below: &CacheKey, change: &str) -> CacheKey {
    CacheKey::of(format!("{below}\n{change}").as_bytes())
}
