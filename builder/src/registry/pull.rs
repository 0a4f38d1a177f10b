//! Resolving and pulling: mirrors in order, then the registry itself; what comes is checked against its digest, except
//! for [`BlobReader`], whose reader checks.

use super::auth::Scopes;
use super::client::{Ask, Body, Effort, Target, next_chunk, read_limited};
use super::error::plain;
use super::hosts::Endpoint;
use super::retry::{Retries, may_pass};
use super::{Registry, RegistryError};
use crate::image::select::{INDEX_TYPES, MANIFEST_TYPES};
use bytes::Bytes;
use cache::digest::{Descriptor, Digest};
use frontend::reference::Reference;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use tokio::sync::OwnedSemaphorePermit;

/// Longest manifest or index, in bytes: what containerd allows.
const MANIFEST_LIMIT: u64 = 4 * 1048 * 1048;
/// Longest config, in bytes.
const CONFIG_LIMIT: u64 = 16 << 20;

/// A manifest or index, verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its media type is what the registry says.
    pub descriptor: Descriptor,
    /// As stored there.
    pub bytes: Vec<u8>,
}

/// What a reference names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved {
    /// Of the manifest or index.
    pub descriptor: Descriptor,
    /// It itself, if the registry could not say what it has without sending it.
    pub document: Option<Vec<u8>>,
}

impl Registry {
    /// What a reference names now: of its digest, else of its tag.
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolved, RegistryError> {
        let pull = self.pull(reference)?;
        let identifier = reference.identifier();
        let mut endpoints = pull.endpoints.iter().peekable();
        let mut mirrors = None;
        loop {
            let Some(endpoint) = endpoints.next() else {
                return Err(RegistryError::BadHost(reference.domain.clone()));
            };
            let effort = if endpoints.peek().is_some() { Effort::Once } else { Effort::Retry(self.policy) };
            match self.resolve_at(endpoint, &pull.scopes(endpoint), identifier, effort).await {
                Err(error) if endpoints.peek().is_some() => {
                    tracing::debug!(%error, mirror = endpoint.host.name, "mirror does not resolve the reference");
                    mirrors = Some(error);
                }
                result => return result.map_err(|error| error.after_mirrors(mirrors)),
            }
        }
    }

    /// A manifest or index by tag or digest, of the registry itself.
    pub(super) async fn document(&self, reference: &Reference, identifier: &str) -> Result<Document, RegistryError> {
        let endpoint = self.client.hosts.for_push(&reference.domain, &reference.path)?;
        self.manifest_at(&endpoint, &Scopes::pull(&endpoint.repository), identifier, Effort::Retry(self.policy)).await
    }

    /// A manifest or index by its digest.
    pub async fn manifest(&self, reference: &Reference, digest: &Digest) -> Result<Document, RegistryError> {
        let pull = self.pull(reference)?;
        let mut endpoints = pull.endpoints.iter().peekable();
        loop {
            let Some(endpoint) = endpoints.next() else {
                return Err(RegistryError::BadHost(reference.domain.clone()));
            };
            let effort = if endpoints.peek().is_some() { Effort::Once } else { Effort::Retry(self.policy) };
            match self.manifest_at(endpoint, &pull.scopes(endpoint), digest.as_str(), effort).await {
                Err(error) if endpoints.peek().is_some() => {
                    tracing::debug!(%error, mirror = endpoint.host.name, "mirror does not have the manifest");
                }
                result => return result,
            }
        }
    }

    /// A small blob, such as a config, verified.
    pub async fn small_blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Vec<u8>, RegistryError> {
        if descriptor.size > CONFIG_LIMIT {
            let url = format!("{reference}: {}", descriptor.digest);
            return Err(RegistryError::TooLarge { url, limit: CONFIG_LIMIT });
        }
        let reader = self.reader(reference, descriptor, Turn::Now).await?;
        match reader.all().await {
            Err(error @ (RegistryError::Digest { .. } | RegistryError::Size { .. })) => {
                match self.blob_of_origin(reference, descriptor).await {
                    Ok(Some(reader)) => reader.all().await,
                    Ok(None) | Err(_) => Err(error),
                }
            }
            result => result,
        }
    }

