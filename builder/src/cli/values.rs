//! What single flags of `kiln build` say, and variables of its environment.

use super::csv;
use super::options::{OptionError, bad};
use frontend::reference::Reference;
use std::collections::BTreeMap;

/// A boolean of the environment; one that is empty is not set. Another value is an error: the message.
pub fn boolean_variable(
    environment: &dyn Fn(&str) -> Option<String>,
    name: &str,
    default: bool,
) -> Result<bool, String> {
    match environment(name).as_deref() {
        None | Some("") => Ok(default),
        Some(text) => csv::boolean(text).ok_or_else(|| format!("{name} is {text:?}; it must be true or false")),
    }
}

pub(super) fn is_http_url(text: &str) -> bool {
    text.starts_with("http://") || text.starts_with("https://")
}

/// `ssh://`, or `user@host:path`.
pub(super) fn is_ssh(remote: &str) -> bool {
    remote.split_once("://").is_none_or(|(scheme, _)| scheme.eq_ignore_ascii_case("ssh"))
}

/// `TYPE` or `TYPE[PLATFORM]` of `--annotation`.
pub(super) fn is_annotation_kind(text: &str) -> bool {
    let kind = text.split('[').next().unwrap_or_default();
    matches!(kind, "index" | "index-descriptor" | "manifest" | "manifest-descriptor")
}

pub(super) fn parse_tag(tag: &str) -> Result<Reference, OptionError> {
    Reference::parse(tag).map_err(|source| OptionError::Tag { tag: tag.into(), source })
}

/// `NAME=VALUE` flags; a bare `NAME` takes its value from the environment and is dropped where that has none.
pub(super) fn assignments(
    flags: &[String],
    flag: &'static str,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<BTreeMap<String, String>, OptionError> {
    let mut values = BTreeMap::new();
    for text in flags {
        let (name, value) = match text.split_once('=') {
            Some((name, value)) => (name, Some(value.to_string())),
            None => (text.as_str(), environment(text)),
        };
        if name.is_empty() {
            return Err(bad(flag, text, "the name is missing"));
        }
        match (value, flag) {
            (Some(value), _) => values.insert(name.to_string(), value),
            (None, "label") => values.insert(name.to_string(), String::new()),
            (None, _) => None,
        };
    }
    Ok(values)
}

pub(super) fn contexts(flags: &[String]) -> Result<BTreeMap<String, String>, OptionError> {
    flags
        .iter()
        .map(|text| match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_string(), value.to_string())),
            _ => Err(bad("build-context", text, "it must be NAME=VALUE")),
        })
        .collect()
}

pub(super) fn extra_hosts(flags: &[String]) -> Result<Vec<(String, String)>, OptionError> {
    let mut hosts = vec![];
    for text in flags {
        let Some((name, addresses)) = text.split_once('=').or_else(|| text.split_once(':')) else {
            return Err(bad("add-host", text, "it must be HOST:IP"));
        };
        for address in addresses.split(',') {
            let address = address.trim_start_matches('[').trim_end_matches(']');
            if address.parse::<std::net::IpAddr>().is_err() {
                return Err(bad("add-host", text, format!("`{address}` is not an IP address")));
            }
            hosts.push((name.to_string(), address.to_string()));
        }
    }
    Ok(hosts)
}

pub(super) fn network(text: &str) -> Result<frontend::op::Network, OptionError> {
    match text {
        "" | "default" => Ok(frontend::op::Network::Default),
        "none" => Ok(frontend::op::Network::None),
        "host" => Ok(frontend::op::Network::Host),
        _ => Err(bad("network", text, format!("network mode \"{text}\" not supported by buildkit, nor by kiln"))),
    }
}

pub(super) fn ulimit(text: &str) -> Result<(String, i64, i64), OptionError> {
    let problem = || bad("ulimit", text, "it must be TYPE=SOFT[:HARD], such as nofile=1024:2048");
    let (name, limits) = text.split_once('=').ok_or_else(problem)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| text.parse::<i64>().ok().filter(|n| *n >= -1).ok_or_else(problem);
    Ok((name.to_string(), number(soft)?, number(hard)?))
}
