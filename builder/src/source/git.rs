//! Trees from git repositories: ADD, and contexts (reference/dockerfile.md 2.7, 6.2).
//!
//! `remote.rs` finds the commit that a reference names, `repository.rs` fetches it into a bare repository of the store,
//! `checkout.rs` makes files of it; `program.rs` runs git for all three. The tree of a commit is a snapshot that is made
//! once: what a build needs to know is then the commit alone. `work_tree.rs` is apart: it looks at the repository that a folder of
//! the client is in.

mod checkout;
mod error;
mod program;
mod remote;
mod repository;
mod submodule;
pub mod work_tree;

pub use error::GitError;

use super::image::blocking;
use crate::cancel::Cancel;
use crate::progress::Vertex;
use crate::secret::Secrets;
use crate::ssh::{SshAgents, SshError};
use cache::checksum::change_digest;
use cache::error::FileError;
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::snapshot::overlay::Draft;
use cache::store::Store;
use cache::tree::{Layer, SnapshotId, stack};
use checkout::{GitDir, Link};
use frontend::op::GitSource;
use program::Git;
use remote::{Remote, Resolved, resolve};
use repository::{Repository, is_damage};
use serde::{Deserialize, Serialize};
use solver::key::CacheKey;
use solver::record::RecordStore;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};
use submodule::{is_safe_name, resolve_url};
use tokio::sync::OnceCell;

/// Namespace of notes in the store: commit and how it is checked out -> [`Known`].
const NOTES: &str = "git tree";
/// The agent that git may use.
const AGENT: &str = "default";

/// The git trees of one build. Cheap to clone. What is asked for twice is fetched once, and a reference names the same
/// commit throughout.
#[derive(Clone)]
pub struct GitTrees {
    inner: Arc<Inner>,
}

struct Inner {
    store: Store,
    secrets: Arc<Secrets>,
    agents: Arc<SshAgents>,
    cancel: Cancel,
    trees: Once<GitTree>,
    resolved: Once<Resolved>,
}

/// Answers that are computed once each; errors too. Keyed by all that is asked for.
type Once<T> = Mutex<HashMap<String, Arc<OnceCell<Result<T, Arc<GitError>>>>>>;

/// A commit as files.
#[derive(Clone, Debug)]
pub struct GitTree {
    /// Its files.
    pub layer: Layer,
    /// When it was committed, seconds since 1970.
    pub time: i64,
    /// The commit, 40 or 64 hex digits.
    pub commit: String,
}

/// A tree, as it is remembered.
#[derive(Serialize, Deserialize)]
struct Known {
    snapshot: SnapshotId,
    change: String,
    time: i64,
}

impl GitTrees {
    /// Runs nothing yet. Secrets for servers are `GIT_AUTH_HEADER` and `GIT_AUTH_TOKEN`, with or without `.<host>`.
    pub fn new(store: Store, secrets: Arc<Secrets>, agents: Arc<SshAgents>, cancel: Cancel) -> GitTrees {
        let (trees, resolved) = Default::default();
        GitTrees { inner: Arc::new(Inner { store, secrets, agents, cancel, trees, resolved }) }
    }

    /// Finds the commit, and has its files in the store.
    pub async fn tree(&self, source: &GitSource, vertex: &Vertex) -> Result<GitTree, GitError> {
        once(&self.inner.trees, format!("{source:?}"), self.inner.find(source, vertex)).await
    }
}

async fn once<T: Clone>(
    known: &Once<T>,
    key: String,
    find: impl Future<Output = Result<T, GitError>>,
) -> Result<T, GitError> {
    let answer = known.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default().clone();
    let found = answer.get_or_init(|| async { find.await.map_err(Arc::new) }).await;
    found.clone().map_err(GitError::Shared)
}

