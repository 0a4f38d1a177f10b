//! Quoting, word splitting and `${VAR:-x}` expansion (reference/dockerfile.md 3).
//!
//! The pass over a word itself is in `expansion.rs`.

pub(crate) use crate::exec_form::json_fault;
pub use crate::exec_form::{JsonForm, NotWords, json_array, json_words};
use crate::expansion::{Mode, Quotes, Unset, run};
pub use crate::pattern::PatternError;
use crate::placed::Placed;
use std::borrow::Cow;
use std::ops::Range;
use thiserror::Error;

/// Processes words with quotes, escapes and variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lexer {
    /// `\` or a backtick, from the `escape` directive.
    pub escape: char,
}

/// An expanded word.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expansion<'a> {
    /// The result: variables replaced, quotes and escapes removed. The word itself if there are none.
    pub text: Cow<'a, str>,
    /// Names that the environment did not have and that were used without `-`, `+` or `?` to deal with that; each once,
    /// in order of use.
    pub unset: Vec<String>,
}

/// Why a word cannot be expanded.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("failed to process {word:?}: {kind}")]
pub struct WordError {
    /// The whole word.
    pub word: String,
    /// What is wrong with it.
    pub kind: WordErrorKind,
    /// Which bytes of the word: the substitution, or the quote that is not closed.
    pub at: Range<usize>,
}

/// What is wrong with a word.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum WordErrorKind {
    /// `"` without its twin.
    #[error("unexpected end of statement while looking for matching double-quote")]
    DoubleQuote,
    /// `'` without its twin.
    #[error("unexpected end of statement while looking for matching single-quote")]
    SingleQuote,
    /// `${}`, `${:-x}` or `${{x}}`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${v-w` without end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${v/p}` without replacement.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// Something else after the name, such as `:=`; empty at the end of the word.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// Substitutions within substitutions without end.
    #[error("syntax error: substitutions are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    /// Of `${v#p}`, `${v%p}` or `${v/p/r}`.
    #[error("invalid pattern ({pattern}) in substitution: {error}")]
    Pattern {
        /// As expanded.
        pattern: String,
        /// What is wrong with it.
        error: PatternError,
    },
    /// `${v?w}` or `${v:?w}` of a variable without value.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// From the word after `?`.
        message: String,
    },
}

impl WordErrorKind {
    /// Remark beside the place.
    pub fn remark(&self) -> &'static str {
        match self {
            WordErrorKind::DoubleQuote | WordErrorKind::SingleQuote => "this quote is not closed",
            WordErrorKind::BadSubstitution => "no variable's name stands here",
            WordErrorKind::MissingBrace => "no `}` follows",
            WordErrorKind::MissingSlash => "the pattern has no end",
            WordErrorKind::Modifier(_) => "not a form that a Dockerfile knows",
            WordErrorKind::TooDeep => "too deep",
            WordErrorKind::Pattern { .. } => "the pattern cannot be used",
            WordErrorKind::Required { .. } => "has no value here",
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<&'static str> {
        match self {
            WordErrorKind::DoubleQuote | WordErrorKind::SingleQuote => {
                Some("close it, or put the escape character before a quote that is meant as text")
            }
            WordErrorKind::BadSubstitution => Some("write ${NAME}, or \\$ for a dollar sign"),
            WordErrorKind::MissingBrace => {
                Some("close it with `}`; a blank ends the word, so put double quotes around a value with blanks")
            }
            WordErrorKind::MissingSlash => Some("write ${NAME/pattern/replacement}"),
            WordErrorKind::Modifier(_) => Some(
                "after the name may come :-word, :+word, :?word (also without `:`), #pattern, ##pattern, %pattern, \
                 %%pattern, /pattern/replacement or //pattern/replacement",
            ),
            WordErrorKind::TooDeep | WordErrorKind::Pattern { .. } | WordErrorKind::Required { .. } => None,
        }
    }
}

/// The environment of an expansion: the value of a name, or `None` where it is not set.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// Deeper nesting is taken for an attack on the stack.
pub(crate) const MAX_DEPTH: usize = 100;

impl Lexer {
    /// Whether a text has no quote, variable or escape, so that it comes to itself.
    pub fn is_plain(&self, text: &str) -> bool {
        // Without an early end, which lets the compiler take many bytes at a time.
        let escape = self.escape as u8;
        let means = |byte: u8| matches!(byte, b'$' | b'\'' | b'"') | (byte == escape);
        !text.bytes().fold(false, |found, byte| found | means(byte))
    }

