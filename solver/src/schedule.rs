//! When a vertex is answered: as soon as its inputs are, as many at a time as there are. Of those that then have to run
//! only some do at once, those on the longest path to a target first (`slots.rs`).
//!
//! The loop runs in one task and holds all state; what takes time happens in the futures of `query.rs`.
//!
//! What is finished stays finished, but for outputs that turn out not to be had ([`Steps::lost`]): those vertices are
//! answered again, and whatever used them, in `redo.rs`.

use crate::error::{Cause, SolveError};
use crate::graph::{Graph, VertexId};
use crate::progress::{Event, Observer};
use crate::query::{How, Query, Turn};
use crate::record::RecordStore;
use crate::redo;
use crate::share::FreshKeys;
use crate::slots::Slots;
use crate::state::{States, VertexState};
use crate::step::Steps;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::OnceLock;

/// Solves for `targets`; gives their outputs in the same order.
///
/// Only what a target needs is answered. After the first failure nothing more begins, running steps are asked to stop
/// and waited for, and that failure is returned.
pub async fn solve<V, S: Steps, R: RecordStore>(
    graph: &Graph<V>,
    targets: &[VertexId],
    steps: &S,
    records: &R,
    observer: &dyn Observer,
) -> Result<Vec<S::Output>, SolveError<S::Error, R::Error>> {
    let needed = graph.reachable(targets.iter().copied());
    let users = users_of(graph, &needed);
    let mut states = States::default();
    for &vertex in &needed {
        states.add(vertex, distinct_inputs(graph, vertex).len());
    }

    let fresh = FreshKeys::default();
    // Needed only if something runs.
    let lengths = OnceLock::new();
    let priority = |vertex: VertexId| {
        let lengths = lengths.get_or_init(|| path_lengths(&needed, &users, |vertex| steps.expected_ms(vertex)));
        lengths.get(&vertex).copied().unwrap_or_default()
    };
    let turn = Turn { slots: Slots::new(steps.jobs()), priority: &priority, observer };
    let query = Query { steps, records, fresh: &fresh, turn };
    let mut outputs: HashMap<VertexId, S::Output> = HashMap::new();
    let mut active = FuturesUnordered::new();
    let mut failure: Option<SolveError<S::Error, R::Error>> = None;
    let mut ready = states.ready();
    // Active on inputs that have been taken back.
    let mut stale = BTreeSet::new();
    loop {
        for vertex in ready.drain(..) {
            let inputs: Vec<S::Output> =
                graph.inputs(vertex).iter().map(|edge| outputs[&edge.vertex].clone()).collect();
            states.set(vertex, VertexState::Active);
            observer.event(Event::Started(vertex));
            let query = &query;
            active.push(async move { (vertex, query.answer(vertex, &inputs).await) });
        }
        let Some((vertex, answer)) = active.next().await else { break };
        if stale.remove(&vertex) && failure.is_none() {
            // It is started again when its inputs are there, and until then shown as what it is: at work.
            redo::wait_again(graph, vertex, &mut states, &mut ready);
            continue;
        }
        if let (Err(Cause::Step(error)), None) = (&answer, &failure) {
            let lost = steps.lost(error);
            if !lost.is_empty() {
                let taken = redo::take_back(graph, &users, &lost, vertex, &mut states, &mut stale);
                taken.outputs.iter().for_each(|taken| drop(outputs.remove(taken)));
                ready.extend(taken.ready);
                continue;
            }
        }
        match answer {
            Ok((output, how)) => {
                states.set(vertex, VertexState::Finished);
                observer.event(match how {
                    How::Done => Event::Done(vertex),
                    How::Cached => Event::Cached(vertex),
                });
                outputs.insert(vertex, output);
                let waiting = users.get(&vertex).map(Vec::as_slice).unwrap_or_default();
                let complete = one_less(waiting, &mut states);
                if failure.is_none() {
                    ready.extend(complete);
                }
            }
            Err(cause) => {
                states.set(vertex, VertexState::Stopped);
                if failure.is_some() {
                    observer.event(Event::Canceled(vertex));
                    continue;
                }
                observer.event(Event::Failed(vertex));
                failure = Some(SolveError { vertex, cause });
                steps.cancel();
            }
        }
    }
    match failure {
        Some(error) => Err(error),
        None => Ok(targets.iter().map(|target| outputs[target].clone()).collect()),
    }
}

/// Those who wait have one input less to wait for. Gives those that have all of them.
fn one_less(waiting: &[VertexId], states: &mut States) -> Vec<VertexId> {
    let mut complete = vec![];
    for &user in waiting {
        let VertexState::Waiting(inputs) = states.of(user) else { continue };
        states.set(user, VertexState::Waiting(inputs - 1));
        if inputs == 1 {
            complete.push(user);
        }
    }
    complete
}

