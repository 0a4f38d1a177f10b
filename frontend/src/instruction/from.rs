//! `FROM [--platform=P] IMAGE [AS NAME]` (reference/dockerfile.md 2.1). What it opens is in `compile`.

use super::fail_at;
use super::flags::{Flags, Kind};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::span::Span;
use crate::words::split_words;

/// The fields of a FROM.
#[derive(Clone, Debug, PartialEq)]
pub struct From {
    /// Not yet expanded.
    pub image: Placed,
    /// Not yet expanded.
    pub platform: Option<Placed>,
    /// Lower case.
    pub name: Option<String>,
    /// The name as written.
    pub name_written: Option<Placed>,
    /// `AS` as written.
    pub as_written: Option<Placed>,
    /// Keyword as written.
    pub keyword: Placed,
    /// Its lines.
    pub span: Span,
    /// Comment lines directly above.
    pub comments: Vec<String>,
}

impl From {
    /// Parses the node.
    pub fn parse(node: &Node) -> Result<From, Diagnostic> {
        let words = split_words(&node.rest);
        let name_written = match words.as_slice() {
            [_] => None,
            [_, word, name] if word.eq_ignore_ascii_case("as") => Some(name.clone()),
            words => {
                let error = Diagnostic::error("FROM requires either one or three arguments", node.span);
                let error = match words {
                    [_, .., word] if words[1..].iter().any(|word| word.starts_with('#')) => {
                        let comment = words[1..].iter().find(|word| word.starts_with('#')).unwrap_or(word);
                        error.label(comment.span(), "a comment must have a line of its own")
                    }
                    [_, word, _] => error.label(word.span(), "only `AS` can stand here"),
                    [_, word, ..] if !word.eq_ignore_ascii_case("as") => error.label(word.span(), "one word too many"),
                    [_, _, _, extra, ..] => error.label(extra.span(), "one word too many"),
                    [_, word] => error.label(word.span(), "a name must follow"),
                    _ => error,
                };
                return Err(error.help("write FROM image, or FROM image AS name"));
            }
        };
        let name = name_written.as_ref().map(|name| name.to_lowercase());
        if let (Some(name), Some(written)) = (&name, &name_written)
            && !is_stage_name(name)
        {
            let why = "name can't start with a number or contain symbols";
            let message = format!("invalid name for build stage: {written:?}, {why}");
            let remark = "a letter, then letters, digits, `-`, `_` and `.`";
            return fail_at(node, written, message, remark);
        }
        let flags = Flags::check(node, &[("platform", Kind::Text)])?;
        Ok(From {
            image: words[0].clone(),
            platform: flags.text("platform").filter(|platform| !platform.is_empty()).cloned(),
            name,
            name_written,
            as_written: words.get(1).cloned(),
            keyword: node.keyword.clone(),
            span: node.span,
            comments: node.comments.clone(),
        })
    }
}

impl From {
    /// Stands for one that could not be read: an empty image, with the name if there is one.
    pub(crate) fn unread(node: &Node) -> From {
        let words = split_words(&node.rest);
        let name_written = words.iter().position(|word| word.eq_ignore_ascii_case("as"));
        let name_written = name_written.and_then(|position| words.get(position + 1)).cloned();
        From {
            image: Placed::whole("scratch", node.span),
            platform: None,
            name: name_written.as_ref().map(|name| name.to_lowercase()),
            name_written,
            as_written: None,
            keyword: node.keyword.clone(),
            span: node.span,
            comments: vec![],
        }
    }
}

/// `^[a-z][a-z0-9-_.]*$`
fn is_stage_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c))
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn errors() {
        check_errors("FROM", &["FROM requires either one or three arguments"]);
        check_errors("FROM a b", &["FROM requires either one or three arguments"]);
        check_errors("FROM a in b", &["FROM requires either one or three arguments"]);
        check_errors(
            "FROM a AS 1st",
            &["invalid name for build stage: \"1st\", name can't start with a number or contain symbols"],
        );
        check_errors("FROM --platfrom=x a", &["unknown flag: --platfrom (did you mean platform?)"]);
        check_errors("FROM a:${X}", &["failed to parse stage name \"a:\": invalid reference format"]);
        check_errors("ARG BASE\nFROM ${BASF}", &["base name (${BASF}) should not be blank (did you mean BASE?)"]);
        check_errors("FROM --platform=$P a", &["empty platform value from expression $P"]);
        check_errors(
            "FROM --platform=a/b/c/d a",
            &["failed to parse platform a/b/c/d: \"a/b/c/d\": cannot parse platform specifier: invalid argument"],
        );
    }

    #[test]
    fn lines() {
        check_steps("from a as B\nrun x", &["[1/2] FROM docker.io/library/a:latest@sha256:index", "[2/2] RUN x"]);
        check_steps("FROM scratch\nRUN x", &["[1/1] RUN x"]);
        check_steps("ARG V=2\nFROM a:$V\nRUN x", &["[1/2] FROM docker.io/library/a:2@sha256:index", "[2/2] RUN x"]);
    }
}
