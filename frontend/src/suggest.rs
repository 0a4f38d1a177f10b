//! "Did you mean": the option nearest to a mistyped word.

/// Whether upper and lower case letters are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// They are.
    Sensitive,
    /// They are not; the answer takes the case of the question.
    Insensitive,
}

/// Distance at which a word is not meant.
const TOO_FAR: usize = 3;

/// By how many bytes a word at a distance below 3 can be longer or shorter.
const MAX_BYTES: usize = 8;

/// The option with the smallest edit distance below 3, rather one with the same first letter. `None` if there is none, or if one is equal: the word is then
/// not what is wrong.
pub fn nearest<S: AsRef<str>>(word: &str, options: impl IntoIterator<Item = S>, case: Case) -> Option<String> {
    let fold = |text: &str| match case {
        Case::Sensitive => text.to_string(),
        Case::Insensitive => text.to_lowercase(),
    };
    let wanted = fold(word);
    let mut best: Option<((usize, bool), String)> = None;
    for option in options {
        let option = fold(option.as_ref());
        if option == wanted {
            return None;
        }
        // Each letter more or less is a change.
        if option.len().abs_diff(wanted.len()) > MAX_BYTES {
            continue;
        }
        let other_start = !option.starts_with(wanted.chars().next().unwrap_or_default());
        let distance = (edit_distance(&wanted, &option), other_start);
        if distance.0 < TOO_FAR && best.as_ref().is_none_or(|(smallest, _)| distance < *smallest) {
            best = Some((distance, option));
        }
    }
    let (_, option) = best?;
    let upper = case == Case::Insensitive && word != word.to_lowercase() && word == word.to_uppercase();
    Some(if upper { option.to_uppercase() } else { option })
}

/// The message, followed by ` (did you mean x?)` where there is such an option.
pub fn did_you_mean<S: AsRef<str>>(
    message: impl Into<String>,
    word: &str,
    options: impl IntoIterator<Item = S>,
    case: Case,
) -> String {
    let mut message = message.into();
    if let Some(option) = nearest(word, options, case) {
        message.push_str(&format!(" (did you mean {option}?)"));
    }
    message
}

/// Levenshtein distance, in characters; [`TOO_FAR`] or more if it is that much.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    // `row[j]` is the distance between what was read of `a` and the first j characters of `b`.
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        let mut nearest = row[0];
        for (j, to) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(from != *to);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
            nearest = nearest.min(row[j + 1]);
        }
        if nearest >= TOO_FAR {
            return nearest;
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_option() {
        let check = |word: &str, options: &[&str], case, expect: Option<&str>| {
            assert_eq!(nearest(word, options, case).as_deref(), expect, "{word}");
        };
        check("chwn", &["chown", "chmod"], Case::Sensitive, Some("chown"));
        check("FNTRYPOINT", &["ENTRYPOINT", "ENV"], Case::Insensitive, Some("ENTRYPOINT"));
        check("bulid", &["build"], Case::Sensitive, Some("build"));
        check("link", &["link", "lint"], Case::Sensitive, None);
        check("RNU", &["ENV", "RUN"], Case::Insensitive, Some("RUN"));
        check("abc", &["xyz"], Case::Sensitive, None);
        check("Run", &["RUM"], Case::Insensitive, Some("rum"));
        check("ab", &[""], Case::Sensitive, Some(""));
        assert_eq!(did_you_mean("no x", "x", ["xy"], Case::Sensitive), "no x (did you mean xy?)");
    }
}
