//! `AptVersionUnpinned` (off unless asked for): a package without `=version`.

use super::around::Around;
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    for call in at.invocations().filter_map(call) {
        if call.manager != Manager::Apt || call.subcommand != "install" || call.has_unknown_options() {
            continue;
        }
        let is_open = |name: &&&str| !name.contains(['=', '$', '*']) && !name.ends_with(".deb");
        let open: Vec<&str> = call.operands.iter().filter(is_open).copied().collect();
        if !open.is_empty() {
            let message = format!("Packages without a version: {}; write `name=version`", open.join(", "));
            at.fire("AptVersionUnpinned", message);
        }
    }
}
