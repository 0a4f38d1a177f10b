//! AST -> text: [`Dockerfile`]'s `Display`. What is printed parses to the same AST, at other places; comments within
//! instructions, blank lines, the byte order mark and the way lines were continued are gone.

use crate::ast::{Dockerfile, Node};
use crate::lines::{BYTE_ORDER_MARK, MAX_LINE_BYTES};
use std::fmt;

impl fmt::Display for Dockerfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let directives = &self.directives;
        if self.nodes.first().is_some_and(|node| node.line.starts_with(BYTE_ORDER_MARK)) {
            // The first one is none of the text.
            write!(f, "{BYTE_ORDER_MARK}")?;
        }
        let is_default = directives.escape == '\\';
        if !is_default {
            writeln!(f, "# escape={}", directives.escape)?;
        }
        // In files of other languages, what looks like an instruction carries the directive.
        let is_comment = |at: u32| self.source.text.get(at as usize..).is_some_and(|text| text.starts_with('#'));
        let syntax = directives.syntax.as_ref().filter(|(_, span)| is_comment(span.start));
        for (name, value) in [("syntax", syntax), ("check", directives.check.as_ref())] {
            if let Some((value, _)) = value {
                writeln!(f, "# {name}={value}")?;
            }
        }
        let first = self.nodes.first();
        if first.is_some_and(|node| !node.comments.is_empty()) {
            // Directives end here: the comments that follow may look like some.
            writeln!(f)?;
        }
        self.nodes.iter().try_for_each(|node| print_node(f, node, directives.escape))
    }
}

fn print_node(f: &mut fmt::Formatter<'_>, node: &Node, escape: char) -> fmt::Result {
    for comment in &node.comments {
        writeln!(f, "# {comment}")?;
    }
    if node.empty_continuation {
        writeln!(f, "{escape}\n")?;
    }
    let mut line = node.line.as_str();
    while line.len() >= MAX_LINE_BYTES {
        let Some(at) = break_before(line, MAX_LINE_BYTES - 8) else { break };
        writeln!(f, "{}{escape}", &line[..at])?;
        line = &line[at..];
    }
    let last = format!("{line}{}", node.blanks_at_end);
    // A last escape is none if other white space than blanks and tabs follows.
    let guard = if is_continued(&last, escape) { "\x0b" } else { "" };
    writeln!(f, "{last}{guard}")?;
    for heredoc in &node.heredocs {
        writeln!(f, "{}{}", heredoc.body, heredoc.terminator)?;
    }
    Ok(())
}

/// The last place, up to a limit, where a line can be continued on the next: between two letters or digits, so that
/// neither an escape before nor a comment sign after it means something else.
fn break_before(line: &str, limit: usize) -> Option<usize> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric();
    let bytes = line.as_bytes();
    (1..limit.min(line.len())).rev().find(|at| is_plain(bytes[at - 1]) && is_plain(bytes[*at]))
}

fn is_continued(line: &str, escape: char) -> bool {
    let line = line.trim_end_matches('\r').trim_end_matches([' ', '\t']);
    line.strip_suffix(escape).is_some_and(|before| !before.ends_with(escape))
}

#[cfg(test)]
mod tests {
    use crate::ast::Parsed;
    use crate::parse::parse;
    use crate::span::SourceText;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Parsed {
        parse(SourceText { name: "Dockerfile".into(), text: text.into() })
    }

    fn round_trip(text: &str) -> Result<(), TestCaseError> {
        let parsed = parsed(text);
        crate::properties::survives_printing(&parsed).map_err(TestCaseError::fail)
    }

    fn check(text: &str, expect: &str) {
        assert_eq!(parsed(text).dockerfile.to_string(), expect);
        round_trip(text).unwrap();
    }

    #[test]
    fn printed() {
        check("FROM  a\\\n AS b\n\n# c\n  # d\n RUN x \\\n # e\n y", "FROM  a AS b\n# c\n# # d\nRUN x  y\n");
        check("#escape = `\n# syntax=a b\nRUN `\n\n c", "# escape=`\n# syntax=a b\n`\n\nRUN  c\n");
        check("\n# escape=`\nRUN a", "\n# escape=`\nRUN a\n");
        check("RUN <<A 3<<-\"B\"\r\n a\r\nA\r\n\tx\n\tB", "RUN <<A 3<<-\"B\"\n a\r\nA\n\tx\n\tB\n");
        check("RUN a\\\u{a0}\nUSER b", "RUN a\\\u{a0}\nUSER b\n");
        round_trip("RUN x\\\r\\\n\n\nUSER b").unwrap();
        check("ONBUILD RUN a \t\nUSER b", "ONBUILD RUN a \t\nUSER b\n");
        check("// syntax=a\nx", "// syntax=a\nx\n");
        check("\u{feff}\u{feff}RUN a", "\u{feff}\u{feff}RUN a\n");
    }

