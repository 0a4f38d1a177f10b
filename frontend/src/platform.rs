//! Platforms: `os/arch/variant`, as Docker writes them (reference/engine.md 5).

use serde::{Deserialize, Serialize};

/// A normalised platform.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// Such as `linux`.
    pub os: String,
    /// Such as `amd64`.
    pub architecture: String,
    /// Such as `v7`; empty where there is none.
    pub variant: String,
    /// Windows only; else empty.
    pub os_version: String,
}
