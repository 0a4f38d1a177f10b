//! One pass over a word: quotes, escapes and substitutions (reference/dockerfile.md 3.2, 3.3).
//!
//! What is asked of it is in `words.rs`; patterns of `${v#p}` and its kin are in `pattern.rs`.

use crate::pattern::Pattern;
use crate::words::{Env, MAX_DEPTH, WordError, WordErrorKind};
use std::ops::Range;

/// What becomes of quotes.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Quotes {
    #[default]
    Removed,
    /// They quote, and stay in the result.
    Kept,
    /// They are characters like any other.
    Text,
}

/// What becomes of variables that are not set.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Unset {
    #[default]
    Empty,
    /// As written.
    Kept,
}

/// How a text is processed. By default, as a word of an instruction.
#[derive(Clone, Copy, Default)]
pub(crate) struct Mode {
    pub quotes: Quotes,
    pub unset: Unset,
    /// Escapes stay in the result.
    pub raw_escapes: bool,
    /// `<<` binds the white space after it.
    pub heredoc_tokens: bool,
    /// The text is split into words.
    pub splits: bool,
}

/// Text, and its words if it is split into them.
#[derive(Default)]
pub(crate) struct Output {
    pub text: String,
    splits: bool,
    words: Vec<String>,
    /// The last word, still growing; empty between words.
    word: String,
}

impl Output {
    /// Adds quoted or escaped text.
    fn push_quoted(&mut self, text: &str) {
        self.text.push_str(text);
        if self.splits {
            self.word.push_str(text);
        }
    }

    /// Adds text whose white space splits words.
    fn push_splitting(&mut self, text: &str) {
        self.text.push_str(text);
        if !self.splits {
            return;
        }
        for c in text.chars() {
            if !c.is_whitespace() {
                self.word.push(c);
            } else if !self.word.is_empty() {
                self.words.push(std::mem::take(&mut self.word));
            }
        }
    }

    /// The words, quoted white space within them.
    pub fn words(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

/// How many bytes come before the next character that may mean something: a quote, `$`, `<`, the escape or the stop.
fn plain_length(text: &str, escape: char, stop: char) -> usize {
    // All are ASCII, whose bytes are part of no other character.
    let (escape, stop) = (escape as u8, stop as u8);
    let means = |byte: u8| matches!(byte, b'$' | b'\'' | b'"' | b'<') || byte == escape || byte == stop;
    text.bytes().position(means).unwrap_or(text.len())
}

/// Processes a text. Second: the names of [`crate::words::Expansion::unset`].
pub(crate) fn run(word: &str, escape: char, mode: Mode, env: &Env<'_>) -> Result<(Output, Vec<String>), WordError> {
    let mut scan = Scan { word, rest: word, escape, mode, env, unset: vec![], depth: 0, wrong: None };
    match scan.until(None) {
        Ok(output) => Ok((output, scan.unset)),
        Err(kind) => {
            let at = scan.wrong.unwrap_or(0..word.len());
            Err(WordError { word: word.to_owned(), kind, at })
        }
    }
}

struct Scan<'a, 'e> {
    word: &'a str,
    rest: &'a str,
    escape: char,
    mode: Mode,
    env: &'e Env<'e>,
    unset: Vec<String>,
    depth: usize,
    /// Where an error is: the innermost substitution, or the quote.
    wrong: Option<Range<usize>>,
}

impl<'a> Scan<'a, '_> {
    /// Offset of the rest in the word.
    fn position(&self) -> usize {
        self.word.len() - self.rest.len()
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn take(&mut self) -> Option<char> {
        let mut chars = self.rest.chars();
        let c = chars.next();
        self.rest = chars.as_str();
        c
    }

    /// Processes up to a character, which is consumed, or up to the end if there is none.
    fn until(&mut self, stop: Option<char>) -> Result<Output, WordErrorKind> {
        // Words within a substitution are split where it stands.
        let splits = self.mode.splits && stop.is_none();
        let room = if stop.is_none() { self.rest.len() } else { 0 };
        let mut output = Output { splits, text: String::with_capacity(room), ..Output::default() };
        loop {
            output.push_splitting(self.plain(stop));
            let Some(c) = self.peek() else { break };
            if stop == Some(c) {
                self.take();
                return Ok(output);
            }
            match c {
                '$' => output.push_splitting(&self.dollar()?),
                '\'' if self.mode.quotes != Quotes::Text => output.push_quoted(&self.single_quoted()?),
                '"' if self.mode.quotes != Quotes::Text => output.push_quoted(&self.double_quoted()?),
                '<' if self.mode.heredoc_tokens => output.push_quoted(self.heredoc_operator()),
                c if c == self.escape => self.escaped(&mut output),
                _ => {
                    self.take();
                    output.push_splitting(c.encode_utf8(&mut [0; 4]));
                }
            }
        }
        match stop {
            None => Ok(output),
            // Only substitutions stop at a character, and what they miss at the end depends on which.
            Some('/') => Err(WordErrorKind::MissingSlash),
            Some(_) => Err(WordErrorKind::MissingBrace),
        }
    }

    /// What comes before the next character that may mean something.
    fn plain(&mut self, stop: Option<char>) -> &'a str {
        let (plain, rest) = self.rest.split_at(plain_length(self.rest, self.escape, stop.unwrap_or('$')));
        self.rest = rest;
        plain
    }

    /// The escape, and what it escapes.
    fn escaped(&mut self, output: &mut Output) {
        self.take();
        if self.mode.raw_escapes {
            output.push_quoted(self.escape.encode_utf8(&mut [0; 4]));
        }
        // An escape at the end is dropped.
        if let Some(escaped) = self.take() {
            output.push_quoted(escaped.encode_utf8(&mut [0; 4]));
        }
    }

    /// `<`, or `<<` or `<<-` with the white space after it.
    fn heredoc_operator(&mut self) -> &'a str {
        const BLANKS: [char; 3] = ['\t', '\r', ' '];
        let all = self.rest;
        self.rest = match all.strip_prefix("<<") {
            Some(after) => match after.strip_prefix('-') {
                Some(delimiter) if delimiter.starts_with(BLANKS) => delimiter.trim_start_matches(BLANKS),
                _ => after.trim_start_matches(BLANKS),
            },
            None => &all[1..],
        };
        &all[..all.len() - self.rest.len()]
    }

