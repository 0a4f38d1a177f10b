//! The cache service of GitHub Actions on loopback, versions 1 and 2, as its clients know it: entries are reserved, sent
//! and committed, never change, and are found by the beginning of their key, the newest first. Contents go to signed URLs,
//! as block blobs in version 2.

use crate::http::Received;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// In the query of signed URLs.
const SIGNATURE: &str = "sig=s1gned-secret";

/// A running service; stops when dropped.
pub struct ActionsCache {
    /// `http://127.0.0.1:PORT/`, for both versions.
    pub url: String,
    host: String,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    host: String,
    /// By id, so in order of time.
    entries: Vec<Stored>,
    /// Answers to come that are 429.
    refusals: u32,
    uploads: usize,
    /// Breaches of the protocol.
    faults: Vec<String>,
    stopped: bool,
}

struct Stored {
    key: String,
    version: String,
    bytes: Vec<u8>,
    blocks: BTreeMap<String, Vec<u8>>,
    is_committed: bool,
}

struct Request {
    path: String,
    query: String,
    received: Received,
}

struct Response(u16, Vec<u8>);

impl ActionsCache {
    /// What callers have to send as a bearer.
    pub const TOKEN: &str = "t0ken-secret";

    /// Starts an empty one.
    pub fn start() -> ActionsCache {
        let listener = TcpListener::bind("127.0.0.1:0").expect("listen on loopback");
        let host = listener.local_addr().expect("address of the service").to_string();
        let state = Arc::new(Mutex::new(State { host: host.clone(), ..State::default() }));
        let shared = state.clone();
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let state = shared.clone();
                if lock(&state).stopped {
                    return;
                }
                std::thread::spawn(move || drop(serve(connection, &state)));
            }
        });
        ActionsCache { url: format!("http://{host}/"), host, state }
    }

    /// Keys of the entries that are complete, oldest first.
    pub fn keys(&self) -> Vec<String> {
        let state = lock(&self.state);
        state.entries.iter().filter(|entry| entry.is_committed).map(|entry| entry.key.clone()).collect()
    }

    /// Requests that sent contents.
    pub fn uploads(&self) -> usize {
        lock(&self.state).uploads
    }

    /// So many requests are answered with 429 first.
    pub fn refuse(&self, requests: u32) {
        lock(&self.state).refusals = requests;
    }

    /// As if a writer had died: the key of each entry like these is reserved again, under the name that `rename` gives.
    pub fn reserve_like(&self, rename: impl Fn(&str) -> Option<String>) {
        let mut state = lock(&self.state);
        let reserved = |entry: &Stored| {
            let (key, version) = (rename(&entry.key)?, entry.version.clone());
            Some(Stored { key, version, bytes: vec![], blocks: BTreeMap::new(), is_committed: false })
        };
        let more: Vec<Stored> = state.entries.iter().filter_map(reserved).collect();
        state.entries.extend(more);
    }

    /// Forgets entries, as the service does with old ones.
    pub fn evict(&self, is_old: impl Fn(&str) -> bool) {
        lock(&self.state).entries.retain(|entry| !is_old(&entry.key));
    }

    /// What callers did that the service does not allow.
    pub fn faults(&self) -> Vec<String> {
        lock(&self.state).faults.clone()
    }
}

impl Drop for ActionsCache {
    fn drop(&mut self) {
        lock(&self.state).stopped = true;
        let _ = TcpStream::connect(&self.host);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One request per connection.
fn serve(mut connection: TcpStream, state: &Mutex<State>) -> std::io::Result<()> {
    let Some(received) = Received::read(&connection)? else { return Ok(()) };
    let (path, query) = received.target.split_once('?').unwrap_or((&received.target, ""));
    let request = Request { path: path.into(), query: query.into(), received };
    let Response(status, body) = lock(state).answer(&request);
    let head =
        format!("HTTP/1.1 {status} X\r\nConnection: close\r\nRetry-After: 0\r\nContent-Length: {}\r\n\r\n", body.len());
    connection.write_all(head.as_bytes())?;
    connection.write_all(&body)
}

impl Request {
    fn header(&self, name: &str) -> &str {
        self.received.header(name)
    }

    /// A value of the query, decoded.
    fn value(&self, name: &str) -> Option<String> {
        let pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| decoded(value))
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.received.body).unwrap_or_default()
    }
}

