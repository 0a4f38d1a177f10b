//! Implements [`solver::step::Steps`]: what the ops of a build graph do, and what they depend on.
//!
//! One match from [`Op`] to the files beside this one. The result of a vertex is a [`StepOutput`]: a stack of layers,
//! of which those of images may not have been fetched yet, or a folder of the client.

mod ahead;
pub mod cache_mount;
pub mod commit;
mod copy_tree;
pub mod exec;
mod exec_chroot;
mod exec_files;
mod exec_log;
mod exec_mounts;
mod exec_plan;
mod exec_setup;
pub mod exec_shell;
pub mod file;
mod follow;
pub mod inputs;
mod lend;
mod mount_point;
pub mod plan;
mod redact;
pub(crate) mod user;

use crate::cancel::Cancel;
use crate::explain::{Reasons, place_and_text};
use crate::image::layers::{LayerBlobs, LayerOptions};
use crate::progress::{Outcome, Vertex};
use crate::remote_cache::RemoteCache;
use crate::remote_cache::export::{Makers, Part};
use crate::remote_cache::mounts::MountTravel;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::limits::Limits;
use crate::sandbox::userns::Identity;
use crate::secret::Secrets;
use crate::source::context::ContextDir;
use crate::source::image::{ImageError, ImageSource};
use crate::source::remote::{RemoteError, Remotes};
use crate::ssh::SshAgents;
use ahead::Ahead;
use cache::store::Store;
use cache::tree::{Layer, SnapshotId, Tree, stack};
use cache_mount::BegunAnew;
use file::{Copies, FileError, SourceTree};
use frontend::op::{Exec, FileAction, FileOp, Op, Step};
use rustix::fs::Stat;
use solver::graph::{Graph, VertexId};
use solver::key::{CacheKey, KeyRecipe};
use solver::progress::{Event, Observer};
use solver::record::Record;
use solver::step::{Miss, Plan, Steps};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Instant;

/// The result of a vertex.
#[derive(Clone)]
pub enum StepOutput {
    /// A folder of the client, seen through its .dockerignore.
    Client(Arc<ContextDir>),
    /// Layers.
    Tree(Arc<Tree>),
}

/// A context of the client, by its name.
#[derive(Clone)]
pub enum Context {
    /// A folder.
    Directory(Arc<ContextDir>),
    /// What came as an archive.
    Layer(Layer),
}

/// All that steps work with.
pub struct BuildSteps {
    pub graph: Graph<Step>,
    pub store: Store,
    pub images: ImageSource,
    pub blobs: LayerBlobs,
    /// By name; the main one is `context`.
    pub contexts: BTreeMap<String, Context>,
    pub remotes: Remotes,
    pub secrets: Arc<Secrets>,
    pub ssh: Arc<SshAgents>,
    pub cache: RemoteCache,
    /// As what kiln runs.
    pub identity: Identity,
    pub isolation: Isolation,
    /// What each RUN may use.
    pub limits: Limits,
    /// What follows if a RUN fails.
    pub on_failure: exec_shell::OnFailure,
    /// Folder for the complete output of each RUN.
    pub logs: PathBuf,
    /// Progress of each vertex, in graph order.
    pub vertices: Vec<Vertex>,
    /// Vertices whose layers the result consists of, and how exporters want those.
    pub exported: BTreeSet<VertexId>,
    pub layer_options: Vec<LayerOptions>,
    pub cancel: Cancel,
    /// Cache mounts that `--no-cache` has emptied.
    pub begun_anew: Arc<BegunAnew>,
    /// Folders of the client that some stage or the result is based on.
    pub rooted: BTreeSet<VertexId>,
    pub reasons: Reasons,
    pub fetching: Fetching,
    /// How many steps may run at once.
    pub jobs: usize,
}

