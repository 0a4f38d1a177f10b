//! The build, from top to bottom, one line for each arrow: text -> AST -> plan -> solved trees -> exports. What can go wrong
//! on the way is in `pipeline/error.rs`, what is told before steps run in `announce.rs`, what becomes of the result in
//! `outputs.rs`.

mod announce;
mod error;
mod outputs;
mod planned;

use crate::attest::facts::{self, Facts};
use crate::attest::generator::{self, GeneratorError};
use crate::attest::make::{MakeError, Maker};
use crate::attest::request::Scanner;
use crate::cancel::Cancel;
use crate::cli::options::BuildOptions;
use crate::explain::{self, Reasons};
use crate::export::{Exporter, Response};
use crate::image::assemble::BuiltImage;
use crate::image::layers::{LayerBlobs, LayerOptions};
use crate::inputs::{self, Inputs};
use crate::local::keep::{Kept, keep, kept_by_exporter};
use crate::progress::Progress;
use crate::registry::Registry;
use crate::remote_cache::RemoteCache;
use crate::remote_cache::records::Records;
use crate::report::Phase;
use crate::sandbox::isolation::Isolation;
use crate::sandbox::userns::Identity;
use crate::secret::Secrets;
use crate::source::dockerfile::DockerfileText;
use crate::source::image::{ImageError, ImageSource};
use crate::source::named::{self, NamedContexts};
use crate::source::remote::Remotes;
use crate::ssh::SshAgents;
use crate::step::{BuildSteps, Context, Fetching, StepOutput};
use cache::store::Store;
use cache::tree::Tree;
use frontend::ast::Dockerfile;
use frontend::compile::{
    BuildPlan, CheckOptions, CompileRequest, Compiled, Compiler, ImageInfo, ImageLocation, ImageRequest, Images,
    NoCache, PlannedImage, UnusedArg, instruction_errors, similar_name,
};
use frontend::diagnostic::{Diagnostic, Severity};
use frontend::lint::config::OwnChecks;
use frontend::op::{Source, Step};
use frontend::platform::Platform;
use frontend::span::SourceText;
use solver::graph::{Graph, VertexId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use announce::{announce, announce_warnings};
use outputs::{build_metadata, export_all, export_cache, open_exporters};
use planned::{exported_vertices, rooted_vertices, roots};

pub(crate) use error::step_failed;
pub use error::{BuildError, MissingImage, Place};

/// What a build works with, beside its options.
#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub registry: Registry,
    pub progress: Progress,
    pub cancel: Cancel,
    pub host: Platform,
    pub identity: Identity,
    pub isolation: Isolation,
    /// Folder for the complete output of steps.
    pub logs: PathBuf,
    pub build: BuildIdentity,
}

/// Which build it is.
#[derive(Clone, Debug)]
pub struct BuildIdentity {
    /// Its name in the history; empty for a question, which leaves no trace there.
    pub id: String,
    pub begun: SystemTime,
}

/// A build that succeeded.
pub struct Built {
    /// For `--metadata-file`; later exporters override earlier ones.
    pub response: Response,
    /// For `--metadata-file`, if there is one: what the build was.
    pub metadata: Response,
    /// Build checks that fired, and the text they point into.
    pub warnings: Vec<Diagnostic>,
    pub source: Arc<SourceText>,
    /// Build arguments that no ARG declares.
    pub unused_args: Vec<UnusedArg>,
    /// What became of a result that no `--output` asked for.
    pub kept: Kept,
}

/// How often a build is gone through again because a remote cache lost what its records promised.
const LOSSES: usize = 20;

