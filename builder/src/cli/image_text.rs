//! Images as `kiln image` prints them: docker's columns and members.

use super::filter;
use crate::local::record::{self, LocalError};
use crate::progress::track::bytes;
use crate::time::{ago, parse_rfc3339, rfc3339_millis};
use anyhow::{Context, Result, bail};
use cache::StoreError;
use cache::images::{AttestationDocuments, Documents, NamedImage, PlatformImage};
use cache::ledger::now_ms;
use cache::object::{Kind, ObjectId};
use cache::store::Store;
use cache::tree::Layer;
use frontend::image_config::ImageConfig;
use frontend::platform::Platform;
use frontend::reference::Reference;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{self, Write};

/// One condition of `kiln image ls --filter`.
pub enum Filter {
    Reference(regex::Regex),
    Label(String, Option<String>),
    Platform(Platform),
    /// Named at this time or later, milliseconds since 1970.
    Since(i64),
    Before(i64),
}

impl Filter {
    /// Reads `FIELD=VALUE`.
    pub fn parse(text: &str) -> Result<Filter> {
        let known = "reference, label, platform, since, before";
        let Some((field, value)) = text.split_once('=') else {
            bail!("--filter {text}: write FIELD=VALUE with one of the fields {known}");
        };
        let age = || {
            let age = filter::duration(value)
                .with_context(|| format!("--filter {text}: {field} takes a duration such as 24h"))?;
            anyhow::Ok(now_ms() - age.as_millis() as i64)
        };
        Ok(match field {
            "reference" => Filter::Reference(pattern(value)?),
            "label" => match value.split_once('=') {
                Some((name, value)) => Filter::Label(name.into(), Some(value.into())),
                None => Filter::Label(value.into(), None),
            },
            "platform" => {
                let platform = Platform::parse(value, &crate::host_platform());
                Filter::Platform(platform.with_context(|| format!("--filter {text}: no platform"))?)
            }
            "since" => Filter::Since(age()?),
            "before" => Filter::Before(age()?),
            _ => bail!("--filter {text}: there is no field `{field}`; there are {known}"),
        })
    }

    /// Whether it holds for an image.
    pub fn matches(&self, image: &NamedImage) -> bool {
        let familiar = familiar(&image.name);
        match self {
            Filter::Reference(pattern) => {
                let (repository, _) = repository_and_tag(&image.name);
                [familiar.as_str(), &repository, &image.name].iter().any(|name| pattern.is_match(name))
            }
            Filter::Label(name, value) => image.record.platforms.iter().any(|platform| {
                let labels =
                    record::config_of(&image.name, platform).map(|config| config.config.labels).unwrap_or_default();
                labels.get(name).is_some_and(|found| value.as_ref().is_none_or(|value| value == found))
            }),
            Filter::Platform(platform) => record::choose(&image.record, platform).is_some(),
            Filter::Since(at) => image.named_ms >= *at,
            Filter::Before(at) => image.named_ms < *at,
        }
    }
}

/// `*` is anything but a slash, `?` one such character.
fn pattern(text: &str) -> Result<regex::Regex> {
    let escaped = regex::escape(text).replace(r"\*", "[^/]*").replace(r"\?", "[^/]");
    Ok(regex::Regex::new(&format!("^(?:{escaped})$"))?)
}

/// As users write a canonical name.
pub fn familiar(name: &str) -> String {
    Reference::parse(name).map_or(name.to_string(), |reference| reference.familiar())
}

/// Repository and tag, as docker shows them; there is no tag in a name with a digest.
fn repository_and_tag(name: &str) -> (String, String) {
    let Ok(reference) = Reference::parse(name) else { return (name.to_string(), String::new()) };
    let tag = reference.tag.clone().filter(|_| reference.digest.is_none());
    (Reference { tag: None, digest: None, ..reference }.familiar(), tag.unwrap_or_default())
}

/// The same for people: of a digest in the name, as much as of ids.
fn shown_name(name: &str, is_whole: bool) -> (String, String) {
    let (repository, tag) = repository_and_tag(name);
    let Some((_, digest)) = name.split_once('@') else { return (repository, tag) };
    let beginning = digest.get(.."sha256:".len() + 12).filter(|_| !is_whole);
    (format!("{repository}@{}", beginning.unwrap_or(digest)), tag)
}

/// How long files in a store's objects are, in bytes.
pub type Sizes = HashMap<ObjectId, u64>;

/// Looks them up once for all.
pub fn sizes(store: &Store, images: &[NamedImage]) -> Result<Sizes, StoreError> {
    if images.is_empty() { Ok(Sizes::new()) } else { store.lengths() }
}

/// Of a layer's files; of one that was never unpacked, of its blob.
fn layer_size(layer: &Layer, sizes: &Sizes) -> u64 {
    let unpacked = sizes.get(&ObjectId::new(Kind::Snapshot, layer.snapshot.0.clone()));
    unpacked.copied().unwrap_or_else(|| layer.remote.as_ref().map_or(0, |remote| remote.descriptor.size))
}

