//! Equal steps of several stages become one vertex, once all stages are there. Until then each instruction has a vertex
//! of its own, for only the way from the result shows which of the equal ones gives the name and the place.

use crate::draft::{Draft, Drafted};
use crate::op::{FileAction, Op, Step};
use foldhash::fast::RandomState;
use solver::graph::{Edge, Graph, VertexId};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

/// What `roots` need of `draft`, in which equal steps are one vertex, and the roots there.
///
/// A vertex is called after the last of its steps that a walk from the root meets, inputs first and in order, as in
/// BuildKit. Where several roots need it, the first decides.
pub(super) fn merge(draft: Draft, roots: &[Option<Edge>]) -> (Graph<Step>, Vec<Option<Edge>>) {
    let vertices = draft.into_vertices();
    let by_definition = HashMap::with_capacity_and_hasher(vertices.len(), RandomState::default());
    let mut merge = Merge { vertices: &vertices, groups: Vec::with_capacity(vertices.len()), by_definition };
    let mut targets = vec![];
    for root in roots.iter().flatten() {
        targets.push(merge.walk(root.vertex));
    }
    let groups = merge.groups;
    // In file order, in which inputs come first too.
    let mut order: Vec<usize> = (0..groups.len()).collect();
    order.sort_by_key(|&group| groups[group].first);
    let mut merged = Graph::new();
    let mut merged_ids = vec![VertexId(0); groups.len()];
    let mut steps: Vec<Option<Step>> = vertices.into_iter().map(|vertex| Some(vertex.step)).collect();
    for group in order {
        let edge = |input: &Input| Edge { vertex: merged_ids[input.group], output: input.output };
        let inputs = groups[group].inputs.iter().map(edge).collect();
        let step = steps[groups[group].step.0 as usize].take().expect("each step names one group");
        merged_ids[group] = merged.add(inputs, step);
    }
    let mut targets = targets.into_iter();
    let root_of = |root: &Option<Edge>| {
        root.and_then(|edge| Some(Edge { vertex: merged_ids[targets.next()?], output: edge.output }))
    };
    let roots = roots.iter().map(root_of).collect();
    (merged, roots)
}

/// Equal steps.
struct Group {
    inputs: Rc<[Input]>,
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

/// All that makes two steps one. A step that must run is not one with an equal step of a stage that may be cached.
#[derive(PartialEq, Eq)]
struct Definition<'a> {
    op: &'a Op,
    ignore_cache: bool,
    inputs: Rc<[Input]>,
}

impl Hash for Definition<'_> {
    /// Of what mostly differs.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.inputs.hash(state);
        match self.op {
            Op::Source(source) => source.hash(state),
            Op::Exec(exec) => exec.args.hash(state),
            Op::File(file) => file.actions.iter().for_each(|action| match action {
                FileAction::Copy(copy) => (&copy.source, &copy.dest).hash(state),
                FileAction::MkFile { .. } | FileAction::MkDir { .. } => action.hash(state),
            }),
            Op::Merge => {}
        }
    }
}

struct Merge<'a> {
    vertices: &'a [Drafted],
    groups: Vec<Group>,
    by_definition: HashMap<Definition<'a>, usize, RandomState>,
}

impl Merge<'_> {
    /// Visits `root` and all that it needs, each vertex once, inputs before what uses them; gives the root's group. Groups
    /// of former walks keep their names.
    fn walk(&mut self, root: VertexId) -> usize {
        let settled = self.groups.len();
        let mut group_of: Vec<Option<usize>> = vec![None; self.vertices.len()];
        // A vertex is on the stack twice: to have its inputs visited, and then to be visited itself.
        let mut stack = vec![(root, false)];
        while let Some((vertex, inputs_are_done)) = stack.pop() {
            if group_of[vertex.0 as usize].is_some() {
                continue;
            }
            let Drafted { inputs, step } = &self.vertices[vertex.0 as usize];
            if !inputs_are_done {
                stack.push((vertex, true));
                stack.extend(inputs.iter().rev().map(|input| (input.vertex, false)));
                continue;
            }
            let input = |edge: &Edge| {
                let group = group_of[edge.vertex.0 as usize].expect("inputs are visited first");
                Input { group, output: edge.output }
            };
            let inputs: Rc<[Input]> = inputs.iter().map(input).collect();
            let definition = Definition { op: &step.op, ignore_cache: step.ignore_cache, inputs };
            let next = self.groups.len();
            let group = match self.by_definition.entry(definition) {
                Entry::Occupied(found) => *found.get(),
                Entry::Vacant(place) => {
                    let inputs = place.key().inputs.clone();
                    self.groups.push(Group { inputs, step: vertex, first: vertex });
                    *place.insert(next)
                }
            };
            let found = &mut self.groups[group];
            found.first = found.first.min(vertex);
            if group >= settled {
                found.step = vertex;
            }
            group_of[vertex.0 as usize] = Some(group);
        }
        group_of[root.0 as usize].expect("the root was visited")
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