/// Builds and exports.
pub async fn build(options: &BuildOptions, world: &World) -> Result<Built, BuildError> {
    let exporters = open_exporters(options)?;
    let layers = layer_options(&exporters);
    let cache = RemoteCache::open(&options.cache_from, &options.cache_to, layers.first().copied(), world)?;
    let mut losses = 0;
    let result = loop {
        let solved = match solve_images(options, world, layers.clone(), &cache).await {
            Ok(solved) => solved,
            Err(error) => break Err(error),
        };
        // The caches' last layers are on their way meanwhile.
        let (exported, cached) =
            tokio::join!(export_all(&exporters, &solved, options, world), export_cache(&cache, world));
        if exported.is_err() && losses < LOSSES && cache.imports.has_lost() {
            // Records whose layers cannot be had are not used again: those steps run.
            cache.imports.take_lost();
            losses += 1;
            continue;
        }
        break exported.and_then(|response| cached.map(|()| (response, solved)));
    };
    cache.imports.settle(&world.store)?;
    let (mut response, solved) = result?;
    let metadata = build_metadata(&solved, options, world);
    let kept = match (exporters.is_empty(), options.outputs.is_empty()) {
        (true, _) => keep(&solved.images, solved.epoch, options, &world.store)?,
        (false, true) => kept_by_exporter(options, &world.store, unix_time(world.build.begun).as_millis() as i64)?,
        (false, false) => Kept::Exported,
    };
    if let Kept::Named { names, .. } = &kept {
        let names: Vec<String> = names.iter().map(|name| name.to_string()).collect();
        response.insert("image.name".into(), names.join(",").into());
    }
    let Solved { source, warnings, unused_args, .. } = solved;
    Ok(Built { response, metadata, warnings, unused_args, source, kept })
}

/// A build that is done but for what becomes of its images.
pub(crate) struct Solved<'a> {
    pub images: Vec<BuiltImage>,
    /// How each image was made; none if nobody wants to know.
    pub facts: Vec<Arc<Facts>>,
    pub tools: Tools<'a>,
    pub epoch: Option<i64>,
    pub warnings: Vec<Diagnostic>,
    pub unused_args: Vec<UnusedArg>,
    pub source: Arc<SourceText>,
    /// Digest of the vertex that warnings belong to.
    pub definition: String,
}

/// Everything but the exports; blobs of layers are begun as `layer_options` say.
pub(crate) async fn solve_images<'a>(
    options: &'a BuildOptions,
    world: &'a World,
    layer_options: Vec<LayerOptions>,
    cache: &RemoteCache,
) -> Result<Solved<'a>, BuildError> {
    let Ready { targets, scans, steps, results, tools, epoch, warnings, unused_args, source, definition } =
        prepare(options, world, layer_options, cache).await?;
    let mut outputs = solve(&[&targets[..], &scans].concat(), &steps, &source, world).await?;
    let scanned = outputs.split_off(targets.len()).into_iter();
    let scans: Vec<_> = scanned.zip(scans.iter().map(|scan| steps.vertices[scan.0 as usize].clone())).collect();
    let mut images = built_images(&results, outputs);
    let layers: Vec<usize> = images.iter().map(|image| image.tree.layers().len()).collect();
    let facts = match options.attest.provenance.is_some() || options.metadata.provenance.is_some() {
        true => facts::gather(&steps, &results, &layers, options, world, &source).await?,
        false => vec![],
    };
    let facts: Vec<Arc<Facts>> = facts.into_iter().map(Arc::new).collect();
    let begun = unix_time(world.build.begun).as_secs() as i64;
    let maker = Maker {
        request: &options.attest,
        store: &world.store,
        images: &tools.images,
        progress: &world.progress,
        name: options.tags.first().map(|tag| tag.familiar()),
        created: epoch.unwrap_or(begun),
    };
    maker.attest(&mut images, &results, &facts, &scans).await?;
    Ok(Solved { images, facts, tools, epoch, warnings, unused_args, source, definition })
}

fn unix_time(at: SystemTime) -> Duration {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// A build of which no step has run.
pub(crate) struct Ready<'a> {
    pub targets: Vec<VertexId>,
    /// What is solved for SBOMs beside the results.
    pub scans: Vec<VertexId>,
    pub steps: BuildSteps,
    pub results: Vec<PlannedImage>,
    pub tools: Tools<'a>,
    pub epoch: Option<i64>,
    pub warnings: Vec<Diagnostic>,
    pub unused_args: Vec<UnusedArg>,
    pub source: Arc<SourceText>,
    /// Digest of the vertex that warnings belong to.
    pub definition: String,
}

