//! Words: quotes, `$` and what follows it, backticks. What stands in a substitution is a list of its own, which `lex.rs`
//! reads.

use super::{End, MAX_DEPTH, Reader};
use crate::shell::{Script, Variable, Word};

impl Reader<'_, '_> {
    /// Reads a word; an empty one where none begins here. In `[[ … ]]`, operators are words.
    pub(super) fn word(&mut self, in_test: bool) -> Word {
        let mut word = Word::default();
        let start = self.at;
        while let Some(c) = self.peek() {
            match c {
                '\n' => break,
                c if c.is_whitespace() => break,
                '<' | '>' if self.starts_with("<(") || self.starts_with(">(") => {
                    if self.depth >= MAX_DEPTH {
                        break;
                    }
                    let from = self.at;
                    self.at += 2;
                    self.nested_list();
                    self.push_dynamic(&mut word, from);
                }
                '&' | '|' | '<' | '>' | '(' | ')' if in_test => {
                    self.at += 1;
                    word.text.push(c);
                }
                // `A=(b c)`
                '(' if self.at > start && self.text[..self.at].ends_with('=') && self.depth < MAX_DEPTH => {
                    let from = self.at;
                    self.at += 1;
                    self.array(&mut word);
                    self.push_dynamic(&mut word, from);
                }
                ';' | '&' | '|' | '<' | '>' | '(' | ')' => break,
                _ => self.piece(c, &mut word),
            }
        }
        word
    }

    /// A piece of a word that begins with `c`, outside double quotes.
    fn piece(&mut self, c: char, word: &mut Word) {
        self.at += c.len_utf8();
        match c {
            '\\' => {
                if self.take("\n") {
                    return;
                }
                word.is_quoted = true;
                word.text.extend(self.next());
            }
            '\'' => {
                word.is_quoted = true;
                let rest = &self.text[self.at..];
                let length = rest.find('\'').unwrap_or(rest.len());
                word.text.push_str(&rest[..length]);
                self.at = (self.at + length + 1).min(self.text.len());
            }
            '"' => self.double_quoted(word),
            '$' => self.dollar(word, Quoted::No),
            '`' => self.backticks(word),
            c => word.text.push(c),
        }
    }

    /// After the opening quote.
    fn double_quoted(&mut self, word: &mut Word) {
        word.is_quoted = true;
        while let Some(c) = self.next() {
            match c {
                '"' => return,
                '\\' => match self.next() {
                    Some('\n') | None => {}
                    Some(escaped @ ('"' | '\\' | '$' | '`')) => word.text.push(escaped),
                    Some(other) => word.text.extend(['\\', other]),
                },
                '$' => self.dollar(word, Quoted::Double),
                '`' => self.backticks(word),
                c => word.text.push(c),
            }
        }
    }

    /// After `$`.
    fn dollar(&mut self, word: &mut Word, quoted: Quoted) {
        let from = self.at - 1;
        match self.peek() {
            Some('(') if self.starts_with("((") => {
                self.at += 2;
                self.arithmetic(word);
            }
            Some('(') if self.depth < MAX_DEPTH => {
                self.at += 1;
                self.nested_list();
            }
            Some('{') => {
                self.at += 1;
                self.braces(word);
            }
            Some('\'') if quoted == Quoted::No => {
                self.at += 1;
                self.ansi_quoted(word);
                return;
            }
            Some('"') if quoted == Quoted::No => return,
            Some(c) if c.is_ascii_alphabetic() || c == '_' => {
                let name = self.name();
                word.variables.push(Variable { name, is_guarded: false });
            }
            Some(c) if c.is_ascii_digit() || "@*#?$!-".contains(c) => self.at += 1,
            _ => {
                word.text.push('$');
                return;
            }
        }
        self.push_dynamic(word, from);
    }

    /// What was read since `from` stands in the word as written.
    fn push_dynamic(&self, word: &mut Word, from: usize) {
        word.is_dynamic = true;
        word.text.push_str(&self.text[from..self.at]);
    }

    fn name(&mut self) -> String {
        let rest = &self.text[self.at..];
        let length = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        self.at += length;
        rest[..length].to_string()
    }

