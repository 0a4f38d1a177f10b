//! What solving would do, without running anything.
//!
//! The output of a step that would run is not known, so what is made from it cannot be looked up: whether that runs depends
//! on what the step makes.

use crate::error::Cause;
use crate::graph::{Graph, VertexId};
use crate::query::{Found, Query, Turn};
use crate::record::RecordStore;
use crate::share::FreshKeys;
use crate::slots::Slots;
use crate::step::{Plan, Steps};
use std::collections::{BTreeMap, HashMap};

/// What would happen to a vertex.
#[derive(Debug)]
pub enum Forecast<StepError, StoreError> {
    /// Nothing has to run for it: a source, or a stack of inputs.
    Known,
    /// A record has its output.
    Cached,
    /// It would run. Why, [`Steps::missed`] was told.
    Runs,
    /// An input's output is not known before that has run.
    Depends(VertexId),
    /// Its key cannot be made.
    Fails(Cause<StepError, StoreError>),
}

/// Foretells what [`solve`](crate::solve) would do with all that `targets` need. Asks steps for plans and records, and
/// tells them of misses; nothing runs and nothing is claimed.
pub async fn forecast<V, S: Steps, R: RecordStore>(
    graph: &Graph<V>,
    targets: &[VertexId],
    steps: &S,
    records: &R,
) -> BTreeMap<VertexId, Forecast<S::Error, R::Error>> {
    let fresh = FreshKeys::default();
    let turn = Turn { slots: Slots::new(1), priority: &|_| 0, observer: &() };
    let query = Query { steps, records, fresh: &fresh, turn };
    let mut outputs: HashMap<VertexId, S::Output> = HashMap::new();
    let mut forecasts = BTreeMap::new();
    // In graph order, so inputs come first.
    for vertex in graph.reachable(targets.iter().copied()) {
        let mut inputs = vec![];
        let mut unknown = None;
        for edge in graph.inputs(vertex) {
            match outputs.get(&edge.vertex) {
                Some(output) => inputs.push(output.clone()),
                None => unknown = unknown.or(Some(edge.vertex)),
            }
        }
        let forecast = match unknown {
            Some(input) => Forecast::Depends(input),
            None => match foretell(&query, vertex, &inputs).await {
                Ok((forecast, output)) => {
                    output.map(|output| outputs.insert(vertex, output));
                    forecast
                }
                Err(cause) => Forecast::Fails(cause),
            },
        };
        forecasts.insert(vertex, forecast);
    }
    forecasts
}

type Foretold<S, R> = (Forecast<<S as Steps>::Error, <R as RecordStore>::Error>, Option<<S as Steps>::Output>);

async fn foretell<S: Steps, R: RecordStore>(
    query: &Query<'_, S, R>,
    vertex: VertexId,
    inputs: &[S::Output],
) -> Result<Foretold<S, R>, Cause<S::Error, R::Error>> {
    let recipe = match query.steps.plan(vertex, inputs).await.map_err(Cause::Step)? {
        Plan::Known(output) => return Ok((Forecast::Known, Some(output))),
        Plan::Keyed(recipe) => recipe,
    };
    match query.recorded(vertex, inputs, &recipe, &recipe.key())? {
        Found::Output(output) => Ok((Forecast::Cached, Some(output))),
        Found::Nothing(miss) => {
            query.steps.missed(vertex, inputs, &recipe, miss).await;
            Ok((Forecast::Runs, None))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Edge;
    use crate::record::MemoryRecords;
    use crate::testing::{FakeOp, FakeSteps};
    use futures::executor::block_on;

    fn graph(source: u64) -> Graph<FakeOp> {
        let mut graph = Graph::new();
        let edge = |vertex| vec![Edge { vertex, output: 0 }];
        let base = graph.add(vec![], FakeOp::Source(1));
        let apart = graph.add(edge(base), FakeOp::Add(5));
        let source = graph.add(vec![], FakeOp::Source(source));
        let step = graph.add(edge(source), FakeOp::Constant(7));
        let both = [apart, step].map(|vertex| Edge { vertex, output: 0 });
        graph.add(both.to_vec(), FakeOp::Add(1));
        graph
    }

    fn shown(graph: &Graph<FakeOp>, steps: &FakeSteps, records: &MemoryRecords) -> Vec<String> {
        let forecasts = block_on(forecast(graph, &[VertexId(4)], steps, records));
        forecasts.values().map(|forecast| format!("{forecast:?}")).collect()
    }

    #[test]
    fn nothing_runs_and_what_would_is_told() {
        let records = MemoryRecords::default();
        let first = graph(1);
        let steps = FakeSteps::new(&first);
        assert_eq!(shown(&first, &steps, &records), ["Known", "Runs", "Known", "Runs", "Depends(VertexId(1))"]);
        assert!(steps.runs().is_empty());
        assert_eq!(steps.misses().len(), 2);
        block_on(crate::solve(&first, &[VertexId(4)], &steps, &records, &())).unwrap();
        assert_eq!(steps.runs().len(), 3);
        assert_eq!(shown(&first, &steps, &records), ["Known", "Cached", "Known", "Cached", "Cached"]);
        let changed = graph(2);
        let mut steps = FakeSteps::new(&changed);
        assert_eq!(shown(&changed, &steps, &records), ["Known", "Cached", "Known", "Runs", "Depends(VertexId(3))"]);
        steps.ignore_cache = [VertexId(1)].into();
        assert_eq!(shown(&changed, &steps, &records)[1], "Runs");
    }
}
