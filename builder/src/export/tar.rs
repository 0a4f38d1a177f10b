//! `type=tar`: the result's file system as one uncompressed archive.

use super::attributes::Attributes;
use super::local::{Split, views};
use super::target::Target;
use super::{Export, ExportError, Exporter, Response};
use crate::image::layers::LayerOptions;
use cache::layer::tar::{Mtime, finish, write_tree};
use futures::future::BoxFuture;
use std::os::fd::AsFd;

struct Tar {
    target: Target,
    epoch: Option<Option<i64>>,
}

/// Reads the attributes.
pub fn open(attributes: &mut Attributes) -> Result<Box<dyn Exporter>, ExportError> {
    let target = Target::take(attributes)?.ok_or_else(|| attributes.missing("dest"))?;
    // BuildKit's archives have a folder for each of several platforms and none for a lone one, whatever this says.
    Split::take(attributes)?;
    Ok(Box::new(Tar { target, epoch: attributes.epoch()? }))
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
            let target = self.target.clone();
            export.vertex.status("sending tarball", 0, 0);
            tokio::task::spawn_blocking(move || {
                target.write(|mut out| {
                    for view in &views {
                        let prefix = if view.folder.is_empty() { String::new() } else { format!("{}/", view.folder) };
                        if !prefix.is_empty() {
                            let mtime = export_time(mtime);
                            out.write_all(folder_header(&prefix, mtime)?.as_bytes()).map_err(ExportError::Archive)?;
                        }
                        write_tree(view.root.as_fd(), view.owners.clone(), &prefix, mtime, &mut out)
                            .map_err(ExportError::Tree)?;
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

/// The entry of a platform's folder.
fn folder_header(name: &str, mtime: u64) -> Result<::tar::Header, ExportError> {
    let mut header = ::tar::Header::new_ustar();
    header.set_path(name).map_err(ExportError::Archive)?;
    header.set_entry_type(::tar::EntryType::Directory);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_size(0);
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
