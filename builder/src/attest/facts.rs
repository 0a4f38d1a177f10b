//! What is known of a build once it is solved: what was asked for, what it was made of, which steps did it. One value for
//! each platform; `provenance.rs` decides how much of it is said.

use super::llb;
use super::purl;
use crate::cli::options::{BuildOptions, ContextArg, FileArg};
use crate::export::compatibility::CompatibilityVersion;
use crate::pipeline::{BuildError, World};
use crate::source::http::HttpRequest;
use crate::step::BuildSteps;
use crate::time::rfc3339;
use frontend::compile::{ImageLocation, NoCache, PlannedImage};
use frontend::git_url::redacted;
use frontend::op::{GitSource, MountKind, Network, Op, Source, Step};
use frontend::reference::Reference;
use frontend::span::SourceText;
use serde_json::Value;
use solver::graph::{Graph, VertexId};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

/// Facts about one platform's result.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The build's name in `kiln history`.
    pub invocation_id: String,
    /// RFC 3339.
    pub started: String,
    /// RFC 3339: when the result was there.
    pub finished: String,
    /// Of the machine.
    pub builder_platform: String,
    /// As BuildKit's frontends are given them, such as `build-arg:VERSION`.
    pub args: BTreeMap<String, String>,
    pub config: ConfigSource,
    /// In order of their names.
    pub materials: Vec<Material>,
    /// Id, and whether the build goes on without it.
    pub secrets: BTreeMap<String, bool>,
    pub ssh: BTreeMap<String, bool>,
    /// Folders of the client.
    pub locals: BTreeSet<String>,
    /// As which BuildKit images are put together.
    pub compatibility_version: u32,
    /// What the client says of its repository, such as `revision`.
    pub vcs: BTreeMap<String, String>,
    /// Inputs before what uses them.
    pub steps: Vec<StepFact>,
    pub source: Arc<SourceText>,
    /// Whether some step could reach a network.
    pub has_network: bool,
    /// Whether all that went into the result is among the materials.
    pub is_complete: bool,
}

/// What the build was started from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ConfigSource {
    /// Of a remote context, without passwords.
    pub uri: Option<String>,
    /// Algorithm, digest.
    pub digest: BTreeMap<String, String>,
    /// The Dockerfile's.
    pub path: String,
}

/// Something from outside that went into the result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    pub uri: String,
    /// Algorithm, digest.
    pub digest: BTreeMap<String, String>,
}

/// A vertex of the graph.
#[derive(Clone, Debug)]
pub struct StepFact {
    /// `step0` and so on.
    pub id: String,
    /// In the form of BuildKit's LLB.
    pub op: Value,
    /// Such as `step1:0`.
    pub inputs: Vec<String>,
    /// Identity in the progress stream.
    pub digest: String,
    /// First and last line in the Dockerfile.
    pub lines: Option<(usize, usize)>,
    /// How many of the result's layers, from the lowest, are the step's result; `None` if it is not below the result.
    pub layers: Option<usize>,
}

