//! Rules about FROM lines, called while stages are set up.

use super::Lints;
use crate::instruction::from::From;
use crate::platform::Platform;
use crate::span::Span;
use crate::suggest::{Case, did_you_mean};

fn fire(lints: &Lints, from: &From, rule: &'static str, message: String) {
    lints.fire(rule, message, from.span, &from.comments);
}

/// `UndefinedArgInFrom`: `unset` are the names that expanding the line did not find.
pub fn undefined_arg_in_from<'a>(
    lints: &Lints,
    from: &From,
    unset: &[String],
    declared: &'a [String],
    known: impl Iterator<Item = &'a str> + Clone,
) {
    for name in unset.iter().filter(|name| !declared.contains(name)) {
        let names = declared.iter().map(String::as_str).chain(known.clone());
        let message = format!("FROM argument '{name}' is not declared");
        fire(lints, from, "UndefinedArgInFrom", did_you_mean(message, name, names, Case::Sensitive));
    }
}

/// `RedundantTargetPlatform` and `FromPlatformFlagConstDisallowed`: `written` expands to `expanded`, `used` are the
/// variables that it asked for, each once.
pub fn from_platform(lints: &Lints, from: &From, written: &str, expanded: &str, used: &[Use], host: &Platform) {
    if let [Use { name, value: Some(value) }] = used
        && name == "TARGETPLATFORM"
        && expanded == value
    {
        let message =
            format!("Setting platform to predefined {written} in FROM is redundant as this is the default behavior");
        fire(lints, from, "RedundantTargetPlatform", message);
    }
    if !used.is_empty() {
        return;
    }
    let Ok(platform) = Platform::parse(expanded, host) else { return };
    let name = from.name.as_deref().unwrap_or_default();
    if !name.contains(&platform.os) && !name.contains(&platform.architecture) {
        let message = format!("FROM --platform flag should not use constant value {expanded:?}");
        fire(lints, from, "FromPlatformFlagConstDisallowed", message);
    }
}

/// A variable that a word asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    /// Its name.
    pub name: String,
    /// What it has, if it is set.
    pub value: Option<String>,
}

/// `InvalidDefaultArgInFrom`: the name is none when every argument has its default.
pub fn invalid_default_arg_in_from(lints: &Lints, from: &From) {
    let message = format!("Default value for ARG {} results in empty or invalid base image name", from.image);
    fire(lints, from, "InvalidDefaultArgInFrom", message);
}

/// `InvalidBaseImagePlatform`: the image is of another platform than the stage. `span` is where it is asked for: a FROM,
/// or an instruction that copies from it.
pub fn invalid_base_image_platform(
    lints: &Lints,
    (span, comments): (Span, &[String]),
    name: &str,
    expected: &Platform,
    actual: &Platform,
) {
    if expected.os == actual.os && expected.architecture == actual.architecture {
        return;
    }
    let message =
        format!("Base image {name} was pulled with platform \"{actual}\", expected \"{expected}\" for current build");
    lints.fire("InvalidBaseImagePlatform", message, span, comments);
}
