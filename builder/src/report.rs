//! Errors and diagnostics -> what a person reads on standard error. Nothing else renders them. Pure: text comes back.
//!
//! Two layouts: [`diagnostics`] draws what is wrong with a Dockerfile below the words it is about; [`failure`] has the
//! layout of BuildKit and buildx, which tools look for (reference/engine.md 9.2 and 9.3): the failed step's last
//! output, the lines of the Dockerfile, and one line `ERROR: failed to build: failed to solve: …`.

use crate::progress::FailedVertex;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Renderer, Snippet};
use frontend::compile::UnusedArg;
use frontend::diagnostic::{Diagnostic, Severity};
use frontend::lint::rule;
use frontend::span::{SourceText, Span};
use std::fmt::Write;

/// What the last line of every failed build begins with.
const FAILED: &str = "ERROR: failed to build: failed to solve: ";

/// What BuildKit's messages about the text of a Dockerfile begin with; the number of a line follows.
const PARSE_ERROR: &str = "dockerfile parse error on line ";

/// Characters of a message above a drawing.
const MAX_MESSAGE: usize = 240;

/// Columns that a drawing takes also where the terminal has fewer.
const MIN_WIDTH: usize = 40;

const YELLOW: &str = "\x1b[33m";
/// As annotate-snippets has it.
const CYAN: &str = "\x1b[1m\x1b[96m";
const RESET: &str = "\x1b[0m";

/// Where diagnostics come from; BuildKit's message tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The Dockerfile's text was read; messages name the line.
    Parse,
    /// The build graph was made.
    Compile,
}

/// How much is shown of each warning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// One line.
    Short,
    /// With its place and advice (`--debug`).
    Full,
}

/// How text is to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// With escape sequences.
    pub colour: bool,
    /// Columns; lines of the Dockerfile that are longer are cut around what is to be seen.
    pub width: usize,
}

/// An error with its place.
#[derive(Clone, Debug)]
pub struct Drawing<'a> {
    /// What its spans point into.
    pub source: &'a SourceText,
    pub diagnostic: Diagnostic,
}

/// A build that failed while it ran.
#[derive(Clone, Copy, Debug)]
pub struct Failure<'a> {
    /// Steps that failed, each with the end of its output; empty where progress has shown it already.
    pub steps: &'a [FailedVertex],
    /// Instructions that the error is about, usually one.
    pub places: &'a [(&'a SourceText, Span)],
    /// Errors whose words are to be underlined.
    pub drawings: &'a [Drawing<'a>],
    /// The error and its causes, joined by `: `.
    pub message: &'a str,
    /// What to do next, one sentence each.
    pub help: &'a [String],
}

/// All that is wrong with a Dockerfile, then the line that names the first error. Without any error, just the
/// warnings.
pub fn diagnostics(source: &SourceText, list: &[Diagnostic], phase: Phase, look: Look) -> String {
    let mut text = String::new();
    for diagnostic in list {
        text += &drawing(source, diagnostic, look);
        text.push('\n');
    }
    let mut errors = list.iter().filter(|diagnostic| diagnostic.severity == Severity::Error);
    if let Some(first) = errors.next() {
        text += FAILED;
        if let (Phase::Parse, Some(span), None) = (phase, first.span, without_line(&first.message)) {
            let _ = write!(text, "{PARSE_ERROR}{}: ", source.lines(span).0);
        }
        let _ = writeln!(text, "{}{}", first.message, and_more(errors.count()));
    }
    text
}

/// What is left to say about a build that failed while it ran.
pub fn failure(failure: &Failure, look: Look) -> String {
    let mut text = String::new();
    for step in failure.steps {
        let _ = writeln!(text, "------\n > {}:", step.name);
        for line in &step.log {
            let _ = writeln!(text, "{line}");
        }
        text += "------\n";
    }
    for (source, span) in failure.places {
        text += &excerpt(source, *span);
    }
    for Drawing { source, diagnostic } in failure.drawings {
        text += &drawing(source, diagnostic, look);
        text.push('\n');
    }
    let more = and_more(failure.drawings.len().saturating_sub(1));
    let _ = writeln!(text, "{FAILED}{}{more}", failure.message);
    text + &help_lines(failure.help, look)
}

