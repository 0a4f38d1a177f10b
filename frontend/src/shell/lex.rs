//! Reads shell text in one pass: commands, operators, here-documents; words are in `lex/word.rs`.
//!
//! Invariant: every character is looked at a bounded number of times, and nesting deeper than [`MAX_DEPTH`] is read as
//! ordinary characters, so that no text takes long or overflows the stack.

mod word;

use super::{Command, Document, Join, Script, Word};
use word::{assignment, plain_variables};

/// Deeper subshells and substitutions are not followed.
const MAX_DEPTH: usize = 20;

/// Adds the commands of a text to the script, in the list `list`; numbers of further lists are taken from `lists`.
pub(super) fn read(text: &str, list: usize, lists: &mut usize, script: &mut Script) {
    Reader { text, at: 0, lists, script, awaited: vec![], depth: 0 }.list(list, End::Text);
}

struct Reader<'t, 's> {
    text: &'t str,
    at: usize,
    lists: &'s mut usize,
    script: &'s mut Script,
    /// Here-documents whose bodies follow the next newline.
    awaited: Vec<Awaited>,
    depth: usize,
}

/// A here-document that was announced.
struct Awaited {
    delimiter: String,
    strip_tabs: bool,
    expands: bool,
    /// Where its body goes.
    document: usize,
}

/// What ends a list.
#[derive(Clone, Copy, PartialEq)]
enum End {
    Text,
    Paren,
}

/// Where a reader is in `case WORD in PATTERN) … ;; esac`.
#[derive(Clone, Copy, PartialEq)]
enum Case {
    Pattern,
    Body,
}

/// A command that is being read.
#[derive(Default)]
struct Open {
    command: Command,
    /// Something of it has been read.
    begun: bool,
}

impl Open {
    /// It is a `[[` whose `]]` has not come yet: operators are its words.
    fn is_test(&self) -> bool {
        let is = |word: Option<&Word>, text: &str| word.is_some_and(|word| word.text == text && !word.is_quoted);
        is(self.command.words.first(), "[[") && !is(self.command.words.last(), "]]")
    }
}

impl Reader<'_, '_> {
    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn starts_with(&self, text: &str) -> bool {
        self.text[self.at..].starts_with(text)
    }

    fn take(&mut self, text: &str) -> bool {
        let found = self.starts_with(text);
        if found {
            self.at += text.len();
        }
        found
    }

    fn next(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.at += c.len_utf8();
        Some(c)
    }