/// Everything up to the graph and what its steps work with.
pub(crate) async fn prepare<'a>(
    options: &'a BuildOptions,
    world: &'a World,
    layer_options: Vec<LayerOptions>,
    cache: &RemoteCache,
) -> Result<Ready<'a>, BuildError> {
    let named = named::resolve(&options.build_contexts, &world.host)?;
    let tools = Tools::new(options, world, &named, cache)?;
    let reading = AbortOnDrop(tokio::spawn({
        let (cache, progress) = (cache.clone(), world.progress.clone());
        async move { cache.read(&progress).await }
    }));
    let inputs = inputs::load(&tools).await?;
    let request = compile_request(options, world, &inputs, &named);
    let Inputs { text, context, definition, .. } = inputs;
    let dockerfile = parse(text)?;
    let plan = plan(&dockerfile, request, &tools).await;
    announce_warnings(&plan, &dockerfile.source, &definition);
    let mut plan = plan?;
    let scans = add_scans(&mut plan, &tools).await?;

    let source = dockerfile.source.clone();
    let targets: Vec<VertexId> = roots(&plan.results).collect();
    let (mut rooted, exported) = (rooted_vertices(&plan), exported_vertices(&plan));
    // A folder of the client that is scanned is scanned as a tree.
    rooted.extend(&scans);
    let contexts = contexts(context, &named, &plan, &world.progress)?;
    let wanted = [&targets[..], &scans].concat();
    let steps = BuildSteps { exported, contexts, layer_options, rooted, ..tools.steps(plan.graph, &wanted) };
    reading.done().await?;
    let BuildPlan { results, epoch, warnings, unused_args, .. } = plan;
    let definition = definition.digest().to_string();
    Ok(Ready { targets, scans, steps, results, tools, epoch, warnings, unused_args, source, definition })
}

/// What is solved for SBOMs beside the results: the steps of a scanner image, which are added, or what kiln itself is to
/// scan beside them.
async fn add_scans(plan: &mut BuildPlan, tools: &Tools<'_>) -> Result<Vec<VertexId>, BuildError> {
    let (reference, parameters) = match tools.options.attest.sbom.as_ref().map(|request| &request.scanner) {
        None => return Ok(vec![]),
        Some(Scanner::BuiltIn) => {
            let beside = plan.results.iter().flat_map(|result| &result.scans);
            return Ok(beside.filter_map(|scanned| scanned.root.map(|root| root.vertex)).collect());
        }
        Some(Scanner::Image { reference, parameters }) => (reference, parameters),
    };
    let request = ImageRequest {
        source: ImageLocation::Registry(reference.clone()),
        platform: tools.world.host.clone(),
        span: None,
        word: None,
        name: format!("[internal] load metadata for {reference}"),
    };
    let info = resolve(&request, &tools.images, tools.world).await;
    let info = info.map_err(|source| GeneratorError::Image { reference: reference.familiar(), source });
    let added = info.and_then(|info| generator::add_steps(plan, reference, parameters, &info, &tools.world.host));
    Ok(added.map_err(MakeError::Generator)?)
}

/// A task that ends with its owner.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl AbortOnDrop {
    async fn done(mut self) -> Result<(), tokio::task::JoinError> {
        (&mut self.0).await
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What steps work with, whatever the graph is.
pub(crate) struct Tools<'a> {
    pub options: &'a BuildOptions,
    pub world: &'a World,
    pub images: ImageSource,
    pub blobs: LayerBlobs,
    pub remotes: Remotes,
    pub secrets: Arc<Secrets>,
    pub ssh: Arc<SshAgents>,
    pub cache: RemoteCache,
}

