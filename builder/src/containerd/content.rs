//! Blobs into containerd's content store. A write is begun by saying the digest: containerd answers that it has the blob,
//! and holds it by the lease, or waits for the bytes. They are checked there against the digest.

use super::api::{ContentInfo, ContentUpdate, ContentWrite, ContentWritten, Empty, FieldMask, Labels, WriteAction};
use super::grpc::{Call, CallError, code};
use super::{ContainerdError, Leased, path};
use bytes::Bytes;
use cache::digest::{Descriptor, Digest};
use cache::store::Store;
use serde::Deserialize;
use std::io::{self, Read};
use tokio::sync::mpsc;

/// Bytes of a blob that go in one message.
const PIECE: usize = 1 << 20;
/// Pieces between the thread that reads the blob and the connection.
const PIECES_AHEAD: usize = 2;
const WRITE: &str = "take a blob";

/// A blob, and what containerd is to know of it.
#[derive(Clone, Debug)]
pub struct Blob {
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    pub labels: Labels,
}

impl Leased {
    /// Whether containerd has a blob; if so, the lease holds it from now on, and it gets the labels.
    pub async fn has(&self, blob: &Blob) -> Result<bool, ContainerdError> {
        let Some((mut write, _)) = self.begin_write(blob).await? else {
            self.label(&blob.digest, &blob.labels).await?;
            return Ok(true);
        };
        // Its end frees the name, under which the bytes may come later.
        write.end().await.map_err(|error| self.failed(WRITE, error))?;
        Ok(false)
    }

    /// Gives containerd a blob of the store. `sent` is told how many more bytes have left.
    pub async fn give(&self, blob: &Blob, store: &Store, sent: &(dyn Fn(u64) + Sync)) -> Result<(), ContainerdError> {
        // Another may have given it meanwhile.
        let Some((mut write, offset)) = self.begin_write(blob).await? else {
            return self.label(&blob.digest, &blob.labels).await;
        };
        match self.write(&mut write, blob, offset, store, sent).await {
            Err(error) if error.is(code::ALREADY_EXISTS) => self.label(&blob.digest, &blob.labels).await,
            result => result,
        }
    }

