//! Joins images to an index and pushes it, with all of them that its repository lacks: mounted where they are in the same
//! registry, and else copied.

use super::ManifestError;
use super::join::{Entry, Part, Wishes, join};
use super::source::{Source, Wanted, parse, read_target, read_wanted};
use crate::image::manifest::{Annotations, index, index_type};
use crate::image::select::{INDEX_TYPES, MANIFEST_TYPES};
use crate::progress::Vertex;
use crate::registry::push::{Opened, PushBlob, PushImage, PushManifest, push};
use crate::registry::settle::{back_off, settle};
use crate::registry::{Registry, RegistryError};
use cache::digest::{Descriptor, Digest};
use cache::layer::compression::MediaTypes;
use frontend::reference::Reference;
use serde::Deserialize;
use sha2::Digest as _;
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Instant;
use tokio::io::AsyncWriteExt;

/// Levels of indexes in indexes that are copied.
const DEPTH_LIMIT: usize = 4;
/// How often it is tried to add to a tag that others change.
const APPENDS_LIMIT: u32 = 20;

/// What is to be made.
pub struct Order {
    /// Where it goes.
    pub target: Reference,
    /// What it is made of, in order.
    pub sources: Vec<Wanted>,
    /// What the target has stays, but for the platforms of the sources.
    pub append: bool,
    /// One image becomes an index of one.
    pub prefer_index: bool,
    /// Which of it, and with what annotations.
    pub wishes: Wishes,
}

/// What is pushed.
pub struct Made {
    pub media_type: String,
    /// Exact bytes.
    pub bytes: Vec<u8>,
    entries: Vec<Entry>,
    /// Where each document is, by digest.
    places: HashMap<Digest, Reference>,
    /// What the target stood for when this was made.
    over: Option<Digest>,
    /// What was in that.
    before: Vec<Entry>,
}

impl Made {
    /// Of the index.
    pub fn digest(&self) -> Digest {
        Digest::of(&self.bytes)
    }

    /// Whether what this has added to `before` is in `now`, or something for the same platform that came later.
    fn is_kept(&self, now: &[Entry]) -> bool {
        let has = |entries: &[Entry], digest: &Digest| entries.iter().any(|entry| entry.digest == *digest);
        let added = self.entries.iter().filter(|entry| entry.attested().is_none() && !has(&self.before, &entry.digest));
        added.into_iter().all(|added| {
            let later = || now.iter().find(|entry| entry.platform == added.platform);
            has(now, &added.digest) || later().is_some_and(|later| !has(&self.before, &later.digest))
        })
    }
}

/// Reads the sources and makes the index; nothing is written anywhere.
pub async fn make(registry: &Registry, order: &Order) -> Result<Made, ManifestError> {
    let target = match order.append {
        true => read_target(registry, &order.target).await?,
        false => None,
    };
    let reading = order.sources.iter().map(|source| read_wanted(registry, source));
    let sources = futures::future::try_join_all(reading).await?;
    let over = target.as_ref().map(|target| target.document.descriptor.digest.clone());
    let before = target.as_ref().map(|target| target.part.entries.clone()).unwrap_or_default();
    let mut places = HashMap::new();
    for source in target.iter().chain(&sources) {
        places.entry(source.document.descriptor.digest.clone()).or_insert_with(|| source.name.clone());
        for entry in &source.part.entries {
            places.entry(entry.digest.clone()).or_insert_with(|| source.name.clone());
        }
    }
    let parts: Vec<Part> = sources.iter().map(|source| source.part.clone()).collect();
    let entries = join(target.as_ref().map(|target| &target.part), &parts, &order.wishes)?;
    if let Some(source) = as_it_is(target.as_ref(), &sources, order) {
        let (media_type, bytes) = (source.document.descriptor.media_type.clone(), source.document.bytes.clone());
        // Also what is about none of its images: it names that, too.
        let entries = source.part.entries.clone();
        return Ok(Made { media_type, bytes, entries, places, over, before });
    }
    let mut annotations: Annotations = target.iter().flat_map(|target| target.annotations.clone()).collect();
    annotations.extend(order.wishes.on_index.clone());
    let is_docker = |source: &Source| source.document.descriptor.media_type.contains("vnd.docker.");
    let has_annotations = !annotations.is_empty() || entries.iter().any(|entry| !entry.annotations.is_empty());
    let types = match target.iter().chain(&sources).all(is_docker) && !has_annotations {
        true => MediaTypes::Docker,
        false => MediaTypes::Oci,
    };
    let bytes = index(types, &entries, &annotations);
    Ok(Made { media_type: index_type(types).to_string(), bytes, entries, places, over, before })
}

