//! `YumMissingYes`: yum and dnf ask, nobody answers, and the step fails.

use super::around::{Around, shown};
use super::packages::{Manager, call};
use crate::shell::Join;

pub(super) fn check(at: &Around<'_>) {
    if at.has_setting("assumeyes") {
        return;
    }
    for call in at.invocations().filter_map(call) {
        let removes = ["remove", "erase", "autoremove", "downgrade", "swap", "distro-sync"].contains(&call.subcommand);
        let asks = call.manager == Manager::Yum && (call.installs() || removes);
        let is_answered = call.invocation.has_option(&["-y", "--assumeyes", "--assumeno"])
            || call.invocation.command.join == Join::Pipe;
        if asks && !is_answered && !call.has_unknown_options() {
            let message = format!("`{}` asks before it goes on, and nobody answers: add -y", shown(&call.invocation));
            at.fire("YumMissingYes", message);
        }
    }
}