fn image_size(image: &NamedImage, sizes: &Sizes) -> u64 {
    let layers = image.record.platforms.iter().flat_map(|platform| &platform.layers);
    let mut seen: Vec<&str> = vec![];
    let mut total = 0;
    for layer in layers {
        // Platforms may share layers.
        if !seen.contains(&&*layer.snapshot.0) {
            seen.push(&layer.snapshot.0);
            total += layer_size(layer, sizes);
        }
    }
    total
}

fn created(image: &NamedImage) -> Option<String> {
    image.record.platforms.iter().find_map(|platform| record::config_of(&image.name, platform).ok()?.created)
}

fn shown_id(image: &NamedImage, is_whole: bool) -> String {
    if is_whole { image.id.to_string() } else { image.id.hex()[..12].to_string() }
}

/// Ids, each once.
pub fn ids(out: &mut dyn Write, images: &[NamedImage], is_whole: bool) -> io::Result<()> {
    let mut ids: Vec<String> = images.iter().map(|image| shown_id(image, is_whole)).collect();
    ids.sort();
    ids.dedup();
    ids.iter().try_for_each(|id| writeln!(out, "{id}"))
}

/// docker's table, with platforms.
pub fn list(out: &mut dyn Write, images: &[NamedImage], sizes: &Sizes, is_whole: bool) -> io::Result<()> {
    let id_width = if is_whole { 71 } else { 12 };
    let names: Vec<(String, String)> = images.iter().map(|image| shown_name(&image.name, is_whole)).collect();
    let width = |header: &str, of: &dyn Fn(&(String, String)) -> usize| {
        names.iter().map(of).max().unwrap_or(0).max(header.len())
    };
    let (first, second) = (width("REPOSITORY", &|name| name.0.len()), width("TAG", &|name| name.1.len()));
    writeln!(
        out,
        "{:first$}  {:second$}  {:id_width$}  {:18}  {:>9}  PLATFORM",
        "REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"
    )?;
    for (image, (repository, tag)) in images.iter().zip(&names) {
        let made = created(image).and_then(|text| parse_rfc3339(&text)).map_or("-".into(), |at| ago(now_ms() - at));
        let (id, size) = (shown_id(image, is_whole), bytes(image_size(image, sizes)));
        let platforms = record::platforms(&image.record);
        writeln!(out, "{repository:first$}  {tag:second$}  {id:id_width$}  {made:18}  {size:>9}  {platforms}")?;
    }
    Ok(())
}

/// An object a line.
pub fn list_json(out: &mut dyn Write, images: &[NamedImage], sizes: &Sizes) -> io::Result<()> {
    for image in images {
        let (repository, tag) = repository_and_tag(&image.name);
        let size = image_size(image, sizes);
        let platforms: Vec<&str> = image.record.platforms.iter().map(|platform| platform.platform.as_str()).collect();
        let line = json!({
            "Repository": repository, "Tag": tag, "ID": image.id.as_str(), "Name": image.name,
            "CreatedAt": created(image), "NamedAt": rfc3339_millis(image.named_ms),
            "Size": bytes(size), "Bytes": size, "Platforms": platforms,
            "Digest": image.record.top.as_ref().map(|top| top.digest.as_str()), "Origin": image.record.origin,
        });
        writeln!(out, "{line}")?;
    }
    Ok(())
}

/// docker's members, an object for each platform of each image.
pub fn inspect(store: &Store, images: &[NamedImage], wanted: Option<&Platform>) -> Result<Vec<Value>, LocalError> {
    let (sizes, all) = (store.lengths()?, store.images()?);
    let mut shown = vec![];
    for image in images {
        let same = all.iter().filter(|other| other.id == image.id && !other.name.contains('@'));
        let tags: Vec<String> = same.map(|other| familiar(&other.name)).collect();
        shown.extend(inspect_one(store, image, &tags, &sizes, wanted)?);
    }
    Ok(shown)
}

