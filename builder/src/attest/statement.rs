//! In-toto statements: what is said (the predicate) and of what (the subjects).

use super::generator::Given;
use super::provenance::Provenance;
use super::sbom::{self, Sbom};
use crate::image::config::go_escape;
use cache::digest::{Descriptor, Digest};
use serde::Serialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Something that is said of one platform's result.
#[derive(Clone, Debug)]
pub struct Attestation {
    /// Name of the file, for exporters that write files.
    pub filename: String,
    /// Only for what is pushed.
    pub inline_only: bool,
    pub content: Content,
}

/// What is said.
#[derive(Clone, Debug)]
pub enum Content {
    Provenance(Arc<Provenance>),
    Sbom(Arc<Sbom>),
    /// An SBOM that a scanner image has made.
    Given(Arc<Given>),
}

impl Attestation {
    /// URL of the predicate's form.
    pub fn predicate_type(&self) -> &'static str {
        match &self.content {
            Content::Provenance(provenance) => provenance.predicate_type(),
            Content::Sbom(_) | Content::Given(_) => sbom::PREDICATE_TYPE,
        }
    }

    fn predicate(&self, layers: &[Descriptor]) -> Value {
        match &self.content {
            Content::Provenance(provenance) => provenance.predicate(layers),
            Content::Sbom(sbom) => sbom.document(layers),
            Content::Given(given) => given.document(layers),
        }
    }

    /// What it says itself that it is about; nothing means the result.
    fn own_subjects(&self) -> &[Value] {
        match &self.content {
            Content::Given(given) => &given.subjects,
            Content::Provenance(_) | Content::Sbom(_) => &[],
        }
    }
}

/// What a statement is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    pub name: String,
    pub digest: Digest,
}

/// The statement in JSON. `layers` are those of the image, lowest first; none if the result is no image.
pub fn statement(attestation: &Attestation, subjects: &[Subject], layers: &[Descriptor]) -> Vec<u8> {
    let document = document(attestation, subjects, layers);
    go_escape(&serde_json::to_string(&document).expect("a statement is plain data")).into_bytes()
}

/// The same for people's eyes, as a file of its own.
pub fn statement_file(attestation: &Attestation, subjects: &[Subject]) -> Vec<u8> {
    let document = document(attestation, subjects, &[]);
    go_escape(&serde_json::to_string_pretty(&document).expect("a statement is plain data")).into_bytes()
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: &'static str,
    predicate_type: &'static str,
    subject: Vec<Value>,
    predicate: Value,
}

fn document(attestation: &Attestation, subjects: &[Subject], layers: &[Descriptor]) -> Statement {
    let subject = |subject: &Subject| json!({ "name": subject.name, "digest": { "sha256": subject.digest.hex() } });
    let own = attestation.own_subjects();
    Statement {
        kind: "https://in-toto.io/Statement/v1",
        predicate_type: attestation.predicate_type(),
        subject: if own.is_empty() { subjects.iter().map(subject).collect() } else { own.to_vec() },
        predicate: attestation.predicate(layers),
    }
}
