//! docs/checks.md and the rules say the same: each rule is there, and its examples are what they claim to be.

use super::config::OwnChecks;
use super::{Origin, RULES, Rule};
use crate::compile::{CheckOptions, Checked, CompileRequest, ImageLocation};
use crate::diagnostic::Diagnostic;
use crate::span::SourceText;
use crate::stand_in::{self, request};

const DOCUMENT: &str = include_str!("../../../docs/checks.md");

/// What is said of a rule.
#[derive(Default, Debug)]
struct Section {
    name: String,
    ignore_file: Option<String>,
    bad: Vec<String>,
    good: Vec<String>,
}

fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = vec![];
    let mut lines = DOCUMENT.lines();
    let mut kind = "";
    while let Some(line) = lines.next() {
        if let Some(name) = line.strip_prefix("### ") {
            sections.push(Section { name: name.to_string(), ..Section::default() });
        }
        let Some(section) = sections.last_mut() else { continue };
        match line {
            "Bad:" | "Good:" => kind = line,
            fence if fence.starts_with("```") => {
                let text: String = lines.by_ref().take_while(|l| *l != "```").map(|l| format!("{l}\n")).collect();
                match (fence, kind) {
                    ("```dockerignore", _) => section.ignore_file = Some(text),
                    ("```dockerfile", "Bad:") => section.bad.push(text),
                    ("```dockerfile", "Good:") => section.good.push(text),
                    other => panic!("{}: what is {other:?}?", section.name),
                }
            }
            _ => {}
        }
    }
    sections
}

fn checked(text: &str, rule: &Rule, ignore_file: Option<String>) -> Checked {
    let experimental = if rule.is_on { vec![] } else { vec![rule.name.to_string()] };
    let checks = CheckOptions { own: OwnChecks::Advice, experimental, ..CheckOptions::default() };
    let request = CompileRequest { checks, ignore_file, ..request() };
    stand_in::check(SourceText { name: "Dockerfile".into(), text: text.into() }, &request, |request| {
        let mut info = stand_in::image(request);
        if matches!(&request.source, ImageLocation::Registry(name) if name.path == "arm64-only") {
            info.config.architecture = "arm64".to_string();
        }
        info
    })
}

#[test]
fn every_rule_is_documented_and_no_other() {
    let documented: Vec<String> = sections().into_iter().map(|section| section.name).collect();
    let rules: Vec<String> = RULES.iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(documented, rules, "docs/checks.md has the rules in the order of lint/rules.rs");
    for rule in RULES {
        let on = if rule.is_on { "yes" } else { "no" };
        let row = format!("| [{}](#{}) | {on} |", rule.name, rule.name.to_lowercase());
        assert!(DOCUMENT.contains(&row), "the table of docs/checks.md lacks {row}");
    }
}

#[test]
fn examples_are_what_they_claim() {
    for section in sections() {
        let rule = super::rule(&section.name).expect("the other test says which rule is missing");
        assert!(!section.bad.is_empty() && !section.good.is_empty(), "{} needs examples", rule.name);
        for text in &section.bad {
            let found = checked(text, rule, section.ignore_file.clone());
            let is_it = |found: &&Diagnostic| found.rule == Some(rule.name);
            let (warnings, advice) =
                (found.warnings.iter().filter(is_it).count(), found.advice.iter().filter(is_it).count());
            let expect = if rule.origin == Origin::BuildKit || !rule.is_on { (1, 0) } else { (0, 1) };
            assert_eq!((warnings, advice), expect, "bad example of {}: {found:?}", rule.name);
        }
        for text in &section.good {
            let Checked { warnings, advice, errors } = checked(text, rule, section.ignore_file.clone());
            let found: Vec<Diagnostic> = warnings.into_iter().chain(advice).chain(errors).collect();
            assert_eq!(found, [], "good example of {}", rule.name);
        }
    }
}

/// By the directive, and by a comment above the instruction that the rule looks at.
#[test]
fn every_rule_can_be_switched_off() {
    for section in sections() {
        let rule = super::rule(&section.name).expect("the other test says which rule is missing");
        if !rule.is_on {
            // Nobody has to switch it off.
            continue;
        }
        let by_comment = format!("# check=skip={}", rule.name);
        for text in &section.bad {
            let parsed = crate::parse::parse(SourceText { name: "Dockerfile".into(), text: text.clone() });
            let mut commented = String::new();
            let mut at = 0;
            for node in &parsed.dockerfile.nodes {
                let start = node.span.start as usize;
                commented += &format!("{}{by_comment}\n", &text[at..start]);
                at = start;
            }
            commented += &text[at..];
            for silenced in [format!("{by_comment}\n{text}"), commented] {
                let Checked { warnings, advice, .. } = checked(&silenced, rule, section.ignore_file.clone());
                let fired = warnings.iter().chain(&advice).any(|found| found.rule == Some(rule.name));
                assert!(!fired, "{} fires in spite of it:\n{silenced}", rule.name);
            }
            if !checked(text, rule, section.ignore_file.clone()).errors.is_empty() {
                // It cannot be built at all, which says more.
                continue;
            }
            let strict = format!("# check=error=true;experimental={}\n{text}", rule.name);
            let errors = checked(&strict, rule, section.ignore_file.clone()).errors;
            let last = errors.last().map(|error| error.message.as_str()).unwrap_or_default();
            let is_violation = last.strip_prefix("lint violation found for rules: ");
            let rules: Vec<&str> = is_violation.unwrap_or_default().split(", ").collect();
            assert!(rules.contains(&rule.name), "{}: {errors:?}", rule.name);
        }
    }
}
