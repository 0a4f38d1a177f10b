//! `unpack=true` of `type=image`: the image into the running containerd of this machine, ready to run; where there is none,
//! into its dockerd, as `--load` does.

use super::{Export, ExportError, archive, docker_load};
use crate::containerd::{self, Blob, ContainerdError, Labels, Leased, PackedLayer, references};
use crate::dockerd::{self, DaemonError};
use crate::image::assemble::{Assembled, AssembledImage};
use cache::digest::Digest;
use cache::error::StoreError;
use cache::store::Store;
use frontend::platform::Platform;
use frontend::reference::Reference;
use futures::{StreamExt, TryStreamExt};
use std::collections::HashSet;
use std::ffi::OsString;
use std::sync::atomic::{AtomicU64, Ordering};

/// Blobs that containerd is asked about, or given, at once.
const AT_ONCE: usize = 4;

/// What an image is unpacked into.
pub enum Place {
    Containerd(containerd::Place),
    Dockerd(dockerd::Place),
}

/// Looks for what runs here, so that it is said before anything is built. `environment` gives variables.
pub fn place(environment: &dyn Fn(&str) -> Option<OsString>) -> Result<Place, ExportError> {
    let absent = match containerd::find(environment) {
        Ok(place) => return Ok(Place::Containerd(place)),
        Err(error @ ContainerdError::Absent { is_set: true, .. }) => return Err(error.into()),
        Err(error) => error,
    };
    match dockerd::find(environment) {
        Ok(place) => Ok(Place::Dockerd(place)),
        Err(DaemonError::NoSocket { sockets }) => {
            Err(ExportError::NothingRuns { sockets: sockets.join(" or "), source: absent })
        }
        Err(error) => Err(error.into()),
    }
}

impl Place {
    /// Unpacks what is for this machine. `stored_names` are as image stores have them.
    pub async fn unpack(
        &self,
        assembled: &Assembled,
        names: &[Reference],
        stored_names: &[String],
        export: &Export<'_>,
    ) -> Result<(), ExportError> {
        let images = for_this_machine(assembled);
        match self {
            Place::Containerd(place) => {
                let leased = Leased::begin(place).await?;
                let unpacked = Unpacking { leased: &leased, export }.run(assembled, &images, stored_names).await;
                match leased.end().await {
                    Err(error) if unpacked.is_ok() => Err(error.into()),
                    _ => unpacked,
                }
            }
            Place::Dockerd(place) => {
                let [image] = images.as_slice() else { return Err(ExportError::DockerdPlatforms) };
                // dockerd has no place for an index and what is attested.
                let image = AssembledImage { attestations: vec![], ..(*image).clone() };
                docker_load::load(place, &Assembled { images: vec![image], index: None }, names, export).await
            }
        }
    }
}

/// The images of this machine's platform. If there is none, the result was built for others on purpose, and it is all.
fn for_this_machine(assembled: &Assembled) -> Vec<&AssembledImage> {
    let host = crate::host_platform();
    let is_hosts = |platform: &Platform| (&platform.os, &platform.architecture) == (&host.os, &host.architecture);
    let own: Vec<_> = assembled.images.iter().filter(|image| is_hosts(&image.platform)).collect();
    if own.is_empty() { assembled.images.iter().collect() } else { own }
}

struct Unpacking<'a> {
    leased: &'a Leased,
    export: &'a Export<'a>,
}

