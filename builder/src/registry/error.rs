//! What can go wrong between kiln and a registry, with advice where there is some.

use cache::StoreError;
use cache::digest::Digest;
use reqwest::{Method, StatusCode, Url};
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why talking to a registry failed.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// It answered, but not what was hoped for.
    #[error("{method} {url}: {status}{}", message.as_ref().map(|text| format!(": {text}")).unwrap_or_default())]
    Status {
        /// Of the request.
        method: Method,
        /// Of the request, without its query.
        url: String,
        /// Of the answer.
        status: StatusCode,
        /// `code: message` of the errors in the answer's body (distribution-spec, error codes).
        message: Option<String>,
        /// When it wants to be asked again (`Retry-After`).
        retry_after: Option<Duration>,
        /// What was known about who asks; for 401 and 403.
        login: Login,
    },
    /// A mirror answered that it does not have it, and the registry itself gave no answer.
    #[error("{mirror}, and the registry that it mirrors gives no answer")]
    OnlyMirror {
        /// What the mirror said.
        mirror: Box<RegistryError>,
        /// Why the registry says nothing.
        source: Box<RegistryError>,
    },
    /// No connection.
    #[error("cannot connect to {url}")]
    Connect {
        /// Of the request, without its query.
        url: String,
        /// Whether the server has answered before.
        met: bool,
        /// Such as a refused connection or a name that does not resolve.
        source: reqwest::Error,
    },
    /// No secure connection.
    #[error("tls: failed to verify certificate of {url}")]
    Tls {
        /// Of the request, without its query.
        url: String,
        /// What rustls says.
        source: reqwest::Error,
    },
    /// The answer to a TLS handshake was not TLS.
    #[error("server gave HTTP response to HTTPS client: {url}")]
    PlainHttp {
        /// Of the request, without its query.
        url: String,
        /// What rustls says.
        source: reqwest::Error,
    },
    /// The connection broke, or the answer is not HTTP.
    #[error("{method} {url} failed")]
    Transport {
        /// Of the request.
        method: Method,
        /// Of the request, without its query.
        url: String,
        /// What broke.
        source: reqwest::Error,
    },
    /// Nothing moved for too long.
    #[error("{method} {url}: no progress for {} s", after.as_secs())]
    Stalled {
        /// Of the request.
        method: Method,
        /// Of the request, without its query.
        url: String,
        /// How long.
        after: Duration,
    },
    /// An answer breaks the distribution-spec.
    #[error("{url}: unusable answer: {what}")]
    Answer {
        /// Of the request, without its query.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Bytes are not what their digest says.
    #[error("{url}: unexpected digest {actual}, expected {expected}")]
    Digest {
        /// Of the request.
        url: String,
        /// That was asked for.
        expected: Digest,
        /// That came.
        actual: Digest,
    },
    /// More or fewer bytes than the descriptor says.
    #[error("{url}: {actual} bytes, expected {expected}")]
    Size {
        /// Of the request.
        url: String,
        /// In bytes, from the descriptor.
        expected: u64,
        /// In bytes.
        actual: u64,
    },
    /// Docker's first format, whose digests are not of what is sent.
    #[error(
        "{url} is a Docker image of manifest version 2, schema 1, support for which has been removed \
         (https://docs.docker.com/go/deprecated-image-specs/)"
    )]
    Schema1 {
        /// Of the request.
        url: String,
    },
    /// A document is larger than any document has to be.
    #[error("{url}: document is larger than {limit} bytes")]
    TooLarge {
        /// Of the request.
        url: String,
        /// In bytes.
        limit: u64,
    },
    /// The registry asks for a login in a way that kiln does not know.
    #[error("{url} asks for authentication in no known way: `{challenge}`")]
    Challenge {
        /// Of the request.
        url: String,
        /// Its `WWW-Authenticate`.
        challenge: String,
    },
    /// The token server asks for a password without encryption, for a registry that has it.
    #[error("refusing to send credentials for {host} to `{realm}` without TLS")]
    InsecureRealm {
        /// The registry.
        host: String,
        /// The token server.
        realm: String,
    },
    /// A reference or a setting cannot be made a URL.
    #[error("`{0}` is not a host that requests can be sent to")]
    BadHost(String),
    /// A certificate or key cannot be used.
    #[error("cannot use `{}` for connections to {host}", path.display())]
    Certificate {
        /// Whose connections.
        host: String,
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The HTTP client cannot be made.
    #[error("cannot set up TLS for {host}")]
    Setup {
        /// Whose connections.
        host: String,
        /// What is wrong.
        source: Box<dyn Error + Send + Sync>,
    },
    /// The file that is to be pushed cannot be read.
    #[error("cannot read blob `{}`", path.display())]
    ReadBlob {
        /// In the store.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was known about who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// User name that was sent; `None` if none was found.
    pub user: Option<String>,
    /// What went wrong while looking for credentials.
    pub problems: Vec<String>,
}

impl RegistryError {
    /// Status of the answer, if it is one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            RegistryError::Status { status, .. } => Some(*status),
            RegistryError::OnlyMirror { mirror, .. } => mirror.status(),
            _ => None,
        }
    }

    /// When the server wants to be asked again, if it says so.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            RegistryError::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The failure of a registry, after that of the mirrors that were asked before. An answer tells more than none.
    pub(super) fn after_mirrors(self, mirrors: Option<RegistryError>) -> RegistryError {
        match mirrors {
            Some(mirror) if mirror.status().is_some() && self.status().is_none() => {
                RegistryError::OnlyMirror { mirror: Box::new(mirror), source: Box::new(self) }
            }
            _ => self,
        }
    }

    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            RegistryError::Status { status, login, url, .. } => status_help(*status, login, &host_of(url)),
            RegistryError::OnlyMirror { source, .. } => source.help(),
            RegistryError::PlainHttp { url, .. } => {
                let host = host_of(url);
                Some(format!("if {host} is meant to speak plain HTTP, set `http = true` in [registry.\"{host}\"]"))
            }
            RegistryError::Tls { url, .. } => {
                let host = host_of(url);
                Some(format!("if {host} has a certificate of its own, name its root as `ca` in [registry.\"{host}\"]"))
            }
            RegistryError::Digest { .. } => Some(
                "the registry, or a proxy on the way, has damaged or replaced the content; nothing of it was kept"
                    .into(),
            ),
            RegistryError::Schema1 { .. } => Some("push the image again with a current tool".into()),
            RegistryError::Connect { .. } => {
                Some("check the host's name, the network, and HTTPS_PROXY and NO_PROXY".into())
            }
            _ => None,
        }
    }
}

