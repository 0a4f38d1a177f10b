//! Files from HTTP(S) servers, each as a tree with that one file: ADD of a URL, and contexts (reference/dockerfile.md
//! 2.7, 4.6, 6.2).
//!
//! A file is streamed into a snapshot while it is hashed. What its URL gave is remembered with the server's validators
//! (RFC 9110 section 13), so that the next build asks whether it changed; a server without any is asked for all of it.

pub(crate) mod client;
mod error;

pub use error::HttpError;

use super::image::blocking;
use crate::cancel::Cancel;
use crate::progress::Vertex;
use crate::registry::retry::RetryPolicy;
use crate::secret::Secrets;
use bytes::Bytes;
use cache::digest::Digest;
use cache::error::FileError;
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::snapshot::overlay::Draft;
use cache::store::Store;
use cache::tree::{Layer, SnapshotId, stack};
use client::{Credentials, Failure, HttpClient, credentials, next_chunk, shown};
use reqwest::header::{CONTENT_LENGTH, ETAG, HeaderMap, HeaderName, IF_MODIFIED_SINCE, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Response, StatusCode, Url};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use solver::key::CacheKey;
use solver::record::RecordStore;
use std::collections::HashMap;
use std::fs::{File, FileTimes, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::{OnceCell, mpsc};

/// Mode of every file (reference/dockerfile.md 2.7).
const MODE: u32 = 0o600;
/// How often a server is asked: there may be another way to the file than waiting for it.
const ATTEMPTS: u32 = 5;
/// Pieces of a body between the network and the thread that writes them; each is some 16 KiB or less.
const PIECES_AHEAD: usize = 64;
/// Between two progress reports.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Namespaces of notes in the store: what a URL gave, and where the file of a digest is.
const BY_URL: &str = "http url";
const BY_DIGEST: &str = "http content";

/// The files of one build. Cheap to clone. A URL that is asked for twice is fetched once.
#[derive(Clone)]
pub struct HttpFiles {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    secrets: Arc<Secrets>,
    client: HttpClient,
    known: Mutex<HashMap<HttpRequest, Answer>>,
}

type Answer = Arc<OnceCell<Result<HttpFile, Arc<HttpError>>>>;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HttpRequest {
    pub url: String,
    /// The name that it gets.
    pub filename: String,
    /// `--checksum`.
    pub checksum: Option<String>,
}

/// A file that was fetched.
#[derive(Clone, Debug)]
pub struct HttpFile {
    /// The tree that holds it, and nothing else.
    pub layer: Layer,
    /// Of its bytes.
    pub digest: Digest,
    /// `Last-Modified`, seconds since 1970.
    pub last_modified: Option<i64>,
}

/// What a URL gave, as it is remembered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Known {
    etag: Option<String>,
    /// As the server wrote it, to be sent back.
    last_modified: Option<String>,
    digest: Digest,
    /// Where the file is, and its name there.
    snapshot: SnapshotId,
    name: String,
}

/// What an answer came to.
enum Answered {
    /// It is what was known.
    Same,
    New(Box<Received>),
}

/// A body that was written to a draft.
struct Received {
    draft: Draft,
    known: Known,
}

impl HttpFiles {
    /// Opens nothing yet. Secrets for servers are `HTTP_AUTH_HEADER_<host>` and `HTTP_AUTH_TOKEN_<host>`.
    pub fn new(store: Store, secrets: Arc<Secrets>, cancel: Cancel) -> HttpFiles {
        let client = HttpClient::new(RetryPolicy::default().at_most(ATTEMPTS), cancel);
        HttpFiles { inner: Arc::new(Inner { store, secrets, client, known: Mutex::default() }) }
    }

    /// Fetches a file, or finds that the store has what the server has. A file whose checksum is given and that is in
    /// the store, whatever URL it came from, is not asked for at all.
    pub async fn file(&self, request: &HttpRequest, vertex: &Vertex) -> Result<HttpFile, HttpError> {
        let answer = {
            let mut known = self.inner.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.entry(request.clone()).or_default().clone()
        };
        let found = answer.get_or_init(|| async { self.inner.find(request, vertex).await.map_err(Arc::new) }).await;
        found.clone().map_err(HttpError::Shared)
    }

