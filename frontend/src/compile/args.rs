//! Arguments that exist before any stage: the platforms', the global ARGs, the epoch (reference/dockerfile.md 3.5).

use super::epoch::{self, Epoch};
use super::stages::StageGraph;
use super::typed::{GlobalArg, TypedFile};
use super::{CompileRequest, UnusedArg};
use crate::diagnostic::Diagnostic;
use crate::env::Environment;
use crate::instruction::Instruction;
use crate::outline::{Argument, description};
use crate::platform::Platform;
use crate::stage::Lost;
use crate::suggest::{Case, nearest};
use crate::words::Lexer;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

/// Predefined and global arguments, in the order in which they get their values.
pub(super) struct Globals {
    /// With the build arguments.
    pub env: Environment,
    /// As if no build arguments were given, for the check `InvalidDefaultArgInFrom`. `None`: they do not evaluate.
    pub defaults: Option<Environment>,
    /// Names of global ARGs, also of those without a value.
    pub declared: Vec<String>,
    /// Global ARGs by name, the last of each name, for the outline.
    pub described: BTreeMap<String, Described>,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Epoch,
    /// Those that have failed.
    pub lost: Lost,
}

/// A global ARG, and the arguments that its default is made of.
pub(super) struct Described {
    pub argument: Argument,
    pub made_of: BTreeSet<String>,
}

pub(super) fn globals(
    file: &TypedFile,
    request: &CompileRequest,
    target: &Platform,
    lexer: Lexer,
) -> (Globals, Vec<Diagnostic>) {
    let predefined = predefined(file, request, target);
    let build_arg = |name: &str| request.build_args.get(name).cloned();
    let mut lost = file.lost.clone();
    let (mut env, described, mut errors) = evaluate(file, predefined.clone(), lexer, &mut lost, build_arg);
    let arguments = file.globals.iter().flat_map(|global| &global.arg.declarations);
    let declared = arguments.map(|arg| arg.name.to_string()).collect();
    let epoch = epoch::resolve(file, request, &mut env, lexer).unwrap_or_else(|error| {
        errors.push(error);
        Epoch::Known(None)
    });
    let (defaults, _, faults) = evaluate(file, predefined, lexer, &mut Lost::Nothing, |_| None);
    let defaults = Some(defaults).filter(|_| faults.is_empty());
    (Globals { env, defaults, declared, described, epoch, lost }, errors)
}

/// Build arguments that neither the file nor a trigger declares, and that have no meaning of their own.
pub(super) fn unused(request: &CompileRequest, file: &TypedFile, stages: &StageGraph) -> Vec<UnusedArg> {
    const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    if request.build_args.is_empty() {
        return vec![];
    }
    let in_stages = stages.stages.iter().flat_map(|stage| &stage.commands).filter_map(|planned| {
        match &planned.command.instruction {
            Instruction::Arg(arg) => Some(arg),
            _ => None,
        }
    });
    let args = file.globals.iter().map(|global| &global.arg).chain(in_stages);
    let declared: BTreeSet<&str> = args.flat_map(|arg| &arg.declarations).map(|arg| arg.name.as_str()).collect();
    let has_meaning = |name: &str| {
        name.starts_with("BUILDKIT_")
            || name == "SOURCE_DATE_EPOCH"
            || PREDEFINED.contains(&name)
            || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy))
    };
    let unused = request.build_args.keys().filter(|name| !declared.contains(name.as_str()) && !has_meaning(name));
    unused
        .map(|name| UnusedArg { name: name.clone(), near: nearest(name, declared.iter(), Case::Insensitive) })
        .collect()
}

/// Arguments about platforms and stages.
const PREDEFINED: &[&str] = &[
    "BUILDPLATFORM",
    "BUILDOS",
    "BUILDOSVERSION",
    "BUILDARCH",
    "BUILDVARIANT",
    "TARGETPLATFORM",
    "TARGETOS",
    "TARGETOSVERSION",
    "TARGETARCH",
    "TARGETVARIANT",
    "TARGETSTAGE",
];