impl Inner {
    async fn find(&self, source: &GitSource, vertex: &Vertex) -> Result<GitTree, GitError> {
        let remote = Remote::parse(&source.remote)?;
        let git = self.git(&remote, &remote)?;
        let question = format!("{} {:?} {:?}", source.remote, source.reference, source.checksum);
        let resolved = once(&self.resolved, question, resolve(&git, &remote, source)).await?;
        let key = key(source, &remote, &resolved);
        if let Some(tree) = self.known(&key, &resolved)? {
            return Ok(tree);
        }
        let id = CacheKey::of(format!("git tree {key}").as_bytes());
        let _claim = tokio::select! {
            claim = self.store.claim(&id) => claim?,
            () = self.cancel.canceled() => return Err(GitError::Canceled),
        };
        if let Some(tree) = self.known(&key, &resolved)? {
            return Ok(tree);
        }
        let tree = self.make(source, &remote, &git, &resolved, vertex).await?;
        let (snapshot, change) = (tree.layer.snapshot.clone(), tree.layer.change.clone());
        let note = serde_json::to_vec(&Known { snapshot, change, time: tree.time }).expect("plain data");
        self.store.put_note(NOTES, &key, &note)?;
        let id = ObjectId::new(Kind::Snapshot, &*tree.layer.snapshot.0);
        let description = format!("checkout of {}", remote.shown);
        self.store.describe(id, About { description, category: "source.git.checkout" });
        Ok(tree)
    }

    fn known(&self, key: &str, resolved: &Resolved) -> Result<Option<GitTree>, GitError> {
        let note = self.store.note(NOTES, key)?;
        let known = note.and_then(|note| serde_json::from_slice::<Known>(&note).ok());
        let known = known.filter(|known| self.store.snapshots().exists(&known.snapshot));
        let commit = resolved.commit().to_string();
        Ok(known.map(|known| GitTree { layer: layer(known.snapshot, known.change), time: known.time, commit }))
    }

    /// The program, with what it takes to ask a remote that was asked for, or that `trusted` names as a submodule.
    fn git(&self, remote: &Remote, trusted: &Remote) -> Result<Git, GitError> {
        let authorization = remote.authorization(&self.secrets, trusted)?;
        let mut agent = None;
        if remote.is_ssh {
            // A socket's path is short (unix(7)), the store's may be long.
            let temporary = std::env::temp_dir();
            let made = tempfile::Builder::new().prefix("kiln-ssh-").tempdir_in(&temporary);
            let folder = made.map_err(FileError::at("make a folder in", &temporary))?;
            let socket = folder.path().join("agent");
            let proxy = self.agents.listen(AGENT, &socket)?.ok_or_else(|| SshError::NotFound(AGENT.into()))?;
            agent = Some(program::Agent { socket, _folder: folder, _proxy: proxy });
        }
        Git::new(remote.shown.clone(), authorization, agent, self.cancel.clone())
    }

    /// Fetches and checks out.
    async fn make(
        &self,
        source: &GitSource,
        remote: &Remote,
        git: &Git,
        resolved: &Resolved,
        vertex: &Vertex,
    ) -> Result<GitTree, GitError> {
        let draft = self.store.snapshots().prepare()?;
        let tree = match source.subdir.is_empty() {
            true => draft.upper().to_path_buf(),
            false => self.store.scratch_dir()?,
        };
        let commit = Commit {
            remote,
            git,
            resolved,
            trusted: remote,
            submodules: source.submodules,
            // Of a part of a repository it would make no sense.
            keep: (source.keep_git_dir && source.subdir.is_empty()).then(|| tree.join(".git")),
            tree: &tree,
            is_submodule: false,
        };
        let time = self.fill(commit, vertex).await?;
        let (store, subdir, times) = (self.store.clone(), source.subdir.clone(), source.commit_times.then_some(time));
        let layer = blocking(move || finish(&store, draft, &tree, &subdir, times)).await?;
        Ok(GitTree { layer, time, commit: resolved.commit().to_string() })
    }

