//! All regular files of a mounted result, one after another, in bytewise order of their names in each folder.

use cache::error::FileError;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat};
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A file that was found.
pub struct Found<'a> {
    /// Below the root, without a slash at its start.
    pub path: &'a [u8],
    pub stat: &'a Stat,
    folder: BorrowedFd<'a>,
    name: &'a CString,
}

impl Found<'_> {
    /// For people and documents: what is no UTF-8 is replaced.
    pub fn path_text(&self) -> String {
        String::from_utf8_lossy(self.path).into_owned()
    }

    /// Opens it.
    pub fn open(&self) -> Result<File, FileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.folder, self.name, flags, Mode::empty()) {
            Ok(file) => Ok(File::from(file)),
            Err(errno) => Err(FileError::at("open", in_result(self.path))(errno)),
        }
    }
}

struct Frame {
    folder: OwnedFd,
    names: std::vec::IntoIter<CString>,
    path_len: usize,
}

/// Shows every file to `visit`; its first error ends the walk. Symbolic links are not followed.
pub fn visit<E: From<FileError>>(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&Found<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let mut path: Vec<u8> = vec![];
    let folder = open_folder(root, c".", &path)?;
    let mut frames = vec![Frame { names: names(folder.as_fd(), &path)?, folder, path_len: 0 }];
    while let Some(frame) = frames.last_mut() {
        path.truncate(frame.path_len);
        let Some(name) = frame.names.next() else {
            frames.pop();
            continue;
        };
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let stat = rustix::fs::statat(&frame.folder, &name, AtFlags::SYMLINK_NOFOLLOW);
        let stat = stat.map_err(|errno| FileError::at("look at", in_result(&path))(errno))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                let folder = open_folder(frame.folder.as_fd(), &name, &path)?;
                let path_len = path.len();
                frames.push(Frame { names: names(folder.as_fd(), &path)?, folder, path_len });
            }
            FileType::RegularFile => {
                visit(&Found { path: &path, stat: &stat, folder: frame.folder.as_fd(), name: &name })?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// A path of the result, as errors name it.
fn in_result(path: &[u8]) -> PathBuf {
    Path::new("/").join(OsStr::from_bytes(path))
}

fn open_folder(folder: BorrowedFd<'_>, name: &std::ffi::CStr, path: &[u8]) -> Result<OwnedFd, FileError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
        .map_err(|errno| FileError::at("open", in_result(path))(errno))
}

fn names(folder: BorrowedFd<'_>, path: &[u8]) -> Result<std::vec::IntoIter<CString>, FileError> {
    let list = || -> rustix::io::Result<Vec<CString>> {
        let mut names = vec![];
        for entry in Dir::read_from(folder)? {
            let name = entry?.file_name().to_owned();
            if !matches!(name.to_bytes(), b"." | b"..") {
                names.push(name);
            }
        }
        names.sort_unstable();
        Ok(names)
    };
    match list() {
        Ok(names) => Ok(names.into_iter()),
        Err(errno) => Err(FileError::at("list", in_result(path))(errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regular_files_alone() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("d/e")).unwrap();
        for name in ["d/e/b", "d/a", "c"] {
            std::fs::write(folder.path().join(name), name).unwrap();
        }
        std::os::unix::fs::symlink("d", folder.path().join("l")).unwrap();
        let root = File::open(folder.path()).unwrap();
        let mut seen = vec![];
        visit(root.as_fd(), |found| {
            seen.push((found.path_text(), std::io::read_to_string(found.open()?).unwrap()));
            Ok::<(), FileError>(())
        })
        .unwrap();
        let expect = ["c", "d/a", "d/e/b"].map(|path| (path.to_string(), path.to_string()));
        assert_eq!(seen, expect);
    }
}
