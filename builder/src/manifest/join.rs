//! The entries of an index, joined of those of other images. Pure.

use crate::image::manifest::{Annotations, REFERENCE_DIGEST, REFERENCE_TYPE};
use cache::digest::Digest;
use frontend::platform::Platform;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A descriptor in an index (image-spec descriptor.md). What kiln does not know of it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Of the manifest or index.
    #[serde(default)]
    pub media_type: String,
    /// Of its bytes.
    pub digest: Digest,
    /// In bytes; 0 if a user's descriptor does not say.
    #[serde(default)]
    pub size: u64,
    /// Sorted by name.
    #[serde(default, deserialize_with = "null_is_empty", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// `os`, `architecture` and so on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Map<String, Value>>,
    #[serde(flatten)]
    rest: BTreeMap<String, Value>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

/// An index to be joined, or an image as an index of its own.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// As the user names it.
    pub name: String,
    /// In its order.
    pub entries: Vec<Entry>,
}

/// What is wanted beside the parts.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// Only these, if any are named.
    pub platforms: Vec<Platform>,
    /// On the entries of images: platform (`None`: all), name, value.
    pub on_entries: Vec<(Option<Platform>, String, String)>,
    /// On the index.
    pub on_index: Annotations,
}

/// Why parts do not make an index.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum JoinError {
    /// Two of them are for the same platform.
    #[error("{one} and {other} are both for {platform}")]
    SamePlatform {
        /// As in `--platform`.
        platform: String,
        /// The name and digest of the first.
        one: String,
        /// Those of the second.
        other: String,
    },
    /// None is for a platform that was asked for.
    #[error("no image is for {platform}; there are {}", if available.is_empty() { "none" } else { available })]
    NoSuchPlatform {
        /// As in `--platform`.
        platform: String,
        /// Those that there are.
        available: String,
    },
    /// Nothing is left.
    #[error("there is no image to make an index of")]
    Empty,
}

impl JoinError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            JoinError::SamePlatform { .. } => Some(
                "name one of them only, or the one that is meant by its digest; --platform takes some platforms of all, and \
                 --append replaces what the index has for a platform"
                    .into(),
            ),
            _ => None,
        }
    }
}

/// The entries: images in the order of the parts, then the attestations in the order of their images. What the target has
/// already gives way to a part for the same platform.
pub fn join(target: Option<&Part>, parts: &[Part], wishes: &Wishes) -> Result<Vec<Entry>, JoinError> {
    let mut images: Vec<(&str, Entry, bool)> = vec![];
    let mut attestations: Vec<&Entry> = vec![];
    let all = target.into_iter().map(|part| (part, true)).chain(parts.iter().map(|part| (part, false)));
    for (part, is_target) in all {
        for entry in &part.entries {
            if entry.attested().is_some() {
                attestations.push(entry);
                continue;
            }
            let same = images.iter_mut().find(|(_, known, _)| known.clashes(entry));
            match same {
                Some((_, known, _)) if known.digest == entry.digest => {
                    known.annotations.extend(entry.annotations.clone())
                }
                Some((name, known, known_target)) if *known_target && !is_target => {
                    (*name, *known, *known_target) = (&part.name, entry.clone(), false);
                }
                Some((name, known, _)) => {
                    return Err(JoinError::SamePlatform {
                        platform: entry.platform().map(|platform| platform.to_string()).unwrap_or_default(),
                        one: format!("{name} ({})", known.digest),
                        other: format!("{} ({})", part.name, entry.digest),
                    });
                }
                None => images.push((&part.name, entry.clone(), is_target)),
            }
        }
    }
    let mut images: Vec<Entry> = images.into_iter().map(|(_, entry, _)| entry).collect();
    select(&mut images, &wishes.platforms)?;
    for image in &mut images {
        let platform = image.platform();
        for (of, name, value) in &wishes.on_entries {
            if of.is_none() || *of == platform {
                image.annotations.insert(name.clone(), value.clone());
            }
        }
    }
    let mut about: Vec<Entry> = vec![];
    for image in &images {
        let of_image = attestations.iter().filter(|entry| entry.attested() == Some(image.digest.as_str()));
        for entry in of_image {
            if !about.iter().any(|known| known.digest == entry.digest) {
                about.push(Entry::clone(entry));
            }
        }
    }
    if images.is_empty() {
        return Err(JoinError::Empty);
    }
    images.extend(about);
    Ok(images)
}

