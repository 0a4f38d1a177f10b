//! `RunStateLost`: each RUN is a new shell, so that what the last command does to its shell is done to nothing.

use super::around::Around;
use crate::shell::{Invocation, Join};

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = &at.run else { return };
    let Some(last) = run.script.last().filter(|last| last.join != Join::Or && last.join != Join::Pipe) else { return };
    let lost = match last.invocation() {
        Some(invocation) if invocation.wrappers.is_empty() => lost(&invocation),
        Some(_) => None,
        // Only assignments. Where they run something, that may be what is wanted.
        None => last
            .assignments
            .first()
            .filter(|(_, value)| !value.is_dynamic)
            .map(|(name, _)| (format!("{name}=…"), "set it with ENV or ARG")),
    };
    if let Some((command, instead)) = lost {
        let message = format!("`{command}` has no effect after this RUN, for the next one is a new shell: {instead}");
        at.fire("RunStateLost", message);
    }
}

/// What is lost, and what to do instead.
fn lost(invocation: &Invocation<'_>) -> Option<(String, &'static str)> {
    let operand = invocation.args.first().map(|word| word.text.as_str());
    let instead = match invocation.program {
        "cd" | "pushd" => "use WORKDIR",
        "export" => "set it with ENV",
        "source" | "." => {
            let file = operand.unwrap_or_default();
            // Other files may do things that stay.
            let is_settings =
                ["activate", "rc", "profile", ".env", "setup.bash", "setup.sh", "environment", "conda.sh"];
            if !is_settings.iter().any(|end| file.ends_with(end)) {
                return None;
            }
            "set what it sets with ENV (such as PATH), or use it in the RUN that needs it"
        }
        "alias" | "umask" | "ulimit" | "shopt" => "do it in the RUN that needs it",
        "set" => "do it in the RUN that needs it, or in SHELL",
        _ => return None,
    };
    let first_word = operand.and_then(|text| text.split('=').next()).unwrap_or_default();
    Some((format!("{} {first_word}", invocation.program).trim_end().to_string(), instead))
}
