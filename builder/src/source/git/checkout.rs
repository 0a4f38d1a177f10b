//! Commits -> files, the same on every machine: modes are 0644 and 0755, whatever the umask is, owners 0:0.

use super::error::GitError;
use super::program::{Call, Git};
use super::repository::Repository;
use super::submodule::{self, Submodule};
use cache::error::FileError;
use cache::store::Store;
use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::path::{Path, PathBuf};

/// A submodule of a commit, and the commit that it is to be at.
pub(super) struct Link {
    pub path: String,
    pub commit: String,
}

/// Writes the files of a commit below `tree`, an existing empty folder. Submodules are empty folders then.
pub(super) async fn files(
    repository: &Repository<'_>,
    git: &Git,
    commit: &str,
    tree: &Path,
    store: &Store,
) -> Result<(), GitError> {
    let scratch = store.scratch_dir()?;
    let mut call = repository.call(None);
    call.environment.push(("GIT_WORK_TREE", tree.into()));
    call.environment.push(("GIT_INDEX_FILE", scratch.join("index").into()));
    let result = git.run("check out", &["read-tree", "--reset", "-u", "--end-of-options", commit], call).await;
    store.discard(&scratch)?;
    result.map(drop)
}

/// When a commit was made, in seconds since 1970, as its committer said.
pub(super) async fn time(repository: &Repository<'_>, commit: &str) -> Result<i64, GitError> {
    let output = repository.run("read", &["cat-file", "commit", commit]).await?;
    let text = String::from_utf8_lossy(&output);
    let bad = || GitError::Answer {
        verb: "read",
        remote: repository.remote().to_string(),
        answer: text.chars().take(200).collect(),
    };
    let header = text.split("\n\n").next().unwrap_or_default();
    let committer = header.lines().find_map(|line| line.strip_prefix("committer ")).ok_or_else(bad)?;
    let seconds = committer.rsplit_once("> ").and_then(|(_, time)| time.split(' ').next());
    seconds.and_then(|seconds| seconds.parse().ok()).ok_or_else(bad)
}

/// The submodules of a commit, and what .gitmodules says about them.
pub(super) async fn submodules(
    repository: &Repository<'_>,
    git: &Git,
    commit: &str,
) -> Result<(Vec<Link>, Vec<Submodule>), GitError> {
    let mut links = vec![];
    let mut has_gitmodules = false;
    let list = ["ls-tree", "-r", "-z", "--end-of-options", commit];
    git.records("read", &list, repository.call(None), |record| {
        // `mode SP type SP hash TAB path`
        let Some(tab) = record.iter().position(|&byte| byte == b'\t') else { return };
        let (head, path) = (String::from_utf8_lossy(&record[..tab]), &record[tab + 1..]);
        let mut words = head.split(' ');
        match (words.next(), words.nth(1)) {
            (Some("160000"), Some(commit)) => {
                links.push(Link { path: String::from_utf8_lossy(path).into_owned(), commit: commit.to_string() });
            }
            // A link would be followed to a file of this machine.
            (Some("100644" | "100755"), _) if path == b".gitmodules" => has_gitmodules = true,
            _ => {}
        }
    })
    .await?;
    if links.is_empty() || !has_gitmodules {
        return Ok((links, vec![]));
    }
    let mut records: Vec<Vec<u8>> = vec![];
    let blob = format!("--blob={commit}:.gitmodules");
    let list = ["config", "--no-includes", &blob, "--list", "-z"];
    git.records("read .gitmodules of", &list, repository.call(None), |record| records.push(record.to_vec())).await?;
    Ok((links, submodule::read(&records)))
}

/// What a `.git` folder is made of.
pub(super) struct GitDir<'a> {
    /// Where it is made.
    pub path: PathBuf,
    /// The work tree as it is written in the folder's configuration, if that is not simply the folder above.
    pub work_tree: Option<String>,
    pub commit: &'a str,
    /// A tag object to be kept with its commit.
    pub object: &'a str,
    /// Full name of what was checked out.
    pub name: Option<&'a str>,
}

/// Makes a `.git` folder with one commit, whose HEAD is that commit: what `git clone --depth=1` makes, without secrets
/// and without what differs from one machine to the next.
pub(super) async fn git_dir(repository: &Repository<'_>, git: &Git, made: &GitDir<'_>) -> Result<(), GitError> {
    let path = made.path.to_string_lossy();
    let format = if made.commit.len() == 64 { "--object-format=sha256" } else { "--object-format=sha1" };
    fs::create_dir_all(&made.path).map_err(FileError::at("make the folder", &made.path))?;
    // Bare at first, so that git looks for no work tree.
    git.run("init", &["init", "--quiet", "--bare", "--template=", format, &path], Call::default()).await?;
    let call = |local: bool| {
        let mut environment = vec![("GIT_DIR", OsString::from(&made.path))];
        if local {
            environment.push(("GIT_ALLOW_PROTOCOL", "file".into()));
        }
        Call { environment, ..Call::default() }
    };
    let source = format!("file://{}", repository.path().display());
    let fetch = ["fetch", "--quiet", "--depth=1", "--no-tags", "--no-write-fetch-head", "--", &source, made.object];
    git.run("copy", &fetch, call(true)).await?;
    let remote = repository.remote();
    let config: [(&str, &str); 3] = [
        ("remote.origin.url", remote),
        ("remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*"),
        ("core.bare", "false"),
    ];
    let work_tree = made.work_tree.as_deref().map(|work_tree| ("core.worktree", work_tree));
    for (key, value) in config.into_iter().chain(work_tree) {
        git.run("configure", &["config", key, value], call(false)).await?;
    }
    if let Some(name) = made.name.filter(|name| name.starts_with("refs/")) {
        git.run("name", &["update-ref", name, made.object], call(false)).await?;
    }
    git.run("name", &["update-ref", "--no-deref", "HEAD", made.commit], call(false)).await?;
    // Without times and inodes of files, which differ and which nobody's copy would have.
    let mut index = call(false);
    index.environment.push(("GIT_INDEX_FILE", made.path.join("index").into()));
    git.run("index", &["read-tree", "--end-of-options", made.commit], index).await?;
    Ok(())
}

