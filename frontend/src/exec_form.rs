//! The exec form of RUN, CMD, COPY and others: a JSON array of strings (reference/dockerfile.md 1.5).

use crate::placed::Placed;
use crate::span::Span;
use std::borrow::Cow;
use std::ops::Range;

/// What a rest of line is, seen as a JSON array.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonForm {
    /// Not a JSON array: use the shell or white-space form.
    NotJson,
    /// An array with an element that is no string, an error.
    NotStrings,
    /// The exec form.
    Strings(Vec<String>),
}

/// Decodes the exec form. What is not JSON in every respect is another form, not an error.
pub fn json_array(rest: &str) -> JsonForm {
    let rest = rest.trim();
    if !rest.starts_with('[') {
        return JsonForm::NotJson;
    }
    let Ok(elements) = serde_json::from_str::<Vec<serde_json::Value>>(&without_lone_surrogates(rest)) else {
        return JsonForm::NotJson;
    };
    let strings = elements.into_iter().map(|element| match element {
        serde_json::Value::String(string) => Some(string),
        _ => None,
    });
    strings.collect::<Option<Vec<_>>>().map_or(JsonForm::NotStrings, JsonForm::Strings)
}

/// The elements of a text that is an array of strings, each with its place; [`JsonForm::NotStrings`] with that of the
/// first element that is none, [`JsonForm::NotJson`] with the place and the reason where it ceases to be JSON.
pub fn json_words(rest: &Placed) -> Result<Vec<Placed>, NotWords> {
    match json_array(rest) {
        JsonForm::Strings(strings) => {
            let elements = element_ranges(rest);
            let placed = strings.into_iter().enumerate().map(|(index, string)| {
                let Some(range) = elements.get(index).cloned() else { return Placed::whole(string, rest.span()) };
                match rest.get(range.start + 1..range.end.saturating_sub(1)) {
                    // Without escapes, it is there byte by byte.
                    Some(inner) if inner == string => rest.slice(range.start + 1..range.end - 1),
                    _ => Placed::whole(string, rest.place(range)),
                }
            });
            Ok(placed.collect())
        }
        JsonForm::NotStrings => {
            let wrong = element_ranges(rest).into_iter().find(|range| !rest[range.clone()].starts_with('"'));
            Err(NotWords::NotStrings(rest.place(wrong.unwrap_or(0..rest.len()))))
        }
        JsonForm::NotJson => Err(NotWords::NotJson),
    }
}

/// Why there are no words in JSON form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotWords {
    /// It has another form.
    NotJson,
    /// This element is no string.
    NotStrings(Span),
}

/// Where a text that looks like an array ceases to be JSON.
pub(crate) fn json_fault(rest: &Placed) -> Option<(Span, &'static str)> {
    let offset = rest.len() - rest.trim_start().len();
    let text = &rest[offset..];
    let error = serde_json::from_str::<Vec<serde_json::Value>>(&without_lone_surrogates(text)).err()?;
    // Logical lines have no newlines, so that the column is the number of bytes read.
    let mut at = offset + error.column().saturating_sub(1);
    while !rest.is_char_boundary(at) {
        at -= 1;
    }
    let end = at + rest[at..].chars().next().map_or(0, char::len_utf8);
    let remark = match text.as_bytes().get(at - offset) {
        Some(b'\'') => "JSON strings are in double quotes",
        _ if text[..at - offset].contains('\\') && error.to_string().contains("escape") => {
            "a backslash is written `\\\\` in JSON"
        }
        Some(b']') if text[..at - offset].trim_end().ends_with(',') => "JSON has no comma after the last element",
        _ => "this is not JSON from here on",
    };
    Some((rest.place(at..end), remark))
}

