//! What can go wrong with a build.

use crate::attest::make::MakeError;
use crate::export::ExportError;
use crate::progress::Outcome;
use crate::remote_cache::export::ExportFailure;
use crate::remote_cache::flag::FlagError;
use crate::report::Phase;
use crate::source::context::ContextError;
use crate::source::dockerfile::DockerfileError;
use crate::source::image::ImageError;
use crate::source::named::NamedContextError;
use crate::source::remote::RemoteError;
use crate::step::commit::CommitError;
use crate::step::file::FileError;
use crate::step::{BuildSteps, StepError};
use cache::error::StoreError;
use frontend::diagnostic::Diagnostic;
use frontend::ignore::IgnoreError;
use frontend::op::Source;
use frontend::span::{SourceText, Span};
use solver::error::Cause;
use solver::graph::VertexId;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// A build that failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error(transparent)]
    Dockerfile(#[from] DockerfileError),
    #[error(transparent)]
    Context(#[from] ContextError),
    #[error("error in {}", path.display())]
    Ignore { path: PathBuf, source: IgnoreError },
    #[error(transparent)]
    NamedContext(#[from] NamedContextError),
    #[error("the Dockerfile has errors")]
    Diagnostics { text: Arc<SourceText>, list: Vec<Diagnostic>, phase: Phase },
    #[error("{}", list.first().map(|missing| missing.error.to_string()).unwrap_or_default())]
    Resolve { text: Arc<SourceText>, list: Vec<MissingImage> },
    #[error("{error}")]
    Step { text: Arc<SourceText>, place: Place, name: String, error: Box<StepError> },
    #[error(transparent)]
    Export(#[from] ExportError),
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error(transparent)]
    Secret(#[from] crate::secret::SecretError),
    #[error(transparent)]
    Ssh(#[from] crate::ssh::SshError),
    #[error("could not read standard input")]
    Stdin { source: io::Error },
    #[error("could not unpack the context that came on standard input")]
    Unpack {
        #[source]
        error: Box<FileError>,
    },
    #[error(transparent)]
    Commit(#[from] CommitError),
    #[error("ambiguous Dockerfile source: both stdin and flag correspond to Dockerfiles")]
    TwoDockerfiles,
    #[error("could not read the context that was fetched")]
    ReadContext { source: io::Error },
    #[error(transparent)]
    Remote(RemoteError),
    #[error("this builds {count} images, and a shell can be opened in one: give one --platform")]
    NotOneStage { count: usize },
    #[error(transparent)]
    Stage(Box<ImageError>),
    #[error("a thread of the build died")]
    Join(#[from] tokio::task::JoinError),
    #[error("only one output may write to standard output")]
    StdoutTwice,
    #[error("local and tar exporters are incompatible with image ID file")]
    NoImageForIidFile,
    #[error(transparent)]
    CacheFlag(#[from] FlagError),
    #[error(transparent)]
    CacheExport(#[from] ExportFailure),
    #[error(transparent)]
    Attest(#[from] MakeError),
    #[error("Canceled: context canceled")]
    Canceled,
}

/// An image whose config could not be had.
#[derive(Debug)]
pub struct MissingImage {
    pub place: Place,
    pub error: ImageError,
    /// A stage or a well-known image that may be meant.
    pub near: Option<String>,
    /// How to have it from elsewhere.
    pub advice: Option<String>,
}

/// Where in the Dockerfile something is asked for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// The instruction.
    pub span: Option<Span>,
    /// The word in it.
    pub word: Option<Span>,
}

impl BuildError {
    /// Of a remote source; a stopped build is one, whatever it was doing.
    pub fn remote(error: RemoteError) -> BuildError {
        if error.is_canceled() { BuildError::Canceled } else { BuildError::Remote(error) }
    }
}

/// Shows an error on its vertex, and places it in the Dockerfile.
pub(crate) fn step_failed(
    vertex: VertexId,
    cause: Cause<StepError, StoreError>,
    steps: &BuildSteps,
    text: &Arc<SourceText>,
) -> BuildError {
    let cause = match cause {
        Cause::Step(error) => error,
        Cause::Store(error) => StepError::Store(error),
    };
    let canceled = matches!(cause, StepError::Canceled);
    steps.vertices[vertex.0 as usize].end(match canceled {
        true => Outcome::Canceled,
        false => Outcome::Failed(crate::progress::chain(&cause)),
    });
    if canceled {
        return BuildError::Canceled;
    }
    let step = steps.graph.value(vertex);
    let meant = cause.word().map(frontend::path::clean);
    let is_meant = |came_to: &str| meant.as_ref().is_some_and(|word| *word == frontend::path::clean(came_to));
    // A source fails as a whole.
    let is_source = |came_to: &str| match step.op.source() {
        Some(Source::Http { url, .. }) => came_to == url,
        Some(Source::Git(source)) => came_to.starts_with(&source.remote),
        _ => false,
    };
    let mut words = step.words.iter();
    let word = words.find(|(came_to, _)| is_meant(came_to) || is_source(came_to)).map(|(_, word)| word);
    let place = Place { span: step.span, word };
    BuildError::Step { text: text.clone(), place, name: step.name.clone(), error: Box::new(cause) }
}
