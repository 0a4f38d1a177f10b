//! The build graph: vertices and the edges between their outputs and inputs.
//!
//! A vertex can only name inputs that are there already, so a [`Graph`] is acyclic by construction; it never changes
//! once built. What a vertex *does* is the payload `V`, which this crate never looks into, so whoever builds a graph makes
//! equal vertices one.

use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::BTreeSet;

/// A vertex of one [`Graph`]; ordered as added, so inputs are smaller than what uses them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VertexId(pub u32);

/// An output of a vertex. Most vertices have only output 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Whose output.
    pub vertex: VertexId,
    /// Which of its outputs, from 0.
    pub output: u32,
}

struct Vertex<V> {
    inputs: Vec<Edge>,
    value: V,
}

/// Vertices with payload `V`.
pub struct Graph<V> {
    vertices: Vec<Vertex<V>>,
}

impl<V> Default for Graph<V> {
    fn default() -> Self {
        Graph { vertices: vec![] }
    }
}

impl<V> Graph<V> {
    /// An empty graph.
    pub fn new() -> Graph<V> {
        Graph::default()
    }

    /// Adds a vertex.
    ///
    /// # Panics
    /// If an input is not a vertex of this graph.
    pub fn add(&mut self, inputs: Vec<Edge>, value: V) -> VertexId {
        let vertex = VertexId(self.vertices.len() as u32);
        assert!(inputs.iter().all(|input| input.vertex < vertex), "inputs are added before what uses them");
        self.vertices.push(Vertex { inputs, value });
        vertex
    }

    /// What the vertex does.
    pub fn value(&self, vertex: VertexId) -> &V {
        &self.node(vertex).value
    }

    /// What the vertex is made from, in the order that its payload refers to.
    pub fn inputs(&self, vertex: VertexId) -> &[Edge] {
        &self.node(vertex).inputs
    }

    /// How many vertices there are.
    pub fn len(&self) -> usize {
        self.vertices.len()
    }

    /// All vertices, inputs first.
    pub fn vertices(&self) -> impl Iterator<Item = VertexId> {
        (0..self.vertices.len() as u32).map(VertexId)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The targets and all that they are made from, inputs first.
    pub fn reachable(&self, targets: impl IntoIterator<Item = VertexId>) -> BTreeSet<VertexId> {
        let mut seen = BTreeSet::new();
        let mut todo: Vec<VertexId> = targets.into_iter().collect();
        while let Some(vertex) = todo.pop() {
            if seen.insert(vertex) {
                todo.extend(self.inputs(vertex).iter().map(|edge| edge.vertex));
            }
        }
        seen
    }

    /// Graphviz text of the graph, each vertex labelled by `label`, for debugging.
    pub fn to_dot(&self, label: impl Fn(&V) -> String) -> String {
        let mut labelled = DiGraph::<String, usize>::new();
        for vertex in &self.vertices {
            let node = labelled.add_node(label(&vertex.value));
            for (position, input) in vertex.inputs.iter().enumerate() {
                labelled.add_edge(NodeIndex::new(input.vertex.0 as usize), node, position);
            }
        }
        petgraph::dot::Dot::new(&labelled).to_string()
    }

    fn node(&self, vertex: VertexId) -> &Vertex<V> {
        self.vertices.get(vertex.0 as usize).expect("a VertexId comes from its own graph")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(vertex: VertexId) -> Edge {
        Edge { vertex, output: 0 }
    }

    #[test]
    fn reachable_leaves_out_what_no_target_needs() {
        let mut graph = Graph::new();
        let base = graph.add(vec![], ());
        let unused = graph.add(vec![edge(base)], ());
        let target = graph.add(vec![edge(base)], ());
        let reachable = graph.reachable([target]);
        assert!(reachable.contains(&base) && reachable.contains(&target) && !reachable.contains(&unused));
    }
}
