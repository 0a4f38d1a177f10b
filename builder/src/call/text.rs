//! Answers as text, laid out as BuildKit and buildx do, which tools look for.

use super::Unread;
use super::json::REQUESTS;
use crate::report::excerpt;
use frontend::compile::Checked;
use frontend::diagnostic::Diagnostic;
use frontend::lint::rule;
use frontend::outline::{Access, Outline};
use frontend::span::SourceText;
use frontend::targets::Target;
use std::fmt::Write;

/// Warnings, then kiln's advice. Errors are not among it, see [`errors`].
pub(super) fn check(source: &SourceText, checked: &Checked) -> String {
    let Checked { warnings, advice, errors } = checked;
    let mut text = match warnings.len() {
        // Nothing is complete where the Dockerfile cannot be built.
        0 if !errors.is_empty() => String::new(),
        0 => "Check complete, no warnings found.\n".to_string(),
        1 => "Check complete, 1 warning has been found!\n".to_string(),
        count => format!("Check complete, {count} warnings have been found!\n"),
    };
    for warning in warnings {
        text += &finding("WARNING", source, warning);
    }
    if !advice.is_empty() {
        let before = if text.is_empty() { "" } else { "\n" };
        let points = if advice.len() == 1 { "point" } else { "points" };
        let _ = writeln!(
            text,
            "{before}kiln advises, {} {points} (advice does not change the exit status; --check=strict makes warnings of \
             it):",
            advice.len()
        );
    }
    // One rule is often broken in one way all over a file: it is explained once.
    let mut rules: Vec<Option<&str>> = vec![];
    for first in advice {
        if rules.contains(&first.rule) {
            continue;
        }
        rules.push(first.rule);
        text += &finding("ADVICE", source, first);
        let others = advice.iter().filter(|other| other.rule == first.rule && *other != first);
        let mut lines: Vec<String> =
            others.filter_map(|other| other.span).map(|span| source.lines(span).0.to_string()).collect();
        lines.dedup();
        if let Some((last, rest)) = lines.split_last() {
            let lines =
                if rest.is_empty() { format!("line {last}") } else { format!("lines {} and {last}", rest.join(", ")) };
            let _ = writeln!(text, "The same in {lines}.");
        }
    }
    text
}

fn finding(kind: &str, source: &SourceText, found: &Diagnostic) -> String {
    let name = found.rule.unwrap_or_default();
    let url = rule(name).and_then(|rule| rule.url()).map(|url| format!(" - {url}")).unwrap_or_default();
    let place = found.span.map(|span| excerpt(source, span)).unwrap_or_default();
    format!("\n{kind}: {name}{url}\n{}\n{place}", found.message)
}

/// What would fail the build.
pub(super) fn errors(source: &SourceText, errors: &[Diagnostic]) -> String {
    let mut text = String::new();
    for error in errors {
        let _ = writeln!(text, "ERROR: {}", error.message);
        text += &error.span.map(|span| excerpt(source, span)).unwrap_or_default();
        error.help.iter().for_each(|advice| text += &format!("help: {advice}\n"));
    }
    text
}

/// Which bases the answer lacks.
pub(super) fn unread(unread: &[Unread]) -> String {
    let line = |Unread { image, reason }: &Unread| {
        format!("NOTE: the config of {image} could not be read, so what depends on it is left out: {reason}\n")
    };
    unread.iter().map(line).collect()
}

/// The parameters of a target.
pub(super) fn outline(outline: &Outline) -> String {
    let mut text = String::new();
    if outline.name.is_some() || !outline.description.is_empty() {
        let name = outline.name.as_deref().unwrap_or("(default)");
        let mut rows = vec![vec!["TARGET:", name]];
        if !outline.description.is_empty() {
            rows.push(vec!["DESCRIPTION:", &outline.description]);
        }
        text += &(table(&rows, 1) + "\n");
    }
    if !outline.args.is_empty() {
        let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
        rows.extend(outline.args.iter().map(|arg| vec![arg.name.as_str(), &arg.value, &arg.description]));
        text += &(table(&rows, 3) + "\n");
    }
    for (head, list) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !list.is_empty() {
            let required = |access: &Access| if access.required { "true" } else { "" };
            let mut rows = vec![vec![head, "REQUIRED"]];
            rows.extend(list.iter().map(|access| vec![access.id.as_str(), required(access)]));
            text += &(table(&rows, 3) + "\n");
        }
    }
    text
}