    /// Writes the files of a commit and of its submodules; gives the time of the commit. A future on the heap, since
    /// submodules have submodules.
    fn fill<'a>(
        &'a self,
        commit: Commit<'a>,
        vertex: &'a Vertex,
    ) -> Pin<Box<dyn Future<Output = Result<i64, GitError>> + Send + 'a>> {
        Box::pin(async move {
            let Written { time, links, declared } = match self.write(&commit, vertex).await {
                // What was fetched is not what it was taken for: once more, from nothing.
                Err(GitError::Failed { stderr, .. }) if is_damage(&stderr) => {
                    let object = &commit.resolved.object;
                    Repository::open(commit.git, commit.remote, &self.store, object).await?.discard()?;
                    empty(commit.tree)?;
                    self.write(&commit, vertex).await?
                }
                result => result?,
            };
            for link in links {
                let own = declared.iter().find(|declared| declared.path == link.path);
                let Some(own) = own.filter(|own| !own.url.is_empty()) else {
                    let remote = commit.remote.shown.clone();
                    return Err(GitError::NoSubmoduleUrl { path: link.path, remote });
                };
                if own.is_left_out {
                    continue;
                }
                let filled = self.fill_submodule(&commit, own, &link, vertex).await;
                filled.map_err(|error| match error {
                    GitError::Canceled => GitError::Canceled,
                    error => GitError::Submodule { path: link.path.clone(), source: Box::new(error) },
                })?;
            }
            Ok(time)
        })
    }

    async fn fill_submodule(
        &self,
        parent: &Commit<'_>,
        own: &submodule::Submodule,
        link: &Link,
        vertex: &Vertex,
    ) -> Result<(), GitError> {
        if !is_safe_name(&own.name) {
            return Err(GitError::BadReference(own.name.clone()));
        }
        let remote = Remote::parse(&resolve_url(&own.url, &parent.remote.url)?)?;
        let git = self.git(&remote, parent.trusted)?;
        let resolved = Resolved { object: link.commit.clone(), commit: None, name: None, has_name: false };
        let tree = parent.tree.join(&link.path);
        // git made it when it wrote the files of the commit.
        if !fs::symlink_metadata(&tree).is_ok_and(|meta| meta.is_dir()) {
            return Err(GitError::Subdir { subdir: link.path.clone(), part: link.path.clone() });
        }
        let keep = parent.keep.as_ref().map(|git_dir| git_dir.join("modules").join(&own.name));
        if let Some(parents) = &parent.keep {
            checkout::configure_submodule(&git, parents, &own.name, &remote.shown).await?;
        }
        let commit = Commit {
            remote: &remote,
            git: &git,
            resolved: &resolved,
            trusted: parent.trusted,
            submodules: true,
            keep,
            tree: &tree,
            is_submodule: true,
        };
        self.fill(commit, vertex).await.map(drop)
    }

    /// Writes the files of one commit. The repository is free again afterwards, before submodules ask for theirs.
    async fn write(&self, commit: &Commit<'_>, vertex: &Vertex) -> Result<Written, GitError> {
        let Commit { git, resolved, tree, .. } = *commit;
        let repository = Repository::open(git, commit.remote, &self.store, &resolved.object).await?;
        let hash = repository.ensure(resolved, vertex).await?;
        checkout::files(&repository, git, &hash, tree, &self.store).await?;
        let time = checkout::time(&repository, &hash).await?;
        let (links, declared) = match commit.submodules {
            true => checkout::submodules(&repository, git, &hash).await?,
            false => (vec![], vec![]),
        };
        if let Some(path) = &commit.keep {
            let work_tree = commit.is_submodule.then(|| relative(path, tree));
            let name = resolved.name.as_deref();
            let made = GitDir { path: path.clone(), work_tree, commit: &hash, object: &resolved.object, name };
            checkout::git_dir(&repository, git, &made).await?;
            if commit.is_submodule {
                let link = tree.join(".git");
                let text = format!("gitdir: {}\n", relative(tree, path));
                fs::write(&link, text).map_err(FileError::at("write", &link))?;
            }
        }
        Ok(Written { time, links, declared })
    }
}

/// A commit that is to become files.
struct Commit<'a> {
    remote: &'a Remote,
    git: &'a Git,
    resolved: &'a Resolved,
    /// The repository that the build asked for.
    trusted: &'a Remote,
    /// Submodules are filled.
    submodules: bool,
    /// Where its `.git` folder is made, if it is to be.
    keep: Option<std::path::PathBuf>,
    tree: &'a Path,
    is_submodule: bool,
}

/// A commit that was written.
struct Written {
    time: i64,
    links: Vec<Link>,
    declared: Vec<submodule::Submodule>,
}

