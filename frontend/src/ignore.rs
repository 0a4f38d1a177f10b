//! `.dockerignore` and `--exclude`: decides about a path, walks nothing (reference/dockerfile.md 6.3).
//!
//! How a single pattern matches is in `wildcard.rs`.

pub use crate::wildcard::{BadPattern, has_wildcard, path_match};
use crate::wildcard::{LastName, Matcher};
use std::collections::HashMap;
use thiserror::Error;

/// Compiled patterns.
#[derive(Clone, Debug, Default)]
pub struct Ignore {
    rules: Vec<Rule>,
    exceptions: bool,
    /// Rules that match paths of one last name only, which are most in long files.
    by_name: HashMap<Vec<u8>, Vec<usize>>,
    /// All others.
    unnamed: Vec<usize>,
}

/// The patterns as they are for what is directly in one directory. BuildKit walks down to a path and remembers for each
/// directory which rules matched it or a parent; so does this, which decides about a name without looking at the
/// directories above it again.
pub struct Within<'a> {
    ignore: &'a Ignore,
    /// Of the directory, with a slash at its end; of the root, empty.
    path: Vec<u8>,
    /// For each rule: whether it matched the directory or one above it.
    matched: RuleSet,
    /// Rules that match the path asked about; kept for its space.
    found: RuleSet,
}

/// A set of rules by index.
#[derive(Clone, Debug, PartialEq)]
struct RuleSet(Vec<u64>);

#[derive(Clone, Debug)]
struct Rule {
    /// From 1.
    line: usize,
    written: String,
    exception: bool,
    matcher: Matcher,
}

/// Why a list of patterns cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{kind}")]
pub struct IgnoreError {
    /// Of the file, or place in the list of patterns; from 1.
    pub line: usize,
    /// As written.
    pub pattern: String,
    /// What is wrong.
    pub kind: IgnoreErrorKind,
}

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum IgnoreErrorKind {
    /// A lone `!`.
    #[error("illegal exclusion pattern: \"!\"")]
    LoneException,
    /// Such as `[a`.
    #[error("syntax error in pattern")]
    BadPattern,
}

impl Ignore {
    /// Reads a `.dockerignore` file: comments, blank lines, leading slashes.
    pub fn parse(text: &str) -> Result<Ignore, IgnoreError> {
        let mut ignore = Ignore::default();
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        for (index, line) in text.lines().enumerate() {
            let written = line.trim();
            if line.starts_with('#') || written.is_empty() {
                continue;
            }
            let (exception, path) = match written.strip_prefix('!') {
                Some(path) => (true, path.trim_start()),
                None => (false, written),
            };
            let cleaned = clean(path);
            let anchored = match cleaned.strip_prefix('/') {
                Some(below) if !below.is_empty() => below,
                _ => &cleaned,
            };
            if exception {
                ignore.add(index + 1, written, true, anchored)?;
            } else {
                ignore.add_signed(index + 1, written, anchored)?;
            }
        }
        Ok(ignore)
    }

    /// Takes patterns as `--exclude` gives them: no comments, and a leading slash makes a pattern match nothing.
    pub fn from_patterns(patterns: &[String]) -> Result<Ignore, IgnoreError> {
        let mut ignore = Ignore::default();
        for (index, written) in patterns.iter().enumerate() {
            let trimmed = written.trim();
            if !trimmed.is_empty() {
                ignore.add_signed(index + 1, written, &clean(trimmed))?;
            }
        }
        Ok(ignore)
    }

    fn add_signed(&mut self, line: usize, written: &str, pattern: &str) -> Result<(), IgnoreError> {
        match pattern.strip_prefix('!') {
            Some(pattern) => self.add(line, written, true, pattern),
            None => self.add(line, written, false, pattern),
        }
    }