    /// Opens a blob for reading, as soon as one of the host's transfers is free.
    pub async fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<BlobReader, RegistryError> {
        self.reader(reference, descriptor, Turn::Queued).await
    }

    /// The same of the registry itself, for what a mirror has damaged. `None` if there is no mirror that may have.
    pub async fn blob_of_origin(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
    ) -> Result<Option<BlobReader>, RegistryError> {
        let mut reader = self.closed_reader(reference, descriptor, Turn::Queued)?;
        reader.next_endpoint = reader.pull.endpoints.len().saturating_sub(1);
        if reader.next_endpoint == 0 {
            return Ok(None);
        }
        reader.reopen().await?;
        Ok(Some(reader))
    }

    async fn reader(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        turn: Turn,
    ) -> Result<BlobReader, RegistryError> {
        let mut reader = self.closed_reader(reference, descriptor, turn)?;
        reader.reopen().await?;
        Ok(reader)
    }

    fn closed_reader(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        turn: Turn,
    ) -> Result<BlobReader, RegistryError> {
        Ok(BlobReader {
            turn,
            registry: self.clone(),
            pull: self.pull(reference)?,
            descriptor: descriptor.clone(),
            next_endpoint: 0,
            offset: 0,
            breaks: self.policy.begin(),
            open: None,
            permit: None,
        })
    }

    fn pull(&self, reference: &Reference) -> Result<Pull, RegistryError> {
        Ok(Pull { endpoints: self.client.hosts.for_pull(&reference.domain, &reference.path)? })
    }

    async fn resolve_at(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        identifier: &str,
        effort: Effort,
    ) -> Result<Resolved, RegistryError> {
        let path = format!("manifests/{identifier}");
        let accept = accept();
        let ask = Ask {
            method: Method::HEAD,
            endpoint,
            target: Target::Repository(&path),
            scopes,
            headers: &[(ACCEPT, &accept)],
            body: Body::Empty,
            effort,
        };
        let answer = {
            let _permit = endpoint.host.documents.acquire().await;
            self.client.send(&ask).await
        };
        match answer {
            Ok(answer) => {
                refuse_schema1(content_type(answer.headers()), answer.url())?;
                if let Some(descriptor) = described(answer.headers()) {
                    if identifier.starts_with("sha256:") && identifier != descriptor.digest.as_str() {
                        let url = plain(answer.url());
                        return Err(RegistryError::Answer { url, what: "another digest than asked for" });
                    }
                    return Ok(Resolved { descriptor, document: None });
                }
            }
            // Those that have no HEAD, and those whose reason is only in a body, which HEAD does not have.
            Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(400 | 403 | 405)) => {}
            Err(error) => return Err(error),
        }
        let document = self.manifest_at(endpoint, scopes, identifier, effort).await?;
        Ok(Resolved { descriptor: document.descriptor, document: Some(document.bytes) })
    }

    /// By tag or digest. A digest that is not under `manifests` is looked for under `blobs`.
    async fn manifest_at(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        identifier: &str,
        effort: Effort,
    ) -> Result<Document, RegistryError> {
        let result = self.document_at(endpoint, scopes, &format!("manifests/{identifier}"), effort).await;
        let (document, url) = match result {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) && identifier.contains(':') => {
                let path = format!("blobs/{identifier}");
                self.document_at(endpoint, scopes, &path, effort).await.map_err(|_| error)?
            }
            result => result?,
        };
        match identifier.parse::<Digest>() {
            Ok(expected) if expected != document.descriptor.digest => {
                let actual = document.descriptor.digest;
                Err(RegistryError::Digest { url: plain(&url), expected, actual })
            }
            _ => Ok(document),
        }
    }

    pub(super) async fn document_at(
        &self,
        endpoint: &Endpoint,
        scopes: &Scopes,
        path: &str,
        effort: Effort,
    ) -> Result<(Document, Url), RegistryError> {
        let accept = accept();
        let ask = Ask {
            method: Method::GET,
            endpoint,
            target: Target::Repository(path),
            scopes,
            headers: &[(ACCEPT, &accept)],
            body: Body::Empty,
            // Its body may break as well as its beginning.
            effort: Effort::Once,
        };
        let _permit = endpoint.host.documents.acquire().await;
        self.client.attempts(effort, || self.read_document(&ask)).await
    }

    async fn read_document(&self, ask: &Ask<'_>) -> Result<(Document, Url), RegistryError> {
        let answer = self.client.send(ask).await?;
        let url = answer.url().clone();
        refuse_schema1(content_type(answer.headers()), &url)?;
        let media_type = content_type(answer.headers()).unwrap_or_default();
        let bytes = read_limited(answer, MANIFEST_LIMIT).await?;
        let descriptor = Descriptor { media_type, digest: Digest::of(&bytes), size: bytes.len() as u64 };
        Ok((Document { descriptor, bytes }, url))
    }
}

