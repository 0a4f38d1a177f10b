//! COPY, ADD, WORKDIR and heredocs: carries out [`frontend::op::FileOp`], straight into the upper dir of a new layer.
//!
//! A source ([`SourceTree`]) is read through [`tree`], which knows contexts with their `.dockerignore` and stacks of
//! layers alike; [`select`] finds what a COPY takes from it, for the cache key ([`digest`]) as well as for the copy,
//! so that both always mean the same files. `dest` resolves destinations over the base and what is already
//! written, and makes directories in the upper dir as overlayfs would copy them up.

pub(crate) mod archive;
mod chmod;
mod copy;
mod dest;
pub mod digest;
mod error;
mod former;
mod layers;
mod owner;
pub mod select;
mod share;
mod sparse;
#[cfg(test)]
mod tests;
pub mod tree;
mod view;
mod xattr;

pub use archive::{looks_like_archive, newest_member, unpack_stream};
pub use error::{FileError, Missing};
pub use former::Copies;

use crate::source::context::ContextDir;
use crate::source::dir;
use copy::Copier;
use dest::{Dest, Links, NewDir, absolute, at};
use frontend::op::{Chmod, Copy, FileAction, FileOp, Owner};
use rustix::fs::{Mode, OFlags};
use select::Selected;
use share::Lenders;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use tree::Tree;

/// A tree that is read.
#[derive(Clone, Debug)]
pub enum SourceTree {
    /// A directory of the client, seen through its `.dockerignore`.
    Client(Arc<ContextDir>),
    /// Committed snapshots in overlayfs' upper form, lowest first. Their paths stand for their content.
    Layers(Vec<PathBuf>),
    /// Nothing.
    Empty,
}

/// Carries out `op`, writing into `upper`, the empty upper dir of a new layer on top of `base` (unpacked layers,
/// lowest first). `inputs` are the vertex's inputs; `copies` are files that need not be copied again.
pub fn apply(
    op: &FileOp,
    base: &[PathBuf],
    inputs: &[SourceTree],
    upper: &Path,
    copies: Option<&Copies>,
) -> Result<(), FileError> {
    let mut dest = Dest::open(upper, base)?;
    let mut trees: Vec<Option<Tree>> = inputs.iter().map(|_| None).collect();
    for action in &op.actions {
        match action {
            FileAction::Copy(copy) => match copy.from {
                None => copy_from(copy, &Tree::open(&SourceTree::Empty)?, &mut dest, &Saving::default())?,
                Some(index) => {
                    let no_input = || FileError::NoInput { index, count: inputs.len() };
                    let slot = trees.get_mut(index).ok_or_else(no_input)?;
                    if slot.is_none() {
                        *slot = Some(Tree::open(inputs.get(index).ok_or_else(no_input)?)?);
                    }
                    let lenders = match &inputs[index] {
                        SourceTree::Layers(layers) => Some(Lenders::open(copy, layers, base, copies)?),
                        SourceTree::Client(_) | SourceTree::Empty => None,
                    };
                    if let Some(tree) = slot {
                        copy_from(copy, tree, &mut dest, &Saving { copies, lenders })?;
                    }
                }
            },
            FileAction::MkFile { name, dest: path, mode, data, owner, chmod } => {
                copies.inspect(|copies| copies.replaced());
                let file = NewFile { name, dest: path, mode: *mode, data };
                make_file(&file, owner.as_ref(), chmod.as_ref(), &dest)?;
            }
            FileAction::MkDir { path, mode, owner, epoch } => {
                let owner = look_up(owner.as_ref(), &dest, Links::Follow)?.unwrap_or((0, 0));
                let path = dest.resolve(b"", path.as_bytes(), Links::Follow)?;
                dest.make_dirs(&path, &NewDir { mode: *mode, owner, epoch: *epoch })?;
            }
        }
    }
    Ok(())
}

/// What saves copying.
#[derive(Default)]
struct Saving<'a> {
    copies: Option<&'a Copies>,
    lenders: Option<Lenders<'a>>,
}