/// Milliseconds from the beginning of each vertex to the end of the last one that waits for it. A vertex that is not known
/// takes as long as those that are known do on average, so where none is, depth decides.
fn path_lengths(
    needed: &BTreeSet<VertexId>,
    users: &BTreeMap<VertexId, Vec<VertexId>>,
    expected_ms: impl Fn(VertexId) -> Option<u64>,
) -> BTreeMap<VertexId, u64> {
    let known: BTreeMap<VertexId, u64> =
        needed.iter().filter_map(|&vertex| Some((vertex, expected_ms(vertex)?))).collect();
    let average = known.values().sum::<u64>().checked_div(known.len() as u64).unwrap_or(1000).max(1);
    let mut lengths: BTreeMap<VertexId, u64> = BTreeMap::new();
    // Users come after what they use.
    for &vertex in needed.iter().rev() {
        let after = users.get(&vertex).into_iter().flatten().map(|user| lengths[user]).max().unwrap_or_default();
        let own = known.get(&vertex).copied().unwrap_or(average);
        lengths.insert(vertex, after.saturating_add(own));
    }
    lengths
}

/// Which needed vertices wait for a vertex.
fn users_of<V>(graph: &Graph<V>, needed: &BTreeSet<VertexId>) -> BTreeMap<VertexId, Vec<VertexId>> {
    let mut users: BTreeMap<VertexId, Vec<VertexId>> = BTreeMap::new();
    for &vertex in needed {
        for input in distinct_inputs(graph, vertex) {
            users.entry(input).or_default().push(vertex);
        }
    }
    users
}

