//! What can go wrong between a plan and a running process.

use std::io;
use std::path::PathBuf;

/// The sandbox could not be made. The command's own failure is not one of these.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A file operation on the host.
    #[error("{verb} {}", path.display())]
    Path {
        /// Such as `open`.
        verb: &'static str,
        /// On the host, or below the root if it begins with the step's root.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused to make a file system.
    #[error("mount {fs}{}", if log.is_empty() { String::new() } else { format!(" ({log})") })]
    Mount {
        /// Type, such as `overlay`.
        fs: &'static str,
        /// What the kernel said, where it said something.
        log: String,
        /// Why.
        source: io::Error,
    },
    /// A call of the child before it became the command.
    #[error("set up the sandbox: {operation}{}", help.map(|help| format!(" ({help})")).unwrap_or_default())]
    Setup {
        /// Such as `mount proc on /proc`.
        operation: String,
        /// What to do about it, where that is known.
        help: Option<&'static str>,
        /// Why.
        source: io::Error,
    },
    /// No new process in namespaces.
    #[error("start a process in new namespaces{}", help.map(|help| format!(" ({help})")).unwrap_or_default())]
    Clone {
        /// What to do about it, where that is known.
        help: Option<&'static str>,
        /// Why.
        source: io::Error,
    },
    /// No user namespace for an ordinary user.
    #[error("create a user namespace ({help})")]
    UserNamespace {
        /// The cause that was found and what to do.
        help: String,
        /// Why.
        source: io::Error,
    },
    /// newuidmap or newgidmap did not do it.
    #[error("{program} failed: {message}")]
    IdMap {
        /// Which.
        program: &'static str,
        /// What it printed.
        message: String,
    },
    /// Called too late: namespaces of a program are changed while it has one thread.
    #[error("bug: the user namespace must be entered before any thread is started")]
    Threads,
}

impl From<cache::FileError> for SandboxError {
    fn from(cache::FileError { verb, path, source }: cache::FileError) -> SandboxError {
        SandboxError::Path { verb, path, source }
    }
}

impl SandboxError {
    /// For `map_err`.
    pub(crate) fn path<E: Into<io::Error>>(
        verb: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(E) -> SandboxError {
        move |source| SandboxError::Path { verb, path: path.into(), source: source.into() }
    }
}
