//! `type=image`: documents in the store and, with `push=true`, in the registries of its names.

use super::attributes::Attributes;
use super::oci::{assemble_for, response};
use super::{Export, ExportError, Exporter, ImageAttributes, Response};
use crate::image::assemble::Assembled;
use crate::image::layers::LayerOptions;
use crate::image::manifest::Entry;
use crate::registry::push::{PushBlob, PushImage, PushManifest};
use frontend::reference::Reference;
use futures::future::BoxFuture;

struct Image {
    image: ImageAttributes,
    push: bool,
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let image = attributes.image()?;
    let push = attributes.boolean("push")?.unwrap_or(false);
    if push && image.names.is_empty() {
        return Err(attributes.missing("name"));
    }
    // The store has no images by name and no unpacked copies of them, so there is nothing to switch on.
    for key in ["store", "unpack"] {
        if attributes.boolean(key)? == Some(true) {
            return Err(attributes.bad(key, "true", "kiln keeps no images by name; push it, or use type=oci"));
        }
    }
    Ok(Box::new(Image { image, push }))
}

impl Exporter for Image {
    fn name(&self) -> String {
        "exporting to image".into()
    }

    fn layer_options(&self) -> Option<LayerOptions> {
        self.image.layer_options()
    }

    fn uses_stdout(&self) -> bool {
        false
    }

    fn makes_image(&self) -> bool {
        true
    }

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            let assembled = assemble_for(&self.image, export).await?;
            if self.push {
                for name in &self.image.names {
                    self.push(name, &assembled, export).await?;
                }
            }
            Ok(response(&assembled, &self.image))
        })
    }
}

impl Image {
    async fn push(&self, name: &Reference, assembled: &Assembled, export: &Export<'_>) -> Result<(), ExportError> {
        let blob = |entry: &Entry, origins| PushBlob { descriptor: entry.descriptor(), origins };
        let mut push = PushImage::default();
        for image in &assembled.images {
            for layer in &image.layers {
                let origins = layer.remote.iter().map(|remote| remote.origin.clone()).collect();
                push.blobs.push(blob(&layer.entry, origins));
            }
            push.blobs.push(blob(&image.config, vec![]));
        }
        let documents = assembled.images.iter().map(|image| &image.manifest).chain(&assembled.index);
        for document in documents {
            let bytes = export.store.content().read_small(&document.digest)?;
            push.manifests.push(PushManifest { media_type: document.media_type.clone(), bytes });
        }
        match export.sources.push(name, &push, export.vertex).await {
            Ok(_) => Ok(()),
            Err(source) => Err(ExportError::Push { name: name.to_string(), source }),
        }
    }
}
