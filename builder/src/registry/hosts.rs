//! Where the requests of a domain go, and how: mirrors, schemes, TLS, and how many at once. Speaks to no one.

use super::error::RegistryError;
use crate::config::{Config, RegistryConfig};
use reqwest::{Client, Url};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;

/// Blobs that move between kiln and one host at once.
const TRANSFERS_PER_HOST: usize = 4;
/// Requests for documents and checks to one host at once.
const DOCUMENTS_PER_HOST: usize = 8;
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
pub(crate) const USER_AGENT: &str = concat!("kiln/", env!("CARGO_PKG_VERSION"));

/// All hosts that were asked so far.
pub(super) struct Hosts {
    registries: BTreeMap<String, RegistryConfig>,
    /// Folders with a folder of certificates for each host, in Docker's form.
    certs_dirs: Vec<PathBuf>,
    known: Mutex<HashMap<String, Arc<Host>>>,
}

/// One server.
pub(super) struct Host {
    /// `host[:port]` as in references and settings.
    pub name: String,
    client: Client,
    /// Speaks plain HTTP: by its settings, or, if it may, since it was found to.
    plain: AtomicBool,
    may_fall_back: bool,
    has_answered: AtomicBool,
    /// Taken while a blob moves.
    pub transfers: Arc<Semaphore>,
    /// Taken while anything else is asked for.
    pub documents: Semaphore,
}

/// A place where a repository is.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub host: Arc<Host>,
    /// The repository there, a mirror's path included.
    pub repository: String,
    /// For a mirror: whose content it mirrors.
    pub namespace: Option<String>,
}

impl Hosts {
    pub fn new(config: &Config) -> Hosts {
        let mut certs_dirs = vec![PathBuf::from("/etc/docker/certs.d"), PathBuf::from("/etc/containers/certs.d")];
        if let Some(home) = std::env::var_os("HOME").map(PathBuf::from) {
            certs_dirs.extend([home.join(".config/docker/certs.d"), home.join(".config/containers/certs.d")]);
        }
        Hosts { registries: config.registries.clone(), certs_dirs, known: Mutex::default() }
    }

    /// The same with `insecure = true` for a domain, whose own server alone is meant.
    pub fn trusting_anyone_at(&self, domain: &str) -> Hosts {
        let mut registries = self.registries.clone();
        registries.entry(domain.to_string()).or_default().insecure = true;
        Hosts { registries, certs_dirs: self.certs_dirs.clone(), known: Mutex::default() }
    }

    /// Mirrors of a domain in order, then the domain's own host.
    pub fn for_pull(&self, domain: &str, repository: &str) -> Result<Vec<Endpoint>, RegistryError> {
        let mut endpoints = vec![];
        for mirror in self.registries.get(domain).map(|registry| registry.mirrors.as_slice()).unwrap_or_default() {
            let mirror = mirror.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/');
            let (host, prefix) = mirror.split_once('/').unwrap_or((mirror, ""));
            let repository = if prefix.is_empty() { repository.to_string() } else { format!("{prefix}/{repository}") };
            let namespace = (host != domain).then(|| domain.to_string());
            endpoints.push(Endpoint { host: self.host(host)?, repository, namespace });
        }
        endpoints.push(self.for_push(domain, repository)?);
        Ok(endpoints)
    }

    /// The domain's own host.
    pub fn for_push(&self, domain: &str, repository: &str) -> Result<Endpoint, RegistryError> {
        Ok(Endpoint { host: self.host(domain)?, repository: repository.to_string(), namespace: None })
    }

