//! The list of instructions. From it come the [`Instruction`] enum, the keyword table and the dispatch; each file
//! below holds one instruction: its fields, `parse` (from the AST, without any environment) and `lower` (into the
//! graph and the image config of the stage, see [`crate::stage`]).
//!
//! FROM is not among them: it opens a stage, which is `compile`'s business, so it only has a `parse`.

pub mod duration;
pub mod files;
pub mod flags;
pub mod from;
pub mod git_url;
pub mod pairs;
pub mod run_mount;

use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::span::{SourceText, Span};
use crate::stage::Lowering;
use crate::suggest::{Case, did_you_mean};
use crate::words::Lexer;
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

        fn parse_fields(keyword: &str, node: &Node, lexer: Lexer) -> Option<Result<Instruction, Diagnostic>> {
            match keyword {
                $($keyword => Some($module::$Type::parse(node, lexer).map(Instruction::$Type)),)*
                _ => None,
            }
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

/// An instruction of a stage and where it comes from.
#[derive(Clone, Debug, PartialEq)]
pub struct Command {
    /// What it says.
    pub instruction: Instruction,
    /// Keyword as written.
    pub keyword: String,
    /// The instruction on one line as written, without heredoc bodies; progress shows it.
    pub text: String,
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

/// Gives a node its type. `source` is the text that its spans point into.
pub fn parse(node: &Node, source: &SourceText, lexer: Lexer) -> Result<Typed, Diagnostic> {
    let keyword = node.keyword.to_ascii_uppercase();
    if keyword == "FROM" {
        return From::parse(node).map(Typed::From);
    }
    match parse_fields(&keyword, node, lexer) {
        Some(instruction) => Ok(Typed::Command(Command {
            instruction: instruction?,
            keyword: node.keyword.clone(),
            text: on_one_line(node, source, lexer.escape),
            span: node.span,
            comments: node.comments.clone(),
            is_trigger: false,
        })),
        None => {
            let message = format!("unknown instruction: {}", node.keyword);
            let message = did_you_mean(message, &node.keyword, KEYWORDS, Case::Insensitive);
            Err(Diagnostic::error(message, node.span).label(node.keyword_span, "not an instruction"))
        }
    }
}

/// The instruction as one line: keyword, flags as written, and the rest, with continuations joined.
fn on_one_line(node: &Node, source: &SourceText, escape: char) -> String {
    let flags_end = node.flags.last().map_or(node.keyword_span.end, |flag| flag.span.end);
    let between_end = if node.rest.is_empty() { flags_end } else { node.rest_span.start.max(flags_end) };
    let between = source.text.get(node.keyword_span.end as usize..between_end as usize).unwrap_or(" ");
    let mut text = node.keyword.clone();
    let mut lines = between.lines().enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if number > 0 && (line.trim_start().starts_with('#') || line.trim().is_empty() && lines.peek().is_some()) {
            continue;
        }
        let kept = match line.trim_end().strip_suffix(escape) {
            Some(before) if lines.peek().is_some() => before,
            _ => line,
        };
        text.push_str(kept);
    }
    text.push_str(&node.rest);
    text.trim_end().to_string()
}

/// An error at a node, shorthand for the files below.
pub(crate) fn fail<T>(node: &Node, message: impl Into<String>) -> Result<T, Diagnostic> {
    Err(Diagnostic::error(message, node.span))
}

/// The rest of the line of an instruction that takes one argument, the whole rest.
pub(crate) fn one_argument(node: &Node, keyword: &str) -> Result<String, Diagnostic> {
    match node.rest.trim() {
        "" => fail(node, format!("{keyword} requires exactly one argument")),
        rest => Ok(rest.to_string()),
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
    pub(crate) fn parse(node: &Node, rest: &str) -> Result<CommandLine, Diagnostic> {
        use crate::words::JsonForm;
        match crate::words::json_array(rest) {
            JsonForm::Strings(words) => Ok(CommandLine::Exec(words)),
            JsonForm::NotJson => Ok(CommandLine::Shell(rest.trim().to_string())),
            JsonForm::NotStrings => fail(node, NOT_STRINGS),
        }
    }

    /// The arguments, with the shell before them where the form asks for it.
    pub(crate) fn with_shell(&self, shell: Vec<String>) -> Vec<String> {
        match self {
            CommandLine::Exec(words) => words.clone(),
            CommandLine::Shell(text) => shell.into_iter().chain([text.clone()]).collect(),
        }
    }
}

/// What is wrong with `["a", 1]`.
pub(crate) const NOT_STRINGS: &str = "when using JSON array syntax, arrays must be comprised of strings only";