fn and_more(count: usize) -> String {
    match count {
        0 => String::new(),
        1 => " (and 1 more error)".to_string(),
        count => format!(" (and {count} more errors)"),
    }
}

/// The notice about build arguments without effect, in the classic builder's words; nothing if there are none.
pub fn unused_args(unused: &[UnusedArg]) -> String {
    if unused.is_empty() {
        return String::new();
    }
    let names: Vec<&str> = unused.iter().map(|arg| arg.name.as_str()).collect();
    let near = unused.iter().filter_map(|arg| arg.near.as_ref());
    let near: Vec<String> = near.map(|near| format!(" (did you mean {near}?)")).collect();
    format!("[Warning] One or more build-args [{}] were not consumed{}\n", names.join(" "), near.concat())
}

/// The build checks' warnings after a build; nothing when there are none.
pub fn warnings(source: &SourceText, list: &[Diagnostic], detail: Detail, colour: bool) -> String {
    let list: Vec<_> = list.iter().filter(|diagnostic| diagnostic.severity == Severity::Warning).collect();
    if list.is_empty() {
        return String::new();
    }
    let count = if list.len() == 1 { "1 warning found".into() } else { format!("{} warnings found", list.len()) };
    let hint = if detail == Detail::Short { " (use --debug to expand)" } else { "" };
    let (on, off) = if colour { (YELLOW, RESET) } else { ("", "") };
    let mut text = format!("\n {on}{count}{hint}:{off}\n");
    for warning in list {
        let _ = writeln!(text, " - {}", one_line(source, warning));
        if detail == Detail::Full {
            let rule = warning.rule.and_then(rule);
            if let Some(rule) = rule {
                let _ = writeln!(text, "{}", rule.description);
            }
            if let Some(url) = rule.and_then(|rule| rule.url()) {
                let _ = writeln!(text, "More info: {url}");
            }
            if let Some(span) = warning.span {
                text += &excerpt(source, span);
            }
            text += &help_lines(&warning.help, Look { colour: false, width: 80 });
            text.push('\n');
        }
    }
    text
}

/// `RuleName: message (line 3)`, as build checks are listed and sent to progress.
pub fn one_line(source: &SourceText, diagnostic: &Diagnostic) -> String {
    let rule = diagnostic.rule.map_or(String::new(), |rule| format!("{rule}: "));
    let line = diagnostic.span.map_or(String::new(), |span| format!(" (line {})", source.lines(span).0));
    format!("{rule}{}{line}", diagnostic.message)
}

/// BuildKit's excerpt: the lines of a span marked with `>>>`, two lines around a single one, one around more.
pub fn excerpt(source: &SourceText, span: Span) -> String {
    let lines: Vec<&str> = source.text.split('\n').map(|line| line.trim_end_matches('\r')).collect();
    let (first, last) = source.lines(span);
    let last = last.min(lines.len());
    let around = if first == last { 2 } else { 1 };
    let shown = first.saturating_sub(around).max(1)..=(last + around).min(lines.len());
    let mut text = format!("{}:{first}\n--------------------\n", source.name);
    for number in shown {
        let mark = if (first..=last).contains(&number) { ">>>" } else { "   " };
        let _ = writeln!(text, " {number:3} | {mark} {}", lines[number - 1]);
    }
    text + "--------------------\n"
}

fn help_lines(help: &[String], look: Look) -> String {
    let (on, off) = if look.colour { (CYAN, RESET) } else { ("", "") };
    help.iter().map(|advice| format!("{on}help{off}: {advice}\n")).collect()
}

/// A message without BuildKit's words for a line, which a drawing shows anyway; `None` if it has none.
fn without_line(message: &str) -> Option<&str> {
    message.strip_prefix(PARSE_ERROR)?.split_once(": ").map(|(_, rest)| rest)
}

