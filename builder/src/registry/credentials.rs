//! Who logs in where: Docker's config and credential helpers, podman's auth file (reference/engine.md 4.3). Nothing is
//! read before a registry asks for a login.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// Longest that a credential helper may take: it may ask the user.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);
/// The key of Docker Hub in all of Docker's files and helpers.
const HUB_KEY: &str = "https://index.docker.io/v1/";

/// What proves who asks. Not `Debug`, so that it cannot get into a log.
#[derive(Clone, PartialEq, Eq)]
pub enum Credential {
    /// As typed into `docker login`.
    Password {
        /// User name.
        username: String,
        /// Password or access token.
        password: String,
    },
    /// OAuth2 refresh token.
    IdentityToken(String),
    /// Sent to the registry as it is.
    RegistryToken(String),
}

impl Credential {
    /// What may be shown.
    pub fn user(&self) -> &str {
        match self {
            Credential::Password { username, .. } => username,
            Credential::IdentityToken(_) => "<identity token>",
            Credential::RegistryToken(_) => "<registry token>",
        }
    }
}

/// What was found for a registry.
#[derive(Clone, Default)]
pub struct Lookup {
    /// `None` is anonymous.
    pub credential: Option<Credential>,
    /// Sources that could not be asked, such as a missing helper; they matter only if the login then fails.
    pub problems: Vec<String>,
}

/// Where credentials are looked for.
#[derive(Default)]
pub struct Credentials {
    /// `DOCKER_AUTH_CONFIG`: JSON that goes before all files.
    overlay: Option<String>,
    /// In order.
    files: Vec<PathBuf>,
    read: OnceCell<(Vec<AuthFile>, Vec<String>)>,
}

/// The parts of `config.json` and `auth.json` that are about logins.
#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthFile {
    auths: BTreeMap<String, AuthEntry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct AuthEntry {
    auth: String,
    username: String,
    password: String,
    #[serde(rename = "identitytoken")]
    identity_token: String,
    #[serde(rename = "registrytoken")]
    registry_token: String,
}

impl Credentials {
    /// No logins.
    pub fn anonymous() -> Credentials {
        Credentials::default()
    }

    /// `$DOCKER_AUTH_CONFIG`; `$REGISTRY_AUTH_FILE` if set; `config.json` in `$DOCKER_CONFIG` or `~/.docker`;
    /// `$XDG_RUNTIME_DIR/containers/auth.json`; `~/.config/containers/auth.json`.
    pub fn from_environment(env: impl Fn(&str) -> Option<OsString>) -> Credentials {
        let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
        let home = |path: &str| set("HOME").map(|home| home.join(path));
        let files = [
            set("REGISTRY_AUTH_FILE"),
            docker_config(&env),
            set("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")),
            set("XDG_CONFIG_HOME").or_else(|| home(".config")).map(|dir| dir.join("containers/auth.json")),
        ];
        let overlay = env("DOCKER_AUTH_CONFIG").and_then(|text| text.into_string().ok());
        Credentials {
            overlay: overlay.filter(|text| !text.trim().is_empty()),
            files: files.into_iter().flatten().collect(),
            read: OnceCell::new(),
        }
    }

    /// The login for a repository of a registry: the first source that has one, and there the longest matching key.
    pub async fn lookup(&self, domain: &str, repository: &str) -> Lookup {
        let (files, problems) = self.read.get_or_init(|| async { self.read_files() }).await;
        let mut lookup = Lookup { credential: None, problems: problems.clone() };
        for file in files {
            match file.lookup(domain, repository).await {
                Ok(None) => {}
                Ok(credential) => {
                    lookup.credential = credential;
                    break;
                }
                Err(problem) => lookup.problems.push(problem),
            }
        }
        lookup
    }

    fn read_files(&self) -> (Vec<AuthFile>, Vec<String>) {
        let (mut files, mut problems) = (vec![], vec![]);
        if let Some(overlay) = &self.overlay {
            match serde_json::from_str(overlay) {
                Ok(file) => files.push(file),
                Err(error) => problems.push(format!("DOCKER_AUTH_CONFIG cannot be read: {error}")),
            }
        }
        for path in &self.files {
            match read_file(path) {
                Ok(file) => files.extend(file),
                Err(problem) => problems.push(problem),
            }
        }
        (files, problems)
    }
}

fn read_file(path: &Path) -> Result<Option<AuthFile>, String> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("`{}` cannot be read: {error}", path.display())),
    };
    serde_json::from_str(&text).map(Some).map_err(|error| format!("`{}` cannot be read: {error}", path.display()))
}

