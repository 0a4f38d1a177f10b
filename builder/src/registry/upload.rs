//! Sends a blob into an upload that was begun (distribution-spec, "Pushing a blob"): in one request where the registry
//! lets, and in pieces where it does not, or where the one request broke and the registry has kept a part of it.

use super::RegistryError;
use super::client::{Ask, Body, Effort, Target};
use super::error::plain;
use super::push::{Pusher, check_told};
use super::retry::may_pass;
use cache::digest::Digest;
use reqwest::header::{CONTENT_RANGE, HeaderMap, LOCATION, RANGE};
use reqwest::{Method, Response, StatusCode, Url};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Between two progress reports of an upload.
const REPORT_INTERVAL: Duration = Duration::from_millis(200);
/// Size of the first piece in bytes; halved while the registry, or a proxy on the way, finds it too large.
const PIECE: u64 = 32 << 20;
/// Pieces are not made smaller than this: nginx takes this much unless told otherwise.
const PIECE_LEAST: u64 = 512 << 10;
/// Less than this is sent again rather than asked for.
const WORTH_RESUMING: u64 = 1 << 20;

/// What is sent.
pub(super) struct Blob<'a> {
    pub digest: &'a Digest,
    /// In bytes.
    pub size: u64,
    pub path: &'a Path,
}

/// An upload as the registry last described it.
struct Session {
    location: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// Size of the next piece.
    piece: u64,
    /// No piece but the last may be smaller (`OCI-Chunk-Min-Length`).
    least: u64,
}

impl Pusher<'_> {
    /// Sends all of a blob. `begun` is the answer to the POST.
    pub(super) async fn upload(&self, begun: &Response, blob: &Blob<'_>) -> Result<(), RegistryError> {
        let location = location(begun)?;
        let least = header_number(begun.headers(), "oci-chunk-min-length").unwrap_or(0);
        let sent = Arc::new(AtomicU64::new(0));
        let target = with_digest(&location, blob.digest);
        let error = match self.send_piece(Method::PUT, &target, blob, 0..blob.size, &sent, &[]).await {
            Ok(answer) => return check_told(&answer, blob.digest),
            Err(error) => error,
        };
        let mut session = Session { location, offset: 0, piece: PIECE.max(least), least };
        if is_too_large(&error) {
            session.shrink(blob.size.min(PIECE));
            return self.send_pieces(session, blob).await;
        }
        let has_kept_some = may_pass(&error)
            && sent.load(Ordering::Relaxed) >= WORTH_RESUMING
            && self.ask_offset(&mut session).await.is_ok_and(|()| session.offset >= WORTH_RESUMING)
            && session.offset <= blob.size;
        if has_kept_some { self.send_pieces(session, blob).await } else { Err(error) }
    }

    /// Sends what is missing piece by piece, and ends the upload. A piece that broke is sent again from where the
    /// registry says that it ends.
    async fn send_pieces(&self, mut session: Session, blob: &Blob<'_>) -> Result<(), RegistryError> {
        let client = &self.registry.client;
        let mut retries = self.registry.policy.begin();
        while session.offset < blob.size {
            let piece = session.offset..blob.size.min(session.offset.saturating_add(session.piece));
            let range = format!("{}-{}", piece.start, piece.end - 1);
            let sent = Arc::new(AtomicU64::new(0));
            let headers = [(CONTENT_RANGE, range.as_str())];
            let location = session.location.clone();
            match self.send_piece(Method::PATCH, &location, blob, piece.clone(), &sent, &headers).await {
                Ok(answer) => {
                    session.update(&answer, piece.end)?;
                    if session.offset <= piece.start {
                        let url = plain(answer.url());
                        return Err(RegistryError::Answer { url, what: "an upload that does not grow" });
                    }
                    retries = self.registry.policy.begin();
                }
                Err(error) if is_too_large(&error) && session.shrink(session.piece) => {}
                Err(error) => {
                    // It may have another idea of where the last piece ended.
                    let is_out_of_step = error.status() == Some(StatusCode::RANGE_NOT_SATISFIABLE);
                    let wait = if is_out_of_step { retries.delay(None) } else { retries.after(&error) };
                    let Some(wait) = wait else { return Err(error) };
                    client.pause(wait, &error).await;
                    self.ask_offset(&mut session).await?;
                    if session.offset > blob.size {
                        return Err(error);
                    }
                }
            }
        }
        let location = with_digest(&session.location, blob.digest);
        let ask = self.ask(Method::PUT, Target::Location(&location), Effort::Once);
        check_told(&client.send(&ask).await?, blob.digest)
    }

    /// Asks how much of an upload the registry has.
    async fn ask_offset(&self, session: &mut Session) -> Result<(), RegistryError> {
        let location = session.location.clone();
        let ask = self.ask(Method::GET, Target::Location(&location), Effort::Retry(self.registry.policy));
        let answer = self.registry.client.send(&ask).await?;
        let end = range_end(answer.headers()).unwrap_or(0);
        session.update(&answer, end)
    }

    async fn send_piece(
        &self,
        method: Method,
        location: &Url,
        blob: &Blob<'_>,
        piece: Range<u64>,
        sent: &Arc<AtomicU64>,
        headers: &[(reqwest::header::HeaderName, &str)],
    ) -> Result<Response, RegistryError> {
        let before = piece.start;
        let body = Body::File { path: blob.path, range: piece, sent };
        let ask = Ask { body, headers, ..self.ask(method, Target::Location(location), Effort::Once) };
        let mut sending = std::pin::pin!(self.registry.client.send(&ask));
        let mut ticks = tokio::time::interval(REPORT_INTERVAL);
        loop {
            tokio::select! {
                answer = &mut sending => return answer,
                _ = ticks.tick() => {
                    let now = before + sent.load(Ordering::Relaxed);
                    self.vertex.status(blob.digest.as_str(), now.min(blob.size), blob.size);
                }
            }
        }
    }
}

