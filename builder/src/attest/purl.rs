//! Package URLs, by which attestations name images and packages (package-url/purl-spec).

use frontend::platform::Platform;
use frontend::reference::Reference;
use std::fmt::Write;

/// An image: `pkg:docker/alpine@3.20?platform=linux%2Famd64`, with `digest=` if the reference has one. `kind` is
/// `docker` or `oci`.
pub fn image(kind: &str, reference: &Reference, platform: Option<&Platform>) -> String {
    let familiar = Reference { tag: None, digest: None, ..reference.clone() }.familiar();
    let (namespace, name) = familiar.rsplit_once('/').unwrap_or(("", &familiar));
    let mut qualifiers = vec![];
    if let Some(digest) = &reference.digest {
        qualifiers.push(("digest", digest.clone()));
    }
    if let Some(platform) = platform {
        qualifiers.push(("platform", platform.to_string()));
    }
    package(kind, namespace, name, reference.tag.as_deref().unwrap_or_default(), &qualifiers)
}

/// Any package. `namespace` may have parts, and like the version may be empty; qualifiers without a value are left out.
pub fn package(kind: &str, namespace: &str, name: &str, version: &str, qualifiers: &[(&str, String)]) -> String {
    let mut purl = format!("pkg:{kind}/");
    for part in namespace.split('/').filter(|part| !part.is_empty()) {
        escape(&mut purl, part);
        purl.push('/');
    }
    escape(&mut purl, name);
    if !version.is_empty() {
        purl.push('@');
        escape(&mut purl, version);
    }
    let mut qualifiers: Vec<_> = qualifiers.iter().filter(|(_, value)| !value.is_empty()).collect();
    qualifiers.sort();
    for (position, (key, value)) in qualifiers.into_iter().enumerate() {
        purl.push(if position == 0 { '?' } else { '&' });
        purl.push_str(key);
        purl.push('=');
        escape(&mut purl, value);
    }
    purl
}

/// Percent-encodes all but unreserved characters and the colon.
fn escape(purl: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => purl.push(byte as char),
            _ => drop(write!(purl, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images() {
        let check = |reference: &str, expect: &str| {
            let platform = Platform::host_default("x86_64");
            assert_eq!(image("docker", &Reference::parse(reference).unwrap(), Some(&platform)), expect);
        };
        check("alpine:3.20", "pkg:docker/alpine@3.20?platform=linux%2Famd64");
        check("docker/buildx", "pkg:docker/docker/buildx@latest?platform=linux%2Famd64");
        check("r.example:5000/a/b:1", "pkg:docker/r.example:5000/a/b@1?platform=linux%2Famd64");
        let digest = format!("sha256:{}", "0".repeat(64));
        check(&format!("alpine@{digest}"), &format!("pkg:docker/alpine?digest={digest}&platform=linux%2Famd64"));
    }

    #[test]
    fn packages() {
        let arch = ("arch", "amd64".to_string());
        let none = ("epoch", String::new());
        let purl = package("deb", "debian", "libstdc++6", "12.2.0-14+deb12u1", &[none, arch]);
        assert_eq!(purl, "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64");
        assert_eq!(package("npm", "@angular", "core", "17.0.0", &[]), "pkg:npm/%40angular/core@17.0.0");
    }
}
