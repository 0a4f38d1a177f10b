//! What a COPY, ADD or bind mount takes from its source: reference 2.5 (sources), 2.6.5 and 2.6.6.

use super::tree::{Listings, Tree, components};
use super::{FileError, Missing};
use crate::source::dir::{self, Meta};
use frontend::ignore::Ignore;
use frontend::ignore::{has_wildcard, path_match};
use frontend::op::Copy;

/// One source that was found.
#[derive(Debug)]
pub struct Selected {
    /// Where it is in its tree; no links on the way.
    pub path: Vec<u8>,
    /// Its last name as it was matched, before links were followed: that of the copy of a file.
    pub name: Vec<u8>,
    /// What it is.
    pub meta: Meta,
    /// For a directory: what is taken of its content, each directory before what is in it, names sorted bytewise.
    pub entries: Vec<Picked>,
}

/// A file below a selected directory.
#[derive(Debug)]
pub struct Picked {
    /// Path below the selected directory, and so below the destination.
    pub rel: Vec<u8>,
    /// Where it is in its tree, if not at that path below the selected directory: a link was followed.
    pub from: Option<Box<[u8]>>,
    /// What it is.
    pub meta: Meta,
}

impl Selected {
    /// Where `picked` is in the tree.
    pub fn source_of(&self, picked: &Picked) -> Vec<u8> {
        match &picked.from {
            Some(path) => path.to_vec(),
            None => dir::join(&self.path, &picked.rel),
        }
    }
}

/// Something that a source names.
struct Match {
    /// Path as matched, relative to where matching began.
    rel: Vec<u8>,
    /// Path with links followed, from the root.
    path: Vec<u8>,
    meta: Meta,
}

/// Finds all that `copy` takes from `tree`. A source without wildcards that is not there is [`FileError::NotFound`].
pub fn select(copy: &Copy, tree: &Tree) -> Result<Vec<Selected>, FileError> {
    let bad = |error: frontend::ignore::IgnoreError| FileError::BadPattern { pattern: error.pattern };
    let exclude = Ignore::from_patterns(&copy.exclude).map_err(bad)?;
    if copy.parents {
        return select_parents(copy, tree, &exclude);
    }
    let source = Source::new(&copy.source, copy);
    let mut selected = Vec::new();
    for found in find(tree, b"", &source, Stars::OneLevel)? {
        let entries = match found.meta.is_dir() {
            true => below(tree, &found.path, b"", &exclude)?,
            false => Vec::new(),
        };
        let name = dir::split(&found.rel).1.to_vec();
        selected.push(Selected { path: found.path, name, meta: found.meta, entries });
    }
    Ok(selected)
}

/// The file or directory at `path`, with all that is below it.
pub fn select_path(path: &str, tree: &Tree, label: &str) -> Result<Selected, FileError> {
    let source = Source::literal(path, label);
    let mut found = find(tree, b"", &source, Stars::OneLevel)?;
    let found = found.pop().ok_or_else(|| source.missing(tree, b""))?;
    let entries = match found.meta.is_dir() {
        true => below(tree, &found.path, b"", &Ignore::default())?,
        false => Vec::new(),
    };
    Ok(Selected { name: dir::split(&found.rel).1.to_vec(), path: found.path, meta: found.meta, entries })
}

/// `--parents`: each match keeps its path below the pivot, so that the pivot is the one selected directory.
fn select_parents(copy: &Copy, tree: &Tree, exclude: &Ignore) -> Result<Vec<Selected>, FileError> {
    // A `/./` at the end is no pivot.
    let pivot = copy.source.find("/./").filter(|at| copy.source.len() > at + 3);
    let (before, behind) = pivot.map_or(("", copy.source.as_str()), |at| (&copy.source[..at], &copy.source[at + 3..]));
    let mut selected = Vec::new();
    for root in find(tree, b"", &Source::new(before, copy), Stars::AnyLevel)? {
        if !root.meta.is_dir() {
            continue;
        }
        let mut entries: Vec<Picked> = Vec::new();
        for found in find(tree, &root.path, &Source::new(behind, copy), Stars::AnyLevel)? {
            pick_with_parents(tree, &root.path, found, exclude, &mut entries)?;
        }
        // Several matches share parents, and `**` finds what lies in other matches.
        entries.sort_by(|a, b| components(&a.rel).cmp(components(&b.rel)));
        entries.dedup_by(|a, b| a.rel == b.rel);
        if !entries.is_empty() {
            selected.push(Selected { path: root.path, name: Vec::new(), meta: root.meta, entries });
        }
    }
    Ok(selected)
}

