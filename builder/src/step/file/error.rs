//! What can go wrong when files are selected, digested and copied.

use crate::source::context::ContextError;
use std::io;
use std::path::{Path, PathBuf};

/// Why a COPY, ADD or WORKDIR, or the digest of what it selects, failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A named source is not there.
    #[error("failed to compute cache key: failed to calculate checksum of {}: \"/{}\": not found", missing.label, missing.path)]
    NotFound {
        /// What is missing, and what is known about why.
        missing: Box<Missing>,
    },
    /// The symbolic links of a path lead to one another.
    #[error("too many symbolic links in `{path}`")]
    SymlinkLoop {
        /// The path, below its root.
        path: String,
    },
    /// A pattern that cannot be used, such as `[a`.
    #[error("`{pattern}`: syntax error in pattern")]
    BadPattern {
        /// As written.
        pattern: String,
    },
    /// A directory is to be where something else is.
    #[error("cannot copy to non-directory: {path}")]
    NotDirectory {
        /// The path in the destination.
        path: String,
    },
    /// A file is to be where a directory is.
    #[error("cannot replace to directory {path} with file")]
    ReplaceDirectory {
        /// The path in the destination.
        path: String,
    },
    /// Names of users and groups cannot be looked up with `--link`.
    #[error(
        "invalid user index: -1: `--chown` names {name:?}, but `--link` copies without the stage's /etc/passwd and /etc/group"
    )]
    NamedOwnerWithLink {
        /// The user or group.
        name: String,
    },
    /// A `--chmod` that the frontend let pass.
    #[error("invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777")]
    BadChmod {
        /// As written.
        mode: String,
    },
    /// An archive breaks off, or what follows its first header is no archive.
    #[error("cannot unpack `{archive}`")]
    Archive {
        /// Path of the archive in its source.
        archive: String,
        /// What is wrong with it.
        source: io::Error,
    },
    /// A hard link of an archive to a file that is not there.
    #[error("cannot unpack `{archive}`: `{member}` is a hard link to `{target}`, which does not exist")]
    DanglingLink {
        /// Path of the archive in its source.
        archive: String,
        /// The member.
        member: String,
        /// What it links to.
        target: String,
    },
    /// A file that names are looked up in is something else.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// In the tree that is changed.
        path: String,
    },
    /// A file of the client is not what it was when the step's key was made.
    #[error("`{path}` changed during the build")]
    Changed {
        /// Below the build context.
        path: String,
    },
    /// The vertex has fewer inputs than its op names.
    #[error("the step names input {index}, but has {count}")]
    NoInput {
        /// The index.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The layers could not be stacked to be read.
    #[error("cannot look into the {} layers of the file system", layers)]
    View {
        /// How many.
        layers: usize,
        /// What the kernel says.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The build context could not be read.
    #[error(transparent)]
    Context(#[from] ContextError),
    /// A system call failed.
    #[error("cannot {verb} `{}`", path.display())]
    Io {
        /// What was tried, as it follows "cannot".
        verb: &'static str,
        /// On what; in trees of the store, below their root.
        path: PathBuf,
        /// The errno.
        source: io::Error,
    },
}

/// A source that is not there.
#[derive(Debug, Default)]
pub struct Missing {
    /// Where it was looked for, such as `the build context`.
    pub label: String,
    /// As looked for: cleaned, without leading slash.
    pub path: String,
    /// As written in the Dockerfile.
    pub written: String,
    /// Names beside it that look alike; paths from the root, without leading slash.
    pub near: Vec<String>,
    /// Line, from 1, and pattern of the `.dockerignore` that keeps it out although it exists.
    pub ignored: Option<(usize, String)>,
    /// `..` led above the root and was dropped.
    pub clamped: bool,
}

impl From<cache::FileError> for FileError {
    fn from(cache::FileError { verb, path, source }: cache::FileError) -> FileError {
        FileError::Io { verb, path, source }
    }
}

impl FileError {
    /// For `map_err`: `.map_err(FileError::at("open", path))`.
    pub fn at<E: Into<io::Error>>(verb: &'static str, path: impl AsRef<Path>) -> impl FnOnce(E) -> FileError {
        move |source| FileError::Io { verb, path: path.as_ref().to_owned(), source: source.into() }
    }

    /// The word of the instruction that is to blame, as it came to be after expansion.
    pub fn word(&self) -> Option<&str> {
        match self {
            FileError::NotFound { missing } => Some(&missing.written),
            FileError::BadPattern { pattern } => Some(pattern),
            _ => None,
        }
    }

    /// A short form of the error, and a remark on that word.
    pub fn in_short(&self) -> (Option<String>, String) {
        let FileError::NotFound { missing } = self else { return (None, String::new()) };
        let remark = match (&missing.ignored, missing.near.as_slice()) {
            (Some((line, pattern)), _) => format!("excluded by .dockerignore line {line}: `{pattern}`"),
            (None, []) if missing.clamped => "leads out of it".to_string(),
            (None, []) => "not found".to_string(),
            (None, [near, ..]) => format!("did you mean `{near}`?"),
        };
        (Some(format!("`{}` is not in {}", missing.path, missing.label)), remark)
    }

    /// What the user can do, one piece of advice each.
    pub fn help(&self) -> Vec<String> {
        match self {
            FileError::NotFound { missing } => missing.help(),
            FileError::NamedOwnerWithLink { .. } => vec!["use numeric ids with --link".to_string()],
            FileError::NotDirectory { path } => {
                vec![format!("choose another destination, or remove {path} in an earlier step")]
            }
            FileError::ReplaceDirectory { path } => {
                vec![format!("remove the directory {path} in an earlier step, or rename the file")]
            }
            FileError::Changed { .. } => vec!["build again when nothing writes to the build context".to_string()],
            FileError::SymlinkLoop { .. }
            | FileError::BadPattern { .. }
            | FileError::BadChmod { .. }
            | FileError::NotRegular { .. }
            | FileError::Archive { .. }
            | FileError::DanglingLink { .. }
            | FileError::NoInput { .. }
            | FileError::View { .. }
            | FileError::Context(_)
            | FileError::Io { .. } => Vec::new(),
        }
    }
}

impl Missing {
    fn help(&self) -> Vec<String> {
        let mut help = Vec::new();
        if let Some((line, pattern)) = &self.ignored {
            help.push(format!(
                "`{}` exists, but .dockerignore line {line} (`{pattern}`) excludes it: remove that line, or add `!{}` below it",
                self.path, self.path
            ));
        }
        if self.clamped {
            help.push(format!(
                "`{}` leads out of {}, so it was read as `{}`; files outside can come from a named context (--build-context)",
                self.written, self.label, self.path
            ));
        }
        // The first is the remark on the word.
        if self.near.len() > 1 {
            let names: Vec<String> = self.near.iter().map(|name| format!("`{name}`")).collect();
            help.push(format!("similar names are {}", names.join(" and ")));
        }
        help
    }
}
