//! What the vertices of a plan are there for.

use frontend::compile::{BuildPlan, PlannedImage};
use solver::graph::VertexId;
use std::collections::BTreeSet;

/// The vertices of the results themselves.
pub fn roots(results: &[PlannedImage]) -> impl Iterator<Item = VertexId> {
    results.iter().filter_map(|result| result.root.map(|edge| edge.vertex))
}

/// The vertices whose layers a vertex's output is stacked on.
fn bases(plan: &BuildPlan, vertex: VertexId) -> impl Iterator<Item = VertexId> {
    let inputs = plan.graph.inputs(vertex);
    plan.graph.value(vertex).op.bases(inputs.len()).into_iter().map(|base| inputs[base].vertex)
}

/// The vertices whose layers results consist of: from each result's root down through the bases.
pub fn exported_vertices(plan: &BuildPlan) -> BTreeSet<VertexId> {
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
pub fn rooted_vertices(plan: &BuildPlan) -> BTreeSet<VertexId> {
    let of_others = (0..plan.graph.len() as u32).flat_map(|vertex| bases(plan, VertexId(vertex)));
    roots(&plan.results).chain(of_others).collect()
}
