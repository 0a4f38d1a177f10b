//! `type=local`: the result's file system as a folder. Owned by whoever runs kiln; modes, times, links and FIFOs are
//! kept (reference/engine.md 2.11).

use super::attested::{self, AttestationFile, Attested};
use super::attributes::Attributes;
use super::oci::folder;
use super::{Export, ExportError, Exporter, Response};
use crate::image::layers::LayerOptions;
use crate::sandbox::rootfs;
use cache::owners::Owners;
use futures::future::BoxFuture;
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Timespec, Timestamps};
use std::collections::HashMap;
use std::ffi::{CStr, OsStr};
use std::fs::{self, File};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

/// `platform-split`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// A folder for each platform if there are several.
    Default,
    /// A folder for each platform.
    Always,
    /// All platforms in one tree.
    Never,
}

impl Split {
    /// Reads the attribute.
    pub fn take(attributes: &mut Attributes) -> Result<Split, ExportError> {
        Ok(match attributes.boolean("platform-split")? {
            None => Split::Default,
            Some(true) => Split::Always,
            Some(false) => Split::Never,
        })
    }
}

/// A platform's file system, mounted.
pub struct View {
    /// Where it goes below the destination; empty for the destination itself.
    pub folder: String,
    pub root: OwnedFd,
    /// Of files that do not have them on the disk.
    pub owners: Option<Owners>,
}

/// Mounts the result of every platform, read-only and seen by nobody else.
pub async fn views(export: &Export<'_>, split: Split) -> Result<Vec<View>, ExportError> {
    let split = match split {
        Split::Default => export.is_multi_platform(),
        Split::Always => true,
        Split::Never => false,
    };
    let mut views = vec![];
    for image in export.images {
        let lowers = export.sources.ensure_unpacked(&image.tree, export.vertex).await?;
        let mount = rootfs::overlay(&lowers, None)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        // A mount's own descriptor names it without opening it.
        let root = rustix::fs::openat(&mount, c".", flags, Mode::empty())
            .map_err(|e| ExportError::io("open", "the mounted result")(e.into()))?;
        let folder = if split { image.platform.to_string().replace('/', "_") } else { String::new() };
        let owners = Owners::read(&lowers).map_err(cache::StoreError::from)?;
        views.push(View { folder, root, owners });
    }
    Ok(views)
}

struct Local {
    dest: PathBuf,
    split: Split,
    epoch: Option<Option<i64>>,
    /// Before the names of attestations.
    prefix: String,
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let dest = folder(attributes)?;
    match attributes.take("mode").as_deref() {
        None | Some("copy") => {}
        Some(mode) => return Err(attributes.bad("mode", mode, "kiln only knows copy: it removes nothing from dest")),
    }
    let prefix = attested::take_prefix(attributes)?;
    Ok(Box::new(Local { dest, split: Split::take(attributes)?, epoch: attributes.epoch()?, prefix }))
}

impl Exporter for Local {
    fn name(&self) -> String {
        "exporting to client directory".into()
    }

    fn layer_options(&self) -> Option<LayerOptions> {
        None
    }

    fn uses_stdout(&self) -> bool {
        false
    }

    fn makes_image(&self) -> bool {
        false
    }

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            let views = views(export, self.split).await?;
            let (dest, epoch) = (self.dest.clone(), self.epoch.unwrap_or(export.epoch));
            let (attested, prefix) = (Attested::of(export), self.prefix.clone());
            export.vertex.status("copying files", 0, 0);
            let bytes = tokio::task::spawn_blocking(move || {
                let attestations = attested::files(&attested, &views, &prefix)?;
                let mut copier = Copier { epoch, written: HashMap::new(), bytes: 0 };
                for view in &views {
                    copier.copy(view.root.as_fd(), &dest.join(&view.folder))?;
                    for file in attestations.iter().filter(|file| file.folder == view.folder) {
                        copier.attestation(file, &dest)?;
                    }
                    if let (Some(epoch), false) = (epoch, view.folder.is_empty()) {
                        set_time(&dest.join(&view.folder), whole(epoch))?;
                    }
                }
                Ok::<u64, ExportError>(copier.bytes)
            })
            .await??;
            export.vertex.status_done("copying files", bytes, 0);
            Ok(Response::new())
        })
    }
}

/// Copies trees into folders.
struct Copier {
    /// All times become this, in seconds since 1970.
    epoch: Option<i64>,
    /// What was written as something other than a folder, by the platform's tree that wrote it: to find collisions.
    written: HashMap<PathBuf, usize>,
    bytes: u64,
}

impl Copier {
    fn copy(&mut self, root: BorrowedFd<'_>, dest: &Path) -> Result<(), ExportError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(dest)
            .map_err(ExportError::io("create folder", dest))?;
        let tree = self.written.values().max().map_or(0, |last| last + 1);
        let mut links = HashMap::new();
        self.folder(root, dest, tree, &mut links)
    }

