//! `--attest`, `--provenance` and `--sbom`: which attestations a build makes (reference/engine.md 8.1).

use crate::cli::csv;
use frontend::reference::{Reference, ReferenceError};
use std::collections::BTreeMap;

/// What is attested. Nothing, unless it is asked for: see docs/attestations.md.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AttestRequest {
    pub provenance: Option<ProvenanceRequest>,
    pub sbom: Option<SbomRequest>,
}

/// `type=provenance`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenanceRequest {
    pub mode: Mode,
    pub version: SlsaVersion,
    /// `builder.id`; empty if nobody said one.
    pub builder_id: String,
    /// For exporters that write files.
    pub filename: String,
    /// What the user claims.
    pub reproducible: bool,
    /// Only for what is pushed.
    pub inline_only: bool,
}

/// How much is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing that could be private: no values of arguments, no names of secrets, no steps.
    Min,
    /// All that is known.
    Max,
}

/// Version of the predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SlsaVersion {
    V02,
    V1,
}

/// `type=sbom`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SbomRequest {
    pub scanner: Scanner,
}

/// Who lists the packages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scanner {
    /// kiln itself.
    BuiltIn,
    /// An image that follows BuildKit's protocol, with parameters for it.
    Image { reference: Reference, parameters: BTreeMap<String, String> },
}

/// A flag that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum AttestFlagError {
    #[error("invalid --{flag}")]
    Record { flag: &'static str, source: csv::BadRecord },
    #[error(
        "invalid value \"{value}\" for --attest: it must be type=provenance or type=sbom, with options after commas"
    )]
    Type { value: String },
    #[error("invalid value \"{value}\" for {key} of {kind} attestations: it must be {expected}")]
    Value { kind: &'static str, key: &'static str, value: String, expected: &'static str },
    #[error("invalid generator of SBOMs \"{value}\"")]
    Generator { value: String, source: ReferenceError },
    #[error("unknown option {key:?} of {kind} attestations; kiln has {known}")]
    Unknown { kind: &'static str, key: String, known: &'static str },
}

const PROVENANCE_KEYS: &str = "mode, version, builder-id, filename, reproducible, inline-only, disabled";
const SBOM_KEYS: &str = "generator, disabled; others are for a generator";

type Fields = Vec<(String, String)>;

/// Reads the flags. Of several for one type the first counts, and `--attest` comes before the others. An empty value
/// of a flag is one that was not given.
pub fn parse(
    attests: &[String],
    provenance: Option<&str>,
    sbom: Option<&str>,
) -> Result<AttestRequest, AttestFlagError> {
    let (mut of_provenance, mut of_sbom): (Option<Fields>, Option<Fields>) = (None, None);
    for value in attests {
        let mut fields = record("attest", value)?;
        let kind = fields.iter().position(|(key, _)| key == "type").map(|at| fields.remove(at).1);
        match kind.as_deref() {
            Some("provenance") => drop(of_provenance.get_or_insert(fields)),
            Some("sbom") => drop(of_sbom.get_or_insert(fields)),
            _ => return Err(AttestFlagError::Type { value: value.clone() }),
        }
    }
    if let Some(value) = provenance.filter(|value| !value.is_empty()) {
        let fields = shorthand("provenance", value)?;
        of_provenance.get_or_insert(fields);
    }
    if let Some(value) = sbom.filter(|value| !value.is_empty()) {
        let fields = shorthand("sbom", value)?;
        of_sbom.get_or_insert(fields);
    }
    let provenance = of_provenance.map(provenance_request).transpose()?.flatten();
    Ok(AttestRequest { provenance, sbom: of_sbom.map(sbom_request).transpose()?.flatten() })
}

/// A boolean switches the type on or off; anything else is a list of options.
fn shorthand(flag: &'static str, value: &str) -> Result<Fields, AttestFlagError> {
    match csv::boolean(value) {
        Some(is_on) => Ok(vec![("disabled".to_string(), (!is_on).to_string())]),
        None => record(flag, value),
    }
}

fn record(flag: &'static str, value: &str) -> Result<Fields, AttestFlagError> {
    let pairs = csv::pairs(value).map_err(|source| AttestFlagError::Record { flag, source })?;
    // `--provenance` and `--sbom` take the type too, as buildx does.
    let pairs = pairs.into_iter().filter(|(key, _)| flag == "attest" || key != "type");
    Ok(pairs.map(|(key, value)| (key, value.unwrap_or_default())).collect())
}

