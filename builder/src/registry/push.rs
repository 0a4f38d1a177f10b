//! Pushing: blobs in parallel, then manifests children first, the tag last, so that a reader never sees half an image.
//! What the registry has is not sent; what another of its repositories has is mounted.

use super::auth::Scopes;
use super::client::{Ask, Body, Effort, Target};
use super::error::plain;
use super::hosts::Endpoint;
use super::upload::Blob;
use super::{Registry, RegistryError};
use crate::progress::Vertex;
use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use futures::future::try_join_all;
use reqwest::header::ACCEPT;
use reqwest::{Method, Response, StatusCode};
use serde::{Deserialize, Serialize};
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;

/// How often something is sent again that the registry has received as something else.
const DAMAGE_LIMIT: u32 = 2;

/// What is to be pushed.
#[derive(Clone, Debug, Default)]
pub struct PushImage {
    /// Configs and layers, each once, in any order.
    pub blobs: Vec<PushBlob>,
    /// Children before those that name them; the last is what the tag will name.
    pub manifests: Vec<PushManifest>,
}

/// A blob to be pushed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PushBlob {
    /// Digest and size count.
    pub descriptor: Descriptor,
    /// Where it was pulled from (`RemoteLayer::origin`), if it was: it may be mounted from there, or fetched.
    pub origins: Vec<String>,
}

/// A manifest or index to be pushed.
#[derive(Clone, Debug)]
pub struct PushManifest {
    /// Its media type.
    pub media_type: String,
    /// Exact bytes.
    pub bytes: Vec<u8>,
}

/// Why pushing failed.
#[derive(Debug, thiserror::Error)]
pub enum PushError<E: std::error::Error + 'static> {
    /// At the registry.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A blob could not be had.
    #[error(transparent)]
    Open(E),
    /// There is no manifest in the image.
    #[error("nothing to push")]
    Empty,
}

/// The file that a blob is in, fetched first if need be.
pub type Opened<'a, E> = Pin<Box<dyn Future<Output = Result<PathBuf, E>> + Send + 'a>>;

/// How to get at blobs.
pub type Open<'a, E> = dyn Fn(PushBlob) -> Opened<'a, E> + Send + Sync + 'a;

/// Pushes to the tag of `to`, or without a tag, to the last manifest's digest, which is given back.
pub async fn push<E: std::error::Error + Send + 'static>(
    registry: &Registry,
    to: &Reference,
    image: &PushImage,
    open: &Open<'_, E>,
    vertex: &Vertex,
) -> Result<Digest, PushError<E>> {
    let Some((top, children)) = image.manifests.split_last() else { return Err(PushError::Empty) };
    let pusher = Pusher::new(registry, to, vertex)?;
    let digest = Digest::of(&top.bytes);
    // Registries take a manifest only when they have all it names, so this one request can spare all the others.
    if pusher.manifest_at(digest.as_str()).await?.is_none() {
        vertex.status("pushing layers", 0, 0);
        try_join_all(image.blobs.iter().map(|blob| pusher.blob(blob, open))).await?;
        vertex.status_done("pushing layers", 0, 0);
        for child in children {
            let digest = Digest::of(&child.bytes);
            if pusher.manifest_at(digest.as_str()).await?.is_none() {
                pusher.put_manifest(child, &digest, digest.as_str()).await?;
            }
        }
        if to.tag.is_none() {
            pusher.put_manifest(top, &digest, digest.as_str()).await?;
        }
    }
    if let Some(tag) = &to.tag {
        let status = format!("pushing manifest for {}@{digest}", to.without_digest());
        vertex.status(&status, 0, 0);
        if pusher.manifest_at(tag).await?.as_ref() != Some(&digest) {
            pusher.put_manifest(top, &digest, tag).await?;
        }
        vertex.status_done(&status, 0, 0);
    }
    Ok(digest)
}

/// Writes to one repository.
pub(super) struct Pusher<'a> {
    pub(super) registry: &'a Registry,
    endpoint: Endpoint,
    scopes: Scopes,
    domain: &'a str,
    pub(super) vertex: &'a Vertex,
}

