//! Text that was put together from pieces of the file, such as a line without its continuations, and knows where each
//! of its bytes stands there: for messages that underline a word.

use crate::span::Span;
use std::fmt;
use std::ops::{Deref, Range};

/// A text and its place. Equal to another if the text is.
#[derive(Clone, Default, Eq)]
pub struct Placed {
    text: String,
    places: Places,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Places {
    /// Offset in the text and in the file of each piece, ascending in both; a piece reaches to the next.
    Pieces(Vec<(u32, u32)>),
    /// The text is not to be found byte by byte in the file, but stands for this.
    Whole(Span),
}

impl Default for Places {
    fn default() -> Places {
        Places::Pieces(vec![])
    }
}

impl Placed {
    /// A text that the file has otherwise, such as decoded, at a place.
    pub fn whole(text: impl Into<String>, span: Span) -> Placed {
        Placed { text: text.into(), places: Places::Whole(span) }
    }

    /// A text that is in the file as it is, from an offset on.
    pub fn verbatim(text: impl Into<String>, offset: usize) -> Placed {
        Placed { text: text.into(), places: Places::Pieces(vec![(0, offset as u32)]) }
    }

    /// Appends a piece of the file.
    pub fn push(&mut self, piece: &str, offset: usize) {
        if let Places::Pieces(pieces) = &mut self.places
            && !piece.is_empty()
        {
            let continues = pieces
                .last()
                .is_some_and(|(in_text, in_file)| offset == *in_file as usize + self.text.len() - *in_text as usize);
            if !continues {
                pieces.push((self.text.len() as u32, offset as u32));
            }
        }
        self.text.push_str(piece);
    }

    /// Appends another text. What has no place byte by byte takes it from the whole.
    pub fn append(&mut self, other: &Placed) {
        if other.text.is_empty() {
            return;
        }
        match (&mut self.places, &other.places) {
            (Places::Pieces(pieces), Places::Pieces(others)) => {
                let shift = self.text.len() as u32;
                pieces.extend(others.iter().map(|(in_text, in_file)| (in_text + shift, *in_file)));
            }
            (Places::Pieces(_), Places::Whole(span)) => self.places = Places::Whole(*span),
            (Places::Whole(_), _) => {}
        }
        self.text.push_str(&other.text);
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text alone.
    pub fn into_string(self) -> String {
        self.text
    }

    /// From the first to the last byte in the file, and what is dropped between them.
    pub fn span(&self) -> Span {
        self.place(0..self.text.len())
    }

    /// Where a range of the text stands.
    pub fn place(&self, range: Range<usize>) -> Span {
        match &self.places {
            Places::Whole(span) => *span,
            Places::Pieces(_) if range.is_empty() => {
                let at = if range.start == 0 { self.offset(0) } else { self.offset(range.start - 1) + 1 };
                Span::new(at, at)
            }
            Places::Pieces(_) => Span::new(self.offset(range.start), self.offset(range.end - 1) + 1),
        }
    }

    fn offset(&self, at: usize) -> usize {
        let Places::Pieces(pieces) = &self.places else { return 0 };
        let after = pieces.partition_point(|(in_text, _)| *in_text as usize <= at);
        match after.checked_sub(1).and_then(|piece| pieces.get(piece)) {
            Some((in_text, in_file)) => *in_file as usize + (at - *in_text as usize),
            None => 0,
        }
    }

    /// Part of the text, at its own place. The range must be on character boundaries.
    pub fn slice(&self, range: Range<usize>) -> Placed {
        let text = self.text[range.clone()].to_string();
        let places = match &self.places {
            Places::Whole(span) => Places::Whole(*span),
            Places::Pieces(_) if range.is_empty() => Places::Whole(self.place(range)),
            Places::Pieces(pieces) => {
                let first = (0, self.offset(range.start) as u32);
                let after = pieces.partition_point(|(in_text, _)| *in_text as usize <= range.start);
                let later = pieces[after..].iter().take_while(|(in_text, _)| (*in_text as usize) < range.end);
                let later = later.map(|(in_text, in_file)| (*in_text - range.start as u32, *in_file));
                Places::Pieces(std::iter::once(first).chain(later).collect())
            }
        };
        Placed { text, places }
    }

    /// Part of the text, given as a slice of [`Placed::as_str`].
    pub fn part(&self, part: &str) -> Placed {
        let start = (part.as_ptr() as usize).wrapping_sub(self.text.as_ptr() as usize);
        match start.checked_add(part.len()).filter(|end| *end <= self.text.len()) {
            Some(end) if self.text.is_char_boundary(start) && self.text.is_char_boundary(end) => self.slice(start..end),
            _ => Placed::whole(part, self.span()),
        }
    }

    /// The same text, standing for another place.
    pub fn moved(&self, span: Span) -> Placed {
        Placed::whole(self.text.clone(), span)
    }
}

impl Deref for Placed {
    type Target = str;

    fn deref(&self) -> &str {
        &self.text
    }
}

impl AsRef<str> for Placed {
    fn as_ref(&self) -> &str {
        &self.text
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Placed) -> bool {
        self.text == other.text
    }
}

impl PartialEq<str> for Placed {
    fn eq(&self, other: &str) -> bool {
        self.text == other
    }
}

impl PartialEq<&str> for Placed {
    fn eq(&self, other: &&str) -> bool {
        self.text == *other
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
    }
}

impl fmt::Debug for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.text.fmt(f)
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
