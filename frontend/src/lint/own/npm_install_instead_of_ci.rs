//! `NpmInstallInsteadOfCi`: `npm install` may change what the lock file says, `npm ci` installs exactly that.

use super::around::{Around, Notes};
use super::packages::{Manager, call};
use crate::instruction::Instruction;
use crate::placed::Placed;

pub(super) fn check(at: &Around<'_>) {
    if !at.stage.notes.has_npm_lock {
        return;
    }
    for call in at.invocations().filter_map(call) {
        let is_install = call.manager == Manager::Npm && ["install", "i"].contains(&call.subcommand);
        let is_global = call.invocation.has_option(&["-g", "--global", "--package-lock-only"]);
        if is_install && call.operands.is_empty() && !is_global {
            let message = "`npm install` may change what package-lock.json says: `npm ci` installs exactly that";
            at.fire("NpmInstallInsteadOfCi", message.to_string());
        }
    }
}

/// Remembers that the lock file was copied by name.
pub(super) fn note(at: &Around<'_>, notes: &mut Notes) {
    let Instruction::Copy(copy) = &at.command.instruction else { return };
    const NAMES: &[&str] = &["package-lock.json", "package*.json", "npm-shrinkwrap.json"];
    let is_lock = |source: &Placed| NAMES.contains(&source.rsplit('/').next().unwrap_or_default());
    notes.has_npm_lock |= copy.files.sources.iter().any(is_lock);
}
