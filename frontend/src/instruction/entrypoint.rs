//! `ENTRYPOINT` (reference/dockerfile.md 2.8).

use super::CommandLine;
use super::flags::Flags;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::history::quoted_list;
use crate::lint;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of an ENTRYPOINT.
#[derive(Clone, Debug, PartialEq)]
pub struct Entrypoint {
    /// What to run.
    pub line: CommandLine,
}

impl Entrypoint {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Entrypoint, Diagnostic> {
        Flags::check(node, &[])?;
        Ok(Entrypoint { line: CommandLine::parse(node, &node.rest)? })
    }

    /// Sets the entrypoint (`[]` takes it away), and takes away a CMD that this stage did not set itself.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        lint::multiple_instructions_disallowed(at, at.stage.entrypoint);
        at.stage.entrypoint = Some(at.command.span);
        lint::json_args_recommended(at, &self.line);
        let args = self.line.with_shell(at.stage);
        let text = format!("ENTRYPOINT {}", quoted_list(&args));
        at.stage.config.config.entrypoint = Some(args).filter(|args| !args.is_empty());
        if at.stage.cmd.is_none() {
            at.stage.config.config.cmd = None;
        }
        at.history(text, LayerOf::Nothing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn with_cmd() {
        let check = |text: &str, entrypoint: Option<&[&str]>, cmd: Option<&[&str]>| {
            let config = config(text).config;
            let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
            assert_eq!((config.entrypoint, config.cmd), (entrypoint.map(list), cmd.map(list)), "{text}");
        };
        check("FROM a\nENTRYPOINT [\"e\"]", Some(&["e"]), None);
        check("FROM a\nCMD [\"c\"]\nENTRYPOINT e", Some(&["/bin/sh", "-c", "e"]), Some(&["c"]));
        check("FROM a\nENTRYPOINT [\"e\"]\nCMD [\"c\"]", Some(&["e"]), Some(&["c"]));
        check("FROM a AS b\nCMD [\"c\"]\nFROM b\nENTRYPOINT [\"e\"]", Some(&["e"]), None);
        check("FROM a\nENTRYPOINT [\"e\"]\nENTRYPOINT []", None, None);
    }
}
