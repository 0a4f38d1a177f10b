//! What `--metadata-file` says of the build itself, beside what the exporters say of their results
//! (reference/engine.md 1.7).

use super::facts::Facts;
use super::provenance::Provenance;
use super::request::{Mode, ProvenanceRequest, SlsaVersion};
use crate::cli::values::boolean_variable;
use crate::export::Response;
use frontend::platform::Platform;
use serde_json::Value;
use std::sync::Arc;

/// What is to be in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetadataOptions {
    /// `BUILDX_METADATA_PROVENANCE`: how much provenance; `None` for none.
    pub provenance: Option<Mode>,
    /// `BUILDX_METADATA_WARNINGS`.
    pub warnings: bool,
}

impl MetadataOptions {
    /// As the environment says. Another value than those known is an error: the one that is meant.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<MetadataOptions, String> {
        let provenance = match environment("BUILDX_METADATA_PROVENANCE").as_deref() {
            None | Some("" | "min" | "true" | "1") => Some(Mode::Min),
            Some("max") => Some(Mode::Max),
            Some("disabled" | "false" | "0") => None,
            Some(other) => {
                return Err(format!("BUILDX_METADATA_PROVENANCE is {other:?}; it must be min, max or disabled"));
            }
        };
        let warnings = boolean_variable(environment, "BUILDX_METADATA_WARNINGS", false)?;
        Ok(MetadataOptions { provenance, warnings })
    }
}

/// `buildx.build.…` but for warnings. `id` is the build's name in the history.
pub fn of_build(id: &str, platforms: &[Platform], facts: &[Arc<Facts>], options: MetadataOptions) -> Response {
    let mut metadata = Response::new();
    metadata.insert("buildx.build.ref".into(), format!("kiln/kiln/{id}").into());
    let Some(mode) = options.provenance else { return metadata };
    for (platform, facts) in platforms.iter().zip(facts) {
        let request = ProvenanceRequest {
            mode,
            version: SlsaVersion::V02,
            builder_id: String::new(),
            filename: String::new(),
            reproducible: false,
            inline_only: false,
        };
        let predicate: Value = Provenance { request, facts: facts.clone() }.predicate(&[]);
        let key = match platforms.len() {
            1 => "buildx.build.provenance".to_string(),
            _ => format!("buildx.build.provenance/{platform}"),
        };
        metadata.insert(key, predicate);
    }
    metadata
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        let read = |provenance: &'static str, warnings: &'static str| {
            let value = move |name: &str| match name {
                "BUILDX_METADATA_PROVENANCE" => Some(provenance.to_string()),
                _ => Some(warnings.to_string()),
            };
            MetadataOptions::from_environment(&value).map(|options| (options.provenance, options.warnings))
        };
        assert_eq!(read("", ""), Ok((Some(Mode::Min), false)));
        assert_eq!(read("max", "1"), Ok((Some(Mode::Max), true)));
        assert_eq!(read("disabled", "false"), Ok((None, false)));
        assert!(read("some", "").unwrap_err().contains("min, max or disabled"));
        assert!(read("", "many").unwrap_err().contains("true or false"));
    }
}
