//! Image references: `[domain/]path[:tag][@digest]` (reference/engine.md 4.1).

use serde::Serialize;
use std::fmt;
use thiserror::Error;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Reference {
    /// Such as `docker.io` or `localhost:5000`.
    pub domain: String,
    /// Such as `library/alpine`.
    pub path: String,
    /// `latest` where neither tag nor digest is written.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}

/// Why a text is not a reference.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// Does not follow the grammar.
    #[error("invalid reference format")]
    Format,
    /// Upper-case letters in the path.
    #[error("invalid reference format: repository name ({0}) must be lowercase")]
    UpperCase(String),
    /// Domain and path are longer than 255 bytes.
    #[error("repository name must not be more than 255 characters")]
    TooLong,
    /// 64 hexadecimal digits could be taken for an image id.
    #[error("invalid repository name ({0}), cannot specify 64-byte hexadecimal strings")]
    LooksLikeId(String),
    /// Upper-case or other letters in the digest.
    #[error("invalid checksum digest format")]
    DigestFormat,
    /// Such as `sha256:` and 40 digits.
    #[error("invalid checksum digest length")]
    DigestLength,
    /// Such as `md5:…`.
    #[error("unsupported digest algorithm")]
    DigestAlgorithm,
}

const DEFAULT_DOMAIN: &str = "docker.io";
const DEFAULT_TAG: &str = "latest";
const MAX_NAME_BYTES: usize = 255;

impl Reference {
    /// Parses and normalises: `alpine` is `docker.io/library/alpine:latest`.
    pub fn parse(text: &str) -> Result<Reference, ReferenceError> {
        if text.len() == 64 && text.bytes().all(is_lower_hex) {
            return Err(ReferenceError::LooksLikeId(text.into()));
        }
        let (domain, remainder) = split_domain(text);
        let remainder = if domain == DEFAULT_DOMAIN && !remainder.contains('/') {
            ["library/", remainder].concat()
        } else {
            remainder.to_owned()
        };
        let repository = remainder.split(':').next().unwrap_or_default();
        if repository.chars().any(char::is_uppercase) {
            return Err(ReferenceError::UpperCase(repository.into()));
        }

        let (name, digest) = match remainder.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (remainder.as_str(), None),
        };
        let (path, tag) = match name.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (name, None),
        };
        if domain != DEFAULT_DOMAIN && !is_domain(domain)
            || !path.split('/').all(is_component)
            || !tag.is_none_or(is_tag)
        {
            return Err(ReferenceError::Format);
        }
        if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(ReferenceError::TooLong);
        }
        digest.map_or(Ok(()), check_digest)?;
        let tag = tag.or(if digest.is_none() { Some(DEFAULT_TAG) } else { None });
        Ok(Reference {
            domain: domain.into(),
            path: path.into(),
            tag: tag.map(str::to_owned),
            digest: digest.map(str::to_owned),
        })
    }

    /// Short form as users write it: without `docker.io/` and `library/`.
    pub fn familiar(&self) -> String {
        let name = match self.path.strip_prefix("library/") {
            _ if self.domain != DEFAULT_DOMAIN => self.repository(),
            Some(name) if !name.contains('/') => name.to_owned(),
            _ => self.path.clone(),
        };
        format!("{name}{}", Suffix(self))
    }

    /// Domain and path, such as `docker.io/library/alpine`.
    pub fn repository(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }

    /// The same without digest, with the tag `latest` if that leaves it without both.
    pub fn without_digest(&self) -> Reference {
        let tag = self.tag.clone().unwrap_or_else(|| DEFAULT_TAG.into());
        Reference { tag: Some(tag), digest: None, ..self.clone() }
    }

    /// The same with another digest; the tag is kept.
    pub fn with_digest(&self, digest: &str) -> Reference {
        Reference { digest: Some(digest.into()), ..self.clone() }
    }

    /// What a registry is asked for: the digest if there is one, which decides alone, or else the tag.
    pub fn identifier(&self) -> &str {
        self.digest.as_deref().or(self.tag.as_deref()).unwrap_or(DEFAULT_TAG)
    }
}

/// Canonical full form, such as `docker.io/library/alpine:3@sha256:…`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}{}", self.domain, self.path, Suffix(self))
    }
}

impl std::str::FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Reference, ReferenceError> {
        Reference::parse(text)
    }
}

/// Tag and digest.
struct Suffix<'a>(&'a Reference);

impl fmt::Display for Suffix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(tag) = &self.0.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.0.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

/// The first component is a domain if it cannot be the first component of a path on Docker Hub.
fn split_domain(text: &str) -> (&str, &str) {
    match text.split_once('/') {
        Some((first, remainder))
            if first.contains(['.', ':']) || first == "localhost" || first.chars().any(char::is_uppercase) =>
        {
            (if first == "index.docker.io" { DEFAULT_DOMAIN } else { first }, remainder)
        }
        _ => (DEFAULT_DOMAIN, text),
    }
}

/// DNS labels or a bracketed IPv6 address, and optionally a port.
fn is_domain(domain: &str) -> bool {
    let (host, port) = match domain.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => {
            let address_fits = !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
            return address_fits && (port.is_empty() || port.strip_prefix(':').is_some_and(is_port));
        }
        None => match domain.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (domain, None),
        },
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

