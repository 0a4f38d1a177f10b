//! `MAINTAINER name` (deprecated; reference/dockerfile.md 2.14).

use super::flags::Flags;
use super::one_argument;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of a MAINTAINER.
#[derive(Clone, Debug, PartialEq)]
pub struct Maintainer {
    /// As written.
    pub author: String,
}

impl Maintainer {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Maintainer, Diagnostic> {
        let author = one_argument(node, "MAINTAINER")?;
        Flags::check(node, &[])?;
        Ok(Maintainer { author: author.into_string() })
    }

    /// Sets the image's author.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        at.stage.config.author = self.author.clone();
        at.history(format!("MAINTAINER {}", self.author), LayerOf::Nothing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn author() {
        assert_eq!(config("FROM a\nMAINTAINER me <me@x>").author, "me <me@x>");
        check_history("FROM a\nMAINTAINER me  $X", &["MAINTAINER me  $X (empty)"]);
        check_errors("FROM a\nMAINTAINER", &["MAINTAINER requires exactly one argument"]);
    }
}
