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
use frontend::compile::PlannedImage;
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
    /// Gives each image what is asked for. In the order of the images are `results`, `facts`, if provenance is asked for,
    /// and `scans`, with their vertices: what a scanner image has left, or the trees that are scanned beside the results.
    pub async fn attest(
        &self,
        images: &mut [BuiltImage],
        results: &[PlannedImage],
        facts: &[Arc<Facts>],
        scans: &[(StepOutput, Vertex)],
    ) -> Result<(), MakeError> {
        match self.request.sbom.as_ref().map(|request| &request.scanner) {
            None => {}
            Some(Scanner::BuiltIn) => {
                let mut scans = scans.iter().map(|(output, _)| output);
                for (image, planned) in images.iter_mut().zip(results) {
                    let result = image.tree.clone();
                    let sbom = self.sbom(image, &result, None).await?;
                    image.attestations.push(sbom);
                    for beside in &planned.scans {
                        let tree = match beside.root.and_then(|_| scans.next()) {
                            Some(StepOutput::Tree(tree)) => Tree::clone(tree),
                            // A folder of the client is made a tree where it is to be scanned.
                            Some(StepOutput::Client(_)) | None => Tree::default(),
                        };
                        let sbom = self.sbom(image, &tree, Some(&beside.name)).await?;
                        image.attestations.push(sbom);
                    }
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

    /// Of the result, or of a tree beside it of that name.
    async fn sbom(&self, image: &BuiltImage, tree: &Tree, beside: Option<&str>) -> Result<Attestation, MakeError> {
        let of = beside.map(|name| format!(" of {name}")).unwrap_or_default();
        let vertex = self.progress.task(&format!("[{}] generating sbom{of} using kiln", image.platform));
        let mut scan = vertex.finish(self.scan(tree, &vertex).await)?;
        scan.remarks.iter().for_each(|remark| vertex.warn(format!("SBOM{of}: {remark}")));
        // Layers are only named that the image has.
        let snapshot = |tree: &Tree, layer: usize| tree.layers().get(layer).map(|layer| layer.snapshot.clone());
        for file in scan.files.values_mut() {
            file.layer = file.layer.filter(|layer| snapshot(tree, *layer) == snapshot(&image.tree, *layer));
        }
        let name = self.name.clone().unwrap_or_else(|| image.platform.to_string());
        let sbom = Sbom { scan, name: format!("{name}{of}"), created: rfc3339_millis(self.created * 1000) };
        let filename = match beside {
            None => SBOM_FILE.to_string(),
            // Names of stages have no slashes.
            Some(name) => format!("sbom-{name}.spdx.json"),
        };
        Ok(Attestation { filename, inline_only: false, content: Content::Sbom(Arc::new(sbom)) })
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