    /// Expands one word: variables replaced, quotes and escapes removed, no splitting.
    pub fn expand<'a>(&self, word: &'a str, env: &Env<'_>) -> Result<Expansion<'a>, WordError> {
        if self.is_plain(word) {
            return Ok(Expansion { text: word.into(), unset: vec![] });
        }
        let (result, unset) = run(word, self.escape, Mode::default(), env)?;
        Ok(Expansion { text: result.text.into(), unset })
    }

    /// Expands and splits on white space that is not quoted (EXPOSE). Second: the unset names.
    pub fn expand_words(&self, word: &str, env: &Env<'_>) -> Result<(Vec<String>, Vec<String>), WordError> {
        let (result, unset) = run(word, self.escape, Mode { splits: true, ..Mode::default() }, env)?;
        Ok((result.words(), unset))
    }

    /// Expands the body of a heredoc: quotes are text, and the backslash is the escape whatever the directive says.
    pub fn expand_heredoc(&self, body: &str, env: &Env<'_>) -> Result<Expansion<'static>, WordError> {
        let (result, unset) = run(body, '\\', Mode { quotes: Quotes::Text, ..Mode::default() }, env)?;
        Ok(Expansion { text: result.text.into(), unset })
    }

    /// The text as progress shows it: known variables replaced, unset ones and quotes kept as written. Escapes go, as in
    /// BuildKit. A text that cannot be processed is given back.
    pub fn expand_for_display<'a>(&self, text: Cow<'a, str>, env: &Env<'_>) -> Cow<'a, str> {
        if self.is_plain(&text) {
            return text;
        }
        let mode = Mode { quotes: Quotes::Kept, unset: Unset::Kept, ..Mode::default() };
        match run(&text, self.escape, mode, env) {
            Ok((result, _)) => result.text.into(),
            Err(_) => text,
        }
    }
}

/// Shell words of a line as written, quotes and escapes included; `None` if a quote is not closed. `<<` and white space
/// after it stay together with what follows.
pub(crate) fn raw_words(line: &str) -> Option<Vec<String>> {
    let mode = Mode { quotes: Quotes::Kept, unset: Unset::Kept, raw_escapes: true, heredoc_tokens: true, splits: true };
    run(line, '\\', mode, &|_| None).ok().map(|(result, _)| result.words())
}

/// The one word that a text is, without escapes, and without quotes unless they are to be kept. Variables stay.
pub(crate) fn single_word(text: &str, keep_quotes: bool) -> Option<String> {
    let quotes = if keep_quotes { Quotes::Kept } else { Quotes::Removed };
    let (result, _) =
        run(text, '\\', Mode { quotes, unset: Unset::Kept, splits: true, ..Mode::default() }, &|_| None).ok()?;
    let mut words = result.words();
    if words.len() == 1 { words.pop() } else { None }
}

/// Splits on white space; quotes mean nothing.
pub fn split_words(rest: &Placed) -> Vec<Placed> {
    let words = rest.split(['\t', '\x0b', '\x0c', '\r', ' ']).filter(|word| !word.is_empty());
    words.map(|word| rest.part(word)).collect()
}

/// Splits the rest of an ENV, LABEL or ARG line: white space that is quoted or escaped does not split. Quotes and
/// escapes are kept, for [`Lexer::expand`] to remove.
pub fn split_assignments(rest: &Placed, escape: char) -> Vec<Placed> {
    let mut words = vec![];
    // Where the word begins, if one has begun.
    let mut start = None;
    let mut quote = None;
    let mut end = rest.len();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        // Nothing is escaped within single quotes.
        if c == escape && quote != Some('\'') {
            if chars.next().is_none() {
                // An escape at the end is dropped.
                end = at;
                break;
            }
            start.get_or_insert(at);
            continue;
        }
        match quote {
            None if c.is_whitespace() => {
                words.extend(start.take().map(|start| rest.slice(start..at)));
                continue;
            }
            None if c == '\'' || c == '"' => quote = Some(c),
            Some(open) if c == open => quote = None,
            _ => {}
        }
        start.get_or_insert(at);
    }
    words.extend(start.map(|start| rest.slice(start..end)));
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LEXER: Lexer = Lexer { escape: '\\' };

    fn env(name: &str) -> Option<String> {
        let value = match name {
            "X" => "x",
            "AB" => "a b",
            "NULL" => "",
            "SPACED" => "  a  b ",
            "P" => "/usr/lib/libx.so.1.2",
            "DASHED" => "a-b-c/d-e",
            "CUT" => "/usr",
            "ünï" => "u",
            _ => return None,
        };
        Some(value.into())
    }

    /// `expect` begins with `!` for an error.
    fn check(word: &str, expect: &str) {
        let result =
            LEXER.expand(word, &env).map_or_else(|error| format!("!{}", error.kind), |result| result.text.into_owned());
        assert_eq!(result, expect, "{word}");
    }

