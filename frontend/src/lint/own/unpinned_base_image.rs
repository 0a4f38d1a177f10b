//! `UnpinnedBaseImage`: `latest` is another image tomorrow.

use super::around::{Base, StageChecks};
use crate::lint::Lints;
use crate::reference::Reference;

pub(super) fn check(lints: &Lints, checks: &StageChecks<'_>) {
    let Base::Image(name) = &checks.base else { return };
    let Ok(reference) = Reference::parse(name) else { return };
    let is_open = reference.tag.as_deref().is_none_or(|tag| tag == "latest") && reference.digest.is_none();
    if is_open {
        let repository = name.strip_suffix(":latest").unwrap_or(name);
        let message =
            format!("{name} may be another image at the next build: say which version, as in {repository}:1.2");
        lints.fire("UnpinnedBaseImage", message, checks.from.span, &checks.from.comments);
    }
}