    /// `None` if it is there; else the write, and how many bytes of it containerd has, as it may from another namespace.
    async fn begin_write(&self, blob: &Blob) -> Result<Option<(Call, u64)>, ContainerdError> {
        let failed = |error| self.failed(WRITE, error);
        let mut write = self.channel.open(&path("content.v1.Content/Write"), &self.metadata).await.map_err(failed)?;
        match exchange(&mut write, self.message(blob, WriteAction::Stat, 0, Bytes::new())).await {
            Ok(offset) => Ok(Some((write, offset))),
            Err(CallError::Status { code: code::ALREADY_EXISTS, .. }) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    async fn write(
        &self,
        write: &mut Call,
        blob: &Blob,
        mut offset: u64,
        store: &Store,
        sent: &(dyn Fn(u64) + Sync),
    ) -> Result<(), ContainerdError> {
        let failed = |error| self.failed(WRITE, error);
        let mut pieces = pieces(store, &blob.digest, offset);
        while let Some(piece) = pieces.recv().await {
            let piece = piece.map_err(|source| ContainerdError::Read { digest: blob.digest.clone(), source })?;
            let length = piece.len() as u64;
            let message = self.message(blob, WriteAction::Write, offset, piece);
            exchange(write, message).await.map_err(failed)?;
            offset += length;
            sent(length);
        }
        let message = self.message(blob, WriteAction::Commit, offset, Bytes::new());
        exchange(write, message).await.map_err(failed)?;
        write.end().await.map_err(failed)
    }

    fn message(&self, blob: &Blob, action: WriteAction, offset: u64, data: Bytes) -> ContentWrite {
        ContentWrite {
            action: action.into(),
            // Of this lease alone, so no write waits for another kiln's.
            reference: format!("{}-{}", self.lease, blob.digest),
            total: blob.size.cast_signed(),
            expected: blob.digest.to_string(),
            offset: offset.cast_signed(),
            data,
            labels: if action == WriteAction::Commit { blob.labels.clone() } else { Labels::new() },
        }
    }

    /// Adds labels to a blob that is there.
    pub(super) async fn label(&self, digest: &Digest, labels: &Labels) -> Result<(), ContainerdError> {
        if labels.is_empty() {
            return Ok(());
        }
        let update = ContentUpdate {
            info: Some(ContentInfo { digest: digest.to_string(), labels: labels.clone() }),
            update_mask: Some(FieldMask { paths: labels.keys().map(|name| format!("labels.{name}")).collect() }),
        };
        self.call::<_, Empty>("content.v1.Content/Update", "label a blob", &update).await.map(drop)
    }
}

/// Sends a message and waits for its answer: how many bytes containerd has.
async fn exchange(write: &mut Call, message: ContentWrite) -> Result<u64, CallError> {
    write.send(&message).await?;
    let written: ContentWritten = write.receive().await?.ok_or(CallError::NoAnswer)?;
    Ok(written.offset.cast_unsigned())
}

/// The bytes of a blob from an offset on. They are all read and hashed by kiln as well, so that its store learns of damage.
fn pieces(store: &Store, digest: &Digest, offset: u64) -> mpsc::Receiver<io::Result<Bytes>> {
    let (sender, receiver) = mpsc::channel(PIECES_AHEAD);
    let (store, digest) = (store.clone(), digest.clone());
    tokio::task::spawn_blocking(move || {
        let read = || -> io::Result<()> {
            let mut blob = store.content().open_verified(&digest).map_err(io::Error::other)?;
            io::copy(&mut (&mut blob).take(offset), &mut io::sink())?;
            loop {
                let mut piece = Vec::with_capacity(PIECE);
                (&mut blob).take(PIECE as u64).read_to_end(&mut piece)?;
                if piece.is_empty() || sender.blocking_send(Ok(piece.into())).is_err() {
                    return Ok(());
                }
            }
        };
        if let Err(error) = read() {
            let _ = sender.blocking_send(Err(error));
        }
    });
    receiver
}

/// The labels by which containerd's collector finds what a manifest or an index names, named as its own client
/// names them (`images.ChildGCLabels`). None: it is neither.
pub fn references(document: &[u8]) -> Labels {
    let Ok(Document { config, layers, manifests }) = serde_json::from_slice(document) else { return Labels::new() };
    let mut labels = Labels::new();
    let mut add = |kind: &str, child: &Descriptor| {
        labels.insert(format!("containerd.io/gc.ref.content.{kind}"), child.digest.to_string());
    };
    config.iter().for_each(|config| add("config", config));
    for (index, layer) in layers.iter().enumerate() {
        add(&format!("l.{index}"), layer);
    }
    for (index, manifest) in manifests.iter().enumerate() {
        add(&format!("m.{index}"), manifest);
    }
    labels
}

#[derive(Deserialize)]
struct Document {
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Vec<Descriptor>,
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn documents_refer_to_what_they_name() {
        let child = |name: &str| json!({ "mediaType": "a/b", "digest": Digest::of(name.as_bytes()), "size": 1, "annotations": { "x": "y" } });
        let check = |document: Value, expect: &[(&str, &str)]| {
            let labels = references(document.to_string().as_bytes());
            let digest = |name: &str| Digest::of(name.as_bytes()).to_string();
            let expect =
                expect.iter().map(|(label, name)| (format!("containerd.io/gc.ref.content.{label}"), digest(name)));
            assert_eq!(labels, expect.collect());
        };
        let manifest = json!({ "config": child("c"), "layers": [child("one"), child("two"), child("one")] });
        check(manifest, &[("config", "c"), ("l.0", "one"), ("l.1", "two"), ("l.2", "one")]);
        check(json!({ "manifests": [child("m"), child("n")] }), &[("m.0", "m"), ("m.1", "n")]);
        check(json!({ "architecture": "amd64", "config": {} }), &[]);
        check(json!([]), &[]);
    }
}
