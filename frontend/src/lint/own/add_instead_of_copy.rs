//! `AddInsteadOfCopy`: ADD unpacks and fetches; what needs neither is COPY's.

use super::around::Around;
use crate::git_url::{GitUrl, is_http};
use crate::instruction::Instruction;
use crate::placed::Placed;

/// Endings of what ADD unpacks.
const ARCHIVES: &[&str] = &[
    ".tar",
    ".tar.gz",
    ".tgz",
    ".taz",
    ".tar.bz2",
    ".tbz",
    ".tbz2",
    ".tb2",
    ".tar.xz",
    ".txz",
    ".tar.zst",
    ".tzst",
    ".tar.lzma",
    ".tlz",
    ".tar.Z",
    ".gz",
    ".bz2",
    ".xz",
    ".zst",
];

pub(super) fn check(at: &Around<'_>) {
    let Instruction::Add(add) = &at.command.instruction else { return };
    let is_plain = |source: &Placed| {
        let is_archive = ARCHIVES.iter().any(|ending| source.ends_with(ending));
        let is_remote = is_http(source) || !matches!(GitUrl::parse(source), Ok(None));
        // What a variable or a pattern stands for may be either.
        !is_archive && !is_remote && !source.contains(['$', '*', '?', '['])
    };
    let has_own_flags = add.keep_git_dir.is_some() || !add.checksum.is_empty() || add.unpack.is_some();
    if has_own_flags || !add.files.sources.iter().all(is_plain) {
        return;
    }
    let message = "ADD unpacks archives and fetches URLs; to copy files as they are, use COPY";
    at.fire("AddInsteadOfCopy", message.to_string());
}