impl Session {
    /// Takes over what an answer says; `end` is where it ends if the answer does not say.
    fn update(&mut self, answer: &Response, end: u64) -> Result<(), RegistryError> {
        if answer.headers().contains_key(LOCATION) {
            self.location = location(answer)?;
        }
        self.offset = range_end(answer.headers()).unwrap_or(end);
        Ok(())
    }

    /// Makes pieces smaller than `size`, which was too large; false if they may not be.
    fn shrink(&mut self, size: u64) -> bool {
        let smaller = (size / 2).max(PIECE_LEAST).max(self.least);
        let shrinks = smaller < size;
        self.piece = smaller;
        shrinks
    }
}

/// Whether a request was refused for its size, or since its length must not be known before.
fn is_too_large(error: &RegistryError) -> bool {
    matches!(error.status(), Some(StatusCode::PAYLOAD_TOO_LARGE | StatusCode::LENGTH_REQUIRED))
}

/// Where the next request of an upload goes.
fn location(answer: &Response) -> Result<Url, RegistryError> {
    let text = answer.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let location = text.and_then(|text| answer.url().join(text).ok());
    let mut location =
        location.ok_or_else(|| RegistryError::Answer { url: plain(answer.url()), what: "no location to upload to" })?;
    // Registries behind a proxy that speaks TLS for them do not know that they should say https.
    let is_same = location.host_str() == answer.url().host_str() && location.port().is_none();
    if answer.url().scheme() == "https" && location.scheme() == "http" && is_same {
        // It cannot fail: both are special schemes.
        let _ = location.set_scheme("https");
    }
    Ok(location)
}

fn with_digest(location: &Url, digest: &Digest) -> Url {
    let mut url = location.clone();
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    url
}

/// Bytes that the registry has: one more than the end of `Range: 0-<end>`. Nothing is `0-0`, which a single byte is, too.
fn range_end(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(RANGE)?.to_str().ok()?.trim();
    let text = text.strip_prefix("bytes=").unwrap_or(text);
    let end: u64 = text.strip_prefix("0-")?.parse().ok()?;
    Some(if end == 0 { 0 } else { end.saturating_add(1) })
}

fn header_number(headers: &HeaderMap, name: &str) -> Option<u64> {
    headers.get(name)?.to_str().ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_ranges() {
        let check = |text: &str, expect: Option<u64>| {
            let headers = HeaderMap::from_iter([(RANGE, text.parse().unwrap())]);
            assert_eq!(range_end(&headers), expect, "{text}");
        };
        check("0-0", Some(0));
        check("0-9", Some(10));
        check("bytes=0-9", Some(10));
        check("5-9", None);
        check("0-18446744073709551615", Some(u64::MAX));
        check("x", None);
    }
}
