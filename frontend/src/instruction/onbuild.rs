//! `ONBUILD instruction` (reference/dockerfile.md 2.15): text that the image keeps for those who build on it. How
//! triggers are spliced in is in `compile::triggers`.

use super::flags::Flags;
use super::{fail_at, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::stage::Lowering;
use crate::words::Lexer;

/// The fields of an ONBUILD.
#[derive(Clone, Debug, PartialEq)]
pub struct Onbuild {
    /// The instruction as one text, heredocs included.
    pub trigger: String,
}

impl Onbuild {
    /// Parses the node. Nothing but the keyword of the trigger is looked at.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Onbuild, Diagnostic> {
        some_argument(node, "ONBUILD")?;
        Flags::check(node, &[])?;
        let first = node.rest.part(node.rest.split_whitespace().next().unwrap_or_default());
        match first.to_uppercase().as_str() {
            "ONBUILD" => return fail_at(node, &first, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", ""),
            upper @ ("FROM" | "MAINTAINER") => {
                return fail_at(node, &first, format!("{upper} isn't allowed as an ONBUILD trigger"), "");
            }
            _ => {}
        }
        let mut trigger = node.rest.trim().to_string();
        for heredoc in &node.heredocs {
            trigger.push('\n');
            trigger.push_str(&heredoc.body);
            trigger.push_str(&heredoc.name);
        }
        Ok(Onbuild { trigger })
    }

    /// Stores the trigger; no history.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        at.stage.config.config.on_build.push(self.trigger.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn stored() {
        let text = "FROM a\nONBUILD   ENV  A=b   C=d\nonbuild run <<-EOF\n\tx\nEOF\nONBUILD FOO x";
        assert_eq!(config(text).config.on_build, ["ENV  A=b   C=d", "run <<-EOF\n\tx\nEOF", "FOO x"]);
        check_history(text, &[]);
        check_errors("FROM a\nONBUILD", &["ONBUILD requires at least one argument"]);
        check_errors("FROM a\nONBUILD ONBUILD RUN x", &["Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"]);
        check_errors("FROM a\nONBUILD from b", &["FROM isn't allowed as an ONBUILD trigger"]);
    }
}
