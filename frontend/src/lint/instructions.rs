//! Rules that instructions call while a stage is lowered.

use crate::ignore::Ignore;
use crate::instruction::CommandLine;
use crate::instruction::expose::PortSpec;
use crate::path;
use crate::span::Span;
use crate::stage::Lowering;
use crate::suggest::{Case, nearest};
use std::borrow::Cow;

fn fire(at: &Lowering<'_>, rule: &'static str, message: String) {
    at.lints.fire(rule, message, at.command.span, &at.command.comments);
}

/// `LegacyKeyValueFormat`: `ENV name value`.
pub fn legacy_key_value_format(at: &Lowering<'_>) {
    let keyword = &at.command.keyword;
    let message = format!("\"{keyword} key=value\" should be used instead of legacy \"{keyword} key value\" format");
    fire(at, "LegacyKeyValueFormat", message);
}

/// `SecretsUsedInArgOrEnv`: a name that sounds like a secret's.
pub fn secrets_used_in_arg_or_env(at: &Lowering<'_>, keyword: &str, name: &str) {
    const SECRET: &[&str] =
        &["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const HARMLESS: &[&str] = &["public", "file", "version"];
    // Beyond ASCII there are letters whose lower case is in ASCII.
    let lower = if name.is_ascii() { Cow::Borrowed(name) } else { Cow::Owned(name.to_lowercase()) };
    let is = |part: &str, words: &[&str]| words.iter().any(|word| part.eq_ignore_ascii_case(word));
    let has = |words: &[&str]| lower.split('_').any(|part| is(part, words));
    if has(SECRET) && !has(HARMLESS) {
        let message = format!("Do not use ARG or ENV instructions for sensitive data ({keyword} {name:?})");
        fire(at, "SecretsUsedInArgOrEnv", message);
    }
}

/// `JSONArgsRecommended`: a shell form of what gets the container's signals.
pub fn json_args_recommended(at: &Lowering<'_>, line: &CommandLine) {
    let keyword = &at.command.keyword;
    if matches!(line, CommandLine::Shell(_)) && at.stage.config.config.shell.is_empty() {
        let message =
            format!("JSON arguments recommended for {keyword} to prevent unintended behavior related to OS signals");
        fire(at, "JSONArgsRecommended", message);
    }
}

/// `MultipleInstructionsDisallowed`, reported at the earlier one, which has no effect.
pub fn multiple_instructions_disallowed(at: &Lowering<'_>, earlier: Option<Span>) {
    let keyword = &at.command.keyword;
    if let Some(span) = earlier {
        let message = format!(
            "Multiple {keyword} instructions should not be used in the same stage because only the last one will be used"
        );
        at.lints.fire("MultipleInstructionsDisallowed", message, span, &at.command.comments);
    }
}

/// `WorkdirRelativePath`: relative to what the base image happens to have.
pub fn workdir_relative_path(at: &Lowering<'_>, path: &str) {
    if !at.stage.workdir_is_set && !path.starts_with('/') {
        let message = format!("Relative workdir {path:?} can have unexpected results if the base image changes");
        fire(at, "WorkdirRelativePath", message);
    }
}

/// `ExposeProtoCasing` and `ExposeInvalidFormat`.
pub fn expose(at: &Lowering<'_>, word: &str, spec: &PortSpec) {
    if spec.protocol != spec.protocol.to_lowercase() {
        let message = format!("Defined protocol '{word}' in EXPOSE instruction should be lowercase");
        fire(at, "ExposeProtoCasing", message);
    }
    if spec.has_host_part {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{word}'");
        fire(at, "ExposeInvalidFormat", message);
    }
}

/// `UndefinedVar`: a variable that the stage does not know. A declared argument without a value is known.
pub fn undefined_var(at: &Lowering<'_>, name: &str) {
    const KNOWN: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];
    if KNOWN.contains(&name) || at.stage.args.get(name).is_some() {
        return;
    }
    let mut message = format!("Usage of undefined variable '${name}'");
    if let Some(known) = nearest(name, at.stage.env.names(), Case::Sensitive) {
        message.push_str(&format!(" (did you mean ${known}?)"));
    }
    fire(at, "UndefinedVar", message);
}

/// `CopyIgnoredFile`: a source that `.dockerignore` takes away.
pub fn copy_ignored_file(at: &Lowering<'_>, verb: &str, source: &str) {
    let Some(text) = &at.settings.request.ignore_file else { return };
    let Ok(ignore) = Ignore::parse(text) else { return };
    if ignore.is_empty() || ignore.has_exceptions() {
        return;
    }
    let shown = cleaned(source);
    let is_ignored = match shown.as_str() {
        "." | "/" => text.lines().any(|line| match line.trim() {
            "*" => shown == ".",
            "**" | "**/*" => true,
            _ => false,
        }),
        // As in BuildKit, whose patterns have no slash in front: only `**` matches such a path.
        absolute if absolute.starts_with('/') => {
            let anywhere: Vec<String> =
                text.lines().filter(|l| l.trim().starts_with("**")).map(str::to_owned).collect();
            Ignore::from_patterns(&anywhere).is_ok_and(|ignore| ignore.excluded(&absolute[1..]))
        }
        relative => ignore.excluded(relative),
    };
    if is_ignored {
        let message = format!("Attempting to {verb} file {shown:?} that is excluded by .dockerignore");
        fire(at, "CopyIgnoredFile", message);
    }
}

/// The path without `.`, `..` and doubled slashes, still relative if it was.
fn cleaned(source: &str) -> String {
    let absolute = path::clean(source);
    match source.starts_with('/') {
        true => absolute,
        false if absolute == "/" => ".".to_string(),
        false => absolute[1..].to_string(),
    }
}
