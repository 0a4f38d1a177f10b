//! A package, whoever installed it.

use crate::attest::purl;
use serde::{Deserialize, Serialize};

/// A package that something in the result names.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Package {
    pub name: String,
    /// Empty if nobody says it.
    pub version: String,
    /// Package URL, which also tells packages of one name and version apart.
    pub purl: String,
    /// As the database says; empty if it does not.
    pub license: String,
}

impl Package {
    /// Of a language's registry; nothing but name and version decides which it is.
    pub fn plain(kind: &str, namespace: &str, name: &str, version: &str) -> Package {
        let full = if namespace.is_empty() { name.to_string() } else { format!("{namespace}/{name}") };
        Package {
            purl: purl::package(kind, namespace, name, version, &[]),
            name: full,
            version: version.to_string(),
            license: String::new(),
        }
    }

    /// As [`Package::plain`]; what is before the last slash of `full` is the namespace.
    pub fn scoped(kind: &str, full: &str, version: &str) -> Package {
        let (namespace, name) = full.rsplit_once('/').unwrap_or(("", full));
        Package::plain(kind, namespace, name, version)
    }

    /// With a license, as it is written.
    pub fn licensed(self, license: &str) -> Package {
        Package { license: license.trim().to_string(), ..self }
    }
}

/// What the result says it is (os-release(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distribution {
    /// `ID`; empty if there is none.
    pub id: String,
    /// `VERSION_ID`; likewise.
    pub version: String,
}

impl Distribution {
    /// Reads os-release.
    pub fn parse(text: &str) -> Distribution {
        let mut distribution = Distribution::default();
        for line in text.lines() {
            let Some((key, value)) = line.trim().split_once('=') else { continue };
            let value = value.trim_matches(['"', '\'']).to_string();
            match key {
                "ID" => distribution.id = value,
                "VERSION_ID" => distribution.version = value,
                _ => {}
            }
        }
        distribution
    }

    /// The namespace of its packages in package URLs.
    pub fn namespace<'a>(&'a self, default: &'a str) -> &'a str {
        if self.id.is_empty() { default } else { &self.id }
    }

    /// Qualifier `distro` of package URLs; empty if it is not known.
    pub fn qualifier(&self) -> String {
        match (self.id.as_str(), self.version.as_str()) {
            ("", _) => String::new(),
            (id, "") => id.to_string(),
            (id, version) => format!("{id}-{version}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn os_release() {
        let text = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_ID=\"12\"\n";
        let debian = Distribution::parse(text);
        assert_eq!((debian.namespace("x"), debian.qualifier().as_str()), ("debian", "debian-12"));
        assert_eq!(Distribution::default().namespace("alpine"), "alpine");
    }
}