/// Gathers the facts of each result. `layers` says how many layers each has.
pub(crate) async fn gather(
    steps: &BuildSteps,
    results: &[PlannedImage],
    layers: &[usize],
    options: &BuildOptions,
    world: &World,
    source: &Arc<SourceText>,
) -> Result<Vec<Facts>, BuildError> {
    let finished = rfc3339(SystemTime::now());
    let config = config_source(steps, options).await?;
    let args = arguments(options);
    // Of outputs that differ, or that say it wrongly, nothing is built.
    let compatibility = CompatibilityVersion::of_build(&options.outputs).unwrap_or_default();
    let mut all = vec![];
    for (result, layers) in results.iter().zip(layers) {
        let root = result.root.map(|edge| edge.vertex);
        let vertices = steps.graph.reachable(root);
        let mut facts = Facts {
            invocation_id: world.build.id.clone(),
            started: rfc3339(world.build.begun),
            finished: finished.clone(),
            builder_platform: world.host.to_string(),
            args: args.clone(),
            config: config.clone(),
            materials: vec![],
            secrets: BTreeMap::new(),
            ssh: BTreeMap::new(),
            locals: BTreeSet::new(),
            compatibility_version: compatibility.number(),
            vcs: options.vcs.facts.clone(),
            steps: step_facts(steps, &vertices, root, *layers, source),
            source: source.clone(),
            has_network: false,
            is_complete: true,
        };
        for vertex in vertices {
            match &steps.graph.value(vertex).op {
                Op::Source(source) => match &**source {
                    Source::Local { name } => drop(facts.locals.insert(name.clone())),
                    outside => {
                        let material = material(steps, vertex, outside).await?;
                        // By a name alone nobody else finds it.
                        facts.is_complete &= material.as_ref().is_none_or(|material| !material.digest.is_empty());
                        facts.materials.extend(material);
                    }
                },
                Op::Exec(exec) => facts.note_exec(exec),
                Op::File(_) | Op::Merge => {}
            }
        }
        if matches!(options.context, ContextArg::Directory(_)) && !matches!(options.file, Some(FileArg::Url(_))) {
            facts.locals.insert("dockerfile".into());
        }
        facts.is_complete &= !facts.has_network && !facts.locals.iter().any(|name| name != "dockerfile");
        facts.materials.sort();
        facts.materials.dedup();
        all.push(facts);
    }
    Ok(all)
}

impl Facts {
    fn note_exec(&mut self, exec: &frontend::op::Exec) {
        // A network may have given anything, and so may a cache mount, which other builds have filled.
        self.has_network |= exec.network != Network::None;
        let note = |list: &mut BTreeMap<String, bool>, id: &str, required: bool| {
            let optional = list.entry(id.to_string()).or_insert(true);
            *optional &= !required;
        };
        for mount in &exec.mounts {
            match &mount.kind {
                MountKind::Secret { id, required, .. } => note(&mut self.secrets, id, *required),
                MountKind::Ssh { id, required, .. } => note(&mut self.ssh, id, *required),
                MountKind::Cache { .. } => self.is_complete = false,
                MountKind::Bind { .. } | MountKind::Tmpfs { .. } => {}
            }
        }
        exec.secret_env.iter().for_each(|secret| note(&mut self.secrets, &secret.id, secret.required));
    }
}

fn step_facts(
    steps: &BuildSteps,
    vertices: &BTreeSet<VertexId>,
    root: Option<VertexId>,
    layers: usize,
    source: &SourceText,
) -> Vec<StepFact> {
    let ids: BTreeMap<VertexId, String> =
        vertices.iter().enumerate().map(|(position, vertex)| (*vertex, format!("step{position}"))).collect();
    let counts = layer_counts(&steps.graph, root, layers);
    let fact = |vertex: &VertexId| {
        let step: &Step = steps.graph.value(*vertex);
        let inputs = steps.graph.inputs(*vertex);
        StepFact {
            id: ids[vertex].clone(),
            op: llb::op(&step.op, inputs.len()),
            inputs: inputs.iter().map(|edge| format!("{}:{}", ids[&edge.vertex], edge.output)).collect(),
            digest: steps.vertices[vertex.0 as usize].digest().to_string(),
            lines: step.span.map(|span| source.lines(span)),
            layers: counts.get(vertex).copied(),
        }
    };
    vertices.iter().map(fact).collect()
}