    /// The server of a domain, or of a token service.
    pub fn host(&self, name: &str) -> Result<Arc<Host>, RegistryError> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(host) = known.get(name) {
            return Ok(host.clone());
        }
        let host = Arc::new(self.make(name)?);
        known.insert(name.to_string(), host.clone());
        Ok(host)
    }

    fn make(&self, name: &str) -> Result<Host, RegistryError> {
        let default = RegistryConfig::default();
        let settings = self.registries.get(name).unwrap_or(&default);
        let is_local = is_loopback(name);
        let plain = settings.http.unwrap_or(is_local);
        let mut builder = Client::builder()
            .user_agent(USER_AGENT)
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_keepalive(Duration::from_secs(60))
            .tls_backend_preconfigured(self.tls(name, settings, plain)?);
        if is_local {
            builder = builder.no_proxy();
        }
        let client = builder
            .build()
            .map_err(|source| RegistryError::Setup { host: name.to_string(), source: Box::new(source) })?;
        Ok(Host {
            name: name.to_string(),
            client,
            plain: AtomicBool::new(plain),
            may_fall_back: settings.insecure,
            has_answered: AtomicBool::new(false),
            transfers: Arc::new(Semaphore::new(TRANSFERS_PER_HOST)),
            documents: Semaphore::new(DOCUMENTS_PER_HOST),
        })
    }

    fn tls(&self, name: &str, settings: &RegistryConfig, plain: bool) -> Result<ClientConfig, RegistryError> {
        let mut roots = settings.ca.clone();
        let mut pairs: Vec<(PathBuf, PathBuf)> =
            settings.key_pairs.iter().map(|pair| (pair.cert.clone(), pair.key.clone())).collect();
        let certificate_error = |path: &Path, source: Box<dyn std::error::Error + Send + Sync>| {
            RegistryError::Certificate { host: name.to_string(), path: path.to_owned(), source }
        };
        let found = self.certs_dirs.iter().map(|dir| dir.join(name)).filter(|dir| dir.is_dir());
        for dir in settings.tls_config_dirs.iter().cloned().chain(found) {
            read_certs_dir(&dir, &mut roots, &mut pairs).map_err(|source| certificate_error(&dir, source.into()))?;
        }
        let setup = |source: rustls::Error| RegistryError::Setup { host: name.to_string(), source: Box::new(source) };
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(setup)?;
        let builder = if settings.insecure {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(TrustAnyone(provider)))
        } else {
            // The system's roots take milliseconds to read, which a host that speaks plain HTTP need not wait for.
            let mut store = if plain { RootCertStore::empty() } else { system_roots().clone() };
            for path in &roots {
                let certificates = CertificateDer::pem_file_iter(path)
                    .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
                    .map_err(|source| certificate_error(path, source.into()))?;
                for certificate in certificates {
                    store.add(certificate).map_err(|source| certificate_error(path, source.into()))?;
                }
            }
            builder.with_root_certificates(store)
        };
        let Some((cert_path, key_path)) = pairs.first() else { return Ok(builder.with_no_client_auth()) };
        let chain = CertificateDer::pem_file_iter(cert_path)
            .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
            .map_err(|source| certificate_error(cert_path, source.into()))?;
        let key =
            PrivateKeyDer::from_pem_file(key_path).map_err(|source| certificate_error(key_path, source.into()))?;
        builder.with_client_auth_cert(chain, key).map_err(|source| certificate_error(cert_path, source.into()))
    }
}

impl Host {
    /// The client that has this host's TLS settings.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Whether requests to it go unencrypted.
    pub fn is_plain(&self) -> bool {
        self.plain.load(Ordering::Relaxed)
    }

    /// Notes that it has answered something.
    pub fn answered(&self) {
        self.has_answered.store(true, Ordering::Relaxed);
    }

    /// Whether it ever answered anything.
    pub fn has_answered(&self) -> bool {
        self.has_answered.load(Ordering::Relaxed)
    }

    /// Called when a request to that URL of it failed. True: there is no TLS, and it may do without; its URLs are others
    /// from now on.
    pub fn fall_back(&self, url: &Url, error: &RegistryError) -> bool {
        let is_without_tls = matches!(error, RegistryError::PlainHttp { .. } | RegistryError::Connect { .. });
        let falls = self.may_fall_back && is_without_tls && url.scheme() == "https";
        if falls {
            self.plain.store(true, Ordering::Relaxed);
        }
        falls
    }

    /// URL of a path on it.
    pub fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let scheme = if self.is_plain() { "http" } else { "https" };
        let host = if self.name == "docker.io" { "registry-1.docker.io" } else { &self.name };
        Url::parse(&format!("{scheme}://{host}{path}")).map_err(|_| RegistryError::BadHost(self.name.clone()))
    }
}

