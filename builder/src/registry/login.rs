//! Asks a registry whether it takes a login (`kiln login`).

use super::auth::{Challenge, basic_header, bearer_header, parse};
use super::client::sent_within;
use super::credentials::{Credential, Lookup};
use super::error::{Login, message};
use super::hosts::Host;
use super::{Registry, RegistryError};
use crate::registry::client::{STALL_TIMEOUT, failure_of};
use reqwest::header::{AUTHORIZATION, HeaderValue};
use reqwest::{Method, Response, StatusCode, Url};

/// What a registry made of a login.
#[derive(Clone, PartialEq, Eq)]
pub enum Accepted {
    /// It is good.
    AsItIs,
    /// It is good, and this token does in its place from now on.
    Identity(String),
    /// The registry asks for none, so that it says nothing of this one.
    NotAsked,
}

impl Registry {
    /// Tries a login at a domain.
    ///
    /// # Errors
    /// [`RegistryError::Status`] with 401 if it is refused.
    pub async fn try_login(&self, domain: &str, credential: &Credential) -> Result<Accepted, RegistryError> {
        self.policy.retry(|| self.try_login_once(domain, credential)).await
    }

    async fn try_login_once(&self, domain: &str, credential: &Credential) -> Result<Accepted, RegistryError> {
        let host = self.client.hosts.host(domain)?;
        let answer = loop {
            let url = host.url("/v2/")?;
            match ask(&host, &url, None).await {
                Err(RegistryError::PlainHttp { .. } | RegistryError::Connect { .. })
                    if url.scheme() == "https" && host.fall_back() => {}
                answer => break answer?,
            }
        };
        let login = Login { user: Some(credential.user().to_string()), problems: vec![] };
        if answer.status().is_success() {
            return Ok(Accepted::NotAsked);
        }
        if answer.status() != StatusCode::UNAUTHORIZED {
            return Err(failure_of(&Method::GET, answer, login, message).await);
        }
        let challenges = parse(answer.headers());
        let bearer = challenges.iter().find(|challenge| matches!(challenge, Challenge::Bearer { .. }));
        let mut accepted = Accepted::AsItIs;
        let header = match (bearer.or(challenges.first()), credential) {
            (Some(Challenge::Bearer { realm, service, .. }), _) => {
                let lookup = Lookup { credential: Some(credential.clone()), problems: vec![] };
                let token = self.client.tokens.first(&host, realm, service.as_deref(), &lookup, &login).await?;
                if let Some(refresh) = token.refresh {
                    accepted = Accepted::Identity(refresh);
                }
                bearer_header(&token.token)
            }
            (Some(Challenge::Basic), Credential::Password { username, password }) => basic_header(username, password),
            _ => None,
        };
        let Some(header) = header else { return Err(failure_of(&Method::GET, answer, login, message).await) };
        let answer = ask(&host, &host.url("/v2/")?, Some(header)).await?;
        match answer.status().is_success() {
            true => Ok(accepted),
            false => Err(failure_of(&Method::GET, answer, login, message).await),
        }
    }
}

async fn ask(host: &Host, url: &Url, authorization: Option<HeaderValue>) -> Result<Response, RegistryError> {
    let mut request = host.client().get(url.clone());
    if let Some(header) = authorization {
        request = request.header(AUTHORIZATION, header);
    }
    sent_within(STALL_TIMEOUT, request, &Method::GET, url).await
}
