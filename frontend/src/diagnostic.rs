//! What is wrong with a Dockerfile, as data. `builder::report` makes text of it.

use crate::placed::Placed;
use crate::span::Span;
use crate::words::WordError;

/// Stops the build, or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Nothing can be built.
    Error,
    /// A build check.
    Warning,
    /// A build check of kiln's own that nobody asked for by name: good to know, changes no exit status.
    Advice,
}

/// A message with places and advice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// Error or warning.
    pub severity: Severity,
    /// Name of the build check, such as `StageNameCasing`; `None` for errors.
    pub rule: Option<&'static str>,
    /// One sentence, lower case, no full stop; BuildKit's key words kept.
    pub message: String,
    /// The instruction (its first to last line); `None` when the file as a whole is meant.
    pub span: Option<Span>,
    /// Narrower places within, each with a remark (may be empty).
    pub labels: Vec<(Span, String)>,
    /// What to do next, one sentence each.
    pub help: Vec<String>,
}

impl Diagnostic {
    /// An error at an instruction.
    pub fn error(message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic {
            severity: Severity::Error,
            rule: None,
            message: message.into(),
            span: Some(span),
            labels: vec![],
            help: vec![],
        }
    }

    /// A build check's warning at an instruction.
    pub fn warning(rule: &'static str, message: impl Into<String>, span: Span) -> Diagnostic {
        Diagnostic { severity: Severity::Warning, rule: Some(rule), ..Diagnostic::error(message, span) }
    }

    /// Adds a remark at a narrower place.
    pub fn label(mut self, span: Span, remark: impl Into<String>) -> Diagnostic {
        self.labels.push((span, remark.into()));
        self
    }

    /// Adds the remark and the advice on a word that cannot be expanded, where it is wrong.
    pub fn word(self, error: &WordError, word: &Placed) -> Diagnostic {
        let error_with_place = self.label(word.place(error.at.clone()), error.kind.remark());
        match error.kind.help() {
            Some(help) => error_with_place.help(help),
            None => error_with_place,
        }
    }

    /// Adds advice.
    pub fn help(mut self, advice: impl Into<String>) -> Diagnostic {
        self.help.push(advice.into());
        self
    }
}