/// A vertex may use another's output twice, and waits for it once.
pub(crate) fn distinct_inputs<V>(graph: &Graph<V>, vertex: VertexId) -> BTreeSet<VertexId> {
    graph.inputs(vertex).iter().map(|edge| edge.vertex).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Edge;
    use crate::record::{MemoryRecords, Record};
    use crate::step::Plan;
    use crate::testing::{FakeOp, FakeSteps, evaluate};
    use futures::executor::block_on;
    use proptest::prelude::*;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Seen(Mutex<Vec<Event>>);

    impl Observer for Seen {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    /// A graph from `(op, inputs)`.
    fn graph(vertices: &[(FakeOp, &[u32])]) -> Graph<FakeOp> {
        let mut graph = Graph::new();
        for (op, inputs) in vertices {
            let inputs = inputs.iter().map(|&input| Edge { vertex: VertexId(input), output: 0 }).collect();
            graph.add(inputs, op.clone());
        }
        graph
    }

    #[test]
    fn a_changed_source_whose_step_gives_the_same_output_stops_there() {
        let records = MemoryRecords::default();
        for (source, runs) in [(1, 2), (2, 1)] {
            let graph = graph(&[(FakeOp::Source(source), &[]), (FakeOp::Constant(7), &[0]), (FakeOp::Add(1), &[1])]);
            let steps = FakeSteps::new(&graph);
            block_on(solve(&graph, &[VertexId(2)], &steps, &records, &())).unwrap();
            assert_eq!(steps.runs().len(), runs, "source {source}");
        }
    }

    #[test]
    fn equal_keys_run_once_even_without_cache() {
        // Vertices 1 and 2 are different definitions of the same step on equal contents.
        let graph = graph(&[
            (FakeOp::Source(1), &[]),
            (FakeOp::Add(5), &[0]),
            (FakeOp::Add(5), &[0]),
            (FakeOp::Add(6), &[1, 2]),
        ]);
        let records = MemoryRecords::default();
        for _ in 0..2 {
            let mut steps = FakeSteps::new(&graph);
            steps.ignore_cache = (0..4).map(VertexId).collect();
            block_on(solve(&graph, &[VertexId(3)], &steps, &records, &())).unwrap();
            assert_eq!(steps.runs().values().sum::<usize>(), 2);
        }
    }

    #[test]
    fn the_first_failure_stops_what_runs_and_begins_nothing() {
        let graph = graph(&[
            (FakeOp::Source(1), &[]),
            (FakeOp::Fail, &[0]),
            (FakeOp::Forever, &[0]),
            (FakeOp::Add(1), &[1, 2]),
        ]);
        let (steps, seen) = (FakeSteps::new(&graph), Seen::default());
        let error = block_on(solve(&graph, &[VertexId(3)], &steps, &MemoryRecords::default(), &seen)).unwrap_err();
        assert_eq!(error.vertex, VertexId(1));
        let events = seen.0.into_inner().unwrap();
        assert!(events.contains(&Event::Failed(VertexId(1))) && events.contains(&Event::Canceled(VertexId(2))));
        assert!(!events.contains(&Event::Started(VertexId(3))));
    }

    /// Order of runs of sources 0 and 1 with steps 2 (alone), 3, 4 and 5 (one after another) on them.
    fn order(expected: &[(u32, u64)], jobs: usize) -> Vec<u32> {
        let graph = graph(&[
            (FakeOp::Source(1), &[]),
            (FakeOp::Source(2), &[]),
            (FakeOp::Add(1), &[0]),
            (FakeOp::Add(2), &[1]),
            (FakeOp::Add(3), &[3]),
            (FakeOp::Add(4), &[4]),
            (FakeOp::Add(5), &[2, 5]),
        ]);
        let mut steps = FakeSteps::new(&graph);
        steps.jobs = jobs;
        steps.expected_ms = expected.iter().map(|(vertex, ms)| (VertexId(*vertex), *ms)).collect();
        block_on(solve(&graph, &[VertexId(6)], &steps, &MemoryRecords::default(), &())).unwrap();
        assert!(steps.most_at_once() <= jobs);
        steps.order().iter().map(|vertex| vertex.0).collect()
    }

    #[test]
    fn the_longest_path_goes_first() {
        // By depth; what waits already when a place is free goes before what becomes ready then.
        assert_eq!(order(&[], 1), [3, 2, 4, 5, 6]);
        assert_eq!(order(&[(2, 9000)], 1)[0], 3, "the others are taken to be as long");
        assert_eq!(order(&[(2, 9000), (3, 10), (4, 10), (5, 10)], 1), [2, 3, 4, 5, 6]);
        let mut two = order(&[], 2);
        two[..2].sort_unstable();
        assert_eq!(two, [2, 3, 4, 5, 6]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn agrees_with_a_naive_evaluator(shape in prop::collection::vec((0u64..4, 0u8..3, any::<[u8; 3]>()), 1..24), forgotten: u16, hollow: u16) {
            let mut vertices: Vec<(FakeOp, Vec<u32>)> = vec![];
            for (i, (number, kind, picks)) in shape.iter().enumerate() {
                let inputs = if i == 0 { vec![] } else { picks.iter().map(|p| u32::from(*p) % i as u32).collect() };
                let op = match (inputs.is_empty(), kind) {
                    (true, _) => FakeOp::Source(*number),
                    (false, 0) => FakeOp::Constant(*number),
                    (false, _) => FakeOp::Add(*number),
                };
                vertices.push((op, inputs));
            }
            let borrowed: Vec<(FakeOp, &[u32])> = vertices.iter().map(|(op, i)| (op.clone(), i.as_slice())).collect();
            let graph = graph(&borrowed);
            let mut naive: Vec<u64> = vec![];
            for (op, inputs) in &vertices {
                naive.push(evaluate(op, &inputs.iter().map(|&i| naive[i as usize]).collect::<Vec<_>>()));
            }
            let target = VertexId(vertices.len() as u32 - 1);
            let records = MemoryRecords::default();
            let first = FakeSteps::new(&graph);
            let outputs = block_on(solve(&graph, &[target], &first, &records, &())).unwrap();
            prop_assert_eq!(outputs, vec![*naive.last().unwrap()]);
            // No key runs twice: distinct (op, contents of inputs) are at least as many as the runs.
            let keys: BTreeSet<String> = first.runs().keys().map(|v| {
                let (op, inputs) = &vertices[v.0 as usize];
                format!("{op:?} {:?}", inputs.iter().map(|&i| naive[i as usize]).collect::<Vec<_>>())
            }).collect();
            prop_assert_eq!(keys.len(), first.runs().values().sum::<usize>());
            let second = FakeSteps::new(&graph);
            block_on(solve(&graph, &[target], &second, &records, &())).unwrap();
            prop_assert!(second.runs().is_empty());

            // Some records promise what is not to be had, and some are not there: nothing is wrong in the end, and what
            // nobody needs to run on is not missed.
            let part = MemoryRecords::default();
            for (number, vertex) in first.runs().keys().enumerate() {
                let (op, inputs) = &vertices[vertex.0 as usize];
                let inputs: Vec<u64> = inputs.iter().map(|&input| naive[input as usize]).collect();
                if (forgotten >> (number % 16)) & 1 == 0 {
                    let Plan::Keyed(recipe) = block_on(second.plan(*vertex, &inputs)).unwrap() else { continue };
                    let output = evaluate(op, &inputs).to_be_bytes().to_vec();
                    let record = Record { name: "".into(), recipe: Default::default(), output, cost_ms: 0, observed: vec![] };
                    part.insert(&recipe.key(), record).unwrap();
                }
            }
            let mut third = FakeSteps::new(&graph);
            third.hollow = (0..vertices.len() as u32).filter(|v| (hollow >> (v % 16)) & 1 == 1).map(VertexId).collect();
            let outputs = block_on(solve(&graph, &[target], &third, &part, &())).unwrap();
            prop_assert_eq!(outputs, vec![*naive.last().unwrap()]);
            if forgotten == 0 {
                prop_assert!(third.runs().is_empty());
            }
        }
    }
}
