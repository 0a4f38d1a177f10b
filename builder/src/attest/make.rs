//! Makes what is to be attested of a build's results.

use super::facts::Facts;
use super::provenance::Provenance;
use super::request::AttestRequest;
use super::statement::{Attestation, Content};
use crate::image::assemble::BuiltImage;
use std::sync::Arc;

/// Gives each image what is asked for. `facts` are in the order of the images.
pub(crate) fn attest(images: &mut [BuiltImage], facts: &[Arc<Facts>], attest: &AttestRequest) {
    for (image, facts) in images.iter_mut().zip(facts) {
        image.attestations.extend(attest.provenance.as_ref().map(|request| Attestation {
            filename: request.filename.clone(),
            inline_only: request.inline_only,
            content: Content::Provenance(Arc::new(Provenance { request: request.clone(), facts: facts.clone() })),
        }));
    }
}
