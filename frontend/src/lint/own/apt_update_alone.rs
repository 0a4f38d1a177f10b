//! `AptUpdateAlone`: the update is cached, and what a later RUN installs comes from old lists.

use super::around::Around;
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = &at.run else { return };
    let mut updates = false;
    // Anything else in the RUN may be what needs the lists.
    for command in &run.script.commands {
        let Some(call) = command.invocation().and_then(call) else { return };
        if call.manager != Manager::Apt || !["update", "clean", "autoclean"].contains(&call.subcommand) {
            return;
        }
        updates |= call.subcommand == "update";
    }
    if updates {
        let message = "apt-get update alone is cached, so that later RUNs install from old lists: \
                       write `apt-get update && apt-get install …` in one RUN";
        at.fire("AptUpdateAlone", message.to_string());
    }
}
