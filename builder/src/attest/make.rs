//! Makes what is to be attested of a build's results.

use super::facts::Facts;
use super::provenance::Provenance;
use super::request::{AttestRequest, SbomRequest, Scanner};
use super::sbom::{Sbom, Scan, ScanError, remembered, scan};
use super::statement::{Attestation, Content};
use crate::image::assemble::BuiltImage;
use crate::progress::{Progress, Vertex};
use crate::sandbox::{SandboxError, rootfs};
use crate::source::image::{ImageError, ImageSource};
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
    /// Gives each image what is asked for. `facts` are in the order of the images, if provenance is.
    pub async fn attest(&self, images: &mut [BuiltImage], facts: &[Arc<Facts>]) -> Result<(), MakeError> {
        if let Some(SbomRequest { scanner: Scanner::BuiltIn }) = &self.request.sbom {
            for image in images.iter_mut() {
                let sbom = self.sbom(image).await?;
                image.attestations.push(sbom);
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
