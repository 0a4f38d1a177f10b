//! Attestations: how the result was made, what is in it, and where readers find that.

mod places;
mod provenance;
mod sbom;

use harness::attestations::{Attested, attestations, of_files};
use harness::{Build, Image};
use serde_json::Value;
use std::path::Path;

/// Builds into an OCI archive; gives the image's index and what is attested.
fn attested(build: Build<'_>, archive: &Path) -> (Value, Vec<Attested>) {
    build.output("oci", archive).ok();
    attested_in(archive)
}

/// The index of the image in an OCI archive, and what is attested.
fn attested_in(archive: &Path) -> (Value, Vec<Attested>) {
    let image = Image::read_all(archive).unwrap().remove(0);
    let blob = of_files(&image.files);
    let top = blob(image.index["manifests"][0]["digest"].as_str().unwrap()).unwrap();
    let index: Value = serde_json::from_slice(&top).unwrap();
    let found = attestations(&index, &blob).unwrap();
    (index, found)
}
