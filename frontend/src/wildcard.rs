//! Wildcard patterns of paths: Go's `path.Match` for COPY sources, and moby's patterns with `**` for `.dockerignore`.

use thiserror::Error;

/// A malformed pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

/// Go's `path.Match`: whether the whole name matches. `*` and `?` do not match `/`; `[a-z]` and `[^a-z]` are classes; `\`
/// makes the next character plain.
pub fn path_match(pattern: &str, name: &str) -> Result<bool, BadPattern> {
    let tokens = parse(pattern, Stars::Single)?;
    Ok(Nfa::new(&tokens).run(name, Accept::WholePath))
}

/// Whether a COPY source is a pattern: contains `*`, `?` or `[` without a backslash before it.
pub fn has_wildcard(path: &str) -> bool {
    let mut bytes = path.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'*' | b'?' | b'[' => return true,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    false
}

/// A compiled pattern of `.dockerignore`.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    shape: Shape,
    /// Plain text that every matching path starts with.
    prefix: String,
}

/// moby matches patterns of simple shape as strings, which also decides what `**` means in them.
#[derive(Clone, Debug)]
enum Shape {
    /// No wildcards.
    Exact,
    /// `x**` at the end: any path that starts with x.
    Prefix,
    /// `**x` at the start, x without wildcards: any path that ends with it, and for `**/y` also y itself.
    Suffix(String),
    Tokens(Vec<Token>),
}

impl Matcher {
    /// Compiles a cleaned pattern.
    pub fn new(pattern: &str) -> Result<Matcher, BadPattern> {
        let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        let matcher = |shape, prefix: &str| Ok(Matcher { shape, prefix: prefix.to_owned() });
        if let Some(suffix) = pattern.strip_prefix("**")
            && !special(suffix)
        {
            return matcher(Shape::Suffix(suffix.to_owned()), "");
        }
        if let Some(prefix) = pattern.strip_suffix("**")
            && !special(prefix)
        {
            return matcher(Shape::Prefix, prefix);
        }
        if !special(pattern) {
            return matcher(Shape::Exact, pattern);
        }
        let tokens = parse(pattern, Stars::Double)?;
        let plain = tokens.iter().map_while(|token| if let Token::Char(c) = token { Some(*c) } else { None });
        let prefix: String = plain.collect();
        matcher(Shape::Tokens(tokens), &prefix)
    }

    /// Whether the path itself matches.
    pub fn matches(&self, path: &str) -> bool {
        if !path.starts_with(&self.prefix) {
            return false;
        }
        match &self.shape {
            Shape::Exact => path.len() == self.prefix.len(),
            Shape::Prefix => true,
            Shape::Suffix(suffix) => ends_with(path, suffix),
            Shape::Tokens(tokens) => Nfa::new(tokens).run(path, Accept::WholePath),
        }
    }

    /// Whether the path or one of its parent directories matches.
    pub fn matches_or_parent(&self, path: &str) -> bool {
        let Some(rest) = path.strip_prefix(&self.prefix) else { return false };
        match &self.shape {
            Shape::Exact => rest.is_empty() || rest.starts_with('/'),
            Shape::Prefix => true,
            Shape::Suffix(suffix) => {
                let mut ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
                ends.any(|end| ends_with(&path[..end], suffix))
            }
            Shape::Tokens(tokens) => Nfa::new(tokens).run(path, Accept::AnyParent),
        }
    }

    /// Whether something below a directory could match; errs on the side of yes.
    pub fn may_match_below(&self, dir: &str) -> bool {
        let below = self.prefix.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        match self.shape {
            Shape::Exact => below,
            Shape::Prefix | Shape::Suffix(_) | Shape::Tokens(_) => below || dir.starts_with(&self.prefix),
        }
    }
}

fn ends_with(path: &str, suffix: &str) -> bool {
    path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Char(char),
    /// `?`: one character but `/`.
    Any,
    /// `*`: characters but `/`.
    Star,
    /// `**` within: nothing, or anything that ends in `/`.
    Folders,
    /// `**` at the end: anything.
    Rest,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

#[derive(Clone, Copy, PartialEq)]
enum Stars {
    /// `**` is `*`.
    Single,
    Double,
}

fn parse(pattern: &str, stars: Stars) -> Result<Vec<Token>, BadPattern> {
    let mut tokens = vec![];
    let mut rest = pattern;
    while let Some(c) = take(&mut rest) {
        tokens.push(match c {
            '*' if stars == Stars::Double && rest.starts_with('*') => {
                rest = &rest[1..];
                rest = rest.strip_prefix('/').unwrap_or(rest);
                if rest.is_empty() { Token::Rest } else { Token::Folders }
            }
            '*' => Token::Star,
            '?' => Token::Any,
            '[' => class(&mut rest)?,
            '\\' => Token::Char(take(&mut rest).ok_or(BadPattern)?),
            c => Token::Char(c),
        });
    }
    Ok(tokens)
}

/// A class after its `[`. A `]` cannot be its first member.
fn class(rest: &mut &str) -> Result<Token, BadPattern> {
    let negated = rest.starts_with('^');
    if negated {
        take(rest);
    }
    let mut ranges = vec![];
    loop {
        if rest.starts_with(']') && !ranges.is_empty() {
            take(rest);
            return Ok(Token::Class { negated, ranges });
        }
        let low = class_member(rest)?;
        let high = if rest.starts_with('-') {
            take(rest);
            class_member(rest)?
        } else {
            low
        };
        ranges.push((low, high));
    }
}

fn class_member(rest: &mut &str) -> Result<char, BadPattern> {
    match take(rest) {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => take(rest).ok_or(BadPattern),
        Some(c) => Ok(c),
    }
}

fn take(rest: &mut &str) -> Option<char> {
    let mut chars = rest.chars();
    let c = chars.next();
    *rest = chars.as_str();
    c
}

#[derive(Clone, Copy, PartialEq)]
enum Accept {
    WholePath,
    /// Also if the path up to some `/` matches.
    AnyParent,
}

/// All places in a pattern that a path may have come to, so that no pattern takes exponential time.
struct Nfa<'a> {
    tokens: &'a [Token],
    /// Whether the tokens before this index match what was read; one more than there are tokens.
    at: Vec<bool>,
    next: Vec<bool>,
    /// For each token that is `Folders`: whether it has begun to swallow, so that only a `/` leads out of it.
    inside: Vec<bool>,
}

