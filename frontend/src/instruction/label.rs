//! `LABEL name=value …` (reference/dockerfile.md 2.3).

use super::flags::Flags;
use super::pairs::{Pairs, history_text};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::lint;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of a LABEL.
#[derive(Clone, Debug, PartialEq)]
pub struct Label {
    /// What it sets.
    pub pairs: Pairs,
}

impl Label {
    /// Parses the node.
    pub fn parse(node: &Node, lexer: Lexer) -> Result<Label, Diagnostic> {
        Flags::check(node, &[])?;
        Ok(Label { pairs: Pairs::parse(node, lexer, "LABEL")? })
    }

    /// Sets the labels.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let pairs = self.pairs.expand(at)?;
        if self.pairs.legacy {
            lint::legacy_key_value_format(at);
        }
        for pair in &pairs {
            at.stage.config.config.labels.insert(pair.name.clone(), pair.value.clone());
        }
        at.history(history_text("LABEL", &pairs), LayerOf::Nothing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn labels() {
        let check = |text: &str, expect: &[(&str, &str)]| {
            let labels: Vec<_> = config(text).config.labels.into_iter().collect();
            let expect: Vec<_> = expect.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!(labels, expect, "{text}");
        };
        check("FROM a\nLABEL b=2 \"a b\"=$BASE", &[("a b", "1"), ("b", "2")]);
        check("FROM a\nLABEL version 0.1", &[("version", "0.1")]);
        check_history("FROM a\nLABEL a=\"x y\" b=z", &["LABEL a=x y b=z (empty)"]);
        check_errors("FROM a\nLABEL a=1 b", &[
            "Syntax error - can't find = in \"b\". Must be of the form: name=value",
        ]);
    }
}
