//! Requests of the cache service of GitHub Actions: version 1, which is REST, and version 2, which is twirp, with the
//! contents of entries in Azure's blob service. An entry is reserved, sent, and then committed; only then it is found.

use super::azure;
use super::objects::{ObjectReader, xml_message};
use crate::registry::RegistryError;
use crate::registry::client::{STALL_TIMEOUT, failure_of, file_body, sent_within};
use crate::registry::error::{Login, plain};
use crate::registry::retry::RetryPolicy;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

/// What is sent in one request, at most, in bytes.
const PART: u64 = 32 << 20;
/// Longest answer that is not an entry, in bytes.
const ANSWER_LIMIT: u64 = 1 << 20;
const V1_ACCEPT: &str = "application/json;api-version=6.0-preview.1";
const V2_SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";

/// Which of the service's interfaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// The service, and who asks.
pub struct Service {
    version: Version,
    /// With a slash at its end.
    base: Url,
    /// `Bearer …`.
    authorization: HeaderValue,
    client: Client,
    policy: RetryPolicy,
}

/// An entry that was found.
pub struct Entry {
    pub key: String,
    /// Signed: not to be shown.
    pub url: Url,
}

/// What came of saving an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    Done,
    /// The key is taken. Its entry need not be complete.
    Exists,
}

/// What an entry is to have in it.
#[derive(Clone)]
pub enum Content {
    Bytes(Bytes),
    File { path: PathBuf, size: u64 },
}

/// Where the contents of a reserved entry go.
enum Reserved {
    V1 { id: u64 },
    V2 { url: Url },
}

struct Ask<'a> {
    method: Method,
    url: Url,
    /// Contents go to signed URLs, which are not told who asks.
    is_signed: bool,
    headers: Vec<(HeaderName, String)>,
    body: Body<'a>,
}

enum Body<'a> {
    Empty,
    Json(Value),
    Part(&'a Content, Range<u64>),
}

#[derive(Deserialize)]
struct FoundV1 {
    #[serde(rename = "cacheKey")]
    key: String,
    #[serde(rename = "archiveLocation")]
    url: String,
}

#[derive(Deserialize)]
struct ReservedV1 {
    #[serde(rename = "cacheId")]
    id: u64,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AnswerV2 {
    ok: bool,
    #[serde(alias = "matchedKey")]
    matched_key: String,
    #[serde(alias = "signedDownloadUrl")]
    signed_download_url: String,
    #[serde(alias = "signedUploadUrl")]
    signed_upload_url: String,
}

impl Service {
    pub(super) fn new(
        version: Version,
        base: Url,
        authorization: HeaderValue,
        client: Client,
        policy: RetryPolicy,
    ) -> Service {
        Service { version, base, authorization, client, policy }
    }

    /// Name of the server.
    pub(super) fn host(&self) -> &str {
        self.base.host_str().unwrap_or_default()
    }

    /// An error about what it answers.
    pub(super) fn unusable(&self, what: &'static str) -> RegistryError {
        RegistryError::Answer { url: plain(&self.base), what }
    }

    /// The newest entry whose key begins so.
    pub(super) async fn find(&self, prefix: &str) -> Result<Option<Entry>, RegistryError> {
        let (key, url) = match self.version {
            Version::V1 => {
                let mut url = self.url("_apis/artifactcache/cache")?;
                url.query_pairs_mut().append_pair("keys", prefix).append_pair("version", &entry_version());
                let answer = self.send(&self.ask(Method::GET, url, Body::Empty)).await?;
                if answer.status() == StatusCode::NO_CONTENT {
                    return Ok(None);
                }
                let found: FoundV1 = self.json(answer).await?;
                (found.key, found.url)
            }
            Version::V2 => {
                let what = json!({ "key": prefix, "restore_keys": [prefix], "version": entry_version() });
                let found = match self.call("GetCacheEntryDownloadURL", what).await {
                    Err(RegistryError::Status { message: Some(text), .. }) if text.starts_with("not_found") => {
                        return Ok(None);
                    }
                    found => found?,
                };
                if !found.ok {
                    return Ok(None);
                }
                (found.matched_key, found.signed_download_url)
            }
        };
        if !key.starts_with(prefix) {
            return Err(self.unusable("an entry of another key"));
        }
        Ok(Some(Entry { key, url: self.signed(&url)? }))
    }

    /// Opens what is at a signed URL.
    pub(super) async fn download(&self, url: Url) -> Result<ObjectReader, RegistryError> {
        let ask = Ask { method: Method::GET, url, is_signed: true, headers: vec![], body: Body::Empty };
        Ok(ObjectReader::new(self.send(&ask).await?))
    }

