//! Why a step ran: what differs between its key's recipe and that of its nearest former run. Decided when a step is about to
//! run, shown by progress, kept in the history, read again by `kiln explain`.
//!
//! `former.rs` finds the former run, `parts.rs` gives the parts of recipes names that people know, `files.rs` tells two
//! selections of files apart, `text.rs` has the words.

mod files;
mod former;
mod parts;
mod text;

use crate::cli::options::{ContextArg, FileArg};
use cache::error::StoreError;
use cache::store::Store;
use cache::tree::SnapshotId;
use former::{Formers, Nearest};
use frontend::git_url::redacted;
use frontend::op::{FileAction, Op, Source, Step};
use serde::{Deserialize, Serialize};
use solver::graph::{Graph, VertexId};
use solver::key::{CacheKey, KeyRecipe};
use solver::step::Miss;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

pub use files::{FileChange, What};
pub use text::{place_and_text, when};

/// Namespace of notes in the store: content id of an image's tree -> [`Origin`].
const ORIGINS: &str = "origin";

/// Runs that were noted less long ago are not noted again, unless something ran.
const NOTED_MS: i64 = 3600 * 1000;

/// Why a step ran, or did not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Why {
    /// The step's key, in hex.
    pub key: String,
    /// In one word.
    pub cause: Cause,
    /// What differs from the nearest former run, what is most to the point first. Only of [`Cause::Changed`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// Name of that run's step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former: Option<String>,
    /// How long that run took, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub former_ms: Option<u64>,
}

impl Why {
    fn because(key: CacheKey, cause: Cause) -> Why {
        Why { key: key.to_hex(), cause, changes: vec![], former: None, former_ms: None }
    }
}

/// Why, in one word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// It did not run: a former run had its result.
    Recorded {
        /// How long that run took, in milliseconds.
        cost_ms: u64,
    },
    /// A flag, by its name.
    Flag(String),
    /// No former run is near to it.
    NeverBuilt,
    /// Something differs from the nearest former run.
    Changed,
    /// It was built before, and its result was removed from the store.
    Pruned {
        /// When it was last used, milliseconds since 1970.
        used_ms: i64,
    },
    /// The store has a record of it, but what it names is missing.
    Lost,
}

/// A difference between two runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Change {
    /// The command of a RUN.
    Command { before: Option<String>, now: Option<String> },
    /// An ARG or ENV that a RUN sees.
    Variable { name: String, before: Option<String>, now: Option<String> },
    /// Files that a COPY, an ADD or a mount selects.
    Files {
        /// Where they come from, unless that is the build context.
        from: Option<String>,
        /// In order of path; the first hundred of them.
        files: Vec<FileChange>,
        /// How many there are; 0 if it is not known any more which.
        total: usize,
    },
    /// What the step lies on.
    Base { before: Option<Origin>, now: Option<Origin> },
    /// Anything else that the step says.
    Setting { name: String, before: Option<String>, now: Option<String> },
}

/// Where the tree comes from that a step lies on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Origin {
    /// An image: its name, and its manifest's digest.
    Image { name: String, digest: String },
    /// A step, by its name in progress.
    Step { name: String },
}

/// Names what is built: the context and the Dockerfile, whatever the target and the arguments are.
pub fn project(context: &ContextArg, file: Option<&FileArg>) -> String {
    let path =
        |path: &std::path::Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf()).display().to_string();
    let context = match context {
        ContextArg::Directory(folder) => path(folder),
        ContextArg::Stdin => "-".to_string(),
        // Another branch is the same project.
        ContextArg::Git(_, shown) => shown.split(['#', '?']).next().unwrap_or_default().to_string(),
        ContextArg::Http(url) => redacted(url),
    };
    let file = match file {
        None => String::new(),
        Some(FileArg::Path(file)) => path(file),
        Some(FileArg::Stdin) => "-".to_string(),
        Some(FileArg::Url(url)) => redacted(url),
    };
    format!("{context}\n{file}")
}

/// A step that is about to run.
struct Asked {
    name: String,
    recipe: KeyRecipe,
    miss: Miss,
    base: Option<Origin>,
    /// By the names of recipe parts (`copied 0`): where files come from, unless that is the build context.
    sources: BTreeMap<String, Option<String>>,
}

/// What a build knows and learns about why its steps run. Cheap to clone.
#[derive(Clone)]
pub struct Reasons {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    /// Names what is built: former builds of the same are looked at first.
    project: String,
    /// The flag because of which records are not used.
    flag: &'static str,
    /// Names of all steps of this build.
    names: BTreeSet<String>,
    formers: OnceLock<Formers>,
    used: Mutex<BTreeMap<VertexId, Used>>,
    said: Mutex<BTreeMap<VertexId, Why>>,
}

