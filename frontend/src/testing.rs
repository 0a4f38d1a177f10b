//! Compiles texts with faked images, for the tests of this crate.

use crate::compile::{BuildPlan, CompileRequest, Compiled, ImageInfo, ImageRequest, Images, compile};
use crate::diagnostic::{Diagnostic, Severity};
use crate::image_config::ImageConfig;
use crate::op::{Exec, FileAction, Op};
use crate::platform::Platform;
use crate::span::SourceText;
pub(crate) use crate::stand_in::{image, request};

pub(crate) fn platform(text: &str) -> Platform {
    let host = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
        os_version: String::new(),
    };
    Platform::parse(text, &host).unwrap()
}

pub(crate) fn with_args(args: &[(&str, &str)]) -> CompileRequest {
    let build_args = args.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    CompileRequest { build_args, ..request() }
}

/// Compiles, answering all requests for images.
pub(crate) fn compile_with(
    text: &str,
    request: &CompileRequest,
    answer: impl Fn(&ImageRequest) -> ImageInfo,
) -> Result<BuildPlan, Vec<Diagnostic>> {
    let parsed = crate::parse::parse(SourceText { name: "Dockerfile".into(), text: text.into() });
    let errors: Vec<_> = parsed.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut images = Images::new();
    loop {
        match compile(&parsed.dockerfile, request, &images)? {
            Compiled::Plan(plan) => return Ok(plan),
            Compiled::NeedsTime(request) => panic!("nobody says how old {:?} is", request.source),
            Compiled::NeedsImages(requests) => {
                for request in requests {
                    let key = (request.source.clone(), request.platform.clone());
                    assert!(images.insert(key, answer(&request)).is_none(), "asked twice for {}", request.name);
                }
            }
        }
    }
}

/// Compiles what is right.
pub(crate) fn plan_with(text: &str, request: &CompileRequest) -> BuildPlan {
    compile_with(text, request, image).unwrap_or_else(|errors| panic!("{text}\n{errors:?}"))
}

pub(crate) fn plan(text: &str) -> BuildPlan {
    plan_with(text, &request())
}

/// Messages of what is wrong. Where an instruction stands, which those of parse errors begin with, is left out.
pub(crate) fn errors_with(text: &str, request: &CompileRequest) -> Vec<String> {
    match compile_with(text, request, image) {
        Ok(_) => vec![],
        Err(errors) => errors.into_iter().map(|error| without_line(error.message)).collect(),
    }
}

fn without_line(message: String) -> String {
    let after = message.strip_prefix("dockerfile parse error on line ").and_then(|rest| rest.split_once(": "));
    after.map(|(_, message)| message.to_string()).unwrap_or(message)
}

pub(crate) fn check_errors(text: &str, expect: &[&str]) {
    assert_eq!(errors_with(text, &request()), expect, "{text}");
}

/// The image of the first platform.
pub(crate) fn config(text: &str) -> ImageConfig {
    plan(text).results.remove(0).config
}

/// History of what the Dockerfile adds; entries without layer end with `(empty)`.
pub(crate) fn history_with(text: &str, request: &CompileRequest) -> Vec<String> {
    let image = plan_with(text, request).results.remove(0);
    let new = image.config.history.into_iter().skip(image.base_history_len);
    new.map(|entry| format!("{}{}", entry.created_by, if entry.empty_layer { " (empty)" } else { "" })).collect()
}

pub(crate) fn check_history(text: &str, expect: &[&str]) {
    assert_eq!(history_with(text, &request()), expect, "{text}");
}

/// Names of the steps that the results need, inputs first.
pub(crate) fn steps(plan: &BuildPlan) -> Vec<String> {
    let roots = plan.results.iter().filter_map(|result| result.root);
    let needed = plan.graph.reachable(roots.map(|root| root.vertex));
    needed.into_iter().map(|vertex| plan.graph.value(vertex).name.clone()).collect()
}

pub(crate) fn check_steps(text: &str, expect: &[&str]) {
    assert_eq!(steps(&plan(text)), expect, "{text}");
}

/// What the last step of the first result does.
pub(crate) fn last_op(plan: &BuildPlan) -> &Op {
    let root = plan.results[0].root.expect("the result has layers");
    &plan.graph.value(root.vertex).op
}

/// `NAME=value` of a step.
pub(crate) fn env(exec: &Exec) -> Vec<&str> {
    exec.env.iter().map(|entry| entry.as_ref()).collect()
}

/// The last step, a RUN.
pub(crate) fn last_exec(plan: &BuildPlan) -> &Exec {
    match last_op(plan) {
        Op::Exec(exec) => exec,
        other => panic!("{other:?} is no RUN"),
    }
}

/// The actions of the last step, a COPY, ADD or WORKDIR.
pub(crate) fn last_actions(plan: &BuildPlan) -> &[FileAction] {
    match last_op(plan) {
        Op::File(op) => &op.actions,
        other => panic!("{other:?} writes no files"),
    }
}

/// Build checks that fire, as `line Rule: message`.
pub(crate) fn check_warnings(text: &str, request: &CompileRequest, expect: &[&str]) {
    let warnings = match compile_with(text, request, image) {
        Ok(plan) => plan.warnings,
        Err(errors) => errors,
    };
    let source = SourceText { name: String::new(), text: text.into() };
    let shown: Vec<String> = warnings
        .into_iter()
        .map(|warning| {
            let line = warning.span.map_or(0, |span| source.lines(span).0);
            format!("{line} {}: {}", warning.rule.unwrap_or("error"), warning.message)
        })
        .collect();
    assert_eq!(shown, expect, "{text}");
}
