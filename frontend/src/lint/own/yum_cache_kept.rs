//! `YumCacheKept`: metadata and packages that yum or dnf fetched stay in the layer.

use super::around::{Around, shown};
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = at.run.as_ref().filter(|_| at.checks.is_shipped) else { return };
    let caches = ["/var/cache/yum", "/var/cache/dnf", "/var/cache/libdnf5"];
    if at.is_mounted(&caches) || run.text.contains("/var/cache") {
        return;
    }
    let calls: Vec<_> = at.invocations().filter_map(call).filter(|call| call.manager == Manager::Yum).collect();
    let cleans = calls.iter().any(|call| call.subcommand == "clean");
    if let Some(call) = calls.iter().find(|call| call.installs())
        && !cleans
    {
        let program = call.invocation.program;
        let message = format!(
            "`{}` leaves its cache in the image: end this RUN with `{program} clean all`, or mount a cache on \
             /var/cache/{program}",
            shown(&call.invocation)
        );
        at.fire("YumCacheKept", message);
    }
}
