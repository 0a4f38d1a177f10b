//! Makes what is to be attested of a build's results.

use super::facts::Facts;
use super::generator::{self, GeneratorError};
use super::provenance::Provenance;
use super::request::{AttestRequest, Scanner};
use super::sbom::{Sbom, Scan, ScanError, remembered, scan};
use super::statement::{Attestation, Content};
use crate::image::assemble::BuiltImage;
use crate::progress::{Progress, Vertex};
use crate::sandbox::{SandboxError, rootfs};
use crate::source::image::{ImageError, ImageSource};
use crate::step::StepOutput;
use crate::time::rfc3339_millis;
use cache::store::Store;
use cache::tree::Tree;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Name of the file with an SBOM, for exporters that write files.
const SBOM_FILE: &str = "sbom.spdx.json";

/// Why something cannot be attested.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    #[error("could not list the packages in the result")]
    Scan(#[from] ScanError),
    #[error("could not mount the result to list the packages in it")]
    Mount(#[from] SandboxError),
    #[error(transparent)]
    Source(#[from] ImageError),
    #[error(transparent)]
    Generator(#[from] GeneratorError),
    #[error("the thread that listed packages died")]
    Join(#[from] tokio::task::JoinError),
}

/// What attestations are made with.
pub(crate) struct Maker<'a> {
    pub request: &'a AttestRequest,
    pub store: &'a Store,
    pub images: &'a ImageSource,
    pub progress: &'a Progress,
    /// The image's first name, if it has one.
    pub name: Option<String>,
    /// When the documents say that they were made, in seconds since 1970.
    pub created: i64,
}

impl Maker<'_> {
    /// Gives each image what is asked for. In the order of the images are `facts`, if provenance is asked for, and
    /// `scans`, with their vertices, if a scanner image is.
    pub async fn attest(
        &self,
        images: &mut [BuiltImage],
        facts: &[Arc<Facts>],
        scans: &[(StepOutput, Vertex)],
    ) -> Result<(), MakeError> {
        match self.request.sbom.as_ref().map(|request| &request.scanner) {
            None => {}
            Some(Scanner::BuiltIn) => {
                for image in images.iter_mut() {
                    let sbom = self.sbom(image).await?;
                    image.attestations.push(sbom);
                }
            }
            Some(Scanner::Image { reference, .. }) => {
                for (image, (output, vertex)) in images.iter_mut().zip(scans) {
                    let read = generator::read(output, &image.tree, reference, self.images, self.store, vertex);
                    image.attestations.extend(read.await?.into_iter().map(|given| Attestation {
                        filename: given.file.clone(),
                        inline_only: false,
                        content: Content::Given(Arc::new(given)),
                    }));
                }
            }
        }
        if let Some(request) = &self.request.provenance {
            for (image, facts) in images.iter_mut().zip(facts) {
                let provenance = Provenance { request: request.clone(), facts: facts.clone() };
                image.attestations.push(Attestation {
                    filename: request.filename.clone(),
                    inline_only: request.inline_only,
                    content: Content::Provenance(Arc::new(provenance)),
                });
            }
        }
        Ok(())
    }

    async fn sbom(&self, image: &BuiltImage) -> Result<Attestation, MakeError> {
        let vertex = self.progress.task(&format!("[{}] generating sbom using kiln", image.platform));
        let scan = vertex.finish(self.scan(&image.tree, &vertex).await)?;
        scan.remarks.iter().for_each(|remark| vertex.warn(format!("SBOM: {remark}")));
        let sbom = Sbom {
            scan,
            name: self.name.clone().unwrap_or_else(|| image.platform.to_string()),
            created: rfc3339_millis(self.created * 1000),
        };
        Ok(Attestation { filename: SBOM_FILE.into(), inline_only: false, content: Content::Sbom(Arc::new(sbom)) })
    }

    async fn scan(&self, tree: &Tree, vertex: &Vertex) -> Result<Scan, MakeError> {
        if let Some(scan) = remembered(self.store, tree)? {
            return Ok(scan);
        }
        let lowers = self.images.ensure_unpacked(tree, vertex).await?;
        let (store, tree) = (self.store.clone(), tree.clone());
        tokio::task::spawn_blocking(move || {
            let root = rootfs::overlay(&lowers, None)?;
            Ok(scan(&store, &tree, root.as_fd())?)
        })
        .await?
    }
}
