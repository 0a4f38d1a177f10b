//! `--on-failure`.

use crate::step::exec_shell::{FailureShell, OnFailure};
use crate::terminal;
use std::sync::Arc;

/// A value that cannot be honoured.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum OnFailureError {
    /// It names no action.
    #[error("invalid value {0:?} for --on-failure: it must be abort, shell or shell:PROGRAM, such as shell:/bin/bash")]
    Unknown(String),
    /// Nobody could use a shell.
    #[error(
        "--on-failure=shell needs a terminal: standard input and standard error must be one; leave it out where kiln \
         runs in a script or in CI"
    )]
    NoTerminal,
}

/// Reads the value.
pub(super) fn parse(value: &str) -> Result<OnFailure, OnFailureError> {
    let program = match value.split_once(':') {
        None if value == "abort" => return Ok(OnFailure::Abort),
        None if value == "shell" => None,
        Some(("shell", program)) if !program.is_empty() => Some(program.to_string()),
        _ => return Err(OnFailureError::Unknown(value.to_string())),
    };
    if !terminal::is_there() {
        return Err(OnFailureError::NoTerminal);
    }
    Ok(OnFailure::Shell(Arc::new(FailureShell::new(program))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        assert!(matches!(parse("abort"), Ok(OnFailure::Abort)));
        for bad in ["", "shell:", "sh", "abort:x"] {
            assert_eq!(parse(bad).unwrap_err(), OnFailureError::Unknown(bad.into()));
        }
    }
}
