//! `ZypperMissingYes`: zypper asks, nobody answers, and the step fails.

use super::around::{Around, shown};
use super::packages::{Manager, call};
use crate::shell::Join;

pub(super) fn check(at: &Around<'_>) {
    for call in at.invocations().filter_map(call) {
        let asks = call.manager == Manager::Zypper && (call.installs() || ["remove", "rm"].contains(&call.subcommand));
        let is_answered = call.invocation.has_option(&["-n", "--non-interactive", "-y", "--no-confirm"])
            || call.invocation.command.join == Join::Pipe;
        if asks && !is_answered && !call.has_unknown_options() {
            let message = format!(
                "`{}` asks before it goes on, and nobody answers: add --non-interactive",
                shown(&call.invocation)
            );
            at.fire("ZypperMissingYes", message);
        }
    }
}
