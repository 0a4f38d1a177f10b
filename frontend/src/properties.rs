//! What holds for any input, as functions that panic where it does not: run by the fuzz targets (`tests/fuzz`), and by
//! `cargo test` on what those have found (`tests/corpus/fuzz`). Feature `testing`.

use crate::ast::{Dockerfile, Parsed};
use crate::compile::instruction_errors;
use crate::csv;
use crate::diagnostic::{Diagnostic, Severity};
use crate::git_url::{GitUrl, http_file_name, is_http, redacted};
use crate::ignore::Ignore;
use crate::instruction::duration;
use crate::instruction::run_mount::RunMount;
use crate::parse::parse;
use crate::placed::Placed;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::span::{SourceText, Span};
use crate::stand_in;
use crate::wildcard;
use crate::words::{Lexer, split_assignments, split_words};

/// A Dockerfile parses and compiles without a panic; spans are within the text; printing it changes nothing.
pub fn dockerfile(input: &[u8]) {
    let text = String::from_utf8_lossy(input).into_owned();
    let source = SourceText { name: "Dockerfile".to_string(), text };
    let parsed = parse(source.clone());
    spans_are_within(&source.text, spans(&parsed.dockerfile));
    let errors = instruction_errors(&parsed.dockerfile, parsed.diagnostics.clone());
    assert!(parsed.diagnostics.len() <= errors.len());
    spans_are_within(&source.text, errors.iter().flat_map(diagnostic_spans));
    if let Err(message) = survives_printing(&parsed) {
        panic!("{message}");
    }
    let mut request = stand_in::request();
    request.build_args.insert("B".to_string(), "b".to_string());
    request.ignore_file = Some("a\n!a/b\n".to_string());
    if let Err(errors) = stand_in::build(source.clone(), &request) {
        assert!(errors.iter().any(|error| error.severity == Severity::Error), "fails without an error");
        spans_are_within(&source.text, errors.iter().flat_map(diagnostic_spans));
    }
}

fn spans(dockerfile: &Dockerfile) -> impl Iterator<Item = Span> + '_ {
    dockerfile.nodes.iter().flat_map(|node| {
        let flags = node
            .flags
            .iter()
            .flat_map(|flag| [flag.span, flag.name_span].into_iter().chain(flag.value.iter().map(Placed::span)));
        let heredocs = node.heredocs.iter().flat_map(|heredoc| [heredoc.token.span(), heredoc.body.span()]);
        let words = split_words(&node.rest).into_iter().map(|word| word.span());
        [node.span, node.keyword.span(), node.rest.span()].into_iter().chain(flags).chain(heredocs).chain(words)
    })
}

fn diagnostic_spans(diagnostic: &Diagnostic) -> impl Iterator<Item = Span> + '_ {
    diagnostic.span.into_iter().chain(diagnostic.labels.iter().map(|(span, _)| *span))
}

fn spans_are_within(text: &str, spans: impl Iterator<Item = Span>) {
    for span in spans {
        assert!(text.get(span.start as usize..span.end as usize).is_some(), "{span:?} is not within the text");
    }
}

/// A text without errors prints as one that parses to the same.
pub(crate) fn survives_printing(first: &Parsed) -> Result<(), String> {
    if first.diagnostics.iter().any(|found| found.severity == Severity::Error) {
        return Ok(());
    }
    let printed = first.dockerfile.to_string();
    let second = parse(SourceText { name: "Dockerfile".to_string(), text: printed.clone() });
    let (before, after) = (content(&first.dockerfile), content(&second.dockerfile));
    let text = &first.dockerfile.source.text;
    if !second.diagnostics.is_empty() {
        return Err(format!("{text:?} is printed as {printed:?}, which has errors: {:?}", second.diagnostics));
    }
    match before == after {
        true => Ok(()),
        false => Err(format!("{text:?} is printed as {printed:?}\n{before:#?}\n{after:#?}")),
    }
}

/// All that an AST says, without places.
fn content(file: &Dockerfile) -> Vec<String> {
    let value = |directive: &Option<(String, Span)>| directive.as_ref().map(|(value, _)| value.clone());
    let head = (file.directives.escape, value(&file.directives.syntax), value(&file.directives.check));
    let nodes = file.nodes.iter().map(|node| {
        let flags: Vec<_> = node.flags.iter().map(|flag| (&flag.name, &flag.value)).collect();
        let heredocs = node.heredocs.iter().map(|heredoc| {
            let crate::ast::Heredoc { name, fd, expand, strip_tabs, body, terminator, token } = heredoc;
            (name, fd, expand, strip_tabs, body, terminator, token)
        });
        let heredocs: Vec<_> = heredocs.collect();
        let (keyword, rest, comments, empty) = (&node.keyword, &node.rest, &node.comments, node.empty_continuation);
        // CRs at the end of a line are none of it, though within a continuation they were; printing may add a `\v`.
        let blanks = node.blanks_at_end.trim_end_matches(['\r', '\x0b']);
        format!("{keyword:?} {flags:?} {rest:?} {heredocs:?} {comments:?} {empty} {:?} {blanks:?}", node.line)
    });
    std::iter::once(format!("{head:?}")).chain(nodes).collect()
}

