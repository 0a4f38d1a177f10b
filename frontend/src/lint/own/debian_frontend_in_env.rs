//! `DebianFrontendInEnv`: a setting for the build that every container inherits.

use super::around::Around;
use crate::instruction::Instruction;

pub(super) fn check(at: &Around<'_>) {
    let Instruction::Env(env) = &at.command.instruction else { return };
    if at.checks.is_shipped && env.pairs.pairs.iter().any(|pair| pair.name == "DEBIAN_FRONTEND") {
        let message = "DEBIAN_FRONTEND stays set in every container: write ARG DEBIAN_FRONTEND=noninteractive, \
                       or set it for the one command that needs it";
        at.fire("DebianFrontendInEnv", message.to_string());
    }
}
