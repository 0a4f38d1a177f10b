//! Rules about the text, on all instructions of the file.

use super::Lints;
use crate::ast::{Dockerfile, Node};
use crate::instruction::from::From;
use crate::placed::Placed;
use crate::span::Span;
use crate::words::split_assignments;
use std::collections::HashSet;

/// All rules that need nothing but the text and the stages' heads.
pub fn check_text<'a>(lints: &Lints, dockerfile: &Dockerfile, froms: impl Iterator<Item = &'a From>) {
    for node in &dockerfile.nodes {
        no_empty_continuation(lints, dockerfile, node);
        maintainer_deprecated(lints, node);
        invalid_definition_description(lints, dockerfile, node);
    }
    consistent_instruction_casing(lints, dockerfile);
    let mut names = HashSet::new();
    for from in froms {
        stage_name_casing(lints, from);
        from_as_casing(lints, from);
        reserved_stage_name(lints, from);
        duplicate_stage_name(lints, from, &mut names);
    }
}

/// Reported at the last line of the instruction, as in BuildKit, without heredocs.
fn no_empty_continuation(lints: &Lints, dockerfile: &Dockerfile, node: &Node) {
    if node.empty_continuation {
        let end = node.rest.span().end.max(node.keyword.span().end) as usize;
        let before = dockerfile.source.text.get(..end).unwrap_or_default();
        let start = before.rfind('\n').map_or(0, |newline| newline + 1).max(node.span.start as usize);
        let last_line = Span::new(start, end);
        lints.fire("NoEmptyContinuation", "Empty continuation line".to_string(), last_line, &node.comments);
    }
}

fn maintainer_deprecated(lints: &Lints, node: &Node) {
    if node.keyword.eq_ignore_ascii_case("MAINTAINER") {
        let message = "Maintainer instruction is deprecated in favor of using label".to_string();
        lints.fire("MaintainerDeprecated", message, node.span, &node.comments);
    }
}

fn is_lower(word: &str) -> bool {
    match word.is_ascii() {
        true => !word.bytes().any(|byte| byte.is_ascii_uppercase()),
        false => word.chars().all(|c| c.to_lowercase().eq([c])),
    }
}

fn is_upper(word: &str) -> bool {
    match word.is_ascii() {
        true => !word.bytes().any(|byte| byte.is_ascii_lowercase()),
        false => word.chars().all(|c| c.to_uppercase().eq([c])),
    }
}

/// Counted from the first FROM on, as in BuildKit; a tie is for upper case.
fn consistent_instruction_casing(lints: &Lints, dockerfile: &Dockerfile) {
    let in_stages = || dockerfile.nodes.iter().skip_while(|node| !node.keyword.eq_ignore_ascii_case("FROM"));
    let lower = in_stages().filter(|node| is_lower(&node.keyword)).count();
    let upper = in_stages().filter(|node| is_upper(&node.keyword)).count();
    let (fits, casing): (fn(&str) -> bool, _) =
        if lower > upper { (is_lower, "lowercase") } else { (is_upper, "uppercase") };
    for node in in_stages().filter(|node| !fits(&node.keyword)) {
        let message = format!("Command '{}' should match the case of the command majority ({casing})", node.keyword);
        lints.fire("ConsistentInstructionCasing", message, node.span, &node.comments);
    }
}

fn stage_name_casing(lints: &Lints, from: &From) {
    if let Some(written) = from.name_written.as_ref().filter(|name| !is_lower(name)) {
        let message = format!("Stage name '{written}' should be lowercase");
        lints.fire("StageNameCasing", message, from.span, &from.comments);
    }
}

fn from_as_casing(lints: &Lints, from: &From) {
    let Some(as_written) = &from.as_written else { return };
    let differs = is_lower(&from.keyword) && !is_lower(as_written) || is_upper(&from.keyword) && !is_upper(as_written);
    if differs {
        let message = format!("'{as_written}' and '{}' keywords' casing do not match", from.keyword);
        lints.fire("FromAsCasing", message, from.span, &from.comments);
    }
}

fn reserved_stage_name(lints: &Lints, from: &From) {
    if let Some(name) = from.name.as_ref().filter(|name| ["scratch", "context"].contains(&name.as_str())) {
        let message = format!("Stage name should not use the same name as reserved stage {name:?}");
        lints.fire("ReservedStageName", message, from.span, &from.comments);
    }
}

/// `earlier` are the names above; that of the FROM is added.
fn duplicate_stage_name<'a>(lints: &Lints, from: &'a From, earlier: &mut HashSet<&'a str>) {
    if let Some(name) = &from.name
        && !earlier.insert(name)
    {
        let message = format!("Duplicate stage name {name:?}, stage names should be unique");
        lints.fire("DuplicateStageName", message, from.span, &from.comments);
    }
}

/// Experimental: the last comment line above a FROM … AS or an ARG does not describe it.
fn invalid_definition_description(lints: &Lints, dockerfile: &Dockerfile, node: &Node) {
    let Some(comment) = node.comments.last() else { return };
    let keyword = node.keyword.to_ascii_uppercase();
    let words: Vec<&str> = node.rest.split_whitespace().collect();
    let name = |word: &Placed| word.split('=').next().unwrap_or_default().to_string();
    let names: Vec<String> = match (keyword.as_str(), words.as_slice()) {
        ("FROM", [_, _, name]) => vec![name.to_lowercase()],
        ("ARG", _) => split_assignments(&node.rest, dockerfile.directives.escape).iter().map(name).collect(),
        _ => return,
    };
    let described = comment.split(' ').next().unwrap_or_default();
    if names.is_empty() || names.iter().any(|name| name == described) {
        return;
    }
    let example = if names.len() == 1 { names[0].as_str() } else { "<arg_key>" };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    lints.fire("InvalidDefinitionDescription", message, node.span, &node.comments);
}
