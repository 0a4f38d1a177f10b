//! `ExecFormNotJson`: what looks like the JSON form but is none is given to the shell, brackets and all.

use super::around::Around;

pub(super) fn check(at: &Around<'_>) {
    let Some(text) = at.shell_text().map(str::trim).filter(|text| looks_like_json(text)) else { return };
    let why = if text.contains('\'') {
        "JSON has double quotes only"
    } else if text.contains(['“', '”', '‘', '’']) {
        "these are typographic quotes"
    } else {
        "it needs [\"a\", \"b\"], with a comma between any two"
    };
    let message = format!("This is no JSON, so the shell runs it with brackets and all: {why}");
    at.fire("ExecFormNotJson", message);
}

/// `[` that is no `[ test ]` of the shell.
fn looks_like_json(text: &str) -> bool {
    let Some(inside) = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else { return false };
    if inside.starts_with('[') {
        return false;
    }
    let quotes = ['\'', '"', '“', '”', '‘', '’'];
    let has_list = quotes.iter().any(|quote| inside.contains(&format!("{quote},")));
    !inside.trim().is_empty() && (!inside.starts_with(char::is_whitespace) || has_list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes() {
        let check = |text: &str, expect: bool| assert_eq!(looks_like_json(text), expect, "{text}");
        for text in ["['a', 'b']", "[\"a\" \"b\"]", "[“a”]", "[node, x]", "[ 'a', 'b' ]", "[\"a\", \"b\",]"] {
            check(text, true);
        }
        for text in ["[ -f x ]", "[ \"$A\" = \"b\" ]", "[[ a ]]", "[ -f x ] && y", "a [b]", "[]", "[ ]", "[", ""] {
            check(text, false);
        }
    }
}
