//! A named image -> its documents: those that it has, else made as an exporter makes them. Same record, same bytes.

use super::record::{self, LocalError};
use crate::export::attributes::Attributes;
use crate::export::oci::assemble_for;
use crate::export::{Export, ImageAttributes};
use crate::image::assemble::{Assembled, AssembledImage, AssembledLayer, BuiltImage};
use crate::image::attestation::{AssembledAttestation, index_entry};
use crate::image::layers::LayerBlobs;
use crate::image::manifest::{self, Annotations, Entry};
use crate::progress::Vertex;
use crate::remote_cache::export::Exports;
use crate::source::image::ImageSource;
use cache::digest::Descriptor;
use cache::images::{AttestationDocuments, Documents, ImageRecord, PlatformImage};
use cache::layer::compression::MediaTypes;
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::store::Store;
use frontend::platform::Platform;
use std::collections::BTreeMap;

/// What documents are made with.
pub struct Maker<'a> {
    pub store: &'a Store,
    pub blobs: LayerBlobs,
    pub images: ImageSource,
    /// Where transfers are shown.
    pub vertex: &'a Vertex,
}

/// How much of an image is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// Also what is attested of it.
    All,
    /// Only the images themselves.
    Images,
}

/// What exporters work with, for an image that is no result of a build.
pub struct Made {
    pub built: Vec<BuiltImage>,
    pub epoch: Option<i64>,
    caches: Exports,
}

impl Maker<'_> {
    /// The documents of all platforms, or of one.
    pub async fn documents(
        &self,
        name: &str,
        record: &ImageRecord,
        platform: Option<&Platform>,
        extent: Extent,
    ) -> Result<(Made, Assembled), LocalError> {
        let wanted: Vec<&PlatformImage> = match platform {
            None => record.platforms.iter().collect(),
            Some(_) => vec![record::chosen(name, record, platform)?],
        };
        let built = wanted.iter().map(|image| record::as_built(name, image)).collect::<Result<Vec<_>, _>>()?;
        let made = Made { built, epoch: wanted.first().and_then(|image| image.epoch), caches: Exports::default() };
        let kept: Option<Vec<&Documents>> = wanted.iter().map(|image| image.documents.as_ref()).collect();
        let assembled = match (kept, &record.top) {
            (Some(documents), Some(top)) => {
                let parts = made.built.iter().zip(wanted.iter().zip(documents));
                let images: Vec<AssembledImage> =
                    parts.map(|(built, (image, documents))| of_documents(built, image, documents)).collect();
                self.indexed(images, top, record, platform, extent)?
            }
            _ => assemble_for(&plain(), &self.export(&made)).await?,
        };
        Ok((made, assembled))
    }

    /// The images with the index that their name stands for; with one that is made, if that names more than is wanted.
    fn indexed(
        &self,
        mut images: Vec<AssembledImage>,
        top: &Descriptor,
        record: &ImageRecord,
        platform: Option<&Platform>,
        extent: Extent,
    ) -> Result<Assembled, LocalError> {
        let is_attested = |images: &[AssembledImage]| images.iter().any(|image| !image.attestations.is_empty());
        let leaves_out = extent == Extent::Images && is_attested(&images);
        if extent == Extent::Images {
            images.iter_mut().for_each(|image| image.attestations.clear());
        }
        let is_whole = images.len() == record.platforms.len() && !leaves_out;
        let is_lone = images.len() == 1 && !is_attested(&images) && (platform.is_some() || leaves_out);
        let index = match () {
            () if is_lone || (is_whole && images[0].manifest.digest == top.digest) => None,
            () if is_whole => Some(Entry::plain(top.clone())),
            () => {
                let about = images.iter().flat_map(|image| &image.attestations).map(|about| &about.manifest);
                let entries: Vec<&Entry> = images.iter().map(|image| &image.manifest).chain(about).collect();
                let bytes = manifest::index(MediaTypes::Oci, &entries, &Annotations::new());
                let (digest, size) = (self.store.content().put(&bytes)?, bytes.len() as u64);
                let about = About { description: "index of a part of a named image".into(), category: "" };
                self.store.describe(ObjectId::new(Kind::Blob, digest.hex()), about);
                let media_type = manifest::index_type(MediaTypes::Oci).into();
                Some(Entry::plain(Descriptor { media_type, digest, size }))
            }
        };
        Ok(Assembled { images, index })
    }

    /// For exporters.
    pub fn export<'a>(&'a self, made: &'a Made) -> Export<'a> {
        Export {
            images: &made.built,
            multi_platform: false,
            epoch: made.epoch,
            store: self.store,
            blobs: &self.blobs,
            sources: &self.images,
            caches: &made.caches,
            vertex: self.vertex,
        }
    }
}

/// As an exporter without attributes.
fn plain() -> ImageAttributes {
    Attributes::new("image", BTreeMap::new()).image(false).expect("no attributes have no faults")
}

fn of_documents(built: &BuiltImage, image: &PlatformImage, documents: &Documents) -> AssembledImage {
    let mut manifest = Entry::plain(documents.manifest.clone());
    manifest.platform = Some((&built.platform).into());
    let layers = documents.layers.iter().zip(&image.layers).map(|(blob, layer)| AssembledLayer {
        entry: Entry::plain(blob.clone()),
        // The blob may be another than the layer was pulled as: then it was made here.
        remote: layer.remote.clone().filter(|remote| remote.descriptor.digest == blob.digest),
    });
    AssembledImage {
        attestations: documents.attestations.iter().map(|about| of_attestation(about, &documents.manifest)).collect(),
        layers: layers.collect(),
        config: Entry::plain(documents.config.clone()),
        manifest,
        created: built.config.created.clone(),
        platform: built.platform.clone(),
    }
}

fn of_attestation(about: &AttestationDocuments, image: &Descriptor) -> AssembledAttestation {
    AssembledAttestation {
        manifest: index_entry(about.manifest.clone(), &image.digest),
        config: Entry::plain(about.config.clone()),
        statements: about.statements.iter().map(|statement| Entry::plain(statement.blob.clone())).collect(),
        subject: image.digest.clone(),
    }
}