/// A key that this build used or made.
struct Used {
    key: CacheKey,
    ran: bool,
    ended: bool,
}

impl Reasons {
    /// For a build of `graph`.
    pub fn new(store: &Store, project: &str, flag: &'static str, graph: &Graph<Step>) -> Reasons {
        let names = (0..graph.len() as u32).map(|id| graph.value(VertexId(id)).name.clone()).collect();
        let (formers, used, said) = (OnceLock::new(), Mutex::default(), Mutex::default());
        let inner = Inner { store: store.clone(), project: project.into(), flag, names, formers, used, said };
        Reasons { inner: Arc::new(inner) }
    }

    /// A record had the result of a vertex.
    pub fn found(&self, vertex: VertexId, key: CacheKey, cost_ms: u64) -> Why {
        self.inner.used(|used| used.insert(vertex, Used { key, ran: false, ended: true }));
        self.inner.say(vertex, Why::because(key, Cause::Recorded { cost_ms }))
    }

    /// Why a vertex runs.
    pub async fn missed(&self, graph: &Graph<Step>, vertex: VertexId, recipe: &KeyRecipe, miss: Miss) -> Why {
        let key = recipe.key();
        self.inner.used(|used| used.insert(vertex, Used { key, ran: true, ended: false }));
        let asked = asked(graph, vertex, recipe.clone(), miss);
        let inner = self.inner.clone();
        let why = match tokio::task::spawn_blocking(move || inner.why(&asked)).await {
            Ok(Ok(why)) => why,
            // Nobody builds in order to be told why.
            failed => {
                tracing::warn!(?failed, "cannot tell why a step runs");
                Why::because(key, Cause::NeverBuilt)
            }
        };
        self.inner.say(vertex, why)
    }

    /// How long the latest former run of a step of this name took, in milliseconds.
    pub fn expected_ms(&self, name: &str) -> Option<u64> {
        let expected = self.inner.formers().and_then(|formers| formers.expected_ms(&self.inner.store, name));
        expected.unwrap_or_else(|error| {
            tracing::warn!(?error, "cannot tell how long steps take");
            None
        })
    }

