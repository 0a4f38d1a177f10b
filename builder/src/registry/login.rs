//! Asks a registry whether it takes a login (`kiln login`).

use super::auth::{Challenge, basic_header, bearer_header, challenge};
use super::client::{STALL_TIMEOUT, failure_of, sent_within};
use super::credentials::{Credential, Lookup};
use super::error::{Login, message};
use super::hosts::Host;
use super::{Registry, RegistryError};
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
        self.policy.retry(self.client.progress.get(), || self.try_login_once(domain, credential)).await
    }

    async fn try_login_once(&self, domain: &str, credential: &Credential) -> Result<Accepted, RegistryError> {
        let host = self.client.hosts.host(domain)?;
        let answer = loop {
            let url = host.url("/v2/")?;
            match ask(&host, &url, None).await {
                Err(error) if host.fall_back(&url, &error) => {}
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
        let mut accepted = Accepted::AsItIs;
        let header = match (challenge(answer.headers()), credential) {
            (Some(Challenge::Bearer { realm, service, .. }), _) => {
                let lookup = Lookup { credential: Some(credential.clone()), problems: vec![] };
                let token = self.client.tokens.first(&host, &realm, service.as_deref(), &lookup, &login).await?;
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

#[cfg(test)]
mod tests {
    use super::super::testing::{Answer, Fake, Request, registry};
    use super::*;

    fn password(password: &str) -> Credential {
        Credential::Password { username: "u".into(), password: password.into() }
    }

    /// A registry that takes the token of a service beside it, which gives one for the password `p`.
    fn guarded(refresh: &'static str) -> Fake {
        let answer = move |request: &Request, _| match request.path.as_str() {
            "/v2/" if request.headers.get("authorization").is_some_and(|header| header == "Bearer t") => {
                Answer::ok("{}")
            }
            "/v2/" => {
                let realm = format!("Bearer realm=\"http://{}/token\",service=\"s\"", request.headers["host"]);
                Answer::status(401).header("www-authenticate", realm)
            }
            _ if request.headers.get("authorization").is_some_and(|header| header == "Basic dTpw") => {
                Answer::ok(format!(r#"{{"token":"t","refresh_token":"{refresh}"}}"#))
            }
            _ => Answer { body: br#"{"details":"wrong"}"#.to_vec(), ..Answer::status(401) },
        };
        Fake::start(answer)
    }

    #[tokio::test]
    async fn identity_tokens_are_asked_for_and_kept() {
        let fake = guarded("identity");
        let accepted = registry("").try_login(&fake.host, &password("p")).await.unwrap();
        assert!(accepted == Accepted::Identity("identity".into()));
        assert_eq!(
            fake.lines(),
            ["GET /v2/", "GET /token?service=s&account=u&client_id=kiln&offline_token=true", "GET /v2/"]
        );
        assert!(registry("").try_login(&guarded("").host, &password("p")).await.unwrap() == Accepted::AsItIs);
        let error = registry("").try_login(&fake.host, &password("wrong")).await.err().unwrap();
        assert!(error.to_string().ends_with("401 Unauthorized: wrong"), "{error}");
    }

    #[tokio::test]
    async fn registries_that_ask_for_nothing_say_nothing() {
        let open = Fake::start(|_, _| Answer::ok("{}"));
        assert!(registry("").try_login(&open.host, &password("p")).await.unwrap() == Accepted::NotAsked);
        let none = Fake::start(|_, _| Answer::status(404));
        assert!(registry("").try_login(&none.host, &password("p")).await.is_err());
        let strange = Fake::start(|_, _| Answer::status(401).header("www-authenticate", "Negotiate"));
        assert!(registry("").try_login(&strange.host, &password("p")).await.is_err());
    }
}
