//! Debian's docker-registry (distribution) on a free loopback port, with storage of its own.

use crate::authority::Authority;
use crate::bases::Layout;
use crate::http::{Response, request};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use tempfile::TempDir;

/// A running registry; stops when dropped, and when this process ends however it ends.
pub struct Registry {
    /// `127.0.0.1:PORT`.
    pub host: String,
    server: Child,
    storage: TempDir,
}

/// What a registry wants of its clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nothing.
    NotNeeded,
    /// User name and password.
    Needed,
    /// A certificate of its own authority.
    ByCertificate,
}

impl Registry {
    /// The user of a guarded one.
    pub const USER: &str = "robot";
    /// The user's password.
    pub const PASSWORD: &str = "secret";

    /// Starts one with nothing in it, on a port that the kernel picks.
    pub fn start() -> Result<Registry> {
        Registry::start_at("127.0.0.1:0")
    }

    /// The same at an address, such as `127.0.0.1:5000`.
    pub fn start_at(address: &str) -> Result<Registry> {
        Registry::start_as(address, None, Login::NotNeeded)
    }

    /// One that lets in only [`Registry::USER`] with [`Registry::PASSWORD`].
    pub fn start_guarded() -> Result<Registry> {
        Registry::start_as("127.0.0.1:0", None, Login::Needed)
    }

    /// One that speaks TLS with a certificate of that authority.
    pub fn start_tls(authority: &Authority, login: Login) -> Result<Registry> {
        Registry::start_as("127.0.0.1:0", Some(authority), login)
    }

    fn start_as(address: &str, authority: Option<&Authority>, login: Login) -> Result<Registry> {
        let storage = tempfile::Builder::new().prefix("kiln-registry-").tempdir().context("make storage")?;
        let mut http = format!("addr: '{address}'");
        if let Some(authority) = authority {
            let path = |name: &str| authority.path(name).display().to_string();
            http += &format!(", tls: {{certificate: '{}', key: '{}'", path("server.cert"), path("server.key"));
            if login == Login::ByCertificate {
                http += &format!(", clientcas: ['{}']", path("ca.crt"));
            }
            http += "}";
        }
        let mut config = format!(
            "version: 0.1\nlog: {{level: info}}\nhttp: {{{http}}}\n\
             storage: {{filesystem: {{rootdirectory: '{}'}}, delete: {{enabled: true}}}}\n",
            storage.path().join("data").display()
        );
        if login == Login::Needed {
            let passwords = storage.path().join("htpasswd");
            // bcrypt of the password below.
            let line = "robot:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
            fs::write(&passwords, line).context("write the registry's passwords")?;
            config += &format!("auth: {{htpasswd: {{realm: test, path: '{}'}}}}\n", passwords.display());
        }
        let config_path = storage.path().join("config.yml");
        fs::write(&config_path, config).context("write the registry's config")?;
        let (mut server, stderr) = spawn(config_path.to_string_lossy().into_owned())?;
        match listening(stderr) {
            Some(host) => Ok(Registry { host, server, storage }),
            None => {
                let _ = server.kill();
                let status = server.wait()?;
                anyhow::bail!("docker-registry did not start to listen: {status}")
            }
        }
    }

