//! Build checks: rules that warn about what is legal and probably not meant (reference/dockerfile.md 9.2).
//!
//! A rule is a function that is called where the instruction is in hand that it looks at: those about the text from
//! [`check_text`], on all instructions; those about what a stage does from its `lower`, on reachable stages only.

pub mod config;
mod froms;
mod instructions;
mod names;

pub use froms::*;
pub use instructions::*;
pub use names::*;

use crate::diagnostic::Diagnostic;
use crate::span::Span;
use config::Config;
use std::cell::RefCell;

/// Collects the checks that fire.
#[derive(Debug, Default)]
pub struct Lints {
    config: Config,
    fired: RefCell<Vec<Diagnostic>>,
}

impl Lints {
    /// Nothing has fired.
    pub fn new(config: Config) -> Lints {
        Lints { config, fired: RefCell::default() }
    }

    /// For what is compiled again: nothing fires.
    pub fn muted() -> Lints {
        Lints::new(Config::skip_all())
    }

    /// A check fires at an instruction, unless it is switched off for the file or by the comments above it.
    pub fn fire(&self, rule: &'static str, message: String, span: Span, comments: &[String]) {
        self.fire_kind(rule, message, span, comments, false);
    }

    /// As [`Lints::fire`], for a rule that must be switched on.
    pub fn fire_experimental(&self, rule: &'static str, message: String, span: Span, comments: &[String]) {
        self.fire_kind(rule, message, span, comments, true);
    }

    fn fire_kind(&self, rule: &'static str, message: String, span: Span, comments: &[String], experimental: bool) {
        if !self.config.with_comments(comments).is_on(rule, experimental) {
            return;
        }
        let warning = Diagnostic::warning(rule, message, span);
        let warning = match rule_url(rule) {
            Some(url) => warning.help(url),
            None => warning,
        };
        let mut fired = self.fired.borrow_mut();
        if !fired.contains(&warning) {
            fired.push(warning);
        }
    }

    /// What fired, in file order; and the error that it is, where the configuration says so.
    pub fn finish(self) -> (Vec<Diagnostic>, Option<Diagnostic>) {
        let mut fired = self.fired.into_inner();
        fired.sort_by_key(|warning| warning.span);
        let mut rules: Vec<&str> = fired.iter().filter_map(|warning| warning.rule).collect();
        rules.sort_unstable();
        rules.dedup();
        let error = (self.config.is_error && !rules.is_empty()).then(|| {
            let message = format!("lint violation found for rules: {}", rules.join(", "));
            Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) }
        });
        (fired, error)
    }
}

/// The page that explains a rule.
pub fn rule_url(rule: &str) -> Option<String> {
    if rule == "InvalidBaseImagePlatform" {
        return None;
    }
    let mut words = String::new();
    let mut previous_is_lower = false;
    for (index, c) in rule.char_indices() {
        let next_is_lower = rule[index..].chars().nth(1).is_some_and(char::is_lowercase);
        if c.is_uppercase() && index > 0 && (previous_is_lower || next_is_lower) {
            words.push('-');
        }
        previous_is_lower = c.is_lowercase();
        words.extend(c.to_lowercase());
    }
    Some(format!("https://docs.docker.com/go/dockerfile/rule/{words}/"))
}

#[cfg(test)]
mod tests;
