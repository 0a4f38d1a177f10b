//! Why a git source cannot be had, and what to do about it. Texts that git wrote are kept: people look them up.

use crate::secret::SecretError;
use crate::ssh::SshError;
use cache::error::{FileError, StoreError};
use std::io;
use std::sync::Arc;

/// Why a git source was not checked out. `remote` is always without passwords.
#[derive(Debug, thiserror::Error)]
pub enum GitError {
    /// There is no such program.
    #[error("failed to find git binary")]
    NotInstalled {
        /// Of the attempt to start it.
        source: io::Error,
    },
    /// It could not be started or waited for.
    #[error("cannot run git")]
    Run {
        /// The errno.
        source: io::Error,
    },
    /// It did not succeed.
    #[error("failed to {verb} {remote}: git stderr: {stderr}")]
    Failed {
        /// What was tried, as it follows "failed to".
        verb: &'static str,
        /// On which repository.
        remote: String,
        /// What git said.
        stderr: String,
    },
    /// It said something that it never says.
    #[error("failed to {verb} {remote}: git gave an unexpected answer: {answer}")]
    Answer {
        /// What was tried, as it follows "failed to".
        verb: &'static str,
        /// On which repository.
        remote: String,
        /// The start of what git said.
        answer: String,
    },
    /// Not one that git would take for a name, or one that it would take for an option.
    #[error("invalid git ref {0:?}")]
    BadReference(String),
    /// A transport that kiln does not use, such as a path of this machine.
    #[error("{0:?} is not a git repository that kiln fetches from")]
    BadRemote(String),
    /// The repository does not have it.
    #[error("repository does not contain ref {reference}, output: {output:?}")]
    NoReference {
        /// As asked for.
        reference: String,
        /// What it has of a similar name.
        output: String,
    },
    /// The repository has no HEAD.
    #[error("could not find default branch for repository: {0}")]
    NoDefaultBranch(String),
    /// The reference names another commit than the one that is expected.
    #[error("expected checksum to match {expected}, got {actual}")]
    Checksum {
        /// Commit or prefix, as given.
        expected: String,
        /// What the reference names.
        actual: String,
    },
    /// A checksum that no commit can have.
    #[error("invalid checksum {0} for Git URL, expected hex commit hash")]
    BadChecksum(String),
    /// `fetch-by-commit` without a whole commit.
    #[error("fetch-by-commit requires a full commit SHA checksum, got {0:?}")]
    FetchByCommit(String),
    /// The commit is not in the repository, or it does not give it.
    #[error("commit {commit} can not be found in the repository {remote}")]
    NoCommit {
        /// Its hash.
        commit: String,
        /// Where it was looked for.
        remote: String,
    },
    /// The directory that is to be the root is not one.
    #[error("invalid subdir {subdir}: {part} is not a directory of the repository")]
    Subdir {
        /// As asked for.
        subdir: String,
        /// The part of it that is missing, or a file, or a link.
        part: String,
    },
    /// A commit has a submodule of which .gitmodules does not say where it is.
    #[error("No url found for submodule path '{path}' in .gitmodules of {remote}")]
    NoSubmoduleUrl {
        /// In the repository.
        path: String,
        /// Of the repository that has the submodule.
        remote: String,
    },
    /// A submodule cannot be filled.
    #[error("failed to update submodule '{path}'")]
    Submodule {
        /// In the repository that has it.
        path: String,
        /// Why.
        source: Box<GitError>,
    },
    /// A secret for the server cannot be read.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// No ssh agent.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// A file of the checkout.
    #[error(transparent)]
    File(#[from] FileError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The build was stopped.
    #[error("Canceled: context canceled")]
    Canceled,
    /// Another step of this build asked first, and failed.
    #[error(transparent)]
    Shared(Arc<GitError>),
}

/// What git says -> what to do. The first that fits counts.
const ADVICE: &[(&[&str], &str)] = &[
    (
        &["could not read Username", "could not read Password", "Authentication failed", "error: 401", "error: 403"],
        "the server asks for a login: give a token with --secret id=GIT_AUTH_TOKEN,env=VARIABLE, or for this host alone \
         with id=GIT_AUTH_TOKEN.<host>",
    ),
    (
        &["Permission denied (publickey", "Too many authentication failures"],
        "load the key into an agent (ssh-add) and pass it on with --ssh default",
    ),
    (
        &["REMOTE HOST IDENTIFICATION HAS CHANGED", "Host key verification failed"],
        "the server's key is not that of ~/.ssh/known_hosts or /etc/ssh/ssh_known_hosts; correct it there if it was \
         renewed",
    ),
    (&["cannot run ssh"], "install the Debian package openssh-client"),
    (&["remote-https' is not a git command", "remote-http' is not a git command"], "install git with HTTP support"),
    (
        &[
            "Repository not found",
            "no such repository",
            "not found",
            "does not appear to be a git repository",
            "access denied or repository not exported",
        ],
        "check the URL; servers also answer so if a private repository is asked for without a login \
         (--secret id=GIT_AUTH_TOKEN,env=VARIABLE, or --ssh default)",
    ),
    (
        &[
            "Could not resolve",
            "unable to look up",
            "Failed to connect",
            "unable to connect",
            "Connection refused",
            "timed out",
        ],
        "check the host's name, the network, and HTTPS_PROXY and NO_PROXY",
    ),
    (&["certificate"], "if the server has a certificate of its own, name a file with its root in SSL_CERT_FILE"),
];

impl GitError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            GitError::NotInstalled { .. } => Some("install the Debian package git".into()),
            GitError::Failed { stderr, .. } => {
                let fits = |(parts, _): &&(&[&str], &str)| parts.iter().any(|part| stderr.contains(part));
                ADVICE.iter().find(fits).map(|(_, advice)| advice.to_string())
            }
            GitError::NoReference { reference, .. } if looks_abbreviated(reference) => {
                Some("a commit must be given by its whole hash".into())
            }
            GitError::NoReference { .. } | GitError::BadReference(_) => {
                Some("give a branch, a tag, a full reference (refs/…), or the whole hash of a commit".into())
            }
            GitError::BadRemote(_) => Some("URLs are https://, http://, ssh://, git:// or user@host:path".into()),
            GitError::Checksum { .. } => Some("the branch or tag has moved; if it may, correct the checksum".into()),
            GitError::NoSubmoduleUrl { .. } | GitError::Submodule { .. } => {
                let own = match self {
                    GitError::Submodule { source, .. } => source.help(),
                    _ => None,
                };
                own.or_else(|| Some("to leave submodules empty, add ?submodules=false to the URL".into()))
            }
            GitError::Ssh(_) => Some("pass on an ssh agent with --ssh default".into()),
            GitError::Shared(error) => error.help(),
            _ => None,
        }
    }

    /// Whether the build was stopped, which is no failure of its own.
    pub fn is_canceled(&self) -> bool {
        match self {
            GitError::Canceled => true,
            GitError::Submodule { source, .. } => source.is_canceled(),
            GitError::Shared(error) => error.is_canceled(),
            _ => false,
        }
    }
}

fn looks_abbreviated(reference: &str) -> bool {
    (4..40).contains(&reference.len()) && reference.bytes().all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice() {
        let check = |stderr: &str, expect: &str| {
            let error = GitError::Failed { verb: "fetch", remote: "https://h/x.git".into(), stderr: stderr.into() };
            assert!(error.help().unwrap_or_default().contains(expect), "{stderr}: {:?}", error.help());
        };
        check("fatal: could not read Username for 'https://h': terminal prompts disabled", "GIT_AUTH_TOKEN");
        check("git@h: Permission denied (publickey).", "--ssh default");
        check("fatal: repository 'https://h/x.git/' not found", "check the URL");
        check("fatal: unable to access 'https://h/': Could not resolve host: h", "HTTPS_PROXY");
        check("fatal: strange", "");
    }
}
