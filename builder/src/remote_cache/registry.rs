//! A cache under a tag of a registry.

use super::document::Documents;
use super::place::{OpenBlob, PlaceError, Written, missing_blobs};
use crate::progress::Vertex;
use crate::registry::Registry;
use crate::registry::push::{PushBlob, PushError, PushManifest};
use crate::source::image::ImageError;
use cache::digest::{Descriptor, Digest};
use cache::remote::Index;
use frontend::reference::Reference;
use std::io::Write;

/// How often something is asked for.
const READ_ATTEMPTS: u32 = 5;

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

    /// For reading: running steps is better than waiting for minutes.
    fn impatient(&self) -> Registry {
        self.registry.at_most(READ_ATTEMPTS)
    }

    pub(super) fn name(&self) -> String {
        self.reference.to_string()
    }

    pub(super) fn origin(&self) -> String {
        self.reference.to_string()
    }

    pub(super) async fn top(&self) -> Result<Option<(Descriptor, Vec<u8>)>, PlaceError> {
        Ok(self.impatient().tagged(&self.reference).await?.map(|document| (document.descriptor, document.bytes)))
    }

    pub(super) async fn manifest(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        Ok(self.impatient().manifest(&self.reference, &descriptor.digest).await?.bytes)
    }

    pub(super) async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        Ok(self.impatient().small_blob(&self.reference, descriptor).await?)
    }

    pub(super) async fn put(
        &self,
        blob: &Descriptor,
        origins: Vec<String>,
        open: &OpenBlob<'_>,
        vertex: &Vertex,
    ) -> Result<(), PlaceError> {
        let blob = PushBlob { descriptor: blob.clone(), origins };
        self.registry.put_blob(&self.reference, &blob, &|blob| open(blob.descriptor), vertex).await.map_err(of_push)
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
            Ok(_) => Ok(Written::Done),
            Err(error) if error.status().is_some_and(|status| matches!(status.as_u16(), 400 | 404)) => {
                // Registries take no manifest that names what they do not have; some say which blob it is.
                let has =
                    |digest: Digest| async move { self.registry.has_blob(&self.reference, &digest, vertex).await };
                let missing = missing_blobs(index, has).await?;
                if missing.is_empty() { Err(error.into()) } else { Ok(Written::Missing(missing)) }
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn of_push(error: PushError<ImageError>) -> PlaceError {
    match error {
        PushError::Registry(error) => PlaceError::Registry(error),
        PushError::Open(error) => PlaceError::Blob(Box::new(error)),
        PushError::Empty => unreachable!("blobs are not manifests"),
    }
}
