//! What is known of each vertex while a build is solved, and the one function that changes it.

use crate::graph::VertexId;
use std::collections::BTreeMap;

/// Life of a vertex.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VertexState {
    /// So many of its inputs are not there yet.
    Waiting(usize),
    /// Being answered: planned, looked up, claimed or run.
    Active,
    /// Its output is there.
    Finished,
    /// It failed, or it was active when another one did.
    Stopped,
}

/// States of all vertices that a build needs.
#[derive(Debug, Default)]
pub(crate) struct States {
    states: BTreeMap<VertexId, VertexState>,
}

impl States {
    /// Adds a vertex that waits for `inputs` others; none makes it ready at once.
    pub(crate) fn add(&mut self, vertex: VertexId, inputs: usize) {
        self.states.insert(vertex, VertexState::Waiting(inputs));
    }

    /// The state of a vertex that was added.
    pub(crate) fn of(&self, vertex: VertexId) -> VertexState {
        self.states[&vertex]
    }

    /// The state of a vertex, if it was added.
    pub(crate) fn find(&self, vertex: VertexId) -> Option<VertexState> {
        self.states.get(&vertex).copied()
    }

    /// Vertices that wait for nothing.
    pub(crate) fn ready(&self) -> Vec<VertexId> {
        self.in_state(VertexState::Waiting(0))
    }

    /// Vertices in `state`, in graph order.
    pub(crate) fn in_state(&self, state: VertexState) -> Vec<VertexId> {
        self.states.iter().filter(|(_, is)| **is == state).map(|(vertex, _)| *vertex).collect()
    }

    /// The only way in which a state changes.
    ///
    /// # Panics
    /// On a transition that the life of a vertex does not have: a bug of the scheduler.
    pub(crate) fn set(&mut self, vertex: VertexId, to: VertexState) {
        let state = self.states.get_mut(&vertex).expect("only vertices that were added change");
        let allowed = match (*state, to) {
            // One input less to wait for; or inputs that were there have been taken back.
            (VertexState::Waiting(n), VertexState::Waiting(m)) => m + 1 == n || m > n,
            (VertexState::Active | VertexState::Finished, VertexState::Waiting(_)) => true,
            (VertexState::Waiting(0), VertexState::Active) => true,
            (VertexState::Active, VertexState::Finished | VertexState::Stopped) => true,
            _ => false,
        };
        assert!(allowed, "{vertex:?} cannot go from {state:?} to {to:?}");
        *state = to;
    }
}
