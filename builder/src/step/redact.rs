//! Hides secrets in a step's output: what a command prints of a secret it was given is shown as `****`. Works on a
//! stream, so that a value that is cut in two by a read is found all the same.

use aho_corasick::{AhoCorasick, MatchKind};

/// Shorter values are not looked for: they would be found in words that have nothing to do with them.
const SHORTEST: usize = 6;
/// Longer values are looked for line by line only, so that never more than this is held back.
const LONGEST: usize = 4096;
/// Lines of a value that are looked for by themselves, as those of a private key.
const SHORTEST_LINE: usize = 16;

const MASK: &[u8] = b"****";

/// One stream on its way.
pub(super) struct Redactor {
    /// `None`: nothing is secret.
    finder: Option<Finder>,
    /// What may be the beginning of a secret.
    held: Vec<u8>,
}

struct Finder {
    values: Vec<Vec<u8>>,
    automaton: AhoCorasick,
}

impl Redactor {
    /// Hides these values.
    pub(super) fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Redactor {
        let mut values: Vec<Vec<u8>> = secrets.into_iter().flat_map(needles).collect();
        values.sort();
        values.dedup();
        let automaton = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(&values);
        // It fails only beyond 2 GiB of patterns.
        let finder = automaton.ok().filter(|_| !values.is_empty()).map(|automaton| Finder { values, automaton });
        Redactor { finder, held: vec![] }
    }

    /// What can be shown now that `data` has come.
    pub(super) fn pass(&mut self, data: &[u8]) -> Vec<u8> {
        let Some(finder) = &self.finder else { return data.to_vec() };
        let mut text = std::mem::take(&mut self.held);
        text.extend_from_slice(data);
        let mut shown = Vec::with_capacity(text.len());
        let mut from = 0;
        // A match at the very end may be the beginning of a longer one; it is as secret as that.
        for found in finder.automaton.find_iter(&text) {
            shown.extend_from_slice(&text[from..found.start()]);
            shown.extend_from_slice(MASK);
            from = found.end();
        }
        let rest = &text[from..];
        let keep = finder.beginning_at_end(rest);
        shown.extend_from_slice(&rest[..rest.len() - keep]);
        self.held = rest[rest.len() - keep..].to_vec();
        shown
    }

    /// The rest, when no more comes.
    pub(super) fn end(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.held)
    }
}

impl Finder {
    /// Length of the longest end of `text` that some value begins with.
    fn beginning_at_end(&self, text: &[u8]) -> usize {
        let longest = self.values.iter().map(Vec::len).max().unwrap_or(0).saturating_sub(1).min(text.len());
        (1..=longest)
            .rev()
            .find(|&length| {
                let end = &text[text.len() - length..];
                self.values.iter().any(|value| value.len() > length && value.starts_with(end))
            })
            .unwrap_or(0)
    }
}

/// What is looked for: the value without the newline at its end, and its long lines.
fn needles(secret: &[u8]) -> Vec<Vec<u8>> {
    let whole = secret.trim_ascii_end();
    let lines =
        whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).filter(|line| line.len() >= SHORTEST_LINE);
    let whole = Some(whole).filter(|whole| (SHORTEST..=LONGEST).contains(&whole.len()));
    // A line that is too long is cut: its beginning gives it away as well.
    whole.into_iter().chain(lines.map(|line| &line[..line.len().min(LONGEST)])).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(secrets: &[&str], chunks: &[&str], expect: &str) {
        let mut redactor = Redactor::new(secrets.iter().map(|secret| secret.as_bytes()));
        let mut shown: Vec<u8> = chunks.iter().flat_map(|chunk| redactor.pass(chunk.as_bytes())).collect();
        shown.extend(redactor.end());
        assert_eq!(String::from_utf8(shown).unwrap(), expect, "{secrets:?} {chunks:?}");
    }

    #[test]
    fn secrets_are_masked() {
        check(&["hunter42\n"], &["a hunter42 b"], "a **** b");
        check(&["hunter42"], &["hun", "ter", "42hunter42"], "********");
        check(&["hunter42"], &["hunter4", "1"], "hunter41");
        check(&["hunter42", "hunter4200"], &["hunter4200"], "****");
        check(&["short"], &["short"], "short");
        check(&[], &["anything"], "anything");
        check(
            &["-----BEGIN-----\nMIIEowIBAAKCAQEA7\nabc\n-----END-----\n"],
            &["x MIIEowIBAAKCAQEA7 abc"],
            "x **** abc",
        );
    }

    #[test]
    fn only_what_may_be_a_secret_is_held_back() {
        let mut redactor = Redactor::new([b"hunter42".as_slice()]);
        assert_eq!(redactor.pass(b"Password: "), b"Password: ");
        assert_eq!(redactor.pass(b"oh"), b"o");
        assert_eq!(redactor.end(), b"h");
    }

    proptest! {
        #[test]
        fn however_it_is_cut(text in "(sesame|ses|ame|x){0,12}", cuts in prop::collection::vec(0usize..60, 0..6)) {
            let mut redactor = Redactor::new([b"sesame".as_slice()]);
            let mut cuts: Vec<usize> = cuts.into_iter().filter(|cut| *cut <= text.len()).collect();
            cuts.extend([0, text.len()]);
            cuts.sort();
            let mut shown: Vec<u8> = cuts.windows(2).flat_map(|pair| redactor.pass(&text.as_bytes()[pair[0]..pair[1]])).collect();
            shown.extend(redactor.end());
            prop_assert_eq!(String::from_utf8(shown).unwrap(), text.replace("sesame", "****"));
        }
    }
}
