//! `LastUserRoot`: the stage ends with a USER that is root, so that the container runs as root although the file knows
//! another user.

use super::around::{Around, Notes, StageChecks};
use crate::instruction::Instruction;
use crate::lint::Lints;
use crate::stage::OpenStage;

pub(super) fn check(lints: &Lints, checks: &StageChecks<'_>, stage: &OpenStage) {
    let Some((user, span, comments)) = &stage.notes.user else { return };
    let is_root = ["root", "0"].contains(&user.split(':').next().unwrap_or_default());
    if is_root && checks.is_shipped && !checks.is_built_on {
        let message =
            format!("The last USER is {user}: switch to a user without privileges after the steps that need root");
        lints.fire("LastUserRoot", message, *span, comments);
    }
}

/// Remembers the USER.
pub(super) fn note(at: &Around<'_>, notes: &mut Notes) {
    if let Instruction::User(user) = &at.command.instruction {
        notes.user = Some((user.user.to_string(), at.command.span, at.command.comments.clone()));
    }
}
