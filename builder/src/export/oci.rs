//! `type=oci`: an OCI layout, as an archive or, with `tar=false`, as a folder in which exports accumulate.

use super::archive::{self, Extra};
use super::attributes::Attributes;
use super::target::Target;
use super::{Export, ExportError, Exporter, ImageAttributes, Response};
use crate::image::assemble::{Assembled, Workshop, assemble};
use crate::image::layers::LayerOptions;
use crate::image::manifest::{Entry, IMAGE_NAME, REF_NAME};
use cache::layer::compression::MediaTypes;
use futures::future::BoxFuture;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

struct Oci {
    image: ImageAttributes,
    place: Place,
}

enum Place {
    Archive(Target),
    Folder(PathBuf),
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let mut image = attributes.image(false)?;
    image.options.types = MediaTypes::Oci;
    image.are_types_open = false;
    let place = match attributes.boolean("tar")?.unwrap_or(true) {
        true => Place::Archive(Target::take(attributes)?.ok_or_else(|| attributes.missing("dest"))?),
        false => Place::Folder(folder(attributes)?),
    };
    Ok(Box::new(Oci { image, place }))
}

/// `dest` as a folder, which may exist.
pub fn folder(attributes: &mut Attributes) -> Result<PathBuf, ExportError> {
    let dest: PathBuf = attributes.take("dest").ok_or_else(|| attributes.missing("dest"))?.into();
    match dest.exists() && !dest.is_dir() {
        true => Err(ExportError::IsFile(dest)),
        false => Ok(dest),
    }
}

impl Exporter for Oci {
    fn name(&self) -> String {
        "exporting to oci image format".into()
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

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            let assembled = assemble_for(&self.image, export).await?;
            archive::fetch_blobs(&assembled, export).await?;
            let entries = archive::index_entries(&assembled, &self.image.names);
            let response = response(&assembled, &self.image);
            let store = export.store.clone();
            let blobs = archive::blobs(&assembled);
            match &self.place {
                Place::Archive(target) => {
                    let (target, extras) =
                        (target.clone(), [archive::index_file(&entries), archive::oci_layout_file()]);
                    export.vertex.status("sending tarball", 0, 0);
                    tokio::task::spawn_blocking(move || {
                        target.write(|out| archive::write(out, &store, &blobs, &extras))
                    })
                    .await??;
                    export.vertex.status_done("sending tarball", 0, 0);
                }
                Place::Folder(dest) => {
                    let dest = dest.clone();
                    tokio::task::spawn_blocking(move || write_folder(&dest, &store, &blobs, entries)).await??;
                }
            }
            Ok(response)
        })
    }
}

/// Makes the documents and reports them as statuses of the export's vertex.
pub async fn assemble_for(image: &ImageAttributes, export: &Export<'_>) -> Result<Assembled, ExportError> {
    let options = image.assemble_options(export)?;
    let Export { store, blobs, sources: images, caches, vertex, .. } = *export;
    let workshop = Workshop { store, blobs, images, caches, vertex };
    export.vertex.status("exporting layers", 0, 0);
    let assembled = assemble(export.images, &options, workshop).await?;
    export.vertex.status_done("exporting layers", 0, 0);
    for image in &assembled.images {
        export.vertex.status_done(&format!("exporting manifest {}", image.manifest.digest), 0, 0);
        export.vertex.status_done(&format!("exporting config {}", image.config.digest), 0, 0);
        for attestation in &image.attestations {
            let status = format!("exporting attestation manifest {}", attestation.manifest.digest);
            export.vertex.status_done(&status, 0, 0);
        }
    }
    if let Some(index) = &assembled.index {
        export.vertex.status_done(&format!("exporting manifest list {}", index.digest), 0, 0);
    }
    Ok(assembled)
}

