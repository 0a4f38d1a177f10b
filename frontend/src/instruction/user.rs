//! `USER name[:group]` (reference/dockerfile.md 2.10). Who that is, only a step that runs finds out.

use super::flags::Flags;
use super::one_argument;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of a USER.
#[derive(Clone, Debug, PartialEq)]
pub struct User {
    /// Not yet expanded.
    pub user: Placed,
}

impl User {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<User, Diagnostic> {
        let user = one_argument(node, "USER")?;
        Flags::check(node, &[])?;
        Ok(User { user })
    }

    /// Sets the user of later steps and of the image.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let user = at.expand(&self.user)?;
        at.history(format!("USER {user}"), LayerOf::Nothing);
        at.stage.config.config.user = user.into_owned();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn users() {
        assert_eq!(config("FROM a\nENV U=bob\nUSER $U:1").config.user, "bob:1");
        check_history("FROM a\nUSER bob", &["USER bob (empty)"]);
        assert_eq!(last_exec(&plan("FROM a\nUSER bob\nRUN x")).user, "bob");
        check_errors("FROM a\nUSER", &["USER requires exactly one argument"]);
    }
}
