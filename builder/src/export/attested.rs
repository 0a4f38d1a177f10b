//! Attestations as files beside those of the result, for exporters of file systems (reference/engine.md 2.11). What is
//! attested is every regular file.

use super::attributes::Attributes;
use super::local::View;
use super::{Export, ExportError};
use crate::attest::files;
use crate::attest::statement::{Attestation, Subject, statement_file};
use cache::checksum::file_digest;
use cache::digest::Digest;
use rustix::fs::AtFlags;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

/// Mode of the files.
pub const MODE: u32 = 0o600;

/// Reads `attestation-prefix`.
pub fn take_prefix(attributes: &mut Attributes) -> Result<String, ExportError> {
    let prefix = attributes.take("attestation-prefix").unwrap_or_default();
    match prefix.contains('/') {
        true => Err(attributes.bad("attestation-prefix", &prefix, "it is a part of a file's name, without folders")),
        false => Ok(prefix),
    }
}

/// A file to be written.
pub struct AttestationFile {
    /// The platform's folder; empty for the destination itself.
    pub folder: String,
    pub name: String,
    pub content: Vec<u8>,
}

/// The files, in the order of the images. `views` show the same images. `prefix` is put before each name. Reads all
/// files of the result, if there is something to attest.
pub fn files(export: &Attested, views: &[View], prefix: &str) -> Result<Vec<AttestationFile>, ExportError> {
    let mut files = vec![];
    let mut names: BTreeSet<(String, String)> = BTreeSet::new();
    for ((platform, attestations), view) in export.images.iter().zip(views) {
        if attestations.is_empty() {
            continue;
        }
        let subjects = subjects(view.root.as_fd())?;
        for attestation in attestations {
            let name = match view.folder.is_empty() && export.images.len() > 1 {
                true => with_platform(&attestation.filename, platform),
                false => attestation.filename.clone(),
            };
            let name = format!("{prefix}{name}");
            let is_taken = views.iter().filter(|other| other.folder == view.folder).any(|view| has(view, &name));
            if is_taken || !names.insert((view.folder.clone(), name.clone())) {
                return Err(ExportError::AttestationCollision(name));
            }
            let content = statement_file(attestation, &subjects);
            files.push(AttestationFile { folder: view.folder.clone(), name, content });
        }
    }
    Ok(files)
}

/// What is to be attested of each image, by its platform.
pub struct Attested {
    images: Vec<(String, Vec<Attestation>)>,
}

impl Attested {
    /// Without what is only for what is pushed.
    pub fn of(export: &Export<'_>) -> Attested {
        let images = export.images.iter().map(|image| {
            let attestations = image.attestations.iter().filter(|attestation| !attestation.inline_only).cloned();
            (image.platform.to_string(), attestations.collect())
        });
        Attested { images: images.collect() }
    }
}

/// `provenance.linux_amd64.json`
fn with_platform(name: &str, platform: &str) -> String {
    let platform = platform.replace('/', "_");
    match name.rsplit_once('.') {
        Some((stem, extension)) => format!("{stem}.{platform}.{extension}"),
        None => format!("{name}.{platform}"),
    }
}

fn has(view: &View, name: &str) -> bool {
    rustix::fs::statat(&view.root, name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// All regular files below a folder.
fn subjects(root: BorrowedFd<'_>) -> Result<Vec<Subject>, ExportError> {
    let mut subjects = vec![];
    files::visit(root, |found| {
        let name = found.path_text();
        let digest = file_digest(&found.open()?).map_err(ExportError::io("read", &name))?;
        subjects.push(Subject { name, digest: Digest::from_sha256(digest) });
        Ok::<(), ExportError>(())
    })?;
    Ok(subjects)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn names_of_several_platforms_in_one_folder() {
        assert_eq!(with_platform("provenance.json", "linux/arm/v7"), "provenance.linux_arm_v7.json");
        assert_eq!(with_platform("sbom.spdx.json", "linux/amd64"), "sbom.spdx.linux_amd64.json");
        assert_eq!(with_platform("provenance", "linux/amd64"), "provenance.linux_amd64");
    }

    #[test]
    fn subjects_are_all_regular_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("d")).unwrap();
        std::fs::write(folder.path().join("d/b"), "b").unwrap();
        std::fs::write(folder.path().join("a"), "a").unwrap();
        std::os::unix::fs::symlink("a", folder.path().join("l")).unwrap();
        let root = File::open(folder.path()).unwrap();
        let found = subjects(root.as_fd()).unwrap();
        let expect = [("a", "a"), ("d/b", "b")];
        let expect = expect.map(|(name, data)| Subject { name: name.into(), digest: Digest::of(data.as_bytes()) });
        assert_eq!(found, expect);
    }
}
