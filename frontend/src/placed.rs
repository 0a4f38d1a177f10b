//! Text that was put together from pieces of the file, such as a line without its continuations, and knows where each
//! of its bytes stands there: for messages that underline a word.

use crate::span::Span;
use std::fmt;
use std::ops::{Deref, Range};
use std::sync::{Arc, LazyLock};

/// A text and its place. Equal to another if the text is.
///
/// It is part of a line, or of the whole file, that all its parts share, so that to cut one out or to copy it costs no
/// memory.
#[derive(Clone)]
pub struct Placed {
    line: Arc<Line>,
    /// Offset of the first byte, and after the last, in the line.
    start: u32,
    end: u32,
    /// The text is not to be found byte by byte in the file, but stands for this.
    whole: Option<Span>,
}

#[derive(Clone, Default)]
struct Line {
    text: String,
    /// Offset in the text and in the file of each piece, ascending in both; a piece reaches to the next.
    pieces: Vec<(u32, u32)>,
}

/// What texts are part of that have nothing yet.
static EMPTY: LazyLock<Arc<Line>> = LazyLock::new(Arc::default);

impl Default for Placed {
    fn default() -> Placed {
        Placed { line: EMPTY.clone(), start: 0, end: 0, whole: None }
    }
}

impl Placed {
    fn of(line: Line, whole: Option<Span>) -> Placed {
        let end = line.text.len() as u32;
        Placed { line: Arc::new(line), start: 0, end, whole }
    }

    /// A text that the file has otherwise, such as decoded, at a place.
    pub fn whole(text: impl Into<String>, span: Span) -> Placed {
        Placed::of(Line { text: text.into(), pieces: vec![] }, Some(span))
    }

    /// A text that is in the file as it is, from an offset on.
    pub fn verbatim(text: impl Into<String>, offset: usize) -> Placed {
        Placed::of(Line { text: text.into(), pieces: vec![(0, offset as u32)] }, None)
    }

    /// Appends a piece of the file.
    pub fn push(&mut self, piece: &str, offset: usize) {
        let is_placed = self.whole.is_none();
        let line = self.own_line();
        let (at, offset) = (line.text.len() as u32, offset as u32);
        let continues = |(in_text, in_file): &(u32, u32)| offset == in_file + at - in_text;
        if is_placed && !piece.is_empty() && !line.pieces.last().is_some_and(continues) {
            line.pieces.push((at, offset));
        }
        line.text.push_str(piece);
        self.end = line.text.len() as u32;
    }

    /// Appends another text. What has no place byte by byte takes it from the whole.
    pub fn append(&mut self, other: &Placed) {
        if other.is_empty() {
            return;
        }
        if self.is_empty() && self.whole.is_none() {
            *self = other.clone();
            return;
        }
        if self.whole.is_none() {
            self.whole = other.whole;
        }
        let is_placed = self.whole.is_none();
        let line = self.own_line();
        let at = line.text.len() as u32;
        if is_placed {
            line.pieces.extend(other.pieces().map(|(in_text, in_file)| (in_text + at, in_file)));
        }
        line.text.push_str(other);
        self.end = line.text.len() as u32;
    }

    /// The line, of which nobody else has a part and which is this text alone.
    fn own_line(&mut self) -> &mut Line {
        if Arc::get_mut(&mut self.line).is_none() || self.as_str().len() != self.line.text.len() {
            let has_pieces = self.whole.is_none() && !self.is_empty();
            let pieces = if has_pieces { self.pieces().collect() } else { vec![] };
            let own = Placed::of(Line { text: self.as_str().to_string(), pieces }, self.whole);
            *self = own;
        }
        Arc::get_mut(&mut self.line).expect("nobody else has it")
    }

    /// The pieces of this text.
    fn pieces(&self) -> impl Iterator<Item = (u32, u32)> {
        let pieces = &self.line.pieces;
        let first = (0, self.offset(0) as u32);
        let after = pieces.partition_point(|(in_text, _)| *in_text <= self.start);
        let later = pieces[after..].iter().take_while(|(in_text, _)| *in_text < self.end);
        std::iter::once(first).chain(later.map(|(in_text, in_file)| (in_text - self.start, *in_file)))
    }

    /// The text.
    #[inline]
    pub fn as_str(&self) -> &str {
        &self.line.text[self.start as usize..self.end as usize]
    }

