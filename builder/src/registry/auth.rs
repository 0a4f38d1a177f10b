//! Logins as registries ask for them: a 401's challenge is answered with Basic, or with a token from the token service
//! that it names (distribution's token and oauth2 specs; RFC 9110, 11). Tokens are kept by host and scopes.

use super::client::{failure_of, read_limited};
use super::credentials::{Credential, Credentials, Lookup};
use super::error::{Login, RegistryError, message, plain, transport};
use super::hosts::Host;
use super::retry::RetryPolicy;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Url};
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Shortest life that a token is believed to have; some services say nothing, or less than is of use.
const TOKEN_LIFE_LEAST: Duration = Duration::from_secs(60);
const TOKEN_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest answer of a token service, in bytes.
const TOKEN_LIMIT: u64 = 1 << 20;
const CLIENT_ID: &str = "kiln";

/// What a request needs to be allowed, such as `repository:library/alpine:pull`. Sorted, each once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Scopes(BTreeSet<String>);

impl Scopes {
    pub fn pull(repository: &str) -> Scopes {
        Scopes([format!("repository:{repository}:pull")].into())
    }

    pub fn push(repository: &str) -> Scopes {
        Scopes([format!("repository:{repository}:pull,push")].into())
    }

    /// To mount blobs of `source` into what these scopes are for.
    pub fn and_pull(mut self, source: &str) -> Scopes {
        self.0.insert(format!("repository:{source}:pull"));
        self
    }
}

/// One challenge of a `WWW-Authenticate`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Challenge {
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
    Basic,
}

/// Authorizations by host and scopes, each got once however many requests want it.
pub(super) struct Tokens {
    pub(super) credentials: Arc<Credentials>,
    pub(super) policy: RetryPolicy,
    slots: Mutex<HashMap<(String, Scopes), Arc<Slot>>>,
}

/// The authorization for one host and set of scopes.
#[derive(Default)]
pub(super) struct Slot {
    state: tokio::sync::Mutex<Option<Authorization>>,
}

/// A header and until when to use it.
#[derive(Clone)]
pub(super) struct Authorization {
    pub header: HeaderValue,
    pub login: Login,
    /// Tells this one from its successors.
    made: Instant,
    good_until: Option<Instant>,
}

impl Tokens {
    pub fn new(credentials: Arc<Credentials>, policy: RetryPolicy) -> Tokens {
        Tokens { credentials, policy, slots: Mutex::default() }
    }

