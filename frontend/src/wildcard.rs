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
    Ok(Nfa::new(&tokens).run(name.chars()))
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

/// A compiled pattern of `.dockerignore`. Paths are bytes, `/`-separated, without leading or trailing slash.
#[derive(Clone, Debug)]
pub(crate) struct Matcher {
    shape: Shape,
    /// Plain text that every matching path starts with.
    prefix: String,
    /// What the last name of every matching path is like: most paths need no closer look.
    last_name: LastName,
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
    /// After the prefix.
    Tokens(Automaton),
}

/// What a pattern tells about the last name of a path.
#[derive(Clone, Debug)]
pub(crate) enum LastName {
    /// It is this.
    Is(String),
    /// It has this start and this end, which may overlap.
    Has { start: String, end: String },
}

impl Matcher {
    /// Compiles a cleaned pattern.
    pub fn new(pattern: &str) -> Result<Matcher, BadPattern> {
        let special = |text: &str| text.contains(['*', '?', '[', ']', '\\']);
        let after_slash = |text: &str| text.rsplit_once('/').map(|(_, name)| name.to_owned());
        let anything = || LastName::Has { start: String::new(), end: String::new() };
        let matcher = |shape, prefix: &str, last_name| Ok(Matcher { shape, prefix: prefix.to_owned(), last_name });
        if let Some(suffix) = pattern.strip_prefix("**")
            && !special(suffix)
        {
            let ends_so = || LastName::Has { start: String::new(), end: suffix.to_owned() };
            let last_name = after_slash(suffix).map_or_else(ends_so, LastName::Is);
            return matcher(Shape::Suffix(suffix.to_owned()), "", last_name);
        }
        if let Some(prefix) = pattern.strip_suffix("**")
            && !special(prefix)
        {
            return matcher(Shape::Prefix, prefix, anything());
        }
        if !special(pattern) {
            let name = after_slash(pattern).unwrap_or_else(|| pattern.to_owned());
            return matcher(Shape::Exact, pattern, LastName::Is(name));
        }
        let tokens = parse(pattern, Stars::Double)?;
        let last_name = last_name(&tokens);
        let plain = tokens.iter().map_while(Token::plain);
        let prefix: String = plain.collect();
        let tokens = tokens[prefix.chars().count()..].to_vec();
        matcher(Shape::Tokens(Automaton::new(tokens)), &prefix, last_name)
    }

    /// What the pattern tells about the last name of paths.
    pub fn last_name(&self) -> &LastName {
        &self.last_name
    }

    /// Whether the path itself matches. `name` is its last name.
    pub fn matches(&self, path: &[u8], name: &[u8]) -> bool {
        let name_fits = match &self.last_name {
            LastName::Is(expected) => name == expected.as_bytes(),
            LastName::Has { start, end } => name.ends_with(end.as_bytes()) && name.starts_with(start.as_bytes()),
        };
        if !name_fits {
            return false;
        }
        let Some(rest) = path.strip_prefix(self.prefix.as_bytes()) else { return false };
        match &self.shape {
            Shape::Exact => rest.is_empty(),
            Shape::Prefix => true,
            Shape::Suffix(suffix) => {
                path.ends_with(suffix.as_bytes()) || suffix.strip_prefix('/').is_some_and(|end| path == end.as_bytes())
            }
            Shape::Tokens(automaton) => automaton.matches(rest),
        }
    }

    /// Whether something below a directory could match; errs on the side of yes.
    pub fn may_match_below(&self, dir: &[u8]) -> bool {
        if dir.is_empty() {
            return true;
        }
        let below = self.prefix.as_bytes().strip_prefix(dir).is_some_and(|rest| rest.starts_with(b"/"));
        match self.shape {
            Shape::Exact => below,
            Shape::Prefix | Shape::Suffix(_) | Shape::Tokens(_) => below || dir.starts_with(self.prefix.as_bytes()),
        }
    }
}

