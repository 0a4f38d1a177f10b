//! The build, from top to bottom, one line for each arrow: text -> AST -> plan -> solved trees -> exports.

use crate::cancel::Cancel;
use crate::cli::options::{BuildOptions, ContextArg};
use crate::export::{self, Export, ExportError, Exporter, Response};
use crate::image::assemble::BuiltImage;
use crate::image::layers::{LayerBlobs, LayerOptions};
use crate::progress::{Outcome, Progress, Vertex, Warning};
use crate::registry::Registry;
use crate::report::Phase;
use crate::sandbox::userns::Identity;
use crate::secret::Secrets;
use crate::source::context::{ContextDir, ContextError, is_context_archive, load_ignore_file, unpack_context};
use crate::source::dockerfile::{self, DockerfileError, DockerfileText};
use crate::source::image::{ImageError, ImageSource};
use crate::source::named::{self, NamedContextError, NamedContexts};
use crate::ssh::SshAgents;
use crate::step::file::FileError;
use crate::step::{BuildSteps, StepError, StepOutput};
use cache::store::Store;
use cache::tree::Tree;
use frontend::ast::Dockerfile;
use frontend::compile::{
    BuildPlan, CheckOptions, CompileRequest, Compiled, ImageInfo, ImageRequest, Images, PlannedImage, UnusedArg,
    compile, instruction_errors, similar_name,
};
use frontend::diagnostic::{Diagnostic, Severity};
use frontend::ignore::{Ignore, IgnoreError};
use frontend::lint::config::OwnChecks;
use frontend::op::{Op, Source, Step};
use frontend::platform::Platform;
use frontend::span::{SourceText, Span};
use solver::error::Cause;
use solver::graph::VertexId;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a build works with, beside its options.
#[derive(Clone)]
pub struct World {
    pub store: Store,
    pub registry: Registry,
    pub progress: Progress,
    pub cancel: Cancel,
    pub host: Platform,
    pub identity: Identity,
    /// Folder for the complete output of steps.
    pub logs: PathBuf,
}

/// A build that succeeded.
pub struct Built {
    /// For `--metadata-file`; later exporters override earlier ones.
    pub response: Response,
    /// Build checks that fired, and the text they point into.
    pub warnings: Vec<Diagnostic>,
    pub source: Arc<SourceText>,
    /// Build arguments that no ARG declares.
    pub unused_args: Vec<UnusedArg>,
    /// Nothing was exported: no `--output` was given.
    pub nothing_exported: bool,
}

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("error in {}", path.display())]
    Ignore { path: PathBuf, source: IgnoreError },
    #[error(transparent)]
    NamedContext(#[from] NamedContextError),
    #[error("the Dockerfile has errors")]
    Diagnostics { text: Arc<SourceText>, list: Vec<Diagnostic>, phase: Phase },
    #[error("{}", list.first().map(|missing| missing.error.to_string()).unwrap_or_default())]
    Resolve { text: Arc<SourceText>, list: Vec<MissingImage> },
    #[error("{error}")]
    Step { text: Arc<SourceText>, place: Place, name: String, error: Box<StepError> },
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error(transparent)]
    Secret(#[from] crate::secret::SecretError),
    #[error(transparent)]
    Ssh(#[from] crate::ssh::SshError),
    #[error("could not read standard input")]
    Stdin { source: io::Error },
    #[error("could not unpack the context that came on standard input")]
    Unpack {
        #[source]
        error: Box<FileError>,
    },
    #[error("only one output may write to standard output")]
    StdoutTwice,
    #[error("local and tar exporters are incompatible with image ID file")]
    NoImageForIidFile,
    #[error("Canceled: context canceled")]
    Canceled,
}

/// An image whose config could not be had.
#[derive(Debug)]
pub struct MissingImage {
    pub place: Place,
    pub error: ImageError,
    /// A stage or a well-known image that may be meant.
    pub near: Option<String>,
}

/// Where in the Dockerfile something is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The instruction.
    pub span: Option<Span>,
    /// The word in it.
    pub word: Option<Span>,
}

