//! Taking back outputs that turned out not to be had, and all that was made of them.
//!
//! What is still running on such an output goes on: its work is not in vain if the output is made again as it was. It is
//! then answered anew, mostly from the record that it has just made.

use crate::graph::{Graph, VertexId};
use crate::schedule::distinct_inputs;
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
    for &vertex in &outputs {
        states.set(vertex, VertexState::Waiting(0));
    }
    let mut ready = vec![];
    for &vertex in &touched {
        match states.of(vertex) {
            VertexState::Active if vertex != failed => drop(stale.insert(vertex)),
            VertexState::Stopped => {}
            VertexState::Active | VertexState::Finished | VertexState::Waiting(_) => {
                wait_again(graph, vertex, states, &mut ready);
            }
        }
    }
    TakenBack { outputs, ready }
}

/// Has a vertex wait for those of its inputs that are not there; it is `ready` if all are.
pub(crate) fn wait_again<V>(graph: &Graph<V>, vertex: VertexId, states: &mut States, ready: &mut Vec<VertexId>) {
    let inputs = distinct_inputs(graph, vertex).into_iter();
    let waits = inputs.filter(|input| states.of(*input) != VertexState::Finished).count();
    if states.of(vertex) != VertexState::Waiting(waits) {
        states.set(vertex, VertexState::Waiting(waits));
    }
    if waits == 0 {
        ready.push(vertex);
    }
}
