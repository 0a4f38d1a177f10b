//! Registries for tests: a real one, and one that answers whatever a closure says and writes down what it was asked.

use super::Registry;
use super::credentials::Credentials;
use super::retry::RetryPolicy;
use crate::config::Config;
use std::collections::BTreeMap;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};

/// A request as it came. Names of headers are in lower case.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// With the query.
    pub path: String,
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

/// What to answer.
#[derive(Clone, Debug, Default)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Send only so much of the body, and hang up.
    pub cut_at: Option<usize>,
}

impl Answer {
    pub fn ok(body: impl Into<Vec<u8>>) -> Answer {
        Answer { status: 200, body: body.into(), ..Answer::default() }
    }

    pub fn status(status: u16) -> Answer {
        Answer { status, ..Answer::default() }
    }

    pub fn header(mut self, name: &str, value: impl ToString) -> Answer {
        self.headers.push((name.to_string(), value.to_string()));
        self
    }

    pub fn cut_at(mut self, length: usize) -> Answer {
        self.cut_at = Some(length);
        self
    }
}

/// A server on loopback, gone when dropped.
pub struct Fake {
    /// `127.0.0.1:port`
    pub host: String,
    requests: Arc<Mutex<Vec<Request>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Fake {
    /// `answer` gets the request and how many came before it.
    pub fn start(answer: impl Fn(&Request, usize) -> Answer + Send + Sync + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let requests = Arc::new(Mutex::new(vec![]));
        let (answer, kept) = (Arc::new(answer), requests.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (answer, requests) = (answer.clone(), kept.clone());
                tokio::spawn(async move { serve(stream, &*answer, &requests).await });
            }
        });
        Fake { host, requests, task }
    }

    /// `METHOD path` of all requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.requests().iter().map(|request| format!("{} {}", request.method, request.path)).collect()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(
    stream: tokio::net::TcpStream,
    answer: &(dyn Fn(&Request, usize) -> Answer + Send + Sync),
    requests: &Mutex<Vec<Request>>,
) -> Option<()> {
    let mut stream = BufReader::new(stream);
    let mut line = String::new();
    if stream.read_line(&mut line).await.is_err() {
        // As servers answer to a TLS handshake.
        stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n").await.ok()?;
        return stream.shutdown().await.ok();
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_string(), words.next()?.to_string());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        stream.read_line(&mut line).await.ok()?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.insert(name.to_lowercase(), value.trim().to_string());
    }
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let request = Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() };
    let before = {
        let mut requests = requests.lock().unwrap();
        requests.push(request.clone());
        requests.len() - 1
    };
    let answer = answer(&request, before);
    let mut head = format!("HTTP/1.1 {} X\r\nconnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| name == "content-length") {
        head += &format!("content-length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    stream.write_all(head.as_bytes()).await.ok()?;
    if request.method != "HEAD" {
        let end = answer.cut_at.unwrap_or(answer.body.len()).min(answer.body.len());
        stream.write_all(&answer.body[..end]).await.ok()?;
    }
    stream.shutdown().await.ok()
}

/// Debian's docker-registry on a free port, with its data in a folder that goes with it.
pub struct Real {
    /// `127.0.0.1:port`
    pub host: String,
    child: Child,
    _dir: tempfile::TempDir,
}

impl Real {
    /// `None`, with the reason printed, where there is no such program.
    pub fn start() -> Option<Real> {
        let dir = tempfile::tempdir().unwrap();
        // Between asking for a free port and using it, another may take it: then the next is tried.
        for _ in 0..5 {
            let host = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
            let config = dir.path().join("config.yml");
            let root = dir.path().join("data");
            let text = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
                root.display()
            );
            std::fs::write(&config, text).unwrap();
            let spawned = Command::new("docker-registry")
                .arg("serve")
                .arg(&config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let mut child = match spawned {
                Ok(child) => child,
                Err(error) => {
                    eprintln!("skipped: docker-registry cannot be run: {error}");
                    return None;
                }
            };
            while child.try_wait().unwrap().is_none() {
                if TcpStream::connect(&host).is_ok() {
                    return Some(Real { host, child, _dir: dir });
                }
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        panic!("docker-registry does not start");
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Impatient, and without logins.
pub fn registry(config: &str) -> Registry {
    registry_with(config, Credentials::anonymous())
}

pub fn registry_with(config: &str, credentials: Credentials) -> Registry {
    let config = Config::parse(config, Path::new("/etc/kiln/kiln.toml")).unwrap();
    let policy = RetryPolicy {
        attempts: 4,
        connects: 4,
        base: Duration::from_millis(1),
        longest: Duration::from_secs(1),
        budget: Duration::from_secs(2),
    };
    Registry::with_policy(&config, credentials, policy)
}
