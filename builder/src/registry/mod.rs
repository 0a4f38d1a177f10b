//! Client of the distribution-spec: manifests, blobs, uploads, mounts. `client.rs` sends one request with everything
//! that belongs to it (`auth.rs`, `credentials.rs`, `retry.rs`), `hosts.rs` knows where a domain's requests go, `pull.rs`
//! and `push.rs` (with `upload.rs`) say what is asked for, `artefact.rs` for what is no image, `referrers.rs` for what is about
//! one, `settle.rs` for tags that several machines change; `login.rs` tries logins and `auth_file.rs` keeps them. What the
//! answers mean as images is `source/image.rs`.

pub mod artefact;
pub(crate) mod auth;
pub mod auth_file;
pub(crate) mod client;
pub mod credentials;
pub mod error;
pub(crate) mod hosts;
pub mod login;
pub mod pull;
pub mod push;
pub mod referrers;
pub mod retry;
pub mod settle;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod upload;

use crate::config::Config;
use crate::progress::Progress;
use credentials::Credentials;
use retry::RetryPolicy;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

pub use error::RegistryError;

/// What a layer may unpack to however small it is, in bytes.
const UNPACKED_LEAST: u64 = 4 << 30;
/// And beyond that, for each byte of its blob.
const UNPACKED_RATIO: u64 = 200;

/// Who may answer for a registry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trust {
    /// Whoever has a certificate that the configuration trusts.
    AsConfigured,
    /// Anyone, also without TLS.
    Anyone,
}

/// Talks to registries. Cheap to clone; clones share connections, tokens and limits.
#[derive(Clone)]
pub struct Registry {
    client: Arc<client::Client>,
    policy: RetryPolicy,
}

impl Registry {
    /// Opens nothing yet. `credentials` are asked for when a registry wants some.
    pub fn new(config: &Config, credentials: Credentials) -> Registry {
        Registry::with_policy(config, credentials, RetryPolicy::default())
    }

    /// What a layer's blob of `size` bytes may unpack to, in bytes. Compressors reach 1000 to 1 on nothing but zeros; what
    /// images have is 2 or 3 to 1.
    pub fn unpacked_limit(&self, size: u64) -> u64 {
        self.client.unpacked_layer.unwrap_or_else(|| UNPACKED_LEAST.saturating_add(size.saturating_mul(UNPACKED_RATIO)))
    }

    /// Shows from now on what is waited for.
    pub fn tell(&self, progress: &Progress) {
        let _ = self.client.progress.set(progress.clone());
    }

    /// The same with another patience.
    pub fn with_policy(config: &Config, credentials: Credentials, policy: RetryPolicy) -> Registry {
        Registry { client: Arc::new(client::Client::new(config, Arc::new(credentials), policy)), policy }
    }

    /// The same for what one can do without: each request is made so often at most.
    pub fn at_most(&self, attempts: u32) -> Registry {
        Registry { client: self.client.clone(), policy: self.policy.at_most(attempts) }
    }

    /// The same, trusting one domain more than the configuration does.
    pub fn trusting(&self, trust: Trust, domain: &str) -> Registry {
        match trust {
            Trust::AsConfigured => self.clone(),
            Trust::Anyone => Registry { client: Arc::new(self.client.trusting_anyone_at(domain)), ..*self },
        }
    }
}
