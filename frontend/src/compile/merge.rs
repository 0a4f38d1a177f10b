//! Equal steps of several stages become one vertex, once all stages are there. Until then each instruction has a vertex
//! of its own, for only the way from the result shows which of the equal ones gives the name and the place.

use crate::op::Step;
use solver::graph::{Edge, Graph, VertexId};
use solver::key::CacheKey;
use std::collections::HashMap;

/// What `roots` need of `graph`, in which equal steps are one vertex, and the roots there.
///
/// A vertex is called after the last of its steps that a walk from the root meets, inputs first and in order, as in
/// BuildKit. Where several roots need it, the first decides.
pub(super) fn merge(graph: Graph<Step>, roots: &[Option<Edge>]) -> (Graph<Step>, Vec<Option<Edge>>) {
    let mut merge = Merge { graph: &graph, groups: vec![], by_definition: HashMap::new() };
    let mut targets = vec![];
    for root in roots.iter().flatten() {
        let settled = merge.groups.len();
        // Groups of one walk; those of the walks before it have their names.
        let mut walked = HashMap::new();
        merge.walk(root.vertex, settled, &mut walked);
        targets.push(walked[&root.vertex]);
    }
    let groups = merge.groups;
    let mut merged = Graph::new();
    let mut vertices = vec![VertexId(0); groups.len()];
    // In file order, in which inputs come first too.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&group| groups[group].first);
    let mut steps: Vec<Option<Step>> = graph.into_values().map(Some).collect();
    for group in order {
        let Group { definition, inputs, step, .. } = &groups[group];
        let inputs = inputs.iter().map(|input| Edge { vertex: vertices[input.group], output: input.output }).collect();
        let step = steps[step.0 as usize].take().expect("each step names one group");
        vertices[group] = merged.add(*definition, inputs, step);
    }
    let mut targets = targets.into_iter();
    let root_of = |root: &Option<Edge>| {
        root.and_then(|edge| Some(Edge { vertex: vertices[targets.next()?], output: edge.output }))
    };
    let roots = roots.iter().map(root_of).collect();
    (merged, roots)
}

/// Equal steps.
struct Group {
    definition: CacheKey,
    inputs: Vec<Input>,
    /// The one that gives its name.
    step: VertexId,
    /// The one that was added first.
    first: VertexId,
}

/// An input of a group.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Input {
    group: usize,
    output: u32,
}

struct Merge<'a> {
    graph: &'a Graph<Step>,
    groups: Vec<Group>,
    by_definition: HashMap<(CacheKey, Vec<Input>), usize>,
}

impl Merge<'_> {
    /// Visits `root` and all that it needs, each vertex once, inputs before what uses them. The first `settled` groups
    /// keep their names.
    fn walk(&mut self, root: VertexId, settled: usize, group_of: &mut HashMap<VertexId, usize>) {
        // A vertex is on the stack twice: to have its inputs visited, and then to be visited itself.
        let mut stack = vec![(root, false)];
        while let Some((vertex, inputs_are_done)) = stack.pop() {
            if group_of.contains_key(&vertex) {
                continue;
            }
            let inputs = self.graph.inputs(vertex);
            if !inputs_are_done {
                stack.push((vertex, true));
                stack.extend(inputs.iter().rev().map(|input| (input.vertex, false)));
                continue;
            }
            let inputs = inputs.iter().map(|edge| Input { group: group_of[&edge.vertex], output: edge.output });
            let definition = self.graph.value(vertex).definition();
            let key = (definition, inputs.collect::<Vec<_>>());
            let group = match self.by_definition.get(&key) {
                Some(&group) => group,
                None => {
                    self.groups.push(Group { definition, inputs: key.1.clone(), step: vertex, first: vertex });
                    self.by_definition.insert(key, self.groups.len() - 1);
                    self.groups.len() - 1
                }
            };
            let found = &mut self.groups[group];
            found.first = found.first.min(vertex);
            if group >= settled {
                found.step = vertex;
            }
            group_of.insert(vertex, group);
        }
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
