//! Tags that are read and written as a whole, and blobs one by one: what a remote cache asks of a registry. Always of the
//! registry itself: a mirror may be behind, and what is read here is written again.

use super::client::Effort;
use super::push::{Open, PushBlob, PushError, PushManifest, Pusher};
use super::{Registry, RegistryError, pull};
use crate::progress::Vertex;
use cache::digest::Digest;
use frontend::reference::Reference;

pub use pull::Document;

impl Registry {
    /// What a tag names now; `None` if there is no such tag.
    pub async fn tagged(&self, reference: &Reference) -> Result<Option<Document>, RegistryError> {
        match self.document(reference, reference.identifier()).await {
            Err(error) if error.status().is_some_and(|status| status.as_u16() == 404) => Ok(None),
            document => document.map(Some),
        }
    }

    /// Digest of what a tag names now, if there is such a tag.
    pub async fn tag_digest(&self, to: &Reference, vertex: &Vertex) -> Result<Option<Digest>, RegistryError> {
        Pusher::new(self, to, vertex)?.manifest_at(to.identifier()).await
    }

    /// Whether a repository has a blob.
    pub async fn has_blob(&self, to: &Reference, digest: &Digest, vertex: &Vertex) -> Result<bool, RegistryError> {
        Pusher::new(self, to, vertex)?.has_blob(digest, Effort::Retry(self.policy)).await
    }

    /// Has a blob in a repository: left as it is, mounted from one of its origins, or uploaded.
    pub async fn put_blob<E: std::error::Error + 'static>(
        &self,
        to: &Reference,
        blob: &PushBlob,
        open: &Open<'_, E>,
        vertex: &Vertex,
    ) -> Result<(), PushError<E>> {
        Pusher::new(self, to, vertex)?.blob(blob, open).await
    }

    /// Makes a tag name a manifest, whatever it named before.
    pub async fn put_tag(
        &self,
        to: &Reference,
        manifest: &PushManifest,
        vertex: &Vertex,
    ) -> Result<Digest, RegistryError> {
        let digest = Digest::of(&manifest.bytes);
        Pusher::new(self, to, vertex)?.put_manifest(manifest, &digest, to.identifier()).await?;
        Ok(digest)
    }
}