impl Response {
    fn json(value: Value) -> Response {
        Response(200, value.to_string().into_bytes())
    }

    fn error(status: u16, code: &str, text: &str) -> Response {
        // Version 2 says code and msg, version 1 typeKey and message.
        Response(status, json!({ "code": code, "msg": text }).to_string().into_bytes())
    }
}

impl State {
    fn answer(&mut self, request: &Request) -> Response {
        if self.refusals > 0 {
            self.refusals -= 1;
            return Response::error(429, "resource_exhausted", "slow down");
        }
        let authorization = request.header("authorization");
        if let Some(id) = request.path.strip_prefix("/contents/") {
            let is_signed = request.query.contains(SIGNATURE);
            return match id.parse::<usize>() {
                Ok(id) if is_signed && authorization.is_empty() && id < self.entries.len() => {
                    self.contents(id, request)
                }
                _ => self.fault("contents are asked for without a signature, or with the token"),
            };
        }
        if authorization != format!("Bearer {}", ActionsCache::TOKEN) {
            return Response::error(401, "unauthenticated", &format!("not a token: {authorization}"));
        }
        if let Some(method) = request.path.strip_prefix("/twirp/github.actions.results.api.v1.CacheService/") {
            return self.call(method, request);
        }
        match request.path.strip_prefix("/_apis/artifactcache/") {
            Some(path) => self.rest(path, request),
            None => Response::error(404, "bad_route", "no such path"),
        }
    }

