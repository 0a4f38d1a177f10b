//! Attestations of an image as blobs and a manifest that names them (reference/engine.md 2.6): an entry of the image's
//! index, or a referrer of the image's manifest.

use super::assemble::BuiltImage;
use super::manifest::{self, Annotations, Entry, PlatformEntry};
use crate::attest::purl;
use crate::attest::statement::{Attestation, Subject, statement};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cache::digest::{Descriptor, Digest};
use cache::error::StoreError;
use cache::layer::compression::MediaTypes;
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::store::Store;
use frontend::reference::Reference;
use serde_json::json;

/// `artifactType` of the manifest.
pub const ARTIFACT_TYPE: &str = "application/vnd.docker.attestation.manifest.v1+json";
/// Annotation of a statement in the manifest: the URL of the form of what it says.
pub const PREDICATE_TYPE: &str = "in-toto.io/predicate-type";
/// [`manifest::REFERENCE_TYPE`] of the manifest in an index.
pub const ATTESTATION: &str = "attestation-manifest";
const STATEMENT_TYPE: &str = "application/vnd.in-toto+json";
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

/// What exporters decide about attestations.
#[derive(Clone, Debug, PartialEq)]
pub struct AttestationOptions {
    pub form: Form,
    pub place: Place,
    /// Whether attestations come along that are only for what is pushed.
    pub inline: bool,
    /// Names of the image.
    pub names: Vec<Reference>,
}

/// Form of the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// image-spec's artifacts, with a subject.
    Artifact,
    /// An image of an unknown platform, for readers that know no artifacts.
    Legacy,
}

/// Where the manifest is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Beside the image, in an index, which is what the image's name then stands for.
    Index,
    /// Through the registry's referrers API: the image stays as it is.
    Referrers,
}

impl AttestationOptions {
    /// Whether an attestation comes along.
    pub fn take(&self, attestation: &Attestation) -> bool {
        self.inline || !attestation.inline_only
    }
}

/// The attestations of one image, in the store.
#[derive(Clone, Debug)]
pub struct AssembledAttestation {
    /// As an entry of an index.
    pub manifest: Entry,
    pub config: Entry,
    /// One for each attestation.
    pub statements: Vec<Entry>,
    /// The image's manifest.
    pub subject: Digest,
}

impl AssembledAttestation {
    /// What the manifest names.
    pub fn blobs(&self) -> impl Iterator<Item = &Entry> {
        [&self.config].into_iter().chain(&self.statements)
    }
}

/// Makes the documents; `None` if there is nothing to attest. `manifest` is the image's, with these layers.
pub fn assemble(
    image: &BuiltImage,
    manifest: &Entry,
    layers: &[Entry],
    options: &AttestationOptions,
    store: &Store,
) -> Result<Option<AssembledAttestation>, StoreError> {
    let attestations: Vec<_> = image.attestations.iter().filter(|attestation| options.take(attestation)).collect();
    if attestations.is_empty() {
        return Ok(None);
    }
    let layers: Vec<Descriptor> = layers.iter().map(Entry::descriptor).collect();
    let subjects = subjects(image, manifest, &options.names);
    let mut statements = vec![];
    for attestation in attestations {
        let bytes = statement(attestation, &subjects, &layers);
        let mut entry = put(store, STATEMENT_TYPE, &bytes)?;
        entry.annotations.insert(PREDICATE_TYPE.into(), attestation.predicate_type().into());
        statements.push(entry);
    }
    let (config, bytes) = match options.form {
        Form::Artifact => {
            let config = Entry { data: Some(BASE64_STANDARD.encode(EMPTY)), ..put(store, EMPTY_TYPE, EMPTY)? };
            let subject = Entry::plain(manifest.descriptor());
            let bytes = manifest::artifact(ARTIFACT_TYPE, &config, &statements, &subject);
            (config, bytes)
        }
        Form::Legacy => {
            let diff_ids: Vec<_> = statements.iter().map(|statement| &statement.digest).collect();
            let config = json!({
                "architecture": "unknown",
                "config": {},
                "os": "unknown",
                "rootfs": { "diff_ids": diff_ids, "type": "layers" },
            });
            let config = put(store, manifest::config_type(MediaTypes::Oci), config.to_string().as_bytes())?;
            let bytes = manifest::manifest(MediaTypes::Oci, &config, &statements, &Annotations::new());
            (config, bytes)
        }
    };
    let manifest_blob = put(store, manifest::manifest_type(MediaTypes::Oci), &bytes)?.descriptor();
    let subject = manifest.digest.clone();
    let manifest = index_entry(manifest_blob, &subject);
    Ok(Some(AssembledAttestation { manifest, config, statements, subject }))
}

/// An attestation manifest about an image's manifest, as an entry of the index that has both.
pub fn index_entry(manifest: Descriptor, subject: &Digest) -> Entry {
    let unknown = || "unknown".to_string();
    let mut entry = Entry::plain(manifest);
    entry.annotations = Annotations::from([
        (manifest::REFERENCE_TYPE.to_string(), ATTESTATION.to_string()),
        (manifest::REFERENCE_DIGEST.to_string(), subject.to_string()),
    ]);
    entry.platform = Some(PlatformEntry {
        architecture: unknown(),
        os: unknown(),
        os_version: String::new(),
        variant: String::new(),
    });
    entry
}

/// The image by each of its names.
fn subjects(image: &BuiltImage, manifest: &Entry, names: &[Reference]) -> Vec<Subject> {
    let subject = |name: String| Subject { name, digest: manifest.digest.clone() };
    match names {
        [] => vec![subject("_".into())],
        names => names.iter().map(|name| subject(purl::image("docker", name, Some(&image.platform)))).collect(),
    }
}

fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Result<Entry, StoreError> {
    let digest = store.content().put(bytes)?;
    let about = About { description: "attestation of an image that was built".into(), category: "" };
    store.describe(ObjectId::new(Kind::Blob, digest.hex()), about);
    Ok(Entry::plain(Descriptor { media_type: media_type.into(), digest, size: bytes.len() as u64 }))
}
