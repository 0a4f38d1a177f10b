//! `--load`: an image into a running daemon, over its socket and without the layers that it has; through the program
//! docker only where the daemon is none of this machine's.

use super::archive::{self, Extra};
use super::docker::archive_extras;
use super::{Export, ExportError};
use crate::dockerd::{Daemon, DaemonError, Place, find};
use crate::image::assemble::{Assembled, AssembledImage};
use cache::digest::Digest;
use cache::store::Store;
use frontend::reference::Reference;
use std::collections::BTreeMap;
use std::io;
use std::process::{Command, Stdio};

/// The daemon that images go into.
pub fn place() -> Result<Place, ExportError> {
    Ok(find(&|name| std::env::var_os(name))?)
}

/// Loads an image of one platform under all its names at once.
pub async fn load(
    daemon: &Place,
    assembled: &Assembled,
    names: &[Reference],
    export: &Export<'_>,
) -> Result<(), ExportError> {
    let daemon = match daemon {
        Place::Socket(socket) => Daemon::at(socket)?,
        Place::Other(_) => {
            archive::fetch_blobs(assembled, export).await?;
            return through_docker(assembled, names, export).await;
        }
    };
    let known = daemon.known_layers(&diff_ids(&assembled.images[0], export.store)?).await?;
    match send(&daemon, assembled, names, known, export).await {
        // It may have removed a layer since it was asked.
        Err(ExportError::Daemon(error @ DaemonError::Refused { .. })) if known > 0 => {
            tracing::warn!(%error, known, "the daemon lacks a layer that it had; all are sent");
            send(&daemon, assembled, names, 0, export).await
        }
        result => result,
    }
}

/// Sends all but the lowest `known` layers.
async fn send(
    daemon: &Daemon,
    assembled: &Assembled,
    names: &[Reference],
    known: usize,
    export: &Export<'_>,
) -> Result<(), ExportError> {
    let mut sent = assembled.clone();
    let image = &mut sent.images[0];
    let kept: Vec<_> = image.layers.drain(..known).collect();
    archive::fetch_blobs(&sent, export).await?;
    let (store, blobs) = (export.store.clone(), archive::blobs(&sent));
    let extras = archive_extras(assembled, names);
    let total: u64 = blobs.values().sum();
    let status = match kept.len() {
        0 => "sending image to dockerd".to_string(),
        kept => format!("sending image to dockerd, which has {kept} of {} layers", assembled.images[0].layers.len()),
    };
    export.vertex.status(&status, 0, total);
    let (vertex, said) = (export.vertex.clone(), status.clone());
    let sent = move |bytes: u64| vertex.status(&said, bytes.min(total), total);
    let written = daemon.load(sent, move |out| as_io(archive::write(out, &store, &blobs, &extras))).await?;
    written.map_err(ExportError::Archive)?;
    export.vertex.status_done(&status, total, total);
    Ok(())
}

fn as_io(written: Result<(), ExportError>) -> io::Result<()> {
    written.map_err(|error| match error {
        ExportError::Archive(error) => error,
        error => io::Error::other(error),
    })
}

/// As the image's config has them, lowest first.
pub fn diff_ids(image: &AssembledImage, store: &Store) -> Result<Vec<Digest>, ExportError> {
    let config = store.content().read_small(&image.config.digest)?;
    let config: frontend::image_config::ImageConfig = serde_json::from_slice(&config).unwrap_or_default();
    let diff_ids = config.rootfs.diff_ids.unwrap_or_default();
    Ok(diff_ids.iter().map_while(|diff_id| diff_id.parse().ok()).collect())
}

/// Pipes the archive into `docker load`.
async fn through_docker(assembled: &Assembled, names: &[Reference], export: &Export<'_>) -> Result<(), ExportError> {
    let (store, blobs) = (export.store.clone(), archive::blobs(assembled));
    let extras = archive_extras(assembled, names);
    export.vertex.status("sending image through docker load", 0, 0);
    tokio::task::spawn_blocking(move || pipe(&store, &blobs, &extras)).await??;
    export.vertex.status_done("sending image through docker load", 0, 0);
    Ok(())
}

fn pipe(store: &Store, blobs: &BTreeMap<Digest, u64>, extras: &[Extra]) -> Result<(), ExportError> {
    let mut docker = Command::new("docker")
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => {
                ExportError::DockerLoad("there is no docker here; give dest=FILE to write the archive to a file".into())
            }
            _ => ExportError::DockerLoad(error.to_string()),
        })?;
    let written = docker.stdin.take().map_or(Ok(()), |mut stdin| archive::write(&mut stdin, store, blobs, extras));
    let output = docker.wait_with_output().map_err(|error| ExportError::DockerLoad(error.to_string()))?;
    // When docker ends early, writing fails with a broken pipe, and docker's own words say why.
    match output.status.success() {
        true => written,
        false => Err(ExportError::DockerLoad(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}
