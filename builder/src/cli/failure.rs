//! A failed build as text: picks what `report` draws from the build's error.

use crate::pipeline::BuildError;
use crate::progress::chain;
use crate::progress::render::Summary;
use crate::report::{self, Failure};

/// What is printed on standard error.
pub fn text(error: &BuildError, summary: &Summary, colour: bool) -> String {
    let place = match error {
        BuildError::Diagnostics { text, list, phase } => return report::diagnostics(text, list, *phase, colour),
        BuildError::Resolve { text, span, .. } | BuildError::Step { text, span, .. } => {
            span.map(|span| (text.as_ref(), span))
        }
        _ => None,
    };
    let (message, help) = match error {
        BuildError::Step { error, .. } => (chain(error), error.help()),
        BuildError::Dockerfile(error) => (chain(error), error.help()),
        BuildError::Resolve { error, .. } => (chain(error), error.help().into_iter().collect()),
        error => (chain(error), vec![]),
    };
    // Only a command has output worth repeating; other steps have said all there is in their error.
    let ran = |name: &str| matches!(error, BuildError::Step { name: failed, .. } if failed == name);
    let steps: Vec<_> = summary.failed.iter().filter(|step| ran(&step.name) && !step.log.is_empty()).cloned().collect();
    report::failure(&Failure { steps: &steps, places: place.as_slice(), message: &message, help: &help })
}
