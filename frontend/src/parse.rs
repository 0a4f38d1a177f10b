//! Logical lines -> AST and all diagnostics.
//!
//! What a keyword means, and whether it and its flags are known, is the business of `instruction/`.

use crate::ast::{Dockerfile, Flag, Node, Parsed};
use crate::diagnostic::Diagnostic;
use crate::directives;
use crate::heredoc;
use crate::lines::{Lines, LogicalLine, MAX_LINE_BYTES};
use crate::placed::Placed;
use crate::span::{SourceText, Span};
use std::ops::Range;
use std::sync::Arc;

/// For how many instructions there is room at first; more than that are hardly instructions each.
const MAX_ROOM: usize = 10_000;

/// Parses a Dockerfile. Never stops at the first error and never panics: what could be read is in the result, beside
/// everything that is wrong.
///
/// Blank lines in continuations are not reported here but marked in [`Node::empty_continuation`].
pub fn parse(source: SourceText) -> Parsed {
    let mut parser = Parser { source: &source, escape: '\\', nodes: vec![], diagnostics: vec![] };
    let found = if source.text.len() <= u32::MAX as usize {
        parser.file()
    } else {
        // Spans have 32 bits.
        parser.diagnostics.push(whole_file("the Dockerfile is larger than 4 GiB"));
        directives::read("").directives
    };
    let Parser { nodes, mut diagnostics, .. } = parser;
    diagnostics.sort_by_key(|diagnostic| diagnostic.span.map_or(0, |span| span.start));
    Parsed { dockerfile: Dockerfile { source: Arc::new(source), directives: found, nodes }, diagnostics }
}

struct Parser<'a> {
    source: &'a SourceText,
    escape: char,
    nodes: Vec<Node>,
    diagnostics: Vec<Diagnostic>,
}

impl Parser<'_> {
    fn file(&mut self) -> crate::ast::Directives {
        let found = directives::read(&self.source.text);
        for (message, span) in found.errors {
            self.error(&message, span);
        }
        self.escape = found.directives.escape;

        let file = Placed::verbatim(self.source.text.as_str(), 0);
        let mut lines = Lines::new(&self.source.text);
        let lines_of_text = self.source.text.bytes().filter(|byte| *byte == b'\n').count() + 1;
        self.nodes.reserve(lines_of_text.min(MAX_ROOM));
        while let Some(line) = lines.next_logical(&file, self.escape, |offset| found.lines.contains(&offset)) {
            self.instruction(line, &mut lines);
        }
        for &span in &lines.too_long {
            self.error(&format!("dockerfile line greater than max allowed size of {MAX_LINE_BYTES}"), span);
        }
        if self.source.text.is_empty() {
            self.diagnostics.push(whole_file("the Dockerfile cannot be empty"));
        } else if self.nodes.is_empty() && self.diagnostics.is_empty() {
            let last = self.source.text.lines().count();
            let message = format!("dockerfile parse error on line {last}: file with no instructions");
            self.diagnostics.push(whole_file(&message));
        }
        found.directives
    }

    fn instruction(&mut self, line: LogicalLine, lines: &mut Lines<'_>) {
        let split = split_instruction(&line.text, self.escape);
        let keyword = line.text.slice(split.keyword.clone());
        let rest = line.text.slice(split.rest.clone());
        if keyword.is_empty() {
            // Only escape characters at line ends.
            self.error("unknown instruction: ", line.span);
            return;
        }

        let mut span = line.span;
        let mut heredocs = if self.may_have_heredocs(&keyword, &rest) { heredoc::tokens(&line.text) } else { vec![] };
        for heredoc in &mut heredocs {
            let body_start = lines.offset();
            let Some(end) = heredoc::read_body(heredoc, lines) else {
                let resume = self.unterminated(heredoc, &line, body_start);
                lines.seek(resume);
                return;
            };
            span = Span::new(span.start as usize, end);
        }

        let flags = if swallows_flags(&keyword, &rest) { vec![] } else { split.flags };
        self.nodes.push(Node {
            keyword,
            flags,
            rest,
            line: line.text.part(line.text.trim()),
            blanks_at_end: line.text[line.text.trim_end().len()..].to_owned(),
            heredocs,
            span,
            empty_continuation: line.empty_continuation,
            comments: line.comments,
        });
    }

    fn may_have_heredocs(&self, keyword: &str, rest: &Placed) -> bool {
        if !keyword.eq_ignore_ascii_case("onbuild") {
            return heredoc::allowed(keyword, rest);
        }
        let trigger = split_instruction(rest, self.escape);
        heredoc::allowed(&rest[trigger.keyword], &rest[trigger.rest])
    }

    /// Reports a heredoc without end; gives the offset where reading goes on: after what was meant as its end, or after
    /// the instruction if it was not meant as a heredoc. Else the rest of the file is taken for the body, so that its
    /// lines do not add an error each.
    fn unterminated(&mut self, heredoc: &crate::ast::Heredoc, line: &LogicalLine, body_start: usize) -> usize {
        let name = &heredoc.name;
        let mut offset = body_start;
        let mut near = None;
        for text in self.source.text[body_start..].split_inclusive('\n') {
            if text.trim() == name {
                near = Some(Span::new(offset, offset + text.trim_end_matches(['\r', '\n']).len()));
                break;
            }
            offset += text.len();
        }
        let is_shift = heredoc.token.contains(char::is_whitespace) || heredoc.token.contains(')');
        let help = match near {
            Some(_) if heredoc.strip_tabs => {
                format!("the line `{name}` may have tabs before it, but no other blanks before or after")
            }
            Some(_) => {
                format!("the line `{name}` must have no blanks before or after it; `<<-{name}` allows tabs before")
            }
            None if is_shift => {
                format!("`{}` begins a heredoc here; a shift operator needs no blanks around it: `1<<2`", heredoc.token)
            }
            None => format!("end it with a line `{name}`"),
        };
        let message = self.message("unterminated heredoc", line.span);
        let mut error = Diagnostic::error(message, line.span).help(help);
        let resume = match near {
            Some(near) => {
                error = error.label(heredoc.token.span(), "").label(near, "has blanks, so it does not end the heredoc");
                near.end as usize
            }
            None => {
                error = error.label(heredoc.token.span(), format!("no line `{name}` follows"));
                if is_shift { body_start } else { self.source.text.len() }
            }
        };
        self.diagnostics.push(error);
        resume
    }

    fn error(&mut self, message: &str, span: Span) {
        let message = self.message(message, span);
        self.diagnostics.push(Diagnostic::error(message, span));
    }

    fn message(&self, message: &str, span: Span) -> String {
        parse_error(self.source, span, message)
    }
}