impl AuthFile {
    async fn lookup(&self, domain: &str, repository: &str) -> Result<Option<Credential>, String> {
        let target = format!("{domain}/{repository}");
        let mut problem = None;
        let helper = best(&self.helpers, &target).map(String::as_str);
        for helper in helper.into_iter().chain([self.store.as_str()]).filter(|helper| !helper.is_empty()) {
            match ask_helper(helper, key_of(domain)).await {
                Ok(None) => {}
                Ok(credential) => return Ok(credential),
                Err(text) => problem = problem.or(Some(text)),
            }
        }
        match best(&self.auths, &target).map(AuthEntry::credential).transpose()?.flatten() {
            Some(credential) => Ok(Some(credential)),
            None => problem.map_or(Ok(None), Err),
        }
    }
}

impl AuthEntry {
    fn credential(&self) -> Result<Option<Credential>, String> {
        if !self.registry_token.is_empty() {
            return Ok(Some(Credential::RegistryToken(self.registry_token.clone())));
        }
        if !self.identity_token.is_empty() {
            return Ok(Some(Credential::IdentityToken(self.identity_token.clone())));
        }
        let (username, password) = if self.auth.is_empty() {
            (self.username.clone(), self.password.clone())
        } else {
            let text = STANDARD.decode(self.auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
            let pair = text.as_deref().and_then(|text| text.split_once(':'));
            let (username, password) = pair.ok_or("an `auth` entry is not base64 of `user:password`")?;
            (username.to_string(), password.trim_end_matches('\0').to_string())
        };
        Ok((!username.is_empty()).then_some(Credential::Password { username, password }))
    }
}

/// The key of a registry in Docker's files and helpers.
pub fn key_of(domain: &str) -> &str {
    if domain == "docker.io" { HUB_KEY } else { domain }
}

/// Docker's `config.json`: in `$DOCKER_CONFIG` or `~/.docker`. `None` if there is no home either.
pub fn docker_config(env: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let set = |name: &str| env(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let folder = set("DOCKER_CONFIG").or_else(|| set("HOME").map(|home| home.join(".docker")));
    folder.map(|folder| folder.join("config.json"))
}

/// The value whose key names `target` or the longest part of it: `quay.io/org` before `quay.io`.
fn best<'a, T>(map: &'a BTreeMap<String, T>, target: &str) -> Option<&'a T> {
    let names = |key: &str| {
        let rest = target.strip_prefix(key)?;
        (rest.is_empty() || rest.starts_with('/')).then_some(key.len())
    };
    let found = map.iter().filter_map(|(key, value)| Some((names(&normalise(key))?, value)));
    found.max_by_key(|(length, _)| *length).map(|(_, value)| value)
}

/// Keys are hosts, hosts with a path, or URLs of the API: `https://host/v1/`.
pub(crate) fn normalise(key: &str) -> String {
    let key = key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
    let key = key.strip_suffix("/v1").or_else(|| key.strip_suffix("/v2")).unwrap_or(key);
    let (host, path) = key.split_once('/').map_or((key, ""), |(host, path)| (host, path));
    let host = if matches!(host, "index.docker.io" | "registry-1.docker.io") { "docker.io" } else { host };
    if path.is_empty() { host.to_string() } else { format!("{host}/{path}") }
}

/// Docker's helper protocol: the server's name to `docker-credential-<helper> get`, JSON back.
async fn ask_helper(helper: &str, server: &str) -> Result<Option<Credential>, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct Answer {
        #[serde(default)]
        username: String,
        #[serde(default)]
        secret: String,
    }
    let Some(answer) = call_helper(helper, "get", server).await? else { return Ok(None) };
    let answer: Answer = serde_json::from_slice(&answer)
        .map_err(|_| format!("`docker-credential-{helper}` failed: its answer is not as agreed"))?;
    Ok(match answer.username.as_str() {
        "" => None,
        "<token>" => Some(Credential::IdentityToken(answer.secret)),
        _ => Some(Credential::Password { username: answer.username, password: answer.secret }),
    })
}

/// Has a helper keep a login.
pub async fn store_in_helper(helper: &str, server: &str, credential: &Credential) -> Result<(), String> {
    let (username, secret) = match credential {
        Credential::Password { username, password } => (username.as_str(), password),
        Credential::IdentityToken(token) | Credential::RegistryToken(token) => ("<token>", token),
    };
    let input = serde_json::json!({ "ServerURL": server, "Username": username, "Secret": secret });
    call_helper(helper, "store", &input.to_string()).await.map(drop)
}

