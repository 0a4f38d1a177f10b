//! `ONBUILD instruction` (reference/dockerfile.md 2.15): text that the image keeps for those who build on it. How
//! triggers are spliced in is in `compile::triggers`.

use super::flags::Flags;
use super::pairs::Pairs;
use super::{fail_at, not_strings, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::parse::split_instruction;
use crate::placed::Placed;
use crate::stage::Lowering;
use crate::words::{Lexer, NotWords, json_words};

/// The fields of an ONBUILD.
#[derive(Clone, Debug, PartialEq)]
pub struct Onbuild {
    /// The instruction as one text, heredocs included.
    pub trigger: String,
}

impl Onbuild {
    /// Parses the node. Of the trigger, only its keyword and the form of its arguments are looked at: what it means, and
    /// whether it means anything, is found out when it fires.
    pub fn parse(node: &Node, lexer: Lexer) -> Result<Onbuild, Diagnostic> {
        some_argument(node, "ONBUILD")?;
        Flags::check(node, &[])?;
        let split = split_instruction(&node.rest, lexer.escape);
        let first = node.rest.slice(split.keyword);
        let line = Node { rest: node.rest.slice(split.rest), ..node.clone() };
        match first.to_uppercase().as_str() {
            "ONBUILD" => return fail_at(node, &first, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", ""),
            upper @ ("FROM" | "MAINTAINER") => {
                return fail_at(node, &first, format!("{upper} isn't allowed as an ONBUILD trigger"), "");
            }
            upper @ ("ENV" | "LABEL") if !line.rest.is_empty() => drop(Pairs::split(&line, lexer, upper)?),
            "RUN" | "CMD" | "ENTRYPOINT" | "SHELL" | "ADD" | "COPY" | "VOLUME" => check_array(node, &line.rest)?,
            "HEALTHCHECK" => {
                let (_, test) = line.rest.split_once(char::is_whitespace).unwrap_or_default();
                check_array(node, &line.rest.part(test))?;
            }
            _ => {}
        }
        let mut trigger = format!("{}{}", node.rest.as_str(), node.blanks_at_end);
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

fn check_array(node: &Node, arguments: &Placed) -> Result<(), Diagnostic> {
    match json_words(arguments) {
        Err(NotWords::NotStrings(element)) => Err(not_strings(node, element)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::NOT_STRINGS;
    use crate::testing::*;

    #[test]
    fn stored() {
        let text = "FROM a\nONBUILD   ENV  A=b   C=d\nonbuild run <<-EOF\n\tx\nEOF\nONBUILD FOO x";
        assert_eq!(config(text).config.on_build, ["ENV  A=b   C=d", "run <<-EOF\n\tx\nEOF", "FOO x"]);
        check_history(text, &[]);
        assert_eq!(config("FROM a\nONBUILD RUN x \t\n").config.on_build, ["RUN x \t"]);
        check_errors("FROM a\nONBUILD", &["ONBUILD requires at least one argument"]);
        check_errors("FROM a\nONBUILD ONBUILD RUN x", &["Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"]);
        check_errors("FROM a\nONBUILD from b", &["FROM isn't allowed as an ONBUILD trigger"]);
    }

    #[test]
    fn form_of_triggers() {
        let check = |trigger: &str, expect: &str| check_errors(&format!("FROM a\nONBUILD {trigger}"), &[expect]);
        check("ENV A=1 B", "Syntax error - can't find = in \"B\". Must be of the form: name=value");
        check("label l", "LABEL must have two arguments");
        for trigger in ["CMD [1]", "RUN --network=none [\"a\", null]", "HEALTHCHECK CMD [true]", "VOLUME [{}]"] {
            check(trigger, NOT_STRINGS);
        }
        // All else is found when they fire.
        let triggers = ["ENV", "ENV =x", "COPY a", "RUN --flag x", "USER", "ARG A=${", "HEALTHCHECK PROBE [1"];
        for trigger in triggers {
            assert_eq!(config(&format!("FROM a\nONBUILD {trigger}")).config.on_build, [trigger]);
        }
    }
}