/// Where the elements of a JSON array are.
fn element_ranges(array: &str) -> Vec<Range<usize>> {
    let mut ranges = vec![];
    let (mut depth, mut in_string, mut escaped) = (0, false, false);
    let mut element: Option<Range<usize>> = None;
    for (at, c) in array.char_indices() {
        let ends_element = !in_string && depth == 1 && (c == ',' || c == ']');
        if ends_element {
            ranges.extend(element.take());
        } else if depth > 0 && (in_string || !c.is_whitespace()) {
            element.get_or_insert(at..at).end = at + c.len_utf8();
        }
        match c {
            _ if escaped => escaped = false,
            '\\' if in_string => escaped = true,
            '"' => in_string = !in_string,
            '[' | '{' if !in_string => depth += 1,
            ']' | '}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    ranges
}

/// Half of a surrogate pair (`\ud800`) becomes U+FFFD, as in Go; serde_json would refuse the whole text.
fn without_lone_surrogates(json: &str) -> Cow<'_, str> {
    let mut result = Cow::Borrowed(json);
    let mut at = 0;
    while let Some(found) = json[at..].find('\\') {
        at += found;
        match escaped_unit(json, at) {
            Some(0xD800..=0xDBFF) if matches!(escaped_unit(json, at + 6), Some(0xDC00..=0xDFFF)) => at += 12,
            Some(0xD800..=0xDFFF) => {
                result.to_mut().replace_range(at..at + 6, "\\ufffd");
                at += 6;
            }
            _ => at += 1 + json[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    result
}

/// The UTF-16 unit of `\uXXXX` at an offset.
fn escaped_unit(json: &str, at: usize) -> Option<u16> {
    let digits = json.get(at..at + 6)?.strip_prefix("\\u")?;
    let hexadecimal = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    if hexadecimal { u16::from_str_radix(digits, 16).ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rest: &str, expect: &[&str]) {
        let expect = expect.iter().map(|string| string.to_string()).collect();
        assert_eq!(json_array(rest), JsonForm::Strings(expect), "{rest}");
    }

    #[test]
    fn arrays_of_strings() {
        check(r#"["a", "b c"]"#, &["a", "b c"]);
        check("[]", &[]);
        check(" [ \t\"a\" , \"b\" ] ", &["a", "b"]);
        check(
            r#"["tab\there", "\u00e9t\u00e9", "q\"q", "back\\slash", "$V", "\/"]"#,
            &["tab\there", "été", "q\"q", "back\\slash", "$V", "/"],
        );
        check(r#"["\ud83d\ude00"]"#, &["😀"]);
        check(r#"["\ud83d", "\\ud83d", "\udc00\ud83d\ude00"]"#, &["\u{fffd}", "\\ud83d", "\u{fffd}😀"]);
    }

    #[test]
    fn elements_have_their_places() {
        let spans = |rest: &str| match json_words(&Placed::verbatim(rest, 0)) {
            Ok(words) => words
                .iter()
                .map(|word| rest[word.span().start as usize..word.span().end as usize].to_string())
                .collect(),
            Err(NotWords::NotStrings(span)) => vec![format!("!{}", &rest[span.start as usize..span.end as usize])],
            Err(NotWords::NotJson) => vec![],
        };
        let check = |rest: &str, expect: &[&str]| assert_eq!(spans(rest), expect, "{rest}");
        check(r#"[ "a" ,"b,]" ]"#, &["a", "b,]"]);
        check(r#"["a\"b", "é"]"#, &[r#""a\"b""#, "é"]);
        check(r#"["a", [1, "b"], 2]"#, &[r#"![1, "b"]"#]);
        check(r#"["a", {"b": 1} ]"#, &[r#"!{"b": 1}"#]);
        check("[]", &[]);
    }

    #[test]
    fn where_it_ceases_to_be_json() {
        let check = |rest: &str, at: usize, remark: &str| {
            let (span, found) = json_fault(&Placed::verbatim(rest, 0)).unwrap();
            assert_eq!((span.start as usize, found), (at, remark), "{rest}");
        };
        check("['a']", 1, "JSON strings are in double quotes");
        check(r#"["a",]"#, 5, "JSON has no comma after the last element");
        check(r#"["c:\x"]"#, 5, r"a backslash is written `\\` in JSON");
        check(r#"["a" "b"]"#, 5, "this is not JSON from here on");
    }

    #[test]
    fn arrays_of_others() {
        for rest in ["[1]", r#"["a", null]"#, r#"[["a"]]"#, r#"[{"a": "b"}]"#, "[true]"] {
            assert_eq!(json_array(rest), JsonForm::NotStrings, "{rest}");
        }
    }

    #[test]
    fn no_arrays() {
        let rests = [
            "",
            "a",
            "['a']",
            r#"["a",]"#,
            r#"["a"] b"#,
            r#"["c:\x"]"#,
            r#"["a" "b"]"#,
            "[",
            "{}",
            "\"a\"",
            "[\"\\",
            "[\"\\u",
        ];
        for rest in rests {
            assert_eq!(json_array(rest), JsonForm::NotJson, "{rest}");
        }
    }
}