/// All that decides what files come of a commit.
fn key(source: &GitSource, remote: &Remote, resolved: &Resolved) -> String {
    let commit = resolved.commit.as_ref().unwrap_or(&resolved.object);
    let mut key = format!("{commit} subdir {:?}", source.subdir);
    if source.keep_git_dir && source.subdir.is_empty() {
        let (object, name) = (&resolved.object, resolved.name.as_deref().unwrap_or_default());
        key.push_str(&format!(" .git of {} {object} {name}", remote.shown));
    }
    if !source.submodules {
        key.push_str(" without submodules");
    } else {
        // Where submodules are may be relative to where this is.
        key.push_str(&format!(" with submodules of {}", remote.url));
    }
    if source.commit_times {
        key.push_str(" commit times");
    }
    CacheKey::of(key.as_bytes()).to_hex()
}

/// Names a checkout by what is in it, so that another commit with the same files is the same to all who use it.
fn finish(store: &Store, draft: Draft, tree: &Path, subdir: &str, times: Option<i64>) -> Result<Layer, GitError> {
    if !subdir.is_empty() {
        let moved = checkout::subdir(tree, subdir, draft.upper());
        store.discard(tree)?;
        moved?;
    }
    checkout::normalise(draft.upper(), times)?;
    let mut change = change_digest(draft.upper())?;
    if let Some(seconds) = times {
        // Otherwise the same files with other times, made before, would be taken for these.
        change = CacheKey::of(format!("{change} at {seconds}").as_bytes()).to_hex();
    }
    let snapshot = SnapshotId(stack(&CacheKey([0; 32]), &change).to_hex());
    store.snapshots().commit(draft, &snapshot)?;
    Ok(layer(snapshot, change))
}

fn layer(snapshot: SnapshotId, change: String) -> Layer {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
    Layer { snapshot, change, created_ms: Some(now), remote: None }
}

fn empty(folder: &Path) -> Result<(), FileError> {
    for entry in fs::read_dir(folder).map_err(FileError::at("list", folder))? {
        let path = entry.map_err(FileError::at("list", folder))?.path();
        let is_dir = fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir());
        let removed = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(FileError::at("remove", &path))?;
    }
    Ok(())
}

/// The way from one folder to another, with `..`; both are absolute and without links.
fn relative(from: &Path, to: &Path) -> String {
    let (from, to): (Vec<_>, Vec<_>) = (from.components().collect(), to.components().collect());
    let common = from.iter().zip(&to).take_while(|(a, b)| a == b).count();
    let up = from[common..].iter().map(|_| "..".to_string());
    let down = to[common..].iter().map(|part| part.as_os_str().to_string_lossy().into_owned());
    up.chain(down).collect::<Vec<_>>().join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_between_folders() {
        let check = |from: &str, to: &str, expect: &str| {
            assert_eq!(relative(Path::new(from), Path::new(to)), expect, "{from} {to}");
        };
        check("/s/lib/a", "/s/.git/modules/lib/a", "../../.git/modules/lib/a");
        check("/s/.git/modules/a", "/s/a", "../../../a");
        check("/s/a", "/s/a/b", "b");
    }

    #[test]
    fn trees_are_remembered_by_what_decides_what_is_in_them() {
        let source = |url: &str| frontend::git_url::GitUrl::parse(url).unwrap().unwrap().source();
        let resolved = |name: &str| Resolved {
            object: "a".repeat(40),
            commit: Some("b".repeat(40)),
            name: Some(name.to_string()),
            has_name: true,
        };
        let key = |url: &str, name: &str| {
            let source = source(url);
            key(&source, &Remote::parse(&source.remote).unwrap(), &resolved(name))
        };
        let plain = key("https://h/x.git", "refs/heads/main");
        assert_eq!(key("https://u:p@h/x.git#other", "refs/heads/other"), plain);
        assert_eq!(key("https://h/x.git?commit=aa&mtime=checkout", "refs/heads/main"), plain);
        for query in ["keep-git-dir=1", "submodules=0", "mtime=commit", "subdir=d"] {
            assert_ne!(key(&format!("https://h/x.git?{query}"), "refs/heads/main"), plain, "{query}");
        }
        assert_ne!(
            key("https://h/x.git?keep-git-dir=1", "refs/heads/main"),
            key("https://h/x.git?keep-git-dir=1", "refs/heads/other")
        );
    }
}
