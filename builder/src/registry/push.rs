//! Pushing: blobs in parallel, then manifests children first, the tag last, so that a reader never sees half an image.
//! What the registry has is not sent; what another of its repositories has is mounted.

use super::auth::Scopes;
use super::client::{Ask, Body, Effort, Target};
use super::error::plain;
use super::hosts::Endpoint;
use super::{Registry, RegistryError};
use crate::progress::Vertex;
use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use futures::future::try_join_all;
use reqwest::header::{ACCEPT, LOCATION};
use reqwest::{Method, Response, StatusCode, Url};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Between two progress reports of an upload.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);

/// What is to be pushed.
#[derive(Clone, Debug, Default)]
pub struct PushImage {
    /// Configs and layers, each once, in any order.
    pub blobs: Vec<PushBlob>,
    /// Children before those that name them; the last is what the tag will name.
    pub manifests: Vec<PushManifest>,
}

/// A blob to be pushed.
#[derive(Clone, Debug)]
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
pub type Open<'a, E> = dyn Fn(Descriptor) -> Opened<'a, E> + Send + Sync + 'a;

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
    registry: &'a Registry,
    endpoint: Endpoint,
    scopes: Scopes,
    domain: &'a str,
    vertex: &'a Vertex,
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
    fn ask<'b>(&'b self, method: Method, target: Target<'b>, effort: Effort) -> Ask<'b> {
        let endpoint = &self.endpoint;
        Ask { method, endpoint, target, scopes: &self.scopes, headers: &[], body: Body::Empty, effort }
    }

    /// Digest of what the registry has under a tag or digest.
    pub(super) async fn manifest_at(&self, identifier: &str) -> Result<Option<Digest>, RegistryError> {
        let path = format!("manifests/{identifier}");
        let accept = super::pull::accept();
        let ask =
            Ask { headers: &[(ACCEPT, &accept)], ..self.ask(Method::HEAD, Target::Repository(&path), Effort::Retry) };
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
        let ask = Ask { body, ..self.ask(Method::PUT, Target::Repository(&path), Effort::Retry) };
        let _permit = self.endpoint.host.documents.acquire().await;
        let answer = self.registry.client.send(&ask).await?;
        check_told(&answer, digest)
    }

    /// Has a blob in the repository. A try that failed starts again with the question whether it is there.
    pub(super) async fn blob<E: std::error::Error + 'static>(
        &self,
        blob: &PushBlob,
        open: &Open<'_, E>,
    ) -> Result<(), PushError<E>> {
        let mut failed = 0;
        loop {
            let error = match self.try_blob(blob, open).await {
                Err(PushError::Registry(error)) => error,
                result => return result,
            };
            failed += 1;
            let Some(wait) = self.registry.client.policy.wait(failed, &error, None) else { return Err(error.into()) };
            tracing::debug!(%error, digest = %blob.descriptor.digest, "blob will be pushed again");
            tokio::time::sleep(wait).await;
        }
    }

    async fn try_blob<E: std::error::Error + 'static>(
        &self,
        blob: &PushBlob,
        open: &Open<'_, E>,
    ) -> Result<(), PushError<E>> {
        let Descriptor { digest, size, .. } = &blob.descriptor;
        if self.has_blob(digest).await? {
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
        let path = open(blob.descriptor.clone()).await.map_err(PushError::Open)?;
        let _transfer = self.endpoint.host.transfers.acquire().await;
        let begun = match mounted {
            Some(answer) => answer,
            None => {
                let ask = self.ask(Method::POST, Target::Repository("blobs/uploads/"), Effort::Retry);
                self.registry.client.send(&ask).await?
            }
        };
        self.upload(&begun, digest, *size, &path).await?;
        self.vertex.status_done(digest.as_str(), *size, *size);
        Ok(())
    }

    pub(super) async fn has_blob(&self, digest: &Digest) -> Result<bool, RegistryError> {
        let path = format!("blobs/{digest}");
        let ask = self.ask(Method::HEAD, Target::Repository(&path), Effort::Retry);
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
        let ask = Ask { scopes: &scopes, ..self.ask(Method::POST, Target::Repository(&path), Effort::Retry) };
        let _permit = self.endpoint.host.documents.acquire().await;
        match self.registry.client.send(&ask).await {
            Ok(answer) if answer.status() == StatusCode::CREATED => Ok(Mount::Done),
            Ok(answer) => Ok(Mount::Begun(answer)),
            Err(error) if error.status().is_some_and(|status| status.is_client_error()) => Ok(Mount::No),
            Err(error) => Err(error),
        }
    }

    async fn upload(&self, begun: &Response, digest: &Digest, size: u64, path: &Path) -> Result<(), RegistryError> {
        let mut location = self.location(begun)?;
        location.query_pairs_mut().append_pair("digest", digest.as_str());
        let sent = Arc::new(AtomicU64::new(0));
        let body = Body::File { path, size, sent: &sent };
        let ask = Ask { body, ..self.ask(Method::PUT, Target::Location(&location), Effort::Once) };
        let mut sending = std::pin::pin!(self.registry.client.send(&ask));
        let mut ticks = tokio::time::interval(REPORT_INTERVAL);
        let answer = loop {
            tokio::select! {
                answer = &mut sending => break answer?,
                _ = ticks.tick() => {
                    self.vertex.status(digest.as_str(), sent.load(Ordering::Relaxed).min(size), size);
                }
            }
        };
        check_told(&answer, digest)
    }

    fn location(&self, begun: &Response) -> Result<Url, RegistryError> {
        let text = begun.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = text.and_then(|text| begun.url().join(text).ok());
        let mut location = location
            .ok_or_else(|| RegistryError::Answer { url: plain(begun.url()), what: "no location to upload to" })?;
        // Registries behind a proxy that speaks TLS for them do not know that they should say https.
        let is_same = location.host_str() == begun.url().host_str() && location.port().is_none();
        if begun.url().scheme() == "https" && location.scheme() == "http" && is_same {
            // It cannot fail: both are special schemes.
            let _ = location.set_scheme("https");
        }
        Ok(location)
    }
}

/// A registry that names what it stored must name what was sent.
fn check_told(answer: &Response, expected: &Digest) -> Result<(), RegistryError> {
    let told = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
    match told.and_then(|told| told.parse::<Digest>().ok()) {
        Some(actual) if actual != *expected => {
            Err(RegistryError::Digest { url: plain(answer.url()), expected: expected.clone(), actual })
        }
        _ => Ok(()),
    }
}