    pub fn slot(&self, host: &Host, scopes: &Scopes) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry((host.name.clone(), scopes.clone())).or_default().clone()
    }

    /// Answers a 401 that came although `used` was sent. The error is the token service's; `Ok(Err(login))` says that
    /// there is nothing to answer with.
    pub async fn answer(
        &self,
        host: &Host,
        scopes: &Scopes,
        slot: &Slot,
        used: Option<&Authorization>,
        repository: &str,
        refusal: (&HeaderMap, &Url),
    ) -> Result<Result<Authorization, Login>, RegistryError> {
        let mut state = slot.state.lock().await;
        if let Some(present) = state.as_ref().filter(|present| used.is_none_or(|used| used.made != present.made)) {
            return Ok(Ok(present.clone()));
        }
        *state = None;
        let (headers, url) = refusal;
        let lookup = self.credentials.lookup(&host.name, repository).await;
        let login = Login {
            user: lookup.credential.as_ref().map(|credential| credential.user().to_string()),
            problems: lookup.problems.clone(),
        };
        let made = match (challenge(headers), &lookup.credential) {
            (Some(_), Some(Credential::RegistryToken(token))) => (bearer_header(token), None),
            (Some(Challenge::Bearer { realm, service, scope }), _) => {
                let mut scopes = scopes.0.clone();
                scopes.extend(scope.iter().flat_map(|scope| scope.split(' ')).map(str::to_string));
                let ask = TokenRequest { service: service.as_deref(), scopes: &scopes, account: None };
                let Token { token, life, .. } = self.fetch(host, &realm, &ask, &lookup, &login).await?;
                (bearer_header(&token), Some(life))
            }
            (Some(Challenge::Basic), Some(Credential::Password { username, password })) => {
                (basic_header(username, password), None)
            }
            (Some(Challenge::Basic), _) => return Ok(Err(login)),
            (None, _) if headers.get(WWW_AUTHENTICATE).is_none() => return Ok(Err(login)),
            (None, _) => {
                let challenge = headers.get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
                let challenge = challenge.unwrap_or_default().to_string();
                return Err(RegistryError::Challenge { url: plain(url), challenge });
            }
        };
        let (Some(header), life) = made else { return Ok(Err(login)) };
        let now = Instant::now();
        let authorization =
            Authorization { header, login, made: now, good_until: life.map(|life| now + life.mul_f64(0.9)) };
        *state = Some(authorization.clone());
        Ok(Ok(authorization))
    }

    /// The token of a new login, which may come with one that does in its place from then on.
    pub async fn first(
        &self,
        host: &Host,
        realm: &str,
        service: Option<&str>,
        lookup: &Lookup,
        login: &Login,
    ) -> Result<Token, RegistryError> {
        let account = lookup.credential.as_ref().map(Credential::user);
        let ask = TokenRequest { service, scopes: &BTreeSet::new(), account };
        self.fetch(host, realm, &ask, lookup, login).await
    }

    async fn fetch(
        &self,
        host: &Host,
        realm: &str,
        ask: &TokenRequest<'_>,
        lookup: &Lookup,
        login: &Login,
    ) -> Result<Token, RegistryError> {
        let realm = Url::parse(realm).map_err(|_| RegistryError::BadHost(realm.to_string()))?;
        if lookup.credential.is_some() && realm.scheme() == "http" && !host.is_plain() {
            return Err(RegistryError::InsecureRealm { host: host.name.clone(), realm: plain(&realm) });
        }
        match &lookup.credential {
            Some(Credential::IdentityToken(token)) => {
                let form = ask.form(&[("grant_type", "refresh_token"), ("refresh_token", token)]);
                self.send(host, &realm, login, |client| post(client, &realm, &form)).await
            }
            Some(Credential::Password { username, password }) => {
                let url = ask.query(&realm);
                let basic = |client: &Client| client.get(url.clone()).basic_auth(username, Some(password));
                match self.send(host, &realm, login, basic).await {
                    // A service that only speaks oauth2.
                    Err(error) if matches!(error.status().map(|status| status.as_u16()), Some(404 | 405)) => {
                        let grant = [("grant_type", "password"), ("username", username), ("password", password)];
                        let form = ask.form(&grant);
                        self.send(host, &realm, login, |client| post(client, &realm, &form)).await
                    }
                    result => result,
                }
            }
            _ => {
                let url = ask.query(&realm);
                self.send(host, &realm, login, |client| client.get(url.clone())).await
            }
        }
    }

    async fn send(
        &self,
        host: &Host,
        realm: &Url,
        login: &Login,
        request: impl Fn(&Client) -> RequestBuilder,
    ) -> Result<Token, RegistryError> {
        let attempt = || async {
            let answer = request(host.client()).timeout(TOKEN_TIMEOUT).send().await;
            let answer = answer.map_err(|error| transport(&Method::GET, realm, error))?;
            match answer.status().is_success() {
                true => read_token(&read_limited(answer, TOKEN_LIMIT).await?, realm),
                false => Err(failure_of(&Method::GET, answer, login.clone(), message).await),
            }
        };
        self.policy.retry(None, attempt).await
    }
}

impl Slot {
    /// What to send with the first request; `None` if nothing is known or it is about to run out.
    pub async fn present(&self) -> Option<Authorization> {
        let state = self.state.lock().await;
        state.clone().filter(|present| present.good_until.is_none_or(|until| Instant::now() < until))
    }
}

/// What a token service is asked for.
struct TokenRequest<'a> {
    service: Option<&'a str>,
    scopes: &'a BTreeSet<String>,
    /// Who logs in for the first time: a token is wanted that outlives this one.
    account: Option<&'a str>,
}

/// What a token service gives.
pub(super) struct Token {
    pub token: String,
    pub life: Duration,
    /// To be kept in place of the password.
    pub refresh: Option<String>,
}

impl TokenRequest<'_> {
    fn query(&self, realm: &Url) -> Url {
        let mut url = realm.clone();
        let service = self.service.map(|service| ("service", service));
        url.query_pairs_mut().extend_pairs(service).extend_pairs(self.scopes.iter().map(|scope| ("scope", scope)));
        if let Some(account) = self.account {
            let offline = [("account", account), ("client_id", CLIENT_ID), ("offline_token", "true")];
            url.query_pairs_mut().extend_pairs(offline);
        }
        url
    }

    /// Body of a POST, as an HTML form writes it.
    fn form(&self, grant: &[(&str, &str)]) -> String {
        let scopes = self.scopes.iter().map(String::as_str).collect::<Vec<_>>().join(" ");
        let scope = (!scopes.is_empty()).then_some(("scope", scopes.as_str()));
        let offline = self.account.map(|_| ("access_type", "offline"));
        let mut form = Url::parse("form:").expect("a constant URL");
        form.query_pairs_mut()
            .extend_pairs(grant)
            .extend_pairs(self.service.map(|service| ("service", service)))
            .extend_pairs(scope)
            .extend_pairs([("client_id", CLIENT_ID)])
            .extend_pairs(offline);
        form.query().unwrap_or_default().to_string()
    }
}