/// Builds and exports.
pub async fn build(options: &BuildOptions, world: &World) -> Result<Built, BuildError> {
    let exporters = open_exporters(options)?;
    let mut secrets = Secrets::default();
    options.secrets.iter().try_for_each(|secret| secrets.add(secret))?;
    let mut ssh = SshAgents::default();
    options.ssh.iter().try_for_each(|agent| ssh.add(agent))?;
    let inputs = load_inputs(options, world)?;
    let dockerfile = parse(inputs.text)?;
    let named = named::resolve(&options.build_contexts, &world.host)?;
    let request = compile_request(options, world, &inputs.ignore_file, &named);
    let images = ImageSource::new(world.registry.clone(), world.store.clone(), named.layouts.clone());
    let plan = plan(&dockerfile, &request, &images, world).await;
    announce_warnings(&plan, &dockerfile.source, &inputs.definition);
    let plan = plan?;

    let source = dockerfile.source.clone();
    let blobs = LayerBlobs::new(world.store.clone());
    let contexts = contexts(inputs.context, &named, &plan, &world.progress)?;
    let rooted = rooted_vertices(&plan);
    let steps = BuildSteps {
        vertices: announce(&plan, &world.progress),
        exported: exported_vertices(&plan),
        graph: plan.graph,
        store: world.store.clone(),
        images: images.clone(),
        blobs: blobs.clone(),
        contexts,
        secrets: Arc::new(secrets),
        ssh: Arc::new(ssh),
        identity: world.identity.clone(),
        limits: options.limits.clone(),
        logs: world.logs.clone(),
        layer_options: layer_options(&exporters),
        cancel: world.cancel.clone(),
        begun_anew: Arc::default(),
        rooted,
    };
    let targets: Vec<VertexId> = roots(&plan.results).collect();
    let outputs = solve(&targets, &steps, &source, world).await?;

    let built = built_images(&plan.results, outputs);
    let multi_platform = options.build_args.get("BUILDKIT_MULTI_PLATFORM").is_some_and(|on| on == "1" || on == "true");
    let mut response = Response::new();
    for exporter in &exporters {
        let vertex = world.progress.task(&exporter.name());
        let export = Export {
            images: &built,
            multi_platform,
            epoch: plan.epoch,
            store: &world.store,
            blobs: &blobs,
            sources: &images,
            vertex: &vertex,
        };
        let exported = tokio::select! {
            exported = exporter.export(&export) => exported,
            () = world.cancel.canceled() => {
                vertex.end(Outcome::Canceled);
                return Err(BuildError::Canceled);
            }
        };
        response.extend(vertex.finish(exported)?);
    }
    let (warnings, unused_args) = (plan.warnings, plan.unused_args);
    Ok(Built { response, warnings, unused_args, source, nothing_exported: exporters.is_empty() })
}

/// All outputs are understood before anything is built.
fn open_exporters(options: &BuildOptions) -> Result<Vec<Box<dyn Exporter>>, BuildError> {
    let wanted = options.outputs.iter().filter(|output| output.kind != "cacheonly");
    let exporters = wanted.map(export::open).collect::<Result<Vec<_>, _>>()?;
    if exporters.iter().filter(|exporter| exporter.uses_stdout()).count() > 1 {
        return Err(BuildError::StdoutTwice);
    }
    if options.iidfile.is_some() && !exporters.is_empty() && !exporters.iter().any(|exporter| exporter.makes_image()) {
        return Err(BuildError::NoImageForIidFile);
    }
    Ok(exporters)
}

/// Dockerfile and main context.
pub(crate) struct Inputs {
    pub text: DockerfileText,
    pub context: ContextDir,
    /// Text of the .dockerignore that applies.
    pub ignore_file: Option<String>,
    /// The progress vertex that the Dockerfile was read in; warnings about it belong there.
    pub definition: Vertex,
}

