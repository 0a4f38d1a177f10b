//! Why an image cannot be had, and what can be done about it.

use super::local::DaemonImageError;
use super::oci_layout::LayoutError;
use crate::image::select::DocumentError;
use crate::local::record::LocalError;
use crate::registry::RegistryError;
use cache::StoreError;
use cache::digest::{BadDigest, Digest};
use cache::layer::LayerError;
use frontend::reference::{Reference, ReferenceError};
use std::sync::Arc;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// There is no such image.
    #[error("failed to resolve source metadata for {reference}: not found")]
    NotFound {
        /// As asked for.
        reference: String,
        /// What the registry said.
        source: Box<RegistryError>,
    },
    /// There may be, but not for us.
    #[error(
        "failed to resolve source metadata for {reference}: pull access denied, repository does not exist or may require \
         authorization"
    )]
    Denied {
        /// As asked for.
        reference: String,
        /// What the registry said.
        source: Box<RegistryError>,
    },
    /// Another answer of the registry, or none.
    #[error("failed to resolve source metadata for {reference}")]
    Resolve {
        /// As asked for.
        reference: String,
        /// What happened.
        source: Box<RegistryError>,
    },
    /// Something that the manifest names cannot be fetched.
    #[error("cannot pull {reference}")]
    Pull {
        /// As asked for.
        reference: String,
        /// What happened.
        source: Box<RegistryError>,
    },
    /// Pushing failed.
    #[error("failed to push {reference}")]
    Push {
        /// As asked for.
        reference: String,
        /// What happened.
        source: Box<RegistryError>,
    },
    /// An image without a manifest.
    #[error("nothing to push to {0}")]
    NothingToPush(String),
    /// A document cannot be used.
    #[error("failed to resolve source metadata for {reference}")]
    Document {
        /// As asked for.
        reference: String,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// The config is not one.
    #[error("the image config {digest} of {reference} cannot be read")]
    Config {
        /// As asked for.
        reference: String,
        /// Of the config.
        digest: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// Something is named by what cannot be checked.
    #[error("{reference}")]
    Digest {
        /// As asked for.
        reference: String,
        /// What was found.
        source: BadDigest,
    },
    /// The plan names a context that this build was not given.
    #[error("there is no OCI layout of the name `{0}`")]
    NoLayout(String),
    /// A layout cannot be read.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A record's layer names a place that is none.
    #[error("layer origin `{origin}` cannot be read")]
    Origin {
        /// As in the record.
        origin: String,
        /// What is wrong with it.
        source: ReferenceError,
    },
    /// A layer's tar is not what the config says.
    #[error("layer {digest}: the files are {actual}, but the image config says {expected}")]
    DiffId {
        /// Of the blob.
        digest: Digest,
        /// `rootfs.diff_ids`.
        expected: Digest,
        /// Of what came.
        actual: Digest,
    },
    /// A layer cannot be unpacked.
    #[error("cannot unpack layer {digest}")]
    Unpack {
        /// Of the blob.
        digest: Digest,
        /// What is wrong.
        source: LayerError,
    },
    /// The layers below could not be seen together.
    #[error("cannot mount the layers below {digest}")]
    Mount {
        /// Of the blob whose unpacking needs them.
        digest: Digest,
        /// What the kernel says.
        source: crate::sandbox::error::SandboxError,
    },
    /// A layer was made by a step, and is no longer there.
    #[error("snapshot {0} is missing from the store and no blob is known to make it from")]
    SnapshotLost(String),
    /// A remote cache did not answer before.
    #[error("the cache {0} does not answer")]
    CacheDown(String),
    /// A thread that unpacked died.
    #[error("unpacking layer {0} was interrupted")]
    Interrupted(Digest),
    /// The only place of a blob was this store.
    #[error("layer {digest} of an image that was loaded is not in the store any more")]
    NotStored {
        /// Of the blob.
        digest: Digest,
    },
    /// A named image of the store cannot be used.
    #[error(transparent)]
    Local(Box<LocalError>),
    /// A dockerd does not give an image.
    #[error(transparent)]
    Daemon(Box<DaemonImageError>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another task of this build asked first, and failed.
    #[error(transparent)]
    Shared(Arc<ImageError>),
}

impl ImageError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            ImageError::NotFound { source, .. }
            | ImageError::Denied { source, .. }
            | ImageError::Resolve { source, .. }
            | ImageError::Pull { source, .. }
            | ImageError::Push { source, .. } => source.help(),
            ImageError::Shared(error) => error.help(),
            ImageError::Local(error) => error.help(),
            ImageError::Daemon(error) => match &**error {
                DaemonImageError::Daemon(error) => error.help(),
                _ => None,
            },
            ImageError::NotStored { .. } => Some("load the image again (kiln image load)".into()),
            ImageError::Origin { .. } => {
                Some("the layer may be in a remote cache alone: build the image again with that --cache-from".into())
            }
            _ => None,
        }
    }

    /// Whether it may be that only the registry could not be asked: it does not say that there is no such image.
    pub fn may_be_the_network(&self) -> bool {
        match self {
            ImageError::Denied { .. } | ImageError::Resolve { .. } | ImageError::Pull { .. } => true,
            ImageError::Shared(error) => error.may_be_the_network(),
            _ => false,
        }
    }

    /// What a registry's refusal means for an image.
    pub(super) fn pull(reference: &Reference, source: RegistryError) -> ImageError {
        let (reference, source) = (reference.to_string(), Box::new(source));
        match source.status().map(|status| status.as_u16()) {
            Some(404) => ImageError::NotFound { reference, source },
            Some(401 | 403) => ImageError::Denied { reference, source },
            _ => ImageError::Resolve { reference, source },
        }
    }
}
