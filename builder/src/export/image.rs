//! `type=image`: documents in the store, with `push=true` in the registries of its names, with `unpack=true` in a running
//! containerd or dockerd (`unpack.rs`).

use super::attributes::Attributes;
use super::oci::{assemble_for, response};
use super::unpack::{self, Place as UnpackPlace};
use super::{Export, ExportError, Exporter, ImageAttributes, Response};
use crate::attest::request::AttestRequest;
use crate::image::assemble::Assembled;
use crate::image::attestation::{self, AssembledAttestation, Form, Place};
use crate::image::layers::LayerOptions;
use crate::image::manifest::Entry;
use crate::local::record;
use crate::publish::{PublishError, Target, publish};
use crate::registry::Trust;
use crate::registry::push::{PushBlob, PushImage, PushManifest};
use crate::registry::referrers::Referrer;
use cache::layer::compression::MediaTypes;
use frontend::reference::Reference;
use futures::future::BoxFuture;
use std::collections::HashSet;
use std::sync::Arc;

struct Image {
    image: ImageAttributes,
    push: bool,
    trust: Trust,
    /// A container runtime gets it, too.
    unpack: Option<UnpackPlace>,
    /// Names stand for it in kiln's store.
    store: bool,
    /// Also each name with the digest.
    name_canonical: bool,
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let by_digest = attributes.boolean("push-by-digest")?.unwrap_or(false);
    let mut image = attributes.image(true)?;
    let push = attributes.boolean("push")?.unwrap_or(false);
    if let Some(name) = image.names.iter().find(|name| name.digest.is_some()) {
        let problem = "the digest of what is built is known when it is built; name-canonical=true adds it to the name";
        return Err(attributes.bad("name", &name.familiar(), problem));
    }
    if push && image.names.is_empty() {
        return Err(attributes.missing("name"));
    }
    if by_digest {
        if !push {
            return Err(attributes.bad("push-by-digest", "true", "nothing is pushed: add push=true"));
        }
        for (name, text) in image.names.iter_mut().zip(&image.names_as_given) {
            if text.ends_with(&format!(":{}", name.tag.as_deref().unwrap_or_default())) {
                let problem = format!("can't push tagged ref {name} by digest: leave its tag out");
                return Err(attributes.bad("push-by-digest", "true", problem));
            }
            name.tag = None;
        }
    }
    let trust = match attributes.boolean("registry.insecure")? {
        Some(true) => Trust::Anyone,
        Some(false) | None => Trust::AsConfigured,
    };
    if attributes.boolean("attestation-referrers")? == Some(true) {
        if !push {
            return Err(attributes.bad(
                "attestation-referrers",
                "true",
                "only registries have referrers: give push=true",
            ));
        }
        if image.options.attestations.form == Form::Legacy {
            let problem = "it needs artifacts: say oci-artifact=true, and leave oci-mediatypes=false out";
            return Err(attributes.bad("attestation-referrers", "true", problem));
        }
        image.options.attestations.place = Place::Referrers;
    }
    let unpack = attributes.boolean("unpack")?.unwrap_or(false);
    if unpack && image.names.is_empty() {
        return Err(attributes.missing("name"));
    }
    // What is pushed has its place in the registry: kept here as well, each build of a pipeline would stay for ever. So has
    // what is unpacked.
    let store = attributes.boolean("store")?.unwrap_or(!push && !unpack);
    let name_canonical = attributes.boolean("name-canonical")?.unwrap_or(false);
    // What is pushed can be had by its digest in any case.
    if name_canonical && !push && !unpack && (!store || image.names.is_empty()) {
        let problem = "nothing is named in kiln's store: give name=NAME or -t NAME, and leave store=false out";
        return Err(attributes.bad("name-canonical", "true", problem));
    }
    let unpack = unpack.then(|| unpack::place(&|name| std::env::var_os(name))).transpose()?;
    Ok(Box::new(Image { image, push, trust, unpack, store, name_canonical }))
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

    fn check(&self, attest: &AttestRequest) -> Result<(), ExportError> {
        self.image.check_types("image", attest)?;
        let is_docker = self.image.options.types == MediaTypes::Docker;
        if is_docker && self.image.attaches(attest) { Err(ExportError::AttestationTypes) } else { Ok(()) }
    }

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            let assembled = assemble_for(&self.image, export).await?;
            if self.push {
                self.push(&assembled, export).await?;
            }
            let stored_names = self.stored_names(&assembled);
            if let Some(place) = &self.unpack {
                let mut unpacked = assembled.clone();
                if self.image.options.attestations.place == Place::Referrers {
                    unpacked.images.iter_mut().for_each(|image| image.attestations.clear());
                }
                place.unpack(&unpacked, &self.image.names, &stored_names, export).await?;
            }
            if self.store && !stored_names.is_empty() {
                let record = record::of_build(export.images, export.epoch, Some((&assembled, export.store)))?;
                for name in stored_names {
                    export.store.name_image(&name, &record)?;
                    export.vertex.status_done(&format!("naming to {name}"), 0, 0);
                }
            }
            Ok(response(&assembled, &self.image))
        })
    }
}