pub(crate) fn load_inputs(options: &BuildOptions, world: &World) -> Result<Inputs, BuildError> {
    let stdin = std::io::stdin();
    let (folder, stdin_text) = match &options.context {
        ContextArg::Directory(path) => (path.clone(), None),
        ContextArg::Stdin => {
            let folder = world.store.scratch_dir()?;
            let text = stdin_context(stdin.lock(), &folder)?;
            (folder, text)
        }
    };
    let definition = world.progress.task("[internal] load build definition from Dockerfile");
    let text = match stdin_text {
        Some(text) => Ok(text),
        None => dockerfile::read(&folder, options.file.as_ref(), stdin.lock()),
    };
    let text = definition.finish(text)?;
    definition.status_done("transferring dockerfile:", text.source.text.len() as u64, 0);

    let vertex = world.progress.task("[internal] load .dockerignore");
    // Archives are taken as they are (reference/dockerfile.md 6.2).
    let found = match options.context {
        ContextArg::Stdin => Ok(None),
        ContextArg::Directory(_) => load_ignore_file(&folder, text.path.as_deref()),
    };
    let found = vertex.finish(found)?;
    let ignore = match &found {
        None => Ignore::default(),
        Some((path, text)) => {
            Ignore::parse(text).map_err(|source| BuildError::Ignore { path: path.clone(), source })?
        }
    };
    let context = match options.context {
        ContextArg::Stdin => ContextDir::open_unpacked(&folder)?,
        ContextArg::Directory(_) => ContextDir::open(&folder, ignore)?,
    };
    Ok(Inputs { text, context, ignore_file: found.map(|(_, text)| text), definition })
}

/// Unpacks an archive that comes on standard input. What is no archive is the Dockerfile, with an empty context
/// (reference/dockerfile.md 6.2).
fn stdin_context(stdin: impl Read, folder: &Path) -> Result<Option<DockerfileText>, BuildError> {
    let mut start = vec![];
    let mut stdin = BufReader::new(stdin);
    let read = |source| BuildError::Stdin { source };
    (&mut stdin).take(1024).read_to_end(&mut start).map_err(read)?;
    let is_archive = is_context_archive(&start);
    let mut whole = start.as_slice().chain(stdin);
    if is_archive {
        unpack_context(whole, folder).map_err(|error| BuildError::Unpack { error: Box::new(error) })?;
        return Ok(None);
    }
    let mut bytes = vec![];
    whole.read_to_end(&mut bytes).map_err(read)?;
    Ok(Some(dockerfile::from_bytes("-", bytes)))
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
    ignore_file: &Option<String>,
    named: &NamedContexts,
) -> CompileRequest {
    CompileRequest {
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
        ignore_file: ignore_file.clone(),
    }
}

