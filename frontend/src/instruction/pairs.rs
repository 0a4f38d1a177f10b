//! The `name=value …` and legacy `name value` lines of ENV and LABEL (reference/dockerfile.md 1.6).

use super::{fail, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::stage::Lowering;
use crate::words::{Lexer, split_assignments};

/// Name and value, neither expanded.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair {
    /// Before `=`.
    pub name: String,
    /// After `=`.
    pub value: String,
}

/// The pairs of a line.
#[derive(Clone, Debug, PartialEq)]
pub struct Pairs {
    /// In order.
    pub pairs: Vec<Pair>,
    /// Written as `name value`, without `=`.
    pub legacy: bool,
}

impl Pairs {
    /// Parses the rest of an ENV or LABEL line.
    pub fn parse(node: &Node, lexer: Lexer, keyword: &str) -> Result<Pairs, Diagnostic> {
        some_argument(node, keyword)?;
        let words = split_assignments(&node.rest, lexer.escape);
        let legacy = words.first().is_none_or(|word| !word.contains('='));
        let mut pairs = vec![];
        if legacy {
            let Some((name, value)) = node.rest.trim().split_once(char::is_whitespace) else {
                return Err(Diagnostic::error(format!("{keyword} must have two arguments"), node.span)
                    .help(format!("write {keyword} name=value")));
            };
            pairs.push(Pair { name: name.to_string(), value: value.trim_start().to_string() });
        } else {
            for word in words {
                let Some((name, value)) = word.split_once('=') else {
                    let message = format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
                    return Err(Diagnostic::error(message, node.span).help("put quotes around a value with blanks"));
                };
                pairs.push(Pair { name: name.to_string(), value: value.to_string() });
            }
        }
        if pairs.iter().any(|pair| pair.name.is_empty()) {
            return fail(node, format!("{keyword} names can not be blank"));
        }
        Ok(Pairs { pairs, legacy })
    }

    /// Names and values expanded in the environment that the instruction began with.
    pub fn expand(&self, at: &mut Lowering<'_>) -> Result<Vec<Pair>, Diagnostic> {
        let mut expanded = vec![];
        for pair in &self.pairs {
            expanded.push(Pair { name: at.expand(&pair.name)?, value: at.expand(&pair.value)? });
        }
        Ok(expanded)
    }
}

/// The text in the history, such as `ENV a=b c=d e`.
pub fn history_text(keyword: &str, pairs: &[Pair]) -> String {
    pairs.iter().fold(keyword.to_string(), |text, pair| format!("{text} {}={}", pair.name, pair.value))
}
