//! The exec form of RUN, CMD, COPY and others: a JSON array of strings (reference/dockerfile.md 1.5).

use std::borrow::Cow;

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