    /// The text alone.
    pub fn into_string(self) -> String {
        self.as_str().to_string()
    }

    /// From the first to the last byte in the file, and what is dropped between them.
    pub fn span(&self) -> Span {
        self.place(0..self.len())
    }

    /// Where a range of the text stands.
    pub fn place(&self, range: Range<usize>) -> Span {
        if let Some(span) = self.whole {
            return span;
        }
        if range.is_empty() {
            let at = if range.start == 0 { self.offset(0) } else { self.offset(range.start - 1) + 1 };
            return Span::new(at, at);
        }
        Span::new(self.offset(range.start), self.offset(range.end - 1) + 1)
    }

    /// Where a byte of the text stands.
    fn offset(&self, at: usize) -> usize {
        let at = self.start + at as u32;
        let pieces = &self.line.pieces;
        let after = pieces.partition_point(|(in_text, _)| *in_text <= at);
        match after.checked_sub(1).and_then(|piece| pieces.get(piece)) {
            Some((in_text, in_file)) => (in_file + (at - in_text)) as usize,
            None => 0,
        }
    }

    /// Part of the text, at its own place. The range must be on character boundaries.
    pub fn slice(&self, range: Range<usize>) -> Placed {
        let _ = &self[range.clone()];
        self.cut(range)
    }

    /// As [`Placed::slice`], of a range that is known to be on character boundaries.
    fn cut(&self, range: Range<usize>) -> Placed {
        // What is empty has no byte that would have a place.
        let whole = if range.is_empty() { Some(self.place(range.clone())) } else { self.whole };
        let (start, end) = (self.start + range.start as u32, self.start + range.end as u32);
        Placed { line: self.line.clone(), start, end, whole }
    }

    /// Part of the text, given as a slice of [`Placed::as_str`].
    pub fn part(&self, part: &str) -> Placed {
        let start = (part.as_ptr() as usize).wrapping_sub(self.as_str().as_ptr() as usize);
        match start.checked_add(part.len()).filter(|end| *end <= self.len()) {
            // What is text itself begins and ends where characters do.
            Some(end) => self.cut(start..end),
            None => Placed::whole(part, self.span()),
        }
    }

    /// The same text, standing for another place.
    pub fn moved(&self, span: Span) -> Placed {
        Placed { whole: Some(span), ..self.clone() }
    }
}

impl Eq for Placed {}

impl Deref for Placed {
    type Target = str;

    #[inline]
    fn deref(&self) -> &str {
        self.as_str()
    }
}

impl AsRef<str> for Placed {
    #[inline]
    fn as_ref(&self) -> &str {
        self.as_str()
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Placed) -> bool {
        self.as_str() == other.as_str()
    }
}

impl PartialEq<str> for Placed {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Placed {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ab` at 10, `cd` at 12 (next to it), `é` at 20.
    fn sample() -> Placed {
        let mut placed = Placed::default();
        for (piece, offset) in [("ab", 10), ("cd", 12), ("é", 20), ("", 30)] {
            placed.push(piece, offset);
        }
        placed
    }

    #[test]
    fn places() {
        let check = |range: Range<usize>, start, end| assert_eq!(sample().place(range), Span::new(start, end));
        check(0..4, 10, 14);
        check(3..6, 13, 22);
        check(4..6, 20, 22);
        check(0..0, 10, 10);
        check(4..4, 14, 14);
        check(6..6, 22, 22);
        assert_eq!(sample().span(), Span::new(10, 22));
        assert_eq!(Placed::default().span(), Span::new(0, 0));
        assert_eq!(Placed::whole("x", Span::new(3, 9)).slice(0..1).place(0..1), Span::new(3, 9));
    }

    #[test]
    fn slices_keep_their_places() {
        let sample = sample();
        for start in [0, 1, 2, 3, 4, 6] {
            for end in [0, 1, 2, 3, 4, 6].into_iter().filter(|end| *end >= start) {
                let slice = sample.slice(start..end);
                assert_eq!((slice.as_str(), slice.span()), (&sample[start..end], sample.place(start..end)));
                assert_eq!(sample.part(&sample[start..end]).span(), slice.span());
            }
        }
        assert_eq!(sample.slice(1..6).slice(2..5).span(), sample.place(3..6));
    }
}
