//! Images put together in registries, without a build: what several machines have pushed, each for its platform, becomes one
//! index. `source.rs` reads what there is, `join.rs` decides what the index is to have (pure), `publish.rs` copies what its
//! repository lacks and pushes it, `inspect.rs` shows what a name stands for.

pub mod inspect;
pub mod join;
pub mod publish;
pub mod source;

use crate::image::select::DocumentError;
use crate::registry::RegistryError;
use crate::registry::push::PushError;
use cache::digest::Digest;
use join::JoinError;
use std::io;
use std::path::PathBuf;

/// Why an index could not be made or shown.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A registry does not give something.
    #[error("cannot read {name}")]
    Read {
        /// The image.
        name: String,
        /// What it says.
        source: RegistryError,
    },
    /// What it gives is no image.
    #[error("cannot use {name}")]
    Document {
        /// The image.
        name: String,
        /// What is wrong with it.
        source: DocumentError,
    },
    /// It is not the JSON that its media type promises.
    #[error("{digest} of {name} cannot be read")]
    Parse {
        /// The image.
        name: String,
        /// The document.
        digest: Digest,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A descriptor says something else than what it names.
    #[error("the descriptor of {name} says {told}, which is {actual}")]
    Descriptor {
        /// The image.
        name: String,
        /// Such as `size 7`.
        told: String,
        /// What the registry has.
        actual: String,
    },
    /// A descriptor has what only the entry of an image has.
    #[error("the descriptor of {name} has {what}, and {name} is an index, whose images have their own")]
    NoEntry {
        /// The index.
        name: String,
        /// Such as `a platform`.
        what: &'static str,
    },
    /// Indexes in indexes, too many.
    #[error("{name} has indexes in indexes, more than {limit} levels of them")]
    Depth {
        /// The image.
        name: String,
        /// Levels that are followed.
        limit: usize,
    },
    /// The parts do not fit each other.
    #[error(transparent)]
    Join(#[from] JoinError),
    /// A blob on its way from one registry to another could not be kept.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// Such as `write`.
        verb: &'static str,
        /// The file.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
    /// The registry does not take it.
    #[error("cannot push {name}")]
    Push {
        /// The image.
        name: String,
        /// What it says.
        source: RegistryError,
    },
    /// Others change the tag all the time.
    #[error("{name} was changed by others {times} times while this added to it")]
    Contended {
        /// The image.
        name: String,
        /// How often it was tried.
        times: u32,
    },
}

impl ManifestError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            ManifestError::Read { source, .. } | ManifestError::Push { source, .. } => source.help(),
            ManifestError::Join(error) => error.help(),
            ManifestError::Contended { .. } => Some("put the index together in one place, from all its parts".into()),
            _ => None,
        }
    }

    fn push(name: &str, error: PushError<ManifestError>) -> ManifestError {
        match error {
            PushError::Registry(source) => ManifestError::Push { name: name.to_string(), source },
            PushError::Open(error) => error,
            PushError::Empty => unreachable!("an index is always pushed"),
        }
    }
}