/// What tokens tell about the last name: the plain text around the wildcards in it.
fn last_name(tokens: &[Token]) -> LastName {
    let boundary = tokens.iter().rposition(|token| matches!(token, Token::Char('/') | Token::Folders));
    let tail = &tokens[boundary.map_or(0, |at| at + 1)..];
    if tail.iter().any(Token::crosses_folders) {
        return LastName::Has { start: String::new(), end: String::new() };
    }
    // After `x**` the name may begin with what is before the stars.
    let begins_name = match boundary {
        Some(at) if tokens[at] == Token::Folders => at == 0 || tokens[at - 1] == Token::Char('/'),
        _ => true,
    };
    let plain: String = tail.iter().map_while(Token::plain).collect();
    if begins_name && plain.chars().count() == tail.len() {
        return LastName::Is(plain);
    }
    let end: Vec<char> = tail.iter().rev().map_while(Token::plain).collect();
    LastName::Has { start: if begins_name { plain } else { String::new() }, end: end.into_iter().rev().collect() }
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

impl Token {
    fn plain(&self) -> Option<char> {
        if let Token::Char(c) = self { Some(*c) } else { None }
    }

    /// Whether it may match a `/`.
    fn crosses_folders(&self) -> bool {
        match self {
            Token::Char(c) => *c == '/',
            Token::Any | Token::Star => false,
            Token::Folders | Token::Rest => true,
            Token::Class { .. } => self.takes('/'),
        }
    }

    /// Whether it is one character and may be this one.
    fn takes(&self, c: char) -> bool {
        match self {
            Token::Char(expected) => *expected == c,
            Token::Any => c != '/',
            Token::Class { negated, ranges } => ranges.iter().any(|(low, high)| (low..=high).contains(&&c)) != *negated,
            Token::Star | Token::Folders | Token::Rest => false,
        }
    }
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
        if low > high {
            return Err(BadPattern);
        }
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

/// The characters of a path. A byte that is not UTF-8 counts as one replacement character, as in Go.
fn chars(path: &[u8]) -> impl Iterator<Item = char> {
    path.utf8_chunks().flat_map(|chunk| {
        let odd = std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len());
        chunk.valid().chars().chain(odd)
    })
}

/// Tokens as sets of bits: all places in the pattern that a path may have come to are one number, and a character of
/// the path is a few operations on it.
#[derive(Clone, Debug)]
struct Automaton {
    tokens: Vec<Token>,
    /// `None` for patterns of more than 63 places.
    bits: Option<Box<Bits>>,
}

#[derive(Clone, Debug)]
struct Bits {
    /// For each ASCII character: places that it leads on from, to the next.
    advance: [u64; 128],
    /// Places that any character leads on from: `Folders`, which have two, on the way into the second.
    advance_any: u64,
    /// Places where any character may stay.
    stay: u64,
    /// Places where any but `/` may stay.
    stay_in_name: u64,
    /// The first places of `Folders`: a `/` leads past the second.
    folders: u64,
    /// Places that may match nothing, and `Folders`, which then are two.
    optional: u64,
    accept: u64,
}

impl Automaton {
    fn new(tokens: Vec<Token>) -> Automaton {
        let bits = Bits::new(&tokens).map(Box::new);
        Automaton { tokens, bits }
    }

    fn matches(&self, path: &[u8]) -> bool {
        let Some(bits) = &self.bits else { return Nfa::new(&self.tokens).run(chars(path)) };
        let mut at = bits.skip_optional(1);
        for c in chars(path) {
            let mut advance = match bits.advance.get(c as usize) {
                Some(advance) => *advance,
                None => self.places(c),
            };
            advance |= bits.advance_any;
            let (mut next, mut stay) = ((at & advance) << 1, bits.stay);
            if c == '/' {
                next |= (at & bits.folders) << 2;
            } else {
                stay |= bits.stay_in_name;
            }
            next |= at & stay;
            if next == 0 {
                return false;
            }
            at = bits.skip_optional(next);
        }
        at & bits.accept != 0
    }

    /// The places of the tokens that take a character.
    fn places(&self, c: char) -> u64 {
        let mut place = 0;
        let mut places = 0;
        for token in &self.tokens {
            places |= u64::from(token.takes(c)) << place;
            place += token.places();
        }
        places
    }
}

impl Token {
    fn places(&self) -> usize {
        if *self == Token::Folders { 2 } else { 1 }
    }
}

impl Bits {
    fn new(tokens: &[Token]) -> Option<Bits> {
        let count: usize = tokens.iter().map(Token::places).sum();
        if count > 63 {
            return None;
        }
        let mut bits = Bits {
            advance: [0; 128],
            advance_any: 0,
            stay: 0,
            stay_in_name: 0,
            folders: 0,
            optional: 0,
            accept: 1 << count,
        };
        let mut place = 1;
        for token in tokens {
            match token {
                Token::Star => {
                    bits.stay_in_name |= place;
                    bits.optional |= place;
                }
                Token::Rest => {
                    bits.stay |= place;
                    bits.optional |= place;
                }
                Token::Folders => {
                    bits.advance_any |= place;
                    bits.stay |= place << 1;
                    bits.advance['/' as usize] |= place << 1;
                    bits.folders |= place;
                }
                Token::Char(_) | Token::Any | Token::Class { .. } => {
                    for (c, advance) in (0u8..).zip(&mut bits.advance) {
                        if token.takes(c.into()) {
                            *advance |= place;
                        }
                    }
                }
            }
            place <<= token.places();
        }
        Some(bits)
    }

    fn skip_optional(&self, mut at: u64) -> u64 {
        loop {
            let more = at | (at & self.optional) << 1 | (at & self.folders) << 2;
            if more == at {
                return at;
            }
            at = more;
        }
    }
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

    fn run(mut self, path: impl Iterator<Item = char>) -> bool {
        self.at[0] = true;
        self.skip_optional();
        for c in path {
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
                Token::Star => (c != '/', false),
                Token::Rest => (true, false),
                Token::Folders => (false, false),
                Token::Char(_) | Token::Any | Token::Class { .. } => (false, token.takes(c)),
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
        for pattern in ["[", "[^", "[a", "[]a]", "[-]", "[a-]", "[x-", "[z-a]", "a[", "\\", "[\\", "*x[", "nomatch["] {
            assert_eq!(path_match(pattern, "a"), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn many_stars_are_fast() {
        assert_eq!(path_match(&"a*".repeat(60), &"a".repeat(2000)), Ok(true));
        assert_eq!(path_match(&format!("{}b", "a*".repeat(60)), &"a".repeat(2000)), Ok(false));
    }

    #[test]
    fn long_patterns_match_as_short_ones_do() {
        let check = |pattern: &str, path: &str, expect: bool| {
            let short = Automaton::new(parse(pattern, Stars::Double).unwrap());
            let long = Automaton { tokens: short.tokens.clone(), bits: None };
            assert!(short.bits.is_some());
            assert_eq!(short.matches(path.as_bytes()), expect, "{pattern} on {path}");
            assert_eq!(long.matches(path.as_bytes()), expect, "{pattern} on {path}, by the long way");
        };
        check("**/*.é?", "a/b/x.éü", true);
        check("**/*.é?", "x.éü/y", false);
        check("a**/b*", "a/b", true);
        check("a**/b*", "ab", true);
        check("a**/b*", "ax/y/b.c", true);
        check("a**/b*", "axb", false);
        check("*/**/[^x]", "a/x", false);
        check("*/**/[^x]", "a/b/c/y", true);
        check("*/**", "a/", true);
        check("?**", "a/b", true);
        let long = Matcher::new(&format!("*{}**/x", "a?".repeat(40))).unwrap();
        for (path, expect) in [(format!("z{}/y/x", "ab".repeat(40)), true), ("zab/x".to_string(), false)] {
            assert_eq!(long.matches(path.as_bytes(), b"x"), expect, "{path}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_one_character_each() {
        let matcher = Matcher::new("a??.*").unwrap();
        assert!(matcher.matches(b"a\xff\xfe.x", b"a\xff\xfe.x"));
        assert!(!matcher.matches(b"a\xff.x", b"a\xff.x"));
    }

    #[test]
    fn what_is_known_of_the_last_name() {
        let check = |pattern: &str, expect: &str| {
            let found = match Matcher::new(pattern).unwrap().last_name {
                LastName::Is(name) => name,
                LastName::Has { start, end } => format!("{start}<>{end}"),
            };
            assert_eq!(found, expect, "{pattern}");
        };
        check("a/b", "b");
        check("**/b", "b");
        check("**b", "<>b");
        check("**/*.log", "<>.log");
        check("a/b*.c", "b<>.c");
        check("a**b?", "<>");
        check("a**bc", "<>bc");
        check("**/x/**", "<>");
        check("**/[a-b]x", "<>x");
        check("**/x[^a]y", "<>");
        check("a/**/b", "b");
        check("a/**", "<>");
        check("*", "<>");
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