/// What came of asking to mount a blob.
enum Mount {
    Done,
    /// Not mounted, but the upload that would follow was begun.
    Begun(Response),
    No,
}

impl<'a> Pusher<'a> {
    /// To the repository of `to`.
    pub(super) fn new(
        registry: &'a Registry,
        to: &'a Reference,
        vertex: &'a Vertex,
    ) -> Result<Pusher<'a>, RegistryError> {
        let endpoint = registry.client.hosts.for_push(&to.domain, &to.path)?;
        Ok(Pusher { registry, scopes: Scopes::push(&endpoint.repository), endpoint, domain: &to.domain, vertex })
    }
}

impl Pusher<'_> {
    pub(super) fn ask<'b>(&'b self, method: Method, target: Target<'b>, effort: Effort) -> Ask<'b> {
        let endpoint = &self.endpoint;
        Ask { method, endpoint, target, scopes: &self.scopes, headers: &[], body: Body::Empty, effort }
    }

    /// Digest of what the registry has under a tag or digest.
    pub(super) async fn manifest_at(&self, identifier: &str) -> Result<Option<Digest>, RegistryError> {
        let path = format!("manifests/{identifier}");
        let accept = super::pull::accept();
        let ask = Ask {
            headers: &[(ACCEPT, &accept)],
            ..self.ask(Method::HEAD, Target::Repository(&path), Effort::Retry(self.registry.policy))
        };
        let _permit = self.endpoint.host.documents.acquire().await;
        match self.registry.client.send(&ask).await {
            Ok(answer) => {
                let told = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
                Ok(told.unwrap_or(identifier).parse().ok())
            }
            // Some answer a question about what is not there with a refusal; the push itself will show.
            Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(400 | 403 | 404 | 405)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) async fn put_manifest(
        &self,
        manifest: &PushManifest,
        digest: &Digest,
        to: &str,
    ) -> Result<(), RegistryError> {
        let path = format!("manifests/{to}");
        let body = Body::Document { media_type: &manifest.media_type, bytes: &manifest.bytes };
        let ask = Ask { body, ..self.ask(Method::PUT, Target::Repository(&path), Effort::Retry(self.registry.policy)) };
        let _permit = self.endpoint.host.documents.acquire().await;
        let mut damaged = 0;
        loop {
            let put = match self.registry.client.send(&ask).await {
                Ok(answer) => check_told(&answer, digest),
                Err(error) => Err(error),
            };
            match put {
                // A tag must not go on naming what it was damaged to.
                Err(error) if is_damage(&error) && damaged < DAMAGE_LIMIT => damaged += 1,
                put => return put,
            }
        }
    }

    /// Has a blob in the repository. A try that failed starts again with the question whether it is there.
    pub(super) async fn blob<E: std::error::Error + 'static>(
        &self,
        blob: &PushBlob,
        open: &Open<'_, E>,
    ) -> Result<(), PushError<E>> {
        let mut retries = self.registry.policy.begin();
        let mut damaged = 0;
        loop {
            let error = match self.try_blob(blob, open).await {
                Err(PushError::Registry(error)) => error,
                result => return result,
            };
            // The file was read through before. A registry that has forgotten the upload may know the next.
            if (is_damage(&error) || is_forgotten(&error)) && damaged < DAMAGE_LIMIT {
                damaged += 1;
                continue;
            }
            let Some(wait) = retries.after(&error) else { return Err(error.into()) };
            self.registry.client.pause(wait, &error).await;
        }
    }

    async fn try_blob<E: std::error::Error + 'static>(
        &self,
        blob: &PushBlob,
        open: &Open<'_, E>,
    ) -> Result<(), PushError<E>> {
        let Descriptor { digest, size, .. } = &blob.descriptor;
        // Of its requests each is made once: the whole is tried again.
        if self.has_blob(digest, Effort::Once).await? {
            self.vertex.status_done(digest.as_str(), *size, *size);
            return Ok(());
        }
        let mount = match self.mount_source(&blob.origins) {
            Some(source) => self.mount(digest, &source).await?,
            None => Mount::No,
        };
        let mounted = match mount {
            Mount::Done => {
                self.vertex.status_done(digest.as_str(), *size, *size);
                return Ok(());
            }
            Mount::Begun(answer) => Some(answer),
            Mount::No => None,
        };
        let path = open(blob.clone()).await.map_err(PushError::Open)?;
        let _transfer = self.endpoint.host.transfers.acquire().await;
        let begun = match mounted {
            Some(answer) => answer,
            None => {
                let ask = self.ask(Method::POST, Target::Repository("blobs/uploads/"), Effort::Once);
                self.registry.client.send(&ask).await?
            }
        };
        self.upload(&begun, &Blob { digest, size: *size, path: &path }).await?;
        self.vertex.status_done(digest.as_str(), *size, *size);
        Ok(())
    }

    pub(super) async fn has_blob(&self, digest: &Digest, effort: Effort) -> Result<bool, RegistryError> {
        let path = format!("blobs/{digest}");
        let ask = self.ask(Method::HEAD, Target::Repository(&path), effort);
        let _permit = self.endpoint.host.documents.acquire().await;
        match self.registry.client.send(&ask).await {
            Ok(_) => Ok(true),
            Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(400 | 403 | 404 | 405)) => {
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The repository of the same registry to mount from: the one whose path is most like ours.
    fn mount_source(&self, origins: &[String]) -> Option<String> {
        let common =
            |path: &str| path.bytes().zip(self.endpoint.repository.bytes()).take_while(|(a, b)| a == b).count();
        let references = origins.iter().filter_map(|origin| Reference::parse(origin).ok());
        let candidates = references
            .filter(|reference| reference.domain == self.domain && reference.path != self.endpoint.repository)
            .map(|reference| reference.path);
        candidates.max_by_key(|path| common(path))
    }

    /// Being refused is no failure: one may push to a repository without being allowed to read the other.
    async fn mount(&self, digest: &Digest, source: &str) -> Result<Mount, RegistryError> {
        let path = format!("blobs/uploads/?mount={digest}&from={source}");
        let scopes = self.scopes.clone().and_pull(source);
        let ask = Ask { scopes: &scopes, ..self.ask(Method::POST, Target::Repository(&path), Effort::Once) };
        let _permit = self.endpoint.host.documents.acquire().await;
        match self.registry.client.send(&ask).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(Mount::Done),
            Ok(answer) => Ok(Mount::Begun(answer)),
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => Ok(Mount::No),
            Err(error) => Err(error),
        }
    }
}