fn pick_with_parents(
    tree: &Tree,
    pivot: &[u8],
    found: Match,
    exclude: &Ignore,
    entries: &mut Vec<Picked>,
) -> Result<(), FileError> {
    let excluded = !found.rel.is_empty() && exclude.excluded(&dir::text(&found.rel));
    let followed = found.path != dir::join(pivot, &found.rel);
    let mut picked = Vec::new();
    if found.meta.is_dir() {
        picked = below(tree, &found.path, &found.rel, exclude)?;
        if followed {
            for entry in &mut picked {
                let inner = entry.rel.get(found.rel.len() + 1..).unwrap_or_default();
                entry.from = Some(dir::join(&found.path, inner).into());
            }
        }
    }
    if excluded && picked.is_empty() {
        return Ok(());
    }
    // Directories on the way, with the metadata they have in the source.
    let mut parent = dir::split(&found.rel).0;
    while !parent.is_empty() {
        if let Some((path, meta)) = tree.resolve(&dir::join(pivot, parent))? {
            let from = (path != dir::join(pivot, parent)).then(|| path.into());
            entries.push(Picked { rel: parent.to_vec(), from, meta });
        }
        parent = dir::split(parent).0;
    }
    if !found.rel.is_empty() {
        let from = followed.then(|| found.path.into());
        entries.push(Picked { rel: found.rel, from, meta: found.meta });
    }
    entries.append(&mut picked);
    Ok(())
}

/// What `exclude` leaves below the directory `path`. Patterns see paths that begin with `prefix`, as do the results.
fn below(tree: &Tree, path: &[u8], prefix: &[u8], exclude: &Ignore) -> Result<Vec<Picked>, FileError> {
    let relative = |full: &[u8]| {
        let inner = if path.is_empty() { full } else { full.get(path.len() + 1..).unwrap_or_default() };
        dir::join(prefix, inner)
    };
    let descend = |full: &[u8]| {
        if exclude.is_empty() {
            return true;
        }
        let rel = dir::text(&relative(full));
        !exclude.excluded(&rel) || exclude.may_include_below(&rel)
    };
    let listings = tree.walk(path, &descend)?;
    let mut entries = Vec::new();
    flatten(&listings, path, prefix, exclude, &mut entries);
    Ok(entries)
}

fn flatten(listings: &Listings, path: &[u8], rel: &[u8], exclude: &Ignore, entries: &mut Vec<Picked>) {
    let Some(listing) = listings.get(path) else { return };
    for entry in listing.iter() {
        let rel = dir::join(rel, &entry.name);
        let excluded = !exclude.is_empty() && exclude.excluded(&dir::text(&rel));
        if excluded && !entry.meta.is_dir() {
            continue;
        }
        let before = entries.len();
        entries.push(Picked { rel: rel.clone(), from: None, meta: entry.meta });
        if entry.meta.is_dir() {
            flatten(listings, &dir::join(path, &entry.name), &rel, exclude, entries);
        }
        // An excluded directory is made only for what an exception takes in below it.
        if excluded && entries.len() == before + 1 {
            entries.pop();
        }
    }
}

/// What `**` means.
#[derive(Clone, Copy, PartialEq)]
enum Stars {
    /// The same as `*`.
    OneLevel,
    /// Any number of directories.
    AnyLevel,
}

/// A source path taken apart.
struct Source<'a> {
    written: &'a str,
    label: &'a str,
    names: Vec<&'a [u8]>,
    clamped: bool,
    wild: bool,
}

impl<'a> Source<'a> {
    fn new(written: &'a str, copy: &'a Copy) -> Source<'a> {
        Source { wild: has_wildcard(written), ..Source::literal(written, &copy.source_label) }
    }

    fn literal(written: &'a str, label: &'a str) -> Source<'a> {
        let mut names = Vec::new();
        let mut clamped = false;
        for name in components(written.as_bytes()) {
            match name {
                b".." => clamped |= names.pop().is_none(),
                name => names.push(name),
            }
        }
        Source { written, label, names, clamped, wild: false }
    }

    /// The error for a source that is not there, with what can be said about why.
    fn missing(&self, tree: &Tree, start: &[u8]) -> FileError {
        let path = dir::join(start, &self.names.join(&b'/'));
        let text = dir::text(&path);
        let ignored = tree.context().and_then(|context| {
            let exists = dir::stat(context.root(), &path).ok().flatten().is_some();
            exists.then(|| context.ignore().reason(&text)).flatten().map(|(line, pattern)| (line, pattern.to_string()))
        });
        let near = if ignored.is_some() { Vec::new() } else { near_names(tree, &path) };
        let missing = Missing {
            label: self.label.to_string(),
            path: text,
            written: self.written.to_string(),
            near,
            ignored,
            clamped: self.clamped,
        };
        FileError::NotFound { missing: Box::new(missing) }
    }
}