/// One diagnostic with its places underlined, and its advice.
fn drawing(source: &SourceText, diagnostic: &Diagnostic, look: Look) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Advice => Level::NOTE,
    };
    let message = without_line(&diagnostic.message).unwrap_or(&diagnostic.message);
    let message = clipped(message);
    let message = diagnostic.rule.map_or(message.clone(), |rule| format!("{rule}: {message}"));
    let annotations = annotations(source, diagnostic);
    let group = if annotations.is_empty() {
        Group::with_title(level.primary_title(message))
    } else {
        let snippet = Snippet::source(source.text.as_str()).path(source.name.as_str()).annotations(annotations);
        level.primary_title(message).element(snippet)
    };
    let renderer = if look.colour { Renderer::styled() } else { Renderer::plain() };
    let drawn = renderer.term_width(look.width.max(MIN_WIDTH)).render(&[group]);
    // Renderers pad the gutter; trailing blanks are no part of the message.
    let mut text: String = drawn.lines().map(|line| format!("{}\n", line.trim_end())).collect();
    text += &help_lines(&diagnostic.help, look);
    text
}

/// A message without the middle of it where it repeats a long word, which the excerpt shows.
fn clipped(message: &str) -> String {
    let count = message.chars().count();
    if count <= MAX_MESSAGE {
        return message.to_string();
    }
    let start: String = message.chars().take(MAX_MESSAGE / 2).collect();
    let end: String = message.chars().skip(count - MAX_MESSAGE / 2).collect();
    format!("{start} … {end}")
}

/// The instruction is drawn as a whole unless a label points into it; labels elsewhere only add to it.
fn annotations<'a>(source: &SourceText, diagnostic: &'a Diagnostic) -> Vec<Annotation<'a>> {
    let mut kinds = std::iter::once(AnnotationKind::Primary).chain(std::iter::repeat(AnnotationKind::Context));
    let labels = diagnostic.labels.iter().map(|(span, remark)| (*span, Some(remark.as_str())));
    let is_within = |whole: &Span| diagnostic.labels.iter().any(|(l, _)| whole.start <= l.start && l.end <= whole.end);
    let whole = diagnostic.span.filter(|whole| !is_within(whole)).map(|span| (span, None));
    whole
        .into_iter()
        .chain(labels)
        .zip(&mut kinds)
        .map(|((span, remark), kind)| kind.span(within_line(source, span)).label(remark))
        .collect()
}

/// The part of a span on its first line, on character boundaries: an instruction over many lines would be drawn
/// with a frame around all of them.
fn within_line(source: &SourceText, span: Span) -> std::ops::Range<usize> {
    let text = &source.text;
    let boundary = |offset: u32| {
        let mut offset = (offset as usize).min(text.len());
        while !text.is_char_boundary(offset) {
            offset -= 1;
        }
        offset
    };
    let start = boundary(span.start);
    let line = text[start..boundary(span.end).max(start)].split('\n').next().unwrap_or("");
    start..start + line.trim_end().len()
}

