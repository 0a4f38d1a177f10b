//! The entries of a layer, from wherever it is: a snapshot, a blob of the store, a blob of a layout. Contents are passed
//! over as they come.

use super::account::Entry;
use crate::local::record::LocalError;
use crate::sandbox::rootfs;
use crate::source::oci_layout;
use cache::images::is_stored_origin;
use cache::layer::LayerError;
use cache::layer::compression::decompressor;
use cache::layer::tar::{Mtime, write_layer};
use cache::store::Store;
use cache::tree::Tree;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;

/// Whether a layer's blob has to be fetched before it can be read.
pub fn needs_fetching(store: &Store, tree: &Tree, at: usize) -> Result<bool, LocalError> {
    let layer = &tree.layers()[at];
    let Some(remote) = &layer.remote else { return Ok(false) };
    let is_elsewhere = !is_stored_origin(&remote.origin) && !remote.origin.starts_with('/');
    Ok(is_elsewhere && store.content().has(&remote.descriptor.digest)?.is_none())
}

/// All entries of layer `at`, in the tar's order. Waits for disks.
pub fn entries(store: &Store, tree: &Tree, at: usize) -> Result<Vec<(String, Entry)>, LocalError> {
    let layer = &tree.layers()[at];
    if let Some(remote) = &layer.remote {
        let digest = &remote.descriptor.digest;
        let file = match store.content().has(digest)? {
            Some(_) => store.content().open(digest)?,
            None => {
                oci_layout::open(Path::new(&remote.origin), digest).map_err(crate::source::image::ImageError::from)?
            }
        };
        return Ok(read(decompressor(file).map_err(LayerError::Read)?)?);
    }
    let below = tree.lowest(at);
    let view = match at {
        0 => None,
        _ => rootfs::view(&store.snapshots().lowers(&below)).map_err(crate::export::ExportError::from)?,
    };
    let upper = store.snapshots().path(&layer.snapshot);
    let (reader, mut writer) = std::io::pipe().map_err(LayerError::Read)?;
    std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let written = write_layer(&upper, view.as_ref().map(|view| view.as_fd()), Mtime::Keep, &mut writer);
            drop(writer);
            written
        });
        let entries = read(reader);
        match writing.join() {
            Ok(written) => written?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
        Ok(entries?)
    })
}

/// Reads a tar to its end.
fn read(tar: impl Read) -> Result<Vec<(String, Entry)>, LayerError> {
    let mut tar = std::io::BufReader::with_capacity(256 << 10, tar);
    let mut found = vec![];
    {
        let mut archive = tar::Archive::new(&mut tar);
        for entry in archive.entries().map_err(LayerError::Read)? {
            let entry = entry.map_err(LayerError::Read)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_pax_global_extensions() {
                continue;
            }
            found.extend(classify(&path, kind.is_dir(), entry.size()));
        }
    }
    // A snapshot's writer waits for a reader of what follows the last entry.
    std::io::copy(&mut tar, &mut std::io::sink()).map_err(LayerError::Read)?;
    Ok(found)
}

fn classify(path: &str, is_folder: bool, bytes: u64) -> Option<(String, Entry)> {
    let path = frontend::path::clean(path);
    let path = path.trim_start_matches('/');
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    if name == ".wh..wh..opq" {
        return Some((folder.to_string(), Entry::Opaque));
    }
    // Of aufs' own files, which old images have.
    if name.starts_with(".wh..wh.") || path.is_empty() {
        return None;
    }
    if let Some(name) = name.strip_prefix(".wh.") {
        let removed = if folder.is_empty() { name.to_string() } else { format!("{folder}/{name}") };
        return Some((removed, Entry::Whiteout));
    }
    Some((path.to_string(), if is_folder { Entry::Folder } else { Entry::File { bytes } }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_layers() {
        let check = |path: &str, expect: Option<(&str, Entry)>| {
            assert_eq!(
                classify(path, path.ends_with('/'), 7),
                expect.map(|(path, entry)| (path.into(), entry)),
                "{path}"
            );
        };
        check("./", None);
        check("etc/", Some(("etc", Entry::Folder)));
        check("./etc/passwd", Some(("etc/passwd", Entry::File { bytes: 7 })));
        check("etc/.wh.passwd", Some(("etc/passwd", Entry::Whiteout)));
        check(".wh.etc", Some(("etc", Entry::Whiteout)));
        check("etc/.wh..wh..opq", Some(("etc", Entry::Opaque)));
        check(".wh..wh.plnk/3.4", Some((".wh..wh.plnk/3.4", Entry::File { bytes: 7 })));
        check("../../x", Some(("x", Entry::File { bytes: 7 })));
    }
}
