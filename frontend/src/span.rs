//! Places in a source text.

use std::fmt;

/// Bytes `start..end` of the Dockerfile.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Span {
    /// First byte.
    pub start: u32,
    /// After the last byte.
    pub end: u32,
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.start, self.end)
    }
}

impl Span {
    /// Bytes `start..end`.
    pub fn new(start: usize, end: usize) -> Span {
        Span { start: start as u32, end: end as u32 }
    }
}

/// A named text, such as the Dockerfile. Bytes that are not UTF-8 have been replaced (U+FFFD) by whoever read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceText {
    /// As the user gave it: `Dockerfile`, `sub/app.Dockerfile`, `-`.
    pub name: String,
    /// All of it, byte order mark and CRs included.
    pub text: String,
}

impl SourceText {
    /// Line and column (of characters), both from 1, of a byte offset; past the end counts as the end.
    pub fn line_column(&self, offset: u32) -> (usize, usize) {
        let mut offset = (offset as usize).min(self.text.len());
        while !self.text.is_char_boundary(offset) {
            offset -= 1;
        }
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        // Over bytes, since that is done many at a time, and a file may have as many warnings as lines.
        (before.bytes().filter(|byte| *byte == b'\n').count() + 1, before[line_start..].chars().count() + 1)
    }

    /// First and last line, from 1, that a span touches.
    pub fn lines(&self, span: Span) -> (usize, usize) {
        let last = span.end.saturating_sub(1).max(span.start);
        (self.line_column(span.start).0, self.line_column(last).0)
    }
}