/// A word expands without a panic, and an error is within it; what is in single quotes comes out as it is.
pub fn expansion(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let env = |name: &str| match name {
        "X" => Some("x".to_string()),
        "EMPTY" => Some(String::new()),
        "LONG" => Some("/usr/lib/libx.so.1.2 a*b?c\\".to_string()),
        _ => None,
    };
    for escape in ['\\', '`'] {
        let lexer = Lexer { escape };
        for result in [lexer.expand(&text, &env), lexer.expand_heredoc(&text, &env)] {
            if let Err(error) = result {
                assert!(text.get(error.at.clone()).is_some(), "{:?} is not within the word", error.at);
            }
        }
        let words = lexer.expand_words(&text, &env).map(|(words, _)| words).unwrap_or_default();
        assert!(words.iter().all(|word| !word.is_empty()));
        lexer.expand_for_display(text.as_ref().into(), &env);
        let placed = Placed::verbatim(text.as_ref(), 0);
        for word in split_assignments(&placed, escape) {
            assert!(!word.is_empty() && text.contains(word.as_str()));
        }
        let quoted: String = text.split('\'').map(|part| format!("'{part}'")).collect::<Vec<_>>().join("\"'\"");
        assert_eq!(lexer.expand(&quoted, &env).map(|expansion| expansion.text), Ok(text.clone()));
        let is_plain = !text.contains(['$', '\'', '"', escape]);
        if is_plain {
            assert_eq!(lexer.expand(&text, &env).map(|expansion| expansion.text), Ok(text.clone()));
        }
    }
}

/// A `.dockerignore`, and wildcards: the first line is a path, the others are patterns.
pub fn ignore(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (path, patterns) = text.split_once('\n').unwrap_or((&text, ""));
    if let Ok(ignore) = Ignore::parse(patterns) {
        let excluded = ignore.excluded(path);
        assert!(excluded || ignore.reason(path).is_none(), "a reason for what is not excluded");
        if let Some((line, _)) = ignore.reason(path) {
            assert!((1..=patterns.lines().count()).contains(&line));
        }
        ignore.may_include_below(path);
    }
    for pattern in patterns.lines() {
        let _ = wildcard::path_match(pattern, path);
    }
    if !path.contains(['*', '?', '[', '\\']) {
        assert!(!wildcard::has_wildcard(path));
        assert!(wildcard::path_match(path, path) != Ok(false), "{path:?} does not match itself");
    }
}

/// An image reference reads as itself when printed.
pub fn reference(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Ok(reference) = Reference::parse(&text) else { return };
    for printed in [reference.to_string(), reference.familiar()] {
        assert_eq!(Reference::parse(&printed).as_ref(), Ok(&reference), "{printed}");
    }
}

/// A platform reads as itself when printed.
pub fn platform(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let host = stand_in::request().build_platform;
    let Ok(platform) = Platform::parse(&text, &host) else { return };
    let printed = platform.to_string();
    assert_eq!(Platform::parse(&printed, &host).as_ref(), Ok(&platform), "{printed}");
    platform.acceptable();
}

/// Sources of ADD that are URLs.
pub fn git_url(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for url in [GitUrl::parse(&text), GitUrl::parse_context(&text)].into_iter().flatten().flatten() {
        assert!(url.subdir.split('/').all(|part| part != ".."), "{}", url.subdir);
        assert!(!url.subdir.starts_with('/'), "{}", url.subdir);
    }
    assert_eq!(redacted(&redacted(&text)), redacted(&text));
    if is_http(&text) {
        assert!(!http_file_name(&text).contains('/'));
    }
}

/// A record of `RUN --mount`.
pub fn mount(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let record = Placed::verbatim(text.as_ref(), 0);
    let written = csv::fields(&text);
    assert_eq!(written.is_ok(), csv::placed_fields(&record).is_ok());
    let fault = match RunMount::parse(&record) {
        Err(fault) => fault,
        Ok(mount) => match mount.expand::<()>(&mut |word| Ok(word.as_str().into())) {
            Ok(Err(fault)) => fault,
            _ => return,
        },
    };
    spans_are_within(&text, [fault.place].into_iter());
}

/// A duration reads as itself when printed.
pub fn duration(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let Some(nanoseconds) = duration::parse(&text) else { return };
    assert_eq!(duration::parse(&duration::format(nanoseconds)), Some(nanoseconds));
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    /// Runs what the corpus has for a target.
    fn replay(target: &str, property: fn(&[u8])) {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/corpus");
        let mut inputs = vec![];
        for folder in [corpus.join("fuzz").join(target), corpus.join("errors")] {
            let entries = std::fs::read_dir(folder).into_iter().flatten();
            inputs.extend(entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap()));
        }
        assert!(inputs.len() > 100, "the corpus of {target} is missing");
        inputs.iter().for_each(|input| property(input));
    }

    #[test]
    fn corpus() {
        replay("dockerfile", dockerfile);
        replay("expansion", expansion);
        replay("ignore", ignore);
        replay("reference", reference);
        replay("platform", platform);
        replay("git_url", git_url);
        replay("mount", mount);
        replay("duration", duration);
    }
}