    /// The path of a fetched file.
    pub fn path(&self, file: &HttpFile, request: &HttpRequest) -> PathBuf {
        self.inner.store.snapshots().path(&file.layer.snapshot).join(&request.filename)
    }

    /// Fetches a text of at most `limit` bytes, such as a Dockerfile. It is not kept.
    pub async fn text(&self, url: &str, limit: usize) -> Result<Vec<u8>, HttpError> {
        let url = parse(url)?;
        let credentials = credentials(&self.inner.secrets, &url)?;
        self.inner.client.retrying(|| self.inner.small(&url, limit, credentials.as_ref())).await
    }
}

impl Inner {
    async fn find(&self, request: &HttpRequest, vertex: &Vertex) -> Result<HttpFile, HttpError> {
        if let Some(checksum) = &request.checksum
            && let Some(known) = self.note(BY_DIGEST, checksum)?
        {
            return self.reuse(known, request).await;
        }
        let url = parse(&request.url)?;
        let id = CacheKey::of(format!("http {url}").as_bytes());
        let _claim = tokio::select! {
            claim = self.store.claim(&id) => claim?,
            () = self.client.cancel.canceled() => return Err(HttpError::Canceled),
        };
        let known = self.note(BY_URL, url.as_str())?;
        let credentials = credentials(&self.secrets, &url)?;
        let credentials = credentials.as_ref();
        let answered =
            self.client.retrying(|| self.attempt(request, &url, known.as_ref(), credentials, vertex)).await?;
        let received = match (answered, known) {
            (Answered::Same, Some(known)) => {
                self.check(request, &url, &known.digest)?;
                return self.reuse(known, request).await;
            }
            (Answered::Same, None) => unreachable!("nothing can be the same as nothing"),
            (Answered::New(received), _) => received,
        };
        self.check(request, &url, &received.known.digest)?;
        let (file, snapshot) = (file(&received.known, &request.filename), received.known.snapshot.clone());
        let (store, draft) = (self.store.clone(), received.draft);
        blocking(move || store.snapshots().commit(draft, &snapshot)).await?;
        let note = serde_json::to_vec(&received.known).expect("plain data");
        let id = ObjectId::new(Kind::Snapshot, &*file.layer.snapshot.0);
        self.store
            .describe(id, About { description: format!("{} from {}", request.filename, shown(&url)), category: "" });
        self.store.put_note(BY_URL, url.as_str(), &note)?;
        self.store.put_note(BY_DIGEST, file.digest.as_str(), &note)?;
        Ok(file)
    }

    async fn attempt(
        &self,
        request: &HttpRequest,
        url: &Url,
        known: Option<&Known>,
        credentials: Option<&Credentials>,
        vertex: &Vertex,
    ) -> Result<Answered, Failure> {
        let conditions = known.map(conditions).unwrap_or_default();
        let response = self.client.get(url, &conditions, credentials).await?;
        let etag = header(&response, &ETAG);
        // Some servers send all of it though it is the same.
        let is_same = known.is_some_and(|known| known.etag.is_some() && known.etag == etag);
        if is_same || response.status() == StatusCode::NOT_MODIFIED {
            return Ok(Answered::Same);
        }
        Ok(Answered::New(Box::new(self.receive(response, request, url, vertex).await?)))
    }