/// Has a helper forget a login; says whether it had one.
pub async fn erase_in_helper(helper: &str, server: &str) -> Result<bool, String> {
    if ask_helper(helper, server).await?.is_none() {
        return Ok(false);
    }
    call_helper(helper, "erase", server).await.map(|_| true)
}

/// What a helper answers on standard output; `None` if it does not know the server.
async fn call_helper(helper: &str, verb: &str, input: &str) -> Result<Option<Vec<u8>>, String> {
    let program = format!("docker-credential-{helper}");
    let failed = |what: String| format!("`{program}` failed: {what}");
    let mut child = Command::new(&program)
        .arg(verb)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("credential helper `{program}` cannot be run: {error}"))?;
    let asked = async {
        if let Some(mut stdin) = child.stdin.take() {
            // A helper that answers without reading the question is seen by its answer.
            let _ = stdin.write_all(input.as_bytes()).await;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(HELPER_TIMEOUT, asked).await {
        Ok(output) => output.map_err(|error| failed(error.to_string()))?,
        Err(_) => return Err(failed(format!("no answer in {} s", HELPER_TIMEOUT.as_secs()))),
    };
    if !output.status.success() {
        let text = format!("{} {}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if text.contains("credentials not found") {
            return Ok(None);
        }
        return Err(failed(text.trim().chars().take(200).collect()));
    }
    Ok(Some(output.stdout))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn describe(lookup: &Lookup) -> String {
        match &lookup.credential {
            None => "none".into(),
            Some(Credential::Password { username, password }) => format!("{username}:{password}"),
            Some(Credential::IdentityToken(token)) => format!("identity {token}"),
            Some(Credential::RegistryToken(token)) => format!("registry {token}"),
        }
    }

    #[tokio::test]
    async fn longest_key_of_the_first_source_wins() {
        let dir = tempfile::tempdir().unwrap();
        let docker = r#"{"auths":{
            "https://index.docker.io/v1/":{"auth":"aHViOnB3"},
            "quay.io":{"username":"q","password":"1"}, "quay.io/org":{"username":"o","password":"2"},
            "https://id.example/v2/":{"auth":"eDp5","identitytoken":"t"},
            "reg.example:5000":{"registrytoken":"r"}, "empty.example":{}, "bad.example":{"auth":"%"}}}"#;
        let podman = r#"{"auths":{"quay.io":{"auth":"cDpw"},"only.example":{"auth":"cDpw"}}}"#;
        std::fs::write(dir.path().join("config.json"), docker).unwrap();
        std::fs::create_dir(dir.path().join("containers")).unwrap();
        std::fs::write(dir.path().join("containers/auth.json"), podman).unwrap();
        let credentials = Credentials::from_environment(|name| match name {
            "DOCKER_CONFIG" | "XDG_RUNTIME_DIR" => Some(dir.path().into()),
            "DOCKER_AUTH_CONFIG" => Some(r#"{"auths":{"over.example":{"auth":"ZW52OjE="}}}"#.into()),
            _ => None,
        });
        for (domain, repository, expect) in [
            ("docker.io", "library/alpine", "hub:pw"),
            ("quay.io", "a", "q:1"),
            ("quay.io", "org/a", "o:2"),
            ("quay.io", "organ/a", "q:1"),
            ("id.example", "a", "identity t"),
            ("reg.example:5000", "a", "registry r"),
            ("reg.example", "a", "none"),
            ("empty.example", "a", "none"),
            ("only.example", "a", "p:p"),
            ("over.example", "a", "env:1"),
        ] {
            assert_eq!(describe(&credentials.lookup(domain, repository).await), expect, "{domain}/{repository}");
        }
        assert_eq!(credentials.lookup("bad.example", "a").await.problems.len(), 1);
    }

    #[tokio::test]
    async fn missing_helper_is_a_remark() {
        let overlay = r#"{"credsStore":"kiln-none","auths":{"a.example":{"auth":"cDpw"}}}"#;
        let credentials = Credentials::from_environment(|name| (name == "DOCKER_AUTH_CONFIG").then(|| overlay.into()));
        assert_eq!(describe(&credentials.lookup("a.example", "x").await), "p:p");
        let lookup = credentials.lookup("b.example", "x").await;
        assert_eq!(describe(&lookup), "none");
        assert!(lookup.problems[0].starts_with("credential helper `docker-credential-kiln-none` cannot be run"));
    }
}
