//! What progress is told of a build before its steps run: the vertices, and the build checks that fired.

use super::BuildError;
use crate::progress::{Progress, Vertex, Warning};
use frontend::compile::BuildPlan;
use frontend::diagnostic::{Diagnostic, Severity};
use frontend::op::Step;
use frontend::span::SourceText;
use solver::graph::{Graph, VertexId};
use std::sync::Arc;

/// A progress vertex for each vertex of the graph that some target needs; the others are never seen. What graphs of one
/// build have in common is the same vertex.
pub fn announce(graph: &Graph<Step>, targets: &[VertexId], progress: &Progress) -> Vec<Vertex> {
    let needed = graph.reachable(targets.iter().copied());
    let mut vertices: Vec<Vertex> = vec![];
    for id in graph.vertices() {
        let step = graph.value(id);
        let digest = |edge: &solver::graph::Edge| vertices[edge.vertex.0 as usize].digest().to_string();
        let inputs: Vec<String> = graph.inputs(id).iter().map(digest).collect();
        let key = format!("vertex {} {} {}", step.op.definition(), step.ignore_cache, inputs.join(" "));
        vertices.push(match needed.contains(&id) {
            true => progress.vertex(&key, &step.name, inputs),
            false => progress.unseen(&key, &step.name),
        });
    }
    vertices
}

/// Sends the build checks that fired to progress, on the vertex that the Dockerfile was read in.
pub fn announce_warnings(plan: &Result<BuildPlan, BuildError>, source: &Arc<SourceText>, definition: &Vertex) {
    let found = match plan {
        Ok(plan) => &plan.warnings,
        Err(BuildError::Diagnostics { list, .. }) => list,
        Err(_) => return,
    };
    for found in found.iter().filter(|found| found.severity == Severity::Warning) {
        definition.warn(warning(source, found));
    }
}

/// A build check that fired, as progress says it.
pub fn warning(source: &Arc<SourceText>, found: &Diagnostic) -> Warning {
    let rule = found.rule.and_then(frontend::lint::rule);
    Warning {
        short: crate::report::one_line(source, found),
        detail: rule.map(|rule| rule.description.to_string()).into_iter().collect(),
        url: rule.and_then(|rule| rule.url()),
        place: found.span.map(|span| (source.clone(), span)),
    }
}
