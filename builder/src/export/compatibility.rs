//! `compatibility-version`: as which BuildKit images are put together, where a later one does it in another way and so gives
//! another digest (BuildKit's docs/build-repro.md). A rule of BuildKit's; kiln's own ways are no part of it.

use super::ExportError;
use super::attributes::Attributes;
use crate::cli::output::OutputSpec;

/// Of the attribute.
const KEY: &str = "compatibility-version";

/// A version that kiln can follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CompatibilityVersion {
    /// BuildKit 0.15 to 0.31: Docker's media types, unless there are attestations, and those in their older form.
    V20,
    /// The present one: OCI's media types, attestations as artifacts.
    #[default]
    V30,
}

impl CompatibilityVersion {
    /// As BuildKit calls it.
    pub fn number(self) -> u32 {
        match self {
            CompatibilityVersion::V20 => 20,
            CompatibilityVersion::V30 => 30,
        }
    }

    /// Takes the attribute.
    pub fn take(attributes: &mut Attributes) -> Result<CompatibilityVersion, ExportError> {
        let Some(text) = attributes.take(KEY) else { return Ok(CompatibilityVersion::default()) };
        parse(&text).map_err(|problem| attributes.bad(KEY, &text, problem))
    }

    /// That of a build: the same for all its images, as provenance says it of the build.
    pub fn of_build(outputs: &[OutputSpec]) -> Result<CompatibilityVersion, ExportError> {
        let images = outputs.iter().filter(|output| matches!(output.kind.as_str(), "image" | "oci" | "docker"));
        let mut versions = vec![];
        for OutputSpec { kind, attributes } in images {
            versions.push(CompatibilityVersion::take(&mut Attributes::new(kind, attributes.clone()))?);
        }
        match &versions[..] {
            [first, rest @ ..] if rest.iter().any(|other| other != first) => Err(ExportError::CompatibilityVersions),
            versions => Ok(versions.first().copied().unwrap_or_default()),
        }
    }
}

fn parse(text: &str) -> Result<CompatibilityVersion, &'static str> {
    match text.parse::<u32>() {
        Ok(20) => Ok(CompatibilityVersion::V20),
        Ok(30) => Ok(CompatibilityVersion::V30),
        Ok(10) => Err(
            "kiln has 20 and 30. Files of git repositories are of mode 0666 in 10, and zstd compresses in another way; \
             where neither matters, 20 gives what 10 does",
        ),
        Ok(number) if number > 30 => Err("it is later than this kiln: it has 20 and 30; upgrade it"),
        Ok(_) | Err(_) => Err("kiln has 20 and 30"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(kind: &str, version: Option<&str>) -> OutputSpec {
        let attributes = version.map(|version| (KEY.to_string(), version.to_string()));
        OutputSpec { kind: kind.into(), attributes: attributes.into_iter().collect() }
    }

    #[test]
    fn values() {
        let check = |text: &str, expect: &str| {
            let shown = parse(text).map_or_else(str::to_string, |version| version.number().to_string());
            assert!(shown.contains(expect), "{text}: {shown}");
        };
        check("20", "20");
        check("30", "30");
        check("10", "20 gives what 10 does");
        check("40", "upgrade");
        check("25", "kiln has 20 and 30");
        check("", "kiln has 20 and 30");
    }

    #[test]
    fn a_build_has_one() {
        let check = |outputs: &[OutputSpec], expect: Result<u32, &str>| {
            let found = CompatibilityVersion::of_build(outputs).map(CompatibilityVersion::number);
            assert_eq!(found.map_err(|error| error.to_string()), expect.map_err(str::to_string));
        };
        check(&[], Ok(30));
        check(&[output("local", None), output("oci", Some("20"))], Ok(20));
        check(&[output("docker", Some("20")), output("oci", Some("20"))], Ok(20));
        let differ = ExportError::CompatibilityVersions.to_string();
        check(&[output("image", None), output("oci", Some("20"))], Err(&differ));
    }
}
