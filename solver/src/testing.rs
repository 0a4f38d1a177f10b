//! A scripted world for tests: steps that compute on numbers, with call counts, faults and order of starts.

use crate::graph::{Graph, VertexId};
use crate::key::{CacheKey, KeyRecipe};
use crate::record::Record;
use crate::step::{Miss, Plan, Steps};
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// What a fake vertex does.
#[derive(Clone, Debug, PartialEq)]
pub enum FakeOp {
    /// A source with this content.
    Source(u64),
    /// Adds a number to the sum of its inputs.
    Add(u64),
    /// Gives this content whatever its inputs are: a step that ran again and changed nothing.
    Constant(u64),
    /// Fails.
    Fail,
    /// Runs until it is cancelled.
    Forever,
}

/// Answers for a graph of [`FakeOp`].
pub struct FakeSteps<'a> {
    graph: &'a Graph<FakeOp>,
    /// Vertices with `--no-cache`.
    pub ignore_cache: BTreeSet<VertexId>,
    /// Vertices whose recorded output is not to be had: who runs on it finds out.
    pub hollow: BTreeSet<VertexId>,
    /// Of those, the ones that were loaded and not named as lost yet; and the ones that were named.
    loaded: Mutex<BTreeSet<VertexId>>,
    lost: Mutex<BTreeSet<VertexId>>,
    runs: Mutex<BTreeMap<VertexId, usize>>,
    misses: Mutex<Vec<(VertexId, Miss)>>,
    /// Steps that may run at once.
    pub jobs: usize,
    /// How long steps are said to take.
    pub expected_ms: BTreeMap<VertexId, u64>,
    order: Mutex<Vec<VertexId>>,
    /// Now, and at most.
    at_once: Mutex<(usize, usize)>,
    canceled: AtomicBool,
}

impl<'a> FakeSteps<'a> {
    /// No vertex ignores the cache.
    pub fn new(graph: &'a Graph<FakeOp>) -> Self {
        let (ignore_cache, canceled) = (BTreeSet::new(), AtomicBool::new(false));
        let (hollow, loaded, lost) = Default::default();
        FakeSteps {
            graph,
            ignore_cache,
            hollow,
            loaded,
            lost,
            runs: Mutex::default(),
            misses: Mutex::default(),
            jobs: usize::MAX,
            expected_ms: BTreeMap::new(),
            order: Mutex::default(),
            at_once: Mutex::default(),
            canceled,
        }
    }

    /// How often each vertex ran.
    pub fn runs(&self) -> BTreeMap<VertexId, usize> {
        self.runs.lock().expect("no holder panics").clone()
    }

    /// In which order steps began to run.
    pub fn order(&self) -> Vec<VertexId> {
        self.order.lock().expect("no holder panics").clone()
    }

    /// How many ran at once at most.
    pub fn most_at_once(&self) -> usize {
        self.at_once.lock().expect("no holder panics").1
    }

    /// What was not found, in order.
    pub fn misses(&self) -> Vec<(VertexId, Miss)> {
        self.misses.lock().expect("no holder panics").clone()
    }

    fn compute(&self, vertex: VertexId, inputs: &[u64]) -> u64 {
        evaluate(self.graph.value(vertex), inputs)
    }
}

/// The content that a vertex has, for sources and steps that succeed.
pub fn evaluate(op: &FakeOp, inputs: &[u64]) -> u64 {
    match op {
        FakeOp::Source(content) | FakeOp::Constant(content) => *content,
        FakeOp::Add(number) => inputs.iter().fold(*number, |sum, input| sum.wrapping_mul(31).wrapping_add(*input)),
        FakeOp::Fail | FakeOp::Forever => unreachable!("these have no output"),
    }
}

impl Steps for FakeSteps<'_> {
    type Output = u64;
    type Error = &'static str;

    async fn plan(&self, vertex: VertexId, inputs: &[u64]) -> Result<Plan<u64>, &'static str> {
        if let FakeOp::Source(content) = self.graph.value(vertex) {
            return Ok(Plan::Known(*content));
        }
        let mut recipe = KeyRecipe::new();
        recipe.push("op", format!("{:?}", self.graph.value(vertex)));
        inputs.iter().for_each(|input| recipe.push("input", input.to_string()));
        Ok(Plan::Keyed(recipe))
    }

    fn load(&self, vertex: VertexId, _: &[u64], record: &Record) -> Result<Option<u64>, &'static str> {
        if self.hollow.contains(&vertex) {
            if self.lost.lock().expect("no holder panics").contains(&vertex) {
                return Ok(None);
            }
            self.loaded.lock().expect("no holder panics").insert(vertex);
        }
        Ok(<[u8; 8]>::try_from(record.output.as_slice()).ok().map(u64::from_be_bytes))
    }

    async fn missed(&self, vertex: VertexId, _: &[u64], _: &KeyRecipe, miss: Miss) {
        self.misses.lock().expect("no holder panics").push((vertex, miss));
    }

    async fn wait<C: Send>(
        &self,
        _: VertexId,
        _: &CacheKey,
        claim: impl Future<Output = C> + Send,
    ) -> Result<C, &'static str> {
        Ok(claim.await)
    }

    fn jobs(&self) -> usize {
        self.jobs
    }

    fn expected_ms(&self, vertex: VertexId) -> Option<u64> {
        self.expected_ms.get(&vertex).copied()
    }

    async fn run(&self, vertex: VertexId, inputs: &[u64]) -> Result<(u64, Record), &'static str> {
        *self.runs.lock().expect("no holder panics").entry(vertex).or_default() += 1;
        self.order.lock().expect("no holder panics").push(vertex);
        let began = |at_once: &mut (usize, usize)| *at_once = (at_once.0 + 1, at_once.1.max(at_once.0 + 1));
        began(&mut self.at_once.lock().expect("no holder panics"));
        // A real step waits for the world: let others start meanwhile, so that tests see interleavings.
        let mut yielded = false;
        futures::future::poll_fn(|context| {
            context.waker().wake_by_ref();
            let done = match self.graph.value(vertex) {
                FakeOp::Forever => self.canceled.load(Ordering::Relaxed),
                _ => std::mem::replace(&mut yielded, true),
            };
            if done { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        })
        .await;
        self.at_once.lock().expect("no holder panics").0 -= 1;
        let used: Vec<VertexId> = self.graph.inputs(vertex).iter().map(|edge| edge.vertex).collect();
        if used.iter().any(|input| self.loaded.lock().expect("no holder panics").contains(input)) {
            return Err("an input is not to be had");
        }
        match self.graph.value(vertex) {
            FakeOp::Fail => return Err("failed as told"),
            FakeOp::Forever => return Err("canceled"),
            _ => {}
        }
        let output = self.compute(vertex, inputs);
        let record = Record {
            name: format!("{vertex:?}"),
            recipe: KeyRecipe::new(),
            output: output.to_be_bytes().to_vec(),
            cost_ms: 0,
            observed: vec![],
        };
        Ok((output, record))
    }

    fn lost(&self, error: &&'static str) -> Vec<VertexId> {
        if *error != "an input is not to be had" {
            return vec![];
        }
        let lost = std::mem::take(&mut *self.loaded.lock().expect("no holder panics"));
        self.lost.lock().expect("no holder panics").extend(&lost);
        lost.into_iter().collect()
    }

    fn cancel(&self) {
        self.canceled.store(true, Ordering::Relaxed);
    }

    fn ignores_cache(&self, vertex: VertexId) -> bool {
        self.ignore_cache.contains(&vertex)
    }
}
