//! `type=tar`: the result's file system as one uncompressed archive.

use super::attested::{self, Attested};
use super::attributes::Attributes;
use super::local::{Split, views};
use super::target::Target;
use super::{Export, ExportError, Exporter, Response};
use crate::image::layers::LayerOptions;
use cache::layer::tar::{Mtime, finish, write_tree};
use futures::future::BoxFuture;
use std::io::Write;
use std::os::fd::AsFd;

struct Tar {
    target: Target,
    epoch: Option<Option<i64>>,
    /// Before the names of attestations.
    prefix: String,
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let target = Target::take(attributes)?.ok_or_else(|| attributes.missing("dest"))?;
    // BuildKit's archives have a folder for each of several platforms and none for a lone one, whatever this says.
    Split::take(attributes)?;
    Ok(Box::new(Tar { target, epoch: attributes.epoch()?, prefix: attested::take_prefix(attributes)? }))
}

impl Exporter for Tar {
    fn name(&self) -> String {
        "exporting to client tarball".into()
    }

    fn layer_options(&self) -> Option<LayerOptions> {
        None
    }

    fn uses_stdout(&self) -> bool {
        self.target == Target::Stdout
    }

    fn makes_image(&self) -> bool {
        false
    }

    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>> {
        Box::pin(async move {
            let views = views(export, Split::Default).await?;
            let mtime = self.epoch.unwrap_or(export.epoch).map_or(Mtime::Keep, Mtime::Set);
            let (target, attested, prefix) = (self.target.clone(), Attested::of(export), self.prefix.clone());
            export.vertex.status("sending tarball", 0, 0);
            tokio::task::spawn_blocking(move || {
                let attestations = attested::files(&attested, &views, &prefix)?;
                target.write(|mut out| {
                    for view in &views {
                        let prefix = if view.folder.is_empty() { String::new() } else { format!("{}/", view.folder) };
                        if !prefix.is_empty() {
                            let mtime = export_time(mtime);
                            let header = header(&prefix, ::tar::EntryType::Directory, 0o755, 0, mtime)?;
                            out.write_all(header.as_bytes()).map_err(ExportError::Archive)?;
                        }
                        write_tree(view.root.as_fd(), view.owners.clone(), &prefix, mtime, &mut out)
                            .map_err(ExportError::Tree)?;
                        for file in attestations.iter().filter(|file| file.folder == view.folder) {
                            write_file(&mut out, &format!("{prefix}{}", file.name), &file.content, export_time(mtime))?;
                        }
                    }
                    finish(&mut out).map_err(ExportError::Tree)
                })
            })
            .await??;
            export.vertex.status_done("sending tarball", 0, 0);
            Ok(Response::new())
        })
    }
}

/// A file that is not in the result.
fn write_file(out: &mut dyn Write, name: &str, content: &[u8], mtime: u64) -> Result<(), ExportError> {
    const BLOCK: usize = 512;
    let header = header(name, ::tar::EntryType::Regular, attested::MODE, content.len() as u64, mtime)?;
    let padding = vec![0; content.len().next_multiple_of(BLOCK) - content.len()];
    [header.as_bytes().as_slice(), content, &padding]
        .into_iter()
        .try_for_each(|bytes| out.write_all(bytes))
        .map_err(ExportError::Archive)
}

/// The entry of what is not in the result.
fn header(name: &str, kind: ::tar::EntryType, mode: u32, size: u64, mtime: u64) -> Result<::tar::Header, ExportError> {
    let mut header = ::tar::Header::new_ustar();
    header.set_path(name).map_err(ExportError::Archive)?;
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(size);
    header.set_mtime(mtime);
    header.set_cksum();
    Ok(header)
}

/// The time of what has none of its own: the epoch if there is one.
fn export_time(mtime: Mtime) -> u64 {
    match mtime {
        Mtime::Set(seconds) | Mtime::Clamp(seconds) => u64::try_from(seconds).unwrap_or(0),
        Mtime::Keep => 0,
    }
}
