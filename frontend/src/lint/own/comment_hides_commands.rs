//! `CommentHidesCommands`: a continued instruction is one line to the shell, so that a comment in the middle of it hides
//! all that follows. (Lines that begin with `#` are taken out by the builder and hide nothing.)

use super::around::Around;
use crate::shell::Script;

pub(super) fn check(at: &Around<'_>) {
    let Some(text) = at.shell_text() else { return };
    if at.command.is_trigger || !at.has_posix_shell() || !text.contains('#') {
        return;
    }
    let read;
    let script = match &at.run {
        Some(run) => &run.script,
        None => {
            read = Script::parse(text);
            &read
        }
    };
    let (start, end) = (at.command.span.start as usize, at.command.span.end as usize);
    let written = at.checks.source.text.get(start..end).unwrap_or_default();
    // Only the first comment counts: it takes the rest of the line with it.
    let Some(comment) = script.comments.first() else { return };
    let escape = at.settings.lexer.escape;
    for line in written.lines() {
        let Some(line) = line.trim_end().strip_suffix(escape) else { continue };
        if line.trim_start().starts_with('#') {
            continue;
        }
        let begins_here = line.match_indices('#').map(|(index, _)| line[index..].trim_end());
        let mut begins_here = begins_here.filter(|part| comment.starts_with(part) && comment.trim_end() != *part);
        if let Some(part) = begins_here.next() {
            let message = format!(
                "The comment `{part}` hides the rest of the instruction from the shell, for continued lines are one line: \
                 put it on a line of its own"
            );
            at.fire("CommentHidesCommands", message);
            return;
        }
    }
}