    /// Writes a body to a draft while it comes.
    async fn receive(
        &self,
        mut response: Response,
        request: &HttpRequest,
        url: &Url,
        vertex: &Vertex,
    ) -> Result<Received, Failure> {
        let last = |error: HttpError| (error, None);
        let (etag, last_modified) = (header(&response, &ETAG), header(&response, &LAST_MODIFIED));
        let mtime = last_modified.as_deref().and_then(seconds).unwrap_or(0);
        let total = header(&response, &CONTENT_LENGTH).and_then(|text| text.parse().ok()).unwrap_or(0);
        let draft = self.store.snapshots().prepare().map_err(|error| last(error.into()))?;
        let path = draft.upper().join(&request.filename);
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let writing = tokio::task::spawn_blocking(move || write(pieces, &path, mtime));
        let status = format!("downloading {}", request.filename);
        let (mut current, mut reported) = (0, Instant::now());
        vertex.status(&status, 0, total);
        let broken = loop {
            match next_chunk(&mut response, url).await {
                Ok(Some(chunk)) => {
                    current += chunk.len() as u64;
                    // The writer is gone if it failed; it says why.
                    if sender.send(chunk).await.is_err() {
                        break None;
                    }
                }
                Ok(None) => break None,
                Err(failure) => break Some(failure),
            }
            if reported.elapsed() >= REPORT_INTERVAL {
                vertex.status(&status, current, total);
                reported = Instant::now();
            }
        };
        drop(sender);
        let written = writing.await.expect("the writer does not panic").map_err(|error| last(error.into()))?;
        if let Some(failure) = broken {
            return Err(failure);
        }
        vertex.status_done(&status, current, total);
        let name = request.filename.clone();
        let snapshot = snapshot(&change(&name, &written, mtime));
        Ok(Received { draft, known: Known { etag, last_modified, digest: written, snapshot, name } })
    }

    async fn small(&self, url: &Url, limit: usize, credentials: Option<&Credentials>) -> Result<Vec<u8>, Failure> {
        let mut response = self.client.get(url, &HeaderMap::new(), credentials).await?;
        let mut body = Vec::new();
        while let Some(chunk) = next_chunk(&mut response, url).await? {
            if body.len() + chunk.len() > limit {
                return Err((HttpError::TooLarge { url: shown(url), limit }, None));
            }
            body.extend_from_slice(&chunk);
        }
        Ok(body)
    }

    fn check(&self, request: &HttpRequest, url: &Url, actual: &Digest) -> Result<(), HttpError> {
        match &request.checksum {
            Some(expected) if expected != actual.as_str() => {
                Err(HttpError::Checksum { url: shown(url), actual: actual.clone(), expected: expected.clone() })
            }
            _ => Ok(()),
        }
    }

    /// What was remembered, unless the file has been pruned.
    fn note(&self, namespace: &str, key: &str) -> Result<Option<Known>, HttpError> {
        let note = self.store.note(namespace, key)?;
        let known = note.and_then(|note| serde_json::from_slice::<Known>(&note).ok());
        Ok(known.filter(|known| self.store.snapshots().exists(&known.snapshot)))
    }

    /// A file that the store has, under the name that is asked for.
    async fn reuse(&self, known: Known, request: &HttpRequest) -> Result<HttpFile, HttpError> {
        let file = file(&known, &request.filename);
        if self.store.snapshots().exists(&file.layer.snapshot) {
            return Ok(file);
        }
        let (store, id, filename) = (self.store.clone(), file.layer.snapshot.clone(), request.filename.clone());
        let mtime = known.mtime();
        blocking(move || {
            let draft = store.snapshots().prepare()?;
            let (from, to) = (store.snapshots().path(&known.snapshot).join(&known.name), draft.upper().join(filename));
            std::fs::copy(&from, &to).map_err(FileError::at("copy", &from))?;
            let copied = File::options().write(true).open(&to).map_err(FileError::at("open", &to))?;
            finish(&copied, mtime).map_err(FileError::at("write", &to))?;
            store.snapshots().commit(draft, &id).map_err(HttpError::Store)
        })
        .await?;
        Ok(file)
    }
}

impl Known {
    fn mtime(&self) -> i64 {
        self.last_modified.as_deref().and_then(seconds).unwrap_or(0)
    }
}

fn parse(url: &str) -> Result<Url, HttpError> {
    let has_host = |url: &Url| matches!(url.scheme(), "http" | "https") && url.has_host();
    let mut url = Url::parse(url).ok().filter(has_host).ok_or_else(|| HttpError::Url(url.to_string()))?;
    url.set_fragment(None);
    Ok(url)
}

/// A file's tree: named by all that decides what is in it, its time included. Who copies from it is keyed by what is
/// selected, in which times do not count, as BuildKit does for ADD.
fn file(known: &Known, filename: &str) -> HttpFile {
    let change = change(filename, &known.digest, known.mtime());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    let layer = Layer { snapshot: snapshot(&change), change, created_ms: Some(now), remote: None };
    let last_modified = known.last_modified.as_deref().and_then(seconds);
    HttpFile { layer, digest: known.digest.clone(), last_modified }
}

