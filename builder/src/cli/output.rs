//! `--output`: which exporter, with which attributes (reference/engine.md 1.3).

use super::csv;
use std::collections::BTreeMap;

/// One `--output`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputSpec {
    /// Such as `oci`; whether there is such an exporter is `export`'s business.
    pub kind: String,
    /// `type` left out.
    pub attributes: BTreeMap<String, String>,
}

/// A value of `--output` that cannot be understood.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    #[error("invalid --output")]
    Record(#[from] csv::BadRecord),
    #[error("invalid value {0} for --output: type is required for output")]
    NoType(String),
    #[error("invalid value {value} for --output: field `{field}` must be a key=value pair")]
    NotAPair { value: String, field: String },
}

/// Reads one value of `--output`: `-`, a folder, or `type=…,key=value…`.
pub fn parse(value: &str) -> Result<OutputSpec, OutputError> {
    let fields = csv::fields(value)?;
    let dest_only = |kind: &str, dest: &str| OutputSpec {
        kind: kind.into(),
        attributes: BTreeMap::from([("dest".to_string(), dest.to_string())]),
    };
    if let [only] = fields.as_slice()
        && only == value
        && !only.starts_with("type=")
    {
        return Ok(if only == "-" { dest_only("tar", "-") } else { dest_only("local", only) });
    }
    let mut attributes = BTreeMap::new();
    for field in &fields {
        let Some((key, field_value)) = field.split_once('=') else {
            return Err(OutputError::NotAPair { value: value.into(), field: field.clone() });
        };
        attributes.insert(key.trim().to_lowercase(), field_value.to_string());
    }
    match attributes.remove("type") {
        Some(kind) => Ok(OutputSpec { kind, attributes }),
        None => Err(OutputError::NoType(value.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_output() {
        let check = |value: &str, kind: &str, attributes: &[(&str, &str)]| {
            let spec = parse(value).unwrap();
            let want: BTreeMap<_, _> = attributes.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
            assert_eq!((spec.kind.as_str(), &spec.attributes), (kind, &want), "{value}");
        };
        check("-", "tar", &[("dest", "-")]);
        check("out", "local", &[("dest", "out")]);
        check("dest=x", "local", &[("dest", "dest=x")]);
        check("type=oci,dest=a.tar", "oci", &[("dest", "a.tar")]);
        check("type=image,\"name=a,b\",push=true", "image", &[("name", "a,b"), ("push", "true")]);
        assert!(matches!(parse("dest=a,push=true"), Err(OutputError::NoType(_))));
        assert!(matches!(parse("type=oci,x"), Err(OutputError::NotAPair { .. })));
    }
}
