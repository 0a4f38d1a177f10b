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
    /// What it is.
    pub meta: Meta,
    /// A directory that is not itself taken: it is only made for what is taken below it.
    pub on_the_way: bool,
}

impl Selected {
    /// Where `picked` is in the tree.
    pub fn source_of(&self, picked: &Picked) -> Vec<u8> {
        dir::join(&self.path, &picked.rel)
    }
}

/// Something that a source names.
struct Match {
    /// Path as matched.
    written: Vec<u8>,
    /// Path with links followed.
    path: Vec<u8>,
    /// The last name as it was matched.
    name: Vec<u8>,
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
    for found in find(tree, &source)? {
        let entries = match found.meta.is_dir() {
            true => below(tree, &found.path, None, &exclude)?,
            false => Vec::new(),
        };
        selected.push(Selected { path: found.path, name: found.name, meta: found.meta, entries });
    }
    Ok(selected)
}

/// The file or directory at `path`, with all that is below it.
pub fn select_path(path: &str, tree: &Tree, label: &str) -> Result<Selected, FileError> {
    let source = Source::literal(path, label);
    let mut found = find(tree, &source)?;
    let found = found.pop().ok_or_else(|| source.missing(tree))?;
    let entries = match found.meta.is_dir() {
        true => below(tree, &found.path, None, &Ignore::default())?,
        false => Vec::new(),
    };
    Ok(Selected { path: found.path, name: found.name, meta: found.meta, entries })
}

/// `--parents`: what is taken keeps its path below the pivot, so that the pivot is the one selected directory. What
/// stands behind the pivot is a pattern as `--exclude` has them, which no links are followed for.
fn select_parents(copy: &Copy, tree: &Tree, exclude: &Ignore) -> Result<Vec<Selected>, FileError> {
    let (before, behind) = copy.source.split_once("/./").unwrap_or(("", &copy.source));
    let pattern = dir::text(&Source::literal(behind, "").names.join(&b'/'));
    let include = std::slice::from_ref(&pattern);
    let include = Ignore::from_patterns(include).map_err(|error| FileError::BadPattern { pattern: error.pattern })?;
    let whole = Source::literal(&copy.source, &copy.source_label);
    // Without wildcards the very path has to be there: no link on the way, and not excluded.
    let required = !has_wildcard(before) && !has_wildcard(behind);
    let roots = match find(tree, &Source::new(before, copy)) {
        Err(FileError::NotFound { .. }) if required => return Err(whole.missing(tree)),
        roots => roots?,
    };
    let mut selected = Vec::new();
    for root in roots {
        let mut entries = Vec::new();
        if root.meta.is_dir() {
            entries = below(tree, &root.path, Some(&include), exclude)?;
        }
        let is_plain = root.path == root.written;
        if required && !(is_plain && entries.iter().any(|picked| picked.rel == pattern.as_bytes())) {
            return Err(whole.missing(tree));
        }
        // BuildKit's client sends nothing of a file for a path that would be below it.
        if copy.from_client && !root.meta.is_dir() {
            continue;
        }
        selected.push(Selected { path: root.path, name: root.name, meta: root.meta, entries });
    }
    Ok(selected)
}

/// What there is below the directory `path`: of that what `include` matches, if it is given, without what `exclude`
/// leaves out. Patterns see paths below the directory.
fn below(tree: &Tree, path: &[u8], include: Option<&Ignore>, exclude: &Ignore) -> Result<Vec<Picked>, FileError> {
    let descend = |full: &[u8]| {
        let rel = if path.is_empty() { full } else { full.get(path.len() + 1..).unwrap_or_default() };
        let included = include.is_none_or(|include| include.excluded(rel) || include.may_exclude_below(rel));
        included && (exclude.is_empty() || !exclude.excluded(rel) || exclude.may_include_below(rel))
    };
    let listings = tree.walk(path, &descend)?;
    let mut entries = Vec::new();
    flatten(&listings, path, b"", include, exclude, &mut entries);
    Ok(entries)
}

fn flatten(
    listings: &Listings,
    path: &[u8],
    rel: &[u8],
    include: Option<&Ignore>,
    exclude: &Ignore,
    entries: &mut Vec<Picked>,
) {
    let Some(listing) = listings.get(path) else { return };
    let mut included = include.map(|include| include.within(rel));
    let mut excluded = (!exclude.is_empty()).then(|| exclude.within(rel));
    for entry in listing.iter() {
        let mut taken = included.as_mut().is_none_or(|within| within.excludes(&entry.name));
        taken &= !excluded.as_mut().is_some_and(|within| within.excludes(&entry.name));
        if !taken && !entry.meta.is_dir() {
            continue;
        }
        let rel = dir::join(rel, &entry.name);
        let before = entries.len();
        entries.push(Picked { rel: rel.clone(), meta: entry.meta, on_the_way: !taken });
        if entry.meta.is_dir() {
            flatten(listings, &dir::join(path, &entry.name), &rel, include, exclude, entries);
        }
        // A directory that is not taken is made only for what is taken below it.
        if !taken && entries.len() == before + 1 {
            entries.pop();
        }
    }
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
    fn missing(&self, tree: &Tree) -> FileError {
        let path = self.names.join(&b'/');
        let text = dir::text(&path);
        let ignored = tree.context().and_then(|context| {
            let exists = dir::stat(context.root(), &path).ok().flatten().is_some();
            exists.then(|| context.ignore().reason(&path)).flatten().map(|(line, pattern)| (line, pattern.to_string()))
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

/// All that `source` names, sorted.
fn find(tree: &Tree, source: &Source<'_>) -> Result<Vec<Match>, FileError> {
    let is_wild = |name: &[u8]| source.wild && (has_wildcard(&dir::text(name)) || name.contains(&b'\\'));
    let plain = source.names.iter().take_while(|name| !is_wild(name)).count();
    let (fixed, wild) = source.names.split_at(plain);
    let written = fixed.join(&b'/');
    let Some((path, meta)) = tree.resolve(&written)? else {
        let before_wildcards = Source { names: fixed.to_vec(), ..*source };
        return Err(before_wildcards.missing(tree));
    };
    let mut matches = Vec::new();
    let name = fixed.last().map_or(Vec::new(), |name| name.to_vec());
    expand(tree, Match { written, path, name, meta }, wild, source, &mut matches)?;
    matches.sort_by(|a, b| components(&a.written).cmp(components(&b.written)));
    matches.dedup_by(|a, b| a.written == b.written);
    Ok(matches)
}

/// Adds to `matches` what the names of a pattern match below `from`.
fn expand(
    tree: &Tree,
    from: Match,
    names: &[&[u8]],
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
    let pattern = dir::text(name);
    for entry in tree.list(&from.path)?.iter() {
        let matched = path_match(&pattern, &dir::text(&entry.name))
            .map_err(|_| FileError::BadPattern { pattern: source.written.to_string() })?;
        if !matched {
            continue;
        }
        let written = dir::join(&from.written, &entry.name);
        let path = dir::join(&from.path, &entry.name);
        let found = Match { written, path, name: entry.name.to_vec(), meta: entry.meta };
        if rest.is_empty() {
            follow(tree, found, source, matches)?;
        } else {
            // Links on the way are not followed by wildcards, as filepath.Walk does not.
            expand(tree, found, rest, source, matches)?;
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
            matches.push(Match { path, meta, ..found });
            Ok(())
        }
        None => {
            let text = dir::text(&found.path);
            Err(Source::literal(&text, source.label).missing(tree))
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