    fn add(&mut self, line: usize, written: &str, exception: bool, pattern: &str) -> Result<(), IgnoreError> {
        let error = |kind| IgnoreError { line, pattern: written.to_owned(), kind };
        if pattern.is_empty() {
            return Err(error(IgnoreErrorKind::LoneException));
        }
        let matcher = Matcher::new(pattern).map_err(|BadPattern| error(IgnoreErrorKind::BadPattern))?;
        self.exceptions |= exception;
        let index = self.rules.len();
        match matcher.last_name() {
            LastName::Is(name) => self.by_name.entry(name.clone().into_bytes()).or_default().push(index),
            LastName::Has { .. } => self.unnamed.push(index),
        }
        self.rules.push(Rule { line, written: written.to_owned(), exception, matcher });
        Ok(())
    }

    /// Whether a path is excluded. `path` is relative to the root, `/`-separated, without leading or trailing slash.
    pub fn excluded(&self, path: impl AsRef<[u8]>) -> bool {
        self.deciding(path.as_ref()).is_some()
    }

    /// For an excluded path: the line, from 1, and the pattern as written that decides so.
    pub fn reason(&self, path: impl AsRef<[u8]>) -> Option<(usize, &str)> {
        self.deciding(path.as_ref()).map(|rule| (rule.line, rule.written.as_str()))
    }

    /// The patterns as they are for what is directly in a directory; empty is the root.
    pub fn within(&self, dir: impl AsRef<[u8]>) -> Within<'_> {
        let (path, matched) = (Vec::new(), RuleSet::new(self.rules.len()));
        let mut within = Within { ignore: self, path, found: matched.clone(), matched };
        for name in dir.as_ref().split(|&byte| byte == b'/').filter(|name| !name.is_empty()) {
            within.enter(name);
        }
        within
    }

    /// Whether an exception could take in something below a directory, so that it must be walked although excluded.
    pub fn may_include_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let dir = dir.as_ref();
        self.rules.iter().any(|rule| rule.exception && rule.matcher.may_match_below(dir))
    }

    /// Whether a pattern that is no exception could match something below a directory.
    pub fn may_exclude_below(&self, dir: impl AsRef<[u8]>) -> bool {
        let dir = dir.as_ref();
        self.rules.iter().any(|rule| !rule.exception && rule.matcher.may_match_below(dir))
    }

    /// Whether some pattern is an exception (`!x`).
    pub fn has_exceptions(&self) -> bool {
        self.exceptions
    }

    /// Whether there is no pattern at all.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rule that excludes a path.
    fn deciding(&self, path: &[u8]) -> Option<&Rule> {
        if path.is_empty() || path == b"." {
            return None;
        }
        let (dir, name) = match path.iter().rposition(|&byte| byte == b'/') {
            Some(slash) => (&path[..slash], &path[slash + 1..]),
            None => (b"".as_slice(), path),
        };
        let deciding = self.within(dir).decide(name);
        deciding.map(|index| &self.rules[index])
    }
}

impl Within<'_> {
    /// Whether the directory's entry of that name is excluded.
    pub fn excludes(&mut self, name: &[u8]) -> bool {
        self.decide(name).is_some()
    }

    /// Goes down into a directory.
    pub fn enter(&mut self, name: &[u8]) {
        self.decide(name);
        std::mem::swap(&mut self.matched, &mut self.found);
        self.path.extend_from_slice(name);
        self.path.push(b'/');
    }

    /// Finds the rule that excludes a name, and leaves the rules that count for what is below it in `found`.
    ///
    /// A rule is tried only if it can change the decision so far: an exception that comes upon a path that nothing
    /// excludes is not remembered, and so does not cover what is below it. (`a/b` and then `!a` exclude `a/b`.)
    fn decide(&mut self, name: &[u8]) -> Option<usize> {
        let Within { ignore, path, matched, found } = self;
        let length = path.len();
        path.extend_from_slice(name);
        found.0.copy_from_slice(&matched.0);
        let named = ignore.by_name.get(name).map_or(&[][..], Vec::as_slice);
        for &index in named.iter().chain(&ignore.unnamed) {
            if !matched.has(index) && ignore.rules[index].matcher.matches(path, name) {
                found.add(index);
            }
        }
        path.truncate(length);
        let mut deciding = None;
        for word in 0..found.0.len() {
            let mut left = found.0[word];
            while left != 0 {
                let index = word * 64 + left.trailing_zeros() as usize;
                left &= left - 1;
                let exception = ignore.rules[index].exception;
                if matched.has(index) || exception == deciding.is_some() {
                    deciding = if exception { None } else { Some(index) };
                } else {
                    found.remove(index);
                }
            }
        }
        deciding
    }
}

