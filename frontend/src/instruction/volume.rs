//! `VOLUME path …` (reference/dockerfile.md 2.14).

use super::flags::Flags;
use super::{NOT_STRINGS, fail, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::image_config::Empty;
use crate::stage::{LayerOf, Lowering};
use crate::words::{JsonForm, Lexer, json_array, split_words};

/// The fields of a VOLUME.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Not yet expanded, none empty.
    pub paths: Vec<String>,
}

const EMPTY: &str = "VOLUME specified can not be an empty string";

impl Volume {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Volume, Diagnostic> {
        some_argument(node, "VOLUME")?;
        Flags::check(node, &[])?;
        let words = match json_array(&node.rest) {
            JsonForm::Strings(words) if words.is_empty() => return fail(node, "VOLUME requires at least one argument"),
            JsonForm::Strings(words) => words,
            JsonForm::NotStrings => return fail(node, NOT_STRINGS),
            JsonForm::NotJson => split_words(&node.rest),
        };
        let paths: Vec<String> = words.iter().map(|word| word.trim().to_string()).collect();
        if paths.iter().any(String::is_empty) {
            return fail(node, EMPTY);
        }
        Ok(Volume { paths })
    }

    /// Adds the paths, as written, to those that the image has.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let mut paths = vec![];
        for path in &self.paths {
            match at.expand(path)? {
                empty if empty.is_empty() => return Err(at.error(EMPTY)),
                path => paths.push(path),
            }
        }
        at.history(format!("VOLUME [{}]", paths.join(" ")), LayerOf::Nothing);
        at.stage.config.config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn volumes() {
        let volumes: Vec<_> = config("FROM a\nVOLUME /b /a\nVOLUME [\"c d\", \"/$BASE\"]").config.volumes.into_keys().collect();
        assert_eq!(volumes, ["/1", "/a", "/b", "c d"]);
        check_history("FROM a\nVOLUME /b /a", &["VOLUME [/b /a] (empty)"]);
        check_errors("FROM a\nVOLUME", &["VOLUME requires at least one argument"]);
        check_errors("FROM a\nVOLUME [\"\"]", &[super::EMPTY]);
        check_errors("FROM a\nVOLUME $NOTHING", &[super::EMPTY]);
    }
}
