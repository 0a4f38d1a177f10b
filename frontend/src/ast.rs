//! The Dockerfile as written: instructions as keyword, flags, rest of line and heredocs. Plain data with spans.
//!
//! What a keyword means, and whether it is known, is `instruction/`'s business.

use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::span::{SourceText, Span};
use std::sync::Arc;

/// A parsed Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The text that spans point into.
    pub source: Arc<SourceText>,
    /// Parser directives.
    pub directives: Directives,
    /// Instructions in file order.
    pub nodes: Vec<Node>,
}

/// Parser directives at the top of the file.
#[derive(Clone, Debug, PartialEq)]
pub struct Directives {
    /// `\` or a backtick.
    pub escape: char,
    /// `# syntax=`: image reference and whatever follows it.
    pub syntax: Option<(String, Span)>,
    /// `# check=`.
    pub check: Option<(String, Span)>,
}

/// An instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// As written, such as `run`.
    pub keyword: Placed,
    /// Leading `--name[=value]` words, quotes and escapes removed. Empty for ARG, STOPSIGNAL and `HEALTHCHECK NONE`.
    pub flags: Vec<Flag>,
    /// The logical line after keyword and flags, continuations joined, trimmed; heredoc tokens still in it.
    pub rest: Placed,
    /// The whole logical line as written, continuations joined, trimmed.
    pub line: Placed,
    /// White space after `line`, which ONBUILD stores with its trigger.
    pub blanks_at_end: String,
    /// For RUN, COPY and ADD (also below ONBUILD): the heredocs whose tokens stand in `rest`, in order.
    pub heredocs: Vec<Heredoc>,
    /// Comment lines directly above, `# ` removed.
    pub comments: Vec<String>,
    /// From the first to the last physical line, heredoc bodies and terminators included, final newline excluded.
    pub span: Span,
    /// An empty line stood within a continuation.
    pub empty_continuation: bool,
}

impl Node {
    /// The same instruction, all of whose words stand for one place: that of the FROM that an ONBUILD trigger fires at.
    pub(crate) fn moved(mut self, span: Span) -> Node {
        (self.span, self.keyword, self.rest) = (span, self.keyword.moved(span), self.rest.moved(span));
        for flag in &mut self.flags {
            (flag.span, flag.name_span, flag.name) = (span, span, flag.name.moved(span));
            flag.value = flag.value.as_ref().map(|value| value.moved(span));
        }
        for heredoc in &mut self.heredocs {
            (heredoc.token, heredoc.body) = (heredoc.token.moved(span), heredoc.body.moved(span));
        }
        self
    }
}

/// A flag of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub struct Flag {
    /// Without `--`.
    pub name: Placed,
    /// After `=`; `None` when there is no `=`.
    pub value: Option<Placed>,
    /// The word.
    pub span: Span,
    /// `--name` of the word.
    pub name_span: Span,
}

/// A here-document.
#[derive(Clone, Debug, PartialEq)]
pub struct Heredoc {
    /// Delimiter, quotes removed.
    pub name: String,
    /// Descriptor number before `<<`, 0 if none is written.
    pub fd: u32,
    /// The delimiter has no quotes: variables in the body expand (COPY, ADD).
    pub expand: bool,
    /// `<<-`: leading tabs of body lines are to be removed.
    pub strip_tabs: bool,
    /// Raw body as in the file, tabs and CRs kept, each line with its newline.
    pub body: Placed,
    /// The terminator line as written, without newline.
    pub terminator: String,
    /// The token in the instruction line, as written, such as `<<-"EOF"`.
    pub token: Placed,
}

/// What parsing gives: as much as could be read, and everything that is wrong with it.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Nodes that could be read.
    pub dockerfile: Dockerfile,
    /// Errors and warnings in file order.
    pub diagnostics: Vec<Diagnostic>,
}
