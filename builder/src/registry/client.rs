//! Sends one request until it succeeds or cannot: authorization, retries, limits, timeouts. Knows nothing of what is
//! asked for; see `pull.rs` and `push.rs`.

use super::auth::{Authorization, Scopes, Tokens};
use super::credentials::Credentials;
use super::error::{Login, RegistryError, message, plain, transport};
use super::hosts::{Endpoint, Hosts};
use super::retry::{RetryPolicy, pause, retry_after};
use crate::config::Config;
use crate::progress::Progress;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use std::future::Future;
use std::io::SeekFrom;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Longest without a byte.
pub(crate) const STALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest between the last byte of an upload and its answer: registries move the blob to its place meanwhile.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(300);
/// What is read of the body of an error.
const ERROR_BODY_LIMIT: u64 = 64 << 10;
const UPLOAD_CHUNK: usize = 256 << 10;

/// What all requests share.
pub(super) struct Client {
    pub hosts: Hosts,
    /// Where waits are shown.
    pub progress: OnceLock<Progress>,
    pub tokens: Tokens,
    /// What a layer may unpack to, in bytes, if the configuration says.
    pub unpacked_layer: Option<u64>,
}

/// A request as it is meant; it may be sent several times.
pub(super) struct Ask<'a> {
    pub method: Method,
    pub endpoint: &'a Endpoint,
    pub target: Target<'a>,
    pub scopes: &'a Scopes,
    pub headers: &'a [(HeaderName, &'a str)],
    pub body: Body<'a>,
    pub effort: Effort,
}

/// How much is done to get an answer.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Effort {
    /// Retry as that says.
    Retry(RetryPolicy),
    /// Once: the caller knows another way, or starts again itself.
    Once,
}

/// Where a request goes.
pub(super) enum Target<'a> {
    /// Into the endpoint's repository.
    Repository(&'a str),
    /// To a place that the registry named.
    Location(&'a Url),
}

/// What is sent along.
pub(super) enum Body<'a> {
    Empty,
    Document {
        media_type: &'a str,
        bytes: &'a [u8],
    },
    /// `sent` is told how many bytes of that part of the file have left, from 0 for each attempt.
    File {
        path: &'a Path,
        range: Range<u64>,
        sent: &'a Arc<AtomicU64>,
    },
}

impl Client {
    pub fn new(config: &Config, credentials: Arc<Credentials>, policy: RetryPolicy) -> Client {
        Client {
            hosts: Hosts::new(config),
            progress: OnceLock::new(),
            tokens: Tokens::new(credentials, policy),
            unpacked_layer: config.unpacked_layer,
        }
    }

    /// The same with `insecure = true` for a domain. Connections, tokens and limits are its own.
    pub fn trusting_anyone_at(&self, domain: &str) -> Client {
        Client {
            hosts: self.hosts.trusting_anyone_at(domain),
            progress: self.progress.clone(),
            tokens: Tokens::new(self.tokens.credentials.clone(), self.tokens.policy),
            unpacked_layer: self.unpacked_layer,
        }
    }

    /// Gives the answer if it is a success, and else an error.
    pub async fn send(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        self.attempts(ask.effort, || self.attempt(ask)).await
    }

    /// Makes a request, again where the effort says so.
    pub async fn attempts<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        effort: Effort,
        request: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        match effort {
            Effort::Retry(policy) => policy.retry(self.progress.get(), request).await,
            Effort::Once => request().await,
        }
    }

    /// Waits before the next try, and says so if it takes long.
    pub async fn pause(&self, wait: Duration, error: &RegistryError) {
        pause(self.progress.get(), wait, error).await;
    }

    /// Once, but for what logging in and falling back to plain HTTP take.
    async fn attempt(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let host = &ask.endpoint.host;
        let slot = self.tokens.slot(host, ask.scopes);
        let mut authorization = slot.present().await;
        let mut logins = 0;
        loop {
            let url = ask.url()?;
            let response = match self.send_once(ask, &url, authorization.as_ref()).await {
                // A place that the registry named stays what it is.
                Err(error) if matches!(ask.target, Target::Repository(_)) && host.fall_back(&url, &error) => continue,
                Err(RegistryError::Connect { url, source, .. }) => {
                    return Err(RegistryError::Connect { url, met: host.has_answered(), source });
                }
                result => result?,
            };
            host.answered();
            let status = response.status();
            if status.is_success() {
                return Ok(response);
            }
            let refused = status == StatusCode::UNAUTHORIZED;
            // The second login is for a kept token that ran out, or that another process of ours saw revoked.
            if refused && logins < 2 && self.is_ours(ask, &response) {
                logins += 1;
                let headers = response.headers().clone();
                let refusal = (&headers, &url);
                let repository = &ask.endpoint.repository;
                let used = authorization.as_ref();
                let answer = self.tokens.answer(host, ask.scopes, &slot, used, repository, refusal).await;
                match answer? {
                    Ok(answered) => {
                        authorization = Some(answered);
                        continue;
                    }
                    Err(login) => return Err(failure(ask, response, login).await),
                }
            }
            let login = authorization.map(|authorization| authorization.login).unwrap_or_default();
            return Err(failure(ask, response, login).await);
        }
    }

    /// Whether the answer is the registry's own: one that it redirected to must not make us log in.
    fn is_ours(&self, ask: &Ask<'_>, response: &Response) -> bool {
        ask.url().is_ok_and(|url| url.host_str() == response.url().host_str())
    }

    async fn send_once(
        &self,
        ask: &Ask<'_>,
        url: &Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, RegistryError> {
        let host = &ask.endpoint.host;
        let mut request = host.client().request(ask.method.clone(), url.clone());
        // An upload's location may be on another host, which must not see our token.
        let is_registry = ask.endpoint.url("").is_ok_and(|own| own.origin() == url.origin());
        if let Some(authorization) = authorization.filter(|_| is_registry) {
            request = request.header(AUTHORIZATION, authorization.header.clone());
        }
        for (name, value) in ask.headers {
            request = request.header(name, *value);
        }
        let progress = match &ask.body {
            Body::Empty => {
                if matches!(ask.method, Method::POST | Method::PUT) {
                    request = request.header(CONTENT_LENGTH, 0);
                }
                None
            }
            Body::Document { media_type, bytes } => {
                request = request.header(CONTENT_TYPE, *media_type).body(Bytes::copy_from_slice(bytes));
                None
            }
            Body::File { path, range, sent } => {
                sent.store(0, Ordering::Relaxed);
                let size = range.end - range.start;
                let body = file_body(path, range.clone(), (*sent).clone()).await?;
                request =
                    request.header(CONTENT_TYPE, "application/octet-stream").header(CONTENT_LENGTH, size).body(body);
                Some((size, *sent))
            }
        };
        let failed = |error| transport(&ask.method, url, error);
        let stalled = |after| RegistryError::Stalled { method: ask.method.clone(), url: plain(url), after };
        match progress {
            None => sent_within(STALL_TIMEOUT, request, &ask.method, url).await,
            Some((size, sent)) => match while_moving(request.send(), size, sent).await {
                Ok(result) => result.map_err(failed),
                Err(after) => Err(stalled(after)),
            },
        }
    }
}

