//! A named image -> its documents: those that it has, else made as an exporter makes them. Same record, same bytes.

use super::record::{self, LocalError};
use crate::export::attributes::Attributes;
use crate::export::oci::assemble_for;
use crate::export::{Export, ImageAttributes};
use crate::image::assemble::{Assembled, AssembledImage, AssembledLayer, BuiltImage};
use crate::image::layers::LayerBlobs;
use crate::image::manifest::Entry;
use crate::progress::Vertex;
use crate::remote_cache::export::Exports;
use crate::source::image::ImageSource;
use cache::images::{Documents, ImageRecord, PlatformImage};
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
                let is_index = images.len() > 1 || (platform.is_none() && images[0].manifest.digest != top.digest);
                Assembled { images, index: is_index.then(|| Entry::plain(top.clone())) }
            }
            _ => assemble_for(&plain(), &self.export(&made)).await?,
        };
        Ok((made, assembled))
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
        attestation: None,
        layers: layers.collect(),
        config: Entry::plain(documents.config.clone()),
        manifest,
        created: built.config.created.clone(),
        platform: built.platform.clone(),
    }
}
