//! What a step's result is: a stack of layers, each a snapshot on disk, or a blob from which one can be made.

use crate::digest::{Descriptor, Digest};
use serde::{Deserialize, Serialize};
use solver::key::CacheKey;
use std::sync::{Arc, OnceLock};

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

/// A file system: layers, lowest first. Empty for an empty one. Layers are shared with the trees that this one was made
/// of, and the content is known from the tree below: in a chain of hundreds of steps each step has such a tree.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    layers: Vec<Arc<Layer>>,
    /// Once it was asked for.
    content: OnceLock<CacheKey>,
}

impl PartialEq for Tree {
    fn eq(&self, other: &Tree) -> bool {
        self.layers == other.layers
    }
}

impl FromIterator<Arc<Layer>> for Tree {
    /// Lowest first.
    fn from_iter<I: IntoIterator<Item = Arc<Layer>>>(layers: I) -> Tree {
        Tree { layers: layers.into_iter().collect(), content: OnceLock::new() }
    }
}

impl FromIterator<Layer> for Tree {
    /// Lowest first.
    fn from_iter<I: IntoIterator<Item = Layer>>(layers: I) -> Tree {
        layers.into_iter().map(Arc::new).collect()
    }
}

impl Tree {
    /// Of an image: its layers as they can be had, lowest first. Each is named by its tar and those below it.
    pub fn of_image(remotes: impl IntoIterator<Item = RemoteLayer>) -> Tree {
        let mut below = CacheKey([0; 32]);
        let layer = |remote: RemoteLayer| {
            let change = remote.diff_id.hex().to_string();
            below = stack(&below, &change);
            Layer { snapshot: SnapshotId(below.to_hex()), change, created_ms: None, remote: Some(remote) }
        };
        remotes.into_iter().map(layer).collect()
    }

    /// Lowest first (image-spec config.md, `rootfs.diff_ids`).
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.layers
    }

    /// Digest of the whole content: each layer's change hashed onto the digest of those below it. All zero if empty.
    pub fn content(&self) -> CacheKey {
        let of_layers = || self.layers.iter().fold(CacheKey([0; 32]), |below, layer| stack(&below, &layer.change));
        *self.content.get_or_init(of_layers)
    }

    /// The tree with one more layer on top.
    pub fn with(&self, layer: Layer) -> Tree {
        let mut layers = Vec::with_capacity(self.layers.len() + 1);
        layers.extend(self.layers.iter().cloned());
        let content = stack(&self.content(), &layer.change).into();
        layers.push(Arc::new(layer));
        Tree { layers, content }
    }

    /// The lowest `count` layers, as a tree.
    pub fn lowest(&self, count: usize) -> Tree {
        self.layers[..count].iter().cloned().collect()
    }
}

/// Content id of a layer with this change on top of `below`; its hex form is the layer's [`SnapshotId`].
pub fn stack(below: &CacheKey, change: &str) -> CacheKey {
    CacheKey::of(format!("{below}\n{change}").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(change: &str) -> Layer {
        Layer { snapshot: SnapshotId(format!("s-{change}")), change: change.into(), created_ms: None, remote: None }
    }

    #[test]
    fn content_is_the_same_however_the_tree_came_to_be() {
        let made = Tree::default().with(layer("a")).with(layer("b"));
        let collected: Tree = [layer("a"), layer("b")].into_iter().collect();
        assert_eq!(made, collected);
        assert_eq!(made.lowest(1), Tree::from_iter([layer("a")]));
        assert_eq!(made.content(), collected.content());
        assert_ne!(made.content(), [layer("b"), layer("a")].into_iter().collect::<Tree>().content());
        assert_eq!(Tree::default().content(), CacheKey([0; 32]));
    }
}