impl<'a> Tools<'a> {
    /// Fails if a secret or an agent cannot be had.
    pub fn new(
        options: &'a BuildOptions,
        world: &'a World,
        named: &NamedContexts,
        cache: &RemoteCache,
    ) -> Result<Tools<'a>, BuildError> {
        let mut secrets = Secrets::default();
        options.secrets.iter().try_for_each(|secret| secrets.add(secret))?;
        let mut ssh = SshAgents::default();
        options.ssh.iter().try_for_each(|agent| ssh.add(agent))?;
        let (secrets, ssh) = (Arc::new(secrets), Arc::new(ssh));
        let (registry, store) = (world.registry.clone(), world.store.clone());
        let images = ImageSource::with_places(registry, store, named.places(options.pull, cache.imports.clone()));
        let blobs = LayerBlobs::new(world.store.clone());
        let remotes = Remotes::new(&world.store, secrets.clone(), ssh.clone(), &world.cancel);
        Ok(Tools { options, world, images, blobs, remotes, secrets, ssh, cache: cache.clone() })
    }

    /// Steps of a graph that has no contexts of the client and of which nothing is exported.
    pub fn steps(&self, graph: Graph<Step>, targets: &[VertexId]) -> BuildSteps {
        let project = explain::project(&self.options.context, self.options.file.as_ref());
        let flag = match self.options.no_cache {
            NoCache::IgnoreStages(_) => "--no-cache-filter",
            NoCache::IgnoreAll | NoCache::Use => "--no-cache",
        };
        BuildSteps {
            reasons: Reasons::new(&self.world.store, &project, flag, &graph),
            vertices: announce(&graph, targets, &self.world.progress),
            exported: BTreeSet::new(),
            graph,
            store: self.world.store.clone(),
            images: self.images.clone(),
            blobs: self.blobs.clone(),
            contexts: BTreeMap::new(),
            remotes: self.remotes.clone(),
            secrets: self.secrets.clone(),
            ssh: self.ssh.clone(),
            cache: self.cache.clone(),
            identity: self.world.identity.clone(),
            isolation: self.world.isolation.clone(),
            limits: self.options.limits.clone(),
            on_failure: self.options.on_failure.clone(),
            logs: self.world.logs.clone(),
            layer_options: vec![],
            cancel: self.world.cancel.clone(),
            begun_anew: Arc::default(),
            fetching: Fetching::AsNeeded,
            jobs: self.options.jobs.unwrap_or_else(crate::jobs::default_count),
            rooted: BTreeSet::new(),
        }
    }
}

pub(crate) fn parse(text: DockerfileText) -> Result<Dockerfile, BuildError> {
    let parsed = frontend::parse::parse(text.source);
    let is_error = |diagnostic: &Diagnostic| diagnostic.severity == Severity::Error;
    if parsed.diagnostics.iter().any(is_error) {
        let errors = parsed.diagnostics.into_iter().filter(is_error).collect();
        let list = instruction_errors(&parsed.dockerfile, errors);
        return Err(BuildError::Diagnostics { text: parsed.dockerfile.source, list, phase: Phase::Parse });
    }
    Ok(parsed.dockerfile)
}

pub(crate) fn compile_request(
    options: &BuildOptions,
    world: &World,
    inputs: &Inputs,
    named: &NamedContexts,
) -> CompileRequest {
    CompileRequest {
        context: inputs.main.clone(),
        source_times: vec![],
        target: options.target.clone(),
        build_args: options.build_args.clone(),
        platforms: options.platforms.clone(),
        build_platform: world.host.clone(),
        labels: options.labels.clone(),
        contexts: named.compile.clone(),
        no_cache: options.no_cache.clone(),
        network: options.network,
        extra_hosts: options.extra_hosts.clone(),
        shm_size_bytes: options.shm_size_bytes,
        ulimits: options.ulimits.clone(),
        cgroup_parent: options.cgroup_parent.clone(),
        entitlements: options.entitlements.clone(),
        checks: CheckOptions {
            own: OwnChecks::Off,
            skip: options.checks.skip.clone(),
            experimental: options.checks.experimental.clone(),
        },
        ignore_file: inputs.ignore_file.clone(),
    }
}

