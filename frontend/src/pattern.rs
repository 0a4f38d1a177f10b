//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*`, `?` and escapes, no brackets (reference/dockerfile.md 3.3).
//!
//! They match as BuildKit's do, which are translated to regular expressions: the first alternative wins, where `*`
//! prefers the longest or the shortest text, and neither `*` nor `?` matches a newline.

use std::fmt;

/// A pattern that can be matched against values.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Pattern(Vec<Token>);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Token {
    Star,
    Any,
    Char(char),
}

/// A backslash before a character that is not special.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PatternError {
    /// What stands after the backslash; `None` at the end.
    pub escaped: Option<char>,
}

impl std::error::Error for PatternError {}

impl fmt::Display for PatternError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid escape '\\{}'", self.escaped.map(String::from).unwrap_or_default())
    }
}

impl Pattern {
    /// Reads a pattern, in which `\` is the escape whatever the directive says.
    pub fn parse(text: &str) -> Result<Pattern, PatternError> {
        let mut tokens = vec![];
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            tokens.push(match c {
                '*' => Token::Star,
                '?' => Token::Any,
                // `}` and `/` are escaped for the substitution around the pattern.
                '\\' => match chars.next() {
                    Some(escaped @ ('*' | '?' | '\\' | '}' | '/')) => Token::Char(escaped),
                    escaped => return Err(PatternError { escaped }),
                },
                c => Token::Char(c),
            });
        }
        Ok(Pattern(tokens))
    }

    /// The value without the shortest or longest prefix that matches.
    pub fn trim_prefix(&self, value: &str, greedy: bool) -> String {
        let value: Vec<char> = value.chars().collect();
        let end = self.ends(&value, greedy).first().copied().flatten().unwrap_or(0);
        value.into_iter().skip(end).collect()
    }

    /// The value without the shortest or longest suffix that matches.
    pub fn trim_suffix(&self, value: &str, greedy: bool) -> String {
        // Searching backwards is searching forwards in the mirror image.
        let mirrored = Pattern(self.0.iter().rev().copied().collect());
        let value: String = value.chars().rev().collect();
        mirrored.trim_prefix(&value, greedy).chars().rev().collect()
    }

    /// The value with the first, longest match replaced.
    pub fn replace_first(&self, value: &str, replacement: &str) -> String {
        self.replace(value, replacement, 1)
    }

    /// The value with all matches replaced that do not overlap.
    pub fn replace_all(&self, value: &str, replacement: &str) -> String {
        self.replace(value, replacement, usize::MAX)
    }

    fn replace(&self, value: &str, replacement: &str, mut count: usize) -> String {
        let value: Vec<char> = value.chars().collect();
        let ends = self.ends(&value, true);
        let mut result = String::new();
        let mut start = 0;
        // An empty match does not count directly after another match.
        let mut after_match = false;
        while start <= value.len() {
            let end = ends.get(start).copied().flatten().filter(|&end| count > 0 && (end > start || !after_match));
            if let Some(end) = end {
                result.push_str(replacement);
                count -= 1;
                if end > start {
                    (start, after_match) = (end, true);
                    continue;
                }
            }
            result.extend(value.get(start));
            (start, after_match) = (start + 1, false);
        }
        result
    }

    /// For each start in the value, its end included: where the preferred match from there ends.
    ///
    /// Computed token by token from the last, so in time pattern times value and without recursion.
    fn ends(&self, value: &[char], greedy: bool) -> Vec<Option<usize>> {
        let mut ends: Vec<Option<usize>> = (0..=value.len()).map(Some).collect();
        for token in self.0.iter().rev() {
            let after = ends.clone();
            for at in (0..=value.len()).rev() {
                let next = value.get(at).copied();
                let step = |ends: &[Option<usize>]| ends.get(at + 1).copied().flatten();
                ends[at] = match token {
                    Token::Char(c) if next == Some(*c) => step(&after),
                    Token::Any if next.is_some_and(|c| c != '\n') => step(&after),
                    Token::Char(_) | Token::Any => None,
                    Token::Star => {
                        let longer = if next.is_some_and(|c| c != '\n') { step(&ends) } else { None };
                        if greedy { longer.or(after[at]) } else { after[at].or(longer) }
                    }
                };
            }
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes() {
        let check = |pattern: &str, value: &str, shortest: &str, longest: &str| {
            let compiled = Pattern::parse(pattern).unwrap();
            assert_eq!(compiled.trim_prefix(value, false), shortest, "{pattern} on {value}");
            assert_eq!(compiled.trim_prefix(value, true), longest, "{pattern} on {value}");
        };
        check("", "abc", "abc", "abc");
        check("a", "abc", "bc", "bc");
        check("x", "abc", "abc", "abc");
        check("*", "abc", "abc", "");
        check("?", "äbc", "bc", "bc");
        check("*/", "a/b/c", "b/c", "c");
        check("*x*y", "xxyy", "y", "");
        check(r"\*", "*a", "a", "a");
        check("*", "a\nb", "a\nb", "\nb");
        check("abcd", "abc", "abc", "abc");
    }

    #[test]
    fn suffixes() {
        let check = |pattern: &str, value: &str, shortest: &str, longest: &str| {
            let compiled = Pattern::parse(pattern).unwrap();
            assert_eq!(compiled.trim_suffix(value, false), shortest, "{pattern} on {value}");
            assert_eq!(compiled.trim_suffix(value, true), longest, "{pattern} on {value}");
        };
        check(".*", "a.b.c", "a.b", "a");
        check(r"\**\*", "a***yy*", "a**", "a");
        check("c", "abc", "ab", "ab");
        check("b", "abc", "abc", "abc");
        check("*", "", "", "");
    }

    #[test]
    fn replacements() {
        let check = |pattern: &str, value: &str, first: &str, all: &str| {
            let compiled = Pattern::parse(pattern).unwrap();
            assert_eq!(compiled.replace_first(value, "<>"), first, "{pattern} in {value}");
            assert_eq!(compiled.replace_all(value, "<>"), all, "{pattern} in {value}");
        };
        check("-", "a-b-c", "a<>b-c", "a<>b<>c");
        check("?-", "a-b-c", "<>b-c", "<><>c");
        check("b*d", "a-b-c/d-e", "a-<>-e", "a-<>-e");
        check("*", "abc", "<>", "<>");
        check("", "ab", "<>ab", "<>a<>b<>");
        check("b*", "abab", "a<>", "a<>");
        check("z", "abc", "abc", "abc");
        check(r"\*/", "/foo*/*/*.txt", "/foo<>*/*.txt", "/foo<><>*.txt");
    }

    #[test]
    fn escapes() {
        assert_eq!(Pattern::parse(r"\x"), Err(PatternError { escaped: Some('x') }));
        assert_eq!(Pattern::parse(r"\\\").unwrap_err().to_string(), r"invalid escape '\'");
        assert_eq!(Pattern::parse(r"\}\/"), Ok(Pattern(vec![Token::Char('}'), Token::Char('/')])));
    }
}
