//! dpkg's database: `/var/lib/dpkg/status`, and the folder `status.d` of images without dpkg (deb822(5)).

use super::package::{Distribution, Package};
use crate::attest::purl;
use std::collections::HashMap;

/// Packages that are installed. Paragraphs without a name are passed over.
pub fn packages(text: &str, distribution: &Distribution) -> Vec<Package> {
    let paragraphs = text.split("\n\n").map(fields);
    paragraphs.filter_map(|fields| package(&fields, distribution)).collect()
}

/// The first lines of the fields; long texts that go on below are of no use here.
fn fields(paragraph: &str) -> HashMap<&str, &str> {
    let lines = paragraph.lines().filter(|line| !line.starts_with([' ', '\t', '#']));
    lines.filter_map(|line| line.split_once(':')).map(|(name, value)| (name, value.trim())).collect()
}

fn package(fields: &HashMap<&str, &str>, distribution: &Distribution) -> Option<Package> {
    let get = |name: &str| fields.get(name).copied().unwrap_or_default();
    let (name, version) = (get("Package"), get("Version"));
    // `status.d` knows nothing else than what is there, and so has no status.
    let is_there = fields.get("Status").is_none_or(|status| status.split_whitespace().last() == Some("installed"));
    if name.is_empty() || !is_there {
        return None;
    }
    // `Source: glibc (2.36-9)`; without one, it is the package itself.
    let source = get("Source").replace([' ', ')'], "").replace('(', "@");
    let qualifiers =
        [("arch", get("Architecture").to_string()), ("distro", distribution.qualifier()), ("upstream", source)];
    Some(Package {
        name: name.to_string(),
        version: version.to_string(),
        purl: purl::package("deb", distribution.namespace("debian"), name, version, &qualifiers),
        license: String::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installed_ones() {
        let text = "Package: libc6\nStatus: install ok installed\nArchitecture: amd64\nSource: glibc (2.36-9)\n\
                    Version: 2.36-9+deb12u8\nDescription: GNU C Library\n Package: none\n\n\
                    Package: gone\nStatus: deinstall ok config-files\nVersion: 1\n\n\
                    Package: bare\nVersion: 1:2\n";
        let distribution = Distribution { id: "debian".into(), version: "12".into() };
        let found = packages(text, &distribution);
        let purls: Vec<&str> = found.iter().map(|package| package.purl.as_str()).collect();
        assert_eq!(
            purls,
            [
                "pkg:deb/debian/libc6@2.36-9%2Bdeb12u8?arch=amd64&distro=debian-12&upstream=glibc%402.36-9",
                "pkg:deb/debian/bare@1:2?distro=debian-12"
            ]
        );
    }
}
