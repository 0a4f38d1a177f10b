//! Trees for tests: made from a few lines, printed as lines, stacked by a real overlayfs.

use crate::walk;
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("skipped: only root may mount overlayfs and make files of others");
    }
    root
}

/// Makes entries, one a line: `d path mode [uid]`, `f path content [mode] [uid]`, `l path target`, `h path target`
/// (hard link), `w path` (whiteout), `p path` (pipe), `o path` (opaque directory), `x path name=value` (xattr).
/// All times become 1000 seconds and some nanoseconds.
pub(crate) fn make(root: &Path, lines: &[&str]) {
    for line in lines {
        let words: Vec<&str> = line.split(' ').collect();
        let path = root.join(words[1]);
        let mode =
            |index: usize, default| words.get(index).map_or(default, |text| u32::from_str_radix(text, 8).unwrap());
        let chown = |index: usize| {
            if let Some(uid) = words.get(index) {
                std::os::unix::fs::lchown(&path, Some(uid.parse().unwrap()), Some(uid.parse().unwrap())).unwrap();
            }
        };
        let chmod = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        match words[0] {
            "d" => {
                fs::create_dir_all(&path).unwrap();
                chown(3);
                chmod(mode(2, 0o755));
            }
            "o" => {
                fs::create_dir_all(&path).unwrap();
                chmod(0o755);
                rustix::fs::setxattr(&path, walk::OPAQUE, b"y", XattrFlags::empty()).unwrap();
            }
            "f" => {
                fs::write(&path, words[2]).unwrap();
                chown(4);
                chmod(mode(3, 0o644));
            }
            "l" => std::os::unix::fs::symlink(words[2], &path).unwrap(),
            "h" => fs::hard_link(root.join(words[2]), &path).unwrap(),
            "w" => rustix::fs::mknodat(CWD, &path, FileType::CharacterDevice, Mode::empty(), 0).unwrap(),
            "p" => rustix::fs::mknodat(CWD, &path, FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap(),
            "x" => {
                let (name, value) = words[2].split_once('=').unwrap();
                rustix::fs::lsetxattr(&path, name, value.as_bytes(), XattrFlags::empty()).unwrap();
            }
            other => panic!("{other}"),
        }
    }
    set_times(root);
}

fn set_times(path: &Path) {
    if path.symlink_metadata().unwrap().is_dir() {
        fs::read_dir(path).unwrap().for_each(|entry| set_times(&entry.unwrap().path()));
    }
    let time = Timespec { tv_sec: 1000, tv_nsec: 0 };
    let times = Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// Everything about a tree but its times of directories: path -> what is there.
pub(crate) fn list(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    collect(root, root, &mut HashMap::new(), &mut found);
    found
}

/// As [`list`], with times.
pub(crate) fn list_with_times(root: &Path) -> BTreeMap<String, String> {
    let times = |name: &str| root.join(name).symlink_metadata().unwrap().mtime();
    list(root).into_iter().map(|(name, text)| (name.clone(), format!("{text} @{}", times(&name)))).collect()
}

fn collect(root: &Path, dir: &Path, links: &mut HashMap<u64, String>, found: &mut BTreeMap<String, String>) {
    let mut entries: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let meta = path.symlink_metadata().unwrap();
        let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_string();
        let kind = meta.file_type();
        let what = if kind.is_dir() {
            "dir".to_string()
        } else if kind.is_symlink() {
            format!("-> {}", fs::read_link(&path).unwrap().display())
        } else if kind.is_file() {
            format!("file {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
        } else if meta.rdev() == 0 && meta.mode() & 0o170000 == 0o020000 {
            "whiteout".to_string()
        } else {
            format!("node {:o} {}", meta.mode() & 0o170000, meta.rdev())
        };
        let mut text = format!("{what} {:o} {}:{}", meta.mode() & 0o7777, meta.uid(), meta.gid());
        if !kind.is_dir() && meta.nlink() > 1 && what != "whiteout" {
            let first = links.entry(meta.ino()).or_insert_with(|| name.clone());
            text += &format!(" = {first}");
        }
        let mut list = vec![0; 4096];
        let length = rustix::fs::llistxattr(&path, &mut list[..]).unwrap();
        for xattr in list[..length].split(|byte| *byte == 0).filter(|name| name.starts_with(b"user.")) {
            if !matches!(xattr, b"user.overlay.origin" | b"user.overlay.impure") {
                let mut value = vec![0; 4096];
                let length = rustix::fs::lgetxattr(&path, xattr, &mut value[..]).unwrap();
                text += &format!(" {}={}", String::from_utf8_lossy(xattr), String::from_utf8_lossy(&value[..length]));
            }
        }
        found.insert(name, text);
        if kind.is_dir() {
            collect(root, &path, links, found);
        }
    }
}

/// A detached overlayfs of `lowers` (lowest first), writable if there is an upper and a work dir.
pub(crate) fn overlay(lowers: &[&Path], upper: Option<(&Path, &Path)>) -> OwnedFd {
    let fs = rustix::mount::fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    rustix::mount::fsconfig_set_flag(fs.as_fd(), "userxattr").unwrap();
    let joined = lowers.iter().rev().map(|path| path.as_os_str().as_bytes()).collect::<Vec<_>>().join(&b':');
    rustix::mount::fsconfig_set_string(fs.as_fd(), "lowerdir", &joined[..]).unwrap();
    if let Some((upper, work)) = upper {
        rustix::mount::fsconfig_set_string(fs.as_fd(), "upperdir", upper).unwrap();
        rustix::mount::fsconfig_set_string(fs.as_fd(), "workdir", work).unwrap();
    }
    rustix::mount::fsconfig_create(fs.as_fd()).unwrap();
    rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap()
}

/// The way into a detached mount for the functions of std.
pub(crate) fn path_of(mount: &OwnedFd) -> std::path::PathBuf {
    use std::os::fd::AsRawFd;
    format!("/proc/self/fd/{}", mount.as_raw_fd()).into()
}
