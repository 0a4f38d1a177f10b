//! `AptInstallRecommends`: recommended packages often are most of what is installed.

use super::around::{Around, shown};
use super::packages::{Manager, call};

pub(super) fn check(at: &Around<'_>) {
    if !at.checks.is_shipped || at.has_setting("APT::Install-Recommends") {
        return;
    }
    for call in at.invocations().filter_map(call) {
        let is_install = call.manager == Manager::Apt && call.subcommand == "install";
        // Files of packages are installed for their own sake.
        let names_packages = call.operands.iter().any(|name| !name.ends_with(".deb"));
        let says = call.invocation.has_option(&["--no-install-recommends", "--install-recommends"]);
        if is_install && names_packages && !says && !call.has_unknown_options() {
            let message = format!(
                "`{}` also installs what is merely recommended: add --no-install-recommends",
                shown(&call.invocation)
            );
            at.fire("AptInstallRecommends", message);
        }
    }
}
