//! The graph while stages are compiled: vertices in the order in which instructions ask for them. What of it the
//! results need, and with equal steps made one, becomes the build graph in `compile::merge`.

use crate::op::{Op, Source, Step};
use solver::graph::{Edge, Graph};
use std::collections::HashMap;

/// Vertices so far. Equal sources are one; all else that is equal is made one when all stages are there.
#[derive(Default)]
pub struct Draft {
    vertices: Vec<Drafted>,
    sources: HashMap<Source, Edge>,
    /// The build context, once something has asked for it.
    pub(crate) context: Option<Edge>,
}

/// A vertex of a [`Draft`].
pub(crate) struct Drafted {
    /// Vertices are numbered as they were added, so inputs have smaller numbers than what uses them.
    pub inputs: Vec<Edge>,
    /// What it does.
    pub step: Step,
}

impl Draft {
    /// Adds a vertex, or finds the source that was added before (whose name then stays). `inputs` are of this draft.
    pub fn add(&mut self, inputs: Vec<Edge>, step: Step) -> Edge {
        let edge = Edge { vertex: solver::graph::VertexId(self.vertices.len() as u32), output: 0 };
        if let Op::Source(source) = &step.op {
            if let Some(known) = self.sources.get(source) {
                return *known;
            }
            self.sources.insert(source.clone(), edge);
        }
        self.vertices.push(Drafted { inputs, step });
        edge
    }

    /// The vertices, in order.
    pub(crate) fn into_vertices(self) -> Vec<Drafted> {
        self.vertices
    }

    /// All of it as a graph, with the same numbers.
    pub fn into_graph(self) -> Graph<Step> {
        let mut graph = Graph::new();
        for Drafted { inputs, step } in self.vertices {
            graph.add(inputs, step);
        }
        graph
    }
}