/// BuildKit's wording of what is wrong with the text of an instruction.
pub(crate) fn parse_error(source: &SourceText, span: Span, message: &str) -> String {
    format!("dockerfile parse error on line {}: {message}", source.line_column(span.start).0)
}

fn whole_file(message: &str) -> Diagnostic {
    Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) }
}

/// Instructions that BuildKit does not ask which flags they know, so that `--x` words vanish.
fn swallows_flags(keyword: &str, rest: &str) -> bool {
    let is = |name: &str| keyword.eq_ignore_ascii_case(name);
    let none = || rest.split(char::is_whitespace).next().is_some_and(|word| word.eq_ignore_ascii_case("none"));
    is("arg") || is("stopsignal") || (is("healthcheck") && none())
}

/// `span` is where the word is, with quotes and escapes, which it has no more.
fn flag(word: &Placed, span: Span) -> Flag {
    let dashes = 2.min(word.len());
    let equals = word.bytes().position(|byte| byte == b'=');
    let name_end = equals.unwrap_or(word.len()).max(dashes);
    Flag {
        name: word.slice(dashes..name_end),
        value: equals.map(|equals| word.slice(equals + 1..word.len())),
        span,
        name_span: word.place(0..name_end),
    }
}

/// The parts of a logical line.
pub(crate) struct Split {
    /// Which bytes of the line.
    pub keyword: Range<usize>,
    flags: Vec<Flag>,
    /// Which bytes of the line, trimmed.
    pub rest: Range<usize>,
}