    fn single_quoted(&mut self) -> Result<String, WordErrorKind> {
        let inner = &self.rest[1..];
        let Some(end) = inner.find('\'') else {
            let at = self.position();
            self.wrong.get_or_insert(at..at + 1);
            return Err(WordErrorKind::SingleQuote);
        };
        self.rest = &inner[end + 1..];
        let text = &inner[..end];
        Ok(if self.mode.quotes == Quotes::Kept { format!("'{text}'") } else { text.to_owned() })
    }

    fn double_quoted(&mut self) -> Result<String, WordErrorKind> {
        let opened_at = self.position();
        self.take();
        let quote = if self.mode.quotes == Quotes::Kept { "\"" } else { "" };
        let mut text = quote.to_owned();
        loop {
            let Some(next) = self.peek() else {
                self.wrong.get_or_insert(opened_at..opened_at + 1);
                return Err(WordErrorKind::DoubleQuote);
            };
            match next {
                '"' => {
                    self.take();
                    text.push_str(quote);
                    return Ok(text);
                }
                '$' => text.push_str(&self.dollar()?),
                c if c == self.escape => {
                    self.take();
                    if self.mode.raw_escapes {
                        text.push(c);
                    }
                    // Before any other character the escape stays.
                    match self.peek() {
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.escape => {
                            self.take();
                            text.push(escaped);
                        }
                        // In a pattern it is doubled by that, and so literal.
                        _ => text.push(c),
                    }
                }
                c => {
                    self.take();
                    text.push(c);
                }
            }
        }
    }

    /// `$name`, `${…}` or a lone `$`.
    fn dollar(&mut self) -> Result<String, WordErrorKind> {
        let start = self.position();
        let result = self.substitution();
        if result.is_err() && self.wrong.is_none() {
            // Up to the brace that was not reached.
            let read = self.position();
            let closed = self.word[start..read].ends_with('}');
            let end = if closed { read } else { self.rest.find('}').map_or(self.word.len(), |brace| read + brace + 1) };
            self.wrong = Some(start..end);
        }
        result
    }

    fn substitution(&mut self) -> Result<String, WordErrorKind> {
        self.take();
        if self.peek() != Some('{') {
            let name = self.name();
            if name.is_empty() {
                return Ok("$".into());
            }
            return Ok(match self.get(name, Use::Value) {
                None if self.mode.unset == Unset::Kept => format!("${name}"),
                value => value.unwrap_or_default(),
            });
        }
        self.take();
        match self.peek() {
            None => return Err(WordErrorKind::MissingBrace),
            Some('{' | '}' | ':') => return Err(WordErrorKind::BadSubstitution),
            Some(_) => {}
        }
        if self.depth == MAX_DEPTH {
            return Err(WordErrorKind::TooDeep);
        }
        self.depth += 1;
        let name = self.name();
        let result = self.braced(name);
        self.depth -= 1;
        result
    }