/// Whether layers of images may be fetched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fetching {
    /// When something reads them.
    AsNeeded,
    /// Never: it is only to be said what would happen.
    Never,
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    #[error(transparent)]
    File(#[from] FileError),
    #[error(transparent)]
    Exec(#[from] exec::ExecError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error(transparent)]
    Commit(#[from] commit::CommitError),
    #[error(transparent)]
    Remote(RemoteError),
    #[error("{0} is a folder of the client, where layers were expected: a bug of kiln")]
    ClientRoot(String),
    #[error("what it takes files from has not been fetched")]
    NotFetched,
    #[error("Canceled: context canceled")]
    Canceled,
    #[error("a thread of the build died")]
    Join(#[from] tokio::task::JoinError),
}

impl StepError {
    /// Of a remote source; a stopped build is one, whatever it was doing.
    pub fn remote(error: RemoteError) -> StepError {
        if error.is_canceled() { StepError::Canceled } else { StepError::Remote(error) }
    }

    /// What to do next, one sentence each.
    pub fn help(&self) -> Vec<String> {
        match self {
            StepError::File(error) => error.help(),
            StepError::Image(error) => error.help().into_iter().collect(),
            StepError::Exec(error) => error.help(),
            StepError::Remote(error) => error.help(),
            _ => vec![],
        }
    }

    /// The word of the instruction, as it came to be after expansion, that is to blame.
    pub fn word(&self) -> Option<&str> {
        match self {
            StepError::File(error) => error.word(),
            StepError::Exec(exec::ExecError::MountSource { path }) => Some(path),
            _ => None,
        }
    }

    /// A short form of the error, and a remark on that word: for a drawing with the instruction in view.
    pub fn in_short(&self) -> (Option<String>, String) {
        match self {
            StepError::File(error) => error.in_short(),
            _ => (None, String::new()),
        }
    }

    /// Whether a command ran, whose output tells what went wrong.
    pub fn has_run(&self) -> bool {
        matches!(self, StepError::Exec(exec::ExecError::Exit { .. }))
    }
}

impl Steps for BuildSteps {
    type Output = StepOutput;
    type Error = StepError;

    async fn plan(&self, vertex: VertexId, inputs: &[StepOutput]) -> Result<Plan<StepOutput>, StepError> {
        self.check_canceled()?;
        plan::plan(self, vertex, inputs).await
    }

    fn load(&self, vertex: VertexId, inputs: &[StepOutput], record: &Record) -> Result<Option<StepOutput>, StepError> {
        let Ok(mut layer) = serde_json::from_slice::<Layer>(&record.output) else { return Ok(None) };
        let base = self.base(vertex, inputs)?;
        if layer.snapshot.0.is_empty() {
            // Of a remote cache: it need not be here before something wants its files.
            layer.snapshot = SnapshotId(stack(&base.content(), &layer.change).to_hex());
            self.cache.imports.loaded(vertex, &self.graph.value(vertex).name, record, &layer);
        } else if !self.store.snapshots().exists(&layer.snapshot) {
            // Who prunes forgets the record first.
            if self.store.forget(&record.recipe.key())? {
                self.store.remark(format!(
                    "snapshot {} is missing from the store; {:?} runs again",
                    layer.snapshot.0, record.name
                ));
            }
            return Ok(None);
        }
        let output = base.with(layer);
        self.start_blob(vertex, &output);
        self.cache.exports.found(&record.recipe.key(), record, &output, self.part(vertex), &self.makers());
        let why = self.reasons.found(vertex, record.recipe.key(), record.cost_ms);
        self.vertices[vertex.0 as usize].why(why);
        Ok(Some(StepOutput::Tree(Arc::new(output))))
    }

    async fn wait<C: Send>(
        &self,
        vertex: VertexId,
        key: &CacheKey,
        claim: impl Future<Output = C> + Send,
    ) -> Result<C, StepError> {
        follow::wait(self, vertex, key, claim).await
    }

    fn jobs(&self) -> usize {
        self.jobs
    }

    fn expected_ms(&self, vertex: VertexId) -> Option<u64> {
        match self.graph.value(vertex).op {
            Op::Exec(_) | Op::File(_) => self.reasons.expected_ms(&self.graph.value(vertex).name),
            // Nothing runs for these.
            Op::Source(_) | Op::Merge => Some(0),
        }
    }

    async fn missed(&self, vertex: VertexId, _: &[StepOutput], recipe: &KeyRecipe, miss: Miss) {
        if self.fetching == Fetching::AsNeeded {
            follow::say_who_runs(self, vertex, &recipe.key());
        }
        let why = self.reasons.missed(&self.graph, vertex, recipe, miss).await;
        self.vertices[vertex.0 as usize].why(why);
    }

    async fn run(&self, vertex: VertexId, inputs: &[StepOutput]) -> Result<(StepOutput, Record), StepError> {
        self.check_canceled()?;
        let started = Instant::now();
        let base = self.base(vertex, inputs)?;
        let step = self.graph.value(vertex);
        let layer = match &step.op {
            Op::File(op) => self.run_file(vertex, op, &base, inputs).await?,
            Op::Exec(op) => self.run_exec(vertex, op, &base, inputs).await?,
            Op::Source(_) | Op::Merge => unreachable!("planning these gives their output"),
        };
        let record = Record {
            name: step.name.clone(),
            recipe: KeyRecipe::new(),
            output: serde_json::to_vec(&layer).expect("a layer is plain data"),
            cost_ms: started.elapsed().as_millis() as u64,
            observed: vec![],
        };
        let output = base.with(layer);
        self.start_blob(vertex, &output);
        self.cache.exports.made(&output, self.part(vertex), &self.makers());
        Ok((StepOutput::Tree(Arc::new(output)), record))
    }

    fn lost(&self, error: &StepError) -> Vec<VertexId> {
        match error {
            StepError::Image(_) => self.cache.imports.take_lost(),
            _ => vec![],
        }
    }

    fn cancel(&self) {
        self.cancel.cancel();
    }

    fn ignores_cache(&self, vertex: VertexId) -> bool {
        self.graph.value(vertex).ignore_cache
    }
}

impl BuildSteps {
    async fn run_file(
        &self,
        vertex: VertexId,
        op: &FileOp,
        base: &Tree,
        inputs: &[StepOutput],
    ) -> Result<Layer, StepError> {
        let lowers = self.unpacked(vertex, base).await?;
        let mut sources = vec![];
        for (position, input) in inputs.iter().enumerate() {
            // The base is already there as layers; mounting or fetching it twice would gain nothing.
            let is_base = op.base == Some(position) && !inputs::is_copied_from(op, position);
            sources.push(if is_base { SourceTree::Empty } else { self.source_tree(vertex, input).await? });
        }
        let (store, op, base) = (self.store.clone(), op.clone(), base.clone());
        let copies = copies_of(&op, &sources, &self.graph.value(vertex).name);
        // A folder that was there already was only copied up on the way, and is no change.
        let writer = match op.actions.iter().any(|action| matches!(action, FileAction::MkDir { .. })) {
            true => commit::Writer::Overlay,
            false => commit::Writer::Copier,
        };
        tokio::task::spawn_blocking(move || {
            store.reserve(0)?;
            let draft = store.snapshots().prepare()?;
            if let Some(top) = lowers.last() {
                draft.inherit_root(top)?;
            }
            let copies = copies.map(|name| Copies::open(&store, &name)).transpose()?;
            file::apply(&op, &lowers, &sources, draft.upper(), copies.as_ref())?;
            let known = copies.map(Copies::finish).transpose()?;
            let file = |path: &Path, _: &Stat| known.as_ref().and_then(|known| known.file(path));
            let layer = commit::commit(&store, draft, &base, &lowers, writer, &file)?;
            known.iter().try_for_each(|known| known.keep(&store, &layer.snapshot))?;
            Ok(layer)
        })
        .await?
    }

    async fn run_exec(
        &self,
        vertex: VertexId,
        op: &Exec,
        base: &Tree,
        inputs: &[StepOutput],
    ) -> Result<Layer, StepError> {
        let lowers = self.unpacked(vertex, base).await?;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.reserve(0)).await??;
        let draft = self.store.snapshots().prepare()?;
        if let Some(top) = lowers.last() {
            draft.inherit_root(top)?;
        }
        let mut sources = vec![];
        for (position, mount) in op.mounts.iter().enumerate() {
            if let Some(source) = self.mount_source(vertex, mount, inputs).await? {
                sources.push((position, source));
            }
        }
        let log = follow::log_of(self, vertex);
        let input = exec::ExecInput {
            log,
            lowers: lowers.clone(),
            upper: draft.upper().to_path_buf(),
            work: draft.work().to_path_buf(),
            sources,
            cache_root: self.store.mounts_dir(),
            travel: MountTravel::new(
                self.images.clone(),
                self.cache.exports.clone(),
                self.store.clone(),
                self.vertices[vertex.0 as usize].clone(),
            ),
            anew: self.graph.value(vertex).ignore_cache.then(|| self.begun_anew.clone()),
            secrets: self.secrets.clone(),
            ssh: self.ssh.clone(),
            identity: self.identity.clone(),
            isolation: self.isolation.clone(),
            id: format!("{}-{}", std::process::id(), vertex.0),
            limits: self.limits.clone(),
            on_failure: self.on_failure.clone(),
        };
        let vertex = &self.vertices[vertex.0 as usize];
        let ahead = Ahead::begin(draft.upper().to_path_buf());
        let outcome = match exec::run(op, input, vertex, self.cancel.canceled()).await {
            Err(exec::ExecError::Canceled) => return Err(StepError::Canceled),
            ran => ran?,
        };
        // As late as can be: what is left is digested while the folders are put in order.
        let digested = LazyLock::new(move || ahead.end());
        let (store, base) = (self.store.clone(), base.clone());
        let unmounting = tokio::task::spawn_blocking(move || drop(outcome.root));
        let layer = tokio::task::spawn_blocking(move || {
            if let Some(owner) = outcome.owner {
                commit::give_new_files(&draft, &lowers, owner)?;
            }
            let file = |_: &Path, stat: &Stat| digested.file(stat);
            Ok(commit::commit(&store, draft, &base, &lowers, commit::Writer::Overlay, &file)?)
        })
        .await?;
        // Before another step mounts what this one wrote: the kernel warns of a lower folder that is still an upper one.
        unmounting.await?;
        layer
    }

    /// The tree that a vertex changes.
    fn base(&self, vertex: VertexId, inputs: &[StepOutput]) -> Result<Tree, StepError> {
        match self.graph.value(vertex).op.bases(inputs.len()).first().map(|base| &inputs[*base]) {
            None => Ok(Tree::default()),
            Some(StepOutput::Tree(tree)) => Ok(Tree::clone(tree)),
            Some(StepOutput::Client(context)) => Err(StepError::ClientRoot(context.path().display().to_string())),
        }
    }

    /// The folders of a tree's layers, lowest first; what is missing is fetched, shown on the FROM it belongs to.
    async fn unpacked(&self, vertex: VertexId, tree: &Tree) -> Result<Vec<PathBuf>, StepError> {
        let from = self.image_below(vertex).unwrap_or(vertex);
        self.fetched(tree, from).await
    }

    /// As [`BuildSteps::unpacked`], shown on a given vertex.
    async fn fetched(&self, tree: &Tree, shown_on: VertexId) -> Result<Vec<PathBuf>, StepError> {
        let is_there = |layer: &Arc<Layer>| self.store.snapshots().exists(&layer.snapshot);
        if self.fetching == Fetching::Never && !tree.layers().iter().all(is_there) {
            return Err(StepError::NotFetched);
        }
        Ok(self.images.ensure_unpacked(tree, &self.vertices[shown_on.0 as usize]).await?)
    }

    /// The image source at the bottom of a vertex's chain of bases.
    fn image_below(&self, vertex: VertexId) -> Option<VertexId> {
        let mut at = vertex;
        loop {
            let (op, inputs) = (&self.graph.value(at).op, self.graph.inputs(at));
            if let Op::Source(_) = op {
                return Some(at);
            }
            at = inputs[*op.bases(inputs.len()).first()?].vertex;
        }
    }

    /// Starts to make the layer's blob, if the result needs it, while later steps run.
    fn start_blob(&self, vertex: VertexId, output: &Tree) {
        // The blob of what a remote cache has is there already.
        let is_remote = output.layers().last().is_some_and(|layer| layer.remote.is_some());
        if self.exported.contains(&vertex) && !is_remote {
            for options in &self.layer_options {
                self.blobs.start(output.clone(), *options);
            }
        }
    }

    fn part(&self, vertex: VertexId) -> Part {
        if self.exported.contains(&vertex) { Part::OfResult } else { Part::Beside }
    }

    fn makers(&self) -> Makers {
        Makers { images: self.images.clone(), blobs: self.blobs.clone() }
    }

    /// What a step says that has to wait for others.
    fn queue(&self) -> String {
        format!("waiting: --jobs lets {} run at once", self.jobs)
    }

    fn check_canceled(&self) -> Result<(), StepError> {
        if self.cancel.is_canceled() { Err(StepError::Canceled) } else { Ok(()) }
    }
}

/// What tells a COPY from all others: the client's folder and the stage, or the layers that it copies from, and what is
/// copied where to. `None` for other steps.
fn copies_of(op: &FileOp, sources: &[SourceTree], name: &str) -> Option<String> {
    let from = sources.iter().find_map(|source| match source {
        SourceTree::Client(context) => {
            let (place, _) = place_and_text(name);
            let stage = place.rsplit_once(' ').map_or("", |(stage, _)| stage);
            Some(format!("{}\0{stage}", context.path().display()))
        }
        SourceTree::Layers(layers) => Some(format!("{}\0", layers.last()?.display())),
        SourceTree::Empty => None,
    })?;
    Some(format!("{from}\0{:?}", op.actions))
}

impl Observer for BuildSteps {
    fn event(&self, event: Event) {
        let of = |vertex: VertexId| &self.vertices[vertex.0 as usize];
        match event {
            Event::Started(vertex) => of(vertex).start(),
            Event::Queued(vertex) => of(vertex).status(&self.queue(), 0, 0),
            Event::Running(vertex) => of(vertex).status_done(&self.queue(), 0, 0),
            Event::Cached(vertex) => of(vertex).end(Outcome::Cached),
            Event::Done(vertex) => {
                self.reasons.ended(vertex);
                of(vertex).end(Outcome::Done)
            }
            Event::Canceled(vertex) => of(vertex).end(Outcome::Canceled),
            // Ended by whoever reports the error, with its message.
            Event::Failed(_) => {}
        }
    }
}