/// Compiles, fetches the configs that are missing, all at once, and compiles again until nothing is missing.
async fn plan(
    dockerfile: &Dockerfile,
    request: &CompileRequest,
    source: &ImageSource,
    world: &World,
) -> Result<BuildPlan, BuildError> {
    let mut images = Images::new();
    loop {
        let compiled = compile(dockerfile, request, &images).map_err(|list| BuildError::Diagnostics {
            text: dockerfile.source.clone(),
            list,
            phase: Phase::Compile,
        })?;
        let missing = match compiled {
            Compiled::Plan(plan) => return Ok(plan),
            Compiled::NeedsImages(missing) => missing,
        };
        let resolved = futures::future::join_all(missing.iter().map(|request| resolve(request, source, world))).await;
        let mut list = vec![];
        for (request, info) in missing.into_iter().zip(resolved) {
            match info {
                Ok(info) => {
                    images.insert((request.source, request.platform), info);
                }
                Err(error) => {
                    let near = similar_name(dockerfile, &request.source);
                    list.push(MissingImage { place: Place { span: request.span, word: request.word }, error, near });
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
    vertex.finish(images.info(request).await)
}

/// Sends the build checks that fired to progress, on the vertex that the Dockerfile was read in.
fn announce_warnings(plan: &Result<BuildPlan, BuildError>, source: &Arc<SourceText>, definition: &Vertex) {
    let found = match plan {
        Ok(plan) => &plan.warnings,
        Err(BuildError::Diagnostics { list, .. }) => list,
        Err(_) => return,
    };
    for warning in found.iter().filter(|found| found.severity == Severity::Warning) {
        let rule = warning.rule.and_then(frontend::lint::rule);
        definition.warn(Warning {
            short: crate::report::one_line(source, warning),
            detail: rule.map(|rule| rule.description.to_string()).into_iter().collect(),
            url: rule.and_then(|rule| rule.url()),
            place: warning.span.map(|span| (source.clone(), span)),
        });
    }
}

/// All folders of the client by name; the main one is `context`.
fn contexts(
    main: ContextDir,
    named: &NamedContexts,
    plan: &BuildPlan,
    progress: &Progress,
) -> Result<BTreeMap<String, Arc<ContextDir>>, BuildError> {
    let mut contexts = named.folders()?;
    for name in contexts.keys() {
        let is_used = |step: &Step| matches!(&step.op, Op::Source(Source::Local { name: used }) if used == name);
        let targets = plan.results.iter().filter_map(|result| result.root.map(|edge| edge.vertex));
        if plan.graph.reachable(targets).into_iter().any(|vertex| is_used(plan.graph.value(vertex))) {
            let vertex = progress.task(&format!("[context {name}] load .dockerignore"));
            vertex.finish(Ok::<(), BuildError>(()))?;
        }
    }
    contexts.insert("context".into(), Arc::new(main));
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

/// A progress vertex for each vertex of the graph that some result needs; the others are never seen.
fn announce(plan: &BuildPlan, progress: &Progress) -> Vec<Vertex> {
    let graph = &plan.graph;
    let needed = graph.reachable(roots(&plan.results));
    let mut vertices: Vec<Vertex> = vec![];
    for id in (0..graph.len() as u32).map(VertexId) {
        let (key, name) = (format!("vertex {}", id.0), graph.value(id).name.as_str());
        vertices.push(match needed.contains(&id) {
            true => {
                let digest = |edge: &solver::graph::Edge| vertices[edge.vertex.0 as usize].digest().to_string();
                let inputs = graph.inputs(id).iter().map(digest).collect();
                progress.vertex(&key, name, inputs)
            }
            false => progress.unseen(&key, name),
        });
    }
    vertices
}

/// The vertices of the results themselves.
fn roots(results: &[PlannedImage]) -> impl Iterator<Item = VertexId> {
    results.iter().filter_map(|result| result.root.map(|edge| edge.vertex))
}

/// The vertices whose layers a vertex's output is stacked on.
fn bases(plan: &BuildPlan, vertex: VertexId) -> impl Iterator<Item = VertexId> {
    let inputs = plan.graph.inputs(vertex);
    plan.graph.value(vertex).op.bases(inputs.len()).into_iter().map(|base| inputs[base].vertex)
}

/// The vertices whose layers results consist of: from each result's root down through the bases.
fn exported_vertices(plan: &BuildPlan) -> BTreeSet<VertexId> {
    let mut exported = BTreeSet::new();
    let mut todo: Vec<VertexId> = roots(&plan.results).collect();
    while let Some(vertex) = todo.pop() {
        if exported.insert(vertex) {
            todo.extend(bases(plan, vertex));
        }
    }
    exported
}

/// The vertices that others are based on, or that are a result themselves.
fn rooted_vertices(plan: &BuildPlan) -> BTreeSet<VertexId> {
    let of_others = (0..plan.graph.len() as u32).flat_map(|vertex| bases(plan, VertexId(vertex)));
    roots(&plan.results).chain(of_others).collect()
}

async fn solve(
    targets: &[VertexId],
    steps: &BuildSteps,
    text: &Arc<SourceText>,
    world: &World,
) -> Result<Vec<StepOutput>, BuildError> {
    let solved = solver::solve(&steps.graph, targets, steps, &world.store, steps).await;
    solved.map_err(|error| {
        let cause = match error.cause {
            Cause::Step(error) => error,
            Cause::Store(error) => StepError::Store(error),
        };
        let canceled = matches!(cause, StepError::Canceled);
        let vertex = &steps.vertices[error.vertex.0 as usize];
        vertex.end(match canceled {
            true => Outcome::Canceled,
            false => Outcome::Failed(crate::progress::chain(&cause)),
        });
        if canceled {
            return BuildError::Canceled;
        }
        let step = steps.graph.value(error.vertex);
        let meant = cause.word().map(frontend::path::clean);
        let is_meant = |came_to: &str| meant.as_ref().is_some_and(|word| *word == frontend::path::clean(came_to));
        let word = step.words.iter().find(|(came_to, _)| is_meant(came_to)).map(|(_, word)| *word);
        let place = Place { span: step.span, word };
        BuildError::Step { text: text.clone(), place, name: step.name.clone(), error: Box::new(cause) }
    })
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
        })
        .collect()
}
