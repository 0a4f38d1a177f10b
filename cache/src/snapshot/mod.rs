//! Trees to mount. Snapshotters keep and describe them; they make no mounts.

pub mod native;
pub mod overlay;
