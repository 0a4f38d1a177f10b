//! A running dockerd, spoken to over its socket (Docker Engine API, 1.24 and later; podman's service answers the same
//! questions). `load.rs` gives it images, `get.rs` takes them. Knows nothing of how archives are written or read.

mod get;
mod load;
mod place;
#[cfg(test)]
mod tests;

pub use get::DaemonImage;
pub use place::{Place, find};

use reqwest::{Method, Response, StatusCode};
use rustls::ClientConfig;
use rustls::crypto::ring;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Longest wait for a connection to a socket.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of an answer that says why.
const ERROR_LIMIT: usize = 64 << 10;

/// Why a daemon did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error("there is no dockerd here: {} does not exist", .sockets.join(" or "))]
    NoSocket { sockets: Vec<String> },
    #[error("kiln speaks to dockerd over unix sockets, and $DOCKER_HOST or the docker context is `{host}`")]
    NotASocket { host: String },
    #[error("cannot speak to dockerd at {}", socket.display())]
    Connect { socket: PathBuf, source: reqwest::Error },
    #[error("dockerd at {} has no image `{name}`", socket.display())]
    NoImage { socket: PathBuf, name: String },
    #[error("dockerd at {} refused to {verb}: {message}", socket.display())]
    Refused { socket: PathBuf, verb: &'static str, message: String },
    #[error("dockerd at {}: the connection broke while kiln wanted to {verb}", socket.display())]
    Broken { socket: PathBuf, verb: &'static str, source: reqwest::Error },
    #[error("dockerd at {} gave an answer that kiln cannot read", socket.display())]
    Answer { socket: PathBuf, source: serde_json::Error },
}

impl DaemonError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            DaemonError::NoSocket { .. } => {
                "start dockerd, or set DOCKER_HOST=unix:///path/to/its/socket; -o type=docker,dest=FILE writes an archive"
                    .into()
            }
            DaemonError::NotASocket { .. } => "set DOCKER_HOST=unix:///path/to/a/socket".into(),
            DaemonError::Connect { socket, .. } => format!(
                "see whether dockerd runs, and whether you may open {} (members of the group docker may)",
                socket.display()
            ),
            DaemonError::NoImage { name, .. } => format!("`docker pull {name}` has the daemon fetch it"),
            DaemonError::Refused { .. } | DaemonError::Broken { .. } | DaemonError::Answer { .. } => return None,
        })
    }
}

/// A connection to a daemon. Cheap to clone.
#[derive(Clone)]
pub struct Daemon {
    socket: PathBuf,
    client: reqwest::Client,
}

impl Daemon {
    /// At a socket. Connects at the first question.
    pub fn at(socket: &Path) -> Result<Daemon, DaemonError> {
        // Nothing is encrypted on a socket; the client wants to be told how all the same.
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("ring has the versions that it has")
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let client = reqwest::Client::builder()
            .unix_socket(socket)
            .connect_timeout(CONNECT_TIMEOUT)
            .no_proxy()
            .tls_backend_preconfigured(tls)
            .build()
            .map_err(|source| DaemonError::Connect { socket: socket.into(), source })?;
        Ok(Daemon { socket: socket.into(), client })
    }

    /// The daemon that `docker` would use, if that is one with a socket.
    pub fn here() -> Result<Daemon, DaemonError> {
        match find(&|name| std::env::var_os(name))? {
            Place::Socket(socket) => Daemon::at(&socket),
            Place::Other(host) => Err(DaemonError::NotASocket { host }),
        }
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<reqwest::Body>,
        verb: &'static str,
    ) -> Result<Response, DaemonError> {
        let mut request = self.client.request(method, format!("http://dockerd{path}"));
        if let Some(body) = body {
            request = request.header("Content-Type", "application/x-tar").body(body);
        }
        let response = request.send().await.map_err(|source| match source.is_connect() {
            true => DaemonError::Connect { socket: self.socket.clone(), source },
            false => self.broken(verb)(source),
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let bytes = response.bytes().await.unwrap_or_default();
        let said: Option<serde_json::Value> = serde_json::from_slice(&bytes[..bytes.len().min(ERROR_LIMIT)]).ok();
        let said = said.and_then(|said| Some(said["message"].as_str()?.to_string()));
        let message = said.unwrap_or_else(|| status.to_string());
        if status == StatusCode::NOT_FOUND
            && let Some(name) = path.strip_prefix("/images/").and_then(|rest| rest.rsplit_once('/'))
        {
            return Err(DaemonError::NoImage { socket: self.socket.clone(), name: name.0.to_string() });
        }
        Err(DaemonError::Refused { socket: self.socket.clone(), verb, message })
    }

    fn broken(&self, verb: &'static str) -> impl FnOnce(reqwest::Error) -> DaemonError {
        move |source| DaemonError::Broken { socket: self.socket.clone(), verb, source }
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, verb: &'static str) -> Result<T, DaemonError> {
        let response = self.ask(Method::GET, path, None, verb).await?;
        let bytes = response.bytes().await.map_err(self.broken(verb))?;
        serde_json::from_slice(&bytes).map_err(|source| DaemonError::Answer { socket: self.socket.clone(), source })
    }
}
