//! `ChmodWorldWritable`: everyone in the container may change the files.

use super::around::Around;
use crate::instruction::Instruction;

pub(super) fn check(at: &Around<'_>) {
    let flag = match &at.command.instruction {
        Instruction::Copy(copy) => copy.attributes.chmod.as_str(),
        Instruction::Add(add) => add.attributes.chmod.as_str(),
        _ => "",
    };
    if is_world_writable(flag) {
        let message = format!("--chmod={flag} lets everyone change the files: give write access to their owner");
        at.fire("ChmodWorldWritable", message);
    }
    for chmod in at.invocations().filter(|invocation| invocation.program == "chmod") {
        let mut operands = chmod.operands();
        let Some(mode) = operands.next().filter(|mode| is_world_writable(mode)) else { continue };
        // Made for everyone.
        if operands.all(|path| ["/tmp", "/var/tmp", "/dev/shm"].contains(&path.trim_end_matches('/'))) {
            continue;
        }
        let message =
            format!("`chmod {mode}` lets everyone change the files: give them to a user with chown, or to a group");
        at.fire("ChmodWorldWritable", message);
    }
}

/// `777`, `o+w`, `a=rwx`, but not `1777`, where only owners may remove files.
fn is_world_writable(mode: &str) -> bool {
    if mode.len() >= 3 && mode.chars().all(|c| c.is_digit(8)) {
        let is_sticky =
            mode.len() > 3 && mode.trim_start_matches('0').len() > 3 && mode.starts_with(['1', '3', '5', '7']);
        return !is_sticky && mode.ends_with(['2', '3', '6', '7']);
    }
    mode.split(',').any(|clause| {
        let Some((who, what)) = clause.split_once(['+', '=']) else { return false };
        who.contains(['o', 'a']) && who.chars().all(|c| "ugoa".contains(c)) && what.contains('w')
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        let check = |mode: &str, expect: bool| assert_eq!(is_world_writable(mode), expect, "{mode}");
        for mode in ["777", "0777", "666", "a+w", "o=rw", "u=rwx,go+rwx", "ugo+rwx"] {
            check(mode, true);
        }
        for mode in ["755", "0755", "1777", "u+w", "+x", "g+w", "a+rx", "a-w", "", "rwx", "00755"] {
            check(mode, false);
        }
    }
}
