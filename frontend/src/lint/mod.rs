//! Build checks: rules that warn about what is legal and probably not meant (reference/dockerfile.md 9.2).
//!
//! A rule is a function that is called where the instruction is in hand that it looks at: those about the text from
//! [`check_text`], on all instructions; those about what a stage does from its `lower`, on reachable stages only.

pub mod config;
mod froms;
mod instructions;
mod names;
pub mod own;
pub mod rules;

pub use froms::*;
pub use instructions::*;
pub use names::*;
pub use rules::{Origin, RULES, Rule, rule};

use crate::diagnostic::{Diagnostic, Severity};
use crate::span::Span;
use config::{Config, Verdict};
use std::cell::RefCell;

/// Collects the checks that fire.
#[derive(Debug, Default)]
pub struct Lints {
    config: Config,
    is_muted: bool,
    fired: RefCell<Vec<Diagnostic>>,
}

/// What fired.
#[derive(Debug, Default)]
pub struct Fired {
    /// In file order.
    pub warnings: Vec<Diagnostic>,
    /// In file order; of kiln's own rules only.
    pub advice: Vec<Diagnostic>,
    /// The error that the warnings are, where the configuration says so.
    pub error: Option<Diagnostic>,
}

impl Lints {
    /// Nothing has fired.
    pub fn new(config: Config) -> Lints {
        Lints { config, is_muted: false, fired: RefCell::default() }
    }

    /// For what is compiled again: nothing fires.
    pub fn muted() -> Lints {
        Lints { is_muted: true, ..Lints::default() }
    }

    /// A check fires at an instruction, unless it is switched off for the file or by the comments above it.
    pub fn fire(&self, name: &'static str, message: String, span: Span, comments: &[String]) {
        if self.is_muted {
            return;
        }
        let Some(rule) = rule(name) else {
            debug_assert!(false, "{name} is not in the list of rules");
            return;
        };
        let severity = match self.config.with_comments(comments).verdict(rule) {
            Verdict::Off => return,
            Verdict::Advice => Severity::Advice,
            Verdict::Warning => Severity::Warning,
        };
        let found = Diagnostic { severity, ..Diagnostic::warning(rule.name, message, span) };
        let mut fired = self.fired.borrow_mut();
        // The same words about the same instruction say nothing new. BuildKit's rules speak once for each occurrence.
        if rule.origin == Origin::BuildKit || !fired.contains(&found) {
            fired.push(found);
        }
    }

    /// Whether some of kiln's own rules may fire at instructions with these comments, so that it is worth looking.
    pub fn wants_own<'a>(&self, mut comments: impl Iterator<Item = &'a [String]>) -> bool {
        !self.is_muted
            && (self.config.may_have_own() || comments.any(|above| self.config.with_comments(above).may_have_own()))
    }

    /// What has fired here, and then what has fired there.
    pub fn then(self, later: Lints) -> Lints {
        self.fired.borrow_mut().extend(later.fired.into_inner());
        self
    }

    /// Ends collecting.
    pub fn finish(self) -> Fired {
        let mut fired = self.fired.into_inner();
        fired.sort_by_key(|found| found.span.map(|span| span.start));
        let (warnings, advice): (Vec<_>, Vec<_>) =
            fired.into_iter().partition(|found| found.severity == Severity::Warning);
        let mut rules: Vec<&str> = warnings.iter().filter_map(|warning| warning.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let error = (self.config.is_error && !rules.is_empty()).then(|| {
            let message = format!("lint violation found for rules: {}", rules.join(", "));
            Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) }
        });
        Fired { warnings, advice, error }
    }
}

#[cfg(test)]
mod documented;
#[cfg(test)]
mod tests;
