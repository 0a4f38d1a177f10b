//! Heredoc tokens of an instruction line, and the bodies below it.

use crate::ast::Heredoc;
use crate::lines::Lines;
use crate::placed::Placed;
use crate::words::{self, JsonForm};

/// Finds the tokens of a logical line, in order. The heredocs have no bodies yet.
///
/// A token is a shell word, so that `"<<EOF"` and `a<<b` are none. Where the line has no words, since a quote is not
/// closed, there are no heredocs either. The words are those of a POSIX shell, whatever the escape directive says.
pub(crate) fn tokens(line: &Placed) -> Vec<Heredoc> {
    if !line.contains('<') || !line.contains("<<") {
        return vec![];
    }
    let mut found = vec![];
    // Words are given without their places; each stands after the one before.
    let mut after = 0;
    for word in words::raw_words(line).unwrap_or_default() {
        let at = line[after..].find(word.as_str()).map(|at| after + at);
        let placed = at.map_or_else(|| Placed::whole(word.as_str(), line.span()), |at| line.slice(at..at + word.len()));
        after = at.map_or(after, |at| at + word.len());
        found.extend(token(&placed));
    }
    found
}

/// Whether an instruction of that keyword with that rest may have heredocs.
pub(crate) fn allowed(keyword: &str, rest: &str) -> bool {
    ["run", "copy", "add"].iter().any(|name| keyword.eq_ignore_ascii_case(name))
        && !matches!(words::json_array(rest), JsonForm::Strings(_))
}

/// Reads the body of a heredoc up to its terminator and gives the offset of the terminator's end, or `None` if the file
/// ends before.
pub(crate) fn read_body(heredoc: &mut Heredoc, lines: &mut Lines<'_>) -> Option<usize> {
    while let Some(line) = lines.next_physical() {
        let text = if heredoc.strip_tabs { line.content.trim_start_matches('\t') } else { line.content };
        if text == heredoc.name {
            heredoc.terminator = line.content.to_owned();
            return Some(line.end());
        }
        heredoc.body.push(line.raw, line.start);
    }
    None
}

/// `[fd]<<[-][blanks]word`, where the word has no `<`.
pub(crate) fn token(word: &Placed) -> Option<Heredoc> {
    let after_fd = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let fd = &word[..word.len() - after_fd.len()];
    let rest = after_fd.strip_prefix("<<")?;
    let (rest, strip_tabs) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let delimiter = rest.trim_start_matches(['\t', '\n', '\x0c', '\r', ' ']);
    if delimiter.is_empty() || delimiter.contains('<') {
        return None;
    }
    // The body expands if removing quotes removes none: then none of them was quoting.
    let name = words::single_word(delimiter, false)?;
    let quoted = words::single_word(delimiter, true)?;
    let quotes = |text: &str| text.matches(['\'', '"']).count();
    Some(Heredoc {
        fd: fd.parse().unwrap_or(0),
        expand: quotes(&name) == quotes(&quoted),
        strip_tabs,
        name,
        body: Placed::default(),
        terminator: String::new(),
        token: word.clone(),
    })
}
