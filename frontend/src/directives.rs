//! Parser directives (`# escape=`, `# syntax=`, `# check=`) at the top of a file.
//!
//! BuildKit reads them with three scanners that do not agree: `escape` is found by the parser, which allows white space
//! before `#` and stops at `#!`; `syntax` and `check` are searched for in raw lines after an optional `#!` line; and
//! `syntax` is also known with `//` in place of `#`, or as a member of a JSON object, for languages that are no
//! Dockerfiles.

use crate::ast::Directives;
use crate::lines::{BYTE_ORDER_MARK, Lines, PhysicalLine};
use crate::span::Span;

const KNOWN: [&str; 3] = ["escape", "syntax", "check"];

/// What stands at the top of a file.
pub(crate) struct Found {
    pub directives: Directives,
    /// Offsets of the lines that are directives.
    pub lines: Vec<usize>,
    /// What is wrong, and where.
    pub errors: Vec<(String, Span)>,
}

/// Reads the directives of a file.
pub(crate) fn read(text: &str) -> Found {
    let mut found =
        Found { directives: Directives { escape: '\\', syntax: None, check: None }, lines: vec![], errors: vec![] };
    // Most files, and all triggers, have none in any form.
    if !text.trim_start_matches(BYTE_ORDER_MARK).trim_start().starts_with(['#', '/', '{']) {
        return found;
    }
    read_escape(text, &mut found);

    let (lines, _) = raw_lines(text);
    let hashed = leading(lines, "#");
    found.lines.extend(hashed.iter().map(|(_, _, line)| line.start));
    let first = |key: &str| hashed.iter().find(|(k, _, _)| k == key);
    found.directives.syntax =
        first("syntax").map(|(_, value, line)| (value.to_string(), line.span())).or_else(|| foreign_syntax(text));
    // A remark may follow after a blank.
    found.directives.check = first("check")
        .map(|(_, value, line)| (value.split(' ').next().unwrap_or_default().trim_end().to_owned(), line.span()));
    found
}

/// The parser's own scan, which also reports what is wrong.
fn read_escape(text: &str, found: &mut Found) {
    let mut lines = Lines::new(text);
    let mut seen: Vec<String> = vec![];
    while let Some(line) = lines.next_physical() {
        let Some((key, value)) = directive(line.content.trim_start(), "#") else { break };
        found.lines.push(line.start);
        if seen.contains(&key) {
            found.errors.push((format!("only one {key} parser directive can be used"), line.span()));
        } else if key == "escape" {
            match value {
                "\\" => found.directives.escape = '\\',
                "`" => found.directives.escape = '`',
                _ => {
                    let message = format!("invalid escape token '{value}' does not match ` or \\");
                    found.errors.push((message, line.span()));
                }
            }
        }
        seen.push(key);
    }
}

/// The lines after the byte order mark and a `#!` line, and whether there was one.
fn raw_lines(text: &str) -> (Lines<'_>, bool) {
    let mut lines = Lines::new(text);
    if lines.next_physical().is_some_and(|line| line.content.starts_with("#!")) {
        return (lines, true);
    }
    (Lines::new(text), false)
}

/// Leading directives, up to the first line that is none or repeats one.
fn leading<'a>(mut lines: Lines<'a>, comment: &str) -> Vec<(String, &'a str, PhysicalLine<'a>)> {
    let mut found: Vec<(String, &str, PhysicalLine)> = vec![];
    while let Some(line) = lines.next_physical() {
        let Some((key, value)) = directive(line.content, comment) else { break };
        if found.iter().any(|(earlier, _, _)| *earlier == key) {
            break;
        }
        found.push((key, value, line));
    }
    found
}

/// `syntax` in files of other languages.
fn foreign_syntax(text: &str) -> Option<(String, Span)> {
    let slashed = leading(raw_lines(text).0, "//").into_iter().find(|(key, _, _)| key == "syntax");
    if let Some((_, value, line)) = slashed {
        return Some((value.to_owned(), line.span()));
    }
    let (mut lines, _) = raw_lines(text);
    let first = lines.next_physical()?;
    let document: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text[first.start..]).ok()?;
    Some((document.get("syntax")?.as_str()?.to_owned(), first.span()))
}

/// Key, in lower case, and value of a line that is a known directive.
fn directive<'a>(line: &'a str, comment: &str) -> Option<(String, &'a str)> {
    let (key, value) = line.strip_prefix(comment)?.trim_start().split_once('=')?;
    let (key, value) = (key.trim_end().to_ascii_lowercase(), value.trim());
    (KNOWN.contains(&key.as_str()) && !value.is_empty()).then_some((key, value))
}
