//! Client of the distribution-spec: manifests, blobs, uploads, mounts. `client.rs` sends one request with everything
//! that belongs to it (`auth.rs`, `credentials.rs`, `retry.rs`), `hosts.rs` knows where a domain's requests go, `pull.rs`
//! and `push.rs` say what is asked for, `artefact.rs` for what is no image. What the answers mean as images is `source/image.rs`.

pub mod artefact;
pub(crate) mod auth;
pub(crate) mod client;
pub mod credentials;
pub mod error;
pub(crate) mod hosts;
pub mod pull;
pub mod push;
pub mod retry;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

use crate::config::Config;
use credentials::Credentials;
use retry::RetryPolicy;
use std::sync::Arc;

pub use error::RegistryError;

/// Talks to registries. Cheap to clone; clones share connections, tokens and limits.
#[derive(Clone)]
pub struct Registry {
    client: Arc<client::Client>,
}

impl Registry {
    /// Opens nothing yet. `credentials` are asked for when a registry wants some.
    pub fn new(config: &Config, credentials: Credentials) -> Registry {
        Registry::with_policy(config, credentials, RetryPolicy::default())
    }

    /// The same with another patience.
    pub fn with_policy(config: &Config, credentials: Credentials, policy: RetryPolicy) -> Registry {
        Registry { client: Arc::new(client::Client::new(config, credentials, policy)) }
    }
}
