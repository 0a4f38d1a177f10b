//! Taking back outputs that turned out not to be had, and all that was made of them.
//!
//! What is still running on such an output goes on: its work is not in vain if the output is made again as it was. It is
//! then answered anew, mostly from the record that it has just made.

use crate::graph::{Graph, VertexId};
use crate::state::{States, VertexState};
use std::collections::{BTreeMap, BTreeSet};

/// What follows from taking outputs back.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct TakenBack {
    /// Vertices that were finished and no longer are.
    pub(crate) outputs: BTreeSet<VertexId>,
    /// Vertices that may start at once.
    pub(crate) ready: Vec<VertexId>,
}

/// Takes back the outputs of `lost` and of all that used them; `failed` is the active vertex that found out. Active
/// users are added to `stale`.
pub(crate) fn take_back<V>(
    graph: &Graph<V>,
    users: &BTreeMap<VertexId, Vec<VertexId>>,
    lost: &[VertexId],
    failed: VertexId,
    states: &mut States,
    stale: &mut BTreeSet<VertexId>,
) -> TakenBack {
    let mut touched: BTreeSet<VertexId> = BTreeSet::from([failed]);
    let mut todo: Vec<VertexId> =
        lost.iter().copied().filter(|vertex| states.find(*vertex) == Some(VertexState::Finished)).collect();
    while let Some(vertex) = todo.pop() {
        if touched.insert(vertex) {
            todo.extend(users.get(&vertex).into_iter().flatten());
        }
    }
    let outputs: BTreeSet<VertexId> =
        touched.iter().copied().filter(|vertex| states.of(*vertex) == VertexState::Finished).collect();
    let mut ready = vec![];
    for &vertex in &touched {
        let inputs = graph.inputs(vertex).iter().map(|edge| edge.vertex).collect::<BTreeSet<_>>();
        let is_missing = |input: &&VertexId| outputs.contains(input) || states.of(**input) != VertexState::Finished;
        let waits = inputs.iter().filter(is_missing).count();
        match states.of(vertex) {
            VertexState::Active if vertex != failed => {
                stale.insert(vertex);
            }
            VertexState::Active | VertexState::Finished => {
                states.set(vertex, VertexState::Waiting(waits));
                if waits == 0 {
                    ready.push(vertex);
                }
            }
            VertexState::Waiting(before) if before < waits => states.set(vertex, VertexState::Waiting(waits)),
            VertexState::Waiting(_) | VertexState::Stopped => {}
        }
    }
    TakenBack { outputs, ready }
}

/// How many of a vertex's inputs are not there.
pub(crate) fn missing_inputs<V>(graph: &Graph<V>, vertex: VertexId, states: &States) -> usize {
    let inputs: BTreeSet<VertexId> = graph.inputs(vertex).iter().map(|edge| edge.vertex).collect();
    inputs.into_iter().filter(|input| states.of(*input) != VertexState::Finished).count()
}
