//! Which trees an SBOM is to list beside the result: `ARG BUILDKIT_SBOM_SCAN_STAGE` and `BUILDKIT_SBOM_SCAN_CONTEXT`
//! (reference/engine.md 8.3). They count only where they are declared: in the stage, or before the first FROM.

use crate::csv::boolean;
use crate::stage::{OpenStage, Settings};
use solver::graph::Edge;

const STAGE: &str = "BUILDKIT_SBOM_SCAN_STAGE";
const CONTEXT: &str = "BUILDKIT_SBOM_SCAN_CONTEXT";

/// A tree that is not the result, but is to be scanned as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScannedTree {
    /// Of the stage: its name, or its number; `context` for the build context.
    pub name: String,
    /// `None` is an empty one.
    pub root: Option<Edge>,
}

/// Whether a stage of that name is to be scanned.
pub(super) fn wants_stage(stage: &OpenStage, name: &str, settings: &Settings<'_>) -> bool {
    is_on(value(stage, STAGE, settings), name)
}

/// Whether the build context is to be scanned, as a stage of that name has it.
pub(super) fn wants_context(stage: &OpenStage, name: &str, settings: &Settings<'_>) -> bool {
    is_on(value(stage, CONTEXT, settings), name)
}

fn value<'a>(stage: &'a OpenStage, name: &str, settings: &'a Settings<'_>) -> Option<&'a str> {
    match stage.args.get(name) {
        Some(declared) => declared.value.as_deref(),
        None => settings.globals.get(name),
    }
}

/// A boolean, or a list of stages.
fn is_on(value: Option<&str>, stage: &str) -> bool {
    value.is_some_and(|text| boolean(text).unwrap_or_else(|| text.split(',').any(|name| name.trim() == stage)))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn check(text: &str, args: &[(&str, &str)], expect: &[&str]) {
        let plan = plan_with(text, &with_args(args));
        let names: Vec<&str> = plan.results[0].scans.iter().map(|scanned| scanned.name.as_str()).collect();
        assert_eq!(names, expect, "{text}");
    }

    #[test]
    fn declared_in_stages_and_before_them() {
        let stages = "FROM a AS base\nRUN x\nFROM base AS build\nRUN y\nFROM b\nCOPY --from=build /x /\n";
        let after = |arg: &str| stages.replace("RUN y\n", &format!("{arg}\nRUN y\n"));
        check(stages, &[], &[]);
        check(&after("ARG BUILDKIT_SBOM_SCAN_STAGE=true"), &[], &["build"]);
        check(&after("ARG BUILDKIT_SBOM_SCAN_STAGE"), &[("BUILDKIT_SBOM_SCAN_STAGE", "1")], &["build"]);
        check(&after("ARG BUILDKIT_SBOM_SCAN_STAGE=true"), &[("BUILDKIT_SBOM_SCAN_STAGE", "false")], &[]);
        check(&format!("ARG BUILDKIT_SBOM_SCAN_STAGE=true\n{stages}"), &[], &["base", "build"]);
        check(&format!("ARG BUILDKIT_SBOM_SCAN_STAGE=base,none\n{stages}"), &[], &["base"]);
        check(&format!("ARG BUILDKIT_SBOM_SCAN_CONTEXT=1\n{stages}"), &[], &["context"]);
        // Not declared.
        check(stages, &[("BUILDKIT_SBOM_SCAN_STAGE", "true"), ("BUILDKIT_SBOM_SCAN_CONTEXT", "true")], &[]);
        // A stage that nothing needs is not built.
        check("ARG BUILDKIT_SBOM_SCAN_STAGE=true\nFROM a AS x\nRUN x\nFROM b\nRUN y\n", &[], &[]);
    }
}