/// The only source, if it is to be copied and not to be changed.
fn as_it_is<'a>(target: Option<&Source>, sources: &'a [Source], order: &Order) -> Option<&'a Source> {
    let Wishes { platforms, on_entries, on_index } = &order.wishes;
    let [source] = sources else { return None };
    let is_plain =
        target.is_none() && !source.is_amended && platforms.is_empty() && on_entries.is_empty() && on_index.is_empty();
    (is_plain && (source.is_index() || !order.prefer_index)).then_some(source)
}

/// Makes the index and pushes it. If somebody else changes the tag meanwhile, or soon after without having seen what is
/// appended, it is appended to that.
pub async fn create(registry: &Registry, order: &Order, vertex: &Vertex) -> Result<Descriptor, ManifestError> {
    let name = order.target.to_string();
    for attempt in 0..APPENDS_LIMIT {
        let made = make(registry, order).await?;
        let image = collect(registry, order, &made).await?;
        if order.append {
            let now = registry.tag_digest(&order.target, vertex).await;
            let now = now.map_err(|source| ManifestError::Read { name: name.clone(), source })?;
            if now != made.over {
                back_off(attempt).await;
                continue;
            }
        }
        let folder = tempfile::Builder::new().prefix("kiln-copy-").tempdir();
        let folder = folder.map_err(|source| ManifestError::Io {
            verb: "make a folder in",
            path: std::env::temp_dir(),
            source,
        })?;
        let open = |blob: PushBlob| -> Opened<'_, ManifestError> {
            let path = folder.path().join(blob.descriptor.digest.hex());
            Box::pin(async move {
                download(registry, &blob, &path).await?;
                Ok(path)
            })
        };
        let began = Instant::now();
        let pushed = push(registry, &order.target, &image, &open, vertex).await;
        let digest = pushed.map_err(|error| ManifestError::push(&name, error))?;
        if order.append {
            settle(began).await;
            let now = read_target(registry, &order.target).await?;
            if !made.is_kept(&now.map(|now| now.part.entries).unwrap_or_default()) {
                continue;
            }
        }
        return Ok(Descriptor { media_type: made.media_type, digest, size: made.bytes.len() as u64 });
    }
    Err(ManifestError::Contended { name, times: APPENDS_LIMIT })
}

/// What of a manifest or index are other documents and blobs.
#[derive(Deserialize)]
struct Contents {
    #[serde(default)]
    config: Option<Descriptor>,
    #[serde(default)]
    layers: Option<Vec<Descriptor>>,
    #[serde(default)]
    manifests: Option<Vec<Descriptor>>,
}

/// All that the target's repository needs. What is in that repository already is not looked into.
async fn collect(registry: &Registry, order: &Order, made: &Made) -> Result<PushImage, ManifestError> {
    let mut image = PushImage::default();
    let mut seen: HashSet<Digest> = HashSet::new();
    let mut todo: Vec<(Digest, Reference, usize)> = vec![];
    for entry in &made.entries {
        todo.push((entry.digest.clone(), made.places[&entry.digest].clone(), 0));
    }
    if MANIFEST_TYPES.contains(&made.media_type.as_str()) {
        // Itself is what is pushed under the tag; its blobs are what is needed.
        let place = made.places[&made.digest()].clone();
        let contents: Contents = parse(&place, &made.digest(), &made.bytes)?;
        add_blobs(&mut image, &mut seen, contents, &place);
        todo.clear();
    }
    while let Some((digest, place, depth)) = todo.pop() {
        if place.repository() == order.target.repository() || !seen.insert(digest.clone()) {
            continue;
        }
        if depth > DEPTH_LIMIT {
            return Err(ManifestError::Depth { name: place.to_string(), limit: DEPTH_LIMIT });
        }
        let document = registry.manifest(&place, &digest).await;
        let document = document.map_err(|source| ManifestError::Read { name: place.to_string(), source })?;
        let mut contents: Contents = parse(&place, &digest, &document.bytes)?;
        for child in contents.manifests.take().unwrap_or_default() {
            todo.push((child.digest, place.clone(), depth + 1));
        }
        add_blobs(&mut image, &mut seen, contents, &place);
        let told = document.descriptor.media_type;
        let media_type = crate::image::select::media_type(&document.bytes, &told);
        image.manifests.push(PushManifest { media_type, bytes: document.bytes });
    }
    // What was found last is named by what was found before.
    image.manifests.reverse();
    image.manifests.sort_by_key(|manifest| INDEX_TYPES.contains(&manifest.media_type.as_str()));
    image.manifests.push(PushManifest { media_type: made.media_type.clone(), bytes: made.bytes.clone() });
    Ok(image)
}

