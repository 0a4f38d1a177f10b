//! The event stream that every build makes, and handles to write to it. Renderers (`tty.rs`, `plain.rs`,
//! `rawjson.rs`) read it; nothing else prints while a build runs. Model and names: reference/engine.md 9.1.

mod hold;
pub mod plain;
pub mod rawjson;
pub mod render;
pub mod track;
pub mod tty;

pub use hold::{Gate, Held};
pub use render::{FailedVertex, Mode, Summary, spawn};

use crate::explain::Why;
use frontend::span::{SourceText, Span};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Which output of a step a log belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// 1.
    Stdout,
    /// 2.
    Stderr,
}

/// One thing that happened. Times are when it was reported.
#[derive(Clone, Debug)]
pub enum Event {
    /// A vertex exists; it has not started. Announced early, so that totals are known.
    Announced { vertex: Arc<VertexName>, inputs: Vec<String> },
    /// Work began. May come again after the vertex ended.
    Started { vertex: Arc<VertexName>, at: SystemTime },
    /// Work ended.
    Ended { vertex: Arc<VertexName>, at: SystemTime, outcome: Outcome },
    /// A part of a vertex's work moves on: a transfer, an export phase. Bytes where `total` or `current` is not 0.
    Status { vertex: Arc<VertexName>, id: String, current: u64, total: u64, at: SystemTime, done: bool },
    /// Output of a step, as read.
    Log { vertex: Arc<VertexName>, stream: Stream, data: Vec<u8>, at: SystemTime },
    /// Why it runs, or that it need not; comes after it started.
    Explained { vertex: Arc<VertexName>, why: Arc<Why> },
    /// A remark that does not stop the build.
    Warning { vertex: Arc<VertexName>, warning: Arc<Warning>, at: SystemTime },
}

/// A remark.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Warning {
    /// One line.
    pub short: String,
    /// More about it, a paragraph each.
    pub detail: Vec<String>,
    /// A page that explains it.
    pub url: Option<String>,
    /// What it is about.
    pub place: Option<(Arc<SourceText>, Span)>,
}

impl From<String> for Warning {
    fn from(short: String) -> Warning {
        Warning { short, ..Warning::default() }
    }
}

/// How a vertex ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It ran.
    Done,
    /// Its result was there.
    Cached,
    /// Message.
    Failed(String),
    /// The build was stopped.
    Canceled,
}

/// Identity and name of a vertex in the stream.
#[derive(Debug, PartialEq, Eq)]
pub struct VertexName {
    /// `sha256:…`, unique in the build.
    pub digest: String,
    /// Such as `[build 2/5] RUN make`.
    pub name: String,
}

/// Where events go. Cheap to clone.
#[derive(Clone)]
pub struct Progress {
    sender: Sender<Event>,
    /// What [`Vertex::warn_once`] has said.
    said: Arc<Mutex<HashSet<String>>>,
    gate: Arc<Gate>,
}

impl Progress {
    /// Events go to `sender`; a renderer that has gone away is no error.
    pub fn new(sender: Sender<Event>) -> Progress {
        Progress { sender, said: Arc::default(), gate: Arc::default() }
    }

    /// Announces a vertex. `key` makes its digest; equal keys in one build are the same vertex.
    pub fn vertex(&self, key: &str, name: &str, inputs: Vec<String>) -> Vertex {
        let digest = cache::digest::Digest::of(key.as_bytes()).to_string();
        let vertex = Vertex {
            name: Arc::new(VertexName { digest, name: name.to_string() }),
            progress: self.clone(),
            running: Arc::new(AtomicBool::new(false)),
        };
        self.send(Event::Announced { vertex: vertex.name.clone(), inputs });
        vertex
    }

    /// A vertex that nobody hears of, since no result needs it.
    pub fn unseen(&self, key: &str, name: &str) -> Vertex {
        let (nobody, _) = std::sync::mpsc::channel();
        Progress::new(nobody).vertex(key, name, vec![])
    }

    /// A vertex that is not in the build graph, such as `[internal] load build context`; started at once.
    pub fn task(&self, name: &str) -> Vertex {
        let vertex = self.vertex(name, name, vec![]);
        vertex.start();
        vertex
    }

    /// For the renderer that reads the events.
    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    fn send(&self, event: Event) {
        let _ = self.sender.send(event);
    }
}

/// Writes the events of one vertex. Cheap to clone.
#[derive(Clone)]
pub struct Vertex {
    name: Arc<VertexName>,
    progress: Progress,
    running: Arc<AtomicBool>,
}

impl Vertex {
    /// Digest in the stream.
    pub fn digest(&self) -> &str {
        &self.name.digest
    }

    /// Name, such as `[build 2/5] RUN make`.
    pub fn name(&self) -> &str {
        &self.name.name
    }

    /// Has the renderer write what it knows and then nothing more, until the result is dropped: standard error is the
    /// caller's. Events wait.
    pub async fn hold(&self) -> Held {
        self.progress.gate.hold().await
    }

    /// Work begins.
    pub fn start(&self) {
        if !self.running.swap(true, Ordering::Relaxed) {
            self.progress.send(Event::Started { vertex: self.name.clone(), at: SystemTime::now() });
        }
    }

    /// Work ends. A vertex that had not started starts and ends now.
    pub fn end(&self, outcome: Outcome) {
        self.start();
        self.running.store(false, Ordering::Relaxed);
        self.progress.send(Event::Ended { vertex: self.name.clone(), at: SystemTime::now(), outcome });
    }

    /// Ends with [`Outcome::Done`] or, with the error's chain as text, [`Outcome::Failed`]; gives the result back.
    pub fn finish<T, E: std::error::Error>(&self, result: Result<T, E>) -> Result<T, E> {
        self.end(match &result {
            Ok(_) => Outcome::Done,
            Err(error) => Outcome::Failed(chain(error)),
        });
        result
    }

    /// A part of the work has come this far.
    pub fn status(&self, id: &str, current: u64, total: u64) {
        self.send_status(id, current, total, false);
    }

    /// A part of the work is done.
    pub fn status_done(&self, id: &str, current: u64, total: u64) {
        self.send_status(id, current, total, true);
    }

    /// Why the step runs, or that it need not.
    pub fn why(&self, why: Why) {
        self.progress.send(Event::Explained { vertex: self.name.clone(), why: Arc::new(why) });
    }

    /// Output of the step.
    pub fn log(&self, stream: Stream, data: &[u8]) {
        let (vertex, data) = (self.name.clone(), data.to_vec());
        self.progress.send(Event::Log { vertex, stream, data, at: SystemTime::now() });
    }

    /// A remark.
    pub fn warn(&self, warning: impl Into<Warning>) {
        let (vertex, warning) = (self.name.clone(), Arc::new(warning.into()));
        self.progress.send(Event::Warning { vertex, warning, at: SystemTime::now() });
    }

    /// A remark about the machine or the whole build: whichever vertex comes upon it first says it.
    pub fn warn_once(&self, message: impl Into<String>) {
        let message = message.into();
        let is_new = self.progress.said.lock().unwrap_or_else(PoisonError::into_inner).insert(message.clone());
        if is_new {
            self.warn(message);
        }
    }

    fn send_status(&self, id: &str, current: u64, total: u64, done: bool) {
        let vertex = self.name.clone();
        self.progress.send(Event::Status { vertex, id: id.into(), current, total, at: SystemTime::now(), done });
    }
}

/// An error and its causes, joined by `: `.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
