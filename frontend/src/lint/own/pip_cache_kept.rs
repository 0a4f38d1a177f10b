//! `PipCacheKept`: what pip has fetched stays in the layer, beside what it has installed.

use super::around::{Around, shown};
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = at.run.as_ref().filter(|_| at.checks.is_shipped) else { return };
    // A cache anywhere below a folder of that name, or a cache of a place that a variable names.
    let in_mount = |target: &String| {
        target.ends_with("/.cache")
            || target.contains("pip")
            || ["PIP_CACHE_DIR", "XDG_CACHE_HOME"].iter().any(|name| at.stage.env.get(name) == Some(target))
    };
    let is_off = ["PIP_NO_CACHE_DIR", "no-cache-dir"].iter().any(|setting| at.has_setting(setting));
    let removes = run.text.contains(".cache") || run.text.contains("cache purge");
    if at.stage.env.get("PIP_NO_CACHE_DIR").is_some() || is_off || removes || run.mounted.iter().any(in_mount) {
        return;
    }
    for call in at.invocations().filter_map(call) {
        // pip takes any beginning of an option's name that has no other end.
        let says = call.invocation.has_option(&["--no-cache-dir", "--no-cache", "--cache-dir"])
            || call.invocation.assignments.iter().any(|(name, _)| *name == "PIP_NO_CACHE_DIR");
        if call.manager == Manager::Pip && call.installs() && !says && !call.has_unknown_options() {
            let message = format!(
                "`{}` leaves pip's cache in the image: add --no-cache-dir, or mount a cache on /root/.cache/pip",
                shown(&call.invocation)
            );
            at.fire("PipCacheKept", message);
        }
    }
}
