//! The document: SPDX 2.3 in JSON (spdx.github.io/spdx-spec/v2.3). The same scan, time and name give the same bytes.

use super::package::Package;
use super::scan::{FileFact, Scan};
use cache::digest::{Descriptor, Digest};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// URL of the predicate's form.
pub const PREDICATE_TYPE: &str = "https://spdx.dev/Document";
/// Who made a document, or had it made.
pub const TOOL: &str = concat!("Tool: kiln-", env!("CARGO_PKG_VERSION"));
const NONE: &str = "NOASSERTION";
const ROOT: &str = "SPDXRef-Result";

/// Identifiers of SPDX's list that databases write; any other text becomes one of the document's own.
const LICENSES: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AFL-3.0",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-1.0-Perl",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-3-Clause-Clear",
    "BSD-4-Clause",
    "BSD-4-Clause-UC",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDDL-1.0",
    "CDDL-1.1",
    "curl",
    "EPL-1.0",
    "EPL-2.0",
    "FSFAP",
    "FSFUL",
    "FSFULLR",
    "FTL",
    "GFDL-1.1-or-later",
    "GFDL-1.2-or-later",
    "GFDL-1.3-only",
    "GFDL-1.3-or-later",
    "GPL-1.0-only",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "JSON",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "Libpng",
    "libpng-2.0",
    "libtiff",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "MS-PL",
    "MulanPSL-2.0",
    "NCSA",
    "NTP",
    "OFL-1.1",
    "OLDAP-2.8",
    "OpenSSL",
    "PHP-3.0",
    "PHP-3.01",
    "PostgreSQL",
    "PSF-2.0",
    "Python-2.0",
    "Python-2.0.1",
    "Ruby",
    "Sleepycat",
    "TCL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "UPL-1.0",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "Zlib",
    "zlib-acknowledgement",
    "ZPL-2.1",
];
const EXCEPTIONS: &[&str] = &[
    "Autoconf-exception-2.0",
    "Autoconf-exception-3.0",
    "Bison-exception-2.2",
    "Classpath-exception-2.0",
    "GCC-exception-3.1",
    "LLVM-exception",
    "OpenSSL-exception",
    "Qt-GPL-exception-1.0",
    "GPL-3.0-linking-exception",
    "Font-exception-2.0",
];

/// What a scan found, to be written down.
#[derive(Clone, Debug)]
pub struct Sbom {
    pub scan: Scan,
    /// Of the result: the image's name, or the platform where it has none.
    pub name: String,
    /// RFC 3339, in whole seconds.
    pub created: String,
}

impl Sbom {
    /// The document. `layers` are the image's, lowest first; none if the result is no image.
    pub fn document(&self, layers: &[Descriptor]) -> Value {
        let mut own_licenses = BTreeMap::new();
        let mut packages = vec![self.root()];
        packages.extend(self.scan.packages.iter().map(|(package, found_in)| {
            let mut said = package_entry(package, &mut own_licenses);
            let sources: Vec<String> = found_in.iter().map(|path| format!("/{path}")).collect();
            said["sourceInfo"] = format!("named by {}", sources.join(", ")).into();
            let of_layers = found_in.iter().filter_map(|path| layer(self.scan.files.get(path)?, layers));
            set_layers(&mut said, &of_layers.collect());
            said
        }));
        let files = self.scan.files.iter().map(|(path, fact)| file_entry(path, fact, layers));
        let mut document = json!({
            "spdxVersion": "SPDX-2.3",
            "dataLicense": "CC0-1.0",
            "SPDXID": "SPDXRef-DOCUMENT",
            "name": self.name,
            "creationInfo": {
                "created": self.created,
                "creators": [TOOL],
            },
            "packages": packages,
            "files": files.collect::<Vec<_>>(),
            "relationships": self.relationships(),
        });
        if !own_licenses.is_empty() {
            let texts =
                own_licenses.iter().map(|(id, text)| json!({ "licenseId": id, "extractedText": text, "name": text }));
            document["hasExtractedLicensingInfos"] = texts.collect();
        }
        if !self.scan.remarks.is_empty() {
            document["comment"] = self.scan.remarks.join("\n").into();
        }
        // Unique, as it must be, and the same for the same.
        let digest = Digest::of(document.to_string().as_bytes());
        document["documentNamespace"] = format!("https://spdx.org/spdxdocs/kiln-{}", digest.hex()).into();
        document
    }

    /// The result as a package of its own, which has the others in it.
    fn root(&self) -> Value {
        json!({
            "SPDXID": ROOT,
            "name": self.name,
            "primaryPackagePurpose": "CONTAINER",
            "downloadLocation": NONE,
            "filesAnalyzed": false,
            "licenseConcluded": NONE,
            "licenseDeclared": NONE,
            "copyrightText": NONE,
        })
    }