    /// Makes an entry.
    pub(super) async fn save(&self, key: &str, content: &Content) -> Result<Saved, RegistryError> {
        let reserved = match self.reserve(key, content.size()).await {
            Err(error) if is_taken(&error) => return Ok(Saved::Exists),
            reserved => reserved?,
        };
        let size = content.size();
        match reserved {
            Reserved::V1 { id } => {
                let url = self.url(&format!("_apis/artifactcache/caches/{id}"))?;
                for part in parts(size) {
                    let mut ask = self.ask(Method::PATCH, url.clone(), Body::Part(content, part.clone()));
                    ask.headers.push((CONTENT_TYPE, "application/octet-stream".into()));
                    ask.headers.push((CONTENT_RANGE, format!("bytes {}-{}/*", part.start, part.end - 1)));
                    self.send(&ask).await?;
                }
                self.send(&self.ask(Method::POST, url, Body::Json(json!({ "size": size })))).await?;
            }
            Reserved::V2 { url } => {
                self.send_blob(url, content).await?;
                let what = json!({ "key": key, "version": entry_version(), "size_bytes": size.to_string() });
                if !self.call("FinalizeCacheEntryUpload", what).await?.ok {
                    return Err(self.unusable("an entry is not accepted"));
                }
            }
        }
        Ok(Saved::Done)
    }

    async fn reserve(&self, key: &str, size: u64) -> Result<Reserved, RegistryError> {
        match self.version {
            Version::V1 => {
                let what = json!({ "key": key, "version": entry_version(), "cacheSize": size });
                let url = self.url("_apis/artifactcache/caches")?;
                let answer = self.send(&self.ask(Method::POST, url, Body::Json(what))).await?;
                Ok(Reserved::V1 { id: self.json::<ReservedV1>(answer).await?.id })
            }
            Version::V2 => {
                let what = json!({ "key": key, "version": entry_version() });
                let answer = self.call("CreateCacheEntry", what).await?;
                if !answer.ok {
                    return Err(self.unusable("no entry can be made"));
                }
                Ok(Reserved::V2 { url: self.signed(&answer.signed_upload_url)? })
            }
        }
    }

    /// Sends a block blob: in one piece (Azure, "Put Blob"), or in blocks that are then listed ("Put Block List").
    async fn send_blob(&self, url: Url, content: &Content) -> Result<(), RegistryError> {
        let put = |url: Url, headers: Vec<(HeaderName, String)>, body| {
            let version = (HeaderName::from_static("x-ms-version"), azure::VERSION.to_string());
            let headers = headers.into_iter().chain([version]).collect();
            Ask { method: Method::PUT, url, is_signed: true, headers, body }
        };
        let size = content.size();
        if size <= PART {
            let kind = (HeaderName::from_static("x-ms-blob-type"), "BlockBlob".to_string());
            self.send(&put(url, vec![kind], Body::Part(content, 0..size))).await?;
            return Ok(());
        }
        let mut list = String::from("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>");
        for (number, part) in parts(size).enumerate() {
            // All of one length.
            let id = BASE64_STANDARD.encode(format!("{number:06}"));
            let mut of_block = url.clone();
            of_block.query_pairs_mut().append_pair("comp", "block").append_pair("blockid", &id);
            self.send(&put(of_block, vec![], Body::Part(content, part))).await?;
            list += &format!("<Latest>{id}</Latest>");
        }
        let list = Content::Bytes((list + "</BlockList>").into());
        let mut of_list = url;
        of_list.query_pairs_mut().append_pair("comp", "blocklist");
        let kind = (CONTENT_TYPE, "application/xml".to_string());
        self.send(&put(of_list, vec![kind], Body::Part(&list, 0..list.size()))).await?;
        Ok(())
    }

    async fn call(&self, method: &str, what: Value) -> Result<AnswerV2, RegistryError> {
        let url = self.url(&format!("{V2_SERVICE}/{method}"))?;
        let answer = self.send(&self.ask(Method::POST, url, Body::Json(what))).await?;
        self.json(answer).await
    }