impl Ask<'_> {
    fn url(&self) -> Result<Url, RegistryError> {
        match self.target {
            Target::Repository(path) => self.endpoint.url(path),
            Target::Location(url) => Ok(url.clone()),
        }
    }
}

/// Waits for `work` as long as `sent` grows. The error is how long it did not.
async fn while_moving<T>(work: impl Future<Output = T>, size: u64, sent: &AtomicU64) -> Result<T, Duration> {
    let mut work = std::pin::pin!(work);
    let mut before = None;
    loop {
        let limit = if sent.load(Ordering::Relaxed) >= size { COMMIT_TIMEOUT } else { STALL_TIMEOUT };
        if let Ok(done) = tokio::time::timeout(limit, &mut work).await {
            return Ok(done);
        }
        let now = Some(sent.load(Ordering::Relaxed));
        if now == before {
            return Err(limit);
        }
        before = now;
    }
}

/// These bytes of a file, read as they are sent.
pub(crate) async fn file_body(
    path: &Path,
    range: Range<u64>,
    sent: Arc<AtomicU64>,
) -> Result<reqwest::Body, RegistryError> {
    let failed = |source| RegistryError::ReadBlob { path: path.to_owned(), source };
    let mut file = tokio::fs::File::open(path).await.map_err(failed)?;
    if range.start > 0 {
        file.seek(SeekFrom::Start(range.start)).await.map_err(failed)?;
    }
    let stream =
        futures::stream::try_unfold((file.take(range.end - range.start), sent), |(mut file, sent)| async move {
            let mut chunk = bytes::BytesMut::with_capacity(UPLOAD_CHUNK);
            let read = file.read_buf(&mut chunk).await?;
            sent.fetch_add(read as u64, Ordering::Relaxed);
            Ok::<_, std::io::Error>((read > 0).then(|| (chunk.freeze(), (file, sent))))
        });
    Ok(reqwest::Body::wrap_stream(stream))
}

/// Sends a request, and gives its answer if that begins to come in time.
pub(crate) async fn sent_within(
    limit: Duration,
    request: RequestBuilder,
    method: &Method,
    url: &Url,
) -> Result<Response, RegistryError> {
    match tokio::time::timeout(limit, request.send()).await {
        Ok(answer) => answer.map_err(|error| transport(method, url, error)),
        Err(_) => Err(RegistryError::Stalled { method: method.clone(), url: plain(url), after: limit }),
    }
}

async fn failure(ask: &Ask<'_>, response: Response, login: Login) -> RegistryError {
    failure_of(&ask.method, response, login, message).await
}

/// What an answer that is no success says; `message` reads its body.
pub(crate) async fn failure_of(
    method: &Method,
    response: Response,
    login: Login,
    message: impl FnOnce(&[u8]) -> Option<String>,
) -> RegistryError {
    let (status, url, retry_after) = (response.status(), plain(response.url()), retry_after(response.headers()));
    let body = read_limited(response, ERROR_BODY_LIMIT).await.unwrap_or_default();
    RegistryError::Status { method: method.clone(), url, status, message: message(&body), retry_after, login }
}

/// Reads a body of at most `limit` bytes.
pub(crate) async fn read_limited(mut response: Response, limit: u64) -> Result<Vec<u8>, RegistryError> {
    let url = response.url().clone();
    let mut body = Vec::new();
    while let Some(chunk) = next_chunk(&mut response, &url).await? {
        if body.len() as u64 + chunk.len() as u64 > limit {
            return Err(RegistryError::TooLarge { url: plain(&url), limit });
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The next bytes of a body, `None` at its end.
pub(crate) async fn next_chunk(response: &mut Response, url: &Url) -> Result<Option<Bytes>, RegistryError> {
    match tokio::time::timeout(STALL_TIMEOUT, response.chunk()).await {
        Ok(result) => result.map_err(|error| transport(&Method::GET, url, error)),
        Err(_) => Err(RegistryError::Stalled { method: Method::GET, url: plain(url), after: STALL_TIMEOUT }),
    }
}
