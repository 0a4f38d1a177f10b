//! Layers into containerd's snapshots, as containerd's client unpacks an image: each layer is applied by containerd onto
//! what a snapshot of the layers below prepared, and committed under the chain id (image-spec config.md, Layer ChainID).

use super::api::{
    DiffApplied, DiffApply, Empty, Labels, LeaseAdd, NamespaceGet, NamespaceGot, Resource, SnapshotCommit, SnapshotKey,
    SnapshotPrepare, SnapshotPrepared,
};
use super::grpc::code;
use super::{ContainerdError, Leased, descriptor};
use cache::digest::{Descriptor, Digest};

/// What a namespace has if its label says nothing else, as for containerd's client.
const DEFAULT_SNAPSHOTTER: &str = "overlayfs";
pub(super) const SHOW: &str = "show a snapshot";
pub(super) const PREPARE: &str = "prepare a snapshot";
pub(super) const APPLY: &str = "unpack a layer";

/// A layer of an image in containerd.
#[derive(Clone, Debug)]
pub struct PackedLayer {
    pub blob: Descriptor,
    /// Of the tar, uncompressed.
    pub diff_id: Digest,
}

impl Leased {
    /// The snapshotter of the place, else of its namespace.
    pub async fn snapshotter(&self) -> Result<String, ContainerdError> {
        if let Some(snapshotter) = &self.place.snapshotter {
            return Ok(snapshotter.clone());
        }
        let get = NamespaceGet { name: self.place.namespace.clone() };
        let got = self.call::<_, NamespaceGot>("namespaces.v1.Namespaces/Get", "show a namespace", &get).await;
        let labels = match got {
            Ok(NamespaceGot { namespace }) => namespace.unwrap_or_default().labels,
            // It is made by what is first put into it.
            Err(error) if error.is(code::NOT_FOUND) => Labels::new(),
            Err(error) => return Err(error),
        };
        let label = labels.get("containerd.io/defaults/snapshotter").filter(|name| !name.is_empty());
        Ok(label.map_or(DEFAULT_SNAPSHOTTER, String::as_str).to_string())
    }

    /// Makes the snapshots that are missing of an image's layers, lowest first, and has its config refer to the topmost.
    /// `begun` is told the place of each layer that is unpacked. Gives how many those were.
    pub async fn unpack(
        &self,
        snapshotter: &str,
        layers: &[PackedLayer],
        config: &Digest,
        begun: &(dyn Fn(usize) + Sync),
    ) -> Result<usize, ContainerdError> {
        let chain = chain_ids(layers.iter().map(|layer| &layer.diff_id));
        let Some(top) = chain.last() else { return Ok(0) };
        let mut made = chain.len();
        while made > 0 && !self.has_snapshot(snapshotter, &chain[made - 1]).await? {
            made -= 1;
        }
        for (index, layer) in layers.iter().enumerate().skip(made) {
            begun(index);
            let parent = index.checked_sub(1).map(|below| &chain[below]);
            self.unpack_layer(snapshotter, layer, parent, &chain[index]).await?;
        }
        let snapshot = (format!("containerd.io/gc.ref.snapshot.{snapshotter}"), top.to_string());
        self.label(config, &Labels::from([snapshot])).await?;
        Ok(chain.len() - made)
    }

    /// Whether a snapshot is there; if so, the lease holds it from now on.
    async fn has_snapshot(&self, snapshotter: &str, chain_id: &Digest) -> Result<bool, ContainerdError> {
        // Held first, so that it cannot go once it was seen.
        let resource = Resource { id: chain_id.to_string(), kind: format!("snapshots/{snapshotter}") };
        let add = LeaseAdd { id: self.lease.clone(), resource: Some(resource) };
        self.call::<_, Empty>("leases.v1.Leases/AddResource", "hold a snapshot", &add).await?;
        let key = SnapshotKey { snapshotter: snapshotter.into(), key: chain_id.to_string() };
        match self.call::<_, Empty>("snapshots.v1.Snapshots/Stat", SHOW, &key).await {
            Err(error) if error.is(code::NOT_FOUND) => Ok(false),
            result => result.map(|_| true),
        }
    }

    async fn unpack_layer(
        &self,
        snapshotter: &str,
        layer: &PackedLayer,
        parent: Option<&Digest>,
        chain_id: &Digest,
    ) -> Result<(), ContainerdError> {
        let key = format!("extract-{}-{:x} {chain_id}", self.lease, fastrand::u32(..));
        match self.fill(snapshotter, layer, parent, chain_id, &key).await {
            Ok(()) => Ok(()),
            Err(error) => {
                let remove = SnapshotKey { snapshotter: snapshotter.into(), key };
                // Else it goes with the lease.
                let _ = self.call::<_, Empty>("snapshots.v1.Snapshots/Remove", "remove a snapshot", &remove).await;
                // Another has unpacked the same layers meanwhile.
                if error.is(code::ALREADY_EXISTS) && self.has_snapshot(snapshotter, chain_id).await? {
                    return Ok(());
                }
                Err(error)
            }
        }
    }

    /// Prepares a snapshot, fills it and commits it.
    async fn fill(
        &self,
        snapshotter: &str,
        layer: &PackedLayer,
        parent: Option<&Digest>,
        chain_id: &Digest,
        key: &str,
    ) -> Result<(), ContainerdError> {
        let prepare = SnapshotPrepare {
            snapshotter: snapshotter.into(),
            key: key.into(),
            parent: parent.map(Digest::to_string).unwrap_or_default(),
        };
        let SnapshotPrepared { mounts } = self.call("snapshots.v1.Snapshots/Prepare", PREPARE, &prepare).await?;
        let apply = DiffApply { diff: Some(descriptor(&layer.blob)), mounts };
        let applied: DiffApplied = self.call("diff.v1.Diff/Apply", APPLY, &apply).await?;
        let actual = applied.applied.unwrap_or_default().digest;
        if actual != layer.diff_id.as_str() {
            return Err(ContainerdError::OtherLayer { expected: layer.diff_id.clone(), actual });
        }
        let commit = SnapshotCommit { snapshotter: snapshotter.into(), name: chain_id.to_string(), key: key.into() };
        self.call::<_, Empty>("snapshots.v1.Snapshots/Commit", "commit a snapshot", &commit).await?;
        // For pushes from there: what the layer is without its compression.
        let uncompressed = ("containerd.io/uncompressed".to_string(), layer.diff_id.to_string());
        self.label(&layer.blob.digest, &Labels::from([uncompressed])).await
    }
}

/// Chain ids of all layers, lowest first.
fn chain_ids<'a>(diff_ids: impl Iterator<Item = &'a Digest>) -> Vec<Digest> {
    let mut chain: Vec<Digest> = vec![];
    for diff_id in diff_ids {
        chain.push(match chain.last() {
            None => diff_id.clone(),
            Some(below) => Digest::of(format!("{below} {diff_id}").as_bytes()),
        });
    }
    chain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chain_ids_are_those_of_the_image_spec() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
        let two = Digest::of(format!("{a} {b}").as_bytes());
        let three = Digest::of(format!("{two} {c}").as_bytes());
        assert_eq!(chain_ids([&a, &b, &c].into_iter()), [a.clone(), two, three]);
        assert_eq!(chain_ids([].into_iter()), []);
    }
}
