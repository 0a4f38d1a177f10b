//! A cache in an object store: blobs by digest, and an index by name. What the stores' requests are is `s3.rs` and
//! `azure.rs`.

use super::azure::Azure;
use super::place::{Found, OpenBlob, PlaceError, Reading, Written, missing_blobs};
use super::s3::S3;
use crate::registry::RegistryError;
use crate::registry::client::{STALL_TIMEOUT, failure_of, file_body, next_chunk, sent_within};
use crate::registry::error::{Login, plain};
use crate::registry::retry::RetryPolicy;
use bytes::Bytes;
use cache::digest::{Descriptor, Digest};
use cache::remote::Index;
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use reqwest::{Client, Method, Response, StatusCode, Url};
use sha2::{Digest as _, Sha256};
use solver::key::hex;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use tokio::sync::Semaphore;

/// Longest index, in bytes.
pub(super) const INDEX_LIMIT: u64 = 64 << 20;

/// An index and its blobs.
#[derive(Clone)]
pub struct Objects {
    pub bucket: Bucket,
    /// Before a blob's digest.
    pub blobs: String,
    /// Name of the index.
    pub index: String,
    pub client: Client,
    pub policy: RetryPolicy,
    /// Taken while a blob is sent.
    pub uploads: Arc<Semaphore>,
}

/// Which store, and who asks.
#[derive(Clone)]
pub enum Bucket {
    S3(Arc<S3>),
    Azure(Arc<Azure>),
}

/// What a request is, before it is signed.
pub(super) struct Ask {
    pub method: Method,
    pub url: Url,
    /// All that are signed; `host` is added.
    pub headers: Vec<(&'static str, String)>,
    /// In bytes.
    pub length: u64,
    /// SHA-256 of the body, in hex.
    pub sha256: String,
}

/// A body that can be sent again.
#[derive(Clone)]
enum Body {
    Empty,
    Bytes(Bytes),
    /// Its digest is known, since it is a blob.
    File(PathBuf, Descriptor),
}

impl Objects {
    pub(super) fn name(&self) -> String {
        format!("{}/{}", self.bucket.name(), self.index)
    }

    pub(super) fn kind(&self) -> &'static str {
        match self.bucket {
            Bucket::S3(_) => "Amazon S3",
            Bucket::Azure(_) => "Azure Blob Storage",
        }
    }

    /// Whether the store may not know conditions of writes.
    pub(super) fn may_overwrite(&self) -> bool {
        matches!(self.bucket, Bucket::S3(_))
    }

    pub(super) async fn read(&self) -> Result<Reading, PlaceError> {
        let Some(answer) = self.get(&self.index).await? else {
            return Ok(Reading { found: Found::Nothing, version: None });
        };
        let version = answer.headers().get(ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_string);
        let bytes = ObjectReader::new(answer).all(INDEX_LIMIT).await?;
        Ok(Reading { found: Found::Cache(Index::parse(&bytes)?), version })
    }

    pub(super) async fn write(&self, index: &Index, over: Option<&str>) -> Result<Written, PlaceError> {
        // Stores take any index: whoever names a blob here has put it there, or has seen it in the last index.
        let condition = match over {
            Some(version) => (IF_MATCH, version.to_string()),
            None => (IF_NONE_MATCH, "*".to_string()),
        };
        let bytes = index.to_bytes();
        let missing = missing_blobs(index, |digest| async move { self.has(&digest).await }).await?;
        if !missing.is_empty() {
            return Ok(Written::Missing(missing));
        }
        match self.send(Method::PUT, &self.index, Some(condition), Body::Bytes(bytes.into())).await {
            Ok(_) => Ok(Written::Done),
            Err(error) if error.status().is_some_and(|status| matches!(status.as_u16(), 409 | 412)) => {
                Ok(Written::Changed)
            }
            Err(error) => Err(error.into()),
        }
    }