    #[test]
    fn quotes_and_escapes() {
        check("", "");
        check("a'b c'\"d\"", "ab cd");
        check(r"'a\b$X'", r"a\b$X");
        check(r#""a\b\"\$X\\$X""#, r#"a\b"$X\x"#);
        check(r"a\b\ c\'\$X\\", r"ab c'$X\");
        check(r"a\", "a");
        check("'a", "!unexpected end of statement while looking for matching single-quote");
        check("\"a'", "!unexpected end of statement while looking for matching double-quote");
        check(r#""a\""#, "!unexpected end of statement while looking for matching double-quote");
        check("$X\"'$X'\"", "x'x'");
        check("안'녕'", "안녕");
        let backtick = Lexer { escape: '`' };
        let windows = backtick.expand("C:\\dir\\`$X\"`\"\\\"", &env).unwrap();
        assert_eq!(windows.text, "C:\\dir\\$X\"\\");
    }

    #[test]
    fn names() {
        check("$X.$X-${X}s$Xs", "x.x-xs");
        check("$. $", "$. $");
        check("a$1b$10c$@d$$X$#", "abcdX");
        check("${1}${@}${1:-d}${?:-e}", "de");
        check("$ünï!", "u!");
        check("$999a", "a");
    }

    #[test]
    fn bad_substitutions() {
        for word in ["${}", "${:}", "${:-x}", "${{x}}"] {
            check(word, "!syntax error: bad substitution");
        }
        check("${", "!syntax error: missing '}'");
        check("${X", "!unsupported modifier () in substitution");
        check("${X:-y", "!syntax error: missing '}'");
        check("${X:-\"y}", "!syntax error: missing '}'");
        check("${X-${Y", "!syntax error: missing '}'");
        check("${X y}", "!unsupported modifier ( ) in substitution");
        check("${.}", "!unsupported modifier (.) in substitution");
        for modifier in ["=", ":=", "^", ",", ":0", ":#", ":%"] {
            check(&format!("${{X{modifier}}}"), &format!("!unsupported modifier ({modifier}) in substitution"));
        }
        check("${X:}", "!syntax error: missing '}'");
        check("${X:", "!syntax error: missing '}'");
        check("${X:=${U:?none}}", "!U: none");
        check("${X/a}", "!syntax error: missing '/' in ${}");
        check("${X#\\y}", "!invalid pattern (\\y) in substitution: invalid escape '\\y'");
        let deep = "${U:-".repeat(100_000);
        assert_eq!(LEXER.expand(&deep, &env).unwrap_err().kind, WordErrorKind::TooDeep);
        check(&format!("{}x{}", "${U:-".repeat(99), "}".repeat(99)), "x");
        let error = LEXER.expand("a${U?no}", &env).unwrap_err();
        assert_eq!(error.to_string(), "failed to process \"a${U?no}\": U: no");
    }

    #[test]
    fn defaults_and_alternatives() {
        for (form, set, null, unset) in [
            ("-w", "x", "", "w"),
            (":-w", "x", "w", "w"),
            ("+w", "w", "w", ""),
            (":+w", "w", "", ""),
            ("?w", "x", "", "!U: w"),
            (":?w", "x", "!NULL: w", "!U: w"),
            ("?", "x", "", "!U: is not allowed to be unset"),
            (":?", "x", "!NULL: is not allowed to be empty", "!U: is not allowed to be unset"),
        ] {
            check(&format!("${{X{form}}}"), set);
            check(&format!("${{NULL{form}}}"), null);
            check(&format!("${{U{form}}}"), unset);
        }
        check("${U:-${V:-${X}}}y", "xy");
        check("${U:-'$X }'\"}$X\"\\}}", "$X }}x}");
        check("${U:-a {b}c", "a {bc");
        // The word counts even if it is not used.
        check("${X:-${U:?none}}", "!U: none");
    }

    #[test]
    fn patterns() {
        check("${P#*/} ${P##*/} ${P%.*} ${P%%.*}", "usr/lib/libx.so.1.2 libx.so.1.2 /usr/lib/libx.so.1 /usr/lib/libx");
        check("${P#$CUT} ${P#/???} ${P#no}", "/lib/libx.so.1.2 /lib/libx.so.1.2 /usr/lib/libx.so.1.2");
        check("[${U#x}${U%x}${U/x/y}${NULL#x}]", "[]");
        check("${DASHED/-/_} ${DASHED//-/_} ${DASHED//-/}", "a_b-c/d-e a_b_c/d_e abc/de");
        check("${DASHED/\\//:} ${DASHED/b*d/X} ${DASHED//?-/<>}", "a-b-c:d-e a-X-e <><>c/<>e");
        // An escape in the replacement stays, as in BuildKit.
        check("${DASHED/-/\\}}", "a\\}b-c/d-e");
        check("${DASHED//}", "!syntax error: missing '/' in ${}");
        check("${DASHED///}", "a-b-c/d-e");
    }

    #[test]
    fn unset_names() {
        let check = |word: &str, expect: &[&str]| {
            assert_eq!(LEXER.expand(word, &env).unwrap().unset, expect, "{word}");
        };
        check("$X ${NULL}", &[]);
        check("$A ${B} $A \"$C\" '$D' \\$E", &["A", "B", "C"]);
        check("${A:-x}${B-$C}${D:+x}${X?y}", &["C"]);
        check("${A#x}${B/x/y}", &["A", "B"]);
    }

    #[test]
    fn splitting_words() {
        let check = |word: &str, expect: &[&str]| {
            assert_eq!(LEXER.expand_words(word, &env).unwrap().0, expect, "{word}");
        };
        check("a$AB", &["aa", "b"]);
        check("\"$AB\" $AB", &["a b", "a", "b"]);
        check("h${SPACED}d", &["h", "a", "b", "d"]);
        check("80${U:-81}/tcp", &["8081/tcp"]);
        check("a\\ b 'c d'", &["a b", "c d"]);
        check(" $U '' ", &[]);
    }

    #[test]
    fn heredoc_bodies() {
        let check = |body: &str, expect: &str| {
            assert_eq!(Lexer { escape: '`' }.expand_heredoc(body, &env).unwrap().text, expect, "{body}");
        };
        check("$X ${U:-d} \\$X \"q\" 'it $X\n", "x d $X \"q\" 'it x\n");
        check("C:\\dir \\\\ b`$X\n", "C:dir \\ b`x\n");
        check("\\\n", "\n");
        check("a\r\n", "a\r\n");
    }

    #[test]
    fn display() {
        let check =
            |text: &str, expect: &str| assert_eq!(LEXER.expand_for_display(text.into(), &env), expect, "{text}");
        check("RUN echo \"$X ${X}\" '$X' $U ${U} \\$X", "RUN echo \"x x\" '$X' $U ${U} $X");
        check("${U:-$X} ${X:-y} ${U#$X} ${U//a/$X} ${U:0:2}", "${U:-x} x ${U#x} ${U//a/x} ${U:0:2}");
        check("it's $X", "it's $X");
        check("${X^^} $X", "${X^^} $X");
    }

    #[test]
    fn white_space() {
        let split = |text: &str| split_words(&Placed::verbatim(text, 0));
        assert_eq!(split(" a\t'b c' \x0b\"d "), ["a", "'b", "c'", "\"d"]);
        assert!(split("").is_empty());
        assert_eq!(split("a bc d")[1].span(), crate::span::Span::new(2, 4));
    }

    #[test]
    fn assignments() {
        let split = |rest: &str, escape| split_assignments(&Placed::verbatim(rest, 0), escape);
        let check = |rest: &str, expect: &[&str]| assert_eq!(split(rest, '\\'), expect, "{rest}");
        check("a=1  b=\"2 3\" c='4 5'", &["a=1", "b=\"2 3\"", "c='4 5'"]);
        check(r#"a=1\ 2 b=in\"side c="q\" r" d='s\' e"#, &[r"a=1\ 2", r#"b=in\"side"#, r#"c="q\" r""#, r"d='s\'", "e"]);
        check(r#""a b"=c"d e"f"#, &[r#""a b"=c"d e"f"#]);
        check("a=", &["a="]);
        check("a=${A:?need A}", &["a=${A:?need", "A}"]);
        check(r"a=b\", &["a=b"]);
        check("a=\"b c", &["a=\"b c"]);
        check("", &[]);
        assert_eq!(split("a=C:\\ b=`  c", '`'), ["a=C:\\", "b=` ", "c"]);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn never_panics(word in "(\\$\\{|[X#%/:?*+\\-=}'\"\\\\ <é\\n]|NULL|AB){0,16}") {
            let _ = LEXER.expand(&word, &env);
            let _ = LEXER.expand_words(&word, &env);
            let _ = LEXER.expand_heredoc(&word, &env);
            let _ = LEXER.expand_for_display(word.as_str().into(), &env);
            let placed = Placed::verbatim(word.as_str(), 0);
            let _ = (split_assignments(&placed, '\\'), split_words(&placed), raw_words(&word));
        }

        #[test]
        fn plain_text_is_kept(word in "[a-z0-9/.:=é]{0,12}") {
            prop_assert_eq!(LEXER.expand(&word, &env).unwrap().text, word.as_str());
        }
    }
}
