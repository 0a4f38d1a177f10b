//! Times as text: RFC 3339 in UTC, as Go writes it, and ages, as docker says them. Two conversions of the proleptic
//! Gregorian calendar are all that a build engine needs of a calendar.

use std::time::{SystemTime, UNIX_EPOCH};

/// A time with as many fractional digits as needed. Times before 1970 are shown as 1970.
pub fn rfc3339(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    format(since.as_secs() as i64, i64::from(since.subsec_nanos()))
}

/// `2026-11-22T22:29:13.123Z` from milliseconds since 1970; the fraction is left out when it is zero.
pub fn rfc3339_millis(milliseconds: i64) -> String {
    format(milliseconds.div_euclid(1000), milliseconds.rem_euclid(1000) * 1_000_000)
}

fn format(seconds: i64, nanoseconds: i64) -> String {
    let (days, second_of_day) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (second_of_day / 3600, second_of_day / 60 % 60, second_of_day % 60);
    let fraction = match nanoseconds {
        0 => String::new(),
        _ => format!(".{nanoseconds:09}").trim_end_matches('0').to_string(),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
}

/// Milliseconds since 1970 of an RFC 3339 time; `None` if it is none.
pub fn parse_rfc3339(text: &str) -> Option<i64> {
    let number = |range: std::ops::Range<usize>| -> Option<i64> {
        let digits = text.get(range)?;
        digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
    };
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if !separators.iter().all(|&(at, byte)| text.as_bytes().get(at) == Some(&byte)) {
        return None;
    }
    if !matches!(text.as_bytes().get(10), Some(b'T' | b't' | b' ')) {
        return None;
    }
    let days = days_from_civil(number(0..4)?, number(5..7)?, number(8..10)?);
    let mut seconds = days * 86_400 + number(11..13)? * 3600 + number(14..16)? * 60 + number(17..19)?;
    let mut rest = text.get(19..)?;
    let mut milliseconds = 0;
    if let Some(fraction) = rest.strip_prefix('.') {
        let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
        milliseconds = format!("{:0<3.3}", &fraction[..length]).parse().ok()?;
        rest = &fraction[length..];
    }
    match rest.as_bytes() {
        [b'Z' | b'z'] => {}
        [sign @ (b'+' | b'-'), _, _, b':', _, _] => {
            let offset = rest.get(1..3)?.parse::<i64>().ok()? * 3600 + rest.get(4..6)?.parse::<i64>().ok()? * 60;
            seconds -= if *sign == b'+' { offset } else { -offset };
        }
        _ => return None,
    }
    Some(seconds * 1000 + milliseconds)
}

/// Days since 1970-01-01 to year, month, day: eras of 400 years that start in March, so the leap day comes last.
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// How long ago something was, as docker says it. Milliseconds.
pub fn ago(milliseconds: i64) -> String {
    let seconds = milliseconds.max(0) / 1000;
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let text = match () {
        () if seconds < 1 => "Less than a second".to_string(),
        () if seconds == 1 => "1 second".to_string(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".to_string(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".to_string(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 14 => format!("{} days", hours / 24),
        () if hours < 24 * 60 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    };
    format!("{text} ago")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        let check = |milliseconds: i64, text: &str| {
            assert_eq!(rfc3339_millis(milliseconds), text);
            assert_eq!(parse_rfc3339(text), Some(milliseconds), "{text}");
        };
        check(0, "1970-01-01T00:00:00Z");
        check(951_782_400_000, "2000-02-29T00:00:00Z");
        check(1_795_386_553_120, "2026-11-22T22:29:13.12Z");
        check(-1000, "1969-12-31T23:59:59Z");
        let at = UNIX_EPOCH + std::time::Duration::new(951_782_400, 5);
        assert_eq!(rfc3339(at), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(parse_rfc3339("2000-02-29T01:00:00.123456789+01:00"), Some(951_782_400_123));
        for bad in ["", "2000", "2000-02-29", "2000-02-29T00:00:00", "yyyy-02-29T00:00:00Z", "2000-02-29T00:00:00é"] {
            assert_eq!(parse_rfc3339(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_as_docker_says_them() {
        let check = |seconds: i64, expect: &str| assert_eq!(ago(seconds * 1000), expect);
        check(0, "Less than a second ago");
        check(59, "59 seconds ago");
        check(100, "About a minute ago");
        check(7000, "About an hour ago");
        check(3 * 86_400, "3 days ago");
        check(15 * 86_400, "2 weeks ago");
        check(100 * 86_400, "3 months ago");
    }
}