    /// Version 2.
    fn call(&mut self, method: &str, request: &Request) -> Response {
        let asked = request.json();
        let text = |name: &str| asked[name].as_str().unwrap_or_default();
        let (key, version) = (text("key"), text("version"));
        match method {
            "CreateCacheEntry" => match self.reserve(key, version) {
                Some(id) => Response::json(json!({ "ok": true, "signed_upload_url": self.signed(id) })),
                None => Response::error(409, "already_exists", "cache entry exists"),
            },
            "FinalizeCacheEntryUpload" => {
                let open = |entry: &Stored| entry.key == key && entry.version == version && !entry.is_committed;
                let Some(id) = self.entries.iter().rposition(open) else {
                    return Response::error(404, "not_found", "no such entry");
                };
                match text("size_bytes").parse() {
                    Ok(size) => self.commit(id, size, json!({ "ok": true, "entry_id": id.to_string() })),
                    Err(_) => self.fault("size_bytes is no text of digits"),
                }
            }
            "GetCacheEntryDownloadURL" => {
                let exact = self.find(version, |found| found == key);
                let prefixes: Vec<&str> =
                    asked["restore_keys"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                let found = exact
                    .or_else(|| prefixes.iter().find_map(|prefix| self.find(version, |key| key.starts_with(prefix))));
                Response::json(match found {
                    Some(id) => json!({
                        "ok": true, "signed_download_url": self.signed(id), "matched_key": self.entries[id].key
                    }),
                    None => json!({ "ok": false, "signed_download_url": "", "matched_key": "" }),
                })
            }
            _ => Response::error(404, "bad_route", "no such method"),
        }
    }

    /// Version 1.
    fn rest(&mut self, path: &str, request: &Request) -> Response {
        if !request.header("accept").contains("api-version=6.0-preview.1") {
            return self.fault("no version of the interface is asked for");
        }
        let asked = request.json();
        let id = path.strip_prefix("caches/").and_then(|id| id.parse::<usize>().ok());
        match (&*request.received.method, path, id.filter(|id| *id < self.entries.len())) {
            ("GET", "cache", _) => {
                let (keys, version) = (request.value("keys"), request.value("version"));
                let (keys, version) = (keys.unwrap_or_default(), version.unwrap_or_default());
                let found = keys.split(',').find_map(|key| self.find(&version, |found| found.starts_with(key)));
                match found {
                    Some(id) => Response::json(json!({
                        "cacheKey": self.entries[id].key, "scope": "refs/heads/main", "archiveLocation": self.signed(id)
                    })),
                    None => Response(204, vec![]),
                }
            }
            ("POST", "caches", _) => {
                let text = |name: &str| asked[name].as_str().unwrap_or_default();
                match self.reserve(text("key"), text("version")) {
                    Some(id) => Response(201, json!({ "cacheId": id }).to_string().into_bytes()),
                    None => {
                        let said = json!({ "message": "m", "typeKey": "ArtifactCacheItemAlreadyExistsException" });
                        Response(409, said.to_string().into_bytes())
                    }
                }
            }
            ("PATCH", _, Some(id)) => {
                self.uploads += 1;
                let start = self.entries[id].bytes.len();
                let range = format!("bytes {start}-{}/*", (start + request.received.body.len()).wrapping_sub(1));
                if request.header("content-range") != range {
                    return self.fault("a part does not follow the last one");
                }
                self.entries[id].bytes.extend(&request.received.body);
                Response(204, vec![])
            }
            ("POST", _, Some(id)) => match asked["size"].as_u64() {
                Some(size) => self.commit(id, size, Value::Null),
                None => self.fault("no size is said"),
            },
            _ => Response::error(404, "not_found", "no such path"),
        }
    }

    /// What signed URLs are for.
    fn contents(&mut self, id: usize, request: &Request) -> Response {
        let entry = &mut self.entries[id];
        match (&*request.received.method, request.value("comp").as_deref()) {
            ("GET", None) => return Response(200, entry.bytes.clone()),
            ("PUT", None) if request.header("x-ms-blob-type") == "BlockBlob" => {
                entry.bytes = request.received.body.clone()
            }
            ("PUT", Some("block")) => {
                let block = request.value("blockid").unwrap_or_default();
                entry.blocks.insert(block, request.received.body.clone());
            }
            ("PUT", Some("blocklist")) => {
                let list = String::from_utf8_lossy(&request.received.body).into_owned();
                let names = list.split("<Latest>").skip(1).filter_map(|rest| rest.split_once("</Latest>"));
                let blocks: Option<Vec<&Vec<u8>>> = names.map(|(name, _)| entry.blocks.get(name)).collect();
                match blocks.map(|blocks| blocks.into_iter().flatten().copied().collect()) {
                    Some(bytes) => entry.bytes = bytes,
                    None => return self.fault("a block that was not sent is listed"),
                }
            }
            _ => return self.fault("this is not how a block blob is sent"),
        }
        self.uploads += 1;
        Response(201, vec![])
    }

    fn reserve(&mut self, key: &str, version: &str) -> Option<usize> {
        if key.is_empty() || key.len() > 512 || key.contains(',') || version.is_empty() {
            self.faults.push(format!("`{key}` is no key"));
        }
        if self.entries.iter().any(|entry| entry.key == key && entry.version == version) {
            return None;
        }
        let (key, version) = (key.to_string(), version.to_string());
        self.entries.push(Stored { key, version, bytes: vec![], blocks: BTreeMap::new(), is_committed: false });
        Some(self.entries.len() - 1)
    }

    fn commit(&mut self, id: usize, size: u64, answer: Value) -> Response {
        if self.entries[id].bytes.len() as u64 != size {
            return self.fault("the size is not that of what was sent");
        }
        self.entries[id].is_committed = true;
        if answer.is_null() { Response(204, vec![]) } else { Response::json(answer) }
    }

    fn find(&self, version: &str, is_wanted: impl Fn(&str) -> bool) -> Option<usize> {
        let fits = |entry: &Stored| entry.is_committed && entry.version == version && is_wanted(&entry.key);
        self.entries.iter().rposition(fits)
    }

    fn signed(&self, id: usize) -> String {
        format!("http://{}/contents/{id}?se=2030&{SIGNATURE}", self.host)
    }

    fn fault(&mut self, what: &str) -> Response {
        self.faults.push(what.into());
        Response::error(400, "malformed", what)
    }
}

/// Percent-decoded.
fn decoded(text: &str) -> String {
    let mut bytes = vec![];
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (first, code.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            _ => {
                bytes.push(if *first == b'+' { b' ' } else { *first });
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