fn inspect_one(
    store: &Store,
    image: &NamedImage,
    tags: &[String],
    sizes: &Sizes,
    wanted: Option<&Platform>,
) -> Result<Vec<Value>, LocalError> {
    let mut shown = vec![];
    for platform in &image.record.platforms {
        if wanted.is_some_and(|wanted| !wanted.acceptable().contains(&record::platform_of(platform))) {
            continue;
        }
        let config: ImageConfig = record::config_of(&image.name, platform)?;
        let mut layers = vec![];
        for layer in &platform.layers {
            let diff_id = diff_id(store, layer)?;
            layers.push(json!({ "DiffID": diff_id, "Snapshot": layer.snapshot.0, "Size": layer_size(layer, sizes) }));
        }
        let diff_ids: Option<Vec<&str>> = layers.iter().map(|layer| layer["DiffID"].as_str()).collect();
        let digest =
            image.record.top.as_ref().map(|top| format!("{}@{}", repository_and_tag(&image.name).0, top.digest));
        shown.push(json!({
            "Id": image.id.as_str(),
            "Attestations": platform.documents.as_ref().map_or(vec![], attestations),
            "ConfigDigest": platform.documents.as_ref().map(|documents| documents.config.digest.as_str()),
            "RepoTags": tags,
            "RepoDigests": digest.into_iter().collect::<Vec<String>>(),
            "Created": config.created,
            "Author": config.author,
            "Architecture": config.architecture,
            "Variant": config.variant,
            "Os": config.os,
            "Size": platform.layers.iter().map(|layer| layer_size(layer, sizes)).sum::<u64>(),
            "Config": config.config,
            // Of an image that was never written out, what the layers' tars are is not known.
            "RootFS": { "Type": "layers", "Layers": diff_ids },
            "Layers": layers,
            "Metadata": { "LastTagTime": rfc3339_millis(image.named_ms), "Origin": image.record.origin },
        }));
    }
    match (shown.is_empty(), wanted) {
        (true, Some(wanted)) => Err(record::no_platform(&image.name, &image.record, wanted)),
        _ => Ok(shown),
    }
}

/// What is attested of an image: digests of the manifests, and of what form each statement is.
fn attestations(documents: &Documents) -> Vec<Value> {
    let shown = |about: &AttestationDocuments| {
        let types: Vec<&str> = about.statements.iter().map(|statement| statement.predicate_type.as_str()).collect();
        json!({ "Digest": about.manifest.digest, "PredicateTypes": types })
    };
    documents.attestations.iter().map(shown).collect()
}

/// Of the layer's tar, if it is known.
fn diff_id(store: &Store, layer: &Layer) -> Result<Option<String>, StoreError> {
    match &layer.remote {
        Some(remote) => Ok(Some(remote.diff_id.to_string())),
        None => store.layer_diff_id(&layer.snapshot),
    }
}

/// One line of an image's history.
pub struct HistoryLine {
    created: Option<String>,
    created_by: String,
    comment: String,
    /// Of the layer; `None` if there is none.
    size: Option<u64>,
    snapshot: Option<String>,
}

/// The newest line first.
pub fn history(store: &Store, name: &str, image: &PlatformImage) -> Result<Vec<HistoryLine>, LocalError> {
    let sizes = store.lengths()?;
    let config = record::config_of(name, image)?;
    let mut layers = image.layers.iter();
    let mut lines = vec![];
    for entry in config.history {
        let layer = if entry.empty_layer { None } else { layers.next() };
        lines.push(HistoryLine {
            created: entry.created,
            created_by: entry.created_by,
            comment: entry.comment.into_owned(),
            size: layer.map(|layer| layer_size(layer, &sizes)),
            snapshot: layer.map(|layer| layer.snapshot.0.clone()),
        });
    }
    lines.reverse();
    Ok(lines)
}

/// docker's columns; what docker says of images that never were is left out.
pub fn history_table(out: &mut dyn Write, lines: &[HistoryLine], is_whole: bool) -> io::Result<()> {
    writeln!(out, "{:18}  {:>9}  CREATED BY", "CREATED", "SIZE")?;
    for line in lines {
        let made = line.created.as_deref().and_then(parse_rfc3339).map_or("-".into(), |at| ago(now_ms() - at));
        let by = line.created_by.split_whitespace().collect::<Vec<_>>().join(" ");
        let by: String = match is_whole || by.chars().count() <= 80 {
            true => by,
            false => by.chars().take(79).chain(['…']).collect(),
        };
        writeln!(out, "{made:18}  {:>9}  {by}", bytes(line.size.unwrap_or(0)))?;
    }
    Ok(())
}

/// An object a line.
pub fn history_json(out: &mut dyn Write, lines: &[HistoryLine]) -> io::Result<()> {
    for line in lines {
        let text = json!({
            "CreatedAt": line.created, "CreatedBy": line.created_by, "Comment": line.comment,
            "Size": bytes(line.size.unwrap_or(0)), "Bytes": line.size.unwrap_or(0),
            "EmptyLayer": line.size.is_none(), "Snapshot": line.snapshot,
        });
        writeln!(out, "{text}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_patterns() {
        let image = |name: &str| NamedImage {
            name: Reference::parse(name).unwrap().to_string(),
            id: cache::digest::Digest::of(b""),
            named_ms: 0,
            record: cache::images::ImageRecord { platforms: vec![], top: None, origin: String::new() },
        };
        let check = |filter: &str, name: &str, expect: bool| {
            let filter = Filter::parse(&format!("reference={filter}")).unwrap();
            assert_eq!(filter.matches(&image(name)), expect, "{name}");
        };
        check("app", "app:1", true);
        check("app:1", "app:1", true);
        check("app:2", "app:1", false);
        check("ap?:*", "app:1", true);
        check("example.org/*", "example.org/a", true);
        check("example.org/*", "example.org/a/b", false);
        check("docker.io/library/app:1", "app:1", true);
        assert!(Filter::parse("dangling=true").is_err());
    }
}
