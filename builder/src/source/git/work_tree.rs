//! A folder of this machine -> the git work tree that it is in: which commit is checked out, and where it came from. `.git`
//! is read as files, which takes no git and runs nothing that the repository's configuration names; the program git is
//! asked only for what cannot be read so: refs in a reftable, and whether files differ from the commit.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Of a file that is read whole: a ref, a configuration.
const FILE_LIMIT: u64 = 4 << 20;
/// Refs that name refs, as many as git follows.
const SYMREFS: usize = 5;
/// What HEAD names where refs are in a reftable (git's reftable.adoc).
const REFTABLE_HEAD: &str = "refs/heads/.invalid";

/// A work tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkTree {
    /// The folder that has `.git`, without symbolic links.
    pub root: PathBuf,
    /// Hash of the commit that is checked out; `None` before the first.
    pub commit: Option<String>,
    /// As configured for the branch's remote, or else for `origin` or `upstream`, with passwords.
    pub remote_url: Option<String>,
}

/// A work tree that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum WorkTreeError {
    #[error("could not read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is no git repository", .0.display())]
    NotARepository(PathBuf),
    #[error("could not run git {arguments} in {}", folder.display())]
    Run { arguments: String, folder: PathBuf, source: io::Error },
    #[error("git {arguments} failed in {}: {said}", folder.display())]
    Failed { arguments: String, folder: PathBuf, said: String },
}

/// The work tree that a folder is in, if it is in one. As git does, this goes up to the root of the folder's file system.
pub fn find(folder: &Path) -> Result<Option<WorkTree>, WorkTreeError> {
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| WorkTreeError::Read { path, source }
    };
    let folder = folder.canonicalize().map_err(failed(folder))?;
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).map_err(failed(path));
    let own = device(&folder)?;
    for root in folder.ancestors() {
        if device(root)? != own {
            return Ok(None);
        }
        let dot_git = root.join(".git");
        let own_dir = match dot_git.symlink_metadata() {
            Err(_) => continue,
            Ok(meta) if meta.is_file() => linked(root, &read(&dot_git)?.unwrap_or_default(), &dot_git)?,
            Ok(_) => dot_git,
        };
        return read_tree(root, &own_dir).map(Some);
    }
    Ok(None)
}

/// Where a file `.git` says that the repository is: of a submodule, or of a further work tree.
fn linked(root: &Path, text: &str, dot_git: &Path) -> Result<PathBuf, WorkTreeError> {
    match text.strip_prefix("gitdir:") {
        Some(path) => Ok(root.join(path.trim())),
        None => Err(WorkTreeError::NotARepository(dot_git.to_path_buf())),
    }
}

fn read_tree(root: &Path, own_dir: &Path) -> Result<WorkTree, WorkTreeError> {
    let Some(head) = read(&own_dir.join("HEAD"))? else {
        return Err(WorkTreeError::NotARepository(own_dir.to_path_buf()));
    };
    // A further work tree has a HEAD of its own, and all else where the first one has it.
    let common_dir = match read(&own_dir.join("commondir"))? {
        Some(path) => own_dir.join(path.trim()),
        None => own_dir.to_path_buf(),
    };
    let mut branch = head.trim().strip_prefix("ref: refs/heads/").map(str::to_string);
    let commit = match head.trim().strip_prefix("ref:").map(str::trim) {
        Some(REFTABLE_HEAD) => {
            branch = ask(root, &["symbolic-ref", "--quiet", "--short", "HEAD"]).ok();
            match ask(root, &["rev-parse", "--verify", "--quiet", "HEAD"]) {
                Ok(hash) => Some(hash).filter(|hash| is_hash(hash)),
                // Before the first commit it fails and says nothing.
                Err(WorkTreeError::Failed { said, .. }) if said.is_empty() => None,
                Err(error) => return Err(error),
            }
        }
        _ => resolve(head.trim(), own_dir, &common_dir, SYMREFS)?,
    };
    let config = read(&common_dir.join("config"))?.unwrap_or_default();
    let settings = settings(&config);
    let value = |section: &str, name: &str, key: &str| {
        let found = settings.iter().find(|setting| {
            (setting.section.as_str(), setting.name.as_str(), setting.key.as_str()) == (section, name, key)
        });
        found.map(|setting| setting.value.clone()).filter(|value| !value.is_empty())
    };
    let of_branch = branch.and_then(|branch| value("branch", &branch, "remote"));
    let remotes = of_branch.into_iter().chain(["origin".to_string(), "upstream".to_string()]);
    let remote_url = remotes.filter_map(|remote| value("remote", &remote, "url")).next();
    Ok(WorkTree { root: root.to_path_buf(), commit, remote_url })
}

