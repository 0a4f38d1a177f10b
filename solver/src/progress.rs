//! What the solver says while it works: typed events, without times. Whoever receives them has the clock.

use crate::graph::VertexId;

/// What happened to a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Its inputs are known and work on it began: making its key, waiting for another process, or running.
    Started(VertexId),
    /// It has to run, and waits until fewer others do.
    Queued(VertexId),
    /// It has waited, and runs.
    Running(VertexId),
    /// It is done without having run; a record, or a run of an equal step elsewhere, had the output.
    Cached(VertexId),
    /// It is done, and ran (or had nothing to run, as a source).
    Done(VertexId),
    /// It failed. Why is in the error that solving returns.
    Failed(VertexId),
    /// It had started and was stopped because the build failed or was cancelled.
    Canceled(VertexId),
}

/// Receives events, in the order in which things happened to one vertex.
pub trait Observer: Send + Sync {
    /// Called from the solver's task; must not block.
    fn event(&self, event: Event);
}

impl Observer for () {
    fn event(&self, _: Event) {}
}
