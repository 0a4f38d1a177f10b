//! One request for a file: proxies, certificates, redirects, credentials, and another attempt where one may help.

use super::HttpError;
use crate::cancel::Cancel;
use crate::registry::RegistryError;
use crate::registry::client::STALL_TIMEOUT;
use crate::registry::error::{plain, transport};
use crate::registry::hosts::{CONNECT_TIMEOUT, USER_AGENT, is_loopback, system_roots};
use crate::registry::retry::{RetryPolicy, may_pass, retry_after, status_may_pass};
use crate::secret::Secrets;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response, StatusCode, Url};
use rustls::ClientConfig;
use rustls::crypto::ring;
use std::future::Future;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Most redirects that are followed, as Go's client does.
const REDIRECTS_MAX: usize = 10;

/// Sends requests. Opens nothing before the first.
pub(super) struct HttpClient {
    pub policy: RetryPolicy,
    pub cancel: Cancel,
    proxied: OnceLock<Client>,
    direct: OnceLock<Client>,
}

/// What is sent as `Authorization`, and the id of the secret that it comes from.
pub(super) struct Credentials {
    pub secret: String,
    pub header: HeaderValue,
}

/// A failed attempt: why, and the answer's `Retry-After`.
pub(super) type Failure = (HttpError, Option<Duration>);

impl HttpClient {
    pub fn new(policy: RetryPolicy, cancel: Cancel) -> HttpClient {
        HttpClient { policy, cancel, proxied: OnceLock::new(), direct: OnceLock::new() }
    }

    /// Repeats `attempt` as the policy says, until it succeeds or cannot.
    pub async fn retrying<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, HttpError> {
        let mut retries = self.policy.begin();
        loop {
            let attempted = tokio::select! {
                attempted = attempt() => attempted,
                () = self.cancel.canceled() => return Err(HttpError::Canceled),
            };
            let (error, asked) = match attempted {
                Ok(done) => return Ok(done),
                Err(failure) => failure,
            };
            let may_pass = match &error {
                HttpError::Status { status, .. } => StatusCode::from_u16(*status).is_ok_and(status_may_pass),
                HttpError::Request(error) => may_pass(error),
                _ => false,
            };
            let Some(wait) = retries.delay(asked).filter(|_| may_pass) else { return Err(error) };
            tracing::debug!(%error, ?wait, "file will be asked for again");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.cancel.canceled() => return Err(HttpError::Canceled),
            }
        }
    }

    /// Asks once; redirects are followed. An answer of another status than 2xx, or 304 to a conditional request, is a
    /// failure.
    pub async fn get(
        &self,
        url: &Url,
        conditions: &HeaderMap,
        credentials: Option<&Credentials>,
    ) -> Result<Response, Failure> {
        let client = self.client(url).map_err(|error| (error, None))?;
        let mut request = client.get(without_user(url, credentials)).headers(conditions.clone());
        if let Some(credentials) = credentials {
            request = request.header(AUTHORIZATION, credentials.header.clone());
        }
        let sent = match tokio::time::timeout(STALL_TIMEOUT, request.send()).await {
            Ok(sent) => sent.map_err(|error| transport(&Method::GET, url, error)),
            Err(_) => Err(stalled(url)),
        };
        let response = sent.map_err(|error| (error.into(), None))?;
        let status = response.status();
        if status.is_success() || (status == StatusCode::NOT_MODIFIED && !conditions.is_empty()) {
            return Ok(response);
        }
        let error = HttpError::Status {
            url: shown(url),
            status: status.as_u16(),
            secret: credentials.map(|credentials| credentials.secret.clone()),
            host: url.host_str().unwrap_or_default().to_string(),
        };
        Err((error, retry_after(response.headers())))
    }

    fn client(&self, url: &Url) -> Result<&Client, HttpError> {
        // Go, and so BuildKit, never sends loopback requests to a proxy.
        let host = url.host_str().unwrap_or_default();
        let is_local = is_loopback(host) || host == "[::1]";
        let slot = if is_local { &self.direct } else { &self.proxied };
        if let Some(client) = slot.get() {
            return Ok(client);
        }
        let redirects = reqwest::redirect::Policy::limited(REDIRECTS_MAX);
        let client = new_client(host, redirects, is_local).map_err(HttpError::Request)?;
        Ok(slot.get_or_init(|| client))
    }
}

