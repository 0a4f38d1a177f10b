//! `SOURCE_DATE_EPOCH` (reference/dockerfile.md 5.6): a number, or the name of the source whose time it is.

use super::context::http;
use super::typed::{TypedFile, TypedStage};
use super::{CompileRequest, NamedContext, TimeRequest};
use crate::diagnostic::Diagnostic;
use crate::env::Environment;
use crate::instruction::Instruction;
use crate::op::Source;
use crate::span::Span;
use crate::words::Lexer;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// What the epoch comes to.
pub(super) enum Epoch {
    /// Seconds since 1970; `None` is unset.
    Known(Option<i64>),
    /// That of a source, which is not among the answers yet.
    Needs(Box<TimeRequest>),
}

/// Reads the epoch out of the build arguments and the global arguments `env`, whose variable then holds what it came
/// to. Symbolic values are, in this order, `context`, a named context, a stage.
pub(super) fn resolve(
    file: &TypedFile,
    request: &CompileRequest,
    env: &mut Environment,
    lexer: Lexer,
) -> Result<Epoch, Diagnostic> {
    let given = request.build_args.get(NAME).cloned();
    let value = given.clone().or_else(|| env.get(NAME).map(str::to_string)).unwrap_or_default();
    if let Ok(seconds) = value.parse::<i64>() {
        if given.is_some() {
            env.set(NAME, &value);
        }
        return Ok(Epoch::Known(Some(seconds)));
    }
    env.remove(NAME);
    let needed = match value.as_str() {
        "" => None,
        "context" => request.context.source().map(|source| {
            let name = "[internal] resolve main build context metadata".to_string();
            TimeRequest { source, name }
        }),
        name => named(file, request, env, lexer, name)?,
    };
    let Some(needed) = needed else { return Ok(Epoch::Known(None)) };
    let Some((_, time)) = request.source_times.iter().find(|(source, _)| *source == needed.source) else {
        return Ok(Epoch::Needs(Box::new(needed)));
    };
    if let Some(seconds) = time {
        env.set(NAME, &seconds.to_string());
    }
    Ok(Epoch::Known(*time))
}

/// A named context, or a stage. Contexts that are images or directories of the client have no time.
fn named(
    file: &TypedFile,
    request: &CompileRequest,
    globals: &Environment,
    lexer: Lexer,
    name: &str,
) -> Result<Option<TimeRequest>, Diagnostic> {
    if let Some(context) = request.contexts.get(name) {
        let source = match context {
            NamedContext::Git { source, .. } => Source::Git(source.clone()),
            NamedContext::Http(url) => http(url),
            NamedContext::Local | NamedContext::Image(_) | NamedContext::OciLayout => return Ok(None),
        };
        let name = format!("[internal] resolve SOURCE_DATE_EPOCH named context {name}");
        return Ok(Some(TimeRequest { source, name }));
    }
    let is_named = |stage: &&TypedStage| stage.from.name.as_ref().is_some_and(|own| own.eq_ignore_ascii_case(name));
    let Some(stage) = file.stages.iter().find(is_named) else {
        let message = format!("invalid SOURCE_DATE_EPOCH: {name}");
        let error = Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) };
        return Err(error.help("give the seconds since 1970, `context`, or the name of a context or stage"));
    };
    let source = only_source(stage, request, globals, lexer)?;
    let name = format!("[internal] resolve SOURCE_DATE_EPOCH source stage {name}");
    Ok(Some(TimeRequest { source, name }))
}

