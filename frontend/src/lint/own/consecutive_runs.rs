//! `ConsecutiveRuns` (off unless asked for): a RUN right after another one.

use super::around::Around;
use crate::instruction::Instruction;

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = &at.run else { return };
    let before = at.position.checked_sub(1).map(|before| &at.checks.commands[before].instruction);
    let Some(Instruction::Run(earlier)) = before else { return };
    let is_alike = |other: &crate::instruction::run::Run| {
        other.mounts == run.run.mounts && other.network == run.run.network && other.security == run.run.security
    };
    if is_alike(earlier) {
        let message = "This RUN follows another one: both could be one layer, joined by `&&` or as a heredoc";
        at.fire("ConsecutiveRuns", message.to_string());
    }
}
