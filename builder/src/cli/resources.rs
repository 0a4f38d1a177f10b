//! Limits of RUN as flags give them: `--resource`, `--memory`, `--cpus` and the like, and sizes in bytes.

use crate::sandbox::limits::{CPU_PERIOD_US, Limits};

/// Shortest and longest period that the kernel takes, in microseconds (sched-bwc of the kernel's documentation).
const PERIOD_US: std::ops::RangeInclusive<u64> = 1_000..=1_000_000;

/// Sets the limit that a key of `--resource` names, or `cpus`. The error says what is wrong with the value.
pub(super) fn set(limits: &mut Limits, key: &str, value: &str) -> Result<(), String> {
    match key {
        "memory" => limits.memory_bytes = Some(bytes(value)?),
        "memory-swap" if value == "-1" => limits.memory_swap_bytes = Some(-1),
        "memory-swap" => limits.memory_swap_bytes = Some(bytes(value)? as i64),
        "cpu-shares" => limits.cpu_shares = Some(number(value)?),
        "cpu-period" => limits.cpu_period_us = Some(period(value)?),
        "cpu-quota" if value == "-1" => limits.cpu_quota_us = Some(-1),
        "cpu-quota" => limits.cpu_quota_us = Some(number(value)? as i64),
        "cpuset-cpus" => limits.cpuset_cpus = Some(list(value)?),
        "cpuset-mems" => limits.cpuset_mems = Some(list(value)?),
        "cpus" => {
            let period = limits.cpu_period_us.unwrap_or(CPU_PERIOD_US);
            limits.cpu_quota_us = Some(quota(value, period)?);
        }
        key => {
            return Err(format!(
                "`{key}` is no limit; there are memory, memory-swap, cpu-shares, cpu-period, cpu-quota, cpuset-cpus \
                 and cpuset-mems"
            ));
        }
    }
    Ok(())
}

/// Refuses limits that contradict each other.
pub(super) fn check(limits: &Limits) -> Result<(), String> {
    match (limits.memory_bytes, limits.memory_swap_bytes) {
        (None, Some(0..)) => Err("memory-swap is memory and swap together, so it needs --memory".into()),
        (Some(memory), Some(both @ 0..)) if (both as u64) < memory => {
            Err("memory-swap is memory and swap together, so it cannot be smaller than --memory".into())
        }
        _ => Ok(()),
    }
}

/// A number of bytes with a suffix of docker's: `b k m g t p`, powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<u64, String> {
    let problem = || "it must be a number of bytes, such as 64m".to_string();
    let lower = text.to_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match lower[digits.len()..].trim_end_matches('b').trim_end_matches('i') {
        "" => 1u64,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        "p" => 1 << 50,
        _ => return Err(problem()),
    };
    let number: f64 = digits.trim().parse().map_err(|_| problem())?;
    if !(number >= 0.0 && number * factor as f64 <= i64::MAX as f64) {
        return Err("it is out of range".into());
    }
    Ok((number * factor as f64) as u64)
}

fn number(text: &str) -> Result<u64, String> {
    let number = text.parse::<u64>().ok().filter(|number| *number <= i64::MAX as u64);
    number.ok_or_else(|| "it must be a number".to_string())
}

fn period(text: &str) -> Result<u64, String> {
    let problem = || format!("it must be between {} and {} microseconds", PERIOD_US.start(), PERIOD_US.end());
    number(text).ok().filter(|period| PERIOD_US.contains(period)).ok_or_else(problem)
}

/// Time in a period, in microseconds, for a number of processors such as `1.5`.
fn quota(text: &str, period_us: u64) -> Result<i64, String> {
    let cpus = text.parse::<f64>().ok().filter(|cpus| *cpus >= 0.01 && *cpus <= 1_000_000.0);
    let cpus = cpus.ok_or_else(|| "it must be a number of processors, such as 1.5".to_string())?;
    Ok((cpus * period_us as f64).round() as i64)
}

/// Numbers and ranges, such as `0-2,4` (cpuset(7), "List format").
fn list(text: &str) -> Result<String, String> {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_item = |item: &str| match item.split_once('-') {
        None => is_number(item),
        Some((first, last)) => is_number(first) && is_number(last),
    };
    let is_list = text.split(',').all(is_item);
    if is_list { Ok(text.to_string()) } else { Err("it must be a list such as 0-2,4".into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(bytes(text).ok(), expect, "{text}");
        check("1", Some(1));
        check("64m", Some(64 << 20));
        check("1.5KiB", Some(1536));
        check("2gb", Some(2 << 30));
        check("-1", None);
        check("9999999p", None);
        check("1x", None);
        check("", None);
        check("k", None);
    }

    #[test]
    fn limits_of_flags() {
        let check = |key: &str, value: &str, expect: Option<Limits>| {
            let mut limits = Limits::default();
            let result = set(&mut limits, key, value);
            assert_eq!(result.is_ok().then_some(limits), expect, "{key}={value} {result:?}");
        };
        check("memory", "1k", Some(Limits { memory_bytes: Some(1024), ..Limits::default() }));
        check("memory-swap", "-1", Some(Limits { memory_swap_bytes: Some(-1), ..Limits::default() }));
        check("cpus", "1.5", Some(Limits { cpu_quota_us: Some(150_000), ..Limits::default() }));
        check("cpu-quota", "-1", Some(Limits { cpu_quota_us: Some(-1), ..Limits::default() }));
        check("cpu-period", "50000", Some(Limits { cpu_period_us: Some(50_000), ..Limits::default() }));
        check("cpuset-cpus", "0-2,4", Some(Limits { cpuset_cpus: Some("0-2,4".into()), ..Limits::default() }));
        for (key, value) in [
            ("memory", "x"),
            ("cpus", "0"),
            ("cpus", "NaN"),
            ("cpu-period", "10"),
            ("cpuset-cpus", "1-"),
            ("cpuset-mems", ""),
            ("gpus", "1"),
        ] {
            check(key, value, None);
        }
    }

    #[test]
    fn contradictions() {
        let check = |memory, swap, ok| {
            let limits = Limits { memory_bytes: memory, memory_swap_bytes: swap, ..Limits::default() };
            assert_eq!(super::check(&limits).is_ok(), ok, "{limits:?}");
        };
        check(None, None, true);
        check(Some(10), Some(10), true);
        check(Some(10), Some(-1), true);
        check(None, Some(10), false);
        check(Some(10), Some(9), false);
    }
}