impl Image {
    /// What the image is called in stores of images. What has no tag, as it is pushed by its digest, has that name there.
    fn stored_names(&self, assembled: &Assembled) -> Vec<String> {
        let top = &assembled.top().digest;
        let names = self.image.names.iter().filter(|name| name.tag.is_some()).cloned();
        let canonical = self.image.names.iter().filter(|name| self.name_canonical || name.tag.is_none());
        let canonical = canonical.map(|name| name.with_digest(top.as_str()));
        names.chain(canonical).map(|name| record::stored_name(&name)).collect()
    }

    async fn push(&self, assembled: &Assembled, export: &Export<'_>) -> Result<(), ExportError> {
        let is_in_index = self.image.options.attestations.place == Place::Index;
        let image = push_image(assembled, is_in_index, export)?;
        let names = self.image.names.iter();
        let targets: Vec<Target> = names.map(|name| Target { name: name.clone(), trust: self.trust }).collect();
        publish(export.sources, export.store, &image, &targets, export.vertex).await.map_err(failed)?;
        if !is_in_index {
            for about in assembled.images.iter().flat_map(|image| &image.attestations) {
                self.push_referrer(about, &targets, export).await?;
            }
        }
        Ok(())
    }

    async fn push_referrer(
        &self,
        about: &AssembledAttestation,
        targets: &[Target],
        export: &Export<'_>,
    ) -> Result<(), ExportError> {
        let mut push = PushImage::default();
        push.blobs.extend(about.blobs().map(|entry| PushBlob { descriptor: entry.descriptor(), origins: vec![] }));
        push.manifests.push(manifest(&about.manifest, export)?);
        let by_digest = |target: &Target| Target {
            name: Reference { tag: None, digest: None, ..target.name.clone() },
            trust: target.trust,
        };
        let targets: Vec<Target> = targets.iter().map(by_digest).collect();
        publish(export.sources, export.store, &push, &targets, export.vertex).await.map_err(failed)?;
        let referrer = Referrer {
            descriptor: about.manifest.descriptor(),
            artifact_type: attestation::ARTIFACT_TYPE.into(),
            subject: about.subject.clone(),
        };
        for target in &targets {
            let listed = export.sources.list_referrer(&target.name, target.trust, &referrer, export.vertex).await;
            listed.map_err(|error| ExportError::Publish(Arc::new(error)))?;
        }
        Ok(())
    }
}

/// What of a result goes to registries: each blob once, children before those that name them.
pub fn push_image(
    assembled: &Assembled,
    with_attestations: bool,
    export: &Export<'_>,
) -> Result<PushImage, ExportError> {
    let blob = |entry: &Entry, origins| PushBlob { descriptor: entry.descriptor(), origins };
    let mut push = PushImage::default();
    for image in &assembled.images {
        for layer in &image.layers {
            let origins = layer.remote.iter().map(|remote| remote.origin.clone()).collect();
            push.blobs.push(blob(&layer.entry, origins));
        }
        push.blobs.push(blob(&image.config, vec![]));
    }
    let attestations = || assembled.images.iter().flat_map(|image| &image.attestations).filter(|_| with_attestations);
    push.blobs.extend(attestations().flat_map(|about| about.blobs()).map(|entry| blob(entry, vec![])));
    // Platforms share layers, and a layer may be in an image twice.
    let mut seen = HashSet::new();
    push.blobs.retain(|blob| seen.insert(blob.descriptor.digest.clone()));
    let images = assembled.images.iter().map(|image| &image.manifest);
    let documents = images.chain(attestations().map(|about| &about.manifest)).chain(&assembled.index);
    for document in documents {
        push.manifests.push(manifest(document, export)?);
    }
    Ok(push)
}

fn manifest(document: &Entry, export: &Export<'_>) -> Result<PushManifest, ExportError> {
    let bytes = export.store.content().read_small(&document.digest)?;
    Ok(PushManifest { media_type: document.media_type.clone(), bytes })
}

fn failed(error: PublishError) -> ExportError {
    match error {
        PublishError::NotPushed(error) => ExportError::NotPushed(error),
        PublishError::Image(error) => ExportError::Publish(error),
        PublishError::Store(error) => ExportError::Store(error),
    }
}
