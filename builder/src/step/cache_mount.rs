//! Directories of `RUN --mount=type=cache` (reference/engine.md 3.7): who gets which, and how a new one begins.
//!
//! Below the root of all cache mounts, `<key>/<n>/tree` is the directory and `<key>/<n>/lock` is locked, shared or
//! exclusive, by the steps that use it: the kernel frees the locks of a killed program. The time of `lock` is that of
//! the last use. `<key>/about` says in JSON what it is.

use crate::remote_cache::mounts::MountTravel;
use crate::sandbox::SandboxError;
use cache::owners::is_refusal;
use frontend::op::Sharing;
use rustix::fs::FlockOperation;
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use solver::key::hex;
use std::collections::HashSet;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time between two attempts to get a locked one.
const POLL: Duration = Duration::from_millis(100);

/// Which cache, and how a new one begins.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(super) struct CacheIdentity<'a> {
    pub id: &'a str,
    /// Content id of what it begins with; empty for an empty directory.
    pub from: &'a str,
    /// Path in that.
    pub source: &'a str,
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// Which cache mounts a build with `--no-cache` has begun anew: each once, so that its steps still share them.
#[derive(Debug, Default)]
pub struct BegunAnew(Mutex<HashSet<PathBuf>>);

impl BegunAnew {
    /// Whether this is the first time that the build asks for it.
    fn is_first(&self, tree: &Path) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(tree.to_path_buf())
    }
}

/// A directory in use, until dropped.
#[derive(Debug)]
pub(super) struct CacheMount {
    /// What is mounted.
    pub tree: PathBuf,
    _lock: File,
}

impl CacheMount {
    /// Whether it is a directory of that cache.
    pub(super) fn is_of(&self, root: &Path, key: &CacheIdentity<'_>) -> bool {
        folder_of(root, key).is_ok_and(|(folder, _)| self.tree.starts_with(folder))
    }
}

/// Gets the directory of `key` under `root`, waiting where `sharing` says so. `seed` fills a new one, unless another machine's
/// contents come by `travel`. With `anew`, what earlier builds left in it is thrown away.
pub(super) async fn acquire(
    root: &Path,
    key: &CacheIdentity<'_>,
    sharing: Sharing,
    anew: Option<&BegunAnew>,
    travel: &MountTravel,
    seed: impl Fn(&Path) -> Result<(), SandboxError>,
) -> Result<CacheMount, SandboxError> {
    let (folder, about) = folder_of(root, key)?;
    let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    // Before the lock: fetching takes long, and others may be waiting to use what is there.
    let arrived = match anew.is_none() && !folder.join("0/tree").exists() {
        true => travel.fetch(&name).await,
        false => None,
    };
    let mut number = 0;
    let lock = loop {
        let place = folder.join(number.to_string());
        let operation = match sharing {
            Sharing::Shared => FlockOperation::NonBlockingLockShared,
            Sharing::Private | Sharing::Locked => FlockOperation::NonBlockingLockExclusive,
        };
        match try_lock(&place, operation)? {
            Some(lock) => break lock,
            None if sharing == Sharing::Private => number += 1,
            None => tokio::time::sleep(POLL).await,
        }
    };
    // Only now, since whoever prunes removes folders in which nobody holds a lock.
    let about_path = folder.join("about");
    if !about_path.exists() {
        write_aside(&about_path, &about)?;
    }
    let place = folder.join(number.to_string());
    let tree = place.join("tree");
    if tree.exists() && anew.is_some_and(|begun| begun.is_first(&tree)) {
        throw_away(&place, &tree)?;
    }
    if !tree.exists() {
        begin(&place, &tree, key, |new| match &arrived {
            Some(arrived) if number == 0 && arrived.unpack(new) => Ok(()),
            _ => seed(new),
        })?;
    }
    if number == 0 {
        travel.note(&name, &place);
    }
    // Best effort: it only orders what is thrown away first.
    let _ = lock.set_modified(std::time::SystemTime::now());
    Ok(CacheMount { tree, _lock: lock })
}

/// Where the directories of a cache are, and what is said about it.
fn folder_of(root: &Path, key: &CacheIdentity<'_>) -> Result<(PathBuf, Vec<u8>), SandboxError> {
    let about = serde_json::to_vec(key).map_err(SandboxError::path("describe the cache mount at", root))?;
    Ok((root.join(hex(&Sha256::digest(&about))), about))
}

/// Moves the directory aside first: a step of another build may be using it, and goes on doing so.
fn throw_away(place: &Path, tree: &Path) -> Result<(), SandboxError> {
    let aside = tempfile::Builder::new()
        .prefix("old-")
        .tempdir_in(place)
        .map_err(SandboxError::path("create a folder in", place))?;
    fs::rename(tree, aside.path().join("tree")).map_err(SandboxError::path("move aside", tree))?;
    aside.close().map_err(SandboxError::path("remove the old content of", tree))
}

