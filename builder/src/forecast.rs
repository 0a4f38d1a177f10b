//! `kiln plan`: what a build would do with each step, and why. All is read that decides it: the Dockerfile, the context,
//! manifests, git and HTTP sources. No layer is fetched, no command runs, nothing is exported.

use crate::cli::options::BuildOptions;
use crate::explain::{Cause, Change, Why};
use crate::pipeline::{self, BuildError, World};
use crate::remote_cache::RemoteCache;
use crate::remote_cache::records::Records;
use crate::step::{BuildSteps, Fetching, StepError};
use frontend::diagnostic::Diagnostic;
use frontend::op::Op;
use frontend::span::SourceText;
use serde::Serialize;
use solver::error::Cause as Failure;
use solver::forecast::Forecast;
use solver::graph::VertexId;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What a build would do.
pub struct Foretold {
    /// Steps that would run or be found, in the order of the graph. Sources are not among them.
    pub steps: Vec<ForetoldStep>,
    /// Build checks that fired, and the text they point into.
    pub warnings: Vec<Diagnostic>,
    pub source: Arc<SourceText>,
}

/// What would happen to a step.
#[derive(Debug, Serialize)]
pub struct ForetoldStep {
    pub name: String,
    pub status: Status,
    /// In hex; `None` where it is not known before something has run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// One line; `None` of what is cached.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What differs from the nearest former run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changes: Vec<Change>,
    /// The step whose result decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub depends_on: Option<String>,
    /// How long a former run took, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub former_ms: Option<u64>,
}

/// What would happen, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// A former run has its result.
    Cached,
    /// It would run.
    Run,
    /// It runs, unless what runs before it makes what it made before.
    MayRun,
}

/// Says what building would do.
pub async fn foretell(options: &BuildOptions, world: &World) -> Result<Foretold, BuildError> {
    let cache = RemoteCache::open(&options.cache_from, &[], None, world)?;
    let mut ready = pipeline::prepare(options, world, vec![], &cache).await?;
    ready.steps.fetching = Fetching::Never;
    ready.steps.exported = BTreeSet::new();
    let steps = &ready.steps;
    let records = Records { store: &world.store, cache: &steps.cache };
    let forecasts = solver::forecast::forecast(&steps.graph, &ready.targets, steps, &records).await;
    let mut whys = steps.reasons.take_said();
    let mut foretold = vec![];
    // Vertices whose result is certainly another one than any that is known.
    let mut changed: BTreeSet<VertexId> = BTreeSet::new();
    for (vertex, forecast) in forecasts {
        let step = steps.graph.value(vertex);
        let new = |status| ForetoldStep {
            name: step.name.clone(),
            status,
            key: None,
            reason: None,
            changes: vec![],
            depends_on: None,
            former_ms: None,
        };
        let one = match forecast {
            Forecast::Known => continue,
            Forecast::Cached => {
                let why = whys.remove(&vertex);
                let former_ms = match why.as_ref().map(|why| &why.cause) {
                    Some(Cause::Recorded { cost_ms }) => Some(*cost_ms),
                    _ => None,
                };
                ForetoldStep { key: why.map(|why| why.key), former_ms, ..new(Status::Cached) }
            }
            Forecast::Runs => {
                if let Op::File(_) = step.op {
                    changed.insert(vertex);
                }
                let why = whys.remove(&vertex);
                let reason = why.as_ref().and_then(Why::line);
                match why {
                    Some(Why { key, changes, former_ms, .. }) => {
                        ForetoldStep { key: Some(key), reason, changes, former_ms, ..new(Status::Run) }
                    }
                    None => new(Status::Run),
                }
            }
            Forecast::Depends(input) => {
                let certain = is_certain(steps, vertex, &changed);
                if certain && matches!(step.op, Op::File(_) | Op::Merge) {
                    changed.insert(vertex);
                }
                if let Op::Merge = step.op {
                    continue;
                }
                let on = steps.graph.value(input).name.clone();
                let (status, reason) = match certain {
                    true => (Status::Run, format!("it follows {on}")),
                    false => (Status::MayRun, format!("unless {on} makes what it made before")),
                };
                ForetoldStep { reason: Some(reason), depends_on: Some(on), ..new(status) }
            }
            Forecast::Fails(Failure::Step(StepError::NotFetched)) => {
                let reason = StepError::NotFetched.to_string();
                ForetoldStep { reason: Some(reason), ..new(Status::Run) }
            }
            Forecast::Fails(cause) => return Err(pipeline::step_failed(vertex, cause, steps, &ready.source)),
        };
        foretold.push(one);
    }
    Ok(Foretold { steps: foretold, warnings: ready.warnings, source: ready.source })
}

/// Whether a step that something new comes before has certainly no record: what it lies on is new.
fn is_certain(steps: &BuildSteps, vertex: VertexId, changed: &BTreeSet<VertexId>) -> bool {
    let inputs = steps.graph.inputs(vertex);
    let bases = steps.graph.value(vertex).op.bases(inputs.len());
    bases.into_iter().any(|base| changed.contains(&inputs[base].vertex))
}
