//! The words in which differences are told.

use super::{Cause, Change, FileChange, Origin, What, Why};
use std::fmt;
use std::time::{Duration, SystemTime};

/// Characters of a command or a value in one line.
const VALUE_WIDTH: usize = 60;

impl Why {
    /// One line that says why the step ran, as it follows `not cached: `; `None` if it did not.
    pub fn line(&self) -> Option<String> {
        Some(match &self.cause {
            Cause::Recorded { .. } => return None,
            Cause::Flag(flag) => flag.clone(),
            Cause::NeverBuilt => "never built here".to_string(),
            Cause::Pruned { used_ms } => {
                format!("its result was removed from the store (last used {})", when(*used_ms))
            }
            Cause::Lost => "its result is missing from the store".to_string(),
            Cause::Changed => match &self.changes[..] {
                [] => "its former result is of another kind".to_string(),
                [one] => one.to_string(),
                [first, more @ ..] => format!("{first}, and {} more", more.len()),
            },
        })
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Command { before, now } => write!(f, "command: {}", values(before, now)),
            Change::Variable { name, before, now } => write!(f, "{name}: {}", values(before, now)),
            Change::Setting { name, before, now } => write!(f, "{name}: {}", values(before, now)),
            Change::Files { from, files, total } => {
                match &files[..] {
                    [] => f.write_str("files changed")?,
                    [first, ..] if *total > 1 => write!(f, "{first} (and {} more)", total - 1)?,
                    [first, ..] => write!(f, "{first}")?,
                }
                from.as_ref().map_or(Ok(()), |from| write!(f, ", in {from}"))
            }
            Change::Base { before, now } => match (before, now) {
                (
                    Some(Origin::Image { name: old, digest: old_digest }),
                    Some(Origin::Image { name: new, digest: new_digest }),
                ) => match old == new {
                    true => write!(f, "base image {new}: {} -> {}", short(old_digest), short(new_digest)),
                    false => write!(f, "base image: {old} -> {new}"),
                },
                (_, Some(Origin::Image { name, digest })) => {
                    write!(f, "base image is now {name} ({})", short(digest))
                }
                (Some(Origin::Image { name: old, .. }), Some(Origin::Step { name })) => {
                    write!(f, "it follows {} now, not {old}", cut(name))
                }
                (Some(Origin::Step { name: old }), Some(Origin::Step { name: new }))
                    if place_and_text(old).1 != place_and_text(new).1 =>
                {
                    write!(f, "it follows {} now, not {}", cut(new), cut(old))
                }
                (_, Some(Origin::Step { name })) => write!(f, "{} made something else", cut(name)),
                (_, None) => f.write_str("it lies on something else"),
            },
        }
    }
}

impl fmt::Display for FileChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = if self.path.is_empty() { "." } else { &self.path };
        match &self.what {
            What::Added => write!(f, "{path} is new"),
            What::Removed => write!(f, "{path} is gone"),
            What::Content => write!(f, "{path} changed"),
            What::Mode { before, now } => write!(f, "mode of {path}: {before:04o} -> {now:04o}"),
            What::Owner { before, now } => write!(f, "owner of {path}: {before} -> {now}"),
            What::Attributes => write!(f, "attributes of {path} changed"),
        }
    }
}

impl Origin {
    /// With the whole digest.
    pub fn in_full(&self) -> String {
        match self {
            Origin::Image { name, digest } => format!("{name}@{digest}"),
            Origin::Step { name } => format!("what {name} made"),
        }
    }
}

/// A step's name such as `[build 2/5] RUN make`: the place in brackets, and the rest.
pub fn place_and_text(name: &str) -> (&str, &str) {
    name.strip_prefix('[').and_then(|name| name.split_once("] ")).unwrap_or(("", name))
}

/// A time as people read it, to the second, UTC.
pub fn when(ms: i64) -> String {
    let since = Duration::from_secs(u64::try_from(ms).unwrap_or_default() / 1000);
    crate::time::rfc3339(SystemTime::UNIX_EPOCH + since).replace('T', " ").replace('Z', " UTC")
}

fn values(before: &Option<String>, now: &Option<String>) -> String {
    match (before, now) {
        (Some(before), Some(now)) => {
            let (before, now) = from_where_they_differ(before, now);
            format!("{} -> {}", quoted(&before), quoted(&now))
        }
        (None, Some(now)) => format!("{} is new", quoted(now)),
        (Some(before), None) => format!("{} is gone", quoted(before)),
        (None, None) => "changed".to_string(),
    }
}

/// Two long texts from the word on in which they begin to differ.
fn from_where_they_differ(before: &str, now: &str) -> (String, String) {
    if before.chars().count().max(now.chars().count()) <= VALUE_WIDTH {
        return (before.to_string(), now.to_string());
    }
    let same = before.char_indices().zip(now.chars()).find(|((_, old), new)| old != new);
    let same = same.map_or(before.len().min(now.len()), |((position, _), _)| position);
    let word = before[..same].rfind(char::is_whitespace).map_or(0, |blank| blank + 1);
    match word {
        0..20 => (before.to_string(), now.to_string()),
        // Blanks may be of several bytes.
        _ => match (before.get(word..), now.get(word..)) {
            (Some(before), Some(now)) => (format!("…{before}"), format!("…{now}")),
            _ => (before.to_string(), now.to_string()),
        },
    }
}

fn quoted(text: &str) -> String {
    format!("{:?}", cut(text))
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(VALUE_WIDTH) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_string(),
    }
}

/// `sha256:` and the first 12 digits.
fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts() {
        let check = |change: Change, expect: &str| assert_eq!(change.to_string(), expect);
        let some = |text: &str| Some(text.to_string());
        check(Change::Variable { name: "V".into(), before: some("1"), now: some("2") }, r#"V: "1" -> "2""#);
        check(Change::Variable { name: "V".into(), before: None, now: some("2") }, r#"V: "2" is new"#);
        let long = "apt-get update && apt-get install --yes --no-install-recommends ";
        check(
            Change::Command { before: Some(format!("{long}gcc make")), now: Some(format!("{long}gcc-13 make")) },
            r#"command: "…gcc make" -> "…gcc-13 make""#,
        );
        let image = |name: &str, digit: char| {
            let digest = format!("sha256:{}", digit.to_string().repeat(64));
            Some(Origin::Image { name: name.into(), digest })
        };
        check(
            Change::Base { before: image("alpine:3", 'a'), now: image("alpine:3", 'b') },
            "base image alpine:3: sha256:aaaaaaaaaaaa -> sha256:bbbbbbbbbbbb",
        );
        check(Change::Base { before: image("a:3", 'a'), now: image("b", 'a') }, "base image: a:3 -> b");
        let step = |name: &str| Some(Origin::Step { name: name.into() });
        check(
            Change::Base { before: step("[2/3] RUN x"), now: step("[2/4] RUN x") },
            "[2/4] RUN x made something else",
        );
        check(
            Change::Base { before: step("[2/3] RUN x"), now: step("[3/4] RUN y") },
            "it follows [3/4] RUN y now, not [2/3] RUN x",
        );
        check(Change::Files { from: None, files: vec![], total: 0 }, "files changed");
        assert_eq!(when(1_700_000_000_999), "2023-11-14 22:13:20 UTC");
    }
}