/// A client with the system's certificates. Loopback requests go through no proxy.
pub(crate) fn new_client(
    host: &str,
    redirects: reqwest::redirect::Policy,
    is_local: bool,
) -> Result<Client, RegistryError> {
    let setup =
        |source: Box<dyn std::error::Error + Send + Sync>| RegistryError::Setup { host: host.to_string(), source };
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| setup(error.into()))?
        .with_root_certificates(system_roots().clone())
        .with_no_client_auth();
    let mut builder = Client::builder()
        .user_agent(USER_AGENT)
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_keepalive(Duration::from_secs(60))
        .redirect(redirects)
        .tls_backend_preconfigured(tls);
    if is_local {
        builder = builder.no_proxy();
    }
    builder.build().map_err(|error| setup(error.into()))
}

/// The next bytes of a body, `None` at its end.
pub(super) async fn next_chunk(response: &mut Response, url: &Url) -> Result<Option<Bytes>, Failure> {
    let chunk = match tokio::time::timeout(STALL_TIMEOUT, response.chunk()).await {
        Ok(chunk) => chunk.map_err(|error| transport(&Method::GET, url, error)),
        Err(_) => Err(stalled(url)),
    };
    chunk.map_err(|error| (error.into(), None))
}

/// The secret for a server, if the client has one: `HTTP_AUTH_HEADER_<host>`, a whole header, or else
/// `HTTP_AUTH_TOKEN_<host>`, a token. The host is without a port.
pub(super) fn credentials(secrets: &Secrets, url: &Url) -> Result<Option<Credentials>, HttpError> {
    let host = url.host_str().unwrap_or_default();
    for (prefix, scheme) in [("HTTP_AUTH_HEADER_", ""), ("HTTP_AUTH_TOKEN_", "Bearer ")] {
        let id = format!("{prefix}{host}");
        let Some(value) = secrets.get(&id)? else { continue };
        let value = [scheme.as_bytes(), value.trim_ascii()].concat();
        let Ok(mut header) = HeaderValue::from_bytes(&value) else { return Err(HttpError::SecretValue(id)) };
        header.set_sensitive(true);
        return Ok(Some(Credentials { secret: id, header }));
    }
    Ok(None)
}

/// A URL for messages: no query, no password.
pub(super) fn shown(url: &Url) -> String {
    frontend::git_url::redacted(&plain(url))
}

/// What the URL itself says about who asks does not count beside a secret.
fn without_user(url: &Url, credentials: Option<&Credentials>) -> Url {
    let mut url = url.clone();
    if credentials.is_some() {
        let _ = url.set_password(None);
        let _ = url.set_username("");
    }
    url
}

fn stalled(url: &Url) -> RegistryError {
    RegistryError::Stalled { method: Method::GET, url: shown(url), after: STALL_TIMEOUT }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_of_hosts() {
        let check = |ids: &[&str], url: &str, expect: Option<&str>| {
            let mut secrets = Secrets::default();
            ids.iter().for_each(|id| secrets.add_value(id, b"s3cret\n".to_vec()));
            let found = credentials(&secrets, &Url::parse(url).unwrap()).unwrap();
            assert_eq!(found.map(|found| found.header.to_str().unwrap().to_string()).as_deref(), expect, "{url}");
        };
        check(&["HTTP_AUTH_TOKEN_h.example"], "https://h.example:8443/x", Some("Bearer s3cret"));
        check(&["HTTP_AUTH_TOKEN_h", "HTTP_AUTH_HEADER_h"], "https://h/x", Some("s3cret"));
        check(&["HTTP_AUTH_TOKEN_h"], "https://other/x", None);
    }
}
