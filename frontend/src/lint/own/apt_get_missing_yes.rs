//! `AptGetMissingYes`: apt-get asks, nobody answers, and the step fails.

use super::around::{Around, shown};
use super::packages::{Manager, call};
use crate::shell::Join;

const ANSWERS: &[&str] =
    &["-y", "--yes", "--assume-yes", "-qq", "-q=2", "--force-yes", "--assume-no", "-s", "--simulate", "--dry-run"];

pub(super) fn check(at: &Around<'_>) {
    if at.has_setting("APT::Get::Assume-Yes") {
        return;
    }
    for call in at.invocations().filter_map(call) {
        let removes = ["remove", "purge", "autoremove"].contains(&call.subcommand);
        let asks = call.manager == Manager::Apt && (call.installs() || removes);
        // `yes | apt-get install`
        let is_answered = call.invocation.has_option(ANSWERS) || call.invocation.command.join == Join::Pipe;
        if asks && !is_answered && !call.has_unknown_options() {
            let message = format!("`{}` asks before it goes on, and nobody answers: add -y", shown(&call.invocation));
            at.fire("AptGetMissingYes", message);
        }
    }
}
