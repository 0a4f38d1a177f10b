//! `CdInsteadOfWorkdir`: a RUN that is `cd X && …`, where WORKDIR says the same for good.
//!
//! A RUN that goes somewhere, does several things and is the only one to go there is left alone: WORKDIR would have to
//! be set back after it.

use super::around::{Around, Notes};
use crate::shell::{Join, Script};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = &at.run else { return };
    let Some(folder) = first_cd(&run.script) else { return };
    let commands = run.script.commands.iter().filter(|command| command.list == 0).count();
    if commands == 2 || at.stage.notes.first_cds.contains(&folder) {
        let message = format!("`cd {folder}` holds for this RUN only: WORKDIR {folder} holds for what follows, too");
        at.fire("CdInsteadOfWorkdir", message);
    }
}

/// Remembers where the RUN went.
pub(super) fn note(at: &Around<'_>, notes: &mut Notes) {
    notes.first_cds.extend(at.run.as_ref().and_then(|run| first_cd(&run.script)));
}

/// Where a RUN goes before all else, if it stays there.
fn first_cd(script: &Script) -> Option<String> {
    let mut commands = script.commands.iter().filter(|command| command.list == 0);
    let first = commands.next()?.invocation().filter(|first| first.program == "cd")?;
    let [folder] = first.args else { return None };
    let second = commands.next()?;
    let moves_on = std::iter::once(second).chain(commands).filter_map(|command| command.invocation());
    let mut moves_on = moves_on.filter(|next| ["cd", "pushd"].contains(&next.program));
    // Temporary folders are where nobody wants to stay.
    let is_passing = ["/tmp", "/var/tmp", "$", "~", "-", ".."].iter().any(|start| folder.text.starts_with(start));
    let goes_on = matches!(second.join, Join::And | Join::Sequence) && moves_on.next().is_none();
    (goes_on && !is_passing && !folder.is_dynamic).then(|| folder.text.clone())
}
