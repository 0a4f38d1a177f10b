//! Base images without any outside registry: busybox from Debian's busybox-static, as an OCI image layout.

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const EPOCH: &str = "1970-01-01T00:00:00Z";
const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// An OCI image layout on disk (image-spec image-layout.md).
pub struct Layout {
    folder: PathBuf,
    _own: Option<TempDir>,
    /// In the order in which they must be pushed: what a manifest names comes before it.
    pub blobs: Vec<Blob>,
    /// Digest of the index that index.json names.
    pub top: String,
}

/// One blob of a layout.
pub struct Blob {
    /// `sha256:…`.
    pub digest: String,
    /// Media type.
    pub kind: String,
    size: usize,
}

/// An image to put into a layout: one layer and what its config says.
pub struct BaseImage {
    /// GOARCH, with variant as `arm/v7`.
    pub arch: String,
    /// Uncompressed.
    pub layer: Vec<u8>,
    /// The config's `config` object.
    pub config: Value,
}

impl Layout {
    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Of a blob.
    pub fn blob_path(&self, digest: &str) -> PathBuf {
        self.folder.join("blobs").join(digest.replace(':', "/"))
    }

    /// Writes `images` as one multi-platform image, tagged `latest`, in a temporary folder.
    pub fn temporary(images: &[BaseImage]) -> Result<Layout> {
        let own = tempfile::Builder::new().prefix("kiln-base-").tempdir()?;
        let layout = Layout::write(own.path(), images)?;
        Ok(Layout { _own: Some(own), ..layout })
    }

    /// The same in `folder`, which is made if missing.
    pub fn write(folder: &Path, images: &[BaseImage]) -> Result<Layout> {
        let mut layout = Layout { folder: folder.to_path_buf(), _own: None, blobs: vec![], top: String::new() };
        fs::create_dir_all(folder.join("blobs/sha256")).with_context(|| format!("make {}", folder.display()))?;
        let mut manifests = vec![];
        for image in images {
            manifests.push(layout.image(image)?);
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        let mut top = layout.blob(&serde_json::to_vec(&index)?, INDEX)?;
        layout.top = top["digest"].as_str().unwrap_or_default().to_string();
        top["annotations"] = json!({"org.opencontainers.image.ref.name": "latest"});
        let index = json!({"schemaVersion": 2, "manifests": [top]});
        fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
        fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(layout)
    }

    fn image(&mut self, image: &BaseImage) -> Result<Value> {
        let mut gzip = GzEncoder::new(vec![], Compression::new(6));
        gzip.write_all(&image.layer)?;
        let layer = self.blob(&gzip.finish()?, LAYER)?;
        let (arch, variant) = image.arch.split_once('/').unwrap_or((&image.arch, ""));
        let mut platform = json!({"architecture": arch, "os": "linux"});
        let mut config = json!({
            "architecture": arch, "os": "linux", "created": EPOCH, "config": image.config,
            "rootfs": {"type": "layers", "diff_ids": [crate::sha256(&image.layer)]},
            "history": [{"created": EPOCH, "created_by": "base rootfs"}],
        });
        if !variant.is_empty() {
            platform["variant"] = json!(variant);
            config["variant"] = json!(variant);
        }
        let config = self.blob(&serde_json::to_vec(&config)?, CONFIG)?;
        let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
        let mut manifest = self.blob(&serde_json::to_vec(&manifest)?, MANIFEST)?;
        manifest["platform"] = platform;
        Ok(manifest)
    }

    /// Stores a blob; gives back its descriptor.
    fn blob(&mut self, data: &[u8], kind: &str) -> Result<Value> {
        let digest = crate::sha256(data);
        let path = self.blob_path(&digest);
        fs::write(&path, data).with_context(|| format!("write {}", path.display()))?;
        let blob = Blob { digest, kind: kind.to_string(), size: data.len() };
        let descriptor = json!({"mediaType": blob.kind, "digest": blob.digest, "size": blob.size});
        self.blobs.push(blob);
        Ok(descriptor)
    }
}

/// A multi-platform busybox. All platforms have this machine's binary: those that are not its own can be configured,
/// copied from and exported, but not run.
pub fn busybox(architectures: &[&str]) -> Result<Layout> {
    Layout::temporary(&busybox_images(architectures)?)
}

/// The same, to be written by the caller.
pub fn busybox_images(architectures: &[&str]) -> Result<Vec<BaseImage>> {
    let layer = busybox_layer()?;
    let image = |arch: &&str| BaseImage {
        arch: arch.to_string(),
        layer: layer.clone(),
        config: json!({"Env": [PATH], "Cmd": ["sh"], "WorkingDir": "/"}),
    };
    Ok(architectures.iter().map(image).collect())
}

fn busybox_layer() -> Result<Vec<u8>> {
    let places = ["/bin/busybox", "/usr/bin/busybox"];
    let Some(binary) = places.iter().find_map(|path| fs::read(path).ok()) else {
        bail!("no /bin/busybox: install busybox-static")
    };
    let list = Command::new("busybox").arg("--list").output().context("run busybox --list")?;
    let mut tar = Tar::new();
    for folder in
        ["bin", "dev", "etc", "home", "proc", "root", "sys", "tmp", "usr", "usr/bin", "usr/sbin", "var", "var/tmp"]
    {
        let mode = match folder {
            "root" => 0o700,
            "tmp" => 0o1777,
            _ => 0o755,
        };
        tar.folder(folder, mode)?;
    }
    tar.file("bin/busybox", 0o755, &binary)?;
    for applet in String::from_utf8_lossy(&list.stdout).lines().filter(|applet| *applet != "busybox") {
        tar.symlink(&format!("bin/{applet}"), "/bin/busybox")?;
    }
    tar.symlink("usr/bin/env", "/bin/busybox")?;
    let passwd = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\n\
                  nobody:x:65534:65534:nobody:/home:/bin/false\n";
    tar.file("etc/passwd", 0o644, passwd.as_bytes())?;
    tar.file("etc/group", 0o644, b"root:x:0:\ndaemon:x:1:\nadm:x:4:daemon\nnogroup:x:65534:\n")?;
    tar.finish()
}

/// A layer tar; everything in it is owned by root and as old as the epoch.
pub struct Tar(tar::Builder<Vec<u8>>);

impl Tar {
    /// An empty one.
    #[allow(clippy::new_without_default)]
    pub fn new() -> Tar {
        Tar(tar::Builder::new(vec![]))
    }

    /// A folder.
    pub fn folder(&mut self, path: &str, mode: u32) -> Result<()> {
        self.entry(path, tar::EntryType::Directory, mode, b"", "")
    }

    /// A file.
    pub fn file(&mut self, path: &str, mode: u32, data: &[u8]) -> Result<()> {
        self.entry(path, tar::EntryType::Regular, mode, data, "")
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) -> Result<()> {
        self.entry(path, tar::EntryType::Symlink, 0o777, b"", target)
    }

    /// Its bytes.
    pub fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }

    fn entry(&mut self, path: &str, kind: tar::EntryType, mode: u32, data: &[u8], target: &str) -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(data.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        if target.is_empty() {
            self.0.append_data(&mut header, path, data)?;
        } else {
            self.0.append_link(&mut header, path, target)?;
        }
        Ok(())
    }
}