fn status_help(status: StatusCode, login: &Login, host: &str) -> Option<String> {
    let mut help = match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => match &login.user {
            None => format!("no credentials for {host} were found: try `kiln login {host}`"),
            Some(user) => format!("`{user}` may not do this on {host}, or the login is no longer valid"),
        },
        StatusCode::NOT_FOUND => "check the name and the tag; private images may need a login".into(),
        StatusCode::TOO_MANY_REQUESTS => {
            format!("{host} limits how often it is asked: log in, wait, or set up a mirror in kiln.toml")
        }
        StatusCode::BAD_REQUEST => {
            format!("if {host} speaks TLS, set `http = false` in [registry.\"{host}\"]")
        }
        _ => return None,
    };
    for problem in &login.problems {
        help.push_str("; ");
        help.push_str(problem);
    }
    Some(help)
}

fn host_of(url: &str) -> String {
    let Ok(url) = Url::parse(url) else { return url.to_string() };
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_string(), |port| format!("{host}:{port}"))
}

/// Sorts a failed request by what the user would have to do.
pub(crate) fn transport(method: &Method, url: &Url, source: reqwest::Error) -> RegistryError {
    let source = source.without_url();
    let url = plain(url);
    match tls_error(&source) {
        Some(rustls::Error::InvalidMessage(_)) => RegistryError::PlainHttp { url, source },
        Some(_) => RegistryError::Tls { url, source },
        None if source.is_connect() => RegistryError::Connect { url, met: false, source },
        None => RegistryError::Transport { method: method.clone(), url, source },
    }
}

/// Without the query, in which signed URLs carry secrets.
pub(crate) fn plain(url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.to_string()
}

fn tls_error<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An io::Error's source() skips the error that it wraps.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// `code: message` of each error in the body of an answer; else the start of the body, if it is text.
pub(super) fn message(body: &[u8]) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default)]
        errors: Vec<Entry>,
        #[serde(default, alias = "details", alias = "error_description")]
        message: Option<String>,
    }
    #[derive(serde::Deserialize)]
    struct Entry {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    if let Ok(body) = serde_json::from_slice::<Body>(body) {
        let entries = body.errors.iter().map(|entry| match entry.message.is_empty() {
            true => entry.code.to_lowercase(),
            false => format!("{}: {}", entry.code.to_lowercase().replace('_', " "), entry.message),
        });
        let text = entries.collect::<Vec<_>>().join("; ");
        return Some(text).filter(|text| !text.is_empty()).or(body.message);
    }
    let text = std::str::from_utf8(body).ok()?.trim();
    let is_short_text = !text.is_empty() && text.len() < 300 && !text.starts_with('<');
    is_short_text.then(|| text.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_bodies() {
        let check = |body: &str, expect: Option<&str>| assert_eq!(message(body.as_bytes()).as_deref(), expect);
        check(r#"{"errors":[{"code":"DENIED","message":"no"},{"code":"X_Y"}]}"#, Some("denied: no; x_y"));
        check(r#"{"details":"incorrect username or password"}"#, Some("incorrect username or password"));
        check("slow down\n", Some("slow down"));
        check("<html>", None);
        check("", None);
    }
}
