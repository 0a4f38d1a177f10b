//! All that a build reads from URLs: the trees of [`Source::Http`] and [`Source::Git`], and how old they are.

use super::git::{GitError, GitTrees};
use super::http::{HttpError, HttpFiles, HttpRequest};
use super::image::blocking;
use crate::cancel::Cancel;
use crate::progress::Vertex;
use crate::secret::Secrets;
use crate::ssh::SshAgents;
use crate::step::file::newest_member;
use cache::store::Store;
use cache::tree::Layer;
use frontend::op::Source;
use std::fs::File;
use std::sync::Arc;

/// The remote sources of one build. Cheap to clone; what is asked for twice is fetched once.
#[derive(Clone)]
pub struct Remotes {
    pub http: HttpFiles,
    pub git: GitTrees,
}

/// Why a remote source cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RemoteError {
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error(transparent)]
    Git(#[from] GitError),
}

/// What a remote source gave.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// The tree.
    pub layer: Layer,
    /// Of a commit, or when a file was last modified, if the server says so: seconds since 1970.
    pub time: Option<i64>,
}

impl RemoteError {
    /// What the user can do about it.
    pub fn help(&self) -> Vec<String> {
        match self {
            RemoteError::Http(error) => error.help().into_iter().collect(),
            RemoteError::Git(error) => error.help().into_iter().collect(),
        }
    }

    /// Whether the build was stopped, which is no failure of its own.
    pub fn is_canceled(&self) -> bool {
        match self {
            RemoteError::Http(error) => error.is_canceled(),
            RemoteError::Git(error) => error.is_canceled(),
        }
    }
}

impl Remotes {
    /// Asks nobody yet.
    pub fn new(store: &Store, secrets: Arc<Secrets>, agents: Arc<SshAgents>, cancel: &Cancel) -> Remotes {
        Remotes {
            http: HttpFiles::new(store.clone(), secrets.clone(), cancel.clone()),
            git: GitTrees::new(store.clone(), secrets, agents, cancel.clone()),
        }
    }

    /// Has the tree of a source in the store; `None` if the source is not a remote one.
    pub async fn fetch(&self, source: &Source, vertex: &Vertex) -> Result<Option<Fetched>, RemoteError> {
        match source {
            Source::Git(source) => {
                let tree = self.git.tree(source, vertex).await?;
                Ok(Some(Fetched { layer: tree.layer, time: Some(tree.time) }))
            }
            Source::Http { url, filename, checksum } => {
                let file = self.http.file(&request(url, filename, checksum), vertex).await?;
                Ok(Some(Fetched { layer: file.layer, time: file.last_modified }))
            }
            Source::Image { .. } | Source::Local { .. } | Source::OciLayout { .. } => Ok(None),
        }
    }

    /// How old a source is, in seconds since 1970 (reference/dockerfile.md 5.6): of a file whose server does not say,
    /// its newest member, if it is an archive.
    pub async fn time(&self, source: &Source, vertex: &Vertex) -> Result<Option<i64>, RemoteError> {
        let fetched = self.fetch(source, vertex).await?;
        match (fetched, source) {
            (Some(Fetched { time: Some(time), .. }), _) => Ok(Some(time)),
            (Some(_), Source::Http { url, filename, checksum }) => {
                let request = request(url, filename, checksum);
                let path = self.http.path(&self.http.file(&request, vertex).await?, &request);
                Ok(blocking(move || File::open(path).ok().and_then(newest_member)).await)
            }
            _ => Ok(None),
        }
    }
}

fn request(url: &str, filename: &str, checksum: &Option<String>) -> HttpRequest {
    HttpRequest { url: url.to_string(), filename: filename.to_string(), checksum: checksum.clone() }
}
