//! Answers as JSON, with the fields that BuildKit's have (its `frontend/subrequests`); empty ones are left out where it
//! does so. kiln's own: `advice` beside `warnings`.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use frontend::compile::Checked;
use frontend::diagnostic::Diagnostic;
use frontend::lint::rule;
use frontend::outline::{Access, Outline};
use frontend::span::{SourceText, Span};
use frontend::targets::Target;
use serde::Serialize;

/// `{"ranges":[{"start":{"line":3},"end":{"line":4}}]}`; empty without a place.
#[derive(Serialize, Default)]
struct Location {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ranges: Vec<Range>,
}

#[derive(Serialize)]
pub struct Range {
    start: Position,
    end: Position,
}

#[derive(Serialize)]
struct Position {
    line: usize,
}

/// The lines of a span.
pub fn range(source: &SourceText, span: Span) -> Range {
    let (first, last) = source.lines(span);
    Range { start: Position { line: first }, end: Position { line: last } }
}

fn location(source: &SourceText, span: Option<Span>) -> Location {
    Location { ranges: span.map(|span| range(source, span)).into_iter().collect() }
}

/// A source as BuildKit's messages have it.
#[derive(Serialize)]
pub struct SourceInfo {
    filename: String,
    data: String,
    language: &'static str,
}

/// Of the Dockerfile.
pub fn source_info(source: &SourceText) -> SourceInfo {
    SourceInfo { filename: source.name.clone(), data: BASE64_STANDARD.encode(&source.text), language: "Dockerfile" }
}

#[derive(Serialize)]
struct LintResults {
    /// `null` where there are none, as in BuildKit.
    warnings: Option<Vec<Warning>>,
    sources: Vec<SourceInfo>,
    #[serde(rename = "buildError", skip_serializing_if = "Option::is_none")]
    build_error: Option<BuildError>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    advice: Vec<Warning>,
}

#[derive(Serialize)]
struct Warning {
    #[serde(rename = "ruleName")]
    rule_name: String,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    #[serde(skip_serializing_if = "String::is_empty")]
    detail: String,
    location: Location,
}

#[derive(Serialize)]
struct BuildError {
    message: String,
    location: Location,
}

/// Of `frontend.lint`.
pub(super) fn check(source: &SourceText, checked: &Checked) -> String {
    let warning = |found: &Diagnostic| {
        let rule = found.rule.and_then(rule);
        Warning {
            rule_name: found.rule.unwrap_or_default().to_string(),
            description: rule.map(|rule| rule.description).unwrap_or_default(),
            url: rule.and_then(|rule| rule.url()),
            detail: found.message.clone(),
            location: location(source, found.span),
        }
    };
    let warnings: Vec<Warning> = checked.warnings.iter().map(warning).collect();
    let error = checked.errors.first();
    pretty(&LintResults {
        warnings: Some(warnings).filter(|warnings| !warnings.is_empty()),
        sources: vec![source_info(source)],
        build_error: error
            .map(|error| BuildError { message: error.message.clone(), location: location(source, error.span) }),
        advice: checked.advice.iter().map(warning).collect(),
    })
}

#[derive(Serialize)]
struct OutlineResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    args: Vec<Argument<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    secrets: Vec<Named<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    ssh: Vec<Named<'a>>,
    sources: Vec<String>,
}

#[derive(Serialize)]
struct Argument<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    location: Location,
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    required: bool,
    location: Location,
}

/// Of `frontend.outline`.
pub(super) fn outline(source: &SourceText, outline: &Outline) -> String {
    pretty(&OutlineResult {
        name: outline.name.as_deref(),
        description: &outline.description,
        args: outline
            .args
            .iter()
            .map(|argument| Argument {
                name: &argument.name,
                description: &argument.description,
                value: &argument.value,
                location: location(source, Some(argument.span)),
            })
            .collect(),
        secrets: accesses(source, &outline.secrets),
        ssh: accesses(source, &outline.ssh),
        sources: vec![BASE64_STANDARD.encode(&source.text)],
    })
}

fn accesses<'a>(source: &SourceText, list: &'a [Access]) -> Vec<Named<'a>> {
    let named = |access: &'a Access| Named {
        name: &access.id,
        required: access.required,
        location: location(source, Some(access.span)),
    };
    list.iter().map(named).collect()
}

#[derive(Serialize)]
struct TargetResult<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    default: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    description: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    base: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<&'a str>,
    location: Location,
}

#[derive(Serialize)]
struct TargetList<'a> {
    targets: Vec<TargetResult<'a>>,
    sources: Vec<String>,
}

/// Of `frontend.targets`.
pub(super) fn targets(source: &SourceText, targets: &[Target]) -> String {
    let targets = targets
        .iter()
        .map(|target| TargetResult {
            name: target.name.as_deref(),
            default: target.is_default,
            description: &target.description,
            base: &target.base,
            platform: target.platform.as_deref(),
            location: location(source, Some(target.span)),
        })
        .collect();
    pretty(&TargetList { targets, sources: vec![BASE64_STANDARD.encode(&source.text)] })
}

/// A request that can be made, as BuildKit describes it.
pub(super) struct Request {
    pub name: &'static str,
    pub description: &'static str,
    has_target: bool,
    has_status: bool,
}

/// All of them. Unlike BuildKit's, the list has `frontend.lint`, too.
pub(super) const REQUESTS: &[Request] = &[
    Request {
        name: "frontend.outline",
        description: "List all parameters current build target supports",
        has_target: true,
        has_status: false,
    },
    Request {
        name: "frontend.targets",
        description: "List all targets current build supports",
        has_target: false,
        has_status: false,
    },
    Request { name: "frontend.lint", description: "Lint a Dockerfile", has_target: false, has_status: true },
    Request {
        name: "frontend.subrequests.describe",
        description: "List available subrequest types",
        has_target: false,
        has_status: false,
    },
];

#[derive(Serialize)]
struct Description {
    name: &'static str,
    version: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    description: &'static str,
    opts: Vec<NamedText>,
    inputs: Option<Vec<NamedText>>,
    metadata: Vec<NamedText>,
    refs: Option<Vec<NamedText>>,
}

#[derive(Serialize)]
struct NamedText {
    name: &'static str,
    description: &'static str,
}

/// Of `frontend.subrequests.describe`.
pub(super) fn describe() -> String {
    let named = |name, description| NamedText { name, description };
    let description = |request: &Request| {
        let mut metadata = vec![named("result.json", ""), named("result.txt", "")];
        metadata.extend(request.has_status.then(|| named("result.statuscode", "")));
        Description {
            name: request.name,
            version: "1.0.0",
            kind: "rpc",
            description: request.description,
            opts: request.has_target.then(|| named("target", "Target build stage")).into_iter().collect(),
            inputs: None,
            metadata,
            refs: None,
        }
    };
    pretty(&REQUESTS.iter().map(description).collect::<Vec<_>>())
}

/// As BuildKit writes JSON: two blanks a level, fields in the order of their declaration.
fn pretty(result: &impl Serialize) -> String {
    serde_json::to_string_pretty(result).expect("these structs have no maps and no failing fields")
}