fn post(client: &Client, realm: &Url, form: &str) -> RequestBuilder {
    client.post(realm.clone()).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(form.to_string())
}

fn read_token(body: &[u8], realm: &Url) -> Result<Token, RegistryError> {
    #[derive(serde::Deserialize)]
    struct Answer {
        token: Option<String>,
        access_token: Option<String>,
        expires_in: Option<f64>,
        refresh_token: Option<String>,
    }
    let unusable = |what| RegistryError::Answer { url: plain(realm), what };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| unusable("not a token answer"))?;
    let token = answer.token.or(answer.access_token).filter(|token| !token.is_empty());
    let life = answer.expires_in.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // A year is more than any build takes; larger numbers could overflow the clock.
    let life = life.unwrap_or_default().clamp(TOKEN_LIFE_LEAST, Duration::from_secs(365 * 24 * 3600));
    let token = token.ok_or_else(|| unusable("no token in it"))?;
    Ok(Token { token, life, refresh: answer.refresh_token.filter(|token| !token.is_empty()) })
}

pub(super) fn bearer_header(token: &str) -> Option<HeaderValue> {
    secret_header(format!("Bearer {token}"))
}

pub(super) fn basic_header(username: &str, password: &str) -> Option<HeaderValue> {
    secret_header(format!("Basic {}", STANDARD.encode(format!("{username}:{password}"))))
}

fn secret_header(text: String) -> Option<HeaderValue> {
    let mut header = HeaderValue::from_str(&text).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// Which of the challenges of all `WWW-Authenticate` headers is answered: one for a token, if there is one.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let challenges: Vec<Challenge> = texts.flat_map(parse_challenges).collect();
    let bearer = challenges.iter().position(|challenge| matches!(challenge, Challenge::Bearer { .. }));
    challenges.into_iter().nth(bearer.unwrap_or_default())
}

/// `Scheme name="value", name=value, Scheme …` (RFC 9110, 11.6.1).
pub(crate) fn parse_challenges(text: &str) -> Vec<Challenge> {
    let mut challenges: Vec<(String, HashMap<String, String>)> = vec![];
    let mut rest = text.trim_start_matches([' ', ',', '\t']);
    while !rest.is_empty() {
        let end = rest.find([' ', ',', '=']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        if let Some(value) = after.trim_start().strip_prefix('=').filter(|_| !challenges.is_empty()) {
            let (value, after) = parse_value(value.trim_start());
            if let Some((_, parameters)) = challenges.last_mut() {
                parameters.insert(word.to_ascii_lowercase(), value);
            }
            rest = after;
        } else {
            challenges.push((word.to_ascii_lowercase(), HashMap::new()));
            rest = after.trim_start_matches('=');
        }
        rest = rest.trim_start_matches([' ', ',', '\t']);
    }
    let known = challenges.into_iter().filter_map(|(scheme, mut parameters)| match scheme.as_str() {
        "basic" => Some(Challenge::Basic),
        "bearer" => {
            let mut take = |name: &str| parameters.remove(name).filter(|value| !value.is_empty());
            Some(Challenge::Bearer { realm: take("realm")?, service: take("service"), scope: take("scope") })
        }
        _ => None,
    });
    known.collect()
}

/// A token or a quoted string, and what follows.
fn parse_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_string(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            _ => value.push(character),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_string),
            scope: scope.map(str::to_string),
        };
        let check = |text: &str, expect: Vec<Challenge>| assert_eq!(parse_challenges(text), expect, "{text}");
        check(
            r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull,push""#,
            vec![bearer("https://a/t", Some("s"), Some("repository:x:pull,push"))],
        );
        check(
            r#"Basic realm="x, y", bearer realm = "r\"q" , error=insufficient_scope"#,
            vec![Challenge::Basic, bearer("r\"q", None, None)],
        );
        check("Basic", vec![Challenge::Basic]);
        check("Negotiate, Basic realm=x", vec![Challenge::Basic]);
        check("Bearer service=\"no realm\"", vec![]);
        check("=,\"", vec![]);
        check("Bearer realm=\"open", vec![bearer("open", None, None)]);
        check("", vec![]);
    }

    #[test]
    fn tokens_live_a_minute_at_least() {
        let realm = Url::parse("https://a/t").unwrap();
        let read = |body: &str| read_token(body.as_bytes(), &realm).ok();
        let check = |body: &str| read(body).map(|token| (token.token, token.life.as_secs()));
        assert_eq!(check(r#"{"token":"a"}"#), Some(("a".into(), 60)));
        assert_eq!(check(r#"{"access_token":"b","expires_in":300}"#), Some(("b".into(), 300)));
        assert_eq!(check(r#"{"token":"a","expires_in":1e300}"#), Some(("a".into(), 60)));
        assert_eq!(check(r#"{"token":""}"#), None);
        assert_eq!(check("<html>"), None);
    }
}
