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
    // Edge weights are the positions in the user's list of inputs; petgraph gives traversal and DOT output.
    vertices: DiGraph<Vertex<V>, u32>,
}

impl<V> Default for Graph<V> {
    fn default() -> Self {
        Graph { vertices: DiGraph::new() }
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
        let used: Vec<VertexId> = inputs.iter().map(|edge| edge.vertex).collect();
        let node = self.vertices.add_node(Vertex { inputs, value });
        let vertex = VertexId(node.index() as u32);
        for (position, input) in used.into_iter().enumerate() {
            assert!(input < vertex, "inputs are added before what uses them");
            self.vertices.add_edge(NodeIndex::new(input.0 as usize), node, position as u32);
        }
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
        self.vertices.node_count()
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
        let labelled = self.vertices.map(|_, vertex| label(&vertex.value), |_, position| *position);
        format!("{}", petgraph::dot::Dot::new(&labelled))
    }

    fn node(&self, vertex: VertexId) -> &Vertex<V> {
        self.vertices.node_weight(NodeIndex::new(vertex.0 as usize)).expect("a VertexId comes from its own graph")
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
