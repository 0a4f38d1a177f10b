//! Exporters: where a build's result goes. One file a type; [`EXPORTERS`] is the table from which help is made.

pub mod archive;
pub mod attested;
pub mod attributes;
pub mod compatibility;
pub mod docker;
mod docker_load;
pub mod image;
pub mod local;
pub mod oci;
pub mod tar;
pub mod target;
mod unpack;

use crate::attest::request::AttestRequest;
use crate::cli::output::OutputSpec;
use crate::image::assemble::{AssembleError, AssembleOptions, BuiltImage};
use crate::image::layers::{BlobError, LayerBlobs, LayerOptions};
use crate::progress::Vertex;
use crate::publish::NotPushed;
use crate::remote_cache::export::Exports;
use crate::sandbox::SandboxError;
use crate::source::image::{ImageError, ImageSource};
use attributes::Attributes;
use cache::layer::LayerError;
use cache::layer::compression::MediaTypes;
use cache::store::Store;
use futures::future::BoxFuture;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

/// A build's result, and what exporters work with.
pub struct Export<'a> {
    /// One for each platform, in the order asked for; at least one.
    pub images: &'a [BuiltImage],
    /// `BUILDKIT_MULTI_PLATFORM`: treat one platform as several.
    pub multi_platform: bool,
    /// `SOURCE_DATE_EPOCH`, seconds since 1970.
    pub epoch: Option<i64>,
    pub store: &'a Store,
    pub blobs: &'a LayerBlobs,
    pub sources: &'a ImageSource,
    /// Remote caches, of which one may be the image itself.
    pub caches: &'a Exports,
    /// The export's vertex.
    pub vertex: &'a Vertex,
}

impl Export<'_> {
    /// Whether the result is a set of platforms, even of one.
    pub fn is_multi_platform(&self) -> bool {
        self.multi_platform || self.images.len() > 1
    }
}

/// Values for `--metadata-file`, by key (reference/engine.md 1.7).
pub type Response = BTreeMap<String, Value>;

/// A configured exporter.
pub trait Exporter: Send + Sync {
    /// The vertex's name, such as `exporting to oci image format`.
    fn name(&self) -> String;

    /// How it wants layers, if it wants any: their blobs are then made while later steps still run.
    fn layer_options(&self) -> Option<LayerOptions>;

    /// Whether it writes to standard output.
    fn uses_stdout(&self) -> bool;

    /// Whether the result has an image digest for `--iidfile`.
    fn makes_image(&self) -> bool;

    /// Whether it can take what is to be attested; known before anything is built.
    fn check(&self, _attest: &AttestRequest) -> Result<(), ExportError> {
        Ok(())
    }

    /// Writes the result. A destination is complete, or as it was.
    fn export<'a>(&'a self, export: &'a Export<'a>) -> BoxFuture<'a, Result<Response, ExportError>>;
}

/// A type of exporter.
pub struct ExporterType {
    /// As in `type=`.
    pub name: &'static str,
    /// For help.
    pub about: &'static str,
    open: fn(&mut Attributes) -> Result<Box<dyn Exporter>, ExportError>,
}

/// All types. `registry` is `image` with `push=true` and is turned into it before.
pub const EXPORTERS: &[ExporterType] = &[
    ExporterType { name: "docker", about: "archive for `docker load`", open: docker::open },
    ExporterType {
        name: "image",
        about: "image of kiln's store; with push=true, of its registry; with unpack=true, of containerd",
        open: image::open,
    },
    ExporterType { name: "local", about: "the file system, as a folder", open: local::open },
    ExporterType { name: "oci", about: "OCI layout, as an archive or a folder", open: oci::open },
    ExporterType { name: "tar", about: "the file system, as an archive", open: tar::open },
];

/// Makes the exporter that an `--output` asks for. All its attributes must be known.
pub fn open(spec: &OutputSpec) -> Result<Box<dyn Exporter>, ExportError> {
    let Some(exporter_type) = EXPORTERS.iter().find(|exporter| exporter.name == spec.kind) else {
        let known = EXPORTERS.iter().map(|exporter| exporter.name).collect::<Vec<_>>().join(", ");
        return Err(ExportError::UnknownType { name: spec.kind.clone(), known });
    };
    let mut attributes = Attributes::new(exporter_type.name, spec.attributes.clone());
    let exporter = (exporter_type.open)(&mut attributes)?;
    attributes.finish()?;
    Ok(exporter)
}

