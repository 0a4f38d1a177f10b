//! Where a stream goes: a file that appears whole or not at all, or standard output.

use super::ExportError;
use super::attributes::Attributes;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

/// `dest` of exporters that write a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    Stdout,
    File(PathBuf),
}

impl Target {
    /// Reads `dest`; `-` and an empty value are standard output. `None` if it is not given.
    pub fn take(attributes: &mut Attributes) -> Result<Option<Target>, ExportError> {
        match attributes.take("dest").as_deref() {
            None => Ok(None),
            Some("" | "-") if io::stdout().is_terminal() => Err(ExportError::Terminal),
            Some("" | "-") => Ok(Some(Target::Stdout)),
            Some(path) if Path::new(path).is_dir() => Err(ExportError::IsFolder(path.into())),
            Some(path) => Ok(Some(Target::File(path.into()))),
        }
    }

    /// Writes the stream. A file is written beside its place, its parents made, and renamed into it at the end.
    pub fn write(&self, write: impl FnOnce(&mut dyn Write) -> Result<(), ExportError>) -> Result<(), ExportError> {
        let path = match self {
            Target::Stdout => {
                let mut stdout = BufWriter::with_capacity(1 << 18, io::stdout().lock());
                write(&mut stdout)?;
                return stdout.flush().map_err(ExportError::Archive);
            }
            Target::File(path) => path,
        };
        let parent = match path.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        std::fs::create_dir_all(parent).map_err(ExportError::io("create folder", parent))?;
        // A pipe or device is what the user wants written to, not replaced.
        if path.exists() && !path.is_file() {
            let mut file = File::create(path).map_err(ExportError::io("open", path))?;
            return write(&mut file);
        }
        let mut aside = tempfile::Builder::new()
            .prefix(".kiln-")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(parent)
            .map_err(ExportError::io("create a file in", parent))?;
        {
            let mut buffered = BufWriter::with_capacity(1 << 18, aside.as_file_mut());
            write(&mut buffered)?;
            buffered.flush().map_err(ExportError::io("write", path))?;
        }
        aside.persist(path).map_err(|error| ExportError::io("rename into place", path)(error.error))?;
        Ok(())
    }
}
