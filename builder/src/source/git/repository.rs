//! Bare repositories in the store, one for each remote, into which is fetched what a build needs and no more.
//!
//! What was fetched in whole is marked by a ref, `refs/kiln/<object>`; objects without one may be what a killed git
//! left. A repository that turns out to be damaged is thrown away and begun anew.

use super::error::GitError;
use super::program::{Call, Git};
use super::remote::{Remote, Resolved, is_hash};
use crate::progress::Vertex;
use cache::git::GitRepository;
use cache::store::Store;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

/// A repository is begun anew after so many fetches: each leaves a pack, and nothing repacks them.
const PACKS_MAX: usize = 64;
/// What a server says that gives no commit by its hash.
const NOT_BY_HASH: [&str; 4] =
    ["not our ref", "unadvertised object", "does not allow request", "dumb http transport does not support shallow"];
/// Where a remote's branches and tags go when all of them are fetched.
const ALL: [&str; 2] = ["+refs/heads/*:refs/all/heads/*", "+refs/tags/*:refs/all/tags/*"];

/// The repository of a remote, for as long as this build works in it.
pub(super) struct Repository<'a> {
    git: &'a Git,
    remote: &'a Remote,
    own: GitRepository,
    store: &'a Store,
    /// Hashes have 64 digits.
    is_sha256: bool,
}

