//! Whether a vertex must run: its key from its inputs' contents, the record of that key, and only then a run.
//!
//! When it is asked is `schedule.rs`'s business.

use crate::error::Cause;
use crate::graph::VertexId;
use crate::key::{CacheKey, KeyRecipe};
use crate::progress::{Event, Observer};
use crate::record::RecordStore;
use crate::share::FreshKeys;
use crate::slots::Slots;
use crate::step::{Miss, Plan, Steps};

/// How a vertex got its output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    /// By running, or by having nothing to run.
    Done,
    /// From a record.
    Cached,
}

/// All that answering needs beside the vertex.
pub(crate) struct Query<'a, S, R> {
    pub(crate) steps: &'a S,
    pub(crate) records: &'a R,
    pub(crate) fresh: &'a FreshKeys,
    pub(crate) turn: Turn<'a>,
}

/// When a step that has to run may.
pub(crate) struct Turn<'a> {
    pub(crate) slots: Slots,
    /// How urgent each vertex is.
    pub(crate) priority: &'a (dyn Fn(VertexId) -> u64 + Sync),
    pub(crate) observer: &'a dyn Observer,
}

type Answered<T, S, R> = Result<T, Cause<<S as Steps>::Error, <R as RecordStore>::Error>>;

impl<S: Steps, R: RecordStore> Query<'_, S, R> {
    /// The output of a vertex whose inputs' outputs are `inputs`.
    pub(crate) async fn answer(&self, vertex: VertexId, inputs: &[S::Output]) -> Answered<(S::Output, How), S, R> {
        let recipe = match self.steps.plan(vertex, inputs).await.map_err(Cause::Step)? {
            Plan::Known(output) => return Ok((output, How::Done)),
            Plan::Keyed(recipe) => recipe,
        };
        let key = recipe.key();
        let missed = match self.recorded(vertex, inputs, &recipe, &key)? {
            Found::Output(output) => return Ok((output, How::Cached)),
            Found::Nothing(miss) => miss,
        };
        let claim = self.steps.wait(vertex, &key, self.records.claim(&key)).await.map_err(Cause::Step)?;
        let _claim = claim.map_err(Cause::Store)?;
        // Whoever held the claim before may have left the record that was missing a moment ago.
        let miss = match self.recorded(vertex, inputs, &recipe, &key)? {
            Found::Output(output) => return Ok((output, How::Cached)),
            // A record that names what is gone may be forgotten when that is found.
            Found::Nothing(_) if missed == Miss::Lost => Miss::Lost,
            Found::Nothing(miss) => miss,
        };
        self.steps.missed(vertex, inputs, &recipe, miss).await;
        let turn = &self.turn;
        let mut queued = false;
        let must_wait = || {
            queued = true;
            turn.observer.event(Event::Queued(vertex));
        };
        let _slot = turn.slots.take((turn.priority)(vertex), must_wait).await;
        if queued {
            turn.observer.event(Event::Running(vertex));
        }
        let (output, mut record) = self.steps.run(vertex, inputs).await.map_err(Cause::Step)?;
        record.recipe = recipe;
        self.records.insert(&key, record).map_err(Cause::Store)?;
        self.fresh.add(key);
        Ok((output, How::Done))
    }

    /// Looks for a record that may be used, and for what it names.
    pub(crate) fn recorded(
        &self,
        vertex: VertexId,
        inputs: &[S::Output],
        recipe: &KeyRecipe,
        key: &CacheKey,
    ) -> Answered<Found<S::Output>, S, R> {
        if self.steps.ignores_cache(vertex) && !self.fresh.contains(key) {
            return Ok(Found::Nothing(Miss::Ignored));
        }
        let Some(mut record) = self.records.lookup(key).map_err(Cause::Store)? else {
            return Ok(Found::Nothing(Miss::NoRecord));
        };
        if record.recipe.parts.is_empty() {
            record.recipe = recipe.clone();
        }
        let loaded = self.steps.load(vertex, inputs, &record).map_err(Cause::Step)?;
        Ok(loaded.map_or(Found::Nothing(Miss::Lost), Found::Output))
    }
}

/// What looking for a record gave.
pub(crate) enum Found<Output> {
    /// The output.
    Output(Output),
    /// None, and why.
    Nothing(Miss),
}
