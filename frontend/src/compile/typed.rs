//! Nodes -> instructions, grouped into stages. All errors of all nodes are found, also in stages that nobody needs.

use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;
use crate::instruction::arg::Arg;
use crate::instruction::from::From;
use crate::instruction::{self, Command, Instruction, Typed};
use crate::span::{SourceText, Span};
use crate::words::Lexer;
use std::rc::Rc;

/// A Dockerfile whose instructions have their types.
pub(super) struct TypedFile {
    /// ARGs before the first FROM.
    pub globals: Vec<(Arg, Span)>,
    /// In file order, at least one.
    pub stages: Vec<TypedStage>,
}

/// A FROM and what follows it.
pub(super) struct TypedStage {
    pub from: From,
    pub commands: Vec<Rc<Command>>,
}

pub(super) fn read(dockerfile: &Dockerfile) -> Result<TypedFile, Vec<Diagnostic>> {
    let lexer = Lexer { escape: dockerfile.directives.escape };
    let mut file = TypedFile { globals: vec![], stages: vec![] };
    let mut errors = vec![];
    let mut from_failed = false;
    for node in &dockerfile.nodes {
        let command = match instruction::parse(node, &dockerfile.source, lexer) {
            Ok(Typed::Command(command)) => command,
            Ok(Typed::From(from)) => {
                file.stages.push(TypedStage { from, commands: vec![] });
                continue;
            }
            Err(error) => {
                from_failed |= node.keyword.eq_ignore_ascii_case("FROM");
                errors.push(parse_error(error, &dockerfile.source));
                continue;
            }
        };
        match (file.stages.last_mut(), command.instruction) {
            (Some(stage), instruction) => stage.commands.push(Rc::new(Command { instruction, ..command })),
            (None, Instruction::Arg(arg)) => file.globals.push((arg, command.span)),
            // What follows a FROM that could not be read is not before the first FROM.
            (None, _) if from_failed => {}
            (None, _) => {
                let keyword = node.keyword.to_uppercase();
                let message = format!("no build stage in current context: {keyword} stands before the first FROM");
                let error = Diagnostic::error(message, node.span).help("only ARG may stand before the first FROM");
                errors.push(error);
            }
        }
    }
    if file.stages.is_empty() && errors.is_empty() {
        let message = "dockerfile contains no stages to build";
        let error = Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) };
        errors.push(error.help("a Dockerfile begins with FROM"));
    }
    if errors.is_empty() { Ok(file) } else { Err(errors) }
}

/// An instruction that cannot be read counts as a parse error, as a line that cannot be.
fn parse_error(error: Diagnostic, source: &SourceText) -> Diagnostic {
    let Some(span) = error.span else { return error };
    let message = crate::parse::parse_error(source, span, &error.message);
    Diagnostic { message, ..error }
}
