//! Reads an exported image, an OCI layout as tar or folder, and checks every digest and size on the way.

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// One image for one platform.
pub struct Image {
    /// Digest of its manifest.
    pub digest: String,
    /// image-spec config.md.
    pub config: Value,
    /// image-spec manifest.md.
    pub manifest: Value,
    /// Each layer uncompressed, lowest first.
    pub layers: Vec<Vec<u8>>,
    /// index.json.
    pub index: Value,
    /// All files of the archive, by path.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// What is at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// File, folder, ...
    pub kind: Kind,
    /// Permission bits with set-id and sticky.
    pub mode: u32,
    /// Owner.
    pub uid: u64,
    /// Group.
    pub gid: u64,
    /// Seconds since 1970.
    pub mtime: u64,
}

/// Kinds of entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// With its bytes; a hard link has those of the file it names.
    File(Vec<u8>),
    /// A folder.
    Folder,
    /// With its target.
    Symlink(String),
    /// Device or FIFO.
    Special,
}

impl Image {
    /// The only image in a tar or folder.
    pub fn read(path: &Path) -> Result<Image> {
        let mut images = Image::read_all(path)?;
        ensure!(images.len() == 1, "{} images instead of one", images.len());
        images.pop().context("no image")
    }

    /// All images of an archive, in the order of its index; attestations left out. An image that has several names is
    /// listed once for each and read once.
    pub fn read_all(path: &Path) -> Result<Vec<Image>> {
        let files = if path.is_dir() { read_folder(path)? } else { read_tar(path)? };
        let index: Value = serde_json::from_slice(files.get("index.json").context("no index.json")?)?;
        ensure!(files.contains_key("oci-layout"), "no oci-layout");
        let mut queue: Vec<Value> = index["manifests"].as_array().cloned().unwrap_or_default();
        let mut images = vec![];
        while !queue.is_empty() {
            let descriptor = queue.remove(0);
            if images.iter().any(|image: &Image| descriptor["digest"] == image.digest) {
                continue;
            }
            let document: Value = serde_json::from_slice(blob(&files, &descriptor)?)?;
            if let Some(inner) = document["manifests"].as_array() {
                queue.splice(0..0, inner.iter().cloned());
            } else if descriptor["annotations"]["vnd.docker.reference.type"] != "attestation-manifest" {
                images.push(Image::from_manifest(&files, &index, &descriptor, document)?);
            }
        }
        Ok(images)
    }

    /// The config's value at a JSON pointer below `config`, such as `/Env`.
    pub fn setting(&self, pointer: &str) -> &Value {
        self.config.pointer(&format!("/config{pointer}")).unwrap_or(&Value::Null)
    }

    /// Everything in it, by absolute path, whiteouts applied.
    pub fn tree(&self) -> BTreeMap<String, Entry> {
        let mut tree = BTreeMap::new();
        for layer in &self.layers {
            apply(&mut tree, layer_entries(layer).expect("read a layer"));
        }
        tree
    }

    /// Text of a file; panics if there is none.
    pub fn text(&self, path: &str) -> String {
        match self.tree().remove(path).unwrap_or_else(|| panic!("no {path} in the image")).kind {
            Kind::File(data) => String::from_utf8(data).expect("text"),
            kind => panic!("{path} is no file: {kind:?}"),
        }
    }

    /// Paths in the layers above the lowest `base`, whiteouts as they are written.
    pub fn paths_above(&self, base: usize) -> Vec<String> {
        let entries = self.layers[base..].iter().flat_map(|layer| layer_entries(layer).expect("read a layer"));
        entries.map(|(path, _)| path).collect()
    }

    fn from_manifest(
        files: &BTreeMap<String, Vec<u8>>,
        index: &Value,
        descriptor: &Value,
        manifest: Value,
    ) -> Result<Image> {
        let config: Value = serde_json::from_slice(blob(files, &manifest["config"])?)?;
        let mut layers = vec![];
        let diff_ids = config["rootfs"]["diff_ids"].as_array().cloned().unwrap_or_default();
        let descriptors = manifest["layers"].as_array().cloned().unwrap_or_default();
        ensure!(diff_ids.len() == descriptors.len(), "{} diff_ids, {} layers", diff_ids.len(), descriptors.len());
        for (descriptor, diff_id) in descriptors.iter().zip(&diff_ids) {
            let layer = decompress(blob(files, descriptor)?)?;
            ensure!(*diff_id == crate::sha256(&layer), "diff_id {diff_id} is not the layer's");
            layers.push(layer);
        }
        let digest = descriptor["digest"].as_str().unwrap_or_default().to_string();
        Ok(Image { digest, config, manifest, layers, index: index.clone(), files: files.clone() })
    }
}

