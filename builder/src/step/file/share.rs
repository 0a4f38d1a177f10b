//! Files of a former snapshot that a COPY takes as they are: they become hard links, since nothing ever writes to a snapshot.
//!
//! No program in a step may take two files for one that BuildKit would have made two. So a file that has another name
//! already is copied, one of the tree that is changed is, and so is one for a layer that may be put on other trees
//! (`--link`): a tree then never shows two names that are only one file because of this. A name that the same COPY gave a
//! file in a former snapshot does not count, for that one it gives again.

use super::FileError;
use super::dest::Dest;
use super::former::Copies;
use super::layers::{Layers, Place};
use crate::source::dir::Meta;
use frontend::op::Copy;
use rustix::fs::AtFlags;
use std::path::PathBuf;

/// The layers that files are taken from.
pub struct Lenders<'a> {
    layers: Layers,
    /// The tree that is changed.
    base: &'a [PathBuf],
    may_link: bool,
    copies: Option<&'a Copies>,
}

/// The layer that has a file, and what may be done with it.
pub struct Lender<'a> {
    place: Place<'a>,
    may_link: bool,
    copies: Option<&'a Copies>,
}

impl Lenders<'_> {
    /// Of a tree of `layers`, lowest first, of which `copy` puts files on top of `base`. `copies` knows the former snapshot.
    pub fn open<'a>(
        copy: &Copy,
        layers: &[PathBuf],
        base: &'a [PathBuf],
        copies: Option<&'a Copies>,
    ) -> Result<Lenders<'a>, FileError> {
        let layers = Layers::open(layers, copies.map(Copies::store))?;
        Ok(Lenders { layers, base, may_link: !copy.link, copies })
    }

    /// Of the file at `source`, of which the view of all layers says `meta`, and which becomes `target`. `None` if nothing
    /// is gained by it.
    pub fn find(&self, source: &[u8], meta: &Meta, target: &[u8], owner: (u32, u32), mode: u32) -> Option<Lender<'_>> {
        let is_same = (meta.mode, (meta.uid, meta.gid)) == (mode, owner);
        let has_one_name = || meta.nlink == 1 || self.copies.is_some_and(|copies| copies.has_linked(meta, target));
        let may_link = self.may_link && is_same && has_one_name();
        if !may_link && !self.layers.know_files() {
            return None;
        }
        let place = self.layers.find(source, meta)?;
        let may_link = may_link && !self.base.contains(place.path);
        Some(Lender { place, may_link, copies: self.copies })
    }
}

impl Lender<'_> {
    /// Makes `target` a link to the file at `source`. False if it has to be copied, because its metadata are to be others
    /// or for what is said above.
    pub fn link(&self, source: &[u8], dest: &Dest, target: &[u8]) -> bool {
        let link = || rustix::fs::linkat(self.place.folder, source, dest.upper(), target, AtFlags::empty());
        let is_linked = self.may_link && link().is_ok();
        if is_linked && let Some(copies) = self.copies {
            copies.linked(target, self.place.known);
        }
        is_linked
    }

    /// The file's data and attributes were copied to `target`.
    pub fn copied(&self, target: &[u8]) {
        if let (Some(copies), Some(known)) = (self.copies, self.place.known) {
            copies.lent(target, known);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{operation, plain};
    use super::super::{Copies, SourceTree, apply};
    use cache::store::Store;
    use cache::tree::SnapshotId;
    use frontend::op::{Chmod, Copy};
    use std::os::unix::fs::MetadataExt;
    use std::path::Path;

    /// Whether a file that two layers of a stage have is linked by a copy of the folder that it is in.
    fn is_linked(copy: Copy, base: &[&str], change: impl Fn(&Path)) -> bool {
        let temp = tempfile::tempdir().unwrap();
        let at = |name: &str| temp.path().join(name);
        for folder in ["low/d", "high/d", "base", "upper"] {
            std::fs::create_dir_all(at(folder)).unwrap();
        }
        std::fs::write(at("low/d/hidden"), "low").unwrap();
        std::fs::write(at("high/d/hidden"), "high").unwrap();
        std::fs::write(at("low/d/file"), "file").unwrap();
        change(temp.path());
        let (base, tree) = (base.iter().map(|name| at(name)).collect::<Vec<_>>(), [at("low"), at("high")]);
        apply(&operation(&[copy]), &base, &[SourceTree::Layers(tree.to_vec())], &at("upper"), None).unwrap();
        assert_eq!(std::fs::read_to_string(at("upper/x/hidden")).unwrap(), "high");
        assert_eq!(std::fs::read_to_string(at("upper/x/file")).unwrap(), "file");
        let inode = |path: &str| std::fs::metadata(at(path)).unwrap().ino();
        assert_ne!(inode("upper/x/hidden"), inode("low/d/hidden"));
        inode("upper/x/file") == inode("low/d/file")
    }

    #[test]
    fn only_what_nobody_can_tell_from_a_copy_is_linked() {
        let as_root = rustix::process::geteuid().is_root();
        let copy = || Copy { from_client: false, ..plain("d", "/x") };
        let check = |copy: Copy, base: &[&str], change: fn(&Path), expect: bool| {
            // Others may not mount the two layers.
            if as_root {
                assert_eq!(is_linked(copy, base, change), expect);
            }
        };
        check(copy(), &["base"], |_| (), true);
        check(Copy { link: true, ..copy() }, &[], |_| (), false);
        check(Copy { chmod: Some(Chmod::Octal(0o600)), ..copy() }, &[], |_| (), false);
        check(copy(), &["low"], |_| (), false);
        let second_name = |root: &Path| std::fs::hard_link(root.join("low/d/file"), root.join("other")).unwrap();
        check(copy(), &[], second_name, false);
    }

    #[test]
    fn what_the_same_copy_has_linked_is_linked_again() {
        let (temp, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let store = Store::open(temp.path()).unwrap();
        std::fs::create_dir(layer.path().join("d")).unwrap();
        for number in 0..100 {
            std::fs::write(layer.path().join(format!("d/{number}")), "x").unwrap();
        }
        let check = |name: &str, id: &str, expect: bool| {
            let draft = store.snapshots().prepare().unwrap();
            let copies = Copies::open(&store, name).unwrap();
            let (copy, tree) = (Copy { from_client: false, ..plain("d", "/x") }, layer.path().to_path_buf());
            apply(&operation(&[copy]), &[], &[SourceTree::Layers(vec![tree])], draft.upper(), Some(&copies)).unwrap();
            let (finished, id) = (copies.finish().unwrap(), SnapshotId(id.into()));
            store.snapshots().commit(draft, &id).unwrap();
            finished.keep(&store, &id).unwrap();
            let inode = |path: &Path| std::fs::metadata(path).unwrap().ino();
            let copied = inode(&store.snapshots().path(&id).join("x/7"));
            assert_eq!(copied == inode(&layer.path().join("d/7")), expect, "{name} {}", id.0);
        };
        check("a", "first", true);
        check("a", "second", true);
        // Another COPY may put them where the first one's are seen.
        check("b", "third", false);
    }
}
