//! A cache in the service that GitHub Actions has for caches. Its entries never change, and are found by the beginning of
//! their key, the newest first. So an index is an entry of its own each time, with a number at the end of its key: the
//! writer who reserves the next number is the one who has read the last index. What the requests are is
//! `gha_service.rs`.

use super::gha_service::{Content, Entry, Saved, Service};
use super::objects::{INDEX_LIMIT, ObjectReader};
use super::place::{Found, OpenBlob, PlaceError, Reading, Written};
use crate::registry::RegistryError;
use cache::digest::{Descriptor, Digest};
use cache::ledger::now_ms;
use cache::remote::Index;
use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;

/// Blobs that are sent at once.
const UPLOADS: usize = 4;
/// How long another writer may take from reserving a key to the end of its upload. Then it is taken for dead, and
/// another key is used.
const PATIENCE: Duration = Duration::from_secs(15);
/// Between two questions whether another writer is done; a random half of it is added.
const QUESTION_INTERVAL: Duration = Duration::from_secs(1);
/// Numbers that are tried when a writer has died.
const NUMBERS: u64 = 16;
/// Longest part of a scope in a key, which may have 512 characters.
const SCOPE_LIMIT: usize = 100;

/// A scope, and the service if it is known. Cheap to clone.
#[derive(Clone)]
pub struct Gha(Arc<Inner>);

struct Inner {
    scope: String,
    service: Result<Service, Unknown>,
    /// For each reading, sending of a blob, and writing.
    timeout: Duration,
    uploads: Semaphore,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Blobs that are known to be there.
    there: BTreeSet<Digest>,
    /// The number that another writer has reserved, and when that was first seen.
    reserved: Option<(u64, Instant)>,
    /// A number was passed over: its writer may turn out to live.
    has_skipped: bool,
}

/// What says where the service is, and is missing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the cache service of GitHub Actions is not known: {} not set. GitHub gives them to actions only; in a `run` step they \
     are there after an action that exports them, such as crazy-max/ghaction-github-runtime. Else say token=, and url_v2= \
     (or url= with version=1)",
    verb(variables)
)]
pub struct Unknown {
    /// Names of the variables.
    pub variables: Vec<&'static str>,
}

fn verb(variables: &[&str]) -> String {
    let verb = if variables.len() == 1 { "is" } else { "are" };
    format!("{} {verb}", variables.join(" and "))
}

impl Gha {
    /// The cache of a scope.
    pub(super) fn new(scope: String, service: Result<Service, Unknown>, timeout: Duration) -> Gha {
        let uploads = Semaphore::new(UPLOADS);
        Gha(Arc::new(Inner { scope, service, timeout, uploads, state: Mutex::default() }))
    }

    pub(super) fn name(&self) -> String {
        format!("gha:{}", self.0.scope)
    }

    pub(super) fn origin(&self) -> String {
        match &self.0.service {
            Ok(service) => format!("gha://{}/{}", service.host(), self.0.scope),
            Err(_) => self.name(),
        }
    }

    /// Whether it is known where the service is.
    pub(super) fn is_known(&self) -> bool {
        self.0.service.is_ok()
    }

    pub(super) fn may_overwrite(&self) -> bool {
        self.state().has_skipped
    }

    pub(super) async fn read(&self) -> Result<Reading, PlaceError> {
        self.in_time(async {
            let (service, prefix) = (self.service()?, index_prefix(&self.0.scope));
            let Some(Entry { key, url }) = service.find(&prefix).await? else {
                return Ok(Reading { found: Found::Nothing, version: None });
            };
            let Some(number) = key.strip_prefix(&prefix).and_then(|number| number.parse::<u64>().ok()) else {
                return Err(service.unusable("an index without a number").into());
            };
            let bytes = service.download(url).await?.all(INDEX_LIMIT).await?;
            Ok(Reading { found: Found::Cache(Index::parse(&bytes)?), version: Some(number.to_string()) })
        })
        .await
    }

