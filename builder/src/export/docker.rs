//! `type=docker`: the archive that `docker load` reads: an OCI layout plus `manifest.json`. Without `dest` it goes into
//! the daemon, `docker_load.rs`.

use super::archive::{self, Extra};
use super::attributes::Attributes;
use super::docker_load;
use super::oci::{assemble_for, folder, response, write_folder};
use super::target::Target;
use super::{Export, ExportError, Exporter, ImageAttributes, Response};
use crate::attest::request::AttestRequest;
use crate::dockerd;
use crate::image::assemble::{Assembled, AssembledImage};
use crate::image::layers::LayerOptions;
use frontend::reference::Reference;
use futures::future::BoxFuture;
use serde_json::json;
use std::path::PathBuf;

struct Docker {
    image: ImageAttributes,
    place: Place,
}

#[derive(Clone)]
enum Place {
    Archive(Target),
    Folder(PathBuf),
    Daemon(dockerd::Place),
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let image = attributes.image(false)?;
    let place = match attributes.boolean("tar")?.unwrap_or(true) {
        true => match Target::take(attributes)? {
            Some(target) => Place::Archive(target),
            // Said before anything is built.
            None => Place::Daemon(docker_load::place()?),
        },
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
        self.image.check_types("docker", attest)?;
        if self.image.attaches(attest) { Err(ExportError::DockerIndex) } else { Ok(()) }
    }

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            if export.is_multi_platform() {
                return Err(ExportError::DockerIndex);
            }
            let assembled = assemble_for(&self.image, export).await?;
            let response = response(&assembled, &self.image);
            let names = &self.image.names;
            let (store, blobs) = (export.store.clone(), archive::blobs(&assembled));
            let write: Box<dyn FnOnce() -> Result<(), ExportError> + Send> = match self.place.clone() {
                Place::Daemon(daemon) => {
                    docker_load::load(&daemon, &assembled, names, export).await?;
                    return Ok(response);
                }
                Place::Archive(target) => {
                    let extras = archive_extras(&assembled, names);
                    Box::new(move || target.write(|out| archive::write(out, &store, &blobs, &extras)))
                }
                Place::Folder(dest) => {
                    let entries = archive::index_entries(&assembled, names);
                    let manifest = manifest_file(&[Tagged { image: &assembled.images[0], names }]);
                    Box::new(move || {
                        write_folder(&dest, &store, &blobs, entries)?;
                        let path = dest.join(manifest.name);
                        Target::File(path).write(|out| out.write_all(&manifest.content).map_err(ExportError::Archive))
                    })
                }
            };
            archive::fetch_blobs(&assembled, export).await?;
            export.vertex.status("sending tarball", 0, 0);
            tokio::task::spawn_blocking(write).await??;
            export.vertex.status_done("sending tarball", 0, 0);
            Ok(response)
        })
    }
}

/// What is in the archive beside the blobs, in the order of names.
pub fn archive_extras(assembled: &Assembled, names: &[Reference]) -> [Extra; 3] {
    let entries = archive::index_entries(assembled, names);
    let tagged = Tagged { image: &assembled.images[0], names };
    [archive::index_file(&entries), manifest_file(&[tagged]), archive::oci_layout_file()]
}

/// An image and its names.
pub struct Tagged<'a> {
    pub image: &'a AssembledImage,
    pub names: &'a [Reference],
}

/// `manifest.json`.
pub fn manifest_file(images: &[Tagged<'_>]) -> Extra {
    let path = |digest: &cache::digest::Digest| format!("blobs/sha256/{}", digest.hex());
    let element = |Tagged { image, names }: &Tagged<'_>| {
        // Readers know no digests in this list.
        let tags: Vec<String> = names.iter().filter(|name| name.digest.is_none()).map(|name| name.familiar()).collect();
        let tags: Option<Vec<String>> = (!tags.is_empty()).then_some(tags);
        let layers: Option<Vec<String>> =
            (!image.layers.is_empty()).then(|| image.layers.iter().map(|layer| path(&layer.entry.digest)).collect());
        json!({ "Config": path(&image.config.digest), "RepoTags": tags, "Layers": layers })
    };
    let content: Vec<serde_json::Value> = images.iter().map(element).collect();
    let content = serde_json::Value::from(content).to_string().into_bytes();
    Extra { name: "manifest.json", mode: 0o644, content }
}
