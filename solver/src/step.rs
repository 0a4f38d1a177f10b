//! All that the solver asks of the world.

use crate::graph::VertexId;
use crate::key::{CacheKey, KeyRecipe};
use crate::record::Record;
use std::future::Future;

/// What [`Steps::plan`] says of a vertex once its inputs are known.
pub enum Plan<Output> {
    /// The output is known without running anything and without a record: a pinned source, a stack of inputs.
    Known(Output),
    /// The output follows from these named inputs: look it up under their key, else run.
    Keyed(KeyRecipe),
}

/// Why a vertex did not get its output from a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// Records are not to be used for it ([`Steps::ignores_cache`]).
    Ignored,
    /// There is no record of its key.
    NoRecord,
    /// There is one, but what it names is gone.
    Lost,
}

/// What a vertex does, implemented by whoever owns the payload of the graph.
///
/// Outputs are cheap to clone: they say where a result is, they are not the result.
pub trait Steps: Send + Sync {
    /// The result of a vertex, as its users see it.
    type Output: Clone + Send + Sync;
    /// Why a vertex failed.
    type Error: Send;

    /// Says what the vertex's output depends on. May read what the inputs' outputs name (to hash what a step selects).
    fn plan(
        &self,
        vertex: VertexId,
        inputs: &[Self::Output],
    ) -> impl Future<Output = Result<Plan<Self::Output>, Self::Error>> + Send;

    /// Turns a record back into an output. `None` if what the record names is no longer there: the step then runs.
    fn load(
        &self,
        vertex: VertexId,
        inputs: &[Self::Output],
        record: &Record,
    ) -> Result<Option<Self::Output>, Self::Error>;

    /// The vertex is about to run, or would: no record of this recipe could be used. Told once for each run.
    fn missed(
        &self,
        vertex: VertexId,
        inputs: &[Self::Output],
        recipe: &KeyRecipe,
        miss: Miss,
    ) -> impl Future<Output = ()> + Send;

    /// Waits for the claim of a key, which somebody else may hold: another process that runs it, or another vertex of this
    /// build with the same key. What is known of that run may be shown meanwhile. Fails when the build is stopped.
    fn wait<C: Send>(
        &self,
        vertex: VertexId,
        key: &CacheKey,
        claim: impl Future<Output = C> + Send,
    ) -> impl Future<Output = Result<C, Self::Error>> + Send;

    /// How many steps may run at once.
    fn jobs(&self) -> usize;

    /// How long a step will run, in milliseconds, as far as former runs tell.
    fn expected_ms(&self, vertex: VertexId) -> Option<u64>;

    /// Runs the step. Gives the output and the record of it; the solver fills in the record's recipe.
    fn run(
        &self,
        vertex: VertexId,
        inputs: &[Self::Output],
    ) -> impl Future<Output = Result<(Self::Output, Record), Self::Error>> + Send;

    /// The vertices to blame for `error`: a record promised their outputs, which turned out not to be had (a layer that
    /// a remote cache has lost). They are answered again, and so is all that used them; empty: the error stands. To be
    /// named once each: whoever names a vertex must not load that record again.
    fn lost(&self, error: &Self::Error) -> Vec<VertexId>;

    /// Asks all that is running to fail soon; what has finished stays. Called once, when the first vertex has failed.
    fn cancel(&self);

    /// Whether records are not to be used for this vertex (`--no-cache`); what it makes is recorded all the same.
    fn ignores_cache(&self, vertex: VertexId) -> bool;
}
