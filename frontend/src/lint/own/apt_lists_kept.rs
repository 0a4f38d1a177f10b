//! `AptListsKept`: the lists that `apt-get update` fetches stay in the layer.

use super::around::Around;
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = at.run.as_ref().filter(|_| at.checks.is_shipped) else { return };
    let (mut updates, mut installs, mut cleans) = (false, false, run.text.contains("/var/lib/apt"));
    for call in at.invocations().filter_map(call).filter(|call| call.manager == Manager::Apt) {
        updates |= call.subcommand == "update";
        installs |= call.installs();
        cleans |= call.subcommand == "distclean";
    }
    // An update alone has its own rule.
    if updates && installs && !cleans && !at.is_mounted(&["/var/lib/apt/lists"]) {
        let message = "apt-get update leaves package lists in the image: end this RUN with \
                       `rm -rf /var/lib/apt/lists/*`, or mount a cache on /var/lib/apt";
        at.fire("AptListsKept", message.to_string());
    }
}
