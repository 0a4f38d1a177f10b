//! Records inside of an image's config: `type=inline`.
//!
//! The config gets one member more, beside those of the image-spec, with an index of the kind that other caches have. It
//! names the image's own layers.

use cache::remote::{Index, IndexError};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::Value;

/// The config's member that holds an index.
pub const MEMBER: &str = "kiln.cache.v1";

/// What a config says of the steps that made the image.
#[derive(Debug, PartialEq, Eq)]
pub enum Inline {
    Nothing,
    /// BuildKit's, which says nothing to kiln.
    BuildKit,
    Records(Index),
}

#[derive(Deserialize)]
struct Members {
    #[serde(rename = "kiln.cache.v1", default)]
    kiln: Option<Value>,
    #[serde(rename = "moby.buildkit.cache.v0", default)]
    buildkit: Option<IgnoredAny>,
}

/// Reads a config.
pub fn read(config: &[u8]) -> Result<Inline, IndexError> {
    let members: Members = serde_json::from_slice(config)?;
    match (members.kiln, members.buildkit) {
        (Some(index), _) => Ok(Inline::Records(Index::parse(index.to_string().as_bytes())?)),
        (None, Some(_)) => Ok(Inline::BuildKit),
        (None, None) => Ok(Inline::Nothing),
    }
}

/// Adds an index to a config, which is a JSON object.
pub fn add(mut config: Vec<u8>, index: &Index) -> Vec<u8> {
    let end = config.iter().rposition(|byte| *byte == b'}').unwrap_or(config.len());
    config.truncate(end);
    config.extend_from_slice(format!(",\"{MEMBER}\":").as_bytes());
    config.extend_from_slice(&index.to_bytes());
    config.push(b'}');
    config
}

#[cfg(test)]
mod tests {
    use super::*;
    use cache::remote::index::Selection;
    use solver::key::CacheKey;

    #[test]
    fn what_is_added_is_read() {
        let config = br#"{"architecture":"amd64","rootfs":{}}"#.to_vec();
        assert_eq!(read(&config).unwrap(), Inline::Nothing);
        let mut index = Index::default();
        index.add_selection(CacheKey([7; 32]), Selection { digest: "x".into(), used: 3 });
        let with = add(config, &index);
        assert_eq!(read(&with).unwrap(), Inline::Records(index));
        let value: serde_json::Value = serde_json::from_slice(&with).unwrap();
        assert_eq!(value["architecture"], "amd64");
        assert_eq!(read(br#"{"moby.buildkit.cache.v0":"W10="}"#).unwrap(), Inline::BuildKit);
        assert!(read(br#"{"kiln.cache.v1":{"version":99}}"#).is_err());
    }
}
