//! `type=docker`: the archive that `docker load` reads: an OCI layout plus `manifest.json`. Without `dest` it is piped
//! into `docker load`.

use super::archive::{self, Extra};
use super::attributes::Attributes;
use super::oci::{assemble_for, folder, response, write_folder};
use super::target::Target;
use super::{Export, ExportError, Exporter, ImageAttributes, Response};
use crate::attest::request::AttestRequest;
use crate::image::assemble::AssembledImage;
use crate::image::layers::LayerOptions;
use frontend::reference::Reference;
use futures::future::BoxFuture;
use serde_json::json;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};

struct Docker {
    image: ImageAttributes,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Archive(Target),
    Folder(PathBuf),
    Daemon,
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let image = attributes.image(false)?;
    let place = match attributes.boolean("tar")?.unwrap_or(true) {
        true => Target::take(attributes)?.map_or(Place::Daemon, Place::Archive),
        false => Place::Folder(folder(attributes)?),
    };
    Ok(Box::new(Docker { image, place }))
}

impl Exporter for Docker {
    fn name(&self) -> String {
        "exporting to docker image format".into()
    }

    fn layer_options(&self) -> Option<LayerOptions> {
        self.image.layer_options()
    }

    fn uses_stdout(&self) -> bool {
        matches!(self.place, Place::Archive(Target::Stdout))
    }

    fn makes_image(&self) -> bool {
        true
    }

    fn check(&self, attest: &AttestRequest) -> Result<(), ExportError> {
        if self.image.attaches(attest) { Err(ExportError::DockerIndex) } else { Ok(()) }
    }

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            if export.is_multi_platform() {
                return Err(ExportError::DockerIndex);
            }
            let assembled = assemble_for(&self.image, export).await?;
            archive::fetch_blobs(&assembled, export).await?;
            let entries = archive::index_entries(&assembled, &self.image.names);
            let extras = [
                archive::index_file(&entries),
                manifest_file(&assembled.images[0], &self.image.names),
                archive::oci_layout_file(),
            ];
            let response = response(&assembled, &self.image);
            let (store, blobs, place) = (export.store.clone(), archive::blobs(&assembled), self.place.clone());
            export.vertex.status("sending tarball", 0, 0);
            tokio::task::spawn_blocking(move || match place {
                Place::Archive(target) => target.write(|out| archive::write(out, &store, &blobs, &extras)),
                Place::Daemon => load(|out| archive::write(out, &store, &blobs, &extras)),
                Place::Folder(dest) => {
                    write_folder(&dest, &store, &blobs, entries)?;
                    let [_, manifest, _] = extras;
                    let path = dest.join(manifest.name);
                    Target::File(path).write(|out| out.write_all(&manifest.content).map_err(ExportError::Archive))
                }
            })
            .await??;
            export.vertex.status_done("sending tarball", 0, 0);
            Ok(response)
        })
    }
}

/// `manifest.json`.
fn manifest_file(image: &AssembledImage, names: &[Reference]) -> Extra {
    let path = |digest: &cache::digest::Digest| format!("blobs/sha256/{}", digest.hex());
    let tags: Option<Vec<String>> = (!names.is_empty()).then(|| names.iter().map(Reference::familiar).collect());
    let layers: Option<Vec<String>> =
        (!image.layers.is_empty()).then(|| image.layers.iter().map(|layer| path(&layer.entry.digest)).collect());
    let content = json!([{ "Config": path(&image.config.digest), "RepoTags": tags, "Layers": layers }]);
    Extra { name: "manifest.json", mode: 0o644, content: content.to_string().into_bytes() }
}

/// Pipes the archive into `docker load`.
fn load(write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>) -> Result<(), ExportError> {
    let mut docker = Command::new("docker")
        .arg("load")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => {
                ExportError::DockerLoad("there is no docker here; give dest=FILE to write the archive to a file".into())
            }
            _ => ExportError::DockerLoad(error.to_string()),
        })?;
    let written = docker.stdin.take().map_or(Ok(()), |mut stdin| write(&mut stdin));
    let output = docker.wait_with_output().map_err(|error| ExportError::DockerLoad(error.to_string()))?;
    // When docker ends early, writing fails with a broken pipe, and docker's own words say why.
    match output.status.success() {
        true => written,
        false => Err(ExportError::DockerLoad(String::from_utf8_lossy(&output.stderr).trim().to_string())),
    }
}