fn add_blobs(image: &mut PushImage, seen: &mut HashSet<Digest>, contents: Contents, place: &Reference) {
    for descriptor in contents.config.into_iter().chain(contents.layers.unwrap_or_default()) {
        // Layers that must not be distributed are where their URLs say.
        let stays = descriptor.media_type.contains("nondistributable") || descriptor.media_type.contains("foreign");
        if !stays && seen.insert(descriptor.digest.clone()) {
            image.blobs.push(PushBlob { descriptor, origins: vec![place.to_string()] });
        }
    }
}

/// Has a blob in a file, verified.
async fn download(registry: &Registry, blob: &PushBlob, path: &Path) -> Result<(), ManifestError> {
    let PushBlob { descriptor, origins } = blob;
    let place = origins.first().and_then(|origin| Reference::parse(origin).ok());
    let place = place.expect("every blob was collected with its place");
    let read = |source| ManifestError::Read { name: place.to_string(), source };
    let failed = |source| ManifestError::Io { verb: "write", path: path.to_owned(), source };
    let mut reader = registry.blob(&place, descriptor).await.map_err(read)?;
    let mut file = tokio::fs::File::create(path).await.map_err(failed)?;
    let mut hash = sha2::Sha256::new();
    while let Some(chunk) = reader.chunk().await.map_err(read)? {
        hash.update(&chunk);
        file.write_all(&chunk).await.map_err(failed)?;
    }
    file.flush().await.map_err(failed)?;
    let actual = Digest::from_sha256(hash.finalize().into());
    if actual != descriptor.digest {
        let (url, expected) = (reader.url(), descriptor.digest.clone());
        return Err(read(RegistryError::Digest { url, expected, actual }));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(architecture: &str, content: &str) -> Entry {
        let mut entry = Entry::new(String::new(), Digest::of(content.as_bytes()), 1);
        entry.platform = Some(serde_json::Map::from_iter([("architecture".to_string(), architecture.into())]));
        entry
    }

    #[test]
    fn what_was_appended_is_kept_or_followed_by_something_newer() {
        let before = vec![entry("arm64", "old"), entry("s390x", "other")];
        let entries = vec![entry("arm64", "new"), entry("s390x", "other"), entry("amd64", "amd")];
        let (media_type, bytes, places, over) = (String::new(), vec![], HashMap::new(), None);
        let made = Made { media_type, bytes, entries: entries.clone(), places, over, before: before.clone() };
        let with = |changed: Entry| {
            let stays = entries.iter().filter(|entry| entry.platform != changed.platform).cloned();
            stays.chain([changed.clone()]).collect::<Vec<_>>()
        };
        assert!(made.is_kept(&entries));
        assert!(made.is_kept(&with(entry("arm64", "newer still"))));
        assert!(made.is_kept(&entries[..1].iter().chain(&entries[2..]).cloned().collect::<Vec<_>>()));
        assert!(!made.is_kept(&with(entry("arm64", "old"))));
        assert!(!made.is_kept(&entries[..2]));
        assert!(!made.is_kept(&before));
        assert!(!made.is_kept(&[]));
    }
}
