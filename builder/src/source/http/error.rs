//! Why a file cannot be had from an HTTP(S) server, and what to do about it.

use crate::registry::RegistryError;
use crate::secret::SecretError;
use cache::digest::Digest;
use cache::error::{FileError, StoreError};
use std::sync::Arc;

/// Why a file was not fetched.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Not one that requests can be sent to.
    #[error("failed to fetch `{0}`: it is not a URL of a file")]
    Url(String),
    /// The server answered, but not with the file.
    #[error("failed to fetch {url}: invalid response status {status}")]
    Status {
        /// Without its query.
        url: String,
        /// Of the answer.
        status: u16,
        /// The id of the secret whose value was sent along.
        secret: Option<String>,
        /// The host, as it is in ids of secrets.
        host: String,
    },
    /// No answer, or one that broke off.
    #[error("failed to fetch the file")]
    Request(#[from] RegistryError),
    /// The file is not the expected one.
    #[error("digest mismatch for {url}: {actual} (expected: {expected})")]
    Checksum {
        /// Without its query.
        url: String,
        /// Of what came.
        actual: Digest,
        /// `--checksum`.
        expected: String,
    },
    /// A Dockerfile that is too large to be one.
    #[error("{url} is larger than the {limit} bytes that a Dockerfile may have")]
    TooLarge {
        /// Without its query.
        url: String,
        /// In bytes.
        limit: usize,
    },
    /// A secret for the server cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// A secret for the server cannot be sent.
    #[error("secret {0} has characters that a header cannot have")]
    SecretValue(String),
    /// The file cannot be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The build was stopped.
    #[error("Canceled: context canceled")]
    Canceled,
    /// Another step of this build asked first, and failed.
    #[error(transparent)]
    Shared(Arc<HttpError>),
}

impl HttpError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            HttpError::Status { status: 401 | 403 | 407, secret: Some(id), .. } => {
                Some(format!("the server does not take the value of secret {id}"))
            }
            HttpError::Status { status: 401 | 403, secret: None, host, .. } => Some(format!(
                "give a token with --secret id=HTTP_AUTH_TOKEN_{host},env=VARIABLE, or a whole header with \
                 id=HTTP_AUTH_HEADER_{host}"
            )),
            HttpError::Status { status: 404 | 410, .. } => Some("check the URL: the server has no such file".into()),
            HttpError::Request(RegistryError::Tls { .. }) => {
                Some("if the server has a certificate of its own, name a file with its root in SSL_CERT_FILE".into())
            }
            HttpError::Request(RegistryError::PlainHttp { .. }) => Some("write http:// in place of https://".into()),
            HttpError::Request(_) => Some(
                "check the URL, the network, and HTTPS_PROXY and NO_PROXY; with --checksum a file that was fetched \
                 before needs no network"
                    .into(),
            ),
            HttpError::Checksum { expected, .. } if !expected.starts_with("sha256:") => {
                Some("give a sha256 digest; others are not compared".into())
            }
            HttpError::Checksum { .. } => {
                Some("the file has changed, or is not the one that was meant; nothing of it was kept".into())
            }
            HttpError::Shared(error) => error.help(),
            _ => None,
        }
    }

    /// Whether the build was stopped, which is no failure of its own.
    pub fn is_canceled(&self) -> bool {
        match self {
            HttpError::Canceled => true,
            HttpError::Shared(error) => error.is_canceled(),
            _ => false,
        }
    }
}
