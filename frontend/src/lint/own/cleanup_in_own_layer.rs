//! `CleanupInOwnLayer`: what an earlier layer holds is still in the image after a later one has removed it.

use super::around::Around;
use super::packages::{Manager, call};
use crate::shell::{Command, Invocation};

/// Where RUNs leave what nobody wants.
const LEFT_BEHIND: &[&str] =
    &["/var/lib/apt", "/var/cache/", "/tmp/", "/var/tmp/", "/root/.cache", "~/.cache", "$HOME/.cache", "/root/.npm"];

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = at.run.as_ref().filter(|_| at.checks.is_shipped && at.stage.notes.has_run) else { return };
    let commands = &run.script.commands;
    if !commands.is_empty() && run.mounted.is_empty() && commands.iter().all(only_cleans) {
        let message = "What this RUN removes is still in the layers below it: remove it in the RUN that made it";
        at.fire("CleanupInOwnLayer", message.to_string());
    }
}

fn only_cleans(command: &Command) -> bool {
    let Some(invocation) = command.invocation() else { return false };
    removes_leftovers(&invocation)
        || call(invocation).is_some_and(|call| match call.manager {
            Manager::Apt => ["clean", "autoclean", "autoremove", "distclean"].contains(&call.subcommand),
            Manager::Yum => call.subcommand == "clean",
            Manager::Pip | Manager::Npm | Manager::Apk => call.subcommand == "cache",
            Manager::Zypper => call.subcommand == "clean" || call.subcommand == "cc",
        })
}

fn removes_leftovers(invocation: &Invocation<'_>) -> bool {
    let mut operands = invocation.operands().peekable();
    let is_left = |path: &str| LEFT_BEHIND.iter().any(|start| path.starts_with(start));
    invocation.program == "rm" && operands.peek().is_some() && operands.all(is_left)
}
