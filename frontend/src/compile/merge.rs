//! Equal steps of several stages become one vertex, once all stages are there. Until then each instruction has a vertex
//! of its own, for only the way from the result shows which of the equal ones gives the name and the place.

use crate::draft::{Draft, Drafted};
use crate::op::Step;
use foldhash::fast::RandomState;
use solver::graph::{Edge, Graph, VertexId};
use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, Hasher};

/// What `roots` need of `draft`, in which equal steps are one vertex, and the roots there.
///
/// A vertex is called after the last of its steps that a walk from the root meets, inputs first and in order, as in
/// BuildKit. Where several roots need it, the first decides.
pub(super) fn merge(draft: Draft, roots: &[Option<Edge>]) -> (Graph<Step>, Vec<Option<Edge>>) {
    let vertices = draft.into_vertices();
    let mut merge = Merge {
        vertices: &vertices,
        group_of: vec![None; vertices.len()],
        groups: Vec::with_capacity(vertices.len()),
        by_hash: HashMap::with_capacity_and_hasher(vertices.len(), RandomState::default()),
    };
    for root in roots.iter().flatten() {
        merge.walk(root.vertex);
    }
    let Merge { group_of, groups, .. } = merge;
    // In file order, in which inputs come first too.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&group| groups[group].first);
    let mut merged = Graph::new();
    let mut merged_ids = vec![VertexId(0); groups.len()];
    let mut left: Vec<Option<Drafted>> = vertices.into_iter().map(Some).collect();
    for group in order {
        let Drafted { mut inputs, step, .. } =
            left[groups[group].step.0 as usize].take().expect("each step names one group");
        for input in &mut inputs {
            input.vertex = merged_ids[group_of[input.vertex.0 as usize].expect("inputs are visited first")];
        }
        merged_ids[group] = merged.add(inputs, step);
    }
    let root_of = |edge: Edge| {
        let group = group_of[edge.vertex.0 as usize].expect("roots are visited");
        Edge { vertex: merged_ids[group], output: edge.output }
    };
    let roots = roots.iter().map(|root| root.map(root_of)).collect();
    (merged, roots)
}

/// Equal steps.
struct Group {
    /// The one that gives its name.
    step: VertexId,
    /// The one that was added first.
    first: VertexId,
    /// The last group before it whose hash is the same.
    former: Option<usize>,
}

struct Merge<'a> {
    vertices: &'a [Drafted],
    /// Of each vertex that was visited.
    group_of: Vec<Option<usize>>,
    groups: Vec<Group>,
    /// The last group of each hash.
    by_hash: HashMap<u64, usize, RandomState>,
}

impl Merge<'_> {
    /// Visits `root` and all that it needs, each vertex once, inputs before what uses them. Groups of former walks keep
    /// their names.
    fn walk(&mut self, root: VertexId) {
        let settled = self.groups.len();
        // A vertex is on the stack twice: to have its inputs visited, and then to be visited itself.
        let mut stack = vec![(root, false)];
        while let Some((vertex, inputs_are_done)) = stack.pop() {
            if self.group_of[vertex.0 as usize].is_some() {
                continue;
            }
            if !inputs_are_done {
                stack.push((vertex, true));
                let inputs = &self.vertices[vertex.0 as usize].inputs;
                stack.extend(inputs.iter().rev().map(|input| (input.vertex, false)));
                continue;
            }
            let group = self.find(vertex);
            self.group_of[vertex.0 as usize] = Some(group);
            let found = &mut self.groups[group];
            found.first = found.first.min(vertex);
            if group >= settled {
                found.step = vertex;
            }
        }
    }

    /// The group of a vertex whose inputs were visited; a new one if it is the first of its kind.
    fn find(&mut self, vertex: VertexId) -> usize {
        let drafted = &self.vertices[vertex.0 as usize];
        let mut hash = self.by_hash.hasher().build_hasher();
        drafted.op_hash.hash(&mut hash);
        self.inputs(drafted).for_each(|input| input.hash(&mut hash));
        let hash = hash.finish();
        let last = self.by_hash.get(&hash).copied();
        let same_hash = std::iter::successors(last, |&group| self.groups[group].former);
        let is_equal = |group: &usize| self.is_equal(drafted, &self.vertices[self.groups[*group].step.0 as usize]);
        same_hash.into_iter().find(is_equal).unwrap_or_else(|| {
            let group = self.groups.len();
            self.groups.push(Group { step: vertex, first: vertex, former: last });
            self.by_hash.insert(hash, group);
            group
        })
    }

    /// A step that must run is not one with an equal step of a stage that may be cached.
    fn is_equal(&self, one: &Drafted, other: &Drafted) -> bool {
        one.step.ignore_cache == other.step.ignore_cache
            && self.inputs(one).eq(self.inputs(other))
            && one.step.op == other.step.op
    }

    /// Groups and outputs that a vertex is made from, which were visited.
    fn inputs<'b>(&'b self, drafted: &'b Drafted) -> impl Iterator<Item = (Option<usize>, u32)> + 'b {
        drafted.inputs.iter().map(|input| (self.group_of[input.vertex.0 as usize], input.output))
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    const TWO: &str = "FROM x AS a\nRUN 1\nRUN 2\nFROM x AS b\nWORKDIR /\nRUN 1\nRUN 2\nFROM scratch\n";

    fn check(text: &str, expect: &[&str]) {
        let names = steps(&plan(text));
        let shown: Vec<_> =
            names.iter().filter(|name| !name.contains(" FROM ") && !name.contains("[internal]")).collect();
        assert_eq!(shown, expect, "{text}");
    }

    #[test]
    fn equal_steps_are_called_after_the_last_that_is_met() {
        let copies =
            |first: &str, second: &str| format!("{TWO}COPY --from={first} /f /1\nCOPY --from={second} /f /2\n");
        let rest = ["[stage-2 1/2] COPY --from=a /f /1", "[stage-2 2/2] COPY --from=b /f /2"];
        check(&copies("a", "b"), &[&["[b 2/4] RUN 1", "[b 3/4] RUN 2"][..], &rest].concat());
        let rest = ["[stage-2 1/2] COPY --from=b /f /1", "[stage-2 2/2] COPY --from=a /f /2"];
        check(&copies("b", "a"), &[&["[a 2/3] RUN 1", "[a 3/3] RUN 2"][..], &rest].concat());
    }

    #[test]
    fn equal_links_are_one_copy() {
        let link = "FROM scratch\nCOPY f /g\nCOPY --link f /f\nCOPY --link f /f\n";
        check(
            link,
            &[
                "[1/3] COPY f /g",
                "[3/3] COPY --link f /f",
                "[2/3] LINK COPY --link f /f",
                "[3/3] LINK COPY --link f /f",
            ],
        );
    }

    #[test]
    fn the_first_of_several_platforms_decides() {
        let platforms = vec![platform("linux/amd64"), platform("linux/arm64")];
        let request = crate::compile::CompileRequest { platforms, ..request() };
        let text = "FROM --platform=$BUILDPLATFORM x AS a\nRUN 1\nFROM x\nCOPY --from=a /f /f\n";
        let plan = plan_with(text, &request);
        let names = steps(&plan);
        assert_eq!(names.iter().filter(|name| name.ends_with("RUN 1")).count(), 1, "{names:?}");
        assert!(plan.results.iter().all(|result| result.root.is_some()));
    }
}