/// What a stage fetches that is `FROM scratch` and one remote ADD; only such a stage has a time.
fn only_source(
    stage: &TypedStage,
    request: &CompileRequest,
    globals: &Environment,
    lexer: Lexer,
) -> Result<Source, Diagnostic> {
    let from = stage.from.span;
    let expand = |word: &str, env: &Environment, at: Span| match lexer.expand(word, &env.lookup()) {
        Ok(expansion) => Ok(expansion.text.into_owned()),
        Err(error) => Err(Diagnostic::error(error.to_string(), at)),
    };
    if expand(&stage.from.image, globals, from)? != "scratch" {
        return Err(Diagnostic::error("SOURCE_DATE_EPOCH stage must use FROM scratch", from));
    }
    let mut env = globals.clone();
    let mut found = None;
    for command in &stage.commands {
        match &command.instruction {
            Instruction::Arg(arg) => {
                for declaration in &arg.declarations {
                    let value = match (request.build_args.get(declaration.name.as_str()), &declaration.default) {
                        (Some(value), _) => value.clone(),
                        (None, Some(default)) => expand(default, &env, command.span)?,
                        (None, None) => continue,
                    };
                    env.set(&declaration.name, &value);
                }
            }
            Instruction::Add(add) if found.is_none() => {
                let [source] = add.files.sources.as_slice() else { return Err(not_one(command.span)) };
                if !add.files.documents.is_empty() {
                    return Err(not_one(command.span));
                }
                let source = expand(source, &env, command.span)?;
                let checksum = Some(expand(&add.checksum, &env, command.span)?).filter(|text| !text.is_empty());
                let remote = add.remote(&source, checksum.as_deref());
                let remote = remote.map_err(|message| Diagnostic::error(message, command.span))?;
                found = Some(remote.ok_or_else(|| not_one(command.span))?);
            }
            Instruction::Add(_) => return Err(not_one(command.span)),
            _ => {
                let message = "SOURCE_DATE_EPOCH stage does not meet source-only requirements";
                let error = Diagnostic::error(message, command.span);
                return Err(error.help("besides one remote ADD the stage may have only ARG"));
            }
        }
    }
    found.ok_or_else(|| not_one(from))
}

fn not_one(span: Span) -> Diagnostic {
    Diagnostic::error("SOURCE_DATE_EPOCH stage must contain exactly one remote ADD", span)
        .help("its source is to be one HTTP(S) URL or git repository")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::{Compiled, HttpBody, Images, MainContext, compile};
    use crate::git_url::GitUrl;
    use crate::testing::{errors_with, with_args};

    fn request(epoch: &str) -> CompileRequest {
        let mut request = with_args(&[("SOURCE_DATE_EPOCH", epoch), ("V", "2")]);
        let url = GitUrl::parse("git://h/ctx").unwrap().unwrap();
        request.context = MainContext::Http { url: "http://h/main".into(), body: HttpBody::Archive };
        request.contexts.insert("repo".into(), NamedContext::Git { source: url.source(), shown: "git://h/ctx".into() });
        request.contexts.insert("dir".into(), NamedContext::Local);
        request
    }

    const TEXT: &str = "FROM scratch AS Src\nARG V\nADD http://h/$V.tar /\nFROM scratch AS bad\nRUN x\n\
                        FROM scratch AS two\nADD http://h/a http://h/b /\nFROM busybox AS based\n\
                        FROM scratch\nCOPY --from=src / /\n";

    #[test]
    fn symbolic_values_name_sources() {
        let check = |epoch: &str, expect: &str| {
            let request = request(epoch);
            let parsed = crate::parse::parse(crate::span::SourceText { name: "D".into(), text: TEXT.into() });
            let Ok(Compiled::NeedsTime(needed)) = compile(&parsed.dockerfile, &request, &Images::new()) else {
                panic!("{epoch} is not asked for");
            };
            let url = match &needed.source {
                Source::Git(git) => &git.remote,
                Source::Http { url, .. } => url,
                other => panic!("{other:?}"),
            };
            assert_eq!(url, expect, "{epoch}: {}", needed.name);
            for time in [Some(5), None] {
                let source_times = vec![(needed.source.clone(), time)];
                let request = CompileRequest { source_times, ..request.clone() };
                let Ok(Compiled::Plan(plan)) = compile(&parsed.dockerfile, &request, &Images::new()) else {
                    panic!("{epoch}: no plan")
                };
                assert_eq!(plan.epoch, time, "{epoch}");
            }
        };
        check("context", "http://h/main");
        check("repo", "git://h/ctx");
        check("src", "http://h/2.tar");
    }

    #[test]
    fn what_has_no_time() {
        let check = |epoch: &str, expect: &str| {
            assert_eq!(errors_with(TEXT, &request(epoch)).first().map(String::as_str), Some(expect), "{epoch}");
        };
        check("bad", "SOURCE_DATE_EPOCH stage does not meet source-only requirements");
        check("two", "SOURCE_DATE_EPOCH stage must contain exactly one remote ADD");
        check("based", "SOURCE_DATE_EPOCH stage must use FROM scratch");
        check("nowhere", "invalid SOURCE_DATE_EPOCH: nowhere");
        assert!(errors_with(TEXT, &request("dir")).is_empty());
    }
}
