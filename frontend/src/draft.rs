//! The graph while stages are compiled: vertices in the order in which instructions ask for them. What of it the
//! results need, and with equal steps made one, becomes the build graph in `compile::merge`.

use crate::compile::ImageKey;
use crate::op::{FileAction, Op, Source, Step};
use foldhash::fast::RandomState;
use solver::graph::{Edge, Graph, VertexId};
use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, Hash, Hasher};

/// Vertices so far. Equal sources are one; all else that is equal is made one when all stages are there.
#[derive(Default)]
pub struct Draft {
    vertices: Vec<Drafted>,
    sources: HashMap<Box<Source>, Edge, RandomState>,
    /// Those of images, by what asks for them.
    pub(crate) images: BTreeMap<ImageKey, Edge>,
    /// The build context, once something has asked for it.
    pub(crate) context: Option<Edge>,
}

/// A vertex of a [`Draft`].
pub(crate) struct Drafted {
    /// Vertices are numbered as they were added, so inputs have smaller numbers than what uses them.
    pub inputs: Vec<Edge>,
    /// What it does.
    pub step: Step,
    /// Of the op, made while it is at hand: equal ops have equal ones.
    pub op_hash: u64,
}

impl Draft {
    /// Adds a vertex, or finds the source that was added before (whose name then stays). `inputs` are of this draft.
    pub fn add(&mut self, inputs: Vec<Edge>, step: Step) -> Edge {
        let edge = Edge { vertex: VertexId(self.vertices.len() as u32), output: 0 };
        if let Op::Source(source) = &step.op {
            if let Some(known) = self.sources.get(source) {
                return *known;
            }
            self.sources.insert(source.clone(), edge);
        }
        let op_hash = hash(&step.op, self.sources.hasher());
        self.vertices.push(Drafted { inputs, step, op_hash });
        edge
    }

    /// The vertices, in order.
    pub(crate) fn into_vertices(self) -> Vec<Drafted> {
        self.vertices
    }

    /// All of it as a graph, with the same numbers.
    pub fn into_graph(self) -> Graph<Step> {
        let mut graph = Graph::new();
        for Drafted { inputs, step, .. } in self.vertices {
            graph.add(inputs, step);
        }
        graph
    }
}

/// Of what mostly differs.
fn hash(op: &Op, hashes: &RandomState) -> u64 {
    let mut state = hashes.build_hasher();
    match op {
        Op::Source(source) => source.hash(&mut state),
        Op::Exec(exec) => exec.args.hash(&mut state),
        Op::File(file) => file.actions.iter().for_each(|action| match action {
            FileAction::Copy(copy) => (&copy.source, &copy.dest).hash(&mut state),
            FileAction::MkFile { .. } | FileAction::MkDir { .. } => action.hash(&mut state),
        }),
        Op::Merge => {}
    }
    state.finish()
}
