//! `GlobalArgInRun`: an ARG before the first FROM is known to FROM lines only; a stage has to declare it anew.

use super::around::Around;
use crate::shell::Script;

/// Every RUN has them, without an ARG.
const PROXIES: &[&str] = &["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = &at.run else { return };
    for variable in run.script.variables() {
        let name = &variable.name;
        let is_known = at.stage.env.get(name).is_some()
            || at.stage.args.get(name).is_some()
            || PROXIES.iter().any(|proxy| name.eq_ignore_ascii_case(proxy));
        if variable.is_guarded || is_known || !at.checks.globals.contains(name) || sets(&run.script, name) {
            continue;
        }
        let message = format!(
            "${name} is empty here: ARG {name} stands before the first FROM; write ARG {name} in this stage, too"
        );
        at.fire("GlobalArgInRun", message);
    }
}

/// Whether the script itself gives a variable its value.
fn sets(script: &Script, name: &str) -> bool {
    let is_set_by = |text: &str| text.split(['=', '+']).next() == Some(name);
    script.commands.iter().any(|command| {
        let assigned = command.assignments.iter().any(|(assigned, _)| assigned == name);
        let first = command.words.first().map(|word| word.text.as_str()).unwrap_or_default();
        let declares = ["export", "local", "declare", "readonly", "typeset", "read", "for", "printf", "mapfile"];
        assigned || declares.contains(&first) && command.words[1..].iter().any(|word| is_set_by(&word.text))
    })
}