fn predefined(file: &TypedFile, request: &CompileRequest, target: &Platform) -> Environment {
    let build = &request.build_platform;
    let (build_text, target_text) = (build.to_string(), target.to_string());
    let last = file.stages.last().and_then(|stage| stage.from.name.as_deref());
    let stage = request.target.as_deref().filter(|target| !target.is_empty()).or(last).unwrap_or("default");
    let values: [&str; 11] = [
        &build_text,
        &build.os,
        &build.os_version,
        &build.architecture,
        &build.variant,
        &target_text,
        &target.os,
        &target.os_version,
        &target.architecture,
        &target.variant,
        stage,
    ];
    let mut env = Environment::default();
    for (name, value) in PREDEFINED.iter().zip(values) {
        env.set(name, request.build_args.get(*name).map_or(value, String::as_str));
    }
    env
}

fn evaluate(
    file: &TypedFile,
    mut env: Environment,
    lexer: Lexer,
    lost: &mut Lost,
    build_arg: impl Fn(&str) -> Option<String>,
) -> (Environment, BTreeMap<String, Described>, Vec<Diagnostic>) {
    let mut described: BTreeMap<String, Described> = BTreeMap::new();
    let mut errors = vec![];
    for GlobalArg { arg, span, comments } in &file.globals {
        for declaration in &arg.declarations {
            let name = &declaration.name;
            let used = RefCell::new(BTreeSet::new());
            let lookup = |name: &str| {
                let value = env.get(name).map(str::to_string);
                if value.is_some() {
                    used.borrow_mut().insert(name.to_string());
                }
                value
            };
            let value = match (build_arg(name), &declaration.default) {
                (Some(value), _) => Some(value),
                (None, Some(default)) => match lexer.expand(default, &lookup) {
                    Ok(expansion) => Some(expansion.text.into_owned()),
                    Err(error) => {
                        if !lost.explains(&error) {
                            errors.push(Diagnostic::error(error.to_string(), *span).word(&error, default));
                        }
                        lost.extend([name.to_string()]);
                        continue;
                    }
                },
                (None, None) => None,
            };
            let mut made_of = used.into_inner();
            // `ARG A=$A-x` is made of what the earlier one was made of.
            if made_of.remove(name.as_str())
                && let Some(earlier) = described.remove(name.as_str())
            {
                made_of.extend(earlier.made_of);
            }
            if let Some(value) = &value {
                env.set(name, value);
            }
            let argument = Argument {
                name: name.to_string(),
                description: description(comments, name),
                value: value.unwrap_or_default(),
                span: *span,
            };
            described.insert(name.to_string(), Described { argument, made_of });
        }
    }
    (env, described, errors)
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn unused_build_args() {
        let check = |text: &str, args: &[(&str, &str)], expect: &[(&str, Option<&str>)]| {
            let unused = plan_with(text, &with_args(args)).unused_args;
            let found: Vec<_> = unused.iter().map(|arg| (arg.name.as_str(), arg.near.as_deref())).collect();
            assert_eq!(found, expect, "{text}");
        };
        let all = [("A", "1"), ("VERSIN", "2"), ("other", "3")];
        check("ARG A\nFROM scratch\nARG VERSION", &all, &[("VERSIN", Some("VERSION")), ("other", None)]);
        check("FROM scratch AS unused\nARG A VERSIN\nFROM scratch\nARG other", &all, &[]);
        let known =
            [("http_proxy", "x"), ("BUILDKIT_INLINE_CACHE", "1"), ("TARGETARCH", "x"), ("SOURCE_DATE_EPOCH", "1")];
        check("FROM scratch", &known, &[]);
        check("FROM scratch AS a\nONBUILD ARG A\nFROM a", &[("A", "1")], &[]);
    }
}
