//! `EXPOSE port …` (reference/dockerfile.md 2.9).

use super::flags::Flags;
use super::some_argument;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::image_config::Empty;
use crate::lint;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering};
use crate::words::{Lexer, split_words};
use std::net::IpAddr;
use std::ops::RangeInclusive;

/// The fields of an EXPOSE.
#[derive(Clone, Debug, PartialEq)]
pub struct Expose {
    /// Not yet expanded, sorted as texts.
    pub ports: Vec<Placed>,
}

impl Expose {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Expose, Diagnostic> {
        some_argument(node, "EXPOSE")?;
        Flags::check(node, &[])?;
        let mut ports = split_words(&node.rest);
        ports.sort_by(|a, b| a.as_str().cmp(b));
        Ok(Expose { ports })
    }

    /// Adds the ports to those that the image has.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let mut expanded = vec![];
        for written in &self.ports {
            let words = at.settings.lexer.expand_words(written, &at.stage.env.lookup());
            expanded.push((written, words.map_err(|error| at.word_error(&error, written))?.0));
        }
        let mut ports = vec![];
        let mut wrong: Option<Diagnostic> = None;
        for (written, words) in expanded {
            for word in words {
                let remark = if *written == word.as_str() { String::new() } else { format!("comes to {word:?}") };
                let spec = match PortSpec::parse(&word) {
                    Ok(spec) => spec,
                    Err(message) => {
                        wrong = Some(match wrong {
                            None => at.error_at(written, message, remark),
                            Some(first) => first.label(written.span(), message),
                        });
                        continue;
                    }
                };
                lint::expose(at, &word, &spec);
                let protocol = spec.protocol.to_lowercase();
                ports.extend(spec.ports.map(|port| format!("{port}/{protocol}")));
            }
        }
        if let Some(error) = wrong {
            return Err(error);
        }
        at.history(format!("EXPOSE [{}]", ports.join(" ")), LayerOf::Nothing);
        at.stage.config.config.exposed_ports.extend(ports.into_iter().map(|port| (port, Empty {})));
        Ok(())
    }
}

/// `[ip:][host:]container[/protocol]`, of which only the container's part has an effect.
#[derive(Clone, Debug, PartialEq)]
pub struct PortSpec {
    /// Of the container.
    pub ports: RangeInclusive<u16>,
    /// As written; `tcp` if it is not.
    pub protocol: String,
    /// An address or a host port is written.
    pub has_host_part: bool,
}

impl PortSpec {
    /// Parses a word.
    pub fn parse(word: &str) -> Result<PortSpec, String> {
        let mut parts = word.rsplitn(3, ':');
        let container = parts.next().unwrap_or_default();
        let host = parts.next().unwrap_or_default();
        let address = parts.next().unwrap_or_default();
        let (container, protocol) = container.split_once('/').unwrap_or((container, ""));
        if container.is_empty() {
            return Err(format!("invalid port: {word:?}: no port specified"));
        }
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        if !["tcp", "udp", "sctp"].contains(&protocol.to_lowercase().as_str()) {
            return Err(format!("invalid port: {word:?}: invalid proto: {protocol}"));
        }
        let bare = address.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(address);
        if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
            return Err(format!("invalid IP address: {address}"));
        }
        let ports = port_range(container).ok_or_else(|| format!("invalid containerPort: {container}"))?;
        if !host.is_empty() {
            let host_ports = port_range(host).ok_or_else(|| format!("invalid hostPort: {host}"))?;
            if ports.len() > 1 && ports.len() != host_ports.len() {
                return Err(format!("invalid ranges specified for container and host Ports: {container} and {host}"));
            }
        }
        let has_host_part = !(host.is_empty() && address.is_empty());
        Ok(PortSpec { ports, protocol: protocol.to_string(), has_host_part })
    }
}

/// `80` or `80-90`.
fn port_range(text: &str) -> Option<RangeInclusive<u16>> {
    let port = |text: &str| text.parse::<u16>().ok();
    match text.split_once('-') {
        None => port(text).map(|port| port..=port),
        Some((first, last)) => Some(port(first)?..=port(last)?).filter(|range| !range.is_empty()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::*;

    #[test]
    fn ports() {
        check_history("FROM a\nENV P=\"3 1-2/UDP\"\nEXPOSE 9 $P 10", &[
            "ENV P=3 1-2/UDP (empty)",
            "EXPOSE [3/tcp 1/udp 2/udp 10/tcp 9/tcp] (empty)",
        ]);
        let ports: Vec<_> = config("FROM a\nEXPOSE 80 80/udp\nEXPOSE 80").config.exposed_ports.into_keys().collect();
        assert_eq!(ports, ["80/tcp", "80/udp"]);
        check_errors("FROM a\nEXPOSE", &["EXPOSE requires at least one argument"]);
        check_errors("FROM a\nEXPOSE 70000", &["invalid containerPort: 70000"]);
        let message = "failed to process \"${X:?needed}\": X: needed";
        check_errors("FROM a\nARG X\nEXPOSE 0x50 ${X:?needed}", &[message]);
    }

    #[test]
    fn port_specs() {
        let check = |word: &str, expect: Result<(RangeInclusive<u16>, &str, bool), &str>| {
            let spec = PortSpec::parse(word).map(|spec| (spec.ports, spec.protocol, spec.has_host_part));
            let expect = expect.map(|(ports, protocol, host)| (ports, protocol.to_string(), host));
            assert_eq!(spec, expect.map_err(str::to_string), "{word}");
        };
        check("80", Ok((80..=80, "tcp", false)));
        check("7000-7003/UDP", Ok((7000..=7003, "UDP", false)));
        check("8080:80", Ok((80..=80, "tcp", true)));
        check("127.0.0.1:9000:90/udp", Ok((90..=90, "udp", true)));
        check("[::1]:1:2", Ok((2..=2, "tcp", true)));
        check("8000-8001:80", Ok((80..=80, "tcp", true)));
        check("70000", Err("invalid containerPort: 70000"));
        check("90-80", Err("invalid containerPort: 90-80"));
        check("x:80", Err("invalid hostPort: x"));
        check("1.2.3:80:80", Err("invalid IP address: 1.2.3"));
        check("80/pigeon", Err("invalid port: \"80/pigeon\": invalid proto: pigeon"));
        check("/tcp", Err("invalid port: \"/tcp\": no port specified"));
        check("1-3:1-2", Err("invalid ranges specified for container and host Ports: 1-2 and 1-3"));
    }
}
