//! `CopyBeforeDependencies`: the whole context is copied first, so that any change to it installs everything anew.

use super::around::{Around, Notes, shown};
use super::packages::{Manager, call};
use crate::instruction::Instruction;
use crate::instruction::files::Files;
use crate::shell::Invocation;

pub(super) fn check(at: &Around<'_>) {
    let Some((span, comments)) = &at.stage.notes.context_copy else { return };
    if at.stage.notes.has_dependencies {
        return;
    }
    if let Some(install) = at.invocations().find(installs_dependencies) {
        let line = at.checks.source.lines(at.command.span).0;
        let message = format!(
            "Every change to the context runs `{}` (line {line}) again: copy what that needs, install, then copy the rest",
            shown(&install)
        );
        at.lints.fire("CopyBeforeDependencies", message, *span, comments);
    }
}

/// Remembers the COPY, and that dependencies are there.
pub(super) fn note(at: &Around<'_>, notes: &mut Notes) {
    let copies_all = |files: &Files| files.sources.iter().any(|source| [".", "./", "/"].contains(&source.as_str()));
    let copied = match &at.command.instruction {
        Instruction::Copy(copy) => copy.from.is_none() && copies_all(&copy.files),
        Instruction::Add(add) => copies_all(&add.files),
        _ => false,
    };
    if copied && notes.context_copy.is_none() && !at.command.is_trigger {
        notes.context_copy = Some((at.command.span, at.command.comments.clone()));
    }
    notes.has_dependencies |= at.invocations().any(|invocation| installs_dependencies(&invocation));
}

/// Whether what is installed does not depend on the sources: packages of the system, or what a list in the context
/// names.
fn installs_dependencies(invocation: &Invocation<'_>) -> bool {
    let first = invocation.operands().next().unwrap_or_default();
    let second = invocation.operands().nth(1).unwrap_or_default();
    match (invocation.program, first) {
        ("yarn", "" | "install") | ("pnpm", "install" | "i" | "fetch") | ("bundle" | "composer", "install") => true,
        ("go", "mod") => second == "download",
        ("cargo", "fetch") | ("dotnet", "restore") | ("poetry", "install") | ("pipenv", "install" | "sync") => true,
        ("uv", "sync") => true,
        _ => call(invocation.clone()).is_some_and(|call| match call.manager {
            Manager::Apt | Manager::Apk | Manager::Yum | Manager::Zypper => {
                call.installs() && call.operands.iter().all(|name| !name.starts_with(['.', '/']))
            }
            Manager::Npm => call.installs() && call.operands.is_empty(),
            // `pip install .` needs the sources.
            Manager::Pip => {
                let reads_list = call.invocation.has_option(&["-r", "--requirement"]);
                call.installs() && call.operands.is_empty() && reads_list
            }
        }),
    }
}