    /// Blanks and continued lines.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(c) if c != '\n' && c.is_whitespace() => self.at += c.len_utf8(),
                Some('\\') if self.starts_with("\\\n") => self.at += 2,
                Some('\\') if self.starts_with("\\\r\n") => self.at += 3,
                _ => return,
            }
        }
    }

    /// Reads commands up to the end of the list.
    fn list(&mut self, list: usize, end: End) {
        let mut cases: Vec<Case> = vec![];
        let mut open = Open::default();
        open.command.list = list;
        loop {
            self.skip_blanks();
            if cases.last() == Some(&Case::Pattern) {
                self.pattern(&mut cases);
                continue;
            }
            let Some(c) = self.peek() else {
                self.finish(&mut open, Join::Sequence);
                return;
            };
            match c {
                '&' | '|' | '<' | '>' | '(' | ')' if open.is_test() => self.word_of_command(&mut open, &mut cases),
                '\n' => {
                    self.at += 1;
                    self.finish(&mut open, Join::Sequence);
                    self.read_documents();
                }
                '#' => self.comment(),
                ';' => {
                    let ends_case = self.take(";;&") || self.take(";;") || self.take(";&");
                    if !ends_case {
                        self.at += 1;
                    }
                    self.finish(&mut open, Join::Sequence);
                    if let (true, Some(case)) = (ends_case, cases.last_mut()) {
                        *case = Case::Pattern;
                    }
                }
                '&' if self.starts_with("&>") => self.redirection(&mut open),
                '&' => {
                    let join = if self.take("&&") { Join::And } else { Join::Sequence };
                    if join == Join::Sequence {
                        self.at += 1;
                    }
                    self.finish(&mut open, join);
                }
                '|' => {
                    let join = if self.take("||") { Join::Or } else { Join::Pipe };
                    if join == Join::Pipe && !self.take("|&") {
                        self.at += 1;
                    }
                    self.finish(&mut open, join);
                }
                ')' => {
                    self.at += 1;
                    self.finish(&mut open, Join::Sequence);
                    if end == End::Paren {
                        return;
                    }
                }
                '(' => self.parenthesis(&mut open),
                '<' | '>' if !self.starts_with("<(") && !self.starts_with(">(") => self.redirection(&mut open),
                _ => self.word_of_command(&mut open, &mut cases),
            }
        }
    }

    /// The command ends, and the next one begins.
    fn finish(&mut self, open: &mut Open, next: Join) {
        let list = open.command.list;
        if open.begun {
            let command = std::mem::take(&mut open.command);
            self.script.commands.push(command);
            open.command.join = next;
        } else if next != Join::Sequence {
            open.command.join = next;
        }
        open.begun = false;
        open.command.list = list;
    }

    fn comment(&mut self) {
        let rest = &self.text[self.at..];
        let length = rest.find('\n').unwrap_or(rest.len());
        self.script.comments.push(rest[..length].to_string());
        self.at += length;
    }

    /// `(`: a subshell, arithmetic, or the parentheses of a function's name.
    fn parenthesis(&mut self, open: &mut Open) {
        if self.starts_with("((") && open.command.words.is_empty() {
            let mut word = Word::default();
            self.at += 2;
            self.arithmetic(&mut word);
            open.command.redirections.push(("((".to_string(), word));
            open.begun = true;
            return;
        }
        self.at += 1;
        if let [_] = open.command.words.as_slice() {
            self.skip_blanks();
            if self.take(")") {
                // `name() { … }`: what follows is its body.
                let list = open.command.list;
                *open = Open::default();
                open.command.list = list;
                return;
            }
        }
        if self.depth >= MAX_DEPTH {
            self.finish(open, Join::Sequence);
            return;
        }
        if open.command.words.is_empty() {
            open.begun = true;
        }
        self.nested_list();
    }

    /// Reads up to the closing parenthesis, in a list of its own.
    fn nested_list(&mut self) {
        let list = *self.lists;
        *self.lists += 1;
        self.depth += 1;
        self.list(list, End::Paren);
        self.depth -= 1;
    }

    fn word_of_command(&mut self, open: &mut Open, cases: &mut Vec<Case>) {
        let start = self.at;
        let in_test = open.is_test();
        let word = self.word(in_test);
        if self.at == start {
            // Nothing else takes this character.
            self.next();
            return;
        }
        let is_number = !word.text.is_empty() && word.text.chars().all(|c| c.is_ascii_digit());
        if is_number && !word.is_quoted && matches!(self.peek(), Some('<' | '>')) && !in_test {
            // The number of a descriptor.
            return;
        }
        if open.command.words.is_empty() && !open.begun && !word.is_quoted {
            match word.text.as_str() {
                "then" | "do" | "else" | "elif" => {
                    open.command.join = Join::Sequence;
                    return;
                }
                "if" | "while" | "until" | "!" | "{" | "time" | "fi" | "done" | "}" => return,
                "esac" => {
                    cases.pop();
                    return;
                }
                "case" => {
                    self.case(cases);
                    return;
                }
                "function" => {
                    self.skip_blanks();
                    self.word(false);
                    self.skip_blanks();
                    if self.take("(") {
                        self.skip_blanks();
                        self.take(")");
                    }
                    return;
                }
                _ => {}
            }
        }
        open.begun = true;
        if open.command.words.is_empty()
            && let Some((name, value)) = assignment(&self.text[start..self.at], &word)
        {
            open.command.assignments.push((name, value));
            return;
        }
        open.command.words.push(word);
    }

    /// After `case`: its word and `in`.
    fn case(&mut self, cases: &mut Vec<Case>) {
        let used = {
            self.skip_blanks();
            self.word(false)
        };
        // The word is no command, but it uses variables.
        let holder = Command { redirections: vec![("case".into(), used)], list: usize::MAX, ..Command::default() };
        self.script.commands.push(holder);
        loop {
            self.skip_blanks();
            match self.peek() {
                Some('\n') => self.at += 1,
                Some('#') => self.comment(),
                _ => break,
            }
        }
        if self.starts_with("in") {
            self.at += 2;
            cases.push(Case::Pattern);
        }
    }

    /// `PATTERN)` of a case, or the `esac` that ends it.
    fn pattern(&mut self, cases: &mut Vec<Case>) {
        loop {
            self.skip_blanks();
            let start = self.at;
            match self.peek() {
                None => {
                    cases.pop();
                    return;
                }
                Some('#') => self.comment(),
                Some(')') => {
                    self.at += 1;
                    if let Some(case) = cases.last_mut() {
                        *case = Case::Body;
                    }
                    return;
                }
                Some(_) => {
                    let word = self.word(false);
                    if word.text == "esac" && !word.is_quoted {
                        cases.pop();
                        return;
                    }
                    if self.at == start {
                        self.next();
                    }
                }
            }
        }
    }

    fn redirection(&mut self, open: &mut Open) {
        const OPERATORS: [&str; 13] = ["<<<", "<<-", "&>>", "<<", "<&", "<>", "<", ">>", ">&", ">|", ">", "&>", "&"];
        let operator = OPERATORS.into_iter().find(|operator| self.starts_with(operator)).unwrap_or(">");
        self.at += operator.len();
        self.skip_blanks();
        let word = self.word(false);
        open.begun = true;
        if operator == "<<" || operator == "<<-" {
            let document = self.script.documents.len();
            self.script.documents.push(Document::default());
            open.command.documents.push(document);
            let (delimiter, expands) = (word.text, !word.is_quoted);
            self.awaited.push(Awaited { delimiter, strip_tabs: operator == "<<-", expands, document });
            return;
        }
        open.command.redirections.push((operator.to_string(), word));
    }

    /// The bodies of the here-documents that the line before has announced.
    fn read_documents(&mut self) {
        for awaited in std::mem::take(&mut self.awaited) {
            let mut body = String::new();
            while self.at < self.text.len() {
                let rest = &self.text[self.at..];
                let length = rest.find('\n').map_or(rest.len(), |newline| newline + 1);
                let line = &rest[..length];
                self.at += length;
                let shown = if awaited.strip_tabs { line.trim_start_matches('\t') } else { line };
                if shown.trim_end_matches(['\n', '\r']) == awaited.delimiter {
                    break;
                }
                body.push_str(shown);
            }
            let variables = if awaited.expands { plain_variables(&body) } else { vec![] };
            self.script.documents[awaited.document] = Document { body, variables };
        }
    }
}
