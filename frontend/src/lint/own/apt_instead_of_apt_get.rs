//! `AptInsteadOfAptGet`: apt itself warns that its command line is not stable.

use super::around::{Around, shown};
use super::packages::{Call, call};

pub(super) fn check(at: &Around<'_>) {
    let is_apt = |call: &Call<'_>| call.invocation.program == "apt" && !call.subcommand.is_empty();
    // One remark is enough for a RUN.
    if let Some(call) = at.invocations().filter_map(call).find(is_apt) {
        let message = format!(
            "`{}`: apt is made for people and may change; scripts use apt-get (or apt-cache)",
            shown(&call.invocation)
        );
        at.fire("AptInsteadOfAptGet", message);
    }
}
