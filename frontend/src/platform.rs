//! Platforms: `os/arch/variant`, as Docker writes them (reference/engine.md 5).

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A normalised platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7`; empty where there is none.
    pub variant: String,
    /// Windows only; else empty.
    pub os_version: String,
}

/// Why a text is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PlatformError {
    /// Contains `*`.
    #[error("{0:?}: wildcards not yet supported: invalid argument")]
    Wildcard(String),
    /// A single word that is neither.
    #[error("{0:?}: unknown operating system or architecture: invalid argument")]
    Unknown(String),
    /// The first component is no name, nor a name with a version in parentheses.
    #[error("{component:?} is an invalid OS component of {text:?}: invalid argument")]
    Os {
        /// The first component.
        component: String,
        /// All of it.
        text: String,
    },
    /// A further component is empty or has characters that none has.
    #[error("{component:?} is an invalid component of {text:?}: invalid argument")]
    Component {
        /// The component.
        component: String,
        /// All of it.
        text: String,
    },
    /// More than three components.
    #[error("{0:?}: cannot parse platform specifier: invalid argument")]
    TooLong(String),
}

const KNOWN_OSES: &[&str] = &[
    "aix",
    "android",
    "darwin",
    "dragonfly",
    "freebsd",
    "hurd",
    "illumos",
    "ios",
    "js",
    "linux",
    "nacl",
    "netbsd",
    "openbsd",
    "plan9",
    "solaris",
    "windows",
    "zos",
];

const KNOWN_ARCHITECTURES: &[&str] = &[
    "386",
    "amd64",
    "amd64p32",
    "arm",
    "armbe",
    "arm64",
    "arm64be",
    "ppc64",
    "ppc64le",
    "loong64",
    "mips",
    "mipsle",
    "mips64",
    "mips64le",
    "mips64p32",
    "mips64p32le",
    "ppc",
    "riscv",
    "riscv64",
    "s390",
    "s390x",
    "sparc",
    "sparc64",
    "wasm",
];

impl Platform {
    /// Parses and normalises. `host` fills in what a single word leaves open.
    pub fn parse(text: &str, host: &Platform) -> Result<Platform, PlatformError> {
        if text.contains('*') {
            return Err(PlatformError::Wildcard(text.into()));
        }
        let parts: Vec<&str> = text.split('/').collect();
        let (os, os_version) =
            parse_os(parts[0]).ok_or_else(|| PlatformError::Os { component: parts[0].into(), text: text.into() })?;
        if let Some(component) = parts[1..].iter().find(|part| !is_word(part, "_.-")) {
            return Err(PlatformError::Component { component: component.to_string(), text: text.into() });
        }
        let platform = |os: &str, (architecture, variant): (String, String)| Platform {
            os: os.into(),
            architecture,
            variant,
            os_version: os_version.into(),
        };
        match parts[..] {
            [_] if KNOWN_OSES.contains(&os.as_str()) => {
                Ok(platform(&os, (host.architecture.clone(), host.variant.clone())))
            }
            [word] => {
                let normal = normalise_architecture(word, "");
                if !KNOWN_ARCHITECTURES.contains(&normal.0.as_str()) {
                    return Err(PlatformError::Unknown(text.into()));
                }
                Ok(platform(&host.os, normal))
            }
            [_, architecture] => Ok(platform(&os, normalise_architecture(architecture, ""))),
            [_, architecture, variant] => Ok(platform(&os, normalise_architecture(architecture, variant))),
            _ => Err(PlatformError::TooLong(text.into())),
        }
    }

    /// A platform from the fields of a config or descriptor, normalised.
    pub fn from_parts(os: &str, architecture: &str, variant: &str, os_version: &str) -> Platform {
        let (architecture, variant) = normalise_architecture(architecture, variant);
        Platform { os: normalise_os(os), architecture, variant, os_version: os_version.into() }
    }

    /// Platforms whose images run on this one, best first, itself included.
    pub fn acceptable(&self) -> Vec<Platform> {
        let other = |architecture: &str, variant: &str| Platform {
            architecture: architecture.into(),
            variant: variant.into(),
            ..self.clone()
        };
        let number = || self.variant.strip_prefix('v').and_then(|number| number.parse::<u32>().ok());
        let mut platforms = vec![self.clone()];
        match self.architecture.as_str() {
            "amd64" => {
                for lower in (1..number().unwrap_or(1).min(9)).rev() {
                    platforms.push(other("amd64", &if lower == 1 { String::new() } else { format!("v{lower}") }));
                }
                platforms.push(other("386", ""));
            }
            "arm64" => {
                platforms.extend(lower_arm64(&self.variant).iter().map(|variant| other("arm64", variant)));
                platforms.extend(["v8", "v7", "v6", "v5"].map(|variant| other("arm", variant)));
            }
            "arm" => {
                let lower = (5..number().unwrap_or(7).min(9)).rev();
                platforms.extend(lower.map(|lower| other("arm", &format!("v{lower}"))));
            }
            _ => {}
        }
        platforms
    }

    /// The platform of a Linux machine from the name that Rust gives its architecture (`std::env::consts::ARCH`).
    pub fn host_default(arch_of_std: &str) -> Platform {
        let little = cfg!(target_endian = "little");
        let architecture = match arch_of_std {
            "x86_64" => "amd64",
            "x86" => "386",
            "aarch64" => "arm64",
            "loongarch64" => "loong64",
            "powerpc64" if little => "ppc64le",
            "powerpc64" => "ppc64",
            "powerpc" => "ppc",
            "mips64" if little => "mips64le",
            "mips" if little => "mipsle",
            other => other,
        };
        Platform::from_parts("linux", architecture, "", "")
    }
}

/// `linux/arm/v7`
impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.os)?;
        if !self.os_version.is_empty() {
            write!(f, "({})", self.os_version)?;
        }
        write!(f, "/{}", self.architecture)?;
        if !self.variant.is_empty() {
            write!(f, "/{}", self.variant)?;
        }
        Ok(())
    }
}

/// `name` or `name(version+feature…)`. Features are checked and dropped: nothing asks for them.
fn parse_os(component: &str) -> Option<(String, &str)> {
    let (name, version) = match component.split_once('(') {
        Some((name, version)) => (name, version.strip_suffix(')')?),
        None => (component, ""),
    };
    let mut parts = version.split('+');
    let version = parts.next().unwrap_or_default();
    let fits = is_word(name, "_-")
        && (version.is_empty() || is_word(version, "_.-"))
        && parts.all(|feature| is_word(feature, "_.%-"));
    fits.then(|| (normalise_os(name), version))
}

fn is_word(text: &str, others: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

fn normalise_os(os: &str) -> String {
    let os = os.to_ascii_lowercase();
    if os == "macos" { "darwin".into() } else { os }
}

fn normalise_architecture(architecture: &str, variant: &str) -> (String, String) {
    let (architecture, variant) = (architecture.to_ascii_lowercase(), variant.to_ascii_lowercase());
    let (architecture, variant) = match (architecture.as_str(), variant.as_str()) {
        ("i386", _) => ("386", ""),
        ("x86_64" | "x86-64" | "amd64", "v1") => ("amd64", ""),
        ("x86_64" | "x86-64" | "amd64", variant) => ("amd64", variant),
        ("aarch64" | "arm64", "8" | "v8" | "v8.0") => ("arm64", ""),
        ("aarch64" | "arm64", "9" | "9.0" | "v9.0") => ("arm64", "v9"),
        ("aarch64" | "arm64", variant) => ("arm64", variant),
        ("armhf", _) => ("arm", "v7"),
        ("armel", _) => ("arm", "v6"),
        ("arm", "" | "7") => ("arm", "v7"),
        ("arm", "5") => ("arm", "v5"),
        ("arm", "6") => ("arm", "v6"),
        ("arm", "8") => ("arm", "v8"),
        (architecture, variant) => (architecture, variant),
    };
    (architecture.to_owned(), variant.to_owned())
}

/// Variants of arm64 below one, best first. v9.x has all of v8.(x+5).
fn lower_arm64(variant: &str) -> Vec<String> {
    let (major, minor) = variant.split_once('.').unwrap_or((variant, "0"));
    let minor: u32 = minor.parse().unwrap_or(0).min(9);
    let name = |major: u32, minor: u32| match (major, minor) {
        (8, 0) => String::new(),
        (major, 0) => format!("v{major}"),
        (major, minor) => format!("v{major}.{minor}"),
    };
    match major {
        "v9" => {
            let nines = (0..minor).rev().map(|minor| name(9, minor));
            let eights = (0..=(minor + 5).min(9)).rev().map(|minor| name(8, minor));
            nines.chain(eights).collect()
        }
        "v8" => (0..minor).rev().map(|minor| name(8, minor)).collect(),
        _ => vec![],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> Platform {
        Platform::host_default("aarch64")
    }

    fn parse(text: &str) -> Platform {
        Platform::parse(text, &host()).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    #[test]
    fn normalises() {
        for (text, expect) in [
            ("linux", "linux/arm64"),
            ("Windows", "windows/arm64"),
            ("macos", "darwin/arm64"),
            ("amd64", "linux/amd64"),
            ("x86_64", "linux/amd64"),
            ("arm", "linux/arm/v7"),
            ("armel", "linux/arm/v6"),
            ("linux/i386", "linux/386"),
            ("linux/x86-64", "linux/amd64"),
            ("linux/amd64/v1", "linux/amd64"),
            ("linux/amd64/v3", "linux/amd64/v3"),
            ("LINUX/AArch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm64/v8.2", "linux/arm64/v8.2"),
            ("linux/arm64/9", "linux/arm64/v9"),
            ("linux/armhf", "linux/arm/v7"),
            ("linux/arm/6", "linux/arm/v6"),
            ("linux/arm/V7", "linux/arm/v7"),
            ("linux/loong64", "linux/loong64"),
            ("linux/unheard", "linux/unheard"),
            ("windows(10.0.17763+a)/amd64", "windows(10.0.17763)/amd64"),
        ] {
            assert_eq!(parse(text).to_string(), expect, "{text}");
            assert_eq!(parse(&parse(text).to_string()), parse(text), "{text}");
        }
    }

    #[test]
    fn errors() {
        for (text, expect) in [
            ("foo", "\"foo\": unknown operating system or architecture: invalid argument"),
            ("linux/*", "\"linux/*\": wildcards not yet supported: invalid argument"),
            ("", "\"\" is an invalid OS component of \"\": invalid argument"),
            ("a b/c", "\"a b\" is an invalid OS component of \"a b/c\": invalid argument"),
            ("windows(1/amd64", "\"windows(1\" is an invalid OS component of \"windows(1/amd64\": invalid argument"),
            ("linux/", "\"\" is an invalid component of \"linux/\": invalid argument"),
            ("a/b/c/d/e", "\"a/b/c/d/e\": cannot parse platform specifier: invalid argument"),
        ] {
            assert_eq!(Platform::parse(text, &host()).unwrap_err().to_string(), expect, "{text}");
        }
    }

    #[test]
    fn acceptable_in_order() {
        let arm = ["linux/arm/v8", "linux/arm/v7", "linux/arm/v6", "linux/arm/v5"];
        let check = |text: &str, expect: &[&str]| {
            let platforms: Vec<_> = parse(text).acceptable().iter().map(Platform::to_string).collect();
            assert_eq!(platforms, expect, "{text}");
        };
        check("linux/amd64", &["linux/amd64", "linux/386"]);
        check("linux/amd64/v3", &["linux/amd64/v3", "linux/amd64/v2", "linux/amd64", "linux/386"]);
        check("linux/arm64", &[&["linux/arm64"][..], &arm].concat());
        let lower = ["linux/arm64/v8.1", "linux/arm64/v8.1", "linux/arm64"];
        check("linux/arm64/v8.1", &[&lower[1..], &arm].concat());
        let nine = ["v9.1", "v9", "v8.6", "v8.5", "v8.4", "v8.3", "v8.2", "v8.1"].map(|v| format!("linux/arm64/{v}"));
        let nine: Vec<&str> = nine.iter().map(String::as_str).chain(["linux/arm64"]).chain(arm).collect();
        check("linux/arm64/v9.1", &nine);
        check("linux/arm/v7", &arm[1..]);
        check("linux/arm/v5", &arm[3..]);
        check("linux/s390x", &["linux/s390x"]);
    }

    #[test]
    fn hosts() {
        for (arch, expect) in
            [("x86_64", "linux/amd64"), ("x86", "linux/386"), ("arm", "linux/arm/v7"), ("s390x", "linux/s390x")]
        {
            assert_eq!(Platform::host_default(arch).to_string(), expect);
        }
        assert_eq!(Platform::from_parts("Linux", "arm64", "v8", "").to_string(), "linux/arm64");
    }
}
