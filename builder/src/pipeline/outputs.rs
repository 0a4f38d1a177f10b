//! What becomes of a build's result: its exports, the caches it is left in, and what is said of it.

use super::announce::warning;
use super::{BuildError, Solved, World};
use crate::attest::metadata;
use crate::cli::options::BuildOptions;
use crate::export::compatibility::CompatibilityVersion;
use crate::export::{self, Export, Exporter, Response};
use crate::image::layers::LayerBlobs;
use crate::local::keep::implied_output;
use crate::progress::{Outcome, rawjson};
use crate::remote_cache::RemoteCache;
use frontend::compile::wants_index;
use frontend::diagnostic::Severity;
use frontend::platform::Platform;

/// An export that met more damaged blobs than this fails: a disk that returns other bytes than it was given is not helped.
const DAMAGED_BLOBS: usize = 100;

/// All outputs are understood before anything is built.
pub(super) fn open_exporters(options: &BuildOptions) -> Result<Vec<Box<dyn Exporter>>, BuildError> {
    CompatibilityVersion::of_build(&options.outputs)?;
    let implied = implied_output(options);
    let wanted = options.outputs.iter().filter(|output| output.kind != "cacheonly");
    let exporters = wanted.chain(&implied).map(export::open).collect::<Result<Vec<_>, _>>()?;
    exporters.iter().try_for_each(|exporter| exporter.check(&options.attest))?;
    if exporters.iter().filter(|exporter| exporter.uses_stdout()).count() > 1 {
        return Err(BuildError::StdoutTwice);
    }
    if options.iidfile.is_some() && !exporters.is_empty() && !exporters.iter().any(|exporter| exporter.makes_image()) {
        return Err(BuildError::NoImageForIidFile);
    }
    Ok(exporters)
}

/// What `--metadata-file` says of the build itself.
pub(super) fn build_metadata(solved: &Solved<'_>, options: &BuildOptions, world: &World) -> Response {
    if options.metadata_file.is_none() {
        return Response::new();
    }
    let platforms: Vec<Platform> = solved.images.iter().map(|image| image.platform.clone()).collect();
    let mut metadata = metadata::of_build(&world.build.id, &platforms, &solved.facts, options.metadata);
    if options.metadata.warnings {
        let warnings = solved.warnings.iter().filter(|found| found.severity == Severity::Warning);
        let warnings =
            warnings.map(|found| rawjson::vertex_warning(&solved.definition, &warning(&solved.source, found)));
        metadata.insert("buildx.build.warnings".into(), warnings.collect());
    }
    metadata
}

pub(super) async fn export_cache(cache: &RemoteCache, world: &World) -> Result<(), BuildError> {
    tokio::select! {
        exported = cache.exports.finish(cache) => Ok(exported?),
        () = world.cancel.canceled() => Err(BuildError::Canceled),
    }
}

pub(super) async fn export_all(
    exporters: &[Box<dyn Exporter>],
    solved: &Solved<'_>,
    options: &BuildOptions,
    world: &World,
) -> Result<Response, BuildError> {
    let multi_platform = wants_index(&options.build_args);
    let mut response = Response::new();
    for exporter in exporters {
        let vertex = world.progress.task(&exporter.name());
        let mut blobs = solved.tools.blobs.clone();
        let mut damaged = 0;
        let exported = loop {
            let export = Export {
                images: &solved.images,
                multi_platform,
                epoch: solved.epoch,
                store: &world.store,
                blobs: &blobs,
                sources: &solved.tools.images,
                caches: &solved.tools.cache.exports,
                vertex: &vertex,
            };
            let exported = tokio::select! {
                exported = exporter.export(&export) => exported,
                () = world.cancel.canceled() => {
                    vertex.end(Outcome::Canceled);
                    return Err(BuildError::Canceled);
                }
            };
            // A blob that was damaged on disk has been dropped, and is made again. The next may be damaged, too.
            let found = world.store.take_damaged_blobs().len();
            damaged += found;
            if exported.is_ok() || found == 0 || damaged > DAMAGED_BLOBS || exporter.uses_stdout() {
                break exported;
            }
            blobs = LayerBlobs::new(world.store.clone());
        };
        response.extend(vertex.finish(exported)?);
    }
    Ok(response)
}