fn is_port(port: &str) -> bool {
    !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit())
}

/// Lower-case letters and digits, with single `.`, one or two `_`, or any number of `-` between them.
fn is_component(component: &str) -> bool {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if component.bytes().all(alphanumeric) {
        return !component.is_empty();
    }
    let separators = component.split(|c: char| c.is_ascii() && alphanumeric(c as u8)).filter(|part| !part.is_empty());
    let ends_fit =
        component.bytes().next().is_some_and(alphanumeric) && component.bytes().last().is_some_and(alphanumeric);
    ends_fit && separators.into_iter().all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|b| b == b'-'))
}

fn is_tag(tag: &str) -> bool {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    tag.len() <= 128
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|byte| word(byte) || byte == b'.' || byte == b'-')
}

fn check_digest(digest: &str) -> Result<(), ReferenceError> {
    let (algorithm, hex) = digest.split_once(':').ok_or(ReferenceError::Format)?;
    let is_part = |part: &str| {
        part.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic())
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let grammar = algorithm.split(['-', '_', '+', '.']).all(is_part)
        && hex.len() >= 32
        && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
    let length = match algorithm {
        _ if !grammar => return Err(ReferenceError::Format),
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(ReferenceError::DigestAlgorithm),
    };
    if hex.len() != length {
        return Err(ReferenceError::DigestLength);
    }
    if hex.bytes().all(is_lower_hex) { Ok(()) } else { Err(ReferenceError::DigestFormat) }
}

fn is_lower_hex(byte: u8) -> bool {
    byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(text: &str, full: &str, familiar: &str) {
        let reference = Reference::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar), "{text}");
    }

    #[test]
    fn normalises() {
        check("alpine", "docker.io/library/alpine:latest", "alpine:latest");
        check("a/b:1.0", "docker.io/a/b:1.0", "a/b:1.0");
        check("docker.io/alpine", "docker.io/library/alpine:latest", "alpine:latest");
        check("index.docker.io/a/b", "docker.io/a/b:latest", "a/b:latest");
        check("localhost/a", "localhost/a:latest", "localhost/a:latest");
        check("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x");
        check("ghcr.io/a/b-c__d.e--f", "ghcr.io/a/b-c__d.e--f:latest", "ghcr.io/a/b-c__d.e--f:latest");
        check("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest");
        check("HOST/a", "HOST/a:latest", "HOST/a:latest");
        check("library/a/b", "docker.io/library/a/b:latest", "library/a/b:latest");
    }

    #[test]
    fn digests() {
        let (pinned, both) = (format!("alpine@{DIGEST}"), format!("alpine:3@{DIGEST}"));
        check(&pinned, &format!("docker.io/library/{pinned}"), &pinned);
        check(&both, &format!("docker.io/library/{both}"), &both);
        let reference = Reference::parse(&both).unwrap();
        assert_eq!(reference.identifier(), DIGEST);
        assert_eq!(reference.without_digest().to_string(), "docker.io/library/alpine:3");
        assert_eq!(reference.repository(), "docker.io/library/alpine");
        assert_eq!(Reference::parse(&pinned).unwrap().without_digest().familiar(), "alpine:latest");
        assert_eq!(Reference::parse("alpine:3").unwrap().with_digest(DIGEST).familiar(), both);
    }

    #[test]
    fn errors() {
        let check = |text: &str, message: &str| {
            let shown =
                Reference::parse(text).map_or_else(|error| error.to_string(), |reference| reference.to_string());
            assert_eq!(shown, message, "{text}");
        };
        let format = "invalid reference format";
        let texts = [
            "",
            " ",
            "a b",
            "a:",
            "a:b:c",
            "a@",
            "a@b",
            ":a",
            "/a",
            "a//b",
            "a/",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a:-x",
            "x:5000/",
            "a.b:x/c",
            "-h.io/a",
            "a@sha256:12",
            "a@b@c",
            "é",
        ];
        for text in texts {
            check(text, format);
        }
        check("Base", &format!("{format}: repository name (library/Base) must be lowercase"));
        check("Upper/Case:tag", &format!("{format}: repository name (Case) must be lowercase"));
        check(&"a".repeat(300), "repository name must not be more than 255 characters");
        check(&format!("a:{}", "t".repeat(129)), format);
        let id = &DIGEST["sha256:".len()..];
        check(id, &format!("invalid repository name ({id}), cannot specify 64-byte hexadecimal strings"));
        check(&format!("a@{}", &DIGEST[..50]), "invalid checksum digest length");
        check(&format!("a@md5:{id}"), "unsupported digest algorithm");
        check(&format!("a@{}", DIGEST.to_uppercase().replace("SHA", "sha")), "invalid checksum digest format");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn round_trips(text in "([a-z]{1,3}\\.io(:[0-9]{2})?/)?[a-z0-9]{1,3}([._/-][a-z0-9]{1,3}){0,3}(:[A-Za-z0-9_.-]{1,4})?") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(Reference::parse(&reference.familiar()).unwrap(), reference);
            }
        }

        #[test]
        fn never_panics(text in "([aA0.:/@\\[\\]_-]|é|sha256:){0,12}") {
            let _ = Reference::parse(&text);
        }
    }
}
