//! Reads the attestations beside an exported image, and checks every digest and size on the way.

use crate::sha256;
use anyhow::{Context, Result, ensure};
use serde_json::Value;
use std::collections::BTreeMap;

/// All that is attested of one image.
pub struct Attested {
    /// Digest of the image's manifest.
    pub image: String,
    /// The attestation manifest.
    pub manifest: Value,
    /// In-toto statements, in the order of the manifest's layers.
    pub statements: Vec<Value>,
}

/// What the attestation manifests of an image index name. `blob` gives bytes by digest.
pub fn attestations(index: &Value, blob: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<Attested>> {
    let mut all = vec![];
    for entry in index["manifests"].as_array().context("no index")? {
        if entry["annotations"]["vnd.docker.reference.type"] != "attestation-manifest" {
            continue;
        }
        ensure!(entry["platform"] == serde_json::json!({"architecture": "unknown", "os": "unknown"}), "{entry}");
        let manifest: Value = serde_json::from_slice(&checked(entry, blob)?)?;
        checked(&manifest["config"], blob)?;
        all.push(Attested {
            image: entry["annotations"]["vnd.docker.reference.digest"].as_str().context("no image")?.to_string(),
            statements: statements(&manifest, blob)?,
            manifest,
        });
    }
    Ok(all)
}

/// The statements that an attestation manifest names.
pub fn statements(manifest: &Value, blob: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<Value>> {
    let mut statements = vec![];
    for layer in manifest["layers"].as_array().context("no layers")? {
        ensure!(layer["mediaType"] == "application/vnd.in-toto+json", "{layer}");
        let statement: Value = serde_json::from_slice(&checked(layer, blob)?)?;
        ensure!(statement["_type"] == "https://in-toto.io/Statement/v1", "{statement}");
        ensure!(statement["predicateType"] == layer["annotations"]["in-toto.io/predicate-type"], "{layer}");
        statements.push(statement);
    }
    Ok(statements)
}

/// Bytes of the blobs in the files of a layout.
pub fn of_files(files: &BTreeMap<String, Vec<u8>>) -> impl Fn(&str) -> Result<Vec<u8>> + '_ {
    move |digest| {
        let path = format!("blobs/{}", digest.replace(':', "/"));
        files.get(&path).cloned().with_context(|| format!("{digest} is missing"))
    }
}

fn checked(descriptor: &Value, blob: &dyn Fn(&str) -> Result<Vec<u8>>) -> Result<Vec<u8>> {
    let digest = descriptor["digest"].as_str().context("descriptor without digest")?;
    let bytes = blob(digest)?;
    ensure!(sha256(&bytes) == digest && descriptor["size"] == bytes.len(), "{descriptor} does not name its blob");
    Ok(bytes)
}