/// Where a repository can be pulled from.
struct Pull {
    endpoints: Vec<Endpoint>,
}

impl Pull {
    fn scopes(&self, endpoint: &Endpoint) -> Scopes {
        Scopes::pull(&endpoint.repository)
    }
}

/// Bytes of a blob as they come, resumed where the connection broke. As many as the descriptor says, but not verified:
/// whoever writes them somewhere hashes them there.
pub struct BlobReader {
    registry: Registry,
    pull: Pull,
    descriptor: Descriptor,
    next_endpoint: usize,
    offset: u64,
    /// Since the last byte that came.
    breaks: Retries,
    open: Option<Open>,
    turn: Turn,
    /// Of the host that is read from.
    permit: Option<OwnedSemaphorePermit>,
}

/// Whether a blob waits until others have been transferred.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Turn {
    Queued,
    /// Configs do not: a build can go on planning while layers come.
    Now,
}

struct Open {
    answer: Response,
    url: Url,
    /// Bytes to drop, since the server does not know ranges.
    skip: u64,
}

impl BlobReader {
    /// The next bytes, `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        loop {
            let Some(open) = &mut self.open else {
                self.reopen().await?;
                continue;
            };
            let (result, url) = (next_chunk(&mut open.answer, &open.url).await, &open.url);
            match result {
                Ok(Some(mut chunk)) => {
                    let skipped = open.skip.min(chunk.len() as u64);
                    open.skip -= skipped;
                    let chunk = chunk.split_off(skipped as usize);
                    if chunk.is_empty() {
                        continue;
                    }
                    self.breaks = self.registry.policy.begin();
                    self.offset += chunk.len() as u64;
                    if self.offset > self.descriptor.size {
                        let (expected, actual) = (self.descriptor.size, self.offset);
                        return Err(RegistryError::Size { url: plain(url), expected, actual });
                    }
                    return Ok(Some(chunk));
                }
                Ok(None) if self.offset == self.descriptor.size => return Ok(None),
                Ok(None) => {
                    let (expected, actual) = (self.descriptor.size, self.offset);
                    let error = RegistryError::Size { url: plain(url), expected, actual };
                    self.broke(error).await?;
                }
                Err(error) if may_pass(&error) => self.broke(error).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// All bytes, verified.
    async fn all(mut self) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = Vec::with_capacity(self.descriptor.size as usize);
        while let Some(chunk) = self.chunk().await? {
            bytes.extend_from_slice(&chunk);
        }
        check_digest(&bytes, &self.descriptor.digest, self.url())?;
        Ok(bytes)
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Where it is read from, for errors.
    pub fn url(&self) -> String {
        self.open.as_ref().map_or_else(|| self.descriptor.digest.to_string(), |open| plain(&open.url))
    }

    /// Waits, so that the stream can be opened again. A mirror whose streams break all the time is left for the next.
    async fn broke(&mut self, error: RegistryError) -> Result<(), RegistryError> {
        self.open = None;
        match self.breaks.delay(None) {
            Some(wait) => self.registry.client.pause(wait, &error).await,
            None if self.next_endpoint + 1 < self.pull.endpoints.len() => {
                self.permit = None;
                self.next_endpoint += 1;
                self.breaks = self.registry.policy.begin();
            }
            None => return Err(error),
        }
        Ok(())
    }

    /// Opens at the first endpoint, from the one that worked last on, that has it.
    async fn reopen(&mut self) -> Result<(), RegistryError> {
        loop {
            let is_last = self.next_endpoint + 1 >= self.pull.endpoints.len();
            let effort = if is_last { Effort::Retry(self.registry.policy) } else { Effort::Once };
            match self.open_at(self.next_endpoint, effort).await {
                Ok(open) => {
                    self.open = Some(open);
                    return Ok(());
                }
                Err(error) if is_last => return Err(error),
                Err(error) => {
                    tracing::debug!(%error, digest = %self.descriptor.digest, "mirror does not have the blob");
                    self.permit = None;
                    self.next_endpoint += 1;
                }
            }
        }
    }

    async fn open_at(&mut self, index: usize, effort: Effort) -> Result<Open, RegistryError> {
        let Some(endpoint) = self.pull.endpoints.get(index) else {
            return Err(RegistryError::BadHost(self.descriptor.digest.to_string()));
        };
        if self.turn == Turn::Queued && self.permit.is_none() {
            self.permit = endpoint.host.transfers.clone().acquire_owned().await.ok();
        }
        let path = format!("blobs/{}", self.descriptor.digest);
        let accept = format!("{}, */*", self.descriptor.media_type);
        let range = format!("bytes={}-", self.offset);
        let headers = [(ACCEPT, accept.as_str()), (RANGE, range.as_str())];
        let ask = Ask {
            method: Method::GET,
            endpoint,
            target: Target::Repository(&path),
            scopes: &self.pull.scopes(endpoint),
            headers: if self.offset > 0 { &headers } else { &headers[..1] },
            body: Body::Empty,
            effort,
        };
        let answer = self.registry.client.send(&ask).await?;
        let url = answer.url().clone();
        if answer.status() == StatusCode::PARTIAL_CONTENT {
            let start = range_start(answer.headers());
            if start != Some(self.offset) {
                return Err(RegistryError::Answer { url: plain(&url), what: "another range than asked for" });
            }
            return Ok(Open { answer, url, skip: 0 });
        }
        match content_length(answer.headers()) {
            Some(actual) if actual != self.descriptor.size => {
                Err(RegistryError::Size { url: plain(&url), expected: self.descriptor.size, actual })
            }
            _ => Ok(Open { answer, url, skip: self.offset }),
        }
    }
}

/// What a HEAD says, if it says all of it.
fn described(headers: &HeaderMap) -> Option<Descriptor> {
    let digest = headers.get("docker-content-digest")?.to_str().ok()?.parse().ok()?;
    Some(Descriptor { media_type: content_type(headers)?, digest, size: content_length(headers)? })
}

/// Whether it is signed or not: its digest would not fit, and that error would lead nowhere.
fn refuse_schema1(media_type: Option<String>, url: &Url) -> Result<(), RegistryError> {
    match media_type.is_some_and(|text| text.starts_with("application/vnd.docker.distribution.manifest.v1+")) {
        true => Err(RegistryError::Schema1 { url: plain(url) }),
        false => Ok(()),
    }
}

fn content_type(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(text.split(';').next().unwrap_or_default().trim().to_string())
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.trim().parse().ok()
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.trim().strip_prefix("bytes")?.trim().split('-').next()?.trim().parse().ok()
}

pub(super) fn accept() -> String {
    [MANIFEST_TYPES[1], INDEX_TYPES[1], MANIFEST_TYPES[0], INDEX_TYPES[0], "*/*"].join(", ")
}

fn check_digest(bytes: &[u8], expected: &Digest, url: String) -> Result<(), RegistryError> {
    let actual = Digest::of(bytes);
    if actual == *expected { Ok(()) } else { Err(RegistryError::Digest { url, expected: expected.clone(), actual }) }
}