impl<'a> Nfa<'a> {
    fn new(tokens: &'a [Token]) -> Nfa<'a> {
        let states = tokens.len() + 1;
        Nfa { tokens, at: vec![false; states], next: vec![false; states], inside: vec![false; states] }
    }

    fn run(mut self, path: &str, accept: Accept) -> bool {
        self.at[0] = true;
        self.skip_optional();
        for c in path.chars() {
            if c == '/' && accept == Accept::AnyParent && self.at[self.tokens.len()] {
                return true;
            }
            if !self.step(c) {
                return false;
            }
        }
        self.at[self.tokens.len()]
    }

    /// Moves past tokens that may match nothing.
    fn skip_optional(&mut self) {
        for (index, token) in self.tokens.iter().enumerate() {
            if self.at[index] && matches!(token, Token::Star | Token::Folders | Token::Rest) {
                self.at[index + 1] = true;
            }
        }
    }

    /// Reads a character; false if nothing can match any more.
    fn step(&mut self, c: char) -> bool {
        self.next.fill(false);
        let mut alive = false;
        for (index, token) in self.tokens.iter().enumerate() {
            if *token == Token::Folders && (self.at[index] || self.inside[index]) {
                self.inside[index] = true;
                self.next[index + 1] |= c == '/';
                alive = true;
            }
            if !self.at[index] {
                continue;
            }
            let (stays, moves) = match token {
                Token::Char(expected) => (false, *expected == c),
                Token::Any => (false, c != '/'),
                Token::Star => (c != '/', false),
                Token::Rest => (true, false),
                Token::Folders => (false, false),
                Token::Class { negated, ranges } => {
                    (false, ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *negated)
                }
            };
            self.next[index] |= stays;
            self.next[index + 1] |= moves;
            alive |= stays || moves;
        }
        std::mem::swap(&mut self.at, &mut self.next);
        self.skip_optional();
        alive
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_matches() {
        let check = |pattern: &str, name: &str, expect: bool| {
            assert_eq!(path_match(pattern, name), Ok(expect), "{pattern} on {name}");
        };
        for (pattern, name) in [
            ("abc", "abc"),
            ("*", "abc"),
            ("*", ""),
            ("*c", "abc"),
            ("a*/b", "abc/b"),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/f"),
            ("ab[c]", "abc"),
            ("ab[b-d]", "abc"),
            ("ab[^e-g]", "abc"),
            ("a\\*b", "a*b"),
            ("a?b", "a☺b"),
            ("a[^a]b", "a☺b"),
            ("[a-ζ]*", "α"),
            ("[\\-x]", "-"),
            ("[\\]a]", "]"),
            ("**", "ab"),
            ("a/*", "a/.b"),
        ] {
            check(pattern, name, true);
        }
        for (pattern, name) in [
            ("a*", "ab/c"),
            ("*/b", "a/c/b"),
            ("a?b", "a/b"),
            ("ab[^b-d]", "abc"),
            ("a\\*b", "ab"),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff"),
            ("*x", "xxy"),
            ("", "a"),
            ("a", ""),
        ] {
            check(pattern, name, false);
        }
        for pattern in ["[", "[^", "[a", "[]a]", "[-]", "[a-]", "[x-", "a[", "\\", "[\\", "*x[", "nomatch["] {
            assert_eq!(path_match(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn many_stars_are_fast() {
        assert_eq!(path_match(&"a*".repeat(60), &"a".repeat(2000)), Ok(true));
        assert_eq!(path_match(&format!("{}b", "a*".repeat(60)), &"a".repeat(2000)), Ok(false));
    }

    #[test]
    fn wildcards() {
        for (path, expect) in
            [("a*", true), ("a?", true), ("[a", true), ("a]", false), ("\\*", false), ("\\\\*", true), ("a\\", false)]
        {
            assert_eq!(has_wildcard(path), expect, "{path}");
        }
    }
}
