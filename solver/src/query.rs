//! Whether a vertex must run: its key from its inputs' contents, the record of that key, and only then a run.
//!
//! When it is asked is `schedule.rs`'s business.

use crate::error::Cause;
use crate::graph::VertexId;
use crate::key::{CacheKey, KeyRecipe};
use crate::record::RecordStore;
use crate::share::FreshKeys;
use crate::step::{Plan, Steps};

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
        if let Some(output) = self.recorded(vertex, inputs, &recipe, &key)? {
            return Ok((output, How::Cached));
        }
        let _claim = self.records.claim(&key).await.map_err(Cause::Store)?;
        // Whoever held the claim before may have left the record that was missing a moment ago.
        if let Some(output) = self.recorded(vertex, inputs, &recipe, &key)? {
            return Ok((output, How::Cached));
        }
        let (output, mut record) = self.steps.run(vertex, inputs).await.map_err(Cause::Step)?;
        record.recipe = recipe;
        self.records.insert(&key, record).map_err(Cause::Store)?;
        self.fresh.add(key);
        Ok((output, How::Done))
    }

    fn recorded(
        &self,
        vertex: VertexId,
        inputs: &[S::Output],
        recipe: &KeyRecipe,
        key: &CacheKey,
    ) -> Answered<Option<S::Output>, S, R> {
        if self.steps.ignores_cache(vertex) && !self.fresh.contains(key) {
            return Ok(None);
        }
        match self.records.lookup(key).map_err(Cause::Store)? {
            Some(mut record) => {
                if record.recipe.parts.is_empty() {
                    record.recipe = recipe.clone();
                }
                self.steps.load(vertex, inputs, &record).map_err(Cause::Step)
            }
            None => Ok(None),
        }
    }
}
