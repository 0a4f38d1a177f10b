//! Arguments that exist before any stage: the platforms', the global ARGs, the epoch (reference/dockerfile.md 3.5).

use super::typed::TypedFile;
use super::{CompileRequest, NamedContext};
use crate::diagnostic::Diagnostic;
use crate::env::Environment;
use crate::platform::Platform;
use crate::span::Span;
use crate::words::Lexer;

/// Predefined and global arguments, in the order in which they get their values.
pub(super) struct Globals {
    /// With the build arguments.
    pub env: Environment,
    /// As if no build arguments were given, for the check `InvalidDefaultArgInFrom`. `None`: they do not evaluate.
    pub defaults: Option<Environment>,
    /// Names of global ARGs, also of those without a value.
    pub declared: Vec<String>,
    /// `SOURCE_DATE_EPOCH`.
    pub epoch: Option<i64>,
}

pub(super) fn globals(
    file: &TypedFile,
    request: &CompileRequest,
    target: &Platform,
    lexer: Lexer,
) -> Result<Globals, Vec<Diagnostic>> {
    let predefined = predefined(file, request, target);
    let with_args = evaluate(file, predefined.clone(), lexer, |name| request.build_args.get(name).cloned());
    let mut env = with_args.map_err(|error| vec![error])?;
    let declared = file.globals.iter().flat_map(|(arg, _)| &arg.declarations).map(|arg| arg.name.clone()).collect();
    let epoch = epoch(file, request, &mut env).map_err(|error| vec![error])?;
    Ok(Globals { env, defaults: evaluate(file, predefined, lexer, |_| None).ok(), declared, epoch })
}

fn predefined(file: &TypedFile, request: &CompileRequest, target: &Platform) -> Environment {
    let build = &request.build_platform;
    let (build_text, target_text) = (build.to_string(), target.to_string());
    let last = file.stages.last().and_then(|stage| stage.from.name.as_deref());
    let stage = request.target.as_deref().filter(|target| !target.is_empty()).or(last).unwrap_or("default");
    let values: [(&str, &str); 11] = [
        ("BUILDPLATFORM", &build_text),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", &build.os_version),
        ("BUILDARCH", &build.architecture),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &target_text),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", &target.os_version),
        ("TARGETARCH", &target.architecture),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ];
    let mut env = Environment::default();
    for (name, value) in values {
        env.set(name, request.build_args.get(name).map_or(value, String::as_str));
    }
    env
}

fn evaluate(
    file: &TypedFile,
    mut env: Environment,
    lexer: Lexer,
    build_arg: impl Fn(&str) -> Option<String>,
) -> Result<Environment, Diagnostic> {
    for (arg, span) in &file.globals {
        for declaration in &arg.declarations {
            let value = match (build_arg(&declaration.name), &declaration.default) {
                (Some(value), _) => value,
                (None, Some(default)) => {
                    let expansion = lexer.expand(default, &env.lookup());
                    expansion.map_err(|error| Diagnostic::error(error.to_string(), *span))?.text
                }
                (None, None) => continue,
            };
            env.set(&declaration.name, &value);
        }
    }
    Ok(env)
}

/// The epoch as a number. Symbolic values name the context, a named context or a stage; a local directory has no
/// time of its own, so that they leave the epoch unset. The variable then holds what it came to.
fn epoch(file: &TypedFile, request: &CompileRequest, env: &mut Environment) -> Result<Option<i64>, Diagnostic> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let given = request.build_args.get(NAME).cloned();
    let value = given.clone().or_else(|| env.get(NAME).map(str::to_string)).unwrap_or_default();
    if let Ok(seconds) = value.parse::<i64>() {
        if given.is_some() {
            env.set(NAME, &value);
        }
        return Ok(Some(seconds));
    }
    let is_stage =
        file.stages.iter().any(|stage| stage.from.name.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(&value)));
    let context = request.contexts.get(&value);
    let has_time = is_stage || matches!(context, Some(NamedContext::Git(_) | NamedContext::Http(_)));
    let message = if has_time {
        format!("invalid SOURCE_DATE_EPOCH: {value}: kiln does not take the time from a stage or a remote context")
    } else if value.is_empty() || value == "context" || context.is_some() {
        env.remove(NAME);
        return Ok(None);
    } else {
        format!("invalid SOURCE_DATE_EPOCH: {value}")
    };
    let error = Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) };
    Err(error.help("give the seconds since 1970 as a number"))
}
