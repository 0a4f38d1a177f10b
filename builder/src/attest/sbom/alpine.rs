//! apk's database: `/lib/apk/db/installed`, of one-letter fields.

use super::package::{Distribution, Package};
use crate::attest::purl;

/// Its packages. Entries without a name are passed over.
pub fn packages(text: &str, distribution: &Distribution) -> Vec<Package> {
    text.split("\n\n").filter_map(|entry| package(entry, distribution)).collect()
}

fn package(entry: &str, distribution: &Distribution) -> Option<Package> {
    let get = |letter: &str| {
        let mut lines = entry.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(name, _)| *name == letter).map(|(_, value)| value.trim()).unwrap_or_default()
    };
    let (name, version) = (get("P"), get("V"));
    if name.is_empty() {
        return None;
    }
    let origin = if get("o") == name { String::new() } else { get("o").to_string() };
    let qualifiers = [("arch", get("A").to_string()), ("distro", distribution.qualifier()), ("upstream", origin)];
    Some(Package {
        name: name.to_string(),
        version: version.to_string(),
        purl: purl::package("apk", distribution.namespace("alpine"), name, version, &qualifiers),
        license: get("L").to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries() {
        let text = "C:Q1abc=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\n\nP:ssl_client\nV:1\nL:GPL-2.0-only\no:busybox\n\n";
        let found = packages(text, &Distribution { id: "alpine".into(), version: "3.20.3".into() });
        assert_eq!(found[0].purl, "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64&distro=alpine-3.20.3");
        assert_eq!(found[0].license, "MIT");
        assert_eq!(found[1].purl, "pkg:apk/alpine/ssl_client@1?distro=alpine-3.20.3&upstream=busybox");
        assert_eq!(found.len(), 2);
    }
}
