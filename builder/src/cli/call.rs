//! `--call` and `--check`: which question about the Dockerfile is to be answered in place of a build
//! (reference/engine.md 1.1).

use super::csv;
use super::options::OptionError;

/// A question, and how the answer is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub method: Method,
    pub format: Format,
    /// Warnings do not change the exit status.
    pub ignore_status: bool,
}

/// What can be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Build checks.
    Check(Strictness),
    /// Parameters of a target.
    Outline,
    /// Stages.
    Targets,
    /// What can be asked.
    Describe,
}

/// What kiln's own checks are in the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strictness {
    /// Advice, apart from BuildKit's warnings.
    Lenient,
    /// Warnings like the others.
    Strict,
}

/// How the answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    Text,
    Json,
}

/// Names of methods, short and long; the first of a method is shown in messages.
const METHODS: &[(&str, Method)] = &[
    ("check", Method::Check(Strictness::Lenient)),
    ("lint", Method::Check(Strictness::Lenient)),
    ("outline", Method::Outline),
    ("targets", Method::Targets),
    ("subrequests.describe", Method::Describe),
];

/// Reads both flags; `None` is a build.
pub fn parse(call: Option<&str>, check: Option<&str>) -> Result<Option<Call>, OptionError> {
    let asked = match call {
        Some(call) => parse_call(call)?,
        None => None,
    };
    let Some(check) = check else { return Ok(asked) };
    let strictness = match (csv::boolean(check), check) {
        (Some(true), _) => Strictness::Lenient,
        (Some(false), _) => return Ok(asked),
        (None, "strict") => Strictness::Strict,
        (None, _) => return Err(bad("check", check, "it is true, false or strict")),
    };
    match asked {
        None if call.is_none() => {
            Ok(Some(Call { method: Method::Check(strictness), format: Format::Text, ignore_status: false }))
        }
        Some(Call { method: Method::Check(asked), format, ignore_status }) => {
            let stricter = if strictness == Strictness::Strict { strictness } else { asked };
            Ok(Some(Call { method: Method::Check(stricter), format, ignore_status }))
        }
        _ => Err(bad("call", call.unwrap_or_default(), "--check asks for something else")),
    }
}

fn parse_call(text: &str) -> Result<Option<Call>, OptionError> {
    let fields = csv::fields(text).map_err(|error| bad("call", text, error.problem))?;
    let (mut name, mut format, mut ignore_status, mut strict) = (None, Format::Text, false, false);
    for field in &fields {
        let boolean = |value: &str| csv::boolean(value).ok_or_else(|| bad("call", text, "it must be true or false"));
        match field.split_once('=') {
            Some(("format", "json")) => format = Format::Json,
            Some(("format", "text" | "")) => format = Format::Text,
            Some(("format", other)) => {
                return Err(bad("call", text, format!("there is no format `{other}`: text, json")));
            }
            Some(("ignorestatus", value)) => ignore_status = boolean(value)?,
            Some(("strict", value)) => strict = boolean(value)?,
            Some((key, _)) => {
                return Err(bad("call", text, format!("there is no option `{key}`: format, ignorestatus, strict")));
            }
            None if name.is_some() => return Err(bad("call", text, "it names two methods")),
            None => name = Some(field.as_str()),
        }
    }
    let method = match name {
        None | Some("" | "build") => return Ok(None),
        Some(name) => method(name).ok_or_else(|| bad("call", text, unknown(name)))?,
    };
    let method = match (method, strict) {
        (Method::Check(_), true) => Method::Check(Strictness::Strict),
        (_, true) => return Err(bad("call", text, "only check has the option `strict`")),
        (method, false) => method,
    };
    Ok(Some(Call { method, format, ignore_status }))
}

fn method(name: &str) -> Option<Method> {
    let short = name.strip_prefix("frontend.").unwrap_or(name);
    METHODS.iter().find(|(known, _)| *known == short).map(|(_, method)| *method)
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = METHODS.iter().map(|(name, _)| *name).filter(|name| *name != "lint").collect();
    format!("unsupported request `{name}`; kiln has: build, {}", names.join(", "))
}

fn bad(flag: &'static str, value: &str, problem: impl Into<String>) -> OptionError {
    OptionError::Value { flag, value: value.into(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENIENT: Method = Method::Check(Strictness::Lenient);
    const STRICT: Method = Method::Check(Strictness::Strict);

    #[test]
    fn questions() {
        let check = |call: Option<&str>, check: Option<&str>, expect: Option<(Method, Format, bool)>| {
            let expect = expect.map(|(method, format, ignore_status)| Call { method, format, ignore_status });
            assert_eq!(parse(call, check).unwrap(), expect, "{call:?} {check:?}");
        };
        let text = |method| Some((method, Format::Text, false));
        check(None, None, None);
        check(Some("build"), None, None);
        check(Some("build,format=json"), Some("false"), None);
        check(None, Some("true"), text(LENIENT));
        check(None, Some("strict"), text(STRICT));
        check(Some("check"), Some("1"), text(LENIENT));
        check(Some("check,strict=true"), Some("true"), text(STRICT));
        check(Some("lint"), None, text(LENIENT));
        check(Some("frontend.lint,format=json"), None, Some((LENIENT, Format::Json, false)));
        check(Some("format=json,outline"), None, Some((Method::Outline, Format::Json, false)));
        check(Some("frontend.targets,format=text"), None, text(Method::Targets));
        check(Some("frontend.subrequests.describe"), None, text(Method::Describe));
        check(Some("check,ignorestatus=true"), None, Some((LENIENT, Format::Text, true)));
    }

    #[test]
    fn refused() {
        let check = |call: Option<&str>, check: Option<&str>, expect: &str| {
            let message = parse(call, check).unwrap_err().to_string();
            assert!(message.contains(expect), "{message}");
        };
        check(Some("frobnicate"), None, "kiln has: build, check, outline, targets, subrequests.describe");
        check(Some("check,format=xml"), None, "there is no format `xml`");
        check(Some("check,color=1"), None, "there is no option `color`");
        check(Some("check,ignorestatus=perhaps"), None, "true or false");
        check(Some("check,outline"), None, "it names two methods");
        check(Some("outline,strict=1"), None, "only check");
        check(Some("outline"), Some("true"), "--check asks for something else");
        check(Some("build"), Some("true"), "--check asks for something else");
        check(None, Some("maybe"), "it is true, false or strict");
    }
}