    #[test]
    fn long_lines() {
        let half = "x".repeat(50_000);
        for text in [format!("RUN {half}\\\n{half}"), format!("RUN {half} #\\\n# c\n {half}\\\n{half}")] {
            round_trip(&text).unwrap();
        }
    }

    /// A Dockerfile without errors of the parser, of all forms.
    fn dockerfiles() -> impl Strategy<Value = String> {
        let directives =
            prop::sample::subsequence(vec!["escape=`", "syntax=docker/dockerfile:1 x", "check=skip=all"], 0..3);
        let word = "[a-z0-9./:$]{1,6}|\"[a-z #]{0,5}\"|'[a-z\\\\`\"]{0,4}'|é|漢|\\$\\{[A-Z]:-x\\}";
        let flag = "--[a-z]{1,6}(=([a-z0-9,=]{0,6}|\"[a-z ]{0,4}\"|'[a-z `]{0,3}'))?";
        let keyword = "RUN|run|COPY|ADD|ENV|LABEL|ARG|ONBUILD RUN|onbuild COPY|CMD|HEALTHCHECK|STOPSIGNAL|X";
        let gap = prop_oneof![
            5 => Just(Gap::Blank), 1 => Just(Gap::Tab), 1 => Just(Gap::Continued), 1 => Just(Gap::Comment), 1 => Just(Gap::Empty),
        ];
        let heredoc = (prop_oneof!["A", "B", "'C D'", "\"E\""], any::<bool>(), "(\t?[a-z$ \\\\#]{0,4}\n){0,3}");
        let instruction = (
            keyword,
            prop::collection::vec((gap.clone(), flag), 0..3),
            prop::collection::vec((gap, word), 0..4),
            prop::option::weighted(0.3, heredoc),
            prop::collection::vec("#{0,2} ?[a-z=`]{0,6}", 0..3),
            any::<bool>(),
        );
        let file = (any::<bool>(), directives, prop::collection::vec(instruction, 0..6), any::<bool>());
        file.prop_map(|(mark, directives, instructions, crlf)| {
            let escape = if directives.contains(&"escape=`") { '`' } else { '\\' };
            let mut text = if mark { "\u{feff}".to_string() } else { String::new() };
            for directive in directives {
                text += &format!("# {directive}\n");
            }
            for (keyword, flags, words, heredoc, comments, blank) in instructions {
                if blank {
                    text.push('\n');
                }
                for comment in comments {
                    text += &format!("#{comment}\n");
                }
                text += &keyword;
                for (gap, word) in flags.into_iter().chain(words) {
                    gap.push(&mut text, escape);
                    text += &word;
                }
                let takes = ["RUN", "COPY", "ADD"].iter().any(|name| keyword.to_uppercase().ends_with(name));
                match heredoc.filter(|_| takes) {
                    Some((token, dash, body)) => {
                        let name = token.trim_matches(['\'', '"']);
                        text += &format!(" <<{}{token}\n{body}{name}\n", if dash { "-" } else { "" });
                    }
                    None => text.push('\n'),
                }
            }
            if crlf { text.replace('\n', "\r\n") } else { text }
        })
    }

    #[derive(Clone, Debug)]
    enum Gap {
        Blank,
        Tab,
        Continued,
        Comment,
        Empty,
    }

    impl Gap {
        fn push(&self, text: &mut String, escape: char) {
            *text += &match self {
                Gap::Blank => " ".to_string(),
                Gap::Tab => " \t".to_string(),
                Gap::Continued => format!(" {escape} \n  "),
                Gap::Comment => format!(" {escape}\n  # c {escape}\n "),
                Gap::Empty => format!(" {escape}\n\n "),
            };
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn valid_files_survive_printing(text in dockerfiles()) {
            round_trip(&text)?;
        }

        #[test]
        fn mutated_files_survive_printing(
            text in dockerfiles(),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0usize..4, "(.|\n|\r|\\\\|`|<|#|\"|'| ){0,3}"), 0..5),
        ) {
            let mut characters: Vec<char> = text.chars().collect();
            for (place, removed, inserted) in changes {
                let at = place.index(characters.len() + 1);
                let end = (at + removed).min(characters.len());
                characters.splice(at..end, inserted.chars());
            }
            round_trip(&characters.into_iter().collect::<String>())?;
        }
    }
}
