//! `DownloadPipedUnchecked`: the status of a pipe is that of its last command. Of a download that failed, a shell gets
//! an empty script, which it runs with success.
//!
//! Readers that fail on empty or cut input (tar, gpg, unzip) are left alone.

use super::around::Around;
use crate::shell::is_shell;

const DOWNLOADERS: &[&str] = &["curl", "wget", "aria2c", "fetch", "http", "https"];

/// Readers, beside shells, that are content with nothing.
const CONTENT: &[&str] = &[
    "perl", "ruby", "node", "php", "tee", "cat", "dd", "jq", "sed", "awk", "cut", "head", "tail", "sort", "tr",
    "base64",
];

pub(super) fn check(at: &Around<'_>) {
    let Some(run) = &at.run else { return };
    let shell = at.stage.shell();
    let in_words = run.script.commands.iter().flat_map(|command| &command.words).any(|word| word.text == "pipefail");
    if in_words || shell.iter().any(|word| word.contains("pipefail")) {
        return;
    }
    for pipeline in run.script.pipelines() {
        for pair in pipeline.windows(2) {
            let [Some(from), Some(to)] = [pair[0], pair[1]].map(|index| run.script.commands[index].invocation()) else {
                continue;
            };
            let is_content = is_shell(to.program) || to.program.starts_with("python") || CONTENT.contains(&to.program);
            if DOWNLOADERS.contains(&from.program) && is_content {
                let message = format!(
                    "If `{0}` fails, `{1}` succeeds with nothing and the step goes on: save the download first \
                     (`{0} … && {1} …`), or set SHELL [\"/bin/bash\", \"-o\", \"pipefail\", \"-c\"] (not every /bin/sh \
                     knows pipefail)",
                    from.program, to.program
                );
                at.fire("DownloadPipedUnchecked", message);
            }
        }
    }
}