/// Why an export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("exporter \"{name}\" could not be found; kiln has {known}, registry")]
    UnknownType { name: String, known: String },
    #[error("{exporter} exporter: invalid value \"{value}\" for {key}: {problem}")]
    Attribute { exporter: String, key: String, value: String, problem: String },
    #[error("{exporter} exporter: unknown attribute {key}")]
    UnknownAttribute { exporter: String, key: String },
    #[error("{exporter} exporter: {key} is required")]
    Missing { exporter: String, key: &'static str },
    #[error("docker exporter does not support exporting manifest lists, use the oci exporter instead")]
    DockerIndex,
    #[error("image exporter: attestations need oci-mediatypes=true; leave oci-mediatypes=false out")]
    AttestationTypes,
    #[error("{0} is a file of the result, and an attestation is to be written there; give attestation-prefix=TEXT")]
    AttestationCollision(String),
    #[error("the outputs have different values of compatibility-version, of which a build has one")]
    CompatibilityVersions,
    #[error("unpack=true wants a running containerd or dockerd, and there is no {sockets}")]
    NothingRuns { sockets: String, source: crate::containerd::ContainerdError },
    #[error("destination {} is a folder, and a file is needed", .0.display())]
    IsFolder(PathBuf),
    #[error("destination {} is a file, and a folder is needed", .0.display())]
    IsFile(PathBuf),
    #[error("standard output is a terminal: give dest=FILE, or redirect it")]
    Terminal,
    #[error("could not {verb} {}", path.display())]
    Io { verb: &'static str, path: PathBuf, source: std::io::Error },
    #[error("could not read the result")]
    Read(#[from] cache::FileError),
    #[error("could not write the archive")]
    Archive(#[source] std::io::Error),
    #[error("could not write the file system's archive")]
    Tree(#[source] LayerError),
    #[error("could not mount the result")]
    View(#[from] SandboxError),
    #[error("{0} exists on several platforms with different content; leave platform-split=false out")]
    Collision(String),
    #[error("`docker load` failed: {0}")]
    DockerLoad(String),
    #[error("dockerd takes an image of one platform, and of the several that the result has not one is this machine's")]
    DockerdPlatforms,
    #[error("failed to load the image")]
    Daemon(#[from] crate::dockerd::DaemonError),
    #[error("the image's config has {diff_ids} good diff_ids, and its manifest has {layers} layers")]
    DiffIds { diff_ids: usize, layers: usize },
    #[error("failed to unpack the image")]
    Containerd(#[from] crate::containerd::ContainerdError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error(transparent)]
    Blob(#[from] BlobError),
    #[error(transparent)]
    Source(#[from] ImageError),
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error(transparent)]
    NotPushed(#[from] NotPushed),
    #[error(transparent)]
    Publish(Arc<ImageError>),
    #[error("the thread that wrote the export died")]
    Join(#[from] tokio::task::JoinError),
}

impl ExportError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            ExportError::Daemon(error) => error.help(),
            ExportError::Source(error) => error.help(),
            ExportError::Publish(error) => error.help(),
            ExportError::Containerd(error) => error.help(),
            ExportError::NothingRuns { .. } => Some(
                "start one of them, or run kiln as a user who may open its socket; CONTAINERD_ADDRESS=/path/to/a/socket and \
                 DOCKER_HOST=unix:///path/to/a/socket say where they are; type=docker,dest=FILE writes an archive for `docker load` and `ctr images import`, push=true pushes"
                    .into(),
            ),
            _ => None,
        }
    }

    /// An IO error, to be given its cause by `map_err`.
    pub fn io(verb: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> ExportError {
        let path = path.into();
        move |source| ExportError::Io { verb, path, source }
    }
}

/// What image-like exporters have in common: their documents' options.
#[derive(Clone, Debug)]
pub struct ImageAttributes {
    /// Canonical references.
    pub names: Vec<frontend::reference::Reference>,
    /// The same as they were given.
    pub names_as_given: Vec<String>,
    options: AssembleOptions,
    /// Media types are Docker's, unless something is attested.
    are_types_open: bool,
    rewrite_timestamp: bool,
    /// `source-date-epoch`; the outer `None`: not given, the inner: switched off.
    epoch: Option<Option<i64>>,
}

impl ImageAttributes {
    /// The documents' options for a build.
    pub fn assemble_options(&self, export: &Export<'_>) -> Result<AssembleOptions, ExportError> {
        let mut options = self.options.clone();
        options.epoch = self.epoch.unwrap_or(export.epoch);
        options.multi_platform = export.multi_platform;
        options.build_epoch = export.epoch;
        options.attestations.names = self.names.clone();
        if self.are_types_open && export.images.iter().all(|image| image.attestations.is_empty()) {
            options.types = MediaTypes::Docker;
        }
        if self.rewrite_timestamp {
            // Without an epoch there is nothing to rewrite to, which BuildKit takes for no fault.
            options.layer.clamp = options.epoch;
        }
        Ok(options)
    }

    /// Whether the media types that a build will have can hold what is wanted.
    pub fn check_types(&self, exporter: &str, attest: &AttestRequest) -> Result<(), ExportError> {
        match self.are_types_open && *attest == AttestRequest::default() {
            true => attributes::check_docker_types(exporter, &self.options),
            false => Ok(()),
        }
    }

    /// Whether attestations that are asked for come along.
    pub fn attaches(&self, attest: &AttestRequest) -> bool {
        let inline = self.options.attestations.inline;
        attest.provenance.as_ref().is_some_and(|provenance| inline || !provenance.inline_only) || attest.sbom.is_some()
    }

    /// How layers are wanted, if that is known before the build's epoch is.
    pub fn layer_options(&self) -> Option<LayerOptions> {
        (!self.rewrite_timestamp).then_some(self.options.layer)
    }
}