    /// One for all tests of this process, holding `library/busybox:latest`. It is never emptied: tests push to
    /// repositories of their own.
    pub fn shared() -> &'static Registry {
        static SHARED: OnceLock<Registry> = OnceLock::new();
        SHARED.get_or_init(|| {
            let registry = Registry::start().expect("start docker-registry");
            let base = crate::bases::busybox(&["amd64", "arm64"]).expect("make the busybox base");
            registry.push(&base, "library/busybox", "latest").expect("push the busybox base");
            registry
        })
    }

    /// Uploads all of a layout and tags what its index.json names (distribution-spec: POST then PUT).
    pub fn push(&self, layout: &Layout, repository: &str, tag: &str) -> Result<()> {
        for blob in &layout.blobs {
            let path = layout.blob_path(&blob.digest);
            let data = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            match blob.kind.as_str() {
                kind if kind.contains("manifest") || kind.contains("index") => {
                    self.put_manifest(repository, &blob.digest, kind, &data)?;
                    if blob.digest == layout.top {
                        self.put_manifest(repository, tag, kind, &data)?;
                    }
                }
                _ => self.put_blob(repository, &blob.digest, &data)?,
            }
        }
        Ok(())
    }

    /// Uploads one blob in one piece.
    pub fn put_blob(&self, repository: &str, digest: &str, data: &[u8]) -> Result<()> {
        let start = request(&self.host, "POST", &format!("/v2/{repository}/blobs/uploads/"), &[], b"")?;
        let location = start.header("location").context("upload without location")?;
        let path = location.strip_prefix(&format!("http://{}", self.host)).unwrap_or(location);
        let joint = if path.contains('?') { '&' } else { '?' };
        let headers = [("Content-Type", "application/octet-stream")];
        let end = request(&self.host, "PUT", &format!("{path}{joint}digest={digest}"), &headers, data)?;
        ensure!(end.status == 201, "upload of {digest}: status {}", end.status);
        Ok(())
    }

    /// Stores a manifest or index; `reference` is a tag or digest.
    pub fn put_manifest(&self, repository: &str, reference: &str, kind: &str, data: &[u8]) -> Result<()> {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let answer = request(&self.host, "PUT", &path, &[("Content-Type", kind)], data)?;
        let body = String::from_utf8_lossy(&answer.body);
        ensure!(answer.status == 201, "put of manifest {reference}: status {} {body}", answer.status);
        Ok(())
    }

    /// `GET /v2/<repository>/manifests/<reference>`, OCI and Docker types accepted.
    pub fn get_manifest(&self, repository: &str, reference: &str) -> Result<Response> {
        const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
            application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json";
        request(&self.host, "GET", &format!("/v2/{repository}/manifests/{reference}"), &[("Accept", ACCEPT)], b"")
    }

    /// A manifest or any other blob, by digest.
    pub fn get_blob(&self, repository: &str, digest: &str) -> Result<Vec<u8>> {
        let manifest = self.get_manifest(repository, digest)?;
        if manifest.status == 200 {
            return Ok(manifest.body);
        }
        let blob = request(&self.host, "GET", &format!("/v2/{repository}/blobs/{digest}"), &[], b"")?;
        ensure!(blob.status == 200, "blob {digest}: status {}", blob.status);
        Ok(blob.body)
    }

    /// Folder with all its data, for tests that damage it.
    pub fn storage(&self) -> &Path {
        self.storage.path()
    }

    /// kiln's configuration that makes this registry the mirror of docker.io.
    pub fn kiln_toml(&self) -> String {
        format!("[registry.\"docker.io\"]\nmirrors = [\"{0}\"]\n\n[registry.\"{0}\"]\nhttp = true\n", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// Starts the server from a thread that lives as long as this process: the kernel's parent-death signal goes by the
/// thread that made the child (prctl(2), PR_SET_PDEATHSIG), and statics are not dropped at exit.
fn spawn(config: String) -> Result<(Child, ChildStderr)> {
    type Job = (String, Sender<std::io::Result<Child>>);
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, jobs) = channel::<Job>();
        std::thread::spawn(move || {
            for (config, answer) in jobs {
                let child = Command::new("setpriv")
                    .args(["--pdeathsig", "KILL", "docker-registry", "serve", &config])
                    .stdin(Stdio::null())
                    .stdout(Stdio::null())
                    .stderr(Stdio::piped())
                    .spawn();
                let _ = answer.send(child);
            }
        });
        sender
    });
    let (sender, answer) = channel();
    spawner.send((config, sender)).context("ask for a registry")?;
    let mut child = answer.recv()?.context("start docker-registry (is it installed?)")?;
    let stderr = child.stderr.take().context("registry's standard error")?;
    Ok((child, stderr))
}

/// Reads the log up to the line that names the address that was picked, then goes on reading so that the server never blocks.
fn listening(stderr: ChildStderr) -> Option<String> {
    let mut lines = BufReader::new(stderr).lines().map_while(|line| line.ok());
    let host = lines.find_map(|line| {
        let (_, rest) = line.split_once("listening on ")?;
        Some(rest.split(['"', ' ', ',']).next()?.to_string())
    })?;
    std::thread::spawn(move || lines.for_each(drop));
    Some(host)
}