/// Splits an instruction on one line.
pub(crate) fn split_instruction(line: &Placed, escape: char) -> Split {
    let start = line.len() - line.trim_start().len();
    // Blanks at the end belong to nothing, not even to a flag with an unclosed quote.
    let end = line.trim_end().len().max(start);
    let text = &line[start..end];
    let keyword_end = start + text.find(['\t', '\x0b', '\x0c', '\r', ' ']).unwrap_or(text.len());
    let mut flags = vec![];
    let mut at = keyword_end;
    loop {
        at += line[at..].len() - line[at..].trim_start().len();
        if !line[at..].starts_with("--") {
            break;
        }
        let (word_end, word) = flag_word(line, at..end, escape);
        let span = line.place(at..word_end);
        at = word_end;
        if word == "--" {
            at += line[at..].len() - line[at..].trim_start().len();
            break;
        }
        flags.push(flag(&word, span));
    }
    Split { keyword: start..keyword_end, flags, rest: at.min(end)..end }
}

/// The end of the word that a part of a line begins with, and the word without quotes and escapes. An unclosed quote
/// takes all.
fn flag_word(line: &Placed, within: Range<usize>, escape: char) -> (usize, Placed) {
    // Mostly nothing in it is quoted or escaped.
    let is_plain = |c: char| c.is_ascii_graphic() && c != '\'' && c != '"' && c != escape;
    let text = &line[within.clone()];
    let plain = text.bytes().position(|byte| !is_plain(byte.into())).unwrap_or(text.len());
    if text[plain..].chars().next().is_none_or(char::is_whitespace) {
        let end = within.start + plain;
        return (end, line.slice(within.start..end));
    }
    let mut word = Placed::default();
    // Since when what is read is part of the word as it is.
    let mut kept_from = within.start;
    let mut keep_up_to = |at: usize, next: usize| {
        if kept_from < at {
            word.append(&line.slice(kept_from..at));
        }
        kept_from = next;
    };
    let mut quote = None;
    let mut chars = line[within.clone()].char_indices().map(|(at, c)| (within.start + at, c));
    let mut end = within.end;
    while let Some((at, c)) = chars.next() {
        match quote {
            None if c.is_whitespace() => {
                end = at;
                break;
            }
            None if c == '\'' || c == '"' => {
                quote = Some(c);
                keep_up_to(at, at + 1);
            }
            Some(open) if c == open => {
                quote = None;
                keep_up_to(at, at + 1);
            }
            _ if c == escape => {
                keep_up_to(at, at + 1);
                chars.next();
            }
            _ => {}
        }
    }
    keep_up_to(end, end);
    (end, word)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ast::Heredoc;
    use proptest::prelude::*;

    fn parsed(text: &str) -> Parsed {
        parse(SourceText { name: "Dockerfile".into(), text: text.into() })
    }

    /// Instructions as `KEYWORD --flag=value | rest`, heredocs as `<NAME:options>body`, then errors as `line: message`.
    fn show(text: &str) -> Vec<String> {
        let Parsed { dockerfile, diagnostics } = parsed(text);
        let mut shown = vec![];
        for node in &dockerfile.nodes {
            let mut line = node.keyword.to_string();
            for flag in &node.flags {
                line += &format!(" --{}", flag.name);
                line += &flag.value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
            }
            line += &format!(" | {}", node.rest);
            for Heredoc { name, fd, expand, strip_tabs, body, .. } in &node.heredocs {
                let fd = if *fd == 0 { String::new() } else { fd.to_string() };
                let options = if *expand { "expand" } else { "raw" };
                let tabs = if *strip_tabs { "-" } else { "" };
                line += &format!(" {fd}<{tabs}{name}:{options}>{body}");
            }
            shown.push(line);
        }
        for diagnostic in &diagnostics {
            let lines = diagnostic.span.map(|span| dockerfile.source.lines(span));
            shown.push(match lines {
                Some((first, last)) => format!("{first}-{last}: {}", diagnostic.message),
                None => diagnostic.message.clone(),
            });
        }
        shown
    }

    fn check(text: &str, expect: &[&str]) {
        assert_eq!(show(text), expect, "{text}");
    }

    #[test]
    fn keywords_and_blanks() {
        check("from a AS b\n\tRun  echo  # x \n", &["from | a AS b", "Run | echo  # x"]);
        check("FROM a\r\nRUN b \\\r\n  c\r\n", &["FROM | a", "RUN | b   c"]);
        check("\u{feff}FROM a", &["FROM | a"]);
        check("WORKDIR   /with space  \nRUN\nCMD \t\n", &["WORKDIR | /with space", "RUN | ", "CMD | "]);
        check("# c\n   # d\nFROM a\n\n  \nRUN 'a#b' #c", &["FROM | a", "RUN | 'a#b' #c"]);
        check("RUN a\rb\x0bc", &["RUN | a\rb\x0bc"]);
    }

    #[test]
    fn continuations() {
        check("FR\\\nOM scr\\\natch", &["FROM | scratch"]);
        check("RUN a \\\n  b \\  \n\tc", &["RUN | a   b \tc"]);
        check("RUN a \\\n# x \\\n  # y\n\n b \\\nc", &["RUN | a  b c"]);
        check("RUN a \\\\\nRUN b", &["RUN | a \\\\", "RUN | b"]);
        check("RUN x \\\n\\\n\\\n y", &["RUN | x  y"]);
        check("LABEL a=b \\", &["LABEL | a=b"]);
        check("LABEL a=b \\\n\n# c\n", &["LABEL | a=b"]);
        check("\\\n\\\n\nRUN a", &["RUN | a"]);
        check("FROM a\n\\\n", &["FROM | a", "2-2: dockerfile parse error on line 2: unknown instruction: "]);
    }

    #[test]
    fn empty_continuations_are_marked() {
        let nodes = parsed("FROM a\nRUN a \\\n\n b\nRUN a \\\n# c\n b").dockerfile.nodes;
        assert_eq!(nodes.iter().map(|node| node.empty_continuation).collect::<Vec<_>>(), [false, true, false]);
    }

    #[test]
    fn escape_directive() {
        check("# escape=`\nRUN a `\n b \\\nCOPY x C:\\", &["RUN | a  b \\", "COPY | x C:\\"]);
        check("#   EsCaPe  =   `  \n# vendor = x\nRUN a `\n b", &["RUN | a  b"]);
        check("  # escape=`\nRUN a `\n b", &["RUN | a  b"]);
        let late = &["RUN | a `", "b | "];
        check("# remark\n# escape=`\nRUN a `\n b", late);
        check("\n# escape=`\nRUN a `\n b", late);
        check("# other=1\n# escape=`\nRUN a `\n b", late);
        check("#!/usr/bin/env x\n# escape=`\nRUN a `\n b", late);
        check("# escape=\\\n# syntax=x\n# check=skip=all\nRUN a", &["RUN | a"]);
        let twice = "2-2: dockerfile parse error on line 2: only one escape parser directive can be used";
        check("# escape=`\n# ESCAPE=`\nFROM a", &["FROM | a", twice]);
        let bad = "1-1: dockerfile parse error on line 1: invalid escape token '%' does not match ` or \\";
        check("# escape=%\nFROM a", &["FROM | a", bad]);
    }

    #[test]
    fn syntax_and_check_directives() {
        let check = |text: &str, syntax: Option<&str>, check: Option<&str>| {
            let found = parsed(text).dockerfile.directives;
            let value = |directive: Option<(String, Span)>| directive.map(|(value, _)| value);
            assert_eq!((value(found.syntax).as_deref(), value(found.check).as_deref()), (syntax, check), "{text}");
        };
        check("# syntax=docker/dockerfile:1 arg\nFROM a", Some("docker/dockerfile:1 arg"), None);
        check("\u{feff}#syntax = a\r\n#check=skip=A;error=true // why", Some("a"), Some("skip=A;error=true"));
        check("#!/usr/bin/env x\n# syntax=a\n# check=error=true", Some("a"), Some("error=true"));
        check("# check=skip=A\n# escape=`\n# syntax=a", Some("a"), Some("skip=A"));
        check("# remark\n# syntax=a", None, None);
        check(" # syntax=a\nFROM a", None, None);
        check("# syntax=\nFROM a", None, None);
        check("// syntax=a\n// more", Some("a"), None);
        check("#!/bin/x\n// syntax=a\n// check=b", Some("a"), None);
        check("{\"syntax\": \"a\",\n \"b\": [1]}", Some("a"), None);
        check("[\"syntax\"]", None, None);
    }

    #[test]
    fn flags_are_leading_words() {
        check("COPY --from=a --link b c", &["COPY --from=a --link | b c"]);
        check("COPY --chown=\"a b\":'c' --x=\\\"d b --e", &["COPY --chown=a b:c --x=\"d | b --e"]);
        check("RUN -- --a b", &["RUN | --a b"]);
        check("RUN --a --", &["RUN --a | "]);
        check("RUN -a --b", &["RUN | -a --b"]);
        check("RUN --a= --", &["RUN --a= | "]);
        check(
            "RUN --mount=type=bind,target=/a \\\n --network=none \\\n x",
            &["RUN --mount=type=bind,target=/a --network=none | x"],
        );
        check(
            "ARG --a=b c\nSTOPSIGNAL --x 9\nHEALTHCHECK --x none",
            &["ARG | c", "STOPSIGNAL | 9", "HEALTHCHECK | none"],
        );
        check("HEALTHCHECK --interval=1s CMD --x", &["HEALTHCHECK --interval=1s | CMD --x"]);
        check("COPY --chown=é:'ü b c", &["COPY --chown=é:ü b c | "]);
        check("COPY --chown='a b \t\r\nRUN x", &["COPY --chown=a b | ", "RUN | x"]);
    }

    #[test]
    fn heredocs() {
        check("RUN <<EOF\na\nEOF\nUSER b", &["RUN | <<EOF <EOF:expand>a\n", "USER | b"]);
        check(
            "RUN cat <<A >x && 3<<B cat\n1\nB\nA\n2\nB",
            &["RUN | cat <<A >x && 3<<B cat <A:expand>1\nB\n 3<B:expand>2\n"],
        );
        check(
            "COPY <<-A <<'B' <<\"C D\" <<E\"F\" <<$X /d/\n\t\ta\n\tA\nB\nC D\nEF\n$X",
            &[
                "COPY | <<-A <<'B' <<\"C D\" <<E\"F\" <<$X /d/ <-A:expand>\t\ta\n <B:raw> <C D:raw> <EF:raw> <$X:expand>",
            ],
        );
        check(
            "ADD << EOF /x\nFROM a\n# c\n\n \\\n EOF\nEOF \nEOF",
            &["ADD | << EOF /x <EOF:expand>FROM a\n# c\n\n \\\n EOF\nEOF \n"],
        );
        check("COPY <<- 'X' /x\nX", &["COPY | <<- 'X' /x <-X:raw>"]);
        check("COPY <<\\'EOF /x\n'EOF", &["COPY | <<\\'EOF /x <'EOF:expand>"]);
        check("COPY <<E /x\r\na\r\nE\r\nUSER b\r\n", &["COPY | <<E /x <E:expand>a\r\n", "USER | b"]);
        check("COPY --chmod=755 <<E \\\n # c\n /x\na\nE", &["COPY --chmod=755 | <<E  /x <E:expand>a\n"]);
        check("# escape=`\nCOPY <<E `\n /x\na`\nE", &["COPY | <<E  /x <E:expand>a`\n"]);
        check("ONBUILD RUN --network=none <<E\na\nE", &["ONBUILD | RUN --network=none <<E <E:expand>a\n"]);
        check("RUN echo ${x:0:2} <<E\nE", &["RUN | echo ${x:0:2} <<E <E:expand>"]);
    }

    #[test]
    fn no_heredocs() {
        let texts = [
            "RUN cat<<EOF",
            "RUN <<<word",
            "RUN \"<<EOF\" '<<EOF'",
            "RUN a <<",
            "RUN echo $((1<<2))",
            "RUN it's <<EOF",
            "RUN <<\"\"",
            "RUN [\"a\", \"<<EOF\"]",
            "ONBUILD ONBUILD RUN <<EOF",
            "ONBUILD COPY [\"<<EOF\", \"/x\"]",
            "LABEL a=b <<EOF",
        ];
        for text in texts {
            let nodes = parsed(text).dockerfile.nodes;
            assert!(nodes.len() == 1 && nodes[0].heredocs.is_empty(), "{text}");
        }
    }

    #[test]
    fn unterminated_heredocs() {
        let check = |text: &str, help: &str| {
            let diagnostics = parsed(text).diagnostics;
            assert_eq!(diagnostics.len(), 1, "{text}");
            assert_eq!(diagnostics[0].message, "dockerfile parse error on line 2: unterminated heredoc");
            assert!(diagnostics[0].help[0].contains(help), "{:?}", diagnostics[0].help);
        };
        check("FROM a\nRUN <<EOF\na\n", "end it with a line `EOF`");
        check("FROM a\nRUN <<EOF\na\n\tEOF\n", "`<<-EOF` allows tabs");
        check("FROM a\nRUN <<-EOF\na\n  EOF\n", "no other blanks");
        check("FROM a\nRUN echo $((1 << 2))\nUSER a\n", "shift operator");
    }

    #[test]
    fn files_without_instructions() {
        check("", &["the Dockerfile cannot be empty"]);
        check("\n", &["dockerfile parse error on line 1: file with no instructions"]);
        check("# a\n\n# b\n", &["dockerfile parse error on line 3: file with no instructions"]);
        check("\u{feff}", &["dockerfile parse error on line 1: file with no instructions"]);
    }

    #[test]
    fn long_lines() {
        let word = "x".repeat(MAX_LINE_BYTES - 4);
        assert_eq!(parsed(&format!("RUN {word}\n")).diagnostics, []);
        let half = "x".repeat(40_000);
        assert_eq!(parsed(&format!("RUN {half}\\\n{half}")).diagnostics, []);
        let long = format!("FROM a\nRUN {word}x\nUSER b");
        let shown = show(&long);
        assert_eq!(
            shown[2..],
            [
                "USER | b".to_string(),
                "2-2: dockerfile parse error on line 2: dockerfile line greater than max allowed size of 65535"
                    .to_string(),
            ]
        );
    }

    #[test]
    fn doc_comments() {
        let check = |text: &str, expect: &[&str]| {
            let nodes = parsed(text).dockerfile.nodes;
            assert_eq!(nodes.last().map(|node| node.comments.clone()).unwrap_or_default(), expect, "{text}");
        };
        check("# a\n#b \nFROM x", &["a", "b"]);
        check("# a\n#\n# b\nFROM x", &["b"]);
        check("# a\n\n# b\nFROM x", &["b"]);
        check("# a\nFROM x\nRUN y", &[]);
        check("# syntax=a\n# escape=`\n# b\nFROM x", &["b"]);
        check("#!/bin/x\n# syntax=a\nFROM x", &["!/bin/x"]);
        check("  # a\nFROM x", &["# a"]);
        check("FROM x\nRUN a \\\n# b\n c", &[]);
    }

    #[test]
    fn spans() {
        let text = "# c\n  RU\\\nN --a=\"b\" \\\n  # x\n  c <<E\nd\nE\nUSER f";
        let Parsed { dockerfile, .. } = parsed(text);
        let slice = |span: Span| &text[span.start as usize..span.end as usize];
        let run = &dockerfile.nodes[0];
        assert_eq!(slice(run.span), "RU\\\nN --a=\"b\" \\\n  # x\n  c <<E\nd\nE");
        assert_eq!(slice(run.keyword.span()), "RU\\\nN");
        assert_eq!(slice(run.flags[0].span), "--a=\"b\"");
        assert_eq!(slice(run.rest.span()), "c <<E");
        assert_eq!(dockerfile.source.lines(run.span), (2, 7));
        assert_eq!(slice(dockerfile.nodes[1].rest.span()), "f");
        let bare = &parsed("RUN  \n").dockerfile.nodes[0];
        assert_eq!((bare.span, bare.rest.span()), (Span::new(0, 5), Span::new(3, 3)));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn never_panics_and_spans_are_in_bounds(
            text in "((FROM|RUN|COPY|ONBUILD|ARG|#|<<|E|-|=|`|escape|'|\"|\\\\|\\$|\\{|\\n|\\r\\n|\\t| |é|[^a]){0,6}\\n?){0,8}"
        ) {
            let Parsed { dockerfile, diagnostics } = parsed(&text);
            let spans = dockerfile.nodes.iter().flat_map(|node| {
                [node.span, node.keyword.span(), node.rest.span()]
                    .into_iter()
                    .chain(node.flags.iter().map(|flag| flag.span))
            });
            let labels = diagnostics.iter().flat_map(|diagnostic| {
                diagnostic.span.into_iter().chain(diagnostic.labels.iter().map(|(span, _)| *span))
            });
            for span in spans.chain(labels) {
                prop_assert!(text.get(span.start as usize..span.end as usize).is_some(), "{span:?} of {text:?}");
            }
        }
    }
}
