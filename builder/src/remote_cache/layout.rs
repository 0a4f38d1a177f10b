//! A cache in an OCI layout, a folder. Writers take turns by a lock beside `index.json`.

use super::document::Documents;
use super::place::{OpenBlob, PlaceError, Written};
use crate::image::manifest::REF_NAME;
use crate::source::image::blocking;
use crate::source::oci_layout::{self, LayoutError};
use cache::digest::{Descriptor, Digest};
use cache::remote::Index;
use rustix::fs::FlockOperation;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// A tag, or a digest, in a folder.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Absolute.
    pub path: PathBuf,
    /// Tag or digest.
    pub tag: String,
    /// Blobs that nothing names go when an index is written.
    pub reset: bool,
}

impl Layout {
    pub(super) fn name(&self) -> String {
        format!("{}:{}", self.path.display(), self.tag)
    }

    pub(super) fn origin(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    pub(super) async fn top(&self) -> Result<Option<(Descriptor, Vec<u8>)>, PlaceError> {
        let layout = self.clone();
        blocking(move || match layout.resolve()? {
            Some(descriptor) => {
                let bytes = oci_layout::read_small(&layout.path, &descriptor.digest)?;
                Ok(Some((descriptor, bytes)))
            }
            None => Ok(None),
        })
        .await
    }

    pub(super) async fn small(&self, descriptor: &Descriptor) -> Result<Vec<u8>, PlaceError> {
        let (path, digest) = (self.path.clone(), descriptor.digest.clone());
        blocking(move || Ok(oci_layout::read_small(&path, &digest)?)).await
    }

    pub(super) async fn put(&self, blob: &Descriptor, open: &OpenBlob<'_>) -> Result<(), PlaceError> {
        let to = self.blob(&blob.digest);
        if fs::metadata(&to).is_ok_and(|there| there.len() == blob.size) {
            return Ok(());
        }
        let from = open(blob.clone()).await.map_err(|error| PlaceError::Blob(Box::new(error)))?;
        blocking(move || {
            let mut file = File::open(&from).map_err(PlaceError::io("open", &from))?;
            write_aside(&to, |aside| io::copy(&mut file, aside).map(drop))
        })
        .await
    }

    pub(super) async fn write(
        &self,
        index: &Index,
        documents: Documents,
        over: Option<&str>,
    ) -> Result<Written, PlaceError> {
        let (layout, blobs) = (self.clone(), index.blobs().into_keys().collect::<Vec<_>>());
        let over = over.map(str::to_string);
        blocking(move || layout.write_locked(&blobs, documents, over.as_deref())).await
    }

    fn write_locked(&self, blobs: &[Digest], documents: Documents, over: Option<&str>) -> Result<Written, PlaceError> {
        fs::create_dir_all(self.path.join("blobs/sha256")).map_err(PlaceError::io("make the folder", &self.path))?;
        let lock_path = self.path.join("index.json.lock");
        let lock = File::options().create(true).truncate(false).write(true).open(&lock_path);
        let lock = lock.map_err(PlaceError::io("open", &lock_path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive)
            .map_err(|errno| PlaceError::io("lock", &lock_path)(errno.into()))?;
        let there = self.resolve()?;
        if there.as_ref().map(|there| there.digest.as_str()) != over {
            return Ok(Written::Changed);
        }
        let missing: BTreeSet<Digest> = blobs.iter().filter(|digest| !self.blob(digest).exists()).cloned().collect();
        if !missing.is_empty() {
            return Ok(Written::Missing(missing));
        }
        for (descriptor, bytes) in
            [(&documents.config, &documents.config_bytes), (&documents.manifest, &documents.manifest_bytes)]
        {
            write_aside(&self.blob(&descriptor.digest), |aside| aside.write_all(bytes))?;
        }
        let layout = self.path.join("oci-layout");
        if !layout.exists() {
            write_aside(&layout, |aside| aside.write_all(br#"{"imageLayoutVersion":"1.0.0"}"#))?;
        }
        let mut index = self.index()?;
        let entries = index["manifests"].as_array().cloned().unwrap_or_default();
        let mut entries: Vec<Value> =
            entries.into_iter().filter(|entry| entry["annotations"][REF_NAME] != self.tag.as_str()).collect();
        let mut entry = serde_json::to_value(&documents.manifest).expect("a descriptor is plain data");
        entry["annotations"] = json!({ REF_NAME: self.tag });
        entries.push(entry);
        index["manifests"] = entries.into();
        write_aside(&self.path.join("index.json"), |aside| aside.write_all(index.to_string().as_bytes()))?;
        if self.reset {
            self.sweep(&index)?;
        }
        Ok(Written::Done)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.path.join("blobs/sha256").join(digest.hex())
    }

    /// What the tag names.
    fn resolve(&self) -> Result<Option<Descriptor>, PlaceError> {
        let named = oci_layout::Layout { path: self.path.clone(), name: Some(self.tag.clone()) };
        match oci_layout::resolve(&named) {
            Ok(descriptor) => Ok(Some(descriptor)),
            Err(LayoutError::NoImage { .. }) => Ok(None),
            Err(LayoutError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn index(&self) -> Result<Value, PlaceError> {
        let path = self.path.join("index.json");
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(PlaceError::Document),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(json!({
                "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": []
            })),
            Err(error) => Err(PlaceError::io("read", path)(error)),
        }
    }

    /// `reset`: removes blobs that cannot be reached from index.json.
    fn sweep(&self, index: &Value) -> Result<(), PlaceError> {
        let mut reached = BTreeSet::new();
        let mut todo: Vec<Value> = vec![index.clone()];
        while let Some(document) = todo.pop() {
            let lists = ["manifests", "layers"].into_iter().filter_map(|list| document[list].as_array()).flatten();
            for descriptor in lists.chain([&document["config"]]) {
                let Some(digest) = descriptor["digest"].as_str().and_then(|digest| digest.parse::<Digest>().ok())
                else {
                    continue;
                };
                let kind = descriptor["mediaType"].as_str().unwrap_or_default();
                let has_children = kind.contains("manifest") || kind.contains("image.index");
                if reached.insert(digest.hex().to_string())
                    && has_children
                    && let Ok(bytes) = oci_layout::read_small(&self.path, &digest)
                {
                    todo.extend(serde_json::from_slice(&bytes).ok());
                }
            }
        }
        let folder = self.path.join("blobs/sha256");
        let read = |error| PlaceError::io("list", &folder)(error);
        for entry in fs::read_dir(&folder).map_err(read)? {
            let entry = entry.map_err(read)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_blob = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            if is_blob && !reached.contains(&name) {
                fs::remove_file(entry.path()).map_err(PlaceError::io("remove", entry.path()))?;
            }
        }
        Ok(())
    }
}

/// Writes a file whole or not at all, mode 0644; its folder is made if need be.
fn write_aside(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), PlaceError> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().unwrap_or(path);
    fs::create_dir_all(folder).map_err(PlaceError::io("make the folder", folder))?;
    let mut aside = tempfile::Builder::new()
        .prefix(".unfinished-")
        .permissions(fs::Permissions::from_mode(0o644))
        .tempfile_in(folder)
        .map_err(PlaceError::io("create a file in", folder))?;
    write(aside.as_file_mut()).map_err(PlaceError::io("write", path))?;
    aside.persist(path).map(drop).map_err(|error| PlaceError::io("write", path)(error.error))
}
