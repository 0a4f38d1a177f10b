//! Nodes -> instructions, grouped into stages. All errors of all nodes are found, also in stages that nobody needs.

use crate::ast::{Dockerfile, Node};
use crate::diagnostic::Diagnostic;
use crate::instruction::arg::Arg;
use crate::instruction::from::From;
use crate::instruction::{self, Command, Instruction, Typed};
use crate::span::{SourceText, Span};
use crate::stage::Lost;
use crate::words::Lexer;
use std::cell::OnceCell;
use std::rc::Rc;

/// A Dockerfile whose instructions have their types.
pub(crate) struct TypedFile {
    /// ARGs before the first FROM.
    pub globals: Vec<GlobalArg>,
    /// In file order.
    pub stages: Vec<TypedStage>,
    /// Variables of global ARGs that could not be read.
    pub lost: Lost,
}

/// An ARG before the first FROM.
pub(crate) struct GlobalArg {
    pub arg: Arg,
    pub span: Span,
    /// Comment lines directly above.
    pub comments: Vec<String>,
}

/// A FROM and what follows it.
pub(crate) struct TypedStage {
    pub from: Rc<From>,
    pub commands: Vec<Rc<Command>>,
    /// The triggers that its FROM has fired, kept for when the file is compiled again.
    pub fired: Rc<OnceCell<Fired>>,
    /// Variables of ENVs and ARGs that could not be read; if FROM could not be read, any.
    pub lost: Lost,
}

/// Triggers that a FROM has fired.
pub(crate) struct Fired {
    /// As the base has them.
    pub texts: Vec<String>,
    /// What they say.
    pub commands: Vec<Rc<Command>>,
}

/// Reads all nodes. What could be read is there beside the errors, so that more of them can be found; a FROM that could
/// not be read stands as one of an empty image.
pub(crate) fn read(dockerfile: &Dockerfile) -> (TypedFile, Vec<Diagnostic>) {
    let lexer = Lexer { escape: dockerfile.directives.escape };
    let mut file = TypedFile { globals: vec![], stages: vec![], lost: Lost::Nothing };
    let mut errors = vec![];
    for (index, node) in dockerfile.nodes.iter().enumerate() {
        let command = match instruction::parse(node, lexer) {
            Ok(Typed::Command(command)) => command,
            Ok(Typed::From(from)) => {
                let from = Rc::new(from);
                file.stages.push(TypedStage { from, commands: vec![], fired: Rc::default(), lost: Lost::Nothing });
                continue;
            }
            Err(error) => {
                let above = index.checked_sub(1).and_then(|above| dockerfile.nodes.get(above));
                let error = with_lost_continuation(error, node, above, dockerfile);
                errors.push(parse_error(error, &dockerfile.source));
                let is = |keyword: &str| node.keyword.eq_ignore_ascii_case(keyword);
                if is("FROM") {
                    let from = Rc::new(From::unread(node));
                    let lost = Lost::Unknown;
                    file.stages.push(TypedStage { from, commands: vec![], fired: Rc::default(), lost });
                } else if is("ENV") || is("ARG") || !instruction::KEYWORDS.iter().any(|keyword| is(keyword)) {
                    *file.stages.last_mut().map_or(&mut file.lost, |stage| &mut stage.lost) = Lost::Unknown;
                }
                continue;
            }
        };
        match (file.stages.last_mut(), command.instruction) {
            (Some(stage), instruction) => stage.commands.push(Rc::new(Command { instruction, ..command })),
            (None, Instruction::Arg(arg)) => {
                file.globals.push(GlobalArg { arg, span: command.span, comments: command.comments });
            }
            (None, _) => {
                let keyword = node.keyword.to_uppercase();
                let message = format!("no build stage in current context: {keyword} stands before the first FROM");
                let error = Diagnostic::error(message, node.span).label(node.keyword.span(), "no FROM above");
                errors.push(error.help("only ARG may stand before the first FROM"));
            }
        }
    }
    if file.stages.is_empty() && errors.is_empty() {
        let message = "dockerfile contains no stages to build";
        let error = Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) };
        errors.push(error.help("a Dockerfile begins with FROM"));
    }
    (file, errors)
}

/// Often an unknown instruction is the rest of the one directly above it.
fn with_lost_continuation(error: Diagnostic, node: &Node, above: Option<&Node>, dockerfile: &Dockerfile) -> Diagnostic {
    let is_known = instruction::KEYWORDS.iter().any(|keyword| node.keyword.eq_ignore_ascii_case(keyword));
    let Some(above) = above.filter(|above| !is_known && above.heredocs.is_empty()) else { return error };
    let between = dockerfile.source.text.get(above.span.end as usize..node.span.start as usize).unwrap_or_default();
    if between.matches('\n').count() != 1 {
        return error;
    }
    let (keyword, escape) = (above.keyword.to_uppercase(), dockerfile.directives.escape);
    error.help(format!("if it belongs to the {keyword} above, end the line before it with `{escape}`"))
}

/// An instruction that cannot be read counts as a parse error, as a line that cannot be.
fn parse_error(error: Diagnostic, source: &SourceText) -> Diagnostic {
    let Some(span) = error.span else { return error };
    let message = crate::parse::parse_error(source, span, &error.message);
    Diagnostic { message, ..error }
}