    fn folder(
        &mut self,
        from: BorrowedFd<'_>,
        dest: &Path,
        tree: usize,
        links: &mut HashMap<(u64, u64), PathBuf>,
    ) -> Result<(), ExportError> {
        let mut entries = vec![];
        let reader = rustix::fs::Dir::read_from(from).map_err(|e| ExportError::io("read folder", dest)(e.into()))?;
        for entry in reader {
            let entry = entry.map_err(|e| ExportError::io("read folder", dest)(e.into()))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                entries.push(entry.file_name().to_owned());
            }
        }
        entries.sort();
        for name in entries {
            let path = dest.join(OsStr::from_bytes(name.to_bytes()));
            let stat = rustix::fs::statat(from, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|e| ExportError::io("look at", &path)(e.into()))?;
            let kind = FileType::from_raw_mode(stat.st_mode);
            if kind != FileType::Directory {
                self.claim(&path, tree)?;
                if let (true, Some(first)) = (stat.st_nlink > 1, links.get(&(stat.st_dev, stat.st_ino))) {
                    replace(&path)?;
                    fs::hard_link(first, &path).map_err(ExportError::io("link", &path))?;
                    continue;
                }
                links.insert((stat.st_dev, stat.st_ino), path.clone());
            }
            match kind {
                FileType::Directory => {
                    self.make_folder(&path)?;
                    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    let below = rustix::fs::openat(from, &name, flags, Mode::empty())
                        .map_err(|e| ExportError::io("open", &path)(e.into()))?;
                    self.folder(below.as_fd(), &path, tree, links)?;
                }
                FileType::RegularFile => self.file(from, &name, &path)?,
                FileType::Symlink => {
                    replace(&path)?;
                    let target = rustix::fs::readlinkat(from, &name, Vec::new())
                        .map_err(|e| ExportError::io("read link", &path)(e.into()))?;
                    symlink(OsStr::from_bytes(target.to_bytes()), &path).map_err(ExportError::io("link", &path))?;
                }
                _ => {
                    replace(&path)?;
                    rustix::fs::mknodat(CWD, &path, kind, Mode::from_raw_mode(stat.st_mode), stat.st_rdev)
                        .map_err(|e| ExportError::io("make special file", &path)(e.into()))?;
                }
            }
            self.metadata(&path, kind, &stat)?;
        }
        Ok(())
    }

    fn attestation(&mut self, file: &AttestationFile, dest: &Path) -> Result<(), ExportError> {
        let path = dest.join(&file.folder).join(&file.name);
        let mut written = create(&path, attested::MODE)?;
        written.write_all(&file.content).map_err(ExportError::io("write", &path))?;
        self.bytes += file.content.len() as u64;
        match self.epoch {
            Some(seconds) => set_time(&path, whole(seconds)),
            None => Ok(()),
        }
    }

    /// A path that another platform's tree wrote already is not overwritten in silence.
    fn claim(&mut self, path: &Path, tree: usize) -> Result<(), ExportError> {
        match self.written.insert(path.to_path_buf(), tree) {
            Some(other) if other != tree => Err(ExportError::Collision(path.display().to_string())),
            _ => Ok(()),
        }
    }

    fn make_folder(&self, path: &Path) -> Result<(), ExportError> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.is_dir() => return Ok(()),
            Ok(_) => replace(path)?,
            Err(_) => {}
        }
        fs::create_dir(path).map_err(ExportError::io("create folder", path))
    }

    fn file(&mut self, from: BorrowedFd<'_>, name: &CStr, path: &Path) -> Result<(), ExportError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let source = rustix::fs::openat(from, name, flags, Mode::empty())
            .map_err(|e| ExportError::io("open the source of", path)(e.into()))?;
        let mut dest = create(path, 0o600)?;
        // Within one file system this clones or copies inside the kernel.
        self.bytes += std::io::copy(&mut File::from(source), &mut dest).map_err(ExportError::io("write", path))?;
        Ok(())
    }

    fn metadata(&self, path: &Path, kind: FileType, stat: &rustix::fs::Stat) -> Result<(), ExportError> {
        if kind != FileType::Symlink {
            let mode = fs::Permissions::from_mode(stat.st_mode & 0o7777);
            fs::set_permissions(path, mode).map_err(ExportError::io("set the mode of", path))?;
        }
        let time = match self.epoch {
            Some(seconds) => whole(seconds),
            None => Timespec { tv_sec: stat.st_mtime, tv_nsec: stat.st_mtime_nsec as _ },
        };
        set_time(path, time)
    }
}

/// A time without a fraction of a second.
fn whole(seconds: i64) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: 0 }
}

fn set_time(path: &Path, time: Timespec) -> Result<(), ExportError> {
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)
        .map_err(|e| ExportError::io("set the times of", path)(e.into()))
}

/// A new file in the place of whatever was there.
fn create(path: &Path, mode: u32) -> Result<File, ExportError> {
    replace(path)?;
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    opened.map_err(ExportError::io("create", path))
}

/// Makes room for something that is not a folder.
fn replace(path: &Path) -> Result<(), ExportError> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let taken = std::io::Error::from(std::io::ErrorKind::IsADirectory);
            Err(ExportError::io("replace folder", path)(taken))
        }
        Ok(_) => fs::remove_file(path).map_err(ExportError::io("replace", path)),
        Err(_) => Ok(()),
    }
}