/// A registry that names what it stored must name what was sent.
pub(super) fn check_told(answer: &Response, expected: &Digest) -> Result<(), RegistryError> {
    let told = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    match told.and_then(|told| told.parse::<Digest>().ok()) {
        Some(actual) if actual != *expected => {
            Err(RegistryError::Digest { url: plain(answer.url()), expected: expected.clone(), actual })
        }
        _ => Ok(()),
    }
}

/// Whether what came at the registry was not what was sent.
fn is_damage(error: &RegistryError) -> bool {
    match error {
        RegistryError::Digest { .. } => true,
        RegistryError::Status { status, message: Some(message), .. } => {
            *status == StatusCode::BAD_REQUEST
                && ["digest invalid", "manifest invalid", "size invalid"].iter().any(|code| message.starts_with(code))
        }
        _ => false,
    }
}

/// Whether the registry does not know the upload that it has begun itself.
fn is_forgotten(error: &RegistryError) -> bool {
    match error {
        RegistryError::Status { method, status, message, .. } => {
            let is_upload = [Method::PUT, Method::PATCH, Method::GET].contains(method);
            let is_said = message.as_ref().is_some_and(|message| message.starts_with("blob upload"));
            is_said || (is_upload && *status == StatusCode::NOT_FOUND)
        }
        _ => false,
    }
}
