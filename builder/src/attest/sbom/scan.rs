//! Goes through all files of a result, and has those read that name packages.

use super::package::{Distribution, Package};
use super::{alpine, cargo, debian, golang, java, node, php, python, rpm, ruby};
use crate::attest::files::{self, Found};
use cache::error::FileError;
use cache::store::Store;
use cache::tree::Tree;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use serde::{Deserialize, Serialize};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Larger texts are not read: no package manager writes such.
const TEXT_MAX_BYTES: u64 = 128 << 20;
/// Smaller programs have no build information of Go in them.
const PROGRAM_MIN_BYTES: i64 = 64 << 10;
/// Version of the scanner. What another one found is not used again.
const VERSION: &str = "1";
/// Namespace of notes in the store: content of a tree -> digest of its scan.
const NOTES: &str = "sbom";

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scan {
    /// Each with the paths of the files that name it; sorted.
    pub packages: Vec<(Package, BTreeSet<String>)>,
    /// Files that name packages, by path.
    pub files: BTreeMap<String, FileFact>,
    /// What could not be read.
    pub remarks: Vec<String>,
}

/// A file that names packages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFact {
    /// Hex.
    pub sha1: String,
    /// Hex.
    pub sha256: String,
    /// Position of the layer that it is in; `None` if that cannot be told.
    pub layer: Option<usize>,
}

/// Why a result cannot be gone through.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("could not go through the files of the result")]
    File(#[from] FileError),
    #[error(transparent)]
    Store(#[from] cache::error::StoreError),
    #[error("could not read /{path}")]
    Read { path: String, source: io::Error },
}

/// Who reads a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reader {
    Dpkg,
    Apk,
    RpmSqlite,
    RpmNdb,
    RpmBdb,
    NpmLock,
    YarnLock,
    PnpmLock,
    NodeInstalled,
    PythonMetadata,
    Requirements,
    TomlLock,
    PipfileLock,
    CargoLock,
    GoMod,
    GemfileLock,
    Gemspec,
    Composer,
    Jar,
    GoProgram,
}

/// What a tree has in it, from its mounted `root`. It is remembered.
pub fn scan(store: &Store, tree: &Tree, root: BorrowedFd<'_>) -> Result<Scan, ScanError> {
    let mut scan = read(root)?;
    let folders = store.snapshots().lowers(tree);
    for (path, file) in &mut scan.files {
        file.layer = layer_of(&folders, Path::new(path));
    }
    let bytes = serde_json::to_vec(&scan).expect("a scan is plain data");
    let digest = store.content().put(&bytes)?;
    let about = cache::ledger::About { description: "packages in a result".into(), category: "" };
    store.describe(cache::object::ObjectId::new(cache::object::Kind::Blob, digest.hex()), about);
    store.put_note(NOTES, &key(tree), digest.as_str().as_bytes())?;
    Ok(scan)
}

/// Position of the layer that a file of the result is in, by the layers' folders. They hold what they change: the topmost
/// one that has the file has changed it last.
pub fn layer_of(folders: &[PathBuf], path: &Path) -> Option<usize> {
    folders.iter().rposition(|folder| folder.join(path).symlink_metadata().is_ok())
}

/// A former scan of a tree of the same content, if it is still there.
pub fn remembered(store: &Store, tree: &Tree) -> Result<Option<Scan>, ScanError> {
    let note = store.note(NOTES, &key(tree))?.and_then(|note| String::from_utf8(note).ok());
    let Some(digest) = note.and_then(|note| note.parse::<cache::digest::Digest>().ok()) else { return Ok(None) };
    match store.content().read_small(&digest) {
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        // Pruned, or damaged: it is made again.
        Err(_) => Ok(None),
    }
}

fn key(tree: &Tree) -> String {
    format!("{} {VERSION}", tree.content().to_hex())
}

/// Goes through a mounted tree. Which layers its files are in is not known here.
pub fn read(root: BorrowedFd<'_>) -> Result<Scan, ScanError> {
    let distribution = distribution(root);
    let mut scan = Scan::default();
    let mut named: BTreeMap<Package, BTreeSet<String>> = BTreeMap::new();
    files::visit(root, |found| -> Result<(), ScanError> {
        let path = found.path_text();
        let Some(reader) = reader(&path, found) else { return Ok(()) };
        let mut file = found.open()?;
        match packages(reader, &file, &distribution) {
            Ok((packages, remarks)) => {
                scan.remarks.extend(remarks.iter().map(|remark| format!("/{path}: {remark}")));
                if !packages.is_empty() {
                    let fact = facts(&mut file).map_err(|source| ScanError::Read { path: path.clone(), source })?;
                    scan.files.insert(path.clone(), fact);
                }
                for package in packages {
                    named.entry(package).or_default().insert(path.clone());
                }
            }
            Err(problem) => scan.remarks.push(format!("/{path} cannot be read: {problem}")),
        }
        Ok(())
    })?;
    scan.packages = named.into_iter().collect();
    Ok(scan)
}

