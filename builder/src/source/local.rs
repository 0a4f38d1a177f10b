//! Images that are at hand: named ones of kiln's store, which a `FROM` finds before it asks a registry, and those of a
//! dockerd (`docker-daemon://NAME`), which are read from it once.

use super::image::{ImageError, ImageSource, blocking};
use super::layers::{PIECES_AHEAD, Pieces, REPORT_INTERVAL};
use crate::dockerd::{Daemon, DaemonError};
use crate::local::load::{self, LoadError};
use crate::local::record;
use crate::progress::Vertex;
use crate::time::ago;
use cache::digest::Digest;
use cache::images::{ImageRecord, PlatformImage};
use cache::ledger::now_ms;
use cache::tree::Tree;
use frontend::compile::{ImageInfo, ImageRequest};
use frontend::platform::Platform;
use frontend::reference::Reference;
use std::io;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Whether names of the store are looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LocalNames {
    /// Before the registry.
    #[default]
    Use,
    /// `--pull`.
    Ignore,
}

/// Namespace of notes: a daemon's image id -> the record that was made of it.
const NOTES: &str = "docker-daemon";

/// An image that was found at hand.
#[derive(Clone, Debug)]
pub struct Picked {
    /// Its layers.
    pub tree: Tree,
    /// What it is called where it was found.
    pub name: String,
    /// Digest of its index or manifest, if it has one.
    pub top: Option<Digest>,
}

/// Why an image of a daemon cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DaemonImageError {
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error("dockerd gave no image for {name}")]
    Nothing { name: String },
    #[error("dockerd gave another image than {name}: its layers are not those that it says it has")]
    Other { name: String },
    #[error("dockerd's image {name} is for {available}, not for {wanted}")]
    Platform { name: String, wanted: String, available: String },
}

impl ImageSource {
    /// The image that has this name in the store, if it is for the platform. Says on the vertex that it is used.
    pub(super) fn named_info(
        &self,
        reference: &Reference,
        platform: &Platform,
        vertex: Option<&Vertex>,
    ) -> Result<Option<ImageInfo>, ImageError> {
        if self.inner.locals == LocalNames::Ignore {
            return Ok(None);
        }
        let name = record::stored_name(reference);
        let Some(named) = self.inner.store.image_named(&name)? else { return Ok(None) };
        if !record::may_be_named(&named.record, reference) {
            return Ok(None);
        }
        let Some(image) = record::choose(&named.record, platform) else { return Ok(None) };
        if !self.inner.store.missing_parts(&named.record)?.is_empty() {
            let familiar = reference.familiar();
            self.inner.store.remark(format!(
                "parts of the image {familiar} in kiln's store are gone, so the registry was asked for it; \
                 `kiln image rm {familiar}` forgets it"
            ));
            return Ok(None);
        }
        if let Some(vertex) = vertex {
            let (at, id) = (ago(now_ms() - named.named_ms), &named.id.hex()[..12]);
            let said = format!("from kiln's store: image {id}, named {at} (--pull asks the registry)");
            vertex.status_done(&said, 0, 0);
        }
        Ok(Some(self.pick(&name, image, &named.record)?))
    }

    /// The image that a daemon has under this name, read into the store unless it is there.
    pub(super) async fn daemon_info(
        &self,
        name: &str,
        platform: &Platform,
        vertex: Option<&Vertex>,
    ) -> Result<ImageInfo, ImageError> {
        let failed = |source: DaemonImageError| ImageError::Daemon(Box::new(source));
        let daemon = Daemon::here().map_err(|error| failed(error.into()))?;
        let found = daemon.inspect(name).await.map_err(|error| failed(error.into()))?;
        let store = &self.inner.store;
        let kept = store.note(NOTES, &found.id)?;
        let kept: Option<ImageRecord> = kept.and_then(|note| serde_json::from_slice(&note).ok());
        let record = match kept {
            Some(record) if store.missing_parts(&record)?.is_empty() => {
                if let Some(vertex) = vertex {
                    vertex.status_done(&format!("{name} was read from dockerd before"), 0, 0);
                }
                record
            }
            _ => {
                let record = self.read_from(&daemon, name, vertex).await.map_err(failed)?;
                let diff_ids = |image: &PlatformImage| -> Vec<String> {
                    let remotes = image.layers.iter().filter_map(|layer| layer.remote.as_ref());
                    remotes.map(|remote| remote.diff_id.to_string()).collect()
                };
                // Under the name may be another image by now.
                if !record.platforms.iter().any(|image| diff_ids(image) == found.diff_ids) {
                    return Err(failed(DaemonImageError::Other { name: name.into() }));
                }
                let note = serde_json::to_vec(&record).expect("a record is plain data");
                store.put_note(NOTES, &found.id, &note)?;
                record
            }
        };
        let Some(image) = record::choose(&record, platform) else {
            let (wanted, available) = (platform.to_string(), record::platforms(&record));
            return Err(failed(DaemonImageError::Platform { name: name.into(), wanted, available }));
        };
        self.pick(name, image, &record)
    }

