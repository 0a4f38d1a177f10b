//! kiln's program: all that touches kernel, network or person.
//!
//! Start with [`pipeline`], the build from top to bottom. [`step`] implements what the solver asks of steps, with
//! [`sandbox`] to run commands and [`source`] to bring trees in; [`image`] and [`export`] turn results into images and
//! files; [`attest`] says how they were made and what is in them; [`local`] is the images that the store has by name, [`dockerd`]
//! those of a daemon, and [`analyze`] looks into either; [`manifest`] joins images in registries; [`call`] answers questions
//! in place of a build; [`explain`] says why steps run; [`registry`] talks to
//! registries, [`remote_cache`] to the caches of other machines; [`progress`] and [`report`] talk to people.
//!
//! Invariant: nothing but `report` and `progress` writes to the terminal, and only `sandbox::syscall` is `unsafe`.

pub mod analyze;
pub mod attest;
pub mod call;
pub mod cancel;
pub mod cli;
pub mod config;
pub mod containerd;
pub mod dockerd;
pub mod explain;
pub mod export;
pub mod forecast;
pub mod history;
pub mod image;
pub mod inputs;
pub mod jobs;
pub mod local;
pub mod manifest;
pub mod pipeline;
pub mod progress;
#[cfg(any(test, feature = "testing"))]
pub mod properties;
pub mod publish;
pub mod registry;
pub mod remote_cache;
pub mod report;
pub mod sandbox;
pub mod secret;
pub mod source;
pub mod space;
pub mod ssh;
pub mod stage_shell;
pub mod step;
pub mod terminal;

use anyhow::{Context, Result};
pub use cache::time;
use frontend::platform::Platform;
use sandbox::userns::Identity;
use std::path::PathBuf;

/// The platform of the machine that kiln runs on.
pub fn host_platform() -> Platform {
    Platform::host_default(std::env::consts::ARCH)
}

/// Where the store is if nothing else is said: /var/lib/kiln for root, the user's data folder for others.
pub fn default_root(identity: &Identity) -> Result<PathBuf> {
    if *identity == Identity::Root {
        return Ok("/var/lib/kiln".into());
    }
    let data = std::env::var_os("XDG_DATA_HOME").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/share"));
    let data =
        data.or_else(home).context("neither $XDG_DATA_HOME nor $HOME is set; say where the store is with --root")?;
    Ok(data.join("kiln"))
}