impl RuleSet {
    fn new(rules: usize) -> RuleSet {
        RuleSet(vec![0; rules.div_ceil(64)])
    }

    fn has(&self, index: usize) -> bool {
        self.0[index / 64] >> (index % 64) & 1 != 0
    }

    fn add(&mut self, index: usize) {
        self.0[index / 64] |= 1 << (index % 64);
    }

    fn remove(&mut self, index: usize) {
        self.0[index / 64] &= !(1 << (index % 64));
    }
}

/// Go's `filepath.Clean`: no `.`, no doubled or trailing slashes, `..` resolved as far as possible.
fn clean(path: &str) -> String {
    if path.is_empty() {
        return String::new();
    }
    let rooted = path.starts_with('/');
    let mut parts: Vec<&str> = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if rooted => {}
            part => parts.push(part),
        }
    }
    match (rooted, parts.join("/")) {
        (true, path) => format!("/{path}"),
        (false, path) if path.is_empty() => ".".into(),
        (false, path) => path,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Which of the paths a file excludes.
    fn check(file: &str, excluded: &[&str], included: &[&str]) {
        let ignore = Ignore::parse(file).unwrap();
        for (paths, expect) in [(excluded, true), (included, false)] {
            for path in paths {
                assert_eq!(ignore.excluded(path), expect, "{path} with {file:?}");
            }
        }
    }

    #[test]
    fn anchored_at_the_root() {
        check("foo", &["foo", "foo/a", "foo/a/b"], &["a/foo", "foobar", "fo"]);
        check("a/b", &["a/b", "a/b/c"], &["a", "b", "a/bc"]);
        check("*.md", &["x.md", ".md", "x.md/y"], &["a/x.md", "x.mdx"]);
        check("a/*", &["a/b", "a/b/c", "a/.x"], &["a", "ab"]);
        check("*/*/x", &["a/b/x"], &["a/x", "x", "a/b/c/x"]);
        check("?.txt\n[b-d].log\n[^a]1", &["a.txt", "c.log", "b1"], &["ab.txt", "a.log", "a1"]);
        check("[!a]", &["!", "a"], &["b"]);
        check("{a,b}", &["{a,b}"], &["a", "b"]);
        check("a.b+(c)$|^", &["a.b+(c)$|^"], &["aXb+(c)$|^"]);
        check("Foo", &["Foo"], &["foo"]);
    }

    #[test]
    fn double_stars() {
        check("**", &["a", "a/b", ".x"], &["", "."]);
        check("**/x", &["x", "a/x", "a/b/x", "a/x/y"], &["ax", "a/bx", "xa"]);
        check("**/*.log", &["a.log", "b/a.log", "b.log/c"], &["a.logs"]);
        check("a/**/b", &["a/b", "a/x/b", "a/x/y/b", "a/b/c"], &["a/xb", "b", "a"]);
        check("a/**", &["a/b", "a/b/c"], &["a", "ab"]);
        check("a/**/b/**", &["a/b/c", "a/x/b/c"], &["a/b", "a/x/b"]);
        // Without slash they are no folders of their own.
        check("foo**", &["foo", "foobar", "foo/x", "foobar/x"], &["fo", "a/foo"]);
        check("**foo", &["foo", "xfoo", "a/xfoo"], &["foox"]);
        check("**.md", &["x.md", "a/x.md"], &["x.mdx"]);
        check("a**/c", &["ac", "ab/c", "a/b/c", "a/c"], &["abc"]);
        check("**.m*", &[".md", "a/.md"], &["x.md"]);
    }

    #[test]
    fn lines_are_cleaned() {
        check(
            "# c\n\n  a  \r\n #b\n/c\n./d/\n/e//f/\n../g\nh/../i\n",
            &["a", "#b", "c", "d", "e/f", "i"],
            &["g", "h", "# c"],
        );
        check("\u{feff}a\n! a", &[], &["a"]);
        check("/\n.\n", &[], &["a", "a/b"]);
        check("star\\*\nwith space\n\\#h\n\\!b", &["star*", "with space", "#h", "!b"], &["starry", "with"]);
    }

    #[test]
    fn last_match_decides() {
        check(
            "*\n!src\nsrc/n\n!docs/*.md",
            &["a", "src/n", "src/n/h", "docs", "docs/a.log"],
            &["src", "src/i", "docs/c.md"],
        );
        check("**\n!docs/deep\n!**/i.txt", &["docs", "docs/c"], &["docs/deep", "docs/deep/e", "src/i.txt"]);
        check("*.md\n!README.md\nREADME*", &["README.md", "a.md"], &["docs/README.md"]);
        check(
            "docs\n!docs/deep/f.md\n*.txt\n!a.txt",
            &["docs", "docs/deep", "docs/deep/e", "b.txt"],
            &["docs/deep/f.md", "a.txt"],
        );
        check(
            "*.txt\n!a.txt\na.*\n!docs/**\ndocs/*.log\n!docs/d.log\ndocs/d.log",
            &["a.txt", "docs/d.log"],
            &["b.log", "docs", "docs/c.md", "docs/deep/e.log"],
        );
    }

    #[test]
    fn exceptions_count_where_something_is_excluded() {
        // BuildKit asks an exception only about a path that is excluded so far.
        check("a/b\n!a", &["a/b"], &["a", "a/c"]);
        check("a\n!a/b\n*", &["a", "c"], &["a/b"]);
    }

    #[test]
    fn reasons() {
        let ignore = Ignore::parse("# c\n *.log \n!keep.log\n/app/ \n").unwrap();
        assert_eq!(ignore.reason("x.log"), Some((2, "*.log")));
        assert_eq!(ignore.reason("app/main.rs"), Some((4, "/app/")));
        assert_eq!(ignore.reason("keep.log"), None);
        assert_eq!(Ignore::parse("a\n*\n").unwrap().reason("a"), Some((1, "a")));
    }

    #[test]
    fn walking_below_excluded_directories() {
        let check = |file: &str, dir: &str, expect: bool| {
            assert_eq!(Ignore::parse(file).unwrap().may_include_below(dir), expect, "{dir} with {file:?}");
        };
        check("*", "a", false);
        check("*\n!a/b/c", "a", true);
        check("*\n!a/b/c", "a/b", true);
        check("*\n!a/b/c", "a/b/c", false);
        check("*\n!a/b/c", "a/x", false);
        check("*\n!ab", "a", false);
        check("*\n!**/x", "a/b", true);
        check("*\n!a/*.md", "a", true);
        check("*\n!a/*.md", "b", false);
        check("*\n!a*/x", "ab", true);
        check("*\n!a/**", "a", true);
        check("*\n!a/**", "a/b", true);
        check("*\n!a/**", "b", false);
    }

    #[test]
    fn flags() {
        let check = |file: &str, empty: bool, exceptions: bool| {
            let ignore = Ignore::parse(file).unwrap();
            assert_eq!((ignore.is_empty(), ignore.has_exceptions()), (empty, exceptions), "{file:?}");
        };
        check("", true, false);
        check("# a\n\n", true, false);
        check("a", false, false);
        check("a\n!b", false, true);
    }

    #[test]
    fn errors() {
        let check = |file: &str, line: usize, message: &str| {
            let error = Ignore::parse(file).unwrap_err();
            assert_eq!((error.line, error.to_string().as_str()), (line, message), "{file:?}");
        };
        check("a\n!\n", 2, "illegal exclusion pattern: \"!\"");
        check("! ", 1, "illegal exclusion pattern: \"!\"");
        for pattern in ["[", "[]a]", "a[", "a\\", "!**/[x"] {
            check(pattern, 1, "syntax error in pattern");
        }
    }

    #[test]
    fn patterns_of_flags() {
        let patterns = ["*.md", " #x ", "!README.md", "/abs", ""].map(String::from);
        let ignore = Ignore::from_patterns(&patterns).unwrap();
        for (path, expect) in [("a.md", true), ("#x", true), ("README.md", false), ("abs", false)] {
            assert_eq!(ignore.excluded(path), expect, "{path}");
        }
        assert_eq!(Ignore::from_patterns(&["!".into()]).unwrap_err().kind, IgnoreErrorKind::LoneException);
    }

    /// Matches by trying everything, on patterns of `a`, `b`, `.`, `/`, `?`, `*` and `**`.
    fn naive(pattern: &[u8], path: &[u8]) -> bool {
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*'] | [b'*', b'*', b'/'] => true,
            [b'*', b'*', rest @ ..] => {
                let rest = rest.strip_prefix(b"/").unwrap_or(rest);
                let ends = (1..=path.len()).filter(|&end| path[end - 1] == b'/');
                [0].into_iter().chain(ends).any(|end| naive(rest, &path[end..]))
            }
            [b'*', rest @ ..] => {
                let most = path.iter().position(|&byte| byte == b'/').unwrap_or(path.len());
                (0..=most).any(|taken| naive(rest, &path[taken..]))
            }
            [b'?', rest @ ..] => path.first().is_some_and(|&byte| byte != b'/') && naive(rest, &path[1..]),
            [byte, rest @ ..] => path.first() == Some(byte) && naive(rest, &path[1..]),
        }
    }

    fn naive_excluded(lines: &[String], path: &str) -> bool {
        let parents = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
        let mut remembered = vec![false; lines.len()];
        let mut excluded = false;
        for path in parents {
            excluded = false;
            for (line, matched) in lines.iter().zip(&mut remembered) {
                let (exception, pattern) = line.strip_prefix('!').map_or((false, line.as_str()), |line| (true, line));
                // Text after `**` at the start is compared with the end of the path.
                let plain_end = pattern.strip_prefix("**").filter(|end| !end.contains(['*', '?']));
                let matches = match plain_end {
                    Some(end) => path.ends_with(end) || Some(path) == end.strip_prefix('/'),
                    None => naive(pattern.as_bytes(), path.as_bytes()),
                };
                *matched |= exception == excluded && matches;
                if *matched {
                    excluded = !exception;
                }
            }
        }
        excluded
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn agrees_with_trying_everything(
            lines in prop::collection::vec("!?[ab](\\*\\*/|[ab?*]|/[ab]|/\\*\\*){0,4}|!?\\*\\*/?[ab*]", 1..5),
            paths in prop::collection::vec("[ab]{1,2}(/[ab]{1,2}){0,3}", 1..8),
        ) {
            let lines: Vec<String> = lines.iter().map(|line| clean(line)).collect();
            let ignore = Ignore::parse(&lines.join("\n")).unwrap();
            for path in &paths {
                prop_assert_eq!(ignore.excluded(path), naive_excluded(&lines, path), "{} with {:?}", path, lines);
                let dirs = path.match_indices('/').map(|(at, _)| &path[..at]);
                for dir in dirs {
                    let hidden = ignore.excluded(dir) && !ignore.excluded(path);
                    prop_assert!(!hidden || ignore.may_include_below(dir), "{} in {} with {:?}", path, dir, lines);
                }
            }
        }

        #[test]
        fn never_panics(text in "([a*?!#/.\\[\\]^\\\\-]|\\n| |é){0,20}", path in "[a/é.]{0,8}") {
            if let Ok(ignore) = Ignore::parse(&text) {
                let _ = (ignore.excluded(&path), ignore.may_include_below(&path));
            }
        }
    }
}
