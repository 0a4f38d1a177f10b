//! Durations as Go reads and prints them (`1h2m3.5s`), which HEALTHCHECK takes and the history shows.

/// Nanoseconds of a duration; `None` if it is not one or does not fit.
pub fn parse(text: &str) -> Option<i64> {
    let (sign, mut rest) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text.strip_prefix('+').unwrap_or(text)),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_len);
        let unit_len = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit: i128 = match unit {
            "ns" => 1,
            "us" | "µs" | "μs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return None,
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || whole.len() > 18 || fraction.contains('.') {
            return None;
        }
        let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<i128>().ok() };
        let fraction = fraction.get(..18).unwrap_or(fraction);
        let scale = 10i128.checked_pow(fraction.len() as u32)?;
        total += digits(whole)? * unit + digits(fraction)? * unit / scale;
        rest = after;
    }
    i64::try_from(sign * total).ok()
}

/// The shortest text of a duration in nanoseconds, such as `1m30s` or `1.5ms`.
pub fn format(nanoseconds: i64) -> String {
    let sign = if nanoseconds < 0 { "-" } else { "" };
    let total = nanoseconds.unsigned_abs();
    let decimal = |unit: u64, suffix: &str| {
        let fraction = format!("{:0width$}", total % unit, width = unit.ilog10() as usize);
        match fraction.trim_end_matches('0') {
            "" => format!("{sign}{}{suffix}", total / unit),
            fraction => format!("{sign}{}.{fraction}{suffix}", total / unit),
        }
    };
    match total {
        0 => "0s".to_string(),
        1..1_000 => format!("{sign}{total}ns"),
        1_000..1_000_000 => decimal(1_000, "µs"),
        1_000_000..1_000_000_000 => decimal(1_000_000, "ms"),
        _ => {
            let minutes = total / 60_000_000_000;
            let seconds = seconds(total % 60_000_000_000);
            match (minutes / 60, minutes % 60) {
                (0, 0) => format!("{sign}{seconds}"),
                (0, minutes) => format!("{sign}{minutes}m{seconds}"),
                (hours, minutes) => format!("{sign}{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// Seconds, also where they are less than one: longer durations do not change to smaller units.
fn seconds(nanoseconds: u64) -> String {
    let fraction = format!("{:09}", nanoseconds % 1_000_000_000);
    match fraction.trim_end_matches('0') {
        "" => format!("{}s", nanoseconds / 1_000_000_000),
        fraction => format!("{}.{fraction}s", nanoseconds / 1_000_000_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parse_and_format() {
        let check = |text: &str, nanoseconds: Option<i64>, printed: &str| {
            assert_eq!(parse(text), nanoseconds, "{text}");
            if let Some(nanoseconds) = nanoseconds {
                assert_eq!(format(nanoseconds), printed, "{text}");
            }
        };
        check("1s", Some(1_000_000_000), "1s");
        check("1h2m3.5s", Some(3_723_500_000_000), "1h2m3.5s");
        check("90m", Some(5_400_000_000_000), "1h30m0s");
        check("100ms", Some(100_000_000), "100ms");
        check("1.5ms", Some(1_500_000), "1.5ms");
        check("1us", Some(1_000), "1µs");
        check("7ns", Some(7), "7ns");
        check("0", Some(0), "0s");
        check("-1.5s", Some(-1_500_000_000), "-1.5s");
        check("1m0.25s", Some(60_250_000_000), "1m0.25s");
        check(".5s", Some(500_000_000), "500ms");
        for bad in ["", "soon", "1", "1x", "s", ".s", "1.2.3s", "99999999999999999h", "-"] {
            check(bad, None, "");
        }
    }
}
