//! A failed build as text: picks what `report` draws from the build's error.

use crate::export::ExportError;
use crate::pipeline::{BuildError, Place};
use crate::progress::chain;
use crate::progress::render::{self, Summary};
use crate::report::{self, Detail, Drawing, Failure, Look};
use frontend::diagnostic::{Diagnostic, Severity};
use frontend::span::Span;
use std::io::IsTerminal;

/// How standard error is to look: colours for a terminal, unless `NO_COLOR` or `CLICOLOR=0` says otherwise; always with
/// `CLICOLOR_FORCE`.
pub fn look() -> Look {
    let is_set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    let is_zero = |name: &str| std::env::var_os(name).is_some_and(|value| value == "0");
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) || is_zero("CLICOLOR");
    let colour = !is_off && std::io::stderr().is_terminal() || is_set("CLICOLOR_FORCE");
    Look { colour, width: render::stderr_size().width }
}

/// Build checks that fired before the Dockerfile turned out to be wrong; those that are what is wrong with it, too.
pub fn warnings(error: &BuildError, detail: Detail, look: Look) -> Option<String> {
    match error {
        BuildError::Diagnostics { text, list, .. } => Some(report::warnings(text, list, detail, look.colour)),
        _ => None,
    }
}

/// What is printed on standard error.
pub fn text(error: &BuildError, summary: &Summary, look: Look) -> String {
    let message = chain(error);
    let failure = Failure { steps: &[], places: &[], drawings: &[], message: &message, help: &[] };
    match error {
        BuildError::Diagnostics { text, list, phase } => {
            let is_error = |found: &&Diagnostic| found.severity == Severity::Error;
            let errors: Vec<Diagnostic> = list.iter().filter(is_error).cloned().collect();
            report::diagnostics(text, &errors, *phase, look)
        }
        BuildError::Resolve { text, list } => {
            let drawings: Vec<_> = list
                .iter()
                .map(|missing| {
                    let near = missing.near.as_ref().map(|name| format!("did you mean {name}?"));
                    let help = missing.error.help().into_iter().chain(missing.advice.clone());
                    let diagnostic = diagnostic(chain(&missing.error), missing.place, near.unwrap_or_default());
                    Drawing { source: text, diagnostic: help.fold(diagnostic, Diagnostic::help) }
                })
                .collect();
            let message = list.first().map(|missing| chain(&missing.error)).unwrap_or_default();
            report::failure(&Failure { drawings: &drawings, message: &message, ..failure }, look)
        }
        BuildError::Step { text, place, name, error } if error.has_run() => {
            // Only a command has output worth repeating; other steps have said all there is in their error.
            let ran = summary.failed.iter().filter(|step| step.name == *name && !step.log.is_empty());
            let steps: Vec<_> = ran.cloned().collect();
            let place: Vec<_> = place.span.iter().map(|span| (text.as_ref(), *span)).collect();
            let (message, help) = (chain(error.as_ref()), error.help());
            report::failure(&Failure { steps: &steps, places: &place, message: &message, help: &help, ..failure }, look)
        }
        BuildError::Step { text, place, error, .. } => {
            let message = chain(error.as_ref());
            let (title, remark) = error.in_short();
            let drawn = diagnostic(title.unwrap_or_else(|| message.clone()), *place, remark);
            let diagnostic = error.help().into_iter().fold(drawn, Diagnostic::help);
            let drawings = [Drawing { source: text, diagnostic }];
            report::failure(&Failure { drawings: &drawings, message: &message, ..failure }, look)
        }
        BuildError::Dockerfile(error) => report::failure(&Failure { help: &error.help(), ..failure }, look),
        BuildError::Export(ExportError::NotPushed(error)) => {
            report::failure(&Failure { help: &error.help(), ..failure }, look)
        }
        BuildError::Export(error) => {
            let help: Vec<String> = error.help().into_iter().collect();
            report::failure(&Failure { help: &help, ..failure }, look)
        }
        BuildError::Remote(error) => report::failure(&Failure { help: &error.help(), ..failure }, look),
        _ => report::failure(&failure, look),
    }
}

fn diagnostic(message: String, place: Place, remark: String) -> Diagnostic {
    let error = Diagnostic { span: place.span, ..Diagnostic::error(message, Span::default()) };
    match place.word {
        Some(word) => error.label(word, remark),
        None if remark.is_empty() => error,
        None => error.help(remark),
    }
}