/// How many layers each of the vertices has that the result is stacked on, as far as that can be told.
fn layer_counts(graph: &Graph<Step>, root: Option<VertexId>, layers: usize) -> BTreeMap<VertexId, usize> {
    let mut counts = BTreeMap::new();
    let (mut at, mut count) = (root, layers);
    while let Some(vertex) = at {
        counts.insert(vertex, count);
        let inputs = graph.inputs(vertex);
        let base = match &graph.value(vertex).op {
            Op::Source(_) => None,
            Op::Exec(exec) => exec.root.map(|base| (base, 1)),
            Op::File(file) => file.base.map(|base| (base, 1)),
            Op::Merge => {
                // What `COPY --link` puts on others is one layer each.
                let is_one = |edge: &solver::graph::Edge| match &graph.value(edge.vertex).op {
                    Op::File(file) => file.base.is_none(),
                    _ => false,
                };
                let above = inputs.get(1..).unwrap_or_default();
                above.iter().all(is_one).then_some((0, above.len()))
            }
        };
        let below = base.and_then(|(base, own)| Some((inputs.get(base)?.vertex, count.checked_sub(own)?)));
        (at, count) = match below {
            Some((vertex, below)) => (Some(vertex), below),
            None => (None, 0),
        };
    }
    counts
}

async fn material(steps: &BuildSteps, vertex: VertexId, source: &Source) -> Result<Option<Material>, BuildError> {
    let progress = &steps.vertices[vertex.0 as usize];
    let sha256 = |digest: &str| {
        let hex = digest.trim_start_matches("sha256:").to_string();
        BTreeMap::from([("sha256".to_string(), hex)])
    };
    if let Source::Image { digest, platform, .. } | Source::OciLayout { digest, platform, .. } = source
        && let Some(picked) = digest.parse().ok().and_then(|digest| steps.images.picked(&digest))
    {
        let uri = match Reference::parse(&picked.name) {
            Ok(reference) => purl::image("docker", &reference, Some(platform)),
            Err(_) => purl::package("docker", "", &picked.name, "", &[("platform", platform.to_string())]),
        };
        let digest = picked.top.map(|top| sha256(top.as_str())).unwrap_or_default();
        return Ok(Some(Material { uri, digest }));
    }
    Ok(match source {
        Source::Image { reference, platform, .. } => {
            let top = steps.images.resolve(&ImageLocation::Registry(reference.clone())).await;
            let digest = sha256(top.map_err(|error| BuildError::Stage(Box::new(error)))?.digest.as_str());
            Some(Material { uri: purl::image("docker", reference, Some(platform)), digest })
        }
        Source::OciLayout { name, platform, .. } => {
            let top = steps.images.resolve(&ImageLocation::OciLayout(name.clone())).await;
            let digest = sha256(top.map_err(|error| BuildError::Stage(Box::new(error)))?.digest.as_str());
            let qualifiers = [("platform", platform.to_string())];
            let uri = match Reference::parse(name) {
                Ok(reference) => purl::image("oci", &reference, Some(platform)),
                Err(_) => purl::package("oci", "", name, "", &qualifiers),
            };
            Some(Material { uri, digest })
        }
        Source::Git(git) => {
            let tree = steps.remotes.git.tree(git, progress).await.map_err(|error| BuildError::remote(error.into()))?;
            Some(Material { uri: git_uri(git), digest: commit(&tree.commit) })
        }
        Source::Http { url, filename, checksum } => {
            let request = HttpRequest { url: url.clone(), filename: filename.clone(), checksum: checksum.clone() };
            let file = steps.remotes.http.file(&request, progress).await;
            let file = file.map_err(|error| BuildError::remote(error.into()))?;
            Some(Material { uri: redacted(url), digest: sha256(file.digest.as_str()) })
        }
        Source::Local { .. } => None,
    })
}

/// Repository and reference, without passwords.
fn git_uri(source: &GitSource) -> String {
    let remote = redacted(&source.remote);
    match &source.reference {
        Some(reference) => format!("{remote}#{reference}"),
        None => remote,
    }
}

fn commit(hash: &str) -> BTreeMap<String, String> {
    let algorithm = if hash.len() == 64 { "sha256" } else { "sha1" };
    BTreeMap::from([(algorithm.to_string(), hash.to_string())])
}