/// Makes a submodule known to the `.git` folder of the repository that has it.
pub(super) async fn configure_submodule(git: &Git, git_dir: &Path, name: &str, url: &str) -> Result<(), GitError> {
    for (variable, value) in [("active", "true"), ("url", url)] {
        let call = Call { environment: vec![("GIT_DIR", git_dir.into())], ..Call::default() };
        git.run("configure", &["config", &format!("submodule.{name}.{variable}"), value], call).await?;
    }
    Ok(())
}

/// Makes a subdirectory the root: moves what it holds from `tree` to the empty folder `root`. Links are not followed.
pub(super) fn subdir(tree: &Path, subdir: &str, root: &Path) -> Result<(), GitError> {
    let mut path = tree.to_path_buf();
    let mut part = String::new();
    for name in subdir.split('/') {
        path.push(name);
        part = if part.is_empty() { name.to_string() } else { format!("{part}/{name}") };
        if !fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_dir()) {
            return Err(GitError::Subdir { subdir: subdir.to_string(), part });
        }
    }
    for entry in fs::read_dir(&path).map_err(FileError::at("list", &path))? {
        let entry = entry.map_err(FileError::at("list", &path))?;
        fs::rename(entry.path(), root.join(entry.file_name())).map_err(FileError::at("move", entry.path()))?;
    }
    Ok(())
}

/// Gives all below `root` the modes and owners that files from git have, and the time, if there is one.
pub(super) fn normalise(root: &Path, time: Option<i64>) -> Result<(), FileError> {
    let mut folders = vec![root.to_path_buf()];
    let mut next = 0;
    while let Some(folder) = folders.get(next).cloned() {
        next += 1;
        for entry in fs::read_dir(&folder).map_err(FileError::at("list", &folder))? {
            let path = entry.map_err(FileError::at("list", &folder))?.path();
            let meta = fs::symlink_metadata(&path).map_err(FileError::at("look at", &path))?;
            if (meta.uid(), meta.gid()) != (0, 0) {
                lchown(&path, Some(0), Some(0)).map_err(FileError::at("change the owner of", &path))?;
            }
            if meta.is_dir() {
                folders.push(path);
                continue;
            }
            if !meta.is_symlink() {
                set_mode(&path, meta.mode(), if meta.mode() & 0o100 != 0 { 0o755 } else { 0o644 })?;
            }
            set_time(&path, time)?;
        }
    }
    // Deepest first: an entry that is made or removed changes the time of its folder.
    for folder in folders.iter().rev() {
        let meta = fs::symlink_metadata(folder).map_err(FileError::at("look at", folder))?;
        set_mode(folder, meta.mode(), 0o755)?;
        set_time(folder, time)?;
    }
    Ok(())
}

fn set_mode(path: &Path, is: u32, wanted: u32) -> Result<(), FileError> {
    // git writes what it never changes without write permission.
    let wanted = if is & 0o200 == 0 { wanted & !0o222 } else { wanted };
    if is & 0o7777 == wanted {
        return Ok(());
    }
    fs::set_permissions(path, Permissions::from_mode(wanted)).map_err(FileError::at("change the mode of", path))
}

fn set_time(path: &Path, time: Option<i64>) -> Result<(), FileError> {
    let Some(seconds) = time else { return Ok(()) };
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 },
        last_modification: rustix::fs::Timespec { tv_sec: seconds, tv_nsec: 0 },
    };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, flags).map_err(FileError::at("set the time of", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn modes_and_times() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("d/e")).unwrap();
        for (name, mode) in [("a", 0o600), ("b", 0o700), ("d/c", 0o664), ("d/e/ro", 0o400)] {
            fs::write(root.join(name), "x").unwrap();
            fs::set_permissions(root.join(name), Permissions::from_mode(mode)).unwrap();
        }
        fs::set_permissions(root.join("d"), Permissions::from_mode(0o2770)).unwrap();
        symlink("/nowhere", root.join("link")).unwrap();
        if !rustix::process::geteuid().is_root() {
            return;
        }
        normalise(root, Some(7)).unwrap();
        let check = |name: &str, mode: u32| {
            let meta = fs::symlink_metadata(root.join(name)).unwrap();
            assert_eq!((meta.mode() & 0o7777, meta.mtime()), (mode, 7), "{name}");
        };
        for (name, mode) in
            [("a", 0o644), ("b", 0o755), ("d/c", 0o644), ("d/e/ro", 0o444), ("d", 0o755), ("d/e", 0o755)]
        {
            check(name, mode);
        }
        check("link", 0o777);
    }

    #[test]
    fn subdirectories_are_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, root) = (dir.path().join("tree"), dir.path().join("root"));
        fs::create_dir_all(tree.join("a/b")).unwrap();
        fs::create_dir(&root).unwrap();
        fs::write(tree.join("a/b/f"), "F").unwrap();
        symlink("a", tree.join("link")).unwrap();
        let part = |path: &str| match subdir(&tree, path, &root) {
            Err(GitError::Subdir { part, .. }) => part,
            other => panic!("{other:?}"),
        };
        assert_eq!((part("link/b"), part("a/x/y"), part("a/b/f")), ("link".into(), "a/x".into(), "a/b/f".into()));
        subdir(&tree, "a/b", &root).unwrap();
        assert_eq!(fs::read_to_string(root.join("f")).unwrap(), "F");
    }
}
