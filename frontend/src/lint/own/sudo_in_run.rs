//! `SudoInRun`: steps run as the user that USER says; sudo adds a program, a signal handler and a surprise.

use super::around::Around;

pub(super) fn check(at: &Around<'_>) {
    if at.invocations().any(|invocation| invocation.program == "sudo" || invocation.wrappers.contains(&"sudo")) {
        let message = "sudo is not needed: RUN runs as the user that USER says, root if none does";
        at.fire("SudoInRun", message.to_string());
    }
}