    fn relationships(&self) -> Vec<Value> {
        let relate = |from: &str, kind: &str, to: &str| json!({ "spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to });
        let mut all = vec![relate("SPDXRef-DOCUMENT", "DESCRIBES", ROOT)];
        all.extend(self.scan.packages.iter().map(|(package, _)| relate(ROOT, "CONTAINS", &package_id(package))));
        // Files are related to packages alone: what has files must say so of all it has.
        for (package, found_in) in &self.scan.packages {
            for path in found_in {
                let mut evidence = relate(&package_id(package), "OTHER", &file_id(path));
                evidence["comment"] = "evident-by: the file names the package".into();
                all.push(evidence);
            }
        }
        all
    }
}

fn package_entry(package: &Package, own_licenses: &mut BTreeMap<String, String>) -> Value {
    let mut said = json!({
        "SPDXID": package_id(package),
        "name": package.name,
        "downloadLocation": NONE,
        "filesAnalyzed": false,
        "licenseConcluded": NONE,
        "licenseDeclared": declared(&package.license, own_licenses),
        "copyrightText": NONE,
        "externalRefs": [{
            "referenceCategory": "PACKAGE-MANAGER",
            "referenceType": "purl",
            "referenceLocator": package.purl,
        }],
    });
    if !package.version.is_empty() {
        said["versionInfo"] = package.version.clone().into();
    }
    said
}

fn file_entry(path: &str, fact: &FileFact, layers: &[Descriptor]) -> Value {
    let mut said = json!({
        "SPDXID": file_id(path),
        "fileName": format!("./{path}"),
        "checksums": [
            { "algorithm": "SHA1", "checksumValue": fact.sha1 },
            { "algorithm": "SHA256", "checksumValue": fact.sha256 },
        ],
        "licenseConcluded": NONE,
        "copyrightText": NONE,
    });
    set_layers(&mut said, &layer(fact, layers).into_iter().collect());
    said
}

fn layer<'a>(fact: &FileFact, layers: &'a [Descriptor]) -> Option<&'a str> {
    Some(layers.get(fact.layer?)?.digest.as_str())
}

/// Says of an element which layers it is in, below what its comment says already.
pub fn set_layers(element: &mut Value, layers: &BTreeSet<&str>) {
    if layers.is_empty() {
        return;
    }
    let said = element["comment"].as_str().map(str::to_string);
    let lines = said.into_iter().chain(layers.iter().map(|layer| format!("layerID: {layer}")));
    element["comment"] = lines.collect::<Vec<_>>().join("\n").into();
}

fn package_id(package: &Package) -> String {
    // By all that it says: databases may disagree about the license of one package.
    let text = serde_json::to_string(package).expect("a package is plain data");
    format!("SPDXRef-Package-{}", &Digest::of(text.as_bytes()).hex()[..16])
}

fn file_id(path: &str) -> String {
    format!("SPDXRef-File-{}", &Digest::of(path.as_bytes()).hex()[..16])
}

/// A license as SPDX's expressions have it. A text that is none becomes a license of the document's own.
fn declared(text: &str, own: &mut BTreeMap<String, String>) -> String {
    let text = text.trim();
    match text {
        "" | "UNKNOWN" | "NOASSERTION" => NONE.into(),
        _ if is_expression(text) => text.into(),
        _ => {
            let id = format!("LicenseRef-{}", &Digest::of(text.as_bytes()).hex()[..16]);
            own.insert(id.clone(), text.into());
            id
        }
    }
}

/// Whether a text is an expression of known licenses (annex D): terms between AND and OR, in parentheses, with
/// exceptions.
fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let (mut depth, mut wants_term) = (0usize, true);
    let mut words = spaced.split_whitespace().peekable();
    while let Some(word) = words.next() {
        match (word, wants_term) {
            ("(", true) => depth += 1,
            (")", false) if depth > 0 => depth -= 1,
            ("AND" | "OR", false) => wants_term = true,
            ("WITH", false) => {
                if !words.next().is_some_and(|exception| EXCEPTIONS.contains(&exception)) {
                    return false;
                }
            }
            (license, true) if LICENSES.contains(&license) => wants_term = false,
            _ => return false,
        }
    }
    depth == 0 && !wants_term
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions() {
        let check = |text: &str, is_one: bool| assert_eq!(is_expression(text), is_one, "{text}");
        check("MIT", true);
        check("(MIT OR Apache-2.0) AND BSD-3-Clause", true);
        check("GPL-2.0-or-later WITH Classpath-exception-2.0", true);
        check("GPLv2+", false);
        check("MIT AND", false);
        check("(MIT", false);
        check("MIT WITH MIT", false);
        check("MIT Apache-2.0", false);
        check("", false);
    }

    fn sbom() -> Sbom {
        let package = Package::plain("deb", "debian", "bash", "5").licensed("GNU GPL, any");
        let file = FileFact { sha1: "0".repeat(40), sha256: "0".repeat(64), layer: Some(1) };
        let path = "var/lib/dpkg/status".to_string();
        let scan = Scan {
            packages: vec![(package, BTreeSet::from([path.clone()]))],
            files: BTreeMap::from([(path, file)]),
            remarks: vec!["a remark".into()],
        };
        Sbom { scan, name: "app:1".into(), created: "2026-01-01T00:00:00Z".into() }
    }

    #[test]
    fn every_element_is_related_and_every_license_explained() {
        let layer = |name: &str| Descriptor { media_type: "m".into(), digest: Digest::of(name.as_bytes()), size: 1 };
        let layers = [layer("a"), layer("b")];
        let document = sbom().document(&layers);
        assert_eq!(document, sbom().document(&layers));
        let package = &document["packages"][1];
        assert_eq!(package["comment"], format!("layerID: {}", layers[1].digest));
        assert_eq!(package["licenseDeclared"], document["hasExtractedLicensingInfos"][0]["licenseId"]);
        let related: Vec<_> = document["relationships"].as_array().unwrap().iter().collect();
        for element in [package, &document["files"][0]] {
            assert!(related.iter().any(|relation| relation["relatedSpdxElement"] == element["SPDXID"]), "{element}");
        }
        // Where there are no layers, nothing is said of them.
        let bare = sbom().document(&[]);
        assert_eq!(bare["packages"][1]["comment"], Value::Null);
        assert_ne!(bare["documentNamespace"], document["documentNamespace"]);
    }
}