fn change(filename: &str, digest: &Digest, mtime: i64) -> String {
    CacheKey::of(format!("file {digest} mode {MODE:o} modified {mtime} name {filename}").as_bytes()).to_hex()
}

fn snapshot(change: &str) -> SnapshotId {
    SnapshotId(stack(&CacheKey([0; 32]), change).to_hex())
}

/// The server is to send the file only if it is not this one.
fn conditions(known: &Known) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [(IF_NONE_MATCH, &known.etag), (IF_MODIFIED_SINCE, &known.last_modified)] {
        if let Some(value) = value.as_ref().and_then(|value| value.parse().ok()) {
            headers.insert(name, value);
        }
    }
    headers
}

fn header(response: &Response, name: &HeaderName) -> Option<String> {
    Some(response.headers().get(name)?.to_str().ok()?.to_string())
}

/// Seconds since 1970 of an HTTP date.
fn seconds(date: &str) -> Option<i64> {
    let time = httpdate::parse_http_date(date).ok()?;
    time.duration_since(UNIX_EPOCH).ok().map(|since| since.as_secs() as i64)
}

fn write(mut pieces: mpsc::Receiver<Bytes>, path: &Path, mtime: i64) -> Result<Digest, FileError> {
    let options = File::options().write(true).create_new(true).mode(MODE).open(path);
    let mut file = options.map_err(FileError::at("create", path))?;
    let mut hasher = Sha256::new();
    while let Some(piece) = pieces.blocking_recv() {
        file.write_all(&piece).map_err(FileError::at("write", path))?;
        hasher.update(&piece);
    }
    finish(&file, mtime).map_err(FileError::at("write", path))?;
    Ok(Digest::from_sha256(hasher.finalize().into()))
}

/// The same whatever the umask and the group of the process are.
fn finish(file: &File, mtime: i64) -> std::io::Result<()> {
    std::os::unix::fs::fchown(file, Some(0), Some(0))?;
    file.set_permissions(Permissions::from_mode(MODE))?;
    let time = UNIX_EPOCH + Duration::from_secs(u64::try_from(mtime).unwrap_or(0));
    file.set_times(FileTimes::new().set_modified(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls() {
        let check = |text: &str, expect: Option<&str>| {
            assert_eq!(parse(text).ok().as_ref().map(Url::as_str), expect, "{text}");
        };
        check("https://h/a b#c", Some("https://h/a%20b"));
        check("http://127.0.0.1:80/x?y", Some("http://127.0.0.1/x?y"));
        check("https://", None);
        check("file:///etc/passwd", None);
    }

    #[test]
    fn trees_are_named_by_content_name_and_time() {
        let known = |modified: Option<&str>, content: &[u8]| Known {
            etag: None,
            last_modified: modified.map(str::to_string),
            digest: Digest::of(content),
            snapshot: SnapshotId("a".into()),
            name: "n".into(),
        };
        let id = |known: Known, name: &str| file(&known, name).layer.snapshot;
        let date = "Sun, 06 Nov 1994 08:49:37 GMT";
        assert_eq!(file(&known(Some(date), b"x"), "f").last_modified, Some(784_111_777));
        assert_eq!(id(known(None, b"x"), "f"), id(known(Some("yesterday"), b"x"), "f"));
        let others = [(known(Some(date), b"x"), "f"), (known(None, b"y"), "f"), (known(None, b"x"), "g")];
        for (other, name) in others {
            assert_ne!(id(other, name), id(known(None, b"x"), "f"));
        }
    }

    #[test]
    fn validators_are_sent_back() {
        let known = Known {
            etag: Some("W/\"a\"".into()),
            last_modified: Some("yesterday".into()),
            digest: Digest::of(b""),
            snapshot: SnapshotId("a".into()),
            name: "n".into(),
        };
        let headers = conditions(&known);
        assert_eq!((headers.get(IF_NONE_MATCH).unwrap(), headers.get(IF_MODIFIED_SINCE).unwrap()).0, "W/\"a\"");
        assert!(conditions(&Known { etag: None, last_modified: None, ..known }).is_empty());
    }
}