fn select(images: &mut Vec<Entry>, wanted: &[Platform]) -> Result<(), JoinError> {
    if wanted.is_empty() {
        return Ok(());
    }
    for platform in wanted {
        if !images.iter().any(|image| image.platform().as_ref() == Some(platform)) {
            let available = images.iter().filter_map(|image| Some(image.platform()?.to_string()));
            let available = available.collect::<Vec<_>>().join(", ");
            return Err(JoinError::NoSuchPlatform { platform: platform.to_string(), available });
        }
    }
    images.retain(|image| image.platform().is_some_and(|platform| wanted.contains(&platform)));
    Ok(())
}

impl Entry {
    /// Of a document, without anything else.
    pub fn new(media_type: String, digest: Digest, size: u64) -> Entry {
        Entry { media_type, digest, size, annotations: BTreeMap::new(), platform: None, rest: BTreeMap::new() }
    }

    /// Normalised; `None` if it does not say.
    pub fn platform(&self) -> Option<Platform> {
        let map = self.platform.as_ref()?;
        let text = |key: &str| map.get(key).and_then(Value::as_str).unwrap_or_default();
        let (os, architecture) = (text("os"), text("architecture"));
        let is_known = !os.is_empty() && !architecture.is_empty() && os != "unknown";
        is_known.then(|| Platform::from_parts(os, architecture, text("variant"), text("os.version")))
    }

    /// Digest of the image that this is an attestation of, if it is one.
    pub fn attested(&self) -> Option<&str> {
        let is_one = self.annotations.contains_key(REFERENCE_TYPE);
        is_one.then(|| self.annotations.get(REFERENCE_DIGEST).map_or("", String::as_str))
    }

    /// Says what a user's descriptor of it says: platform and annotations take the place of those that it has.
    pub fn amend(&mut self, given: &Entry) {
        if !given.annotations.is_empty() {
            self.annotations = given.annotations.clone();
        }
        if given.platform.is_some() {
            self.platform = given.platform.clone();
        }
        self.rest.extend(given.rest.clone());
    }