    /// What follows the name in `${name…}`.
    fn braced(&mut self, name: &str) -> Result<String, WordErrorKind> {
        let Some(operator) = self.take() else {
            return Err(WordErrorKind::Modifier(String::new()));
        };
        match operator {
            '}' => Ok(match self.get(name, Use::Value) {
                None if self.mode.unset == Unset::Kept => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            ':' => match self.take() {
                Some(test @ ('-' | '+' | '?')) => self.tested(name, ":", test),
                Some(other @ ('#' | '%')) => Err(WordErrorKind::Modifier(format!(":{other}"))),
                Some(other) => self.unsupported(name, other),
                None => Err(WordErrorKind::MissingBrace),
            },
            '-' | '+' | '?' => self.tested(name, "", operator),
            '#' | '%' => self.trimmed(name, operator),
            '/' => self.replaced(name),
            other => Err(WordErrorKind::Modifier(other.into())),
        }
    }

    /// `-`, `+` and `?`; with `:` an empty value counts as unset. The word is evaluated in any case.
    fn tested(&mut self, name: &str, colon: &str, test: char) -> Result<String, WordErrorKind> {
        let word = self.word('}', false)?;
        let value = self.get(name, Use::Test);
        if value.is_none() && self.mode.unset == Unset::Kept {
            return Ok(format!("${{{name}{colon}{test}{word}}}"));
        }
        let usable = value.clone().filter(|value| colon.is_empty() || !value.is_empty());
        match (test, usable) {
            ('-', Some(value)) | ('?', Some(value)) => Ok(value),
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('?', None) => {
                let reason = if value.is_none() { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { reason.into() } else { word };
                Err(WordErrorKind::Required { name: name.into(), message })
            }
            _ => Ok(String::new()),
        }
    }

    /// `${name:0:2}` and the like, which are meant for the shell: kept where unset variables are. What is wrong with the
    /// word after it comes first.
    fn unsupported(&mut self, name: &str, modifier: char) -> Result<String, WordErrorKind> {
        let word = self.word('}', false)?;
        match self.get(name, Use::Test) {
            None if self.mode.unset == Unset::Kept => Ok(format!("${{{name}:{modifier}{word}}}")),
            _ => Err(WordErrorKind::Modifier(format!(":{modifier}"))),
        }
    }

    /// `#`, `##`, `%` and `%%`.
    fn trimmed(&mut self, name: &str, operator: char) -> Result<String, WordErrorKind> {
        let word = self.word('}', true)?;
        let Some(value) = self.get(name, Use::Value) else {
            let kept = self.mode.unset == Unset::Kept;
            return Ok(if kept { format!("${{{name}{operator}{word}}}") } else { String::new() });
        };
        // A second operator asks for the longest match. It may come from a variable, as in BuildKit.
        let (greedy, text) = match word.strip_prefix(operator) {
            Some(text) => (true, text),
            None => (false, word.as_str()),
        };
        let pattern = compile(text)?;
        Ok(if operator == '#' { pattern.trim_prefix(&value, greedy) } else { pattern.trim_suffix(&value, greedy) })
    }

    /// `/p/r` and `//p/r`.
    fn replaced(&mut self, name: &str) -> Result<String, WordErrorKind> {
        let every = self.peek() == Some('/');
        if every {
            self.take();
        }
        let text = self.word('/', true)?;
        let replacement = self.word('}', true)?;
        let Some(value) = self.get(name, Use::Value) else {
            let slash = if every { "//" } else { "/" };
            let kept = self.mode.unset == Unset::Kept;
            return Ok(if kept { format!("${{{name}{slash}{text}/{replacement}}}") } else { String::new() });
        };
        let pattern = compile(&text)?;
        Ok(if every { pattern.replace_all(&value, &replacement) } else { pattern.replace_first(&value, &replacement) })
    }

    /// A word within a substitution. Patterns keep their escapes, for the pattern to read.
    fn word(&mut self, stop: char, raw_escapes: bool) -> Result<String, WordErrorKind> {
        let outer = std::mem::replace(&mut self.mode.raw_escapes, raw_escapes);
        let result = self.until(Some(stop));
        self.mode.raw_escapes = outer;
        match result {
            // What is open at the end, such as a quote that swallowed the brace, is told as the brace that is missing.
            Err(_) if self.rest.is_empty() && stop == '/' => {
                self.wrong = None;
                Err(WordErrorKind::MissingSlash)
            }
            Err(_) if self.rest.is_empty() => {
                self.wrong = None;
                Err(WordErrorKind::MissingBrace)
            }
            result => result.map(|output| output.text),
        }
    }

    /// The name at the start of the rest, which may be empty: digits, one special parameter, or letters, digits and `_`.
    fn name(&mut self) -> &'a str {
        let length = match self.peek() {
            Some(c) if c.is_ascii_digit() => self.rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(self.rest.len()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => 1,
            _ => self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len()),
        };
        let (name, rest) = self.rest.split_at(length);
        self.rest = rest;
        name
    }

    fn get(&mut self, name: &str, purpose: Use) -> Option<String> {
        let value = (self.env)(name);
        if value.is_none() && purpose == Use::Value && !self.unset.iter().any(|unset| unset == name) {
            self.unset.push(name.to_owned());
        }
        value
    }
}

/// What a value is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    /// To stand in the text: a missing one is worth a warning.
    Value,
    /// To see whether there is one.
    Test,
}

fn compile(pattern: &str) -> Result<Pattern, WordErrorKind> {
    Pattern::parse(pattern).map_err(|error| WordErrorKind::Pattern { pattern: pattern.to_owned(), error })
}