    /// All that was said so far.
    pub fn take_said(&self) -> BTreeMap<VertexId, Why> {
        std::mem::take(&mut self.inner.said.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A vertex that ran has ended well.
    pub fn ended(&self, vertex: VertexId) {
        self.inner.used(|used| used.get_mut(&vertex).map(|used| used.ended = true));
    }

    /// Notes what this build used, for explaining later ones.
    pub fn remember(&self, graph: &Graph<Step>) -> Result<(), StoreError> {
        let inner = &self.inner;
        let used = inner.used.lock().unwrap_or_else(PoisonError::into_inner);
        let ended = used.iter().filter(|(_, used)| used.ended);
        let runs: Vec<_> = ended.map(|(vertex, used)| (used.key, graph.value(*vertex).name.as_str())).collect();
        if runs.is_empty() {
            return Ok(());
        }
        if !used.values().any(|used| used.ran) {
            // A build in which nothing changed need not write.
            let known = inner.store.runs(&inner.project)?;
            let noted: BTreeMap<CacheKey, i64> = known.iter().map(|run| (run.key, run.used_ms)).collect();
            let since_ms = cache::ledger::now_ms() - NOTED_MS;
            if runs.iter().all(|(key, _)| noted.get(key).is_some_and(|used_ms| *used_ms > since_ms)) {
                return Ok(());
            }
        }
        inner.store.put_runs(&inner.project, &runs)
    }
}

impl Inner {
    fn used<T>(&self, change: impl FnOnce(&mut BTreeMap<VertexId, Used>) -> T) {
        change(&mut self.used.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn formers(&self) -> Result<&Formers, StoreError> {
        match self.formers.get() {
            Some(formers) => Ok(formers),
            None => {
                let read = Formers::read(&self.store, &self.project)?;
                Ok(self.formers.get_or_init(|| read))
            }
        }
    }

    fn say(&self, vertex: VertexId, why: Why) -> Why {
        self.said.lock().unwrap_or_else(PoisonError::into_inner).insert(vertex, why.clone());
        why
    }

    fn why(&self, asked: &Asked) -> Result<Why, StoreError> {
        let key = asked.recipe.key();
        self.note_base(asked)?;
        let because = |cause| Why::because(key, cause);
        match asked.miss {
            Miss::Ignored => return Ok(because(Cause::Flag(self.flag.into()))),
            Miss::Lost => return Ok(because(Cause::Lost)),
            Miss::NoRecord => {}
        }
        let formers = self.formers()?;
        if let Some(used_ms) = formers.used_ms(&key) {
            return Ok(because(Cause::Pruned { used_ms }));
        }
        let explain = |before: &KeyRecipe| self.changes(before, asked);
        let Some(Nearest { name, changes, cost_ms }) =
            formers.nearest(&self.store, &asked.name, &self.names, &explain)?
        else {
            return Ok(because(Cause::NeverBuilt));
        };
        Ok(Why { changes, former: Some(name), former_ms: Some(cost_ms), ..because(Cause::Changed) })
    }

    /// Remembers which image a content is, for whoever is explained later what lies on it.
    fn note_base(&self, asked: &Asked) -> Result<(), StoreError> {
        let Some(content) = parts::base(&asked.recipe) else { return Ok(()) };
        let Some(origin @ Origin::Image { .. }) = &asked.base else { return Ok(()) };
        let text = serde_json::to_vec(origin).expect("an origin is plain data");
        match self.store.note(ORIGINS, content)? {
            Some(known) if known == text => Ok(()),
            _ => self.store.put_note(ORIGINS, content, &text),
        }
    }

    /// What differs between a former recipe and that of the step, what is most to the point first.
    fn changes(&self, before: &KeyRecipe, asked: &Asked) -> Result<Vec<Change>, StoreError> {
        let mut found = vec![];
        for part in parts::differences(before, &asked.recipe) {
            found.push(match part {
                parts::Difference::Command { before, now } => Change::Command { before, now },
                parts::Difference::Variable { name, before, now } => Change::Variable { name, before, now },
                parts::Difference::Setting { name, before, now } => Change::Setting { name, before, now },
                parts::Difference::Base { before, now } => Change::Base {
                    before: before.map(|content| self.origin(&content)).transpose()?.flatten(),
                    now: now.and(asked.base.clone()),
                },
                parts::Difference::Files { part, before, now } => {
                    let from = asked.sources.get(&part).cloned().flatten();
                    self.files(from, before.as_deref(), now.as_deref())?
                }
            });
        }
        Ok(found)
    }

    fn files(&self, from: Option<String>, before: Option<&str>, now: Option<&str>) -> Result<Change, StoreError> {
        Ok(match self.store.listings(before, now)? {
            Some([before, now]) => {
                let (files, total) = files::differences(&before, &now);
                Change::Files { from, files, total }
            }
            None => Change::Files { from, files: vec![], total: 0 },
        })
    }

    /// What a content is of.
    fn origin(&self, content: &str) -> Result<Option<Origin>, StoreError> {
        if let Some(text) = self.store.note(ORIGINS, content)? {
            return Ok(serde_json::from_slice(&text).ok());
        }
        let maker = self.store.maker_of(&SnapshotId(content.to_string()))?;
        Ok(maker.map(|name| Origin::Step { name }))
    }
}

fn asked(graph: &Graph<Step>, vertex: VertexId, recipe: KeyRecipe, miss: Miss) -> Asked {
    let (step, inputs) = (graph.value(vertex), graph.inputs(vertex));
    let base = step.op.bases(inputs.len()).first().map(|base| {
        let below = graph.value(inputs[*base].vertex);
        match below.op.source() {
            Some(Source::Image { reference, digest, .. }) => {
                Origin::Image { name: reference.familiar(), digest: digest.clone() }
            }
            Some(Source::OciLayout { name, digest, .. }) => {
                Origin::Image { name: format!("oci-layout://{name}"), digest: digest.clone() }
            }
            Some(Source::Local { .. } | Source::Git(_) | Source::Http { .. }) | None => {
                Origin::Step { name: below.name.clone() }
            }
        }
    });
    let mut sources = BTreeMap::new();
    match &step.op {
        Op::File(file) => {
            for (number, action) in file.actions.iter().enumerate() {
                if let FileAction::Copy(copy) = action {
                    let from = (!copy.from_client).then(|| copy.source_label.to_string());
                    sources.insert(format!("copied {number}"), from.filter(|label| !label.is_empty()));
                }
            }
        }
        Op::Exec(exec) => {
            let mounted = exec.mounts.iter().map(|mount| &mount.target);
            sources.extend(mounted.map(|target| (format!("mounted {target}"), Some(format!("the mount {target}")))));
        }
        Op::Source(_) | Op::Merge => {}
    }
    Asked { name: step.name.clone(), recipe, miss, base, sources }
}