impl Endpoint {
    /// URL of something in the repository, such as `blobs/sha256:…`.
    pub fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let mut url = self.host.url(&format!("/v2/{}/{path}", self.repository))?;
        if let Some(namespace) = &self.namespace {
            url.query_pairs_mut().append_pair("ns", namespace);
        }
        Ok(url)
    }
}

/// `localhost`, `127.0.0.0/8` and `::1`, with or without a port.
pub(crate) fn is_loopback(name: &str) -> bool {
    let host = match name.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => name.split(':').next().unwrap_or_default(),
    };
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Docker's rules: `*.crt` are roots; `X.cert` and `X.key` are a pair, and nothing without each other.
fn read_certs_dir(
    dir: &Path,
    roots: &mut Vec<PathBuf>,
    pairs: &mut Vec<(PathBuf, PathBuf)>,
) -> Result<(), std::io::Error> {
    let mut files = std::fs::read_dir(dir)?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<PathBuf>, std::io::Error>>()?;
    files.sort();
    let missing = |kind: &str, file: &Path| {
        let text = format!("missing {kind} for `{}`", file.display());
        Err(std::io::Error::new(std::io::ErrorKind::NotFound, text))
    };
    for file in &files {
        match file.extension().and_then(|extension| extension.to_str()) {
            Some("crt") => roots.push(file.clone()),
            Some("cert") => {
                let key = file.with_extension("key");
                if !files.contains(&key) {
                    return missing("key", file);
                }
                pairs.push((file.clone(), key));
            }
            Some("key") if !files.contains(&file.with_extension("cert")) => return missing("client certificate", file),
            _ => {}
        }
    }
    Ok(())
}

/// The roots that the machine trusts (`SSL_CERT_FILE`, `SSL_CERT_DIR`, else the distribution's).
pub(crate) fn system_roots() -> &'static RootCertStore {
    static ROOTS: OnceLock<RootCertStore> = OnceLock::new();
    ROOTS.get_or_init(|| {
        let mut store = RootCertStore::empty();
        let loaded = rustls_native_certs::load_native_certs();
        for error in &loaded.errors {
            tracing::debug!(%error, "cannot read some of the system's certificates");
        }
        store.add_parsable_certificates(loaded.certs);
        store
    })
}

/// `insecure = true`: whoever answers is believed to be the registry.
#[derive(Debug)]
struct TrustAnyone(Arc<CryptoProvider>);

impl ServerCertVerifier for TrustAnyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_hosts() {
        let check = |name: &str, expect: bool| assert_eq!(is_loopback(name), expect, "{name}");
        for name in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            check(name, true);
        }
        for name in ["docker.io", "10.0.0.1:5000", "localhost.example", "[::2]:80"] {
            check(name, false);
        }
    }

    #[test]
    fn pulls_ask_mirrors_first() {
        let text = "[registry.\"docker.io\"]\nmirrors = [\"m.example\", \"p.example:8443/hub/\"]\n\
                    [registry.\"m.example\"]\nhttp = true";
        let hosts = Hosts::new(&Config::parse(text, Path::new("kiln.toml")).unwrap());
        let urls = |endpoints: Vec<Endpoint>| {
            endpoints.iter().map(|endpoint| endpoint.url("blobs/x").unwrap().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(
            urls(hosts.for_pull("docker.io", "library/alpine").unwrap()),
            [
                "http://m.example/v2/library/alpine/blobs/x?ns=docker.io",
                "https://p.example:8443/v2/hub/library/alpine/blobs/x?ns=docker.io",
                "https://registry-1.docker.io/v2/library/alpine/blobs/x"
            ]
        );
        let origin = hosts.for_push("localhost:5000", "a").unwrap();
        assert_eq!(urls(vec![origin]), ["http://localhost:5000/v2/a/blobs/x"]);
    }

    #[test]
    fn folders_of_certificates_are_complete() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str| std::fs::write(dir.path().join(name), "").unwrap();
        let read = || {
            let (mut roots, mut pairs) = (vec![], vec![]);
            read_certs_dir(dir.path(), &mut roots, &mut pairs).map(|()| (roots.len(), pairs.len()))
        };
        write("ca.crt");
        write("client.cert");
        assert!(read().unwrap_err().to_string().starts_with("missing key for"));
        write("client.key");
        assert_eq!(read().unwrap(), (1, 1));
    }
}