    /// After `${`, up to the brace that closes it.
    fn braces(&mut self, word: &mut Word) {
        let is_length_or_name = self.take("#") || self.take("!");
        let name = self.name();
        let rest = &self.text[self.at..];
        let is_guarded = ["-", "+", "=", "?", ":-", ":+", ":=", ":?"].iter().any(|mark| rest.starts_with(mark));
        if !name.is_empty() && !name.starts_with(|c: char| c.is_ascii_digit()) {
            word.variables.push(Variable { name, is_guarded: is_guarded && !is_length_or_name });
        }
        let mut depth = 1;
        while let Some(c) = self.next() {
            match c {
                '\\' => {
                    self.next();
                }
                '{' if self.text[..self.at].ends_with("${") => {
                    depth += 1;
                    let name = self.name();
                    if !name.is_empty() {
                        // What stands in another expansion is only used if that one wants it.
                        word.variables.push(Variable { name, is_guarded: true });
                    }
                }
                '}' => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                _ => {}
            }
        }
    }

    /// After `((`, up to `))`.
    pub(super) fn arithmetic(&mut self, word: &mut Word) {
        let mut depth = 2;
        while let Some(c) = self.next() {
            match c {
                '(' => depth += 1,
                ')' => {
                    depth -= 1;
                    if depth == 0 {
                        return;
                    }
                }
                '\\' => {
                    self.next();
                }
                '$' if self.peek().is_some_and(|c| c.is_ascii_alphabetic() || c == '_') => {
                    let name = self.name();
                    word.variables.push(Variable { name, is_guarded: false });
                }
                _ => {}
            }
        }
    }

    /// After `A=(`, up to the closing parenthesis.
    fn array(&mut self, word: &mut Word) {
        self.depth += 1;
        loop {
            self.skip_blanks();
            let start = self.at;
            match self.peek() {
                None => break,
                Some(')') => {
                    self.at += 1;
                    break;
                }
                Some('#') => self.comment(),
                Some('\n') => self.at += 1,
                Some(_) => {
                    let item = self.word(false);
                    word.variables.extend(item.variables);
                    if self.at == start {
                        self.next();
                    }
                }
            }
        }
        self.depth -= 1;
    }

    /// After `$'`.
    fn ansi_quoted(&mut self, word: &mut Word) {
        word.is_quoted = true;
        while let Some(c) = self.next() {
            match c {
                '\'' => return,
                '\\' => word.text.extend(self.next()),
                c => word.text.push(c),
            }
        }
    }

    /// After a backtick.
    fn backticks(&mut self, word: &mut Word) {
        let from = self.at - 1;
        let mut inside = String::new();
        while let Some(c) = self.next() {
            match c {
                '`' => break,
                '\\' => match self.next() {
                    Some(escaped @ ('`' | '\\' | '$')) => inside.push(escaped),
                    Some(other) => inside.extend(['\\', other]),
                    None => {}
                },
                c => inside.push(c),
            }
        }
        self.push_dynamic(word, from);
        if self.depth < MAX_DEPTH {
            let list = *self.lists;
            *self.lists += 1;
            let (lists, script, depth) = (&mut *self.lists, &mut *self.script, self.depth + 1);
            Reader { text: &inside, at: 0, lists, script, awaited: vec![], depth }.list(list, End::Text);
        }
    }
}

/// Whether a `$` stands in double quotes.
#[derive(Clone, Copy, PartialEq)]
enum Quoted {
    No,
    Double,
}

/// Name and value of `NAME=value` or `NAME+=value`, of which `written` is the word as written.
pub(super) fn assignment(written: &str, word: &Word) -> Option<(String, Word)> {
    let (before, _) = written.split_once('=')?;
    let name = before.strip_suffix('+').unwrap_or(before);
    let is_name = !name.is_empty()
        && !name.starts_with(|c: char| c.is_ascii_digit())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let text = word.text.split_once('=')?.1.to_string();
    is_name.then(|| (name.to_string(), Word { text, ..word.clone() }))
}

/// Variables in the body of a here-document.
pub(super) fn plain_variables(body: &str) -> Vec<Variable> {
    let mut script = Script::default();
    let mut reader =
        Reader { text: body, at: 0, lists: &mut 1, script: &mut script, awaited: vec![], depth: MAX_DEPTH };
    let mut word = Word::default();
    while let Some(c) = reader.next() {
        match c {
            '\\' => {
                reader.next();
            }
            '$' => reader.dollar(&mut word, Quoted::Double),
            _ => {}
        }
    }
    word.variables
}