/// `None`: somebody else has it.
fn try_lock(place: &Path, operation: FlockOperation) -> Result<Option<File>, SandboxError> {
    let path = place.join("lock");
    loop {
        fs::create_dir_all(place).map_err(SandboxError::path("create", place))?;
        let lock = match File::options().create(true).truncate(false).write(true).open(&path) {
            // Pruned in between.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            result => result.map_err(SandboxError::path("open", &path))?,
        };
        match rustix::fs::flock(&lock, operation) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            result => result.map_err(SandboxError::path("lock", &path))?,
        }
        // Whoever prunes takes the lock, too, and removes the file: then we hold a lock that nobody else sees.
        let same = |there: fs::Metadata, here: fs::Metadata| (there.dev(), there.ino()) == (here.dev(), here.ino());
        if let (Ok(there), Ok(here)) = (fs::metadata(&path), lock.metadata())
            && same(there, here)
        {
            return Ok(Some(lock));
        }
    }
}

/// Makes a new directory aside and moves it in: two that share it may both do so, and one wins.
fn begin(
    place: &Path,
    tree: &Path,
    key: &CacheIdentity<'_>,
    seed: impl Fn(&Path) -> Result<(), SandboxError>,
) -> Result<(), SandboxError> {
    let aside = tempfile::Builder::new()
        .prefix("new-")
        .tempdir_in(place)
        .map_err(SandboxError::path("create a folder in", place))?;
    let new = aside.path().join("tree");
    fs::create_dir(&new).map_err(SandboxError::path("create", &new))?;
    let error = |verb| SandboxError::path(verb, &new);
    fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).map_err(error("set the mode of"))?;
    seed(&new)?;
    if key.uid.is_some() || key.gid.is_some() {
        match std::os::unix::fs::chown(&new, key.uid.or(Some(0)), key.gid.or(Some(0))) {
            // With one id all that runs has it, and may write whoever the cache was meant for.
            Err(refused) if Errno::from_io_error(&refused).is_some_and(is_refusal) => {}
            result => result.map_err(error("set the owner of"))?,
        }
    }
    if let Some(mode) = key.mode {
        fs::set_permissions(&new, PermissionsExt::from_mode(mode & 0o7777)).map_err(error("set the mode of"))?;
    }
    match fs::rename(&new, tree) {
        Err(_) if tree.exists() => Ok(()),
        result => result.map_err(SandboxError::path("rename to", tree)),
    }
}

fn write_aside(path: &Path, content: &[u8]) -> Result<(), SandboxError> {
    let folder = path.parent().unwrap_or(path);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(SandboxError::path("create a file in", folder))?;
    std::io::Write::write_all(&mut file, content).map_err(SandboxError::path("write", path))?;
    file.persist(path).map(drop).map_err(|error| SandboxError::path("rename to", path)(error.error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(id: &str) -> CacheIdentity<'_> {
        CacheIdentity { id, from: "", source: "", mode: None, uid: None, gid: None }
    }

    #[tokio::test]
    async fn sharing() {
        let (dir, travel) = (tempfile::tempdir().unwrap(), MountTravel::default());
        let get = |sharing| {
            acquire(
                dir.path(),
                const { &CacheIdentity { id: "a", from: "", source: "", mode: None, uid: None, gid: None } },
                sharing,
                None,
                &travel,
                |_| Ok(()),
            )
        };
        let first = get(Sharing::Shared).await.unwrap();
        let second = get(Sharing::Shared).await.unwrap();
        assert_eq!(first.tree, second.tree);
        let private = get(Sharing::Private).await.unwrap();
        assert_ne!(first.tree, private.tree);
        let waiting = tokio::time::timeout(Duration::from_millis(1), get(Sharing::Locked));
        assert!(waiting.await.is_err());
        let tree = first.tree.clone();
        drop((first, second));
        let locked = get(Sharing::Locked).await.unwrap();
        assert_eq!(locked.tree, tree);
    }

    #[tokio::test]
    async fn begins_once() {
        let dir = tempfile::tempdir().unwrap();
        let seed = |tree: &Path| fs::write(tree.join("f"), "warm").map_err(SandboxError::path("write", tree));
        let mount = acquire(dir.path(), &key("a"), Sharing::Shared, None, &MountTravel::default(), seed).await.unwrap();
        assert_eq!(mount.tree.metadata().unwrap().mode() & 0o7777, 0o755);
        fs::write(mount.tree.join("f"), "used").unwrap();
        drop(mount);
        let again = acquire(dir.path(), &key("a"), Sharing::Shared, None, &MountTravel::default(), seed).await.unwrap();
        assert_eq!(fs::read_to_string(again.tree.join("f")).unwrap(), "used");
        let begun = BegunAnew::default();
        for expect in ["warm", "used"] {
            let mount = acquire(dir.path(), &key("a"), Sharing::Shared, Some(&begun), &MountTravel::default(), seed)
                .await
                .unwrap();
            assert_eq!(fs::read_to_string(mount.tree.join("f")).unwrap(), expect, "thrown away once a build");
            fs::write(mount.tree.join("f"), "used").unwrap();
        }
        let moded = CacheIdentity { mode: Some(0o1777), ..key("a") };
        let other =
            acquire(dir.path(), &moded, Sharing::Shared, None, &MountTravel::default(), |_| Ok(())).await.unwrap();
        assert_eq!(other.tree.metadata().unwrap().mode() & 0o7777, 0o1777);
        assert!(!other.tree.join("f").exists());
    }
}
