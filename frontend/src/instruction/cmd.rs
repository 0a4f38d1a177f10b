//! `CMD` (reference/dockerfile.md 2.8).

use super::CommandLine;
use super::flags::Flags;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::history::quoted_list;
use crate::lint;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of a CMD.
#[derive(Clone, Debug, PartialEq)]
pub struct Cmd {
    /// What to run.
    pub line: CommandLine,
}

impl Cmd {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Cmd, Diagnostic> {
        Flags::check(node, &[])?;
        Ok(Cmd { line: CommandLine::parse(node, &node.rest)? })
    }

    /// Sets the command.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        lint::multiple_instructions_disallowed(at, at.stage.cmd);
        at.stage.cmd = Some(at.command.span);
        lint::json_args_recommended(at, &self.line);
        let args = self.line.with_shell(at.stage);
        let text = format!("CMD {}", quoted_list(&args));
        at.stage.config.config.cmd = Some(args);
        at.stage.config.config.args_escaped = true;
        at.history(text, LayerOf::Nothing);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn commands() {
        let check = |text: &str, cmd: &[&str], history: &str| {
            let config = config(&format!("FROM a\n{text}"));
            assert_eq!(config.config.cmd.as_deref(), Some(&cmd.map_to_string()[..]), "{text}");
            assert!(config.config.args_escaped);
            assert_eq!(config.history.last().unwrap().created_by, history);
        };
        check("CMD a  b", &["/bin/sh", "-c", "a  b"], r#"CMD ["/bin/sh" "-c" "a  b"]"#);
        check("CMD [\"a\", \"$B\"]", &["a", "$B"], r#"CMD ["a" "$B"]"#);
        check("CMD []", &[], "CMD []");
        check("CMD", &["/bin/sh", "-c", ""], r#"CMD ["/bin/sh" "-c" ""]"#);
        check("SHELL [\"x\"]\nCMD a", &["x", "a"], r#"CMD ["x" "a"]"#);
        check("CMD ['a']", &["/bin/sh", "-c", "['a']"], r#"CMD ["/bin/sh" "-c" "['a']"]"#);
        check_errors("FROM a\nCMD [1]", &[super::super::NOT_STRINGS]);
    }

    trait MapToString {
        fn map_to_string(&self) -> Vec<String>;
    }

    impl MapToString for &[&str] {
        fn map_to_string(&self) -> Vec<String> {
            self.iter().map(|word| word.to_string()).collect()
        }
    }
}
