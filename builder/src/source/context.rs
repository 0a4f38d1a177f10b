//! Local build contexts: a directory of the client seen through its `.dockerignore`. What is told from its first bytes
//! to be an archive is a context too.

use super::dir::{self, Entry, Listing, Meta};
use crate::step::file::looks_like_archive;
use frontend::ignore::Ignore;
use rustix::fs::{Mode, OFlags};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// Why a build context cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ContextError {
    /// There is no such directory.
    #[error("unable to prepare context: path \"{}\" not found", path.display())]
    Missing {
        /// As given.
        path: PathBuf,
    },
    /// It is not a directory.
    #[error("unable to prepare context: path \"{}\" is not a directory", path.display())]
    NotDirectory {
        /// As given.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// What was tried, as it follows "cannot".
        verb: &'static str,
        /// On what.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
}

/// A directory of the client, seen through its `.dockerignore`. Each directory in it is read at most once, when it is
/// first asked for, so that all steps of a build see the same files.
#[derive(Debug)]
pub struct ContextDir {
    path: PathBuf,
    ignore: Ignore,
    root: OwnedFd,
    listed: Mutex<HashMap<Vec<u8>, Listing>>,
}

impl ContextDir {
    /// Opens a directory. Reads nothing below it yet.
    pub fn open(path: &Path, ignore: Ignore) -> Result<ContextDir, ContextError> {
        let root = rustix::fs::open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
        let root = root.map_err(|errno| match errno {
            rustix::io::Errno::NOENT => ContextError::Missing { path: path.to_owned() },
            rustix::io::Errno::NOTDIR => ContextError::NotDirectory { path: path.to_owned() },
            errno => ContextError::Io { verb: "open", path: path.to_owned(), source: errno.into() },
        })?;
        Ok(ContextDir { path: path.to_owned(), ignore, root, listed: Mutex::default() })
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is left out of it.
    pub fn ignore(&self) -> &Ignore {
        &self.ignore
    }

    /// The opened directory, to be read with [`dir`].
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// The entries of a directory that are not left out. `path` is relative to the context and has no links in it.
    pub fn list(&self, path: &[u8]) -> Result<Listing, ContextError> {
        if let Some(listing) = self.listed().get(path) {
            return Ok(listing.clone());
        }
        let entries = dir::list(self.root(), path).map_err(|errno| ContextError::Io {
            verb: "read directory",
            path: self.path.join(OsStr::from_bytes(path)),
            source: errno.into(),
        })?;
        let listing = Arc::new(if self.ignore.is_empty() { entries } else { self.kept(path, entries)? });
        // Two threads may have read it at once; all go on with the same.
        Ok(self.listed().entry(path.to_vec()).or_insert(listing).clone())
    }

    /// Whether a file is left: not excluded, or a directory in which something is left.
    pub fn visible(&self, path: &[u8], meta: &Meta) -> Result<bool, ContextError> {
        if path.is_empty() || self.ignore.is_empty() {
            return Ok(true);
        }
        Ok(!self.ignore.excluded(path) || (meta.is_dir() && self.something_left_in(path)?))
    }

    fn kept(&self, path: &[u8], mut entries: Vec<Entry>) -> Result<Vec<Entry>, ContextError> {
        let mut within = self.ignore.within(path);
        let mut failed = None;
        entries.retain(|entry| {
            if failed.is_some() || !within.excludes(&entry.name) {
                return true;
            }
            if !entry.meta.is_dir() {
                return false;
            }
            self.something_left_in(&dir::join(path, &entry.name)).unwrap_or_else(|error| {
                failed = Some(error);
                true
            })
        });
        entries.shrink_to_fit();
        failed.map_or(Ok(entries), Err)
    }

    /// Whether an exception takes something in below an excluded directory.
    fn something_left_in(&self, dir: &[u8]) -> Result<bool, ContextError> {
        Ok(self.ignore.may_include_below(dir) && !self.list(dir)?.is_empty())
    }

    fn listed(&self) -> std::sync::MutexGuard<'_, HashMap<Vec<u8>, Listing>> {
        self.listed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Finds and reads the ignore file: `<dockerfile>.dockerignore` if there is one, even empty, else `.dockerignore` at
/// the root of the context (reference 6.3). A Dockerfile from standard input or a URL has none of its own. Returns its path
/// and text.
pub fn load_ignore_file(context: &Path, dockerfile: Option<&Path>) -> Result<Option<(PathBuf, String)>, ContextError> {
    let own = dockerfile.map(|dockerfile| {
        let mut own = dockerfile.as_os_str().to_owned();
        own.push(".dockerignore");
        PathBuf::from(own)
    });
    for path in own.into_iter().chain([context.join(".dockerignore")]) {
        match std::fs::read(&path) {
            Ok(bytes) => return Ok(Some((path, String::from_utf8_lossy(&bytes).into_owned()))),
            Err(error) if is_no_file(&error) => {}
            Err(source) => return Err(ContextError::Io { verb: "read", path, source }),
        }
    }
    Ok(None)
}

fn is_no_file(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory)
}

/// Whether what comes on stdin or from a URL, of which `start` are the first 1024 bytes, is a context and not a
/// Dockerfile: compressed by gzip, bzip2, xz, or zstd (which BuildKit does not take), or a valid tar header.
pub fn is_context_archive(start: &[u8]) -> bool {
    looks_like_archive(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dockerfiles_own_ignore_file_comes_first() {
        let temp = tempfile::tempdir().unwrap();
        let (context, dockerfile) = (temp.path().join("c"), temp.path().join("sub/app.Dockerfile"));
        std::fs::create_dir_all(&context).unwrap();
        std::fs::create_dir_all(temp.path().join("sub")).unwrap();
        let text = || load_ignore_file(&context, Some(&dockerfile)).unwrap().map(|(_, text)| text);
        assert_eq!(text(), None);
        // A directory of that name is none.
        std::fs::create_dir(temp.path().join("sub/app.Dockerfile.dockerignore")).unwrap();
        std::fs::write(context.join(".dockerignore"), "a").unwrap();
        assert_eq!(load_ignore_file(&context, None).unwrap().map(|(_, text)| text).as_deref(), Some("a"));
        assert_eq!(text().as_deref(), Some("a"));
        std::fs::remove_dir(temp.path().join("sub/app.Dockerfile.dockerignore")).unwrap();
        std::fs::write(temp.path().join("sub/app.Dockerfile.dockerignore"), "").unwrap();
        assert_eq!(text().as_deref(), Some(""));
    }

    #[test]
    fn what_is_no_directory_is_no_context() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let error = ContextDir::open(temp.path(), Ignore::default()).unwrap_err();
        assert!(matches!(error, ContextError::NotDirectory { .. }), "{error}");
        let error = ContextDir::open(&temp.path().with_extension("gone"), Ignore::default()).unwrap_err();
        assert!(error.to_string().ends_with("not found"), "{error}");
    }

    #[test]
    fn a_tar_is_a_context_and_a_dockerfile_is_not() {
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_path("d/Dockerfile").unwrap();
        header.set_size(5);
        header.set_mode(0o640);
        header.set_cksum();
        builder.append(&header, b"FROM ".as_slice()).unwrap();
        let plain = builder.into_inner().unwrap();
        assert!(is_context_archive(&plain[..1024]));
        assert!(is_context_archive(&[0x1f, 0x8b, 8, 0]));
        assert!(!is_context_archive(b"FROM scratch\nCOPY a /\n"));
        assert!(!is_context_archive(b""));
        assert!(is_context_archive(&zstd::encode_all(plain.as_slice(), 1).unwrap()));
    }
}