async fn config_source(steps: &BuildSteps, options: &BuildOptions) -> Result<ConfigSource, BuildError> {
    let path = match &options.file {
        None => "Dockerfile".to_string(),
        Some(FileArg::Stdin) => "-".to_string(),
        Some(FileArg::Url(url)) => redacted(url),
        // Where it lies on this machine is nobody's business.
        Some(FileArg::Path(path)) if matches!(options.context, ContextArg::Directory(_)) => last_name(path),
        Some(FileArg::Path(path)) => path.display().to_string(),
    };
    let uri = match &options.context {
        ContextArg::Directory(_) | ContextArg::Stdin => return Ok(ConfigSource { path, ..ConfigSource::default() }),
        ContextArg::Git(wanted, _) => git_uri(wanted),
        ContextArg::Http(wanted) => redacted(wanted),
    };
    let context =
        steps.graph.vertices().find_map(|vertex| match (&options.context, steps.graph.value(vertex).op.source()) {
            (ContextArg::Git(wanted, _), Some(source @ Source::Git(git))) if git == wanted => Some((vertex, source)),
            (ContextArg::Http(wanted), Some(source @ Source::Http { url, .. })) if url == wanted => {
                Some((vertex, source))
            }
            _ => None,
        });
    let material = match context {
        Some((vertex, source)) => material(steps, vertex, source).await?,
        None => None,
    };
    let digest = material.map(|material| material.digest).unwrap_or_default();
    Ok(ConfigSource { uri: Some(uri), digest, path })
}

/// As BuildKit's Dockerfile frontend is given them.
fn arguments(options: &BuildOptions) -> BTreeMap<String, String> {
    let mut args = BTreeMap::new();
    let mut set = |name: String, value: String| drop(args.insert(name, value));
    for (name, value) in &options.build_args {
        set(format!("build-arg:{name}"), redacted(value));
    }
    for (name, value) in &options.labels {
        set(format!("label:{name}"), value.clone());
    }
    for (name, value) in &options.build_contexts {
        let value = match value.split_once("://") {
            Some(("oci-layout", _)) => format!("oci-layout://{name}"),
            Some(_) => redacted(value),
            None if Path::new(value).is_dir() => format!("local:{name}"),
            None => redacted(value),
        };
        set(format!("context:{name}"), value);
    }
    match &options.context {
        ContextArg::Git(_, shown) => set("context".into(), shown.clone()),
        ContextArg::Http(url) => set("context".into(), redacted(url)),
        ContextArg::Directory(_) | ContextArg::Stdin => {}
    }
    if let Some(FileArg::Path(path)) = &options.file {
        let is_here = matches!(options.context, ContextArg::Directory(_));
        set("filename".into(), if is_here { last_name(path) } else { path.display().to_string() });
    }
    if let Some(target) = &options.target {
        set("target".into(), target.clone());
    }
    if !options.platforms.is_empty() {
        let platforms: Vec<String> = options.platforms.iter().map(|platform| platform.to_string()).collect();
        set("platform".into(), platforms.join(","));
    }
    match &options.no_cache {
        NoCache::Use => {}
        NoCache::IgnoreAll => set("no-cache".into(), String::new()),
        NoCache::IgnoreStages(stages) => {
            set("no-cache".into(), stages.iter().cloned().collect::<Vec<_>>().join(","));
        }
    }
    match options.network {
        Network::Default => {}
        Network::None => set("force-network-mode".into(), "none".into()),
        Network::Host => set("force-network-mode".into(), "host".into()),
    }
    if !options.extra_hosts.is_empty() {
        let hosts: Vec<String> =
            options.extra_hosts.iter().map(|(name, address)| format!("{name}={address}")).collect();
        set("add-hosts".into(), hosts.join(","));
    }
    if let Some(bytes) = options.shm_size_bytes {
        set("shm-size".into(), bytes.to_string());
    }
    if !options.ulimits.is_empty() {
        let limit = |(name, soft, hard): &(String, i64, i64)| format!("{name}={soft}:{hard}");
        set("ulimit".into(), options.ulimits.iter().map(limit).collect::<Vec<_>>().join(","));
    }
    if let Some(parent) = &options.cgroup_parent {
        set("cgroup-parent".into(), parent.clone());
    }
    args
}

fn last_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}
