//! Image references: `[domain/]path[:tag][@digest]` (reference/engine.md 4.1).

use serde::Serialize;

/// A normalised reference.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Reference {
    /// Such as `docker.io` or `localhost:5000`.
    pub domain: String,
    /// Such as `library/alpine`.
    pub path: String,
    /// `latest` where neither tag nor digest is written.
    pub tag: Option<String>,
    /// `sha256:…`
    pub digest: Option<String>,
}
