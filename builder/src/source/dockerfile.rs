//! Where the Dockerfile comes from: the context, a path, a URL, or standard input (reference/dockerfile.md 6.1).

use crate::cli::options::FileArg;
use frontend::span::SourceText;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A Dockerfile that was read.
#[derive(Debug)]
pub struct DockerfileText {
    /// Named as the user named it.
    pub source: SourceText,
    /// Where it is, for the ignore file beside it; `None` for standard input.
    pub path: Option<PathBuf>,
}

/// Why there is no Dockerfile.
#[derive(Debug, thiserror::Error)]
pub enum DockerfileError {
    #[error("failed to read dockerfile: open {name}: no such file or directory")]
    Missing { name: String, context: PathBuf },
    #[error("failed to read dockerfile: open {name}: no such file or directory")]
    MissingInFetched { name: String },
    #[error("failed to read dockerfile {name}")]
    Read { name: String, source: io::Error },
}

impl DockerfileError {
    /// What to do next.
    pub fn help(&self) -> Vec<String> {
        match self {
            DockerfileError::Missing { name, context } => {
                vec![format!("there is no {name} in {}; name another file with -f", context.display())]
            }
            DockerfileError::MissingInFetched { name } => {
                vec![format!("there is no {name} in the context; name another file of it with -f")]
            }
            DockerfileError::Read { .. } => vec![],
        }
    }
}

/// Longest Dockerfile that is fetched for `-f URL`, in bytes.
pub const URL_LIMIT_BYTES: usize = 2 << 20;

/// Reads it from standard input.
pub fn read_stdin(stdin: impl Read) -> Result<DockerfileText, DockerfileError> {
    let source = text("-", read_all(stdin).map_err(|source| failed("-", source))?);
    Ok(DockerfileText { source, path: None })
}

/// Reads it for a context that is a folder of the client. Without `-f` it is `Dockerfile`, else `dockerfile`, at the
/// root of the context.
pub fn read(context: &Path, file: Option<&FileArg>) -> Result<DockerfileText, DockerfileError> {
    match path_of(file) {
        Some(path) => {
            // As BuildKit: relative to where the user is, and else within the context.
            let in_context = context.join(path);
            let path = if !path.exists() && in_context.exists() { in_context.as_path() } else { path };
            open(path, &path.display().to_string(), context)
        }
        None => {
            let upper = context.join("Dockerfile");
            let lower = context.join("dockerfile");
            match !upper.exists() && lower.exists() {
                true => open(&lower, "dockerfile", context),
                false => open(&upper, "Dockerfile", context),
            }
        }
    }
}

/// Reads it for a context that was fetched to `folder` (reference/dockerfile.md 6.1): `-f` names a file in it, of which
/// links do not lead out, unless it is absolute.
pub fn read_fetched(folder: &Path, file: Option<&FileArg>) -> Result<DockerfileText, DockerfileError> {
    let names = match path_of(file) {
        Some(path) if path.is_absolute() => return open(path, &path.display().to_string(), folder),
        Some(path) => vec![path],
        None => vec![Path::new("Dockerfile"), Path::new("dockerfile")],
    };
    for name in &names {
        let shown = name.display().to_string();
        match open_below(folder, name) {
            Ok(mut file) => {
                let mut bytes = vec![];
                file.read_to_end(&mut bytes).map_err(|source| failed(&shown, source))?;
                return Ok(DockerfileText { source: text(&shown, bytes), path: None });
            }
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(failed(&shown, errno.into())),
        }
    }
    Err(DockerfileError::MissingInFetched { name: names[0].display().to_string() })
}

fn open_below(folder: &Path, name: &Path) -> Result<File, Errno> {
    let root = rustix::fs::open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    Ok(rustix::fs::openat2(&root, name, flags, Mode::empty(), resolve)?.into())
}

/// The path that `-f` names.
fn path_of(file: Option<&FileArg>) -> Option<&Path> {
    match file {
        Some(FileArg::Path(path)) => Some(path),
        Some(FileArg::Stdin | FileArg::Url(_)) | None => None,
    }
}

/// What came on standard input or from a URL.
pub fn from_bytes(name: &str, bytes: Vec<u8>) -> DockerfileText {
    DockerfileText { source: text(name, bytes), path: None }
}

fn open(path: &Path, name: &str, context: &Path) -> Result<DockerfileText, DockerfileError> {
    match std::fs::read(path) {
        Ok(bytes) => Ok(DockerfileText { source: text(name, bytes), path: Some(path.to_path_buf()) }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(DockerfileError::Missing { name: name.into(), context: context.to_path_buf() })
        }
        Err(error) => Err(failed(name, error)),
    }
}

fn read_all(mut stdin: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = vec![];
    stdin.read_to_end(&mut bytes).map(|_| bytes)
}

fn text(name: &str, bytes: Vec<u8>) -> SourceText {
    SourceText { name: name.into(), text: String::from_utf8_lossy(&bytes).into_owned() }
}

fn failed(name: &str, source: io::Error) -> DockerfileError {
    DockerfileError::Read { name: name.into(), source }
}
