//! `SHELL ["program", "argument"]` (reference/dockerfile.md 2.12).

use super::flags::Flags;
use super::{fail, not_strings, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering};
use crate::words::{Lexer, NotWords, json_fault, json_words};

/// The fields of a SHELL.
#[derive(Clone, Debug, PartialEq)]
pub struct Shell {
    /// Program and arguments before the text; not empty.
    pub words: Vec<String>,
}

impl Shell {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Shell, Diagnostic> {
        Flags::check(node, &[])?;
        some_argument(node, "SHELL")?;
        match json_words(&node.rest) {
            Ok(words) if words.is_empty() => fail(node, "SHELL requires at least one argument"),
            Ok(words) => Ok(Shell { words: words.into_iter().map(Placed::into_string).collect() }),
            Err(NotWords::NotStrings(span)) => Err(not_strings(node, span)),
            Err(NotWords::NotJson) => {
                let (place, remark) = json_fault(&node.rest)
                    .filter(|_| node.rest.starts_with('['))
                    .unwrap_or((node.rest.span(), "not a JSON array"));
                let error = Diagnostic::error("SHELL requires the arguments to be in JSON form", node.span);
                Err(error.label(place, remark).help(r#"write SHELL ["/bin/sh", "-c"]"#))
            }
        }
    }

    /// Sets the shell of what follows.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        at.stage.config.config.shell = self.words.clone();
        at.history(format!("SHELL [{}]", self.words.join(" ")), LayerOf::Nothing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn shells() {
        check_history("FROM a\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\nRUN x", &[
            "SHELL [/bin/sh -e -c] (empty)",
            "RUN /bin/sh -e -c x # buildkit",
        ]);
        assert_eq!(config("FROM a\nSHELL [\"x\"]").config.shell, ["x"]);
        check_errors("FROM a\nSHELL []", &["SHELL requires at least one argument"]);
        check_errors("FROM a\nSHELL", &["SHELL requires at least one argument"]);
        check_errors("FROM a\nSHELL /bin/sh -c", &["SHELL requires the arguments to be in JSON form"]);
    }
}
