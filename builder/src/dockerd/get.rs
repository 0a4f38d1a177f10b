//! Takes an image from a daemon: `docker save`'s archive, as a stream.

use super::load::{Inspected, RootFs};
use super::{Daemon, DaemonError};
use bytes::Bytes;
use reqwest::Method;

/// An image as the daemon knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonImage {
    /// `sha256:…`: with dockerd's own store the config's digest, with containerd's that of a manifest or index.
    pub id: String,
    /// Lowest first.
    pub diff_ids: Vec<String>,
}

impl Daemon {
    /// What a name means to the daemon now.
    pub async fn inspect(&self, name: &str) -> Result<DaemonImage, DaemonError> {
        let inspected: Inspected = self.get(&format!("/images/{name}/json"), "show an image").await?;
        let diff_ids = inspected.root_fs.and_then(|RootFs { layers }| layers).unwrap_or_default();
        Ok(DaemonImage { id: inspected.id, diff_ids })
    }

    /// The archive of an image; each call gives the next bytes, `None` at the end.
    pub async fn archive(&self, name: &str) -> Result<ArchiveReader, DaemonError> {
        let verb = "give an image";
        let response = self.ask(Method::GET, &format!("/images/{name}/get"), None, verb).await?;
        Ok(ArchiveReader { daemon: self.clone(), response, verb })
    }
}

/// An archive that comes.
pub struct ArchiveReader {
    daemon: Daemon,
    response: reqwest::Response,
    verb: &'static str,
}

impl ArchiveReader {
    /// The next bytes.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, DaemonError> {
        self.response.chunk().await.map_err(self.daemon.broken(self.verb))
    }
}
