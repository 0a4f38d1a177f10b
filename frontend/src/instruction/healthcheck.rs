//! `HEALTHCHECK [flags] CMD …` and `HEALTHCHECK NONE` (reference/dockerfile.md 2.13).

use super::flags::{Flags, Kind};
use super::{CommandLine, duration, fail, fail_at, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::image_config;
use crate::lint;
use crate::stage::{LayerOf, Lowering};
use crate::words::Lexer;

/// The fields of a HEALTHCHECK.
#[derive(Clone, Debug, PartialEq)]
pub struct Healthcheck {
    /// As it is stored.
    pub check: image_config::Healthcheck,
}

const FLAGS: &[(&str, Kind)] = &[
    ("interval", Kind::Text),
    ("timeout", Kind::Text),
    ("start-period", Kind::Text),
    ("start-interval", Kind::Text),
    ("retries", Kind::Text),
];

impl Healthcheck {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Healthcheck, Diagnostic> {
        some_argument(node, "HEALTHCHECK")?;
        let rest = node.rest.trim();
        let (written, command) = rest.split_once(char::is_whitespace).unwrap_or((rest, &rest[rest.len()..]));
        let (kind, command) = (written.to_uppercase(), node.rest.part(command));
        if kind == "NONE" {
            if !command.trim().is_empty() {
                return fail_at(node, &command, "HEALTHCHECK NONE takes no arguments", "");
            }
            let check = image_config::Healthcheck { test: vec![kind], ..Default::default() };
            return Ok(Healthcheck { check });
        }
        let flags = Flags::check(node, FLAGS)?;
        if kind != "CMD" {
            let message = format!("Unknown type {kind:?} in HEALTHCHECK (try CMD)");
            return fail_at(node, &node.rest.part(written), message, "CMD or NONE must stand here");
        }
        let test = match CommandLine::parse(node, &command)? {
            CommandLine::Exec(words) if !words.is_empty() => ["CMD".to_string()].into_iter().chain(words).collect(),
            CommandLine::Shell(text) if !text.is_empty() => vec!["CMD-SHELL".to_string(), text],
            CommandLine::Exec(_) | CommandLine::Shell(_) => return fail(node, "Missing command after HEALTHCHECK CMD"),
        };
        let check = image_config::Healthcheck {
            test,
            interval: interval(node, flags, "interval")?,
            timeout: interval(node, flags, "timeout")?,
            start_period: interval(node, flags, "start-period")?,
            start_interval: interval(node, flags, "start-interval")?,
            retries: retries(node, flags)?,
        };
        Ok(Healthcheck { check })
    }

    /// Replaces the check.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        lint::multiple_instructions_disallowed(at, at.stage.healthcheck);
        at.stage.healthcheck = Some(at.command.span);
        let image_config::Healthcheck { test, interval, timeout, start_period, start_interval, retries } = &self.check;
        let [interval, timeout, start_period, start_interval] =
            [interval, timeout, start_period, start_interval].map(|nanoseconds| duration::format(*nanoseconds));
        let text = format!(
            "HEALTHCHECK {{Test:[{}] Interval:{interval} Timeout:{timeout} StartPeriod:{start_period} \
             StartInterval:{start_interval} Retries:{retries}}}",
            test.join(" ")
        );
        at.stage.config.config.healthcheck = Some(self.check.clone());
        at.history(text, LayerOf::Nothing);
        Ok(())
    }
}

/// A duration of at least a millisecond, or 0.
fn interval(node: &Node, flags: Flags<'_>, name: &str) -> Result<i64, Diagnostic> {
    let Some(text) = flags.text(name).filter(|text| !text.is_empty()) else { return Ok(0) };
    match duration::parse(text) {
        None => {
            let message = format!("invalid duration {text:?} on flag: {name}");
            fail_at(node, text, message, "a number with a unit, such as 30s or 1m30s")
        }
        Some(nanoseconds) if nanoseconds != 0 && nanoseconds < 1_000_000 => {
            fail_at(node, text, format!("Interval {name:?} cannot be less than 1ms"), "too short")
        }
        Some(nanoseconds) => Ok(nanoseconds),
    }
}

fn retries(node: &Node, flags: Flags<'_>) -> Result<i64, Diagnostic> {
    let Some(text) = flags.text("retries").filter(|text| !text.is_empty()) else { return Ok(0) };
    match text.parse::<i32>() {
        Ok(retries) if retries < 0 => {
            fail_at(node, text, format!("--retries cannot be negative ({retries})"), "negative")
        }
        Ok(retries) => Ok(retries.into()),
        Err(_) => fail_at(node, text, format!("invalid number {text:?} on flag: retries"), "not a number"),
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    #[test]
    fn checks() {
        let check = |text: &str, expect: &str| {
            let config = config(&format!("FROM a\n{text}"));
            assert_eq!(config.history.last().unwrap().created_by, expect, "{text}");
            config.config.healthcheck.unwrap()
        };
        let all = "HEALTHCHECK --interval=1s --timeout=1m10s --start-period=0 --start-interval=100ms --retries=5 CMD a  b";
        let stored = check(
            all,
            "HEALTHCHECK {Test:[CMD-SHELL a  b] Interval:1s Timeout:1m10s StartPeriod:0s StartInterval:100ms Retries:5}",
        );
        assert_eq!((stored.interval, stored.timeout, stored.retries), (1_000_000_000, 70_000_000_000, 5));
        let rest = "Interval:0s Timeout:0s StartPeriod:0s StartInterval:0s Retries:0}";
        check("HEALTHCHECK CMD [\"a\", \"b c\"]", &format!("HEALTHCHECK {{Test:[CMD a b c] {rest}"));
        check("HEALTHCHECK none", &format!("HEALTHCHECK {{Test:[NONE] {rest}"));
    }

    #[test]
    fn errors() {
        let check = |text: &str, expect: &str| check_errors(&format!("FROM a\n{text}"), &[expect]);
        check("HEALTHCHECK", "HEALTHCHECK requires at least one argument");
        check("HEALTHCHECK PROBE x", "Unknown type \"PROBE\" in HEALTHCHECK (try CMD)");
        check("HEALTHCHECK CMD", "Missing command after HEALTHCHECK CMD");
        check("HEALTHCHECK NONE x", "HEALTHCHECK NONE takes no arguments");
        check("HEALTHCHECK --interval=1us CMD x", "Interval \"interval\" cannot be less than 1ms");
        check("HEALTHCHECK --retries=-1 CMD x", "--retries cannot be negative (-1)");
        check("HEALTHCHECK --timeout=soon CMD x", "invalid duration \"soon\" on flag: timeout");
    }
}