/// Compiles, fetches the configs and times that are missing, and compiles again until nothing is missing.
async fn plan(
    dockerfile: &Dockerfile,
    mut request: CompileRequest,
    tools: &Tools<'_>,
) -> Result<BuildPlan, BuildError> {
    let mut images = Images::new();
    let compiler = Compiler::new(dockerfile);
    loop {
        let compiled = compiler.compile(&request, &images).map_err(|list| BuildError::Diagnostics {
            text: dockerfile.source.clone(),
            list,
            phase: Phase::Compile,
        })?;
        let missing = match compiled {
            Compiled::Plan(plan) => return Ok(plan),
            Compiled::NeedsImages(missing) => missing,
            Compiled::NeedsTime(missing) => {
                let vertex = tools.world.progress.task(&missing.name);
                let time = vertex.finish(tools.remotes.time(&missing.source, &vertex).await);
                request.source_times.push((missing.source, time.map_err(BuildError::remote)?));
                continue;
            }
        };
        let resolving = missing.iter().map(|request| resolve(request, &tools.images, tools.world));
        let resolved = futures::future::join_all(resolving).await;
        let mut list = vec![];
        for (request, info) in missing.into_iter().zip(resolved) {
            match info {
                Ok(info) => {
                    images.insert((request.source, request.platform), info);
                }
                Err(error) => {
                    let near = similar_name(dockerfile, &request.source);
                    let advice = tools.images.daemon_advice(&request).await;
                    let place = Place { span: request.span, word: request.word };
                    list.push(MissingImage { place, error, near, advice });
                }
            }
        }
        if !list.is_empty() {
            list.sort_by_key(|missing| missing.place.span);
            return Err(BuildError::Resolve { text: dockerfile.source.clone(), list });
        }
    }
}

pub(crate) async fn resolve(
    request: &ImageRequest,
    images: &ImageSource,
    world: &World,
) -> Result<ImageInfo, ImageError> {
    let vertex = world.progress.task(&request.name);
    vertex.finish(images.info_shown(request, Some(&vertex)).await)
}

/// All contexts of the client by name; the main one is `context`.
fn contexts(
    main: Option<Context>,
    named: &NamedContexts,
    plan: &BuildPlan,
    progress: &Progress,
) -> Result<BTreeMap<String, Context>, BuildError> {
    let folders = named.folders()?;
    for name in folders.keys() {
        let is_used = |step: &Step| matches!(step.op.source(), Some(Source::Local { name: used }) if used == name);
        if plan.graph.reachable(roots(&plan.results)).into_iter().any(|vertex| is_used(plan.graph.value(vertex))) {
            let vertex = progress.task(&format!("[context {name}] load .dockerignore"));
            vertex.finish(Ok::<(), BuildError>(()))?;
        }
    }
    let folders = folders.into_iter().map(|(name, folder)| (name, Context::Directory(folder)));
    let mut contexts: BTreeMap<String, Context> = folders.collect();
    contexts.extend(main.map(|main| ("context".into(), main)));
    Ok(contexts)
}

/// How the exporters want layers, each way once.
fn layer_options(exporters: &[Box<dyn Exporter>]) -> Vec<LayerOptions> {
    let mut wanted = vec![];
    for options in exporters.iter().filter_map(|exporter| exporter.layer_options()) {
        if !wanted.contains(&options) {
            wanted.push(options);
        }
    }
    wanted
}

/// Solves for targets of a graph; an error is shown on its vertex.
pub(crate) async fn solve(
    targets: &[VertexId],
    steps: &BuildSteps,
    text: &Arc<SourceText>,
    world: &World,
) -> Result<Vec<StepOutput>, BuildError> {
    let records = Records { store: &world.store, cache: &steps.cache };
    let solved = solver::solve(&steps.graph, targets, steps, &records, steps).await;
    if let Err(error) = steps.reasons.remember(&steps.graph) {
        tracing::warn!(?error, "cannot note what this build used");
    }
    solved.map_err(|error| step_failed(error.vertex, error.cause, steps, text))
}

fn built_images(results: &[PlannedImage], outputs: Vec<StepOutput>) -> Vec<BuiltImage> {
    let mut outputs = outputs.into_iter();
    let tree = |output: StepOutput| match output {
        StepOutput::Tree(tree) => Tree::clone(&tree),
        // A stage that is a folder of the client has no layers to export; steps on it fail before this.
        StepOutput::Client(_) => Tree::default(),
    };
    results
        .iter()
        .map(|result| BuiltImage {
            platform: result.platform.clone(),
            tree: result.root.and_then(|_| outputs.next()).map(tree).unwrap_or_default(),
            config: result.config.clone(),
            base_history_len: result.base_history_len,
            attestations: vec![],
        })
        .collect()
}