fn copy_from(copy: &Copy, tree: &Tree, dest: &mut Dest, saving: &Saving<'_>) -> Result<(), FileError> {
    let links = if copy.link { Links::Ignore } else { Links::Follow };
    let owner = look_up(copy.owner.as_ref(), dest, links)?;
    let parents = new_dir(owner, copy.chmod.as_ref());
    for selected in select::select(copy, tree)? {
        let target = dest.resolve(b"", copy.dest.as_bytes(), links)?;
        if copy.unpack
            && selected.meta.is_file()
            && let Some(archive) = archive::Archive::probe(tree, &selected.path)?
        {
            // --chmod is for plain files; what an archive holds keeps its modes.
            dest.make_dirs(&target, &new_dir(owner, None))?;
            saving.copies.inspect(|copies| copies.replaced());
            archive.unpack(dest, &target, owner)?;
            continue;
        }
        let copier = Copier {
            tree,
            dest,
            from_client: copy.from_client && tree.is_of_the_client(),
            owner,
            chmod: copy.chmod.as_ref(),
            no_reflink: AtomicBool::new(false),
            copies: saving.copies,
            lenders: saving.lenders.as_ref(),
        };
        if selected.meta.is_dir() {
            copy_directory(&copier, &selected, &target, &copy.dest, &parents)?;
        } else {
            let target = file_target(dest, target, &copy.dest, &selected.name)?;
            dest.make_dirs(dir::split(&target).0, &parents)?;
            copier.file(&selected.path, &selected.meta, &target)?;
        }
    }
    Ok(())
}

fn copy_directory(
    copier: &Copier<'_>,
    selected: &Selected,
    target: &[u8],
    written: &str,
    parents: &NewDir,
) -> Result<(), FileError> {
    match copier.dest.lookup(target)? {
        Some(found) if !found.meta.is_dir() => Err(FileError::NotDirectory { path: written.to_string() }),
        _ => copier.directory(selected, target, parents),
    }
}

/// Where a file goes that is copied to `target`, the resolved form of `written`: into it, if that is written as a
/// directory or is one.
fn file_target(dest: &Dest, target: Vec<u8>, written: &str, name: &[u8]) -> Result<Vec<u8>, FileError> {
    let as_dir = written.ends_with('/') || written.ends_with("/.") || target.is_empty();
    if as_dir || dest.lookup(&target)?.is_some_and(|found| found.meta.is_dir()) {
        return Ok(dir::join(&target, name));
    }
    Ok(target)
}

/// A heredoc.
struct NewFile<'a> {
    name: &'a str,
    dest: &'a str,
    mode: u32,
    data: &'a str,
}

fn make_file(file: &NewFile<'_>, owner: Option<&Owner>, chmod: Option<&Chmod>, dest: &Dest) -> Result<(), FileError> {
    let owner = look_up(owner, dest, Links::Follow)?;
    let target = dest.resolve(b"", file.dest.as_bytes(), Links::Follow)?;
    let target = file_target(dest, target, file.dest, file.name.as_bytes())?;
    dest.make_dirs(dir::split(&target).0, &new_dir(owner, chmod))?;
    if let Some(found) = dest.lookup(&target)? {
        if found.meta.is_dir() {
            return Err(FileError::ReplaceDirectory { path: absolute(&target) });
        }
        dest.remove(&target)?;
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(dest.upper(), target.as_slice(), flags, Mode::from_raw_mode(0o600));
    let mut output = File::from(opened.map_err(at("create", &target))?);
    output.write_all(file.data.as_bytes()).map_err(FileError::at("write", absolute(&target)))?;
    dest.set_owner(&target, owner.unwrap_or((0, 0)))?;
    let mode = chmod.map_or(Ok(file.mode), |chmod| chmod::apply(chmod, file.mode, false))?;
    dest.set_mode(&target, mode)
}

/// Directories on the way to a destination: 0755 unless `--chmod` gives a number. Without special bits, which
/// BuildKit's mkdir does not take either.
fn new_dir(owner: Option<(u32, u32)>, chmod: Option<&Chmod>) -> NewDir {
    let mode = match chmod {
        Some(Chmod::Octal(mode)) => mode & 0o777,
        Some(Chmod::Symbolic(_)) | None => 0o755,
    };
    NewDir { mode, owner: owner.unwrap_or((0, 0)), epoch: None }
}

fn look_up(owner: Option<&Owner>, dest: &Dest, links: Links) -> Result<Option<(u32, u32)>, FileError> {
    owner.map(|owner| owner::lookup(owner, dest, links)).transpose()
}

/// Threads that work on one step: what they do is half waiting for the disk.
fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, |count| count.get().clamp(2, 8))
}
