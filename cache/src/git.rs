//! Bare git repositories, one for each remote: `git/<id>/`. They are what git fetches into, so that a later fetch
//! transfers only what is new; trees that steps read are snapshots, never these.
//!
//! Knows nothing of git: who opens one fills it, and throws it away if it is damaged.

use crate::claim::Claim;
use crate::error::{FileError, StoreError};
use crate::store::Store;
use solver::key::CacheKey;
use solver::record::RecordStore;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// The repository of a remote, which this process has for itself until it is dropped.
pub struct GitRepository {
    path: PathBuf,
    store: Store,
    claim: Claim,
}

impl Store {
    /// Waits until nobody else, in any process, uses the repository of `remote`, and takes it. `remote` is all that
    /// tells repositories apart. There may be nothing at its path yet.
    ///
    /// Invariant: who has one repository asks for no other, since two who ask in different orders would wait forever.
    pub async fn git_repository(&self, remote: &str) -> Result<GitRepository, StoreError> {
        let id = CacheKey::of(format!("git repository {remote}").as_bytes());
        let claim = self.claim(&id).await?;
        Ok(GitRepository { path: self.git_dir().join(id.to_hex()), store: self.clone(), claim })
    }

    /// Where repositories are: `git/<id>`. The id is also the key of the claim that protects it.
    pub(crate) fn git_dir(&self) -> PathBuf {
        self.root().join("git")
    }
}

impl GitRepository {
    /// Where it is, or would be.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.path.is_dir()
    }

    /// Puts a repository that was made in a scratch folder of the store in its place.
    pub fn adopt(&self, made: &Path) -> Result<(), StoreError> {
        Ok(fs::rename(made, &self.path).map_err(FileError::at("rename", made))?)
    }

    /// Throws it away, so that it is begun anew. Success if there was none.
    pub fn discard(&self) -> Result<(), StoreError> {
        self.store.discard(&self.path)
    }

    /// The locked file. A program that has it open holds the lock too, so that it is not free as long as that program
    /// works in the repository, even if this process is killed.
    pub fn lock(&self) -> io::Result<File> {
        self.claim.handle()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use futures::executor::block_on;

    #[test]
    fn one_at_a_time_and_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let first = block_on(store.git_repository("a")).unwrap();
        assert!(!first.exists());
        let made = store.scratch_dir().unwrap();
        fs::write(made.join("HEAD"), "x").unwrap();
        first.adopt(&made).unwrap();
        assert_eq!(fs::read_to_string(first.path().join("HEAD")).unwrap(), "x");
        let other = block_on(store.git_repository("b")).unwrap();
        assert_ne!(other.path(), first.path());
        let mut second = Box::pin(store.git_repository("a"));
        assert!(second.as_mut().now_or_never().is_none());
        first.discard().unwrap();
        first.discard().unwrap();
        drop(first);
        assert!(!block_on(second).unwrap().exists());
    }
}
