//! The `name=value …` and legacy `name value` lines of ENV and LABEL (reference/dockerfile.md 1.6).

use super::some_argument;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::span::Span;
use crate::stage::Lowering;
use crate::words::{Lexer, split_assignments};

/// Name and value; not expanded if they have places.
#[derive(Clone, Debug, PartialEq)]
pub struct Pair<T = Placed> {
    /// Before `=`.
    pub name: T,
    /// After `=`.
    pub value: T,
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
        let pairs = Pairs::split(node, lexer, keyword)?;
        if let Some(pair) = pairs.pairs.iter().find(|pair| pair.name.is_empty()) {
            let (message, remark) = (format!("{keyword} names can not be blank"), "no name before it");
            let equals = Span { start: pair.value.span().start.saturating_sub(1), end: pair.value.span().start };
            return Err(Diagnostic::error(message, node.span).label(equals, remark));
        }
        Ok(pairs)
    }

    /// The pairs of a line, whose names may be empty. Fails where the form is wrong.
    pub fn split(node: &Node, lexer: Lexer, keyword: &str) -> Result<Pairs, Diagnostic> {
        let words = split_assignments(&node.rest, lexer.escape);
        let legacy = words.first().is_none_or(|word| !word.contains('='));
        let mut pairs = vec![];
        if legacy {
            let Some((name, value)) = node.rest.trim().split_once(char::is_whitespace) else {
                return Err(Diagnostic::error(format!("{keyword} must have two arguments"), node.span)
                    .label(node.rest.span(), "no value follows")
                    .help(format!("write {keyword} {}=value", node.rest.trim())));
            };
            pairs.push(Pair { name: node.rest.part(name), value: node.rest.part(value.trim_start()) });
        } else {
            let mut error: Option<Diagnostic> = None;
            for word in &words {
                if let Some((name, value)) = word.split_once('=') {
                    pairs.push(Pair { name: word.part(name), value: word.part(value) });
                    continue;
                }
                let message = || format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value");
                let error = error.get_or_insert_with(|| {
                    let error = Diagnostic::error(message(), node.span);
                    // `A=${B:?need B}` is two words.
                    let open = pairs.last().filter(|pair: &&Pair| {
                        pair.value.rfind("${").is_some_and(|at| !pair.value[at..].contains('}'))
                    });
                    match open {
                        Some(pair) => error.help(format!(
                            "a blank ends the word, also within ${{…}}: put double quotes around the value of {}",
                            pair.name
                        )),
                        None => error.help("put quotes around a value with blanks"),
                    }
                });
                error.labels.push((word.span(), "no `=`".to_string()));
            }
            if let Some(error) = error {
                return Err(error);
            }
        }
        Ok(Pairs { pairs, legacy })
    }

    /// Names and values expanded in the environment that the instruction began with.
    pub fn expand(&self, at: &mut Lowering<'_>) -> Result<Vec<Pair<String>>, Diagnostic> {
        let mut expanded = Vec::with_capacity(self.pairs.len());
        for pair in &self.pairs {
            expanded
                .push(Pair { name: at.expand(&pair.name)?.into_owned(), value: at.expand(&pair.value)?.into_owned() });
        }
        Ok(expanded)
    }
}

/// The text in the history, such as `ENV a=b c=d e`.
pub fn history_text(keyword: &str, pairs: &[Pair<String>]) -> String {
    let mut text = keyword.to_string();
    for pair in pairs {
        text.extend([" ", &pair.name, "=", &pair.value]);
    }
    text
}
