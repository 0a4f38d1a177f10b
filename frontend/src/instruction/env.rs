//! `ENV name=value …` (reference/dockerfile.md 2.3, 3.4): the environment of later steps and of the image.

use super::flags::Flags;
use super::pairs::{Pairs, history_text};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::env::Variable;
use crate::lint;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of an ENV.
#[derive(Clone, Debug, PartialEq)]
pub struct Env {
    /// What it sets.
    pub pairs: Pairs,
}

impl Env {
    /// Parses the node.
    pub fn parse(node: &Node, lexer: Lexer) -> Result<Env, Diagnostic> {
        Flags::check(node, &[])?;
        Ok(Env { pairs: Pairs::parse(node, lexer, "ENV")? })
    }

    /// Sets the variables. All values are expanded before the first one is set.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let pairs = self.pairs.expand(at)?;
        if self.pairs.legacy {
            lint::legacy_key_value_format(at);
        }
        for pair in &pairs {
            lint::secrets_used_in_arg_or_env(at, "ENV", &pair.name);
            let variable = Variable::new(&pair.name, &pair.value);
            at.stage.env.set_variable(variable.clone());
            at.stage.image_env.set_variable_in_place(variable);
        }
        at.history(history_text("ENV", &pairs), LayerOf::Nothing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn variables() {
        let check = |text: &str, expect: &[&str]| assert_eq!(config(text).config.env, expect, "{text}");
        check("FROM a\nENV A=1 B=\"2 3\" C='$A'", &["PATH=/bin", "BASE=1", "A=1", "B=2 3", "C=$A"]);
        check("FROM a\nENV BASE=2\nENV BASE=3 X=$BASE", &["PATH=/bin", "BASE=3", "X=2"]);
        check("FROM a\nENV D four five  \"six\"", &["PATH=/bin", "BASE=1", "D=four five  six"]);
        check("FROM a\nENV k = v", &["PATH=/bin", "BASE=1", "k== v"]);
        check("FROM scratch\nENV PATH=$PATH:/x", &[
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/x",
        ]);
        check_history("FROM a\nENV A=1 B=\"2 3\"", &["ENV A=1 B=2 3 (empty)"]);
    }

    #[test]
    fn errors() {
        check_errors("FROM a\nENV", &["ENV requires at least one argument"]);
        check_errors("FROM a\nENV k", &["ENV must have two arguments"]);
        check_errors(
            "FROM a\nENV X= Y",
            &["Syntax error - can't find = in \"Y\". Must be of the form: name=value"],
        );
        check_errors("FROM a\nENV =v", &["ENV names can not be blank"]);
        check_errors("FROM a\nENV --x A=1", &["unknown flag: --x"]);
        check_errors("FROM a\nENV A=${B:?m}", &["failed to process \"${B:?m}\": B: m"]);
    }
}