/// Which reader a file is for, by its path and kind.
fn reader(path: &str, found: &Found<'_>) -> Option<Reader> {
    if let Some(reader) = of_system(path) {
        return Some(reader);
    }
    let name = path.rsplit('/').next().unwrap_or_default();
    // What packages bring along for their own development was never installed.
    let is_in_package =
        path.split('/').rev().skip(1).any(|part| part == "node_modules" || part.ends_with(".dist-info"));
    let reader = match name {
        "package.json" => return is_node_package(path).then_some(Reader::NodeInstalled),
        "METADATA" => return path.ends_with(".dist-info/METADATA").then_some(Reader::PythonMetadata),
        "PKG-INFO" => return path.ends_with(".egg-info/PKG-INFO").then_some(Reader::PythonMetadata),
        _ if name.ends_with(".egg-info") => Reader::PythonMetadata,
        _ if name.ends_with(".gemspec") => return path.contains("/specifications/").then_some(Reader::Gemspec),
        _ if [".jar", ".war", ".ear"].iter().any(|end| name.ends_with(end)) => Reader::Jar,
        "installed.json" => return path.ends_with("vendor/composer/installed.json").then_some(Reader::Composer),
        "package-lock.json" | "npm-shrinkwrap.json" => Reader::NpmLock,
        "yarn.lock" => Reader::YarnLock,
        "pnpm-lock.yaml" => Reader::PnpmLock,
        "requirements.txt" => Reader::Requirements,
        "poetry.lock" | "uv.lock" => Reader::TomlLock,
        "Pipfile.lock" => Reader::PipfileLock,
        "Cargo.lock" => Reader::CargoLock,
        "go.mod" => Reader::GoMod,
        "Gemfile.lock" => Reader::GemfileLock,
        "composer.lock" => Reader::Composer,
        _ if found.stat.st_mode & 0o111 != 0 && found.stat.st_size >= PROGRAM_MIN_BYTES => Reader::GoProgram,
        _ => return None,
    };
    (!is_in_package || matches!(reader, Reader::GoProgram | Reader::Jar)).then_some(reader)
}

/// Databases of systems have their places.
fn of_system(path: &str) -> Option<Reader> {
    Some(match path {
        "var/lib/dpkg/status" => Reader::Dpkg,
        "lib/apk/db/installed" | "usr/lib/apk/db/installed" => Reader::Apk,
        _ if path.starts_with("var/lib/dpkg/status.d/") && !path.ends_with(".md5sums") => Reader::Dpkg,
        _ => {
            let folders = ["var/lib/rpm/", "usr/lib/sysimage/rpm/", "usr/share/rpm/"];
            match folders.iter().find_map(|folder| path.strip_prefix(folder))? {
                "rpmdb.sqlite" => Reader::RpmSqlite,
                "Packages.db" => Reader::RpmNdb,
                "Packages" => Reader::RpmBdb,
                _ => return None,
            }
        }
    })
}

/// `node_modules/x/package.json` or `node_modules/@scope/x/package.json`, not what lies deeper in a package.
fn is_node_package(path: &str) -> bool {
    let Some((folder, _)) = path.rsplit_once('/') else { return false };
    let Some(name) = folder.rsplit("node_modules/").next().filter(|name| name.len() < folder.len()) else {
        return false;
    };
    let parts = name.split('/').count();
    parts == 1 || (parts == 2 && name.starts_with('@'))
}

fn packages(reader: Reader, file: &File, distribution: &Distribution) -> Result<rpm::Found, String> {
    let whole = |packages: Vec<Package>| Ok((packages, vec![]));
    let text = || text(file);
    match reader {
        Reader::Dpkg => whole(debian::packages(&text()?, distribution)),
        Reader::Apk => whole(alpine::packages(&text()?, distribution)),
        Reader::RpmSqlite => rpm::sqlite(file, distribution),
        Reader::RpmNdb => rpm::ndb(file, distribution),
        Reader::RpmBdb => rpm::bdb(file, distribution),
        Reader::NpmLock => whole(node::npm_lock(&text()?)?),
        Reader::YarnLock => whole(node::yarn_lock(&text()?)),
        Reader::PnpmLock => whole(node::pnpm_lock(&text()?)),
        Reader::NodeInstalled => whole(node::installed(&text()?)?.into_iter().collect()),
        Reader::PythonMetadata => whole(python::metadata(&text()?).into_iter().collect()),
        Reader::Requirements => whole(python::requirements(&text()?)),
        Reader::TomlLock => whole(python::toml_lock(&text()?)?),
        Reader::PipfileLock => whole(python::pipfile_lock(&text()?)?),
        Reader::CargoLock => whole(cargo::lock(&text()?)?),
        Reader::GoMod => whole(golang::go_mod(&text()?)),
        Reader::GemfileLock => whole(ruby::lock(&text()?)),
        Reader::Gemspec => whole(ruby::gemspec(&text()?).into_iter().collect()),
        Reader::Composer => whole(php::lock(&text()?)?),
        Reader::Jar => whole(java::jar(file).map_err(|error| error.to_string())?),
        Reader::GoProgram => whole(golang::program(file).map_err(|error| error.to_string())?),
    }
}