    fn ask<'a>(&self, method: Method, url: Url, body: Body<'a>) -> Ask<'a> {
        let headers = match self.version {
            Version::V1 => vec![(ACCEPT, V1_ACCEPT.to_string())],
            Version::V2 => vec![],
        };
        Ask { method, url, is_signed: false, headers, body }
    }

    fn url(&self, path: &str) -> Result<Url, RegistryError> {
        self.base.join(path).map_err(|_| RegistryError::BadHost(plain(&self.base)))
    }

    fn signed(&self, url: &str) -> Result<Url, RegistryError> {
        Url::parse(url).map_err(|_| self.unusable("no URL for an entry"))
    }

    async fn json<T: DeserializeOwned>(&self, answer: Response) -> Result<T, RegistryError> {
        let bytes = ObjectReader::new(answer).all(ANSWER_LIMIT).await?;
        serde_json::from_slice(&bytes).map_err(|_| self.unusable("not the JSON that was expected"))
    }

    /// Gives the answer if it is a success; tries again as the policy says.
    async fn send(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        self.policy.retry(None, || self.attempt(ask)).await
    }

    async fn attempt(&self, ask: &Ask<'_>) -> Result<Response, RegistryError> {
        let Ask { method, url, .. } = ask;
        let mut request = self.client.request(method.clone(), url.clone());
        for (name, value) in &ask.headers {
            request = request.header(name, value);
        }
        if !ask.is_signed {
            request = request.header(AUTHORIZATION, self.authorization.clone());
        }
        let mut limit = STALL_TIMEOUT;
        request = match &ask.body {
            Body::Empty => request,
            Body::Json(value) => request.header(CONTENT_TYPE, "application/json").body(value.to_string()),
            Body::Part(Content::Bytes(bytes), part) => {
                request.body(bytes.slice(part.start as usize..part.end as usize))
            }
            Body::Part(Content::File { path, .. }, part) => {
                // Of an upload, no more is known than that it goes on.
                limit *= 10;
                let sent = Arc::new(AtomicU64::new(0));
                let body = file_body(path, part.clone(), sent).await?;
                request.header(CONTENT_LENGTH, part.end - part.start).body(body)
            }
        };
        let answer = sent_within(limit, request, method, url).await?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        // For the advice that follows 401 and 403.
        let login = Login { user: Some("the token".into()), problems: vec![] };
        let said = |body: &[u8]| message(&String::from_utf8_lossy(body)).map(|text| self.without_token(&text));
        Err(failure_of(method, answer, login, said).await)
    }

    /// What a server says, should it say the token.
    fn without_token(&self, text: &str) -> String {
        let token = self.authorization.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
        token.filter(|token| !token.is_empty()).map_or(text.to_string(), |token| text.replace(token, "***"))
    }
}

impl Content {
    fn size(&self) -> u64 {
        match self {
            Content::Bytes(bytes) => bytes.len() as u64,
            Content::File { size, .. } => *size,
        }
    }
}

/// Pieces that follow each other.
fn parts(size: u64) -> impl Iterator<Item = Range<u64>> {
    (0..size.div_ceil(PART)).map(move |number| number * PART..size.min((number + 1) * PART))
}

/// What the service asks of an entry beside its key.
fn entry_version() -> String {
    solver::key::hex(&Sha256::digest(b"kiln cache, version 1"))
}

/// Whether an entry cannot be reserved, since its key is taken.
fn is_taken(error: &RegistryError) -> bool {
    let RegistryError::Status { status, message, .. } = error else { return false };
    let text = message.as_deref().unwrap_or_default().to_lowercase();
    *status == StatusCode::CONFLICT || text.contains("already_exists") || text.contains("alreadyexists")
}

/// `code: message` of both versions and of Azure.
fn message(text: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Said {
        #[serde(alias = "typeKey")]
        code: Option<String>,
        #[serde(alias = "msg")]
        message: Option<String>,
    }
    match serde_json::from_str(text) {
        Ok(Said { code: Some(code), message: Some(message) }) => Some(format!("{code}: {message}")),
        Ok(Said { code, message }) => code.or(message),
        Err(_) => xml_message(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_all_versions() {
        let check = |text: &str, want: Option<&str>| assert_eq!(message(text).as_deref(), want);
        check(r#"{"code":"already_exists","msg":"m"}"#, Some("already_exists: m"));
        check(
            r#"{"message":"m","typeName":"n","typeKey":"ArtifactCacheItemAlreadyExistsException"}"#,
            Some("ArtifactCacheItemAlreadyExistsException: m"),
        );
        check("<Error><Code>C</Code><Message>m</Message></Error>", Some("C: m"));
        check("<html>", None);
    }

    #[test]
    fn parts_are_all_of_it() {
        assert_eq!(parts(0).count(), 0);
        assert_eq!(parts(PART).count(), 1);
        assert_eq!(parts(PART + 1).collect::<Vec<_>>(), [0..PART, PART..PART + 1]);
    }
}