/// `None` if it is disabled.
fn provenance_request(fields: Fields) -> Result<Option<ProvenanceRequest>, AttestFlagError> {
    const KIND: &str = "provenance";
    let mut request = ProvenanceRequest {
        mode: Mode::Max,
        version: SlsaVersion::V1,
        builder_id: String::new(),
        filename: "provenance.json".into(),
        reproducible: false,
        inline_only: false,
    };
    let mut is_disabled = false;
    for (key, value) in fields {
        let bad = |key, expected| AttestFlagError::Value { kind: KIND, key, value: value.clone(), expected };
        let boolean = |key| csv::boolean(&value).ok_or_else(|| bad(key, "true or false"));
        match key.as_str() {
            "mode" => {
                request.mode = match value.as_str() {
                    "min" => Mode::Min,
                    "max" => Mode::Max,
                    _ => return Err(bad("mode", "min or max")),
                }
            }
            "version" => {
                request.version = match value.as_str() {
                    "v1" => SlsaVersion::V1,
                    "v0.2" => SlsaVersion::V02,
                    _ => return Err(bad("version", "v1 or v0.2")),
                }
            }
            "builder-id" => request.builder_id = value,
            "filename" if is_plain_name(&value) => request.filename = value,
            "filename" => return Err(bad("filename", "the name of a file, without folders")),
            "reproducible" => request.reproducible = boolean("reproducible")?,
            "inline-only" => request.inline_only = boolean("inline-only")?,
            "disabled" => is_disabled = boolean("disabled")?,
            _ => return Err(AttestFlagError::Unknown { kind: KIND, key, known: PROVENANCE_KEYS }),
        }
    }
    Ok((!is_disabled).then_some(request))
}

fn sbom_request(fields: Fields) -> Result<Option<SbomRequest>, AttestFlagError> {
    const KIND: &str = "SBOM";
    let (mut generator, mut is_disabled, mut parameters) = (None, false, BTreeMap::new());
    for (key, value) in fields {
        match key.as_str() {
            "generator" => {
                let parsed = Reference::parse(&value);
                generator = Some(parsed.map_err(|source| AttestFlagError::Generator { value, source })?);
            }
            "disabled" => {
                let expected = "true or false";
                let bad = || AttestFlagError::Value { kind: KIND, key: "disabled", value: value.clone(), expected };
                is_disabled = csv::boolean(&value).ok_or_else(bad)?;
            }
            _ => drop(parameters.insert(key, value)),
        }
    }
    let scanner = match (generator, parameters) {
        (None, parameters) => match parameters.into_keys().next() {
            None => Scanner::BuiltIn,
            Some(key) => return Err(AttestFlagError::Unknown { kind: KIND, key, known: SBOM_KEYS }),
        },
        (Some(reference), parameters) => Scanner::Image { reference, parameters },
    };
    Ok((!is_disabled).then_some(SbomRequest { scanner }))
}

fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && !name.contains('/') && name != "." && name != ".."
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(attests: &[&str], provenance: Option<&str>, sbom: Option<&str>) -> Result<AttestRequest, String> {
        let attests: Vec<String> = attests.iter().map(|text| text.to_string()).collect();
        parse(&attests, provenance, sbom).map_err(|error| error.to_string())
    }

    #[test]
    fn nothing_unless_asked_for() {
        for off in [None, Some(""), Some("false"), Some("disabled=true"), Some("mode=min,disabled=1")] {
            assert_eq!(read(&[], off, None).unwrap(), AttestRequest::default(), "{off:?}");
        }
        assert_eq!(read(&[], None, Some("false")).unwrap(), AttestRequest::default());
    }

    #[test]
    fn provenance() {
        let of = |value| read(&[], Some(value), None).unwrap().provenance.unwrap();
        let default = of("true");
        assert_eq!((default.mode, default.version), (Mode::Max, SlsaVersion::V1));
        assert_eq!(default.filename, "provenance.json");
        let all = of(
            "mode=min,version=v0.2,\"builder-id=https://ci.example/1,2\",filename=p.json,reproducible=true,inline-only=1",
        );
        let expected = ProvenanceRequest {
            mode: Mode::Min,
            version: SlsaVersion::V02,
            builder_id: "https://ci.example/1,2".into(),
            filename: "p.json".into(),
            reproducible: true,
            inline_only: true,
        };
        assert_eq!(all, expected);
    }

    #[test]
    fn the_first_of_a_type_counts() {
        let request = read(&["type=provenance,mode=min", "type=provenance,mode=max"], Some("mode=max"), None).unwrap();
        assert_eq!(request.provenance.unwrap().mode, Mode::Min);
        let request = read(&["type=sbom"], None, Some("false")).unwrap();
        assert_eq!(request.sbom, Some(SbomRequest { scanner: Scanner::BuiltIn }));
        assert_eq!(read(&["type=provenance,disabled=true"], Some("true"), None).unwrap().provenance, None);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let check = |attest: &[&str], provenance: Option<&str>, sbom: Option<&str>, expect: &str| {
            let error = read(attest, provenance, sbom).unwrap_err();
            assert!(error.contains(expect), "{error}");
        };
        check(&["provenance"], None, None, "type=provenance or type=sbom");
        check(&["type=vsa"], None, None, "type=provenance or type=sbom");
        check(&[], Some("mode=medium"), None, "it must be min or max");
        check(&[], Some("version=v2"), None, "it must be v1 or v0.2");
        check(&[], Some("filename=a/b"), None, "without folders");
        check(&[], Some("modus=min"), None, "unknown option \"modus\"");
        check(&[], Some("reproducible=maybe"), None, "it must be true or false");
        check(&[], None, Some("format=cyclonedx"), "unknown option \"format\"");
        check(&[], None, Some("generator=FOO"), "invalid generator");
    }
}