impl Unpacking<'_> {
    async fn run(
        &self,
        assembled: &Assembled,
        images: &[&AssembledImage],
        stored_names: &[String],
    ) -> Result<(), ExportError> {
        let store = self.export.store;
        let blobs = blobs(assembled, store)?;
        let all = blobs.len();
        let lacking: Vec<Blob> = futures::stream::iter(blobs)
            .map(|blob| async move { self.leased.has(&blob).await.map(|has| (!has).then_some(blob)) })
            .buffered(AT_ONCE)
            .try_filter_map(async |lacking| Ok(lacking))
            .try_collect()
            .await?;
        self.fetch(assembled, &lacking).await?;
        self.give(lacking, all).await?;
        let snapshotter = self.leased.snapshotter().await?;
        for image in images {
            self.unpack(image, &snapshotter).await?;
        }
        let target = assembled.top().descriptor();
        for name in stored_names {
            self.leased.name(name, &target).await?;
            self.export.vertex.status_done(&format!("naming to {name} in containerd"), 0, 0);
        }
        Ok(())
    }

    /// Layers of base images that neither containerd nor the store has.
    async fn fetch(&self, assembled: &Assembled, lacking: &[Blob]) -> Result<(), ExportError> {
        let lacking: HashSet<&Digest> = lacking.iter().map(|blob| &blob.digest).collect();
        let mut fetched = assembled.clone();
        for image in &mut fetched.images {
            image.layers.retain(|layer| lacking.contains(&layer.entry.digest));
        }
        archive::fetch_blobs(&fetched, self.export).await
    }

    async fn give(&self, lacking: Vec<Blob>, all: usize) -> Result<(), ExportError> {
        let total: u64 = lacking.iter().map(|blob| blob.size).sum();
        let status = match all - lacking.len() {
            0 => "sending image to containerd".to_string(),
            has => format!("sending image to containerd, which has {has} of {all} blobs"),
        };
        let (vertex, gone) = (self.export.vertex, AtomicU64::new(0));
        let sent = |bytes: u64| {
            let gone = gone.fetch_add(bytes, Ordering::Relaxed) + bytes;
            vertex.status(&status, gone.min(total), total);
        };
        sent(0);
        let sent = &sent;
        futures::stream::iter(lacking)
            .map(|blob| async move { self.leased.give(&blob, self.export.store, sent).await })
            .buffer_unordered(AT_ONCE)
            .try_collect::<()>()
            .await?;
        vertex.status_done(&status, total, total);
        Ok(())
    }

    async fn unpack(&self, image: &AssembledImage, snapshotter: &str) -> Result<(), ExportError> {
        let diff_ids = docker_load::diff_ids(image, self.export.store)?;
        if diff_ids.len() != image.layers.len() {
            return Err(ExportError::DiffIds { diff_ids: diff_ids.len(), layers: image.layers.len() });
        }
        let packed = image.layers.iter().zip(diff_ids);
        let packed = packed.map(|(layer, diff_id)| PackedLayer { blob: layer.entry.descriptor(), diff_id });
        let packed: Vec<PackedLayer> = packed.collect();
        let status = format!("unpacking for containerd's snapshotter {snapshotter}");
        let vertex = self.export.vertex;
        let bytes = |layers: &[PackedLayer]| layers.iter().map(|layer| layer.blob.size).sum::<u64>();
        let begun = |index: usize| vertex.status(&status, bytes(&packed[..index]), bytes(&packed));
        match self.leased.unpack(snapshotter, &packed, &image.config.digest, &begun).await? {
            0 => vertex.status_done(&format!("containerd's snapshotter {snapshotter} has all layers"), 0, 0),
            _ => vertex.status_done(&status, bytes(&packed), bytes(&packed)),
        }
        Ok(())
    }
}

/// All blobs that the image is made of, each once, with the labels that hold what they name.
fn blobs(assembled: &Assembled, store: &Store) -> Result<Vec<Blob>, StoreError> {
    let attested = assembled.images.iter().flat_map(|image| &image.attestations).map(|about| &about.manifest);
    let manifests = assembled.images.iter().map(|image| &image.manifest);
    let documents: HashSet<&Digest> =
        manifests.chain(attested).chain(&assembled.index).map(|entry| &entry.digest).collect();
    let blob = |(digest, size): (Digest, u64)| {
        let labels = match documents.contains(&digest) {
            true => references(&store.content().read_small(&digest)?),
            false => Labels::new(),
        };
        Ok(Blob { digest, size, labels })
    };
    archive::blobs(assembled).into_iter().map(blob).collect()
}