fn read_folder(folder: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let mut queue = vec![folder.to_path_buf()];
    while let Some(path) = queue.pop() {
        for entry in fs::read_dir(&path)? {
            let path = entry?.path();
            if path.is_dir() {
                queue.push(path);
            } else {
                files.insert(path.strip_prefix(folder)?.to_string_lossy().into_owned(), fs::read(&path)?);
            }
        }
    }
    Ok(files)
}

fn read_tar(path: &Path) -> Result<BTreeMap<String, Vec<u8>>> {
    let mut files = BTreeMap::new();
    let file = fs::File::open(path).with_context(|| format!("open {}", path.display()))?;
    for entry in tar::Archive::new(file).entries()? {
        let mut entry = entry?;
        if entry.header().entry_type().is_file() {
            let mut data = vec![];
            entry.read_to_end(&mut data)?;
            files.insert(entry.path()?.to_string_lossy().trim_start_matches("./").to_string(), data);
        }
    }
    Ok(files)
}

fn blob<'a>(files: &'a BTreeMap<String, Vec<u8>>, descriptor: &Value) -> Result<&'a [u8]> {
    let digest = descriptor["digest"].as_str().context("descriptor without digest")?;
    let path = format!("blobs/{}", digest.replace(':', "/"));
    let data = files.get(&path).with_context(|| format!("blob {digest} is not in the archive"))?;
    ensure!(crate::sha256(data) == digest, "blob {digest} does not have that digest");
    ensure!(descriptor["size"] == data.len(), "blob {digest} has {} bytes, not {}", data.len(), descriptor["size"]);
    Ok(data)
}

fn decompress(data: &[u8]) -> Result<Vec<u8>> {
    let mut whole = vec![];
    match data {
        [0x1f, 0x8b, ..] => flate2::read::MultiGzDecoder::new(data).read_to_end(&mut whole)?,
        [0x28, 0xb5, 0x2f, 0xfd, ..] => bail!("zstd layers are not read here"),
        _ => return Ok(data.to_vec()),
    };
    Ok(whole)
}

/// Entries of a layer tar in their order, with absolute paths; whiteouts are files named as the spec names them.
pub fn layer_entries(layer: &[u8]) -> Result<Vec<(String, Entry)>> {
    let mut entries: Vec<(String, Entry)> = vec![];
    for entry in tar::Archive::new(layer).entries()? {
        let mut entry = entry?;
        let path = rooted(&entry.path_bytes());
        let link = entry.link_name_bytes().map(|link| String::from_utf8_lossy(&link).into_owned()).unwrap_or_default();
        let kind = match entry.header().entry_type() {
            tar::EntryType::Directory => Kind::Folder,
            tar::EntryType::Symlink => Kind::Symlink(link),
            tar::EntryType::Link => {
                let target = rooted(link.as_bytes());
                let known = entries.iter().find(|(path, _)| *path == target);
                known.with_context(|| format!("{path} links to {target}, which comes later"))?.1.kind.clone()
            }
            kind if kind.is_file() => {
                let mut data = vec![];
                entry.read_to_end(&mut data)?;
                Kind::File(data)
            }
            _ => Kind::Special,
        };
        let header = entry.header();
        let (uid, gid, mtime) = (header.uid()?, header.gid()?, header.mtime()?);
        entries.push((path, Entry { kind, mode: header.mode()?, uid, gid, mtime }));
    }
    Ok(entries)
}

fn rooted(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    format!("/{}", name.trim_start_matches("./").trim_matches('/'))
}

/// image-spec layer.md: whiteouts first, as they are about the layers below only.
fn apply(tree: &mut BTreeMap<String, Entry>, entries: Vec<(String, Entry)>) {
    let mut added = vec![];
    for (path, entry) in entries {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        if name == ".wh..wh..opq" {
            tree.retain(|path, _| !path.starts_with(&format!("{folder}/")));
        } else if let Some(name) = name.strip_prefix(".wh.") {
            remove(tree, &format!("{folder}/{name}"));
        } else {
            added.push((path, entry));
        }
    }
    for (path, entry) in added {
        if entry.kind != Kind::Folder {
            remove(tree, &path);
        }
        tree.insert(path, entry);
    }
}

fn remove(tree: &mut BTreeMap<String, Entry>, path: &str) {
    let below = format!("{path}/");
    tree.retain(|known, _| known != path && !known.starts_with(&below));
}
