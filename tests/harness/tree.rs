//! A temporary folder tree: build contexts, and places for outputs.

use std::fs;
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Files below a folder that goes away when dropped. Methods panic: they are the test's own doing.
pub struct Tree {
    folder: TempDir,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree::new()
    }
}

impl Tree {
    /// An empty folder that all users may enter.
    pub fn new() -> Tree {
        let folder = tempfile::Builder::new().prefix("kiln-tree-").tempdir().expect("make a temporary folder");
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("open the folder to all");
        Tree { folder }
    }

    /// A context with only a Dockerfile.
    pub fn dockerfile(text: &str) -> Tree {
        Tree::new().file("Dockerfile", text)
    }

    /// A copy of a folder of the source tree, such as `examples/hello`.
    pub fn copy_of(source: &Path) -> Tree {
        let tree = Tree::new();
        copy(source, tree.folder.path());
        tree
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A path below it; `name` is relative.
    pub fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of mode 0644; makes the folders above it.
    pub fn file(self, name: &str, data: &str) -> Tree {
        self.write(name, data);
        self
    }

    /// The same, later.
    pub fn write(&self, name: &str, data: &str) {
        let path = self.join(name);
        fs::create_dir_all(path.parent().expect("a file has a folder")).expect("make folders");
        fs::write(&path, data).expect("write a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("set a mode");
    }

    /// Sets a mode.
    pub fn mode(self, name: &str, mode: u32) -> Tree {
        fs::set_permissions(self.join(name), fs::Permissions::from_mode(mode)).expect("set a mode");
        self
    }

    /// Makes a symbolic link.
    pub fn symlink(self, name: &str, target: &str) -> Tree {
        symlink(target, self.join(name)).expect("make a symbolic link");
        self
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) {
        fs::remove_file(self.join(name)).expect("remove a file");
    }

    /// Text of a file.
    pub fn read(&self, name: &str) -> String {
        let path = self.join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
    }

    /// Gives everything to a user.
    pub fn give_to(&self, uid: u32, gid: u32) {
        give(self.folder.path(), uid, gid);
    }
}

fn give(path: &Path, uid: u32, gid: u32) {
    lchown(path, Some(uid), Some(gid)).expect("change an owner");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("list a folder") {
            give(&entry.expect("read a folder's entry").path(), uid, gid);
        }
    }
}

fn copy(source: &Path, target: &Path) {
    for entry in fs::read_dir(source).unwrap_or_else(|error| panic!("list {}: {error}", source.display())) {
        let entry = entry.expect("read a folder's entry");
        let (from, to) = (entry.path(), target.join(entry.file_name()));
        let kind = entry.file_type().expect("kind of an entry");
        if kind.is_dir() {
            fs::create_dir_all(&to).expect("make a folder");
            copy(&from, &to);
        } else if kind.is_symlink() {
            symlink(fs::read_link(&from).expect("read a link"), &to).expect("make a symbolic link");
        } else {
            fs::copy(&from, &to).expect("copy a file");
        }
    }
}