    async fn read_from(
        &self,
        daemon: &Daemon,
        name: &str,
        vertex: Option<&Vertex>,
    ) -> Result<ImageRecord, DaemonImageError> {
        let mut archive = daemon.archive(name).await?;
        let (sender, pieces) = mpsc::channel(PIECES_AHEAD);
        let (store, origin) = (self.inner.store.clone(), format!("dockerd, {name}"));
        let reading = blocking(move || load::load(&store, Pieces::new(pieces), &origin, &|_| {}));
        let status = format!("reading {name} from dockerd");
        let pumping = async {
            let (mut total, mut told) = (0, Instant::now());
            loop {
                let piece = match archive.chunk().await {
                    Ok(Some(piece)) => piece,
                    Ok(None) => break,
                    Err(error) => {
                        // The archive must not seem to end here.
                        let sent = sender.send(Err(io::ErrorKind::ConnectionReset.into())).await;
                        return if sent.is_ok() { Err(error) } else { Ok(()) };
                    }
                };
                total += piece.len() as u64;
                // The thread has failed, and says why itself.
                if sender.send(Ok(piece)).await.is_err() {
                    return Ok(());
                }
                if let Some(vertex) = vertex
                    && told.elapsed() >= REPORT_INTERVAL
                {
                    told = Instant::now();
                    vertex.status(&status, total, 0);
                }
            }
            drop(sender);
            if let Some(vertex) = vertex {
                vertex.status_done(&status, total, total);
            }
            Ok(())
        };
        let (pumped, loaded) = tokio::join!(pumping, reading);
        pumped?;
        let mut loaded = loaded?;
        match loaded.len() {
            0 => Err(DaemonImageError::Nothing { name: name.into() }),
            _ => Ok(loaded.remove(0).record),
        }
    }

    /// Remembers the layers of an image under a digest that stands for them in this build.
    fn pick(&self, name: &str, image: &PlatformImage, record: &ImageRecord) -> Result<ImageInfo, ImageError> {
        let id = record.id();
        let config = record::config_of(name, image).map_err(|source| ImageError::Local(Box::new(source)))?;
        let tree: Tree = image.layers.iter().cloned().collect();
        let digest = match &image.documents {
            Some(documents) => documents.manifest.digest.clone(),
            None => Digest::of(format!("{id} {}", image.platform).as_bytes()),
        };
        let picked = Picked { tree, name: name.into(), top: record.top.as_ref().map(|top| top.digest.clone()) };
        self.inner.picked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(digest.clone(), picked);
        Ok(ImageInfo { digest: digest.to_string(), top_digest: id.to_string(), config })
    }

    /// An image that was found at hand in this build, by the digest that stands for it in the graph.
    pub fn picked(&self, digest: &Digest) -> Option<Picked> {
        self.inner.picked.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(digest).cloned()
    }

    /// Says how to use an image that no registry gave, if a dockerd here has it.
    pub async fn daemon_advice(&self, request: &ImageRequest) -> Option<String> {
        let frontend::compile::ImageLocation::Registry(reference) = &request.source else { return None };
        let daemon = Daemon::here().ok()?;
        let familiar = reference.familiar();
        let asked = tokio::time::timeout(Duration::from_secs(2), daemon.inspect(&familiar)).await;
        asked.ok()?.ok()?;
        Some(format!(
            "the dockerd here has {familiar}: --build-context {familiar}=docker-daemon://{familiar} takes it from there"
        ))
    }
}
