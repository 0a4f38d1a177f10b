//! `ApkCacheKept`: the index that `apk add` fetches stays in the layer.

use super::around::{Around, shown};
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = at.run.as_ref().filter(|_| at.checks.is_shipped) else { return };
    if at.is_mounted(&["/var/cache/apk", "/etc/apk/cache"]) || run.text.contains("/var/cache/apk") {
        return;
    }
    for call in at.invocations().filter_map(call) {
        let keeps = call.manager == Manager::Apk && call.installs() && !call.invocation.has_option(&["--no-cache"]);
        if keeps && !call.has_unknown_options() {
            let message = format!("`{}` leaves apk's index in the image: add --no-cache", shown(&call.invocation));
            at.fire("ApkCacheKept", message);
        }
    }
}