/// All that `source` names below the directory `start`, sorted.
fn find(tree: &Tree, start: &[u8], source: &Source<'_>, stars: Stars) -> Result<Vec<Match>, FileError> {
    let is_wild = |name: &[u8]| source.wild && (has_wildcard(&dir::text(name)) || name.contains(&b'\\'));
    let plain = source.names.iter().take_while(|name| !is_wild(name)).count();
    let (fixed, wild) = source.names.split_at(plain);
    let rel = fixed.join(&b'/');
    let Some((path, meta)) = tree.resolve(&dir::join(start, &rel))? else {
        return if wild.is_empty() { Err(source.missing(tree, start)) } else { Ok(Vec::new()) };
    };
    let mut matches = Vec::new();
    let from = Match { rel, path, meta };
    expand(tree, from, wild, stars, source, &mut matches)?;
    matches.sort_by(|a, b| components(&a.rel).cmp(components(&b.rel)));
    matches.dedup_by(|a, b| a.rel == b.rel);
    Ok(matches)
}

/// Adds to `matches` what the names of a pattern match below `from`.
fn expand(
    tree: &Tree,
    from: Match,
    names: &[&[u8]],
    stars: Stars,
    source: &Source<'_>,
    matches: &mut Vec<Match>,
) -> Result<(), FileError> {
    let Some((&name, rest)) = names.split_first() else {
        matches.push(from);
        return Ok(());
    };
    if !from.meta.is_dir() {
        return Ok(());
    }
    let any_level = stars == Stars::AnyLevel && name == b"**";
    if any_level {
        let here = Match { rel: from.rel.clone(), path: from.path.clone(), meta: from.meta };
        if !rest.is_empty() {
            expand(tree, here, rest, stars, source, matches)?;
        }
    }
    let pattern = dir::text(name);
    for entry in tree.list(&from.path)?.iter() {
        let matched = any_level
            || path_match(&pattern, &dir::text(&entry.name))
                .map_err(|_| FileError::BadPattern { pattern: source.written.to_string() })?;
        if !matched {
            continue;
        }
        let rel = dir::join(&from.rel, &entry.name);
        let path = dir::join(&from.path, &entry.name);
        let found = Match { rel, path, meta: entry.meta };
        if any_level {
            match found.meta.is_dir() {
                // `**` goes on below; at the end of a pattern it takes all that is there.
                true if rest.is_empty() => matches.push(found),
                true => expand(tree, found, names, stars, source, matches)?,
                false if rest.is_empty() => follow(tree, found, source, matches)?,
                false => {}
            }
        } else if rest.is_empty() {
            follow(tree, found, source, matches)?;
        } else {
            // Links on the way are not followed by wildcards, as filepath.Walk does not.
            expand(tree, found, rest, stars, source, matches)?;
        }
    }
    Ok(())
}

/// Adds a match, or what it leads to if it is a link.
fn follow(tree: &Tree, found: Match, source: &Source<'_>, matches: &mut Vec<Match>) -> Result<(), FileError> {
    if !found.meta.is_symlink() {
        matches.push(found);
        return Ok(());
    }
    match tree.resolve(&found.path)? {
        Some((path, meta)) => {
            matches.push(Match { rel: found.rel, path, meta });
            Ok(())
        }
        None => {
            let text = dir::text(&found.path);
            Err(Source::literal(&text, source.label).missing(tree, b""))
        }
    }
}

/// Names beside the missing `path` that differ from it in case or by a letter or two.
fn near_names(tree: &Tree, path: &[u8]) -> Vec<String> {
    let (parent, name) = dir::split(path);
    let Ok(Some((parent_path, meta))) = tree.resolve(parent) else {
        return if parent.is_empty() { Vec::new() } else { near_names(tree, parent) };
    };
    if !meta.is_dir() || name.is_empty() {
        return Vec::new();
    }
    let Ok(listing) = tree.list(&parent_path) else { return Vec::new() };
    let wanted = dir::text(name).to_lowercase();
    let limit = (wanted.chars().count() / 3).min(3);
    let mut near: Vec<(usize, String)> = listing
        .iter()
        .map(|entry| {
            (distance(&wanted, &dir::text(&entry.name).to_lowercase()), dir::text(&dir::join(parent, &entry.name)))
        })
        .filter(|(distance, _)| *distance <= limit)
        .collect();
    near.sort();
    near.into_iter().take(3).map(|(_, name)| name).collect()
}

/// Letters to insert, remove or replace to make one of the other.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}
