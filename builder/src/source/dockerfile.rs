//! Where the Dockerfile comes from: the context, a path, or standard input (reference/dockerfile.md 6.1).

use crate::cli::options::FileArg;
use frontend::span::SourceText;
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
            DockerfileError::Read { .. } => vec![],
        }
    }
}

/// Reads it. Without `-f` it is `Dockerfile`, else `dockerfile`, at the root of the context.
pub fn read(context: &Path, file: Option<&FileArg>, stdin: impl Read) -> Result<DockerfileText, DockerfileError> {
    match file {
        Some(FileArg::Stdin) => {
            let source = text("-", read_all(stdin).map_err(|source| failed("-", source))?);
            Ok(DockerfileText { source, path: None })
        }
        Some(FileArg::Path(path)) => {
            // As BuildKit: relative to where the user is, and else within the context.
            let in_context = context.join(path);
            let path = if !path.exists() && in_context.exists() { &in_context } else { path };
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

/// What came on standard input where a context was expected.
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
