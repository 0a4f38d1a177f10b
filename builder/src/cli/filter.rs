//! `--filter` of `kiln du` and `kiln prune`, with BuildKit's fields (reference/engine.md 3.8).

use super::object::{full_id, is_mutable};
use cache::usage::Object;
use regex::Regex;
use std::time::Duration;

/// All of it must hold.
#[derive(Debug, Default)]
pub struct Filter {
    selectors: Vec<Selector>,
    /// `until=24h`: not what was used within that time.
    pub until: Option<Duration>,
}

#[derive(Debug)]
struct Selector {
    field: Field,
    test: Test,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Id,
    Parents,
    Description,
    Type,
    InUse,
    Mutable,
    Immutable,
    Shared,
    Private,
}

const FIELDS: [(&str, Field); 9] = [
    ("id", Field::Id),
    ("parents", Field::Parents),
    ("description", Field::Description),
    ("type", Field::Type),
    ("inuse", Field::InUse),
    ("mutable", Field::Mutable),
    ("immutable", Field::Immutable),
    ("shared", Field::Shared),
    ("private", Field::Private),
];

#[derive(Debug)]
enum Test {
    /// The field alone: it is set, or true.
    Present,
    Equal(String),
    Unequal(String),
    Matches(Regex),
}

/// A filter that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("--filter {text}: there is no field `{field}`; there are until, {}", FIELDS.map(|(name, _)| name).join(", "))]
    Field { text: String, field: String },
    #[error("--filter {text}: no regular expression")]
    Regex { text: String, source: regex::Error },
    #[error("--filter {text}: until takes a duration such as 24h")]
    Until { text: String },
}

impl Filter {
    /// Each is `field`, `field==value`, `field=value`, `field!=value` or `field~=regexp`, several with commas between.
    pub fn parse(filters: &[String]) -> Result<Filter, FilterError> {
        let mut filter = Filter::default();
        for text in filters.iter().flat_map(|filter| filter.split(',')).filter(|text| !text.is_empty()) {
            let (field, test) = split(text)?;
            if field == "until" {
                let duration = match &test {
                    Test::Equal(value) => duration(value),
                    _ => None,
                };
                filter.until = Some(duration.ok_or_else(|| FilterError::Until { text: text.to_string() })?);
                continue;
            }
            let known = FIELDS.iter().find(|(name, _)| *name == field);
            let field = known.ok_or_else(|| FilterError::Field { text: text.to_string(), field: field.to_string() })?.1;
            filter.selectors.push(Selector { field, test });
        }
        Ok(filter)
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.selectors.is_empty() && self.until.is_none()
    }

    /// Whether an object is meant. `until` is for the caller, who knows the time.
    pub fn matches(&self, object: &Object) -> bool {
        self.selectors.iter().all(|selector| selector.matches(object))
    }
}

fn split(text: &str) -> Result<(&str, Test), FilterError> {
    let Some(at) = text.find(['=', '!', '~']) else { return Ok((text, Test::Present)) };
    let (field, rest) = text.split_at(at);
    let unquoted = |value: &str| value.trim_matches('"').to_string();
    let test = if let Some(value) = rest.strip_prefix("!=") {
        Test::Unequal(unquoted(value))
    } else if let Some(value) = rest.strip_prefix("~=") {
        let regex = Regex::new(&unquoted(value));
        Test::Matches(regex.map_err(|source| FilterError::Regex { text: text.to_string(), source })?)
    } else {
        let value = rest.trim_start_matches('=');
        Test::Equal(unquoted(value))
    };
    Ok((field.trim(), test))
}

impl Selector {
    fn matches(&self, object: &Object) -> bool {
        let yes = |is: bool| is.to_string();
        let text = match self.field {
            Field::Id => full_id(&object.id),
            Field::Parents => object.parent.clone().unwrap_or_default(),
            Field::Description => object.description.clone(),
            Field::Type => object.category.clone(),
            Field::InUse => yes(object.in_use),
            Field::Mutable => yes(is_mutable(object)),
            Field::Immutable => yes(!is_mutable(object)),
            Field::Shared => yes(object.shared),
            Field::Private => yes(!object.shared),
        };
        match &self.test {
            Test::Present => !text.is_empty() && text != "false",
            // As long as the table shows ids, they may be short.
            Test::Equal(value) if self.field == Field::Id => value.len() >= 12 && text.starts_with(value.as_str()),
            Test::Equal(value) => text == *value,
            Test::Unequal(value) => text != *value,
            Test::Matches(regex) => regex.is_match(&text),
        }
    }
}

/// `90s`, `1h30m`, `7d`, `1.5h`, or a number of seconds.
pub fn duration(text: &str) -> Option<Duration> {
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit_end = rest[digits..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |end| digits + end);
        total += number
            * match &rest[digits..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86_400.0,
                "w" => 7.0 * 86_400.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(total).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::object::{Kind, ObjectId, Size};

    fn object() -> Object {
        Object {
            id: ObjectId::new(Kind::Snapshot, "0123456789abcdef"),
            size: Size::default(),
            created_ms: 0,
            used_ms: 0,
            uses: 1,
            parent: None,
            description: "[2/3] RUN make".into(),
            category: "regular".into(),
            cost_ms: 0,
            in_use: true,
            images: vec![],
            shared: false,
        }
    }

    #[test]
    fn selectors() {
        let check = |text: &str, expect: bool| {
            let filter = Filter::parse(&[text.to_string()]).unwrap();
            assert_eq!(filter.matches(&object()), expect, "{text}");
        };
        check("type=regular", true);
        check("type==regular,inuse", true);
        check("type!=regular", false);
        check("description~=RUN \\w+", true);
        check("shared", false);
        check("private,immutable", true);
        check("id=0123456789ab", true);
        check("id=0123", false);
        check("parents", false);
        check("inuse=false", false);
        let filter = Filter::parse(&["until=1h30m".into(), "inuse".into()]).unwrap();
        assert_eq!(filter.until, Some(Duration::from_secs(5400)));
        for bad in ["kind=x", "description~=(", "until=soon"] {
            assert!(Filter::parse(&[bad.to_string()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations() {
        let check = |text: &str, expect: Option<u64>| assert_eq!(duration(text).map(|d| d.as_secs()), expect, "{text}");
        check("7d", Some(604_800));
        check("90", Some(90));
        check("1.5h", Some(5400));
        check("", None);
        check("h", None);
        check("5x", None);
    }
}