#[cfg(test)]
mod golden;

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Look = Look { colour: false, width: 100 };

    const DOCKERFILE: &str = "FROM scratch AS base\nCOPY busybox /bin/sh\nRUN exit 7\nRUN a \\\n  && b\nCMD x\n";

    fn source() -> SourceText {
        SourceText { name: "Dockerfile".into(), text: DOCKERFILE.into() }
    }

    fn span_of(word: &str) -> Span {
        let start = DOCKERFILE.find(word).unwrap();
        Span::new(start, start + word.len())
    }

    #[test]
    fn a_failed_step() {
        let steps = [FailedVertex {
            digest: "sha256:1".into(),
            name: "[base 3/4] RUN exit 7".into(),
            error: "exit code: 7".into(),
            log: vec!["0.123 going".into(), "0.125 gone".into()],
        }];
        let text = failure(
            &Failure {
                steps: &steps,
                places: &[(&source(), span_of("RUN exit 7"))],
                drawings: &[],
                message: "process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7",
                help: &["look".into()],
            },
            PLAIN,
        );
        assert_eq!(
            text,
            "------
 > [base 3/4] RUN exit 7:
0.123 going
0.125 gone
------
Dockerfile:3
--------------------
   1 |     FROM scratch AS base
   2 |     COPY busybox /bin/sh
   3 | >>> RUN exit 7
   4 |     RUN a \\
   5 |       && b
--------------------
ERROR: failed to build: failed to solve: process \"/bin/sh -c exit 7\" did not complete successfully: exit code: 7
help: look
"
        );
    }

    #[test]
    fn excerpts_are_clipped() {
        let check = |word, expect: &str| assert_eq!(excerpt(&source(), span_of(word)), expect);
        check(
            "RUN a \\\n  && b",
            "Dockerfile:4\n--------------------\n   3 |     RUN exit 7\n   4 | >>> RUN a \\\n   5 | >>>   && b\n   6 |     CMD x\n--------------------\n",
        );
        check(
            "CMD x",
            "Dockerfile:6\n--------------------\n   4 |     RUN a \\\n   5 |       && b\n   6 | >>> CMD x\n   7 |     \n--------------------\n",
        );
        let empty = SourceText { name: "-".into(), text: String::new() };
        assert_eq!(excerpt(&empty, Span::new(5, 9)), "-:1\n--------------------\n   1 | >>> \n--------------------\n");
    }

    #[test]
    fn diagnostics_underline_the_words() {
        let list = [
            Diagnostic::error("COPY: `busybox` is not in the build context", span_of("COPY busybox /bin/sh"))
                .label(span_of("busybox"), "excluded by .dockerignore line 3: `b*`")
                .help("remove that line, or add `!busybox` below it"),
            Diagnostic::error("dockerfile parse error on line 4: second", span_of("RUN a \\\n  && b")),
        ];
        assert_eq!(
            diagnostics(&source(), &list, Phase::Parse, PLAIN),
            "error: COPY: `busybox` is not in the build context
 --> Dockerfile:2:6
  |
2 | COPY busybox /bin/sh
  |      ^^^^^^^ excluded by .dockerignore line 3: `b*`
help: remove that line, or add `!busybox` below it

error: second
 --> Dockerfile:4:1
  |
4 | RUN a \\
  | ^^^^^^^

ERROR: failed to build: failed to solve: dockerfile parse error on line 2: COPY: `busybox` is not in the build context (and 1 more error)
"
        );
    }

    #[test]
    fn diagnostics_without_a_place() {
        let list = [Diagnostic { span: None, ..Diagnostic::error("the Dockerfile cannot be empty", Span::default()) }];
        assert_eq!(
            diagnostics(&source(), &list, Phase::Compile, PLAIN),
            "error: the Dockerfile cannot be empty\n\nERROR: failed to build: failed to solve: the Dockerfile cannot be empty\n"
        );
    }

    #[test]
    fn odd_spans_do_not_panic() {
        let source = SourceText { name: "x".into(), text: "FROM ä\r\nRUN \u{2028}é".into() };
        for start in 0..source.text.len() + 3 {
            for end in 0..source.text.len() + 3 {
                let span = Span::new(start, end);
                let list = [Diagnostic::error("m", span).label(span, "here")];
                assert!(
                    diagnostics(&source, &list, Phase::Parse, Look { colour: true, width: 80 })
                        .contains("failed to solve")
                );
                assert!(excerpt(&source, span).contains(">>>"));
            }
        }
    }

    #[test]
    fn warnings_are_listed() {
        let list = [
            Diagnostic::warning("StageNameCasing", "stage name should be lowercase", span_of("FROM")).help("do"),
            Diagnostic::error("not shown", span_of("FROM")),
            Diagnostic::warning("Two", "second", span_of("CMD")),
        ];
        assert_eq!(
            warnings(&source(), &list, Detail::Short, false),
            "\n 2 warnings found (use --debug to expand):\n - StageNameCasing: stage name should be lowercase (line 1)\n - Two: second (line 6)\n"
        );
        assert_eq!(
            warnings(&source(), &list[..1], Detail::Full, true),
            "\n \x1b[33m1 warning found:\x1b[0m
 - StageNameCasing: stage name should be lowercase (line 1)
Stage names should be lowercase
More info: https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Dockerfile:1
--------------------
   1 | >>> FROM scratch AS base
   2 |     COPY busybox /bin/sh
   3 |     RUN exit 7
--------------------
help: do

"
        );
        assert_eq!(warnings(&source(), &list[1..2], Detail::Full, true), "");
    }
}