/// The metadata that image-like exporters answer with.
pub fn response(assembled: &Assembled, image: &ImageAttributes) -> Response {
    let top = assembled.top();
    let mut response = Response::new();
    response.insert("containerimage.digest".into(), top.digest.as_str().into());
    let mut descriptor = top.clone();
    if assembled.index.is_none() {
        let config = &assembled.images[0].config;
        response.insert("containerimage.config.digest".into(), config.digest.as_str().into());
        descriptor.annotations.insert("config.digest".into(), config.digest.to_string());
        if let Some(created) = &assembled.images[0].created {
            descriptor.annotations.insert("org.opencontainers.image.created".into(), created.clone());
        }
    }
    let descriptor = serde_json::to_value(&descriptor).expect("a descriptor is plain data");
    response.insert("containerimage.descriptor".into(), descriptor);
    if !image.names.is_empty() {
        let names: Vec<String> = image.names.iter().map(|name| name.to_string()).collect();
        response.insert("image.name".into(), Value::String(names.join(",")));
    }
    response
}

/// Adds to the layout in a folder: blobs first, `index.json` last, under a lock that a second exporter fails on.
pub fn write_folder(
    dest: &Path,
    store: &cache::store::Store,
    blobs: &std::collections::BTreeMap<cache::digest::Digest, u64>,
    mut entries: Vec<Entry>,
) -> Result<(), ExportError> {
    let folder = dest.join("blobs/sha256");
    fs::create_dir_all(&folder).map_err(ExportError::io("create folder", &folder))?;
    let lock_path = dest.join("index.json.lock");
    let lock = File::create(&lock_path).map_err(ExportError::io("create", &lock_path))?;
    lock.try_lock().map_err(|error| ExportError::io("lock", &lock_path)(error.into()))?;
    for digest in blobs.keys() {
        let path = folder.join(digest.hex());
        if !path.exists() {
            let mut from = store.content().open_verified(digest)?;
            Target::File(path).write(|out| std::io::copy(&mut from, out).map(drop).map_err(ExportError::Archive))?;
        }
    }
    for entry in &mut entries {
        entry.annotations.entry(REF_NAME.into()).or_insert_with(|| "latest".into());
    }
    let index_path = dest.join("index.json");
    let kept = kept_entries(&index_path, &entries)?;
    let index = merged_index(kept, &entries);
    for Extra { name, content, .. } in [archive::oci_layout_file(), index] {
        Target::File(dest.join(name)).write(|out| out.write_all(&content).map_err(ExportError::Archive))?;
    }
    Ok(())
}

/// Entries of the layout's index that the new ones do not replace: those with another pair of names.
fn kept_entries(index_path: &Path, entries: &[Entry]) -> Result<Vec<Value>, ExportError> {
    let text = match fs::read(index_path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(vec![]),
        Err(error) => return Err(ExportError::io("read", index_path)(error)),
    };
    let index: Value =
        serde_json::from_slice(&text).map_err(|error| ExportError::io("understand", index_path)(error.into()))?;
    let names = |annotations: &dyn Fn(&str) -> Option<String>| (annotations(REF_NAME), annotations(IMAGE_NAME));
    let new: Vec<_> = entries.iter().map(|entry| names(&|key| entry.annotations.get(key).cloned())).collect();
    let old = index["manifests"].as_array().cloned().unwrap_or_default();
    let is_kept = |entry: &Value| {
        let annotation = |key: &str| entry["annotations"][key].as_str().map(str::to_string);
        !new.contains(&names(&annotation))
    };
    Ok(old.into_iter().filter(is_kept).collect())
}

fn merged_index(kept: Vec<Value>, entries: &[Entry]) -> Extra {
    let Extra { name, mode, content } = archive::index_file(entries);
    if kept.is_empty() {
        return Extra { name, mode, content };
    }
    let mut index: Value = serde_json::from_slice(&content).expect("kiln wrote it a moment ago");
    let new = index["manifests"].as_array().cloned().unwrap_or_default();
    index["manifests"] = kept.into_iter().chain(new).collect();
    Extra { name, mode, content: index.to_string().into_bytes() }
}
