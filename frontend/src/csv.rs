//! One record of comma-separated values (RFC 4180), as `RUN --mount` and many flags of the command line take them; and
//! the booleans among the values.

use crate::placed::Placed;

/// The fields of a record: separated by commas, `"…"` around those that have commas or quotes, which are then doubled.
pub fn fields(record: &str) -> Result<Vec<String>, String> {
    let fields = placed_fields(&Placed::verbatim(record, 0))?;
    Ok(fields.into_iter().map(Placed::into_string).collect())
}

/// As [`fields`], with their places.
pub fn placed_fields(record: &Placed) -> Result<Vec<Placed>, String> {
    let mut fields = vec![];
    let mut rest = record.as_str();
    loop {
        let Some(quoted) = rest.strip_prefix('"') else {
            let (field, after) = match rest.split_once(',') {
                Some((field, after)) => (field, Some(after)),
                None => (rest, None),
            };
            if field.contains('"') {
                return Err(format!("bare \" in non-quoted field {field:?}"));
            }
            fields.push(record.part(field));
            match after {
                Some(after) => rest = after,
                None => return Ok(fields),
            }
            continue;
        };
        let mut field = String::new();
        let mut chars = quoted.char_indices();
        let after = loop {
            match chars.next() {
                None => return Err(format!("missing closing quote in {record:?}")),
                Some((at, '"')) if !quoted[at + 1..].starts_with('"') => break &quoted[at + 1..],
                Some((_, c)) => {
                    if c == '"' {
                        chars.next();
                    }
                    field.push(c);
                }
            }
        };
        let inner = &quoted[..quoted.len() - after.len() - 1];
        // Without doubled quotes, it is there byte by byte.
        let place = record.part(inner);
        fields.push(if inner == field { place } else { Placed::whole(field, place.span()) });
        match (after, after.strip_prefix(',')) {
            ("", _) => return Ok(fields),
            (_, Some(after)) => rest = after,
            (_, None) => return Err(format!("extraneous text after closing quote in {record:?}")),
        }
    }
}

/// The booleans that docker's flags and Go know: `1 t T true TRUE True` and their opposites.
pub fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let check = |record: &str, expect: &[&str]| assert_eq!(fields(record).as_deref(), Ok(&own(expect)[..]));
        fn own(words: &[&str]) -> Vec<String> {
            words.iter().map(|word| word.to_string()).collect()
        }
        check("type=bind,source=a", &["type=bind", "source=a"]);
        check("a,\"source=a,b\",c", &["a", "source=a,b", "c"]);
        check("\"a\"\"b\"", &["a\"b"]);
        check("a,", &["a", ""]);
        assert!(fields("a\"b").is_err() && fields("\"a").is_err() && fields("\"a\"b").is_err());
    }
}
