//! All regular files of a mounted result, one after another, in bytewise order of their names in each folder.

use cache::error::FileError;
use cache::walk::{self, Walk, reopen};
use rustix::fs::{FileType, Mode, OFlags, Stat};
use std::fs::File;
use std::os::fd::BorrowedFd;
use std::path::Path;

/// A file that was found.
pub struct Found<'a> {
    walk: &'a Walk,
    entry: &'a walk::Found,
    pub stat: &'a Stat,
}

impl Found<'_> {
    /// Below the root, without a slash at its start. For people and documents: what is no UTF-8 is replaced.
    pub fn path_text(&self) -> String {
        String::from_utf8_lossy(self.walk.path()).into_owned()
    }

    /// Opens it.
    pub fn open(&self) -> Result<File, FileError> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = rustix::fs::openat(self.walk.dir(), &self.entry.name, flags, Mode::empty());
        opened.map(File::from).map_err(|errno| self.walk.error("open", errno))
    }
}

/// Shows every file to `visit`; its first error ends the walk. Symbolic links are not followed.
pub fn visit<E: From<FileError>>(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&Found<'_>) -> Result<(), E>,
) -> Result<(), E> {
    // Errors name paths as the result has them.
    let label = Path::new("/");
    let mut walk = Walk::new(reopen(root).map_err(FileError::at("open", label))?, label)?;
    while let Some(entry) = walk.next()? {
        let Some(stat) = &entry.stat else { continue };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => walk.enter(walk.open(&entry)?, vec![], false)?,
            FileType::RegularFile => visit(&Found { walk: &walk, entry: &entry, stat })?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

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