    pub(super) async fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), PlaceError> {
        if self.has(&blob.digest).await? {
            return Ok(());
        }
        let path = open(blob.clone()).await.map_err(|error| PlaceError::Blob(Box::new(error)))?;
        let _turn = self.uploads.acquire().await;
        let key = self.key(&blob.digest);
        Ok(self.send(Method::PUT, &key, None, Body::File(path, blob.clone())).await.map(drop)?)
    }

    /// Opens a blob.
    pub(crate) async fn open(&self, blob: &Descriptor) -> Result<ObjectReader, RegistryError> {
        let answer = self.send(Method::GET, &self.key(&blob.digest), None, Body::Empty).await?;
        Ok(ObjectReader::new(answer))
    }

    async fn has(&self, digest: &Digest) -> Result<bool, RegistryError> {
        match self.send(Method::HEAD, &self.key(digest), None, Body::Empty).await {
            Ok(_) => Ok(true),
            // Whoever may not list is told so in place of 404.
            Err(error) if error.status().is_some_and(|status| matches!(status.as_u16(), 403 | 404)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn get(&self, key: &str) -> Result<Option<Response>, RegistryError> {
        match self.send(Method::GET, key, None, Body::Empty).await {
            Err(error) if error.status() == Some(StatusCode::NOT_FOUND) => Ok(None),
            answer => answer.map(Some),
        }
    }

    fn key(&self, digest: &Digest) -> String {
        format!("{}{digest}", self.blobs)
    }

    /// Gives the answer if it is a success; tries again as the policy says.
    async fn send(
        &self,
        method: Method,
        key: &str,
        condition: Option<(HeaderName, String)>,
        body: Body,
    ) -> Result<Response, RegistryError> {
        let url = self.bucket.url(key)?;
        let request = || self.attempt(&method, &url, condition.as_ref(), &body);
        match self.policy.retry(None, request).await {
            Err(error) if method == Method::PUT && self.make_container(&error).await? => {
                self.policy.retry(None, request).await
            }
            answer => answer,
        }
    }

    /// Makes the container, if `error` says that there is none: BuildKit does so, too.
    async fn make_container(&self, error: &RegistryError) -> Result<bool, RegistryError> {
        let Bucket::Azure(azure) = &self.bucket else { return Ok(false) };
        match error {
            RegistryError::Status { message: Some(message), .. } if message.starts_with("ContainerNotFound") => {}
            _ => return Ok(false),
        }
        let url = azure.container_url();
        let url = Url::parse(&url).map_err(|_| RegistryError::BadHost(url))?;
        match self.attempt(&Method::PUT, &url, None, &Body::Empty).await {
            // Somebody else was faster.
            Err(error) if error.status() == Some(StatusCode::CONFLICT) => Ok(true),
            made => made.map(|_| true),
        }
    }

    async fn attempt(
        &self,
        method: &Method,
        url: &Url,
        condition: Option<&(HeaderName, String)>,
        body: &Body,
    ) -> Result<Response, RegistryError> {
        let (length, sha256) = match body {
            Body::Empty => (0, hex(&Sha256::digest(b""))),
            Body::Bytes(bytes) => (bytes.len() as u64, hex(&Sha256::digest(bytes))),
            Body::File(_, blob) => (blob.size, blob.digest.hex().to_string()),
        };
        let mut ask = Ask { method: method.clone(), url: url.clone(), headers: vec![], length, sha256 };
        if let Some((name, value)) = condition {
            ask.headers.push((if *name == IF_MATCH { "if-match" } else { "if-none-match" }, value.clone()));
        }
        let mut headers = HeaderMap::new();
        for (name, value) in self.bucket.sign(ask) {
            let value = HeaderValue::from_str(&value).map_err(|_| RegistryError::BadHost(plain(url)))?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let mut request = self.client.request(method.clone(), url.clone()).headers(headers);
        request = match body {
            Body::Empty if *method == Method::PUT => request.header(CONTENT_LENGTH, 0),
            Body::Empty => request,
            Body::Bytes(bytes) => request.body(bytes.clone()),
            Body::File(path, blob) => {
                let body = file_body(path, 0..blob.size, Arc::new(AtomicU64::new(0))).await?;
                request.header(CONTENT_LENGTH, blob.size).body(body)
            }
        };
        // Of an upload, no more is known than that it goes on.
        let limit = STALL_TIMEOUT * if matches!(body, Body::File(..)) { 60 } else { 1 };
        let answer = sent_within(limit, request, method, url).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        Err(failure_of(method, answer, Login::default(), |body| xml_message(&String::from_utf8_lossy(body))).await)
    }
}

impl Bucket {
    fn name(&self) -> String {
        match self {
            Bucket::S3(s3) => s3.name(),
            Bucket::Azure(azure) => azure.name(),
        }
    }

    /// Name of the server, without a port.
    pub(super) fn host(&self) -> String {
        self.url("").ok().and_then(|url| url.host_str().map(str::to_string)).unwrap_or_default()
    }

    fn url(&self, key: &str) -> Result<Url, RegistryError> {
        let url = match self {
            Bucket::S3(s3) => s3.url(key),
            Bucket::Azure(azure) => azure.url(key),
        };
        Url::parse(&url).map_err(|_| RegistryError::BadHost(url))
    }

    fn sign(&self, ask: Ask) -> Vec<(&'static str, String)> {
        match self {
            Bucket::S3(s3) => s3.sign(ask, cache::ledger::now_ms()),
            Bucket::Azure(azure) => azure.sign(ask, std::time::SystemTime::now()),
        }
    }
}

/// Bytes of a blob as they come. Whoever writes them somewhere hashes them there.
pub struct ObjectReader {
    answer: Response,
    url: Url,
    offset: u64,
}

impl ObjectReader {
    pub(super) fn new(answer: Response) -> ObjectReader {
        ObjectReader { url: answer.url().clone(), answer, offset: 0 }
    }

    /// All bytes, at most `limit`.
    pub(super) async fn all(mut self, limit: u64) -> Result<Vec<u8>, RegistryError> {
        let mut bytes = vec![];
        while let Some(chunk) = self.chunk().await? {
            if self.offset > limit {
                return Err(RegistryError::TooLarge { url: plain(&self.url), limit });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }

    /// The next bytes, `None` at the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, RegistryError> {
        let chunk = next_chunk(&mut self.answer, &self.url).await?;
        self.offset += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        Ok(chunk)
    }

    /// Bytes read so far.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

/// What an error says: `Code: Message` of S3 and Azure.
pub(super) fn xml_message(text: &str) -> Option<String> {
    let element = |name: &str| {
        let (_, rest) = text.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(inner, _)| inner.lines().next().unwrap_or_default())
    };
    match (element("Code"), element("Message")) {
        (Some(code), Some(message)) => Some(format!("{code}: {message}")),
        (code, message) => code.or(message).map(str::to_string),
    }
}

/// HMAC-SHA-256 (RFC 2104).
pub(super) fn hmac(key: &[u8], message: &[u8]) -> [u8; 32] {
    let mut block = [0u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let inner = Sha256::new().chain_update(block.map(|byte| byte ^ 0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(block.map(|byte| byte ^ 0x5c)).chain_update(inner).finalize().into()
}

/// A path in a URL, percent-encoded but for `/` and what RFC 3986 leaves unreserved.
pub(super) fn encoded(path: &str) -> String {
    path.bytes()
        .map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => char::from(byte).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_of_rfc_4231() {
        let check = |key: &[u8], data: &[u8], want: &str| assert_eq!(hex(&hmac(key, data)), want);
        check(
            b"Jefe",
            b"what do ya want for nothing?",
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
        );
        check(
            &[0xaa; 131],
            b"Test Using Larger Than Block-Size Key - Hash Key First",
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54",
        );
    }

    #[test]
    fn messages() {
        let text = "<Error><Code>NoSuchBucket</Code><Message>no such\nbucket</Message></Error>";
        assert_eq!(xml_message(text).as_deref(), Some("NoSuchBucket: no such"));
        assert_eq!(xml_message("x"), None);
    }
}
