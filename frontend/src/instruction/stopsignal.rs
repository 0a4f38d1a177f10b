//! `STOPSIGNAL signal` (reference/dockerfile.md 2.14).

use super::one_argument;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering};
use crate::suggest::{Case, did_you_mean};
use crate::words::Lexer;

/// The fields of a STOPSIGNAL.
#[derive(Clone, Debug, PartialEq)]
pub struct Stopsignal {
    /// Not yet expanded.
    pub signal: Placed,
}

/// Linux's signals, without `SIG` (signal(7)); the real-time ones are computed.
const SIGNALS: &[&str] = &[
    "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL", "PIPE", "POLL",
    "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP", "TTIN", "TTOU", "URG", "USR1",
    "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
];

impl Stopsignal {
    /// Parses the node. Flags are not looked at, as in BuildKit.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Stopsignal, Diagnostic> {
        Ok(Stopsignal { signal: one_argument(node, "STOPSIGNAL")? })
    }

    /// Sets the signal as written.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let signal = at.expand(&self.signal)?;
        if !is_signal(&signal) {
            let message = format!("invalid signal: {signal}");
            let names = SIGNALS.iter().map(|name| format!("SIG{name}"));
            let message = did_you_mean(message, &signal, names, Case::Insensitive);
            return Err(at.error_at(&self.signal, message, "no signal of Linux"));
        }
        at.history(format!("STOPSIGNAL {signal}"), LayerOf::Nothing);
        at.stage.config.config.stop_signal = signal.into_owned();
        Ok(())
    }
}

/// A number but 0, or a name with or without `SIG`.
fn is_signal(text: &str) -> bool {
    if let Ok(number) = text.parse::<i64>() {
        return number != 0;
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset_below = |offset: &str, limit: u8| offset.parse::<u8>().is_ok_and(|offset| (1..=limit).contains(&offset));
    SIGNALS.contains(&name)
        || name.strip_prefix("RTMIN+").is_some_and(|offset| offset_below(offset, 15))
        || name.strip_prefix("RTMAX-").is_some_and(|offset| offset_below(offset, 14))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn stored_as_written() {
        assert_eq!(config("FROM a\nENV S=quit\nSTOPSIGNAL sig$S").config.stop_signal, "sigquit");
        check_history("FROM a\nSTOPSIGNAL 9", &["STOPSIGNAL 9 (empty)"]);
        check_errors("FROM a\nSTOPSIGNAL", &["STOPSIGNAL requires exactly one argument"]);
        check_errors("FROM a\nSTOPSIGNAL SIGTERN", &["invalid signal: SIGTERN (did you mean SIGTERM?)"]);
    }

    #[test]
    fn signals() {
        for good in ["9", "KILL", "sigterm", "SIGRTMIN+3", "rtmax-14", "64"] {
            assert!(is_signal(good), "{good}");
        }
        for bad in ["0", "SIGNONSENSE", "", "SIG", "RTMIN+16", "RTMIN+", "RTMAX-15"] {
            assert!(!is_signal(bad), "{bad}");
        }
    }
}
