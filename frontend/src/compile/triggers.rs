//! ONBUILD triggers of a base: found, parsed, and then run as if they stood below FROM (reference/dockerfile.md 4.7).

use super::Images;
use super::stages::{Origin, StageGraph};
use crate::ast::Node;
use crate::diagnostic::{Diagnostic, Severity};
use crate::instruction::from::From;
use crate::instruction::{self, Command, Instruction, Typed};
use crate::span::SourceText;
use crate::words::Lexer;

/// The texts of a stage's triggers; `None` while the config of its base image is not known.
pub(super) fn of_base<'a>(graph: &'a StageGraph, index: usize, images: &'a Images) -> Option<Vec<&'a str>> {
    match &graph.stages[index].base {
        Origin::Stage(base) => {
            let base = &graph.stages[*base];
            if base.replaced_by.is_some() {
                return Some(vec![]);
            }
            let triggers = base.commands.iter().filter_map(|planned| match &planned.command.instruction {
                Instruction::Onbuild(onbuild) => Some(onbuild.trigger.as_str()),
                _ => None,
            });
            Some(triggers.collect())
        }
        Origin::Outside(outside) => match outside.info(images) {
            Some(info) => Some(info.config.config.on_build.iter().map(String::as_str).collect()),
            // Only images have configs.
            None if matches!(outside.kind, super::outside::Kind::Image(_)) => None,
            None => Some(vec![]),
        },
    }
}

/// Parses triggers. Errors stand at the FROM, with the trigger's text beside them.
pub(super) fn parse(triggers: &[&str], from: &From) -> Result<Vec<Command>, Diagnostic> {
    let mut commands = Vec::with_capacity(triggers.len());
    for &text in triggers {
        let fail = |message: &str| with_text(Diagnostic::error(message, from.span), text);
        let source = SourceText { name: "ONBUILD".to_string(), text: text.to_string() };
        let parsed = crate::parse::parse(source);
        if let Some(error) = parsed.diagnostics.iter().find(|found| found.severity == Severity::Error) {
            return Err(fail(&error.message));
        }
        let Ok([node]) = <[Node; 1]>::try_from(parsed.dockerfile.nodes) else {
            return Err(fail("onbuild trigger should be a single expression"));
        };
        let lexer = Lexer { escape: parsed.dockerfile.directives.escape };
        // The trigger's words stand in another file.
        let typed = instruction::parse(&node.moved(from.span), lexer);
        match typed.map_err(|error| with_text(error, text))? {
            Typed::Command(command) => {
                let comments = from.comments.clone();
                commands.push(Command { span: from.span, is_trigger: true, comments, ..command });
            }
            Typed::From(_) => return Err(fail("FROM isn't allowed as an ONBUILD trigger")),
        }
    }
    Ok(commands)
}

/// An error at the FROM, with the trigger that it is about.
pub(super) fn with_text(error: Diagnostic, trigger: &str) -> Diagnostic {
    let first_line = trigger.lines().next().unwrap_or_default();
    Diagnostic { labels: vec![], ..error }.help(format!("the base has the trigger: ONBUILD {first_line}"))
}
