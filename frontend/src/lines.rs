//! Text -> physical lines -> logical lines: line ends, comments, blank lines and continuations.
//!
//! Knows nothing of what a line says; next to read: `parse.rs`.

use crate::placed::Placed;
use crate::span::Span;

/// Longest physical line, newline excluded (BuildKit's scanner has a buffer of 64 KiB).
pub(crate) const MAX_LINE_BYTES: usize = 65535;

/// Dropped at the very start of a file.
pub(crate) const BYTE_ORDER_MARK: char = '\u{feff}';

/// A cursor over the physical lines of a file.
pub(crate) struct Lines<'a> {
    text: &'a str,
    next: usize,
    /// Lines read so far that are longer than [`MAX_LINE_BYTES`].
    pub too_long: Vec<Span>,
}

/// A line of the file.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PhysicalLine<'a> {
    /// Offset of its first byte.
    pub start: usize,
    /// Newline included, where there is one.
    pub raw: &'a str,
    /// Without newline and the CRs before it.
    pub content: &'a str,
}

impl PhysicalLine<'_> {
    /// Offset after the content.
    pub fn end(&self) -> usize {
        self.start + self.content.len()
    }

    /// The content's place.
    pub fn span(&self) -> Span {
        Span::new(self.start, self.end())
    }
}

/// An instruction line, continuations joined.
#[derive(Debug, Default)]
pub(crate) struct LogicalLine {
    /// Escapes at line ends, comments and blank lines removed; leading white space removed, trailing kept.
    pub text: Placed,
    /// From its first visible character to the end of its last physical line.
    pub span: Span,
    /// Comment lines directly above.
    pub comments: Vec<String>,
    /// A blank line stood within a continuation.
    pub empty_continuation: bool,
}

impl<'a> Lines<'a> {
    /// All lines of a file, its byte order mark skipped.
    pub fn new(text: &'a str) -> Lines<'a> {
        let next = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        Lines { text, next, too_long: vec![] }
    }

    /// Offset of the next physical line.
    pub fn offset(&self) -> usize {
        self.next
    }

    /// Goes on at an offset, which may be within a line.
    pub fn seek(&mut self, offset: usize) {
        self.next = offset;
    }

    /// The next physical line as it is, such as one of a heredoc's body.
    pub fn next_physical(&mut self) -> Option<PhysicalLine<'a>> {
        let rest = &self.text[self.next..];
        if rest.is_empty() {
            return None;
        }
        let raw = &rest[..rest.find('\n').map_or(rest.len(), |newline| newline + 1)];
        let without_newline = raw.strip_suffix('\n').unwrap_or(raw);
        let line = PhysicalLine { start: self.next, raw, content: without_newline.trim_end_matches('\r') };
        self.next += raw.len();
        if without_newline.len() > MAX_LINE_BYTES {
            self.too_long.push(line.span());
        }
        Some(line)
    }

    /// The next instruction line, as a part of `file`, which is the whole text. `is_directive` says of a line's offset
    /// whether a parser directive stands there, which is no comment on what follows.
    pub fn next_logical(
        &mut self,
        file: &Placed,
        escape: char,
        is_directive: impl Fn(usize) -> bool,
    ) -> Option<LogicalLine> {
        let mut comments = vec![];
        loop {
            let line = self.next_physical()?;
            let text = line.content.trim_start();
            if text.is_empty() {
                // BuildKit keeps comments over blank lines; its documentation says that a blank line ends them, and so
                // do its texts on how to silence the check `InvalidDefinitionDescription`.
                comments.clear();
            } else if text.starts_with('#') {
                if !is_directive(line.start) {
                    add_comment(&mut comments, line.content);
                }
            } else {
                return Some(self.join(file, line, escape, comments));
            }
        }
    }

    fn join(&mut self, file: &Placed, first: PhysicalLine<'a>, escape: char, comments: Vec<String>) -> LogicalLine {
        let text = first.content.trim_start();
        let start = first.end() - text.len();
        let mut logical = LogicalLine { comments, ..LogicalLine::default() };
        let mut end = first.end();

        let (text, mut continued) = strip_continuation(text, escape);
        if !text.is_empty() {
            logical.text = file.slice(start..start + text.len());
        }
        while continued {
            let Some(line) = self.next_physical() else { break };
            end = line.end();
            let visible = line.content.trim_start();
            if visible.is_empty() {
                logical.empty_continuation = true;
            } else if !visible.starts_with('#') {
                let text;
                (text, continued) = strip_continuation(line.content, escape);
                logical.text.push(text, line.start);
            }
        }
        logical.span = Span::new(start, end);
        logical
    }
}

/// A comment's text as it is attached to what follows. An empty comment separates; an indented one keeps its `#`, so
/// that it never passes for a description (both as BuildKit has it).
fn add_comment(comments: &mut Vec<String>, line: &str) {
    let text = line.strip_prefix('#').unwrap_or(line).trim();
    if text.is_empty() {
        comments.clear();
    } else {
        comments.push(text.to_owned());
    }
}

/// Takes off the escape at the end of a line, and says whether there was one: the last character but for blanks and
/// tabs, and not itself after an escape.
fn strip_continuation(line: &str, escape: char) -> (&str, bool) {
    match line.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(text) if !text.ends_with(escape) => (text, true),
        _ => (line, false),
    }
}