/// The hash that the content of a ref stands for. Refs of a work tree are its own, branches are common.
fn resolve(text: &str, own_dir: &Path, common_dir: &Path, depth: usize) -> Result<Option<String>, WorkTreeError> {
    let Some(name) = text.strip_prefix("ref:").map(str::trim) else {
        return Ok(Some(text.to_string()).filter(|hash| is_hash(hash)));
    };
    // Names of refs are checked by git; here they must not leave the repository.
    let is_plain = !name.split('/').any(|part| matches!(part, "" | "." | ".."));
    if depth == 0 || !is_plain {
        return Ok(None);
    }
    for folder in [own_dir, common_dir] {
        if let Some(text) = read(&folder.join(name))? {
            return resolve(text.trim(), own_dir, common_dir, depth - 1);
        }
    }
    packed(&common_dir.join("packed-refs"), name)
}

/// Looks for a ref among many: `HASH NAME` on a line (git-pack-refs(1)).
fn packed(path: &Path, name: &str) -> Result<Option<String>, WorkTreeError> {
    let failed = |source| WorkTreeError::Read { path: path.to_path_buf(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    for line in BufReader::new(file).split(b'\n') {
        let line = line.map_err(failed)?;
        if let Some((hash, found)) = String::from_utf8_lossy(&line).split_once(' ')
            && found.trim_end() == name
            && is_hash(hash)
        {
            return Ok(Some(hash.to_string()));
        }
    }
    Ok(None)
}

/// Of SHA-1 or SHA-256.
fn is_hash(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A small file; `None` if there is none.
fn read(path: &Path) -> Result<Option<String>, WorkTreeError> {
    let read = || -> io::Result<String> {
        let mut bytes = vec![];
        if !fs::metadata(path)?.is_file() {
            return Err(io::ErrorKind::NotFound.into());
        }
        File::open(path)?.take(FILE_LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    match read() {
        Ok(text) => Ok(Some(text)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(source) => Err(WorkTreeError::Read { path: path.to_path_buf(), source }),
    }
}

impl WorkTree {
    /// Whether git sees files that the commit does not have as they are, ignored ones too, as docker buildx asks it.
    pub fn is_dirty(&self) -> Result<bool, WorkTreeError> {
        Ok(!ask(&self.root, &["status", "--porcelain", "--ignored"])?.is_empty())
    }

    /// The way from the root to a folder or file in the tree; `.` for the root itself.
    pub fn relative(&self, path: &Path) -> Option<String> {
        let path = fs::canonicalize(path).ok()?;
        let relative = path.strip_prefix(&self.root).ok()?;
        Some(if relative == Path::new("") { ".".into() } else { relative.to_string_lossy().into_owned() })
    }
}

/// Runs git in a folder, configured as the user's is, which says whose repositories are trusted; gives what it prints.
fn ask(folder: &Path, arguments: &[&str]) -> Result<String, WorkTreeError> {
    let (folder_said, said) = (folder.to_path_buf(), arguments.join(" "));
    let output = Command::new("git")
        .args(["-c", "core.fsmonitor=false"])
        .args(arguments.iter().map(OsStr::new))
        .current_dir(folder)
        // A status is not worth waiting for others, or writing an index.
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| WorkTreeError::Run { arguments: said.clone(), folder: folder_said.clone(), source })?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or_default().to_string();
        return Err(WorkTreeError::Failed { arguments: said, folder: folder_said, said: stderr });
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// A line of git's configuration.
struct Setting {
    /// In lower case.
    section: String,
    name: String,
    /// In lower case.
    key: String,
    value: String,
}

/// Reads a configuration (git-config(1), CONFIGURATION FILE). Includes are not followed.
fn settings(text: &str) -> Vec<Setting> {
    let (mut section, mut name, mut settings) = (String::new(), String::new(), vec![]);
    let joined = text.replace("\\\r\n", "").replace("\\\n", "");
    for line in joined.lines() {
        let mut line = line.trim();
        if let Some(rest) = line.strip_prefix('[') {
            let Some(end) = header_end(rest) else { continue };
            let header = &rest[..end];
            (section, name) = match header.split_once('"') {
                Some((section, name)) => (section.trim().to_lowercase(), unescaped(name.trim_end_matches('"'))),
                None => (header.trim().to_lowercase(), String::new()),
            };
            line = rest[end + 1..].trim();
        }
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        let (key, text) = line.split_once('=').unwrap_or((line, ""));
        let (key, value) = (key.trim().to_lowercase(), value(text.trim()));
        settings.push(Setting { section: section.clone(), name: name.clone(), key, value });
    }
    settings
}

/// For `properties.rs`: reads a configuration, and no part of a value is more than was written.
pub fn read_settings(text: &str) {
    let of = |setting: &Setting| setting.section.len() + setting.name.len() + setting.key.len() + setting.value.len();
    // Lower case may take more bytes.
    assert!(settings(text).iter().all(|setting| of(setting) <= 3 * text.len()));
}

/// Where the header of a section ends: at a bracket outside of quotes.
fn header_end(text: &str) -> Option<usize> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => is_quoted = !is_quoted,
            ']' if !is_quoted => return Some(at),
            _ => {}
        }
    }
    None
}

fn unescaped(text: &str) -> String {
    let mut letters = text.chars();
    let mut plain = String::new();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' { letters.next() } else { Some(letter) });
    }
    plain
}

/// A value without quotes, escapes, and the comment after it.
fn value(text: &str) -> String {
    let (mut plain, mut kept, mut is_quoted) = (String::new(), 0, false);
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '"' => is_quoted = !is_quoted,
            '#' | ';' if !is_quoted => break,
            '\\' => plain.extend(letters.next().map(|letter| match letter {
                'n' => '\n',
                't' => '\t',
                other => other,
            })),
            other => plain.push(other),
        }
        // Blanks before a comment are none of the value.
        if is_quoted || !letter.is_whitespace() {
            kept = plain.len();
        }
    }
    plain.truncate(kept);
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "0123456789abcdef0123456789abcdef01234567";

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        dir
    }

    fn check(files: &[(&str, &str)], folder: &str, commit: Option<&str>, url: Option<&str>) {
        let dir = tree(files);
        let found = find(&dir.path().join(folder)).unwrap().unwrap();
        assert_eq!((found.commit.as_deref(), found.remote_url.as_deref()), (commit, url), "{files:?}");
    }

    #[test]
    fn the_commit_is_where_git_has_it() {
        let head = (".git/HEAD", "ref: refs/heads/a/b\n");
        let packed = format!("# pack-refs with: peeled\n{} refs/heads/a\n{HASH} refs/heads/a/b\n^x\n", "1".repeat(40));
        check(&[(".git/HEAD", HASH), ("x/y", "")], "x", Some(HASH), None);
        check(&[head, (".git/refs/heads/a/b", HASH)], ".", Some(HASH), None);
        check(&[head, (".git/packed-refs", &packed)], ".", Some(HASH), None);
        check(
            &[head, (".git/refs/heads/a/b", "ref: refs/heads/c"), (".git/refs/heads/c", HASH)],
            ".",
            Some(HASH),
            None,
        );
        check(&[head], ".", None, None);
        check(&[head, (".git/refs/heads/a/b", "ref: refs/heads/a/b")], ".", None, None);
        check(&[(".git/HEAD", "ref: ../../secret"), ("secret", HASH)], ".", None, None);
        // A submodule, and a further work tree.
        let elsewhere = ("sub/.git", "gitdir: ../.git/modules/sub\n");
        check(&[elsewhere, (".git/modules/sub/HEAD", HASH)], "sub", Some(HASH), None);
        let own = [("w/.git", "gitdir: ../.git/worktrees/w"), (".git/worktrees/w/HEAD", "ref: refs/heads/w")];
        let common = [(".git/worktrees/w/commondir", "../..\n"), (".git/refs/heads/w", HASH)];
        check(&[own[0], own[1], common[0], common[1]], "w", Some(HASH), None);
    }

    #[test]
    fn the_remote_is_the_branchs_or_a_usual_one() {
        let remote = |name: &str| format!("[remote \"{name}\"]\n\turl = https://example.org/{name}\n");
        let (origin, other) = (remote("origin"), remote("other"));
        let of = |config: &str, url: Option<&str>| {
            check(&[(".git/HEAD", "ref: refs/heads/main"), (".git/config", config)], ".", None, url)
        };
        of(&format!("{other}{origin}"), Some("https://example.org/origin"));
        of(&remote("upstream"), Some("https://example.org/upstream"));
        of(&format!("{origin}{other}[branch \"main\"]\nremote=other\n"), Some("https://example.org/other"));
        // Of the branch's remote there is no URL: it is this repository.
        of(&format!("{origin}[Branch \"main\"] Remote = .\n"), Some("https://example.org/origin"));
        of(&other, None);
        of("[remote \"origin\"]\nurl = \"a b#c\" ; comment\n", Some("a b#c"));
        of("[remote \"origin\"]\nurl = https://\\\nx\n", Some("https://x"));
        of("[remote \"origin\"] # ]\n url = x # y\n[remote \"a]\"]\nurl = z\n", Some("x"));
    }

    #[test]
    fn what_is_no_repository_is_said_and_what_has_none_is_none() {
        assert!(matches!(find(tree(&[(".git/x", "")]).path()), Err(WorkTreeError::NotARepository(_))));
        assert!(matches!(find(tree(&[(".git", "hello")]).path()), Err(WorkTreeError::NotARepository(_))));
        // The folder for temporary files is in no work tree.
        assert_eq!(find(tree(&[]).path()).unwrap(), None);
    }
}