    /// Blobs that the index names are not asked for: the service counts questions. One that it has let go is missed by
    /// whoever needs it, and made again.
    pub(super) async fn write(&self, index: &Index, over: Option<&str>) -> Result<Written, PlaceError> {
        let last: u64 = over.and_then(|number| number.parse().ok()).unwrap_or_default();
        let content = Content::Bytes(index.to_bytes().into());
        let (service, prefix) = (self.service()?, index_prefix(&self.0.scope));
        let save = |number: u64| {
            let (key, content) = (format!("{prefix}{number}"), content.clone());
            self.in_time(async move { Ok(service.save(&key, &content).await?) })
        };
        let next = last + 1;
        if let Saved::Done = save(next).await? {
            return Ok(Written::Done);
        }
        if self.is_stuck(next) {
            for number in next + 1..next + NUMBERS {
                if let Saved::Done = save(number).await? {
                    self.state().has_skipped = true;
                    return Ok(Written::Done);
                }
            }
        }
        pause().await;
        Ok(Written::Changed)
    }

    pub(super) async fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), PlaceError> {
        let (service, digest) = (self.service()?, &blob.digest);
        let key = blob_key(digest);
        if self.state().there.contains(digest) {
            return Ok(());
        }
        if service.find(&key).await?.is_none() {
            let path = open(blob.clone()).await.map_err(|error| PlaceError::Blob(Box::new(error)))?;
            let _turn = self.0.uploads.acquire().await;
            let content = Content::File { path, size: blob.size };
            self.in_time(self.save_blob(service, &key, &content)).await?;
        }
        self.state().there.insert(digest.clone());
        Ok(())
    }

    /// Opens a blob.
    pub(crate) async fn open(&self, blob: &Descriptor) -> Result<ObjectReader, RegistryError> {
        let answer = |what| RegistryError::Answer { url: self.origin(), what };
        let service = self.0.service.as_ref().map_err(|_| answer("the service is not known"))?;
        match service.find(&blob_key(&blob.digest)).await? {
            Some(entry) => service.download(entry.url).await,
            None => Err(answer("the blob is not there any more")),
        }
    }

    async fn save_blob(&self, service: &Service, key: &str, content: &Content) -> Result<(), PlaceError> {
        if let Saved::Done = service.save(key, content).await? {
            return Ok(());
        }
        // Another writer is sending it, or has died while doing so.
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if service.find(key).await?.is_some() {
                return Ok(());
            }
            pause().await;
        }
        // Is found by its beginning as well.
        match service.save(&format!("{key}#{}", now_ms()), content).await? {
            Saved::Done => Ok(()),
            Saved::Exists => Err(service.unusable("a key that is new is there already").into()),
        }
    }

    /// Whether the writer that has reserved a number has had its time.
    fn is_stuck(&self, number: u64) -> bool {
        let mut state = self.state();
        match state.reserved {
            Some((reserved, since)) if reserved == number => since.elapsed() > PATIENCE,
            _ => {
                state.reserved = Some((number, Instant::now()));
                false
            }
        }
    }

    fn service(&self) -> Result<&Service, PlaceError> {
        self.0.service.as_ref().map_err(|unknown| PlaceError::Gha(unknown.clone()))
    }

    async fn in_time<T>(&self, work: impl Future<Output = Result<T, PlaceError>>) -> Result<T, PlaceError> {
        let limit = self.0.timeout;
        let done = tokio::time::timeout(limit, work).await;
        done.unwrap_or_else(|_| Err(PlaceError::TimedOut { after: limit }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before the number of an index. Beside what BuildKit has under the scope.
fn index_prefix(scope: &str) -> String {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./".contains(letter);
    let shown: String =
        scope.chars().take(SCOPE_LIMIT).map(|letter| if is_plain(letter) { letter } else { '-' }).collect();
    // Two scopes that look alike are two.
    format!("kiln-1-index-{shown}-{}#", &Digest::of(scope.as_bytes()).hex()[..16])
}

fn blob_key(digest: &Digest) -> String {
    format!("kiln-1-blob-{digest}")
}

async fn pause() {
    tokio::time::sleep(QUESTION_INTERVAL.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_scopes() {
        let prefix = index_prefix("a");
        assert!(prefix.starts_with("kiln-1-index-a-") && prefix.ends_with('#'), "{prefix}");
        assert_ne!(index_prefix("a,b"), index_prefix("a-b"));
        assert!(!index_prefix("a,b").contains(','), "keys have no commas");
        assert!(index_prefix(&"ä".repeat(1000)).len() < 200);
    }

    #[test]
    fn unknown_names_what_is_missing() {
        let text = Unknown { variables: vec!["ACTIONS_RUNTIME_TOKEN", "ACTIONS_CACHE_URL"] }.to_string();
        assert!(text.contains("ACTIONS_RUNTIME_TOKEN and ACTIONS_CACHE_URL are not set"), "{text}");
    }
}