/// The stages.
pub(super) fn targets(targets: &[Target]) -> String {
    let names: Vec<String> = targets
        .iter()
        .map(|target| match (target.name.as_deref(), target.is_default) {
            (None, true) => "(default)".to_string(),
            (Some(name), true) => format!("{name} (default)"),
            (name, false) => name.unwrap_or_default().to_string(),
        })
        .collect();
    let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
    rows.extend(names.iter().zip(targets).map(|(name, target)| vec![name.as_str(), target.description.as_str()]));
    table(&rows, 1)
}

/// The requests.
pub(super) fn describe() -> String {
    let short = |name: &'static str| name.strip_prefix("frontend.").unwrap_or(name);
    let mut rows = vec![vec!["NAME", "VERSION", "DESCRIPTION"]];
    rows.extend(REQUESTS.iter().map(|request| vec![short(request.name), "1.0.0", request.description]));
    table(&rows, 1)
}

/// Columns, `gap` blanks between the widest cell and the next column; the last column is not filled up.
fn table(rows: &[Vec<&str>], gap: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or_default() + gap).collect();
    let mut text = String::new();
    for row in rows {
        for (column, cell) in row.iter().enumerate() {
            match column + 1 == row.len() {
                true => text += cell,
                false => text += &format!("{cell:width$}", width = widths[column]),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::json;
    use frontend::outline::Argument;
    use frontend::span::Span;

    fn source() -> SourceText {
        let text = "FROM a AS B\nRUN apk add c\nRUN apk add d\nRUN apk add e\n";
        SourceText { name: "Dockerfile".into(), text: text.into() }
    }

    fn at(line: usize, rule: &'static str, message: &str) -> Diagnostic {
        let text = source().text;
        let start = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let length = text[start..].find('\n').unwrap();
        Diagnostic::warning(rule, message, Span::new(start, start + length))
    }

    fn checked(warnings: usize, advice: usize) -> Checked {
        let warning = at(1, "StageNameCasing", "Stage name 'B' should be lowercase");
        let advised = |line| at(line, "ApkCacheKept", "leaves its index");
        Checked {
            warnings: std::iter::repeat_n(warning, warnings).collect(),
            advice: (2..2 + advice).map(advised).collect(),
            errors: vec![],
        }
    }

    #[test]
    fn checks() {
        assert_eq!(check(&source(), &checked(0, 0)), "Check complete, no warnings found.\n");
        let warning = "
WARNING: StageNameCasing - https://docs.docker.com/go/dockerfile/rule/stage-name-casing/
Stage name 'B' should be lowercase
Dockerfile:1
--------------------
   1 | >>> FROM a AS B
   2 |     RUN apk add c
   3 |     RUN apk add d
--------------------
";
        assert_eq!(
            check(&source(), &checked(2, 0)),
            format!("Check complete, 2 warnings have been found!\n{warning}{warning}")
        );
        assert_eq!(
            check(&source(), &checked(1, 3)),
            format!(
                "Check complete, 1 warning has been found!\n{warning}
kiln advises, 3 points (advice does not change the exit status; --check=strict makes warnings of it):

ADVICE: ApkCacheKept - docs/checks.md#apkcachekept
leaves its index
Dockerfile:2
--------------------
   1 |     FROM a AS B
   2 | >>> RUN apk add c
   3 |     RUN apk add d
   4 |     RUN apk add e
--------------------
The same in lines 3 and 4.
"
            )
        );
    }

    #[test]
    fn what_fails_the_build() {
        let error = at(3, "", "unknown instruction: X").help("y");
        let checked = Checked { errors: vec![error], ..checked(0, 0) };
        assert_eq!(check(&source(), &checked), "");
        let text = errors(&source(), &checked.errors);
        assert!(text.starts_with("ERROR: unknown instruction: X\nDockerfile:3\n-----"), "{text}");
        assert!(text.ends_with("-----\nhelp: y\n"), "{text}");
    }

    #[test]
    fn checks_as_json() {
        let parse = |checked: &Checked| -> serde_json::Value {
            serde_json::from_str(&json::check(&source(), checked)).expect("it is JSON")
        };
        let found = parse(&checked(1, 1));
        let warning = &found["warnings"][0];
        assert_eq!(warning["ruleName"], "StageNameCasing");
        assert_eq!(warning["description"], "Stage names should be lowercase");
        assert_eq!(warning["url"], "https://docs.docker.com/go/dockerfile/rule/stage-name-casing/");
        assert_eq!(warning["detail"], "Stage name 'B' should be lowercase");
        assert_eq!(warning["location"], serde_json::json!({"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}));
        assert_eq!(found["sources"][0]["filename"], "Dockerfile");
        assert_eq!(found["advice"][0]["url"], "docs/checks.md#apkcachekept");
        assert!(found.get("buildError").is_none());
        // As BuildKit: no warnings are `null`.
        let clean = parse(&checked(0, 0));
        assert!(clean["warnings"].is_null() && clean.get("advice").is_none());
        let failed = parse(&Checked { errors: vec![at(2, "", "bad")], ..checked(0, 0) });
        assert_eq!(failed["buildError"]["message"], "bad");
        assert_eq!(failed["buildError"]["location"]["ranges"][0]["start"]["line"], 2);
    }

    #[test]
    fn outlines() {
        let argument = |name: &str, value: &str, description: &str| Argument {
            name: name.into(),
            value: value.into(),
            description: description.into(),
            span: Span::new(0, 4),
        };
        let access = |id: &str, required| Access { id: id.into(), required, span: Span::new(0, 4) };
        let some = Outline {
            name: Some("app".into()),
            description: "the program".into(),
            args: vec![argument("VERSION", "1.2", "of it"), argument("X", "", "")],
            secrets: vec![access("token", true), access("t", false)],
            ssh: vec![access("default", false)],
        };
        let expect = [
            "TARGET:      app",
            "DESCRIPTION: the program",
            "",
            "BUILD ARG   VALUE   DESCRIPTION",
            "VERSION     1.2     of it",
            "X                   ",
            "",
            "SECRET   REQUIRED",
            "token    true",
            "t        ",
            "",
            "SSH       REQUIRED",
            "default   ",
            "",
            "",
        ];
        assert_eq!(outline(&some), expect.join("\n"));
        assert_eq!(outline(&Outline::default()), "");
        let found: serde_json::Value = serde_json::from_str(&json::outline(&source(), &some)).unwrap();
        let place = serde_json::json!({"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]});
        assert_eq!(found["secrets"][0], serde_json::json!({"name": "token", "required": true, "location": place}));
        assert_eq!(found["args"][1], serde_json::json!({"name": "X", "location": place}));
    }

    #[test]
    fn stages_and_requests() {
        let target = |name: Option<&str>, description: &str, is_default| Target {
            name: name.map(str::to_string),
            description: description.into(),
            is_default,
            base: "a".into(),
            platform: None,
            span: Span::new(0, 4),
        };
        let some = [target(Some("base"), "the tools", false), target(None, "", false), target(Some("app"), "", true)];
        let expect = ["TARGET        DESCRIPTION", "base          the tools", "              ", "app (default) ", ""];
        assert_eq!(targets(&some), expect.join("\n"));
        assert_eq!(targets(&[target(None, "", true)]), "TARGET    DESCRIPTION\n(default) \n");
        let found: serde_json::Value = serde_json::from_str(&json::targets(&source(), &some)).unwrap();
        assert_eq!((&found["targets"][2]["default"], &found["targets"][2]["base"]), (&true.into(), &"a".into()));
        assert!(
            describe().starts_with("NAME                 VERSION DESCRIPTION\noutline              1.0.0   List all")
        );
        let requests: serde_json::Value = serde_json::from_str(&json::describe()).unwrap();
        let names: Vec<_> = requests.as_array().unwrap().iter().map(|request| request["name"].clone()).collect();
        let all = ["frontend.outline", "frontend.targets", "frontend.lint", "frontend.subrequests.describe"];
        assert_eq!(names, all);
        assert!(requests[1]["inputs"].is_null() && requests[1]["opts"] == serde_json::json!([]));
    }
}