/// Has bytes read in every way that takes no file.
#[cfg(any(test, feature = "testing"))]
pub fn read_every_way(bytes: &[u8]) {
    use super::rpm_header;
    use std::io::Cursor;
    let (text, distribution) = (String::from_utf8_lossy(bytes), Distribution::parse(&String::from_utf8_lossy(bytes)));
    debian::packages(&text, &distribution);
    alpine::packages(&text, &distribution);
    node::yarn_lock(&text);
    node::pnpm_lock(&text);
    python::metadata(&text);
    python::requirements(&text);
    golang::go_mod(&text);
    ruby::lock(&text);
    ruby::gemspec(&text);
    let _ = node::npm_lock(&text);
    let _ = node::installed(&text);
    let _ = python::toml_lock(&text);
    let _ = python::pipfile_lock(&text);
    let _ = cargo::lock(&text);
    let _ = php::lock(&text);
    let _ = rpm_header::package(bytes, &distribution);
    let _ = rpm::ndb(Cursor::new(bytes), &distribution);
    let _ = rpm::bdb(Cursor::new(bytes), &distribution);
    let _ = java::jar(Cursor::new(bytes));
    let _ = golang::program(Cursor::new(bytes));
}

fn text(file: &File) -> Result<String, String> {
    let mut bytes = vec![];
    file.take(TEXT_MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > TEXT_MAX_BYTES {
        return Err("it is too large".into());
    }
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
    })
}

fn facts(file: &mut File) -> io::Result<FileFact> {
    let (mut sha1, mut sha256) = (Sha1::new(), Sha256::new());
    let mut buffer = vec![0; 64 << 10];
    file.rewind()?;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            length => {
                sha1.update(&buffer[..length]);
                sha256.update(&buffer[..length]);
            }
        }
    }
    Ok(FileFact { sha1: solver::key::hex(&sha1.finalize()), sha256: solver::key::hex(&sha256.finalize()), layer: None })
}

/// Links in the tree are followed, but never out of it.
fn distribution(root: BorrowedFd<'_>) -> Distribution {
    for path in [c"etc/os-release", c"usr/lib/os-release"] {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        if let Ok(file) = rustix::fs::openat2(root, path, flags, Mode::empty(), resolve)
            && let Ok(text) = text(&File::from(file))
        {
            return Distribution::parse(&text);
        }
    }
    Distribution::default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn packages_of_node_are_told_from_what_is_in_them() {
        let check = |path: &str, is_one: bool| assert_eq!(is_node_package(path), is_one, "{path}");
        check("app/node_modules/a/package.json", true);
        check("node_modules/@s/a/package.json", true);
        check("app/node_modules/a/node_modules/b/package.json", true);
        check("app/node_modules/a/test/package.json", false);
        check("app/package.json", false);
        check("package.json", false);
    }

    #[test]
    fn a_tree_is_read_and_what_is_broken_remarked() {
        let folder = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = folder.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("usr/lib/os-release", "ID=debian\nVERSION_ID=12\n");
        std::fs::create_dir(folder.path().join("etc")).unwrap();
        std::os::unix::fs::symlink("/usr/lib/os-release", folder.path().join("etc/os-release")).unwrap();
        write("var/lib/dpkg/status", "Package: bash\nStatus: install ok installed\nVersion: 5\n");
        write("var/lib/dpkg/status.d/base", "Package: base\nVersion: 1\n");
        write("app/package-lock.json", "{");
        write("app/Cargo.lock", "[[package]]\nname = \"a\"\nversion = \"1\"\n");
        write("app/node_modules/x/yarn.lock", "c@^1:\n  version \"1\"\n");
        write("usr/share/rpm/Packages", "b");
        let root = File::open(folder.path()).unwrap();
        let scan = read(root.as_fd()).unwrap();
        let purls: Vec<_> = scan.packages.iter().map(|(package, _)| package.purl.as_str()).collect();
        let expect =
            ["pkg:cargo/a@1", "pkg:deb/debian/base@1?distro=debian-12", "pkg:deb/debian/bash@5?distro=debian-12"];
        assert_eq!(purls, expect);
        let remarks = scan.remarks.join("\n");
        assert!(remarks.contains("/app/package-lock.json cannot be read"), "{remarks}");
        assert!(remarks.contains("/usr/share/rpm/Packages cannot be read: it is no database"), "{remarks}");
        assert_eq!(scan.remarks.len(), 2, "{remarks}");
        assert_eq!(scan.files["app/Cargo.lock"].sha1.len(), 40);
    }
}
