//! A cache under a tag of a registry.

use super::document::Documents;
use super::place::{OpenBlob, PlaceError, Written};
use crate::progress::Vertex;
use crate::registry::push::{PushBlob, PushError, PushManifest};
use crate::registry::{Registry, RegistryError};
use crate::source::image::ImageError;
use cache::digest::{Descriptor, Digest};
use cache::remote::Index;
use frontend::reference::Reference;
use futures::StreamExt;
use std::collections::BTreeSet;
use std::io::Write;

/// Questions for blobs at once.
const QUESTIONS: usize = 16;

/// A tag.
#[derive(Clone)]
pub struct Repository {
    registry: Registry,
    reference: Reference,
}

impl Repository {
    /// The cache that `reference` names.
    pub fn new(registry: Registry, reference: Reference) -> Repository {
        Repository { registry, reference }
    }

    pub(super) fn name(&self) -> String {
        self.reference.to_string()
    }

    pub(super) fn origin(&self) -> String {
        self.reference.to_string()
    }

    pub(super) async fn top(&self) -> Result<Option<(Descriptor, Vec<u8>)>, PlaceError> {
        Ok(self.registry.tagged(&self.reference).await?.map(|document| (document.descriptor, document.bytes)))
    }

    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        Ok(self.registry.manifest(&self.reference, &descriptor.digest).await?.bytes)
    }

    pub(super) async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        Ok(self.registry.small_blob(&self.reference, descriptor).await?)
    }

    pub(super) async fn put(
        &self,
        blob: &Descriptor,
        origins: Vec<String>,
        open: &OpenBlob<'_>,
        vertex: &Vertex,
    ) -> Result<(), PlaceError> {
        let blob = PushBlob { descriptor: blob.clone(), origins };
        self.registry.put_blob(&self.reference, &blob, &|blob| open(blob), vertex).await.map_err(of_push)
    }

    /// A registry has no compare-and-swap. What is there is asked for at the last moment, and whoever wrote looks once
    /// more a little later.
    pub(super) async fn write(
        &self,
        index: &Index,
        documents: Documents,
        over: Option<&str>,
        vertex: &Vertex,
    ) -> Result<Written, PlaceError> {
        let mut file =
            tempfile::NamedTempFile::new().map_err(PlaceError::io("create a file in", std::env::temp_dir()))?;
        file.write_all(&documents.config_bytes).map_err(PlaceError::io("write", file.path()))?;
        let path = file.path().to_path_buf();
        let open = |_| -> crate::registry::push::Opened<'_, ImageError> { Box::pin(async { Ok(path.clone()) }) };
        let config = PushBlob { descriptor: documents.config.clone(), origins: vec![] };
        self.registry.put_blob(&self.reference, &config, &open, vertex).await.map_err(of_push)?;
        let there = self.registry.tag_digest(&self.reference, vertex).await?;
        if there.as_ref().map(Digest::as_str) != over {
            return Ok(Written::Changed);
        }
        let manifest =
            PushManifest { media_type: documents.manifest.media_type.clone(), bytes: documents.manifest_bytes };
        match self.registry.put_tag(&self.reference, &manifest, vertex).await {
            Ok(_) => Ok(Written::Done(documents.manifest)),
            Err(error) if error.status().is_some_and(|status| matches!(status.as_u16(), 400 | 404)) => {
                // Registries take no manifest that names what they do not have; some say which blob it is.
                let missing = self.missing(index, vertex).await?;
                if missing.is_empty() { Err(error.into()) } else { Ok(Written::Missing(missing)) }
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn missing(&self, index: &Index, vertex: &Vertex) -> Result<BTreeSet<Digest>, PlaceError> {
        let blobs: Vec<Digest> = index.blobs().into_keys().collect();
        let asked = blobs.into_iter().map(|digest| async move {
            let has = self.registry.has_blob(&self.reference, &digest, vertex).await?;
            Ok::<_, RegistryError>((!has).then_some(digest))
        });
        let answers: Vec<_> = futures::stream::iter(asked).buffer_unordered(QUESTIONS).collect().await;
        let mut missing = BTreeSet::new();
        for answer in answers {
            missing.extend(answer?);
        }
        Ok(missing)
    }
}

fn of_push(error: PushError<ImageError>) -> PlaceError {
    match error {
        PushError::Registry(error) => PlaceError::Registry(error),
        PushError::Open(error) => PlaceError::Blob(Box::new(error)),
        PushError::Empty => unreachable!("blobs are not manifests"),
    }
}
