//! `VOLUME path …` (reference/dockerfile.md 2.14).

use super::flags::Flags;
use super::{fail, fail_at, not_strings, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::image_config::Empty;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering};
use crate::words::{Lexer, NotWords, json_words, split_words};

/// The fields of a VOLUME.
#[derive(Clone, Debug, PartialEq)]
pub struct Volume {
    /// Not yet expanded, none empty.
    pub paths: Vec<Placed>,
}

const EMPTY: &str = "VOLUME specified can not be an empty string";

impl Volume {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Volume, Diagnostic> {
        some_argument(node, "VOLUME")?;
        Flags::check(node, &[])?;
        let words = match json_words(&node.rest) {
            Ok(words) if words.is_empty() => return fail(node, "VOLUME requires at least one argument"),
            Ok(words) => words,
            Err(NotWords::NotStrings(span)) => return Err(not_strings(node, span)),
            Err(NotWords::NotJson) => split_words(&node.rest),
        };
        let paths: Vec<Placed> = words.iter().map(|word| word.part(word.trim())).collect();
        if let Some(empty) = paths.iter().find(|path| path.is_empty()) {
            return fail_at(node, empty, EMPTY, "empty");
        }
        Ok(Volume { paths })
    }

    /// Adds the paths, as written, to those that the image has.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let mut paths = vec![];
        for path in &self.paths {
            match at.expand(path)? {
                empty if empty.is_empty() => return Err(at.error_at(path, EMPTY, "this comes to nothing")),
                path => paths.push(path.into_owned()),
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
