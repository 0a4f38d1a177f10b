//! Gives a daemon an image, without the layers that it has.
//!
//! dockerd reads an archive's `manifest.json` and the configs first, and opens a layer's file only if it has no layer of the
//! same chain (measured with 20.10.24: an archive without the files of known layers is loaded, one that lacks an unknown
//! layer's is refused). With the image store of containerd it wants every blob, and podman is not dockerd; they get all.

use super::{Daemon, DaemonError};
use bytes::Bytes;
use cache::digest::Digest;
use futures::{StreamExt, TryStreamExt};
use reqwest::Method;
use serde::Deserialize;
use std::io::{self, Write};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Bytes of an archive that are sent at once.
const PIECE: usize = 256 << 10;
/// Pieces between the thread that writes the archive and the connection.
const PIECES_AHEAD: usize = 8;
/// Between two reports of how much was sent.
const REPORT_INTERVAL: Duration = Duration::from_millis(100);
/// Images that are asked for their layers at once.
const ASKED_AT_ONCE: usize = 8;
/// Images that are asked for their layers; a daemon with more is not searched to the end.
const ASKED_MAX: usize = 500;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Info {
    #[serde(default)]
    driver_status: Option<Vec<(String, String)>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Version {
    #[serde(default)]
    components: Option<Vec<Component>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Component {
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Listed {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Inspected {
    pub id: String,
    #[serde(default, rename = "RootFS")]
    pub root_fs: Option<RootFs>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RootFs {
    #[serde(default)]
    pub layers: Option<Vec<String>>,
}

/// A line of the answer to a load.
#[derive(Deserialize)]
struct Said {
    #[serde(default)]
    error: Option<String>,
}

impl Daemon {
    /// How many of these layers, lowest first, need not be sent: 0 where all must be.
    pub async fn known_layers(&self, diff_ids: &[Digest]) -> Result<usize, DaemonError> {
        if diff_ids.is_empty() || !self.takes_partial_archives().await? {
            return Ok(0);
        }
        let listed: Vec<Listed> = self.get("/images/json?all=1", "list its images").await?;
        let mut ids: Vec<String> = listed.into_iter().map(|image| image.id).collect();
        ids.dedup();
        ids.truncate(ASKED_MAX);
        let mut answers = futures::stream::iter(ids)
            .map(|id| async move { self.get::<Inspected>(&format!("/images/{id}/json"), "show an image").await })
            .buffer_unordered(ASKED_AT_ONCE);
        let mut known = 0;
        while let Some(answer) = answers.next().await {
            // One that was removed meanwhile.
            let Ok(Inspected { root_fs: Some(RootFs { layers: Some(layers) }), .. }) = answer else { continue };
            known = known.max(common(diff_ids, &layers));
            if known == diff_ids.len() {
                break;
            }
        }
        Ok(known)
    }

    async fn takes_partial_archives(&self) -> Result<bool, DaemonError> {
        let version: Version = self.get("/version", "say its version").await?;
        if !version.components.unwrap_or_default().iter().any(|component| component.name == "Engine") {
            return Ok(false);
        }
        let info: Info = self.get("/info", "say what it is").await?;
        let status = info.driver_status.unwrap_or_default();
        Ok(!status.iter().any(|(key, value)| key == "driver-type" || value.contains("io.containerd.snapshotter")))
    }

    /// Has the daemon load the archive that `write` writes. `sent` is told now and then how many bytes have left.
    pub async fn load(
        &self,
        sent: impl Fn(u64) + Send + 'static,
        write: impl FnOnce(&mut dyn Write) -> io::Result<()> + Send + 'static,
    ) -> Result<io::Result<()>, DaemonError> {
        let (sender, mut receiver) = mpsc::channel::<io::Result<Bytes>>(PIECES_AHEAD);
        let (mut total, mut told) = (0, Instant::now());
        let pieces = futures::stream::poll_fn(move |context| receiver.poll_recv(context)).inspect_ok(move |piece| {
            total += piece.len() as u64;
            if told.elapsed() >= REPORT_INTERVAL {
                told = Instant::now();
                sent(total);
            }
        });
        let writing = tokio::task::spawn_blocking(move || {
            let mut pieces = Pieces { sender, buffer: Vec::with_capacity(PIECE) };
            let written = write(&mut pieces).and_then(|()| pieces.flush());
            if let Err(error) = &written {
                // The daemon must not take half an archive for a whole one.
                let _ = pieces.sender.blocking_send(Err(io::Error::from(error.kind())));
            }
            written
        });
        let body = reqwest::Body::wrap_stream(pieces);
        let answered = match self.ask(Method::POST, "/images/load?quiet=1", Some(body), "load the image").await {
            Ok(response) => self.said(response).await,
            Err(error) => Err(error),
        };
        let written = writing.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        match (answered, written) {
            // What the daemon says explains a pipe that broke.
            (Err(error @ DaemonError::Refused { .. }), _) => Err(error),
            (_, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => Ok(Err(error)),
            (answered, _) => answered.map(Ok),
        }
    }

    /// Reads the answer to a load: it is a success, and the error comes in the text.
    async fn said(&self, response: reqwest::Response) -> Result<(), DaemonError> {
        let verb = "load the image";
        let text = response.bytes().await.map_err(self.broken(verb))?;
        for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            if let Ok(Said { error: Some(message) }) = serde_json::from_slice::<Said>(line) {
                return Err(DaemonError::Refused { socket: self.socket.clone(), verb, message });
            }
        }
        Ok(())
    }
}

/// Layers that both have, from the lowest.
fn common(ours: &[Digest], theirs: &[String]) -> usize {
    ours.iter().zip(theirs).take_while(|(ours, theirs)| ours.as_str() == theirs.as_str()).count()
}

/// Cuts what is written into pieces.
struct Pieces {
    sender: mpsc::Sender<io::Result<Bytes>>,
    buffer: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = bytes.len().min(PIECE - self.buffer.len());
        self.buffer.extend_from_slice(&bytes[..count]);
        if self.buffer.len() == PIECE {
            self.flush()?;
        }
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        self.sender.blocking_send(Ok(piece.into())).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_known_from_the_lowest() {
        let [a, b, c] = ["a", "b", "c"].map(|text| Digest::of(text.as_bytes()));
        let check = |ours: &[&Digest], theirs: &[&Digest], expect: usize| {
            let ours: Vec<Digest> = ours.iter().map(|digest| (*digest).clone()).collect();
            let theirs: Vec<String> = theirs.iter().map(|digest| digest.to_string()).collect();
            assert_eq!(common(&ours, &theirs), expect);
        };
        check(&[&a, &b], &[&a, &c], 1);
        check(&[&a, &b], &[&a, &b, &c], 2);
        check(&[&a, &b], &[&b], 0);
        check(&[], &[&b], 0);
    }
}