impl<'a> Repository<'a> {
    /// Waits for the remote's repository. `object` tells by its length which hashes it has.
    pub async fn open(
        git: &'a Git,
        remote: &'a Remote,
        store: &'a Store,
        object: &str,
    ) -> Result<Repository<'a>, GitError> {
        let is_sha256 = object.len() == 64;
        let format = if is_sha256 { " sha256" } else { "" };
        let name = format!("{}{format}", remote.url);
        let own = tokio::select! {
            own = store.git_repository(&name) => own?,
            () = git.canceled() => return Err(GitError::Canceled),
        };
        let repository = Repository { git, remote, own, store, is_sha256 };
        if repository.own.exists() {
            repository.remove_stale_locks();
        }
        Ok(repository)
    }

    /// Has a commit with all that belongs to it, and gives its hash: fetched if it is not there.
    pub async fn ensure(&self, resolved: &Resolved, vertex: &Vertex) -> Result<String, GitError> {
        if let Some(commit) = self.marked(&resolved.object).await? {
            return Ok(commit);
        }
        if !self.own.exists() || self.packs() >= PACKS_MAX {
            self.begin_anew().await?;
        }
        match self.fetch(resolved, vertex).await {
            Err(GitError::Failed { stderr, .. }) if is_damage(&stderr) => {
                tracing::warn!(remote = self.remote.shown, stderr, "git repository is damaged and begun anew");
                self.begin_anew().await?;
                self.fetch(resolved, vertex).await
            }
            result => result,
        }
    }

    /// The commit that a marked object is, or names.
    async fn marked(&self, object: &str) -> Result<Option<String>, GitError> {
        if !self.own.exists() {
            return Ok(None);
        }
        let commit = format!("refs/kiln/{object}^{{commit}}");
        match self.run("read", &["rev-parse", "--quiet", "--verify", "--end-of-options", &commit]).await {
            Ok(output) => Ok(Some(String::from_utf8_lossy(&output).trim().to_string()).filter(|text| is_hash(text))),
            Err(GitError::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Fetches as little as the server lets: one commit without its history, else all branches and tags.
    async fn fetch(&self, resolved: &Resolved, vertex: &Vertex) -> Result<String, GitError> {
        let object = resolved.object.as_str();
        // The name first, since all servers know it; it may have moved since it was resolved.
        let name = resolved.name.as_deref().filter(|_| resolved.has_name);
        for want in name.into_iter().chain([object]) {
            match self.fetch_refs(&["--depth=1", "--no-tags"], &[want], vertex).await {
                Ok(()) => {}
                Err(GitError::Failed { stderr, .. }) if NOT_BY_HASH.iter().any(|sign| stderr.contains(sign)) => {}
                // Gone since it was resolved.
                Err(GitError::Failed { stderr, .. })
                    if want != object && stderr.contains("couldn't find remote ref") => {}
                Err(error) => return Err(error),
            }
            if let Some(commit) = self.mark(object).await? {
                return Ok(commit);
            }
        }
        let is_shallow = self.own.path().join("shallow").exists();
        let depth: &[&str] = if is_shallow { &["--unshallow"] } else { &[] };
        self.fetch_refs(depth, &ALL, vertex).await?;
        let missing = || GitError::NoCommit { commit: object.into(), remote: self.remote.shown.clone() };
        self.mark(object).await?.ok_or_else(missing)
    }

    async fn fetch_refs(&self, options: &[&str], wanted: &[&str], vertex: &Vertex) -> Result<(), GitError> {
        let mut arguments = vec!["fetch", "--force", "--no-recurse-submodules"];
        arguments.extend(options);
        arguments.extend(["--", self.remote.url.as_str()]);
        arguments.extend(wanted);
        let call = || self.call(Some(vertex));
        self.git.run_with_patience("fetch remote", &arguments, call).await.map(drop)
    }

    /// Marks an object as fetched, if it is there; gives the commit that it is or names.
    async fn mark(&self, object: &str) -> Result<Option<String>, GitError> {
        let commit = format!("{object}^{{commit}}");
        match self.run("read", &["rev-parse", "--quiet", "--verify", "--end-of-options", &commit]).await {
            Ok(_) => {}
            Err(GitError::Failed { .. }) => return Ok(None),
            Err(error) => return Err(error),
        }
        self.run("mark", &["update-ref", &format!("refs/kiln/{object}"), object]).await?;
        self.marked(object).await
    }

    async fn begin_anew(&self) -> Result<(), GitError> {
        self.own.discard()?;
        let made = self.store.scratch_dir()?;
        let format = if self.is_sha256 { "--object-format=sha256" } else { "--object-format=sha1" };
        let path = made.to_string_lossy();
        self.git.run("init", &["init", "--quiet", "--bare", "--template=", format, &path], Call::default()).await?;
        Ok(self.own.adopt(&made)?)
    }

    /// Runs git in it.
    pub async fn run(&self, verb: &'static str, arguments: &[&str]) -> Result<Vec<u8>, GitError> {
        self.git.run(verb, arguments, self.call(None)).await
    }

    /// A call of git in it.
    pub fn call<'v>(&self, log: Option<&'v Vertex>) -> Call<'v> {
        let environment = vec![("GIT_DIR", OsString::from(self.own.path()))];
        Call { environment, held: self.own.lock().ok(), log }
    }

    /// How messages call the remote.
    pub fn remote(&self) -> &str {
        &self.remote.shown
    }

    /// Throws away what was fetched.
    pub fn discard(&self) -> Result<(), GitError> {
        Ok(self.own.discard()?)
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.own.path()
    }

    fn packs(&self) -> usize {
        let entries = fs::read_dir(self.own.path().join("objects/pack")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|extension| extension == "pack")).count()
    }

    /// Nobody else works here, so locks are those of a git that was killed.
    fn remove_stale_locks(&self) {
        let folders =
            ["", "refs", "refs/kiln", "refs/all/heads", "refs/all/tags"].map(|name| self.own.path().join(name));
        for entry in folders.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|extension| extension == "lock") {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Whether git complains about what is in the store, not about the remote.
pub(super) fn is_damage(stderr: &str) -> bool {
    const SIGNS: [&str; 12] = [
        "not a git repository",
        "corrupt",
        "bad object",
        "bad tree",
        "unable to read",
        "loose object",
        "unable to parse",
        "Could not read",
        "did not match index",
        "missing necessary objects",
        "invalid shallow line",
        "cannot lock ref",
    ];
    SIGNS.iter().any(|sign| stderr.contains(sign))
}
