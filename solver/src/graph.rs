//! The build graph: vertices and the edges between their outputs and inputs.
//!
//! A vertex can only name inputs that are there already, so a [`Graph`] is acyclic by construction; it never changes
//! once built. Equal vertices (same definition, same inputs) are one vertex. What a vertex *does* is the payload `V`,
//! which this crate never looks into.

use crate::key::CacheKey;
use petgraph::graph::{DiGraph, NodeIndex};
use std::collections::{BTreeSet, HashMap};

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
    by_definition: HashMap<(CacheKey, Vec<Edge>), VertexId>,
}

impl<V> Default for Graph<V> {
    fn default() -> Self {
        Graph { vertices: DiGraph::new(), by_definition: HashMap::new() }
    }
}

impl<V> Graph<V> {
    /// An empty graph.
    pub fn new() -> Graph<V> {
        Graph::default()
    }

    /// Adds a vertex, or finds the one that was added with the same definition and inputs (whose value then stays).
    ///
    /// `definition` is a digest of everything in `value` that decides what the vertex does; names and source
    /// locations are not part of it.
    ///
    /// # Panics
    /// If an input is not a vertex of this graph.
    pub fn add(&mut self, definition: CacheKey, inputs: Vec<Edge>, value: V) -> VertexId {
        if let Some(&vertex) = self.by_definition.get(&(definition, inputs.clone())) {
            return vertex;
        }
        let node = self.vertices.add_node(Vertex { inputs: inputs.clone(), value });
        let vertex = VertexId(node.index() as u32);
        for (position, input) in inputs.iter().enumerate() {
            assert!(input.vertex < vertex, "inputs are added before what uses them");
            self.vertices.add_edge(NodeIndex::new(input.vertex.0 as usize), node, position as u32);
        }
        self.by_definition.insert((definition, inputs), vertex);
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

    /// All payloads, in the order in which their vertices were added.
    pub fn into_values(self) -> impl Iterator<Item = V> {
        self.vertices.into_nodes_edges().0.into_iter().map(|node| node.weight.value)
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
    fn equal_vertices_are_one() {
        let mut graph = Graph::new();
        let base = graph.add(CacheKey::of(b"base"), vec![], "base");
        let one = graph.add(CacheKey::of(b"run"), vec![edge(base)], "first name");
        let two = graph.add(CacheKey::of(b"run"), vec![edge(base)], "second name");
        assert_eq!(one, two);
        assert_eq!(*graph.value(one), "first name");
        assert_eq!(graph.len(), 2);
    }

    #[test]
    fn reachable_leaves_out_what_no_target_needs() {
        let mut graph = Graph::new();
        let base = graph.add(CacheKey::of(b"base"), vec![], ());
        let unused = graph.add(CacheKey::of(b"unused"), vec![edge(base)], ());
        let target = graph.add(CacheKey::of(b"target"), vec![edge(base)], ());
        let reachable = graph.reachable([target]);
        assert!(reachable.contains(&base) && reachable.contains(&target) && !reachable.contains(&unused));
    }
}