    /// Whether an index cannot have both.
    fn clashes(&self, other: &Entry) -> bool {
        // Windows images for different builds, and variants, are different platforms; so are features.
        let features = |entry: &Entry| entry.platform.as_ref().and_then(|map| map.get("os.features").cloned());
        self.digest == other.digest
            || (self.platform().is_some() && self.platform() == other.platform() && features(self) == features(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(content: &str, platform: &str) -> Entry {
        let mut entry = Entry::new("m".into(), Digest::of(content.as_bytes()), 1);
        let mut words = platform.split('/');
        let names = ["os", "architecture", "variant"];
        let map = names.iter().zip(&mut words).map(|(name, word)| (name.to_string(), word.into()));
        entry.platform = Some(map.collect());
        entry
    }

    fn attestation(of: &str) -> Entry {
        let mut entry = entry(&format!("about {of}"), "unknown/unknown");
        let digest = Digest::of(of.as_bytes()).to_string();
        entry.annotations = BTreeMap::from([
            ("vnd.docker.reference.type".to_string(), "attestation-manifest".to_string()),
            ("vnd.docker.reference.digest".to_string(), digest),
        ]);
        entry
    }

    fn part(name: &str, entries: Vec<Entry>) -> Part {
        Part { name: name.into(), entries }
    }

    fn platform(text: &str) -> Platform {
        Platform::parse(text, &crate::host_platform()).unwrap()
    }

    fn digests(entries: &[Entry]) -> Vec<Digest> {
        entries.iter().map(|entry| entry.digest.clone()).collect()
    }

    fn check(target: Option<&Part>, parts: &[Part], platforms: &[&str], expect: &[&str]) {
        let wishes = Wishes { platforms: platforms.iter().map(|text| platform(text)).collect(), ..Wishes::default() };
        let joined = join(target, parts, &wishes).unwrap();
        let expect: Vec<Digest> = expect.iter().map(|content| Digest::of(content.as_bytes())).collect();
        assert_eq!(digests(&joined), expect);
    }

    #[test]
    fn images_first_then_what_is_about_them() {
        let one = part("one", vec![entry("a", "linux/amd64"), attestation("a")]);
        let two = part("two", vec![entry("b", "linux/arm64"), attestation("b"), attestation("elsewhere")]);
        let parts = [one, two];
        check(None, &parts, &[], &["a", "b", "about a", "about b"]);
        check(None, &parts, &["linux/arm64"], &["b", "about b"]);
        // The same twice is there once.
        check(None, &[parts[0].clone(), parts[0].clone()], &[], &["a", "about a"]);
    }

    #[test]
    fn what_is_appended_takes_the_place_of_what_was_there() {
        let target = part("t", vec![entry("a", "linux/amd64"), entry("b", "linux/arm64"), attestation("a")]);
        let new = part("n", vec![entry("a2", "linux/amd64"), attestation("a2"), entry("c", "linux/arm/v7")]);
        check(Some(&target), &[new], &[], &["a2", "b", "c", "about a2"]);
    }

    #[test]
    fn one_image_for_a_platform() {
        let parts = [part("one", vec![entry("a", "linux/arm64")]), part("two", vec![entry("b", "linux/arm64/v8")])];
        let error = join(None, &parts, &Wishes::default()).unwrap_err();
        assert!(error.to_string().ends_with("are both for linux/arm64"), "{error}");
        assert!(error.help().is_some());
        let wishes = Wishes { platforms: vec![platform("linux/s390x")], ..Wishes::default() };
        let error = join(None, &parts[..1], &wishes).unwrap_err();
        assert_eq!(error.to_string(), "no image is for linux/s390x; there are linux/arm64");
        assert_eq!(join(None, &[], &Wishes::default()), Err(JoinError::Empty));
    }

    #[test]
    fn annotations_go_where_they_are_meant() {
        let parts = [part("one", vec![entry("a", "linux/amd64"), entry("b", "linux/arm64")])];
        let on_entries = vec![
            (None, "all".to_string(), "1".to_string()),
            (Some(platform("linux/arm64")), "arm".to_string(), "2".to_string()),
        ];
        let joined = join(None, &parts, &Wishes { on_entries, ..Wishes::default() }).unwrap();
        let names = |entry: &Entry| entry.annotations.keys().cloned().collect::<Vec<_>>();
        assert_eq!([names(&joined[0]), names(&joined[1])], [vec!["all"], vec!["all", "arm"]]);
    }

    #[test]
    fn a_descriptor_amends_an_entry() {
        let digest = Digest::of(b"a");
        let given = |text: &str| serde_json::from_str::<Entry>(&text.replace("DIGEST", digest.as_str())).unwrap();
        let mut known = entry("a", "linux/amd64");
        known.annotations.insert("old".into(), "1".into());
        known.amend(&given(r#"{"digest":"DIGEST"}"#));
        assert_eq!((known.annotations.len(), known.platform().unwrap()), (1, platform("linux/amd64")));
        known.amend(&given(
            r#"{"digest":"DIGEST","platform":{"os":"linux","architecture":"arm64"},"annotations":{"new":"2"},"x":1}"#,
        ));
        let text = serde_json::to_string(&known).unwrap();
        let end = r#""annotations":{"new":"2"},"platform":{"architecture":"arm64","os":"linux"},"x":1}"#;
        assert!(text.ends_with(end), "{text}");
    }

    #[test]
    fn what_is_not_known_is_kept() {
        let digest = Digest::of(b"");
        let text = format!(
            r#"{{"mediaType":"m","digest":"{digest}","size":1,"annotations":null,"platform":{{"os":"linux","os.features":["x"]}},"artifactType":"t"}}"#
        );
        let entry: Entry = serde_json::from_str(&text).unwrap();
        let again = serde_json::to_string(&entry).unwrap();
        assert!(again.contains(r#""artifactType":"t""#) && again.contains(r#""os.features":["x"]"#), "{again}");
    }
}
