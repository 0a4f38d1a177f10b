//! The list of instructions. From it come the [`Instruction`] enum, the keyword table and the dispatch; each file
//! below holds one instruction: its fields, `parse` (from the AST, without any environment) and `lower` (into the
//! graph and the image config of the stage, see [`crate::stage`]).
//!
//! FROM is not among them: it opens a stage, which is `compile`'s business, so it only has a `parse`.

pub mod duration;
pub mod files;
pub mod flags;
pub mod from;
pub mod pairs;
pub mod run_mount;

use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::span::Span;
use crate::stage::{Lowering, OpenStage};
use crate::suggest::{Case, did_you_mean};
use crate::words::{Lexer, NotWords, json_words};
use from::From;

macro_rules! instructions {
    ($($keyword:literal => $module:ident::$Type:ident,)*) => {
        $(pub mod $module;)*

        /// An instruction with its fields.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Instruction {
            $(
                #[doc = $keyword]
                $Type($module::$Type),
            )*
        }

        /// All keywords, in alphabetical order but for FROM, which comes last.
        pub const KEYWORDS: &[&str] = &[$($keyword,)* "FROM"];

        fn parse_fields(node: &Node, lexer: Lexer) -> Option<Result<Instruction, Diagnostic>> {
            $(if node.keyword.eq_ignore_ascii_case($keyword) {
                return Some($module::$Type::parse(node, lexer).map(Instruction::$Type));
            })*
            None
        }

        impl Instruction {
            /// As in the keyword table.
            pub fn keyword(&self) -> &'static str {
                match self {
                    $(Instruction::$Type(_) => $keyword,)*
                }
            }

            /// Applies the instruction to the open stage.
            pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
                match self {
                    $(Instruction::$Type(instruction) => instruction.lower(at),)*
                }
            }
        }
    };
}

instructions! {
    "ADD" => add::Add,
    "ARG" => arg::Arg,
    "CMD" => cmd::Cmd,
    "COPY" => copy::Copy,
    "ENTRYPOINT" => entrypoint::Entrypoint,
    "ENV" => env::Env,
    "EXPOSE" => expose::Expose,
    "HEALTHCHECK" => healthcheck::Healthcheck,
    "LABEL" => label::Label,
    "MAINTAINER" => maintainer::Maintainer,
    "ONBUILD" => onbuild::Onbuild,
    "RUN" => run::Run,
    "SHELL" => shell::Shell,
    "STOPSIGNAL" => stopsignal::Stopsignal,
    "USER" => user::User,
    "VOLUME" => volume::Volume,
    "WORKDIR" => workdir::Workdir,
}

impl Instruction {
    /// Whether it adds a vertex to the graph.
    pub fn makes_step(&self) -> bool {
        matches!(self, Instruction::Run(_) | Instruction::Copy(_) | Instruction::Add(_) | Instruction::Workdir(_))
    }
}

/// An instruction of a stage and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// What it says.
    pub instruction: Instruction,
    /// Keyword as written.
    pub keyword: Placed,
    /// The instruction on one line as written, without heredoc bodies; progress shows it.
    pub text: Placed,
    /// Its lines; for a trigger, those of the FROM that fired it.
    pub span: Span,
    /// Comment lines directly above.
    pub comments: Vec<String>,
    /// It is an ONBUILD trigger of the base.
    pub is_trigger: bool,
}

/// A node, typed.
#[derive(Clone, Debug, PartialEq)]
pub enum Typed {
    /// Opens a stage.
    From(From),
    /// Belongs to a stage.
    Command(Command),
}

/// Gives a node its type.
pub fn parse(node: &Node, lexer: Lexer) -> Result<Typed, Diagnostic> {
    if node.keyword.eq_ignore_ascii_case("FROM") {
        return From::parse(node).map(Typed::From);
    }
    match parse_fields(node, lexer) {
        Some(instruction) => Ok(Typed::Command(Command {
            instruction: instruction?,
            keyword: node.keyword.clone(),
            text: node.line.clone(),
            span: node.span,
            comments: node.comments.clone(),
            is_trigger: false,
        })),
        None => {
            let message = format!("unknown instruction: {}", node.keyword);
            let message = did_you_mean(message, &node.keyword, KEYWORDS, Case::Insensitive);
            Err(Diagnostic::error(message, node.span).label(node.keyword.span(), "not an instruction"))
        }
    }
}

/// An error at a node, shorthand for the files below.
pub(crate) fn fail<T>(node: &Node, message: impl Into<String>) -> Result<T, Diagnostic> {
    Err(Diagnostic::error(message, node.span))
}

/// An error at one word of a node, with a remark beside it, which may be empty.
pub(crate) fn fail_at<T>(
    node: &Node,
    word: &Placed,
    message: impl Into<String>,
    remark: impl Into<String>,
) -> Result<T, Diagnostic> {
    Err(Diagnostic::error(message, node.span).label(word.span(), remark))
}

/// The rest of the line of an instruction that takes one argument, the whole rest.
pub(crate) fn one_argument(node: &Node, keyword: &str) -> Result<Placed, Diagnostic> {
    match node.rest.trim() {
        "" => fail(node, format!("{keyword} requires exactly one argument")),
        rest => Ok(node.rest.part(rest)),
    }
}

/// Refuses an instruction without arguments.
pub(crate) fn some_argument(node: &Node, keyword: &str) -> Result<(), Diagnostic> {
    match node.rest.trim() {
        "" => fail(node, format!("{keyword} requires at least one argument")),
        _ => Ok(()),
    }
}

/// A command line in shell or exec form (RUN, CMD, ENTRYPOINT).
#[derive(Clone, Debug, PartialEq)]
pub enum CommandLine {
    /// Text for the stage's shell.
    Shell(String),
    /// Program and arguments.
    Exec(Vec<String>),
}

impl CommandLine {
    pub(crate) fn parse(node: &Node, rest: &Placed) -> Result<CommandLine, Diagnostic> {
        match json_words(rest) {
            Ok(words) => Ok(CommandLine::Exec(words.into_iter().map(Placed::into_string).collect())),
            Err(NotWords::NotJson) => Ok(CommandLine::Shell(rest.trim().to_string())),
            Err(NotWords::NotStrings(span)) => Err(not_strings(node, span)),
        }
    }

    /// The arguments, with the stage's shell before them where the form asks for it.
    pub(crate) fn with_shell(&self, stage: &OpenStage) -> Vec<String> {
        match self {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => stage.in_shell(text.clone()),
        }
    }
}

/// The error for `["a", 1]`.
pub(crate) fn not_strings(node: &Node, element: Span) -> Diagnostic {
    Diagnostic::error(NOT_STRINGS, node.span).label(element, "not a string: put it in double quotes")
}

/// What is wrong with `["a", 1]`.
pub(crate) const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";
