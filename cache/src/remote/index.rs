//! The index of a remote cache: a set of records that several writers add to.
//!
//! Two indexes are merged key by key, and what is chosen for a key does not depend on who merges what in which order:
//! merging is commutative, associative and idempotent, so writers may repeat it until all agree. Everything is kept
//! in order, so equal sets are equal bytes.

use crate::digest::{Descriptor, Digest};
use crate::layer::compression::LayerBlob;
use serde::{Deserialize, Serialize};
use solver::key::CacheKey;
use std::collections::{BTreeMap, BTreeSet};

/// Format that this program writes, and the newest that it reads.
pub const VERSION: u32 = 1;
/// Media type of an index.
pub const MEDIA_TYPE: &str = "application/vnd.kiln.cache.v1+json";
/// Milliseconds of a day: times of use are kept no finer, so that a build that changes nothing changes no index.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// What a remote cache has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Index {
    /// Steps, by key.
    pub records: BTreeMap<CacheKey, RemoteRecord>,
    /// What selections from trees come to, by [`selection_key`].
    pub selections: BTreeMap<CacheKey, Selection>,
    /// Contents of cache mounts, by the mount's key.
    pub mounts: BTreeMap<CacheKey, RemoteMount>,
}

/// What a step came to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemoteRecord {
    /// When its layer was made, in milliseconds since 1970. Of several records of a key the first counts.
    pub created: i64,
    /// Content of what it changed (`Layer::change`), 64 hex digits.
    pub change: CacheKey,
    /// How long it ran, in milliseconds.
    pub cost: u64,
    /// Day on which it was last used, since 1970.
    pub used: u32,
    /// Its layer. `None`: only what the step came to is known, which is enough where nothing needs the files.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub blob: Option<RemoteBlob>,
}

/// A blob of the cache that holds a layer.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteBlob {
    /// Of the compressed bytes.
    pub digest: Digest,
    /// In bytes.
    pub size: u64,
    /// OCI media type of a layer.
    pub media_type: String,
    /// Digest of the uncompressed tar.
    pub diff_id: Digest,
    /// How it was compressed, as `Compression` prints it.
    pub made: String,
}

/// What is selected from a tree.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Selection {
    /// Digest of the selected, as the step's key has it.
    pub digest: String,
    /// Day on which it was last used, since 1970.
    pub used: u32,
}

/// Contents of a cache mount.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RemoteMount {
    /// When it was taken, in milliseconds since 1970. The last one counts.
    pub taken: i64,
    /// Digest of its contents.
    pub content: CacheKey,
    /// As a layer.
    pub blob: RemoteBlob,
}

/// An index that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Another format.
    #[error("the cache has format {found}, and this kiln knows {VERSION}: a newer kiln made it")]
    Newer {
        /// Its version.
        found: u32,
    },
    /// Not an index.
    #[error("the index of the cache cannot be read")]
    Parse(#[from] serde_json::Error),
}

impl RemoteBlob {
    /// Of a blob that was made with that compression.
    pub fn of(blob: &LayerBlob, made: String) -> RemoteBlob {
        let Descriptor { media_type, digest, size } = blob.descriptor.clone();
        RemoteBlob { digest, size, media_type, diff_id: blob.diff_id.clone(), made }
    }

    /// Its descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor { media_type: self.media_type.clone(), digest: self.digest.clone(), size: self.size }
    }
}

/// Names what `selector` selects in a tree of this content.
pub fn selection_key(content: &CacheKey, selector: &str) -> CacheKey {
    CacheKey::of(format!("selection {content}\n{selector}").as_bytes())
}

/// As it is written.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    #[serde(default)]
    records: Vec<(CacheKey, RemoteRecord)>,
    #[serde(default)]
    selections: Vec<(CacheKey, Selection)>,
    #[serde(default)]
    mounts: Vec<(CacheKey, RemoteMount)>,
}

#[derive(Deserialize)]
struct WireVersion {
    version: u32,
}

impl Index {
    /// Reads an index.
    ///
    /// # Errors
    /// [`IndexError::Newer`] if it is of a later format.
    pub fn parse(bytes: &[u8]) -> Result<Index, IndexError> {
        let WireVersion { version } = serde_json::from_slice(bytes)?;
        if version > VERSION {
            return Err(IndexError::Newer { found: version });
        }
        let wire: Wire = serde_json::from_slice(bytes)?;
        let mut index = Index::default();
        // What a faulty writer wrote twice is merged as if two had written it.
        wire.records.into_iter().for_each(|(key, record)| index.add_record(key, record));
        wire.selections.into_iter().for_each(|(key, selection)| index.add_selection(key, selection));
        wire.mounts.into_iter().for_each(|(key, mount)| index.add_mount(key, mount));
        Ok(index)
    }

    /// Compact JSON; equal indexes give equal bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let wire = Wire {
            version: VERSION,
            records: self.records.iter().map(|(key, record)| (*key, record.clone())).collect(),
            selections: self.selections.iter().map(|(key, selection)| (*key, selection.clone())).collect(),
            mounts: self.mounts.iter().map(|(key, mount)| (*key, mount.clone())).collect(),
        };
        serde_json::to_vec(&wire).expect("an index is plain data")
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty() && self.selections.is_empty() && self.mounts.is_empty()
    }

    /// Adds what another index has.
    pub fn merge(&mut self, other: Index) {
        other.records.into_iter().for_each(|(key, record)| self.add_record(key, record));
        other.selections.into_iter().for_each(|(key, selection)| self.add_selection(key, selection));
        other.mounts.into_iter().for_each(|(key, mount)| self.add_mount(key, mount));
    }

    /// Whether merging `other` into it would tell it anything but times of use that are younger by less than `days`.
    pub fn covers(&self, other: &Index, days: u32) -> bool {
        let mut merged = self.clone();
        merged.merge(other.clone());
        let recent = |old: u32, new: u32| new <= old.saturating_add(days);
        let same = |(key, record): (&CacheKey, &RemoteRecord)| {
            self.records.get(key).is_some_and(|old| {
                let aged = RemoteRecord { used: old.used, ..record.clone() };
                aged == *old && recent(old.used, record.used)
            })
        };
        let same_selection = |(key, selection): (&CacheKey, &Selection)| {
            let old = self.selections.get(key);
            old.is_some_and(|old| old.digest == selection.digest && recent(old.used, selection.used))
        };
        merged.records.iter().all(same) && merged.selections.iter().all(same_selection) && merged.mounts == self.mounts
    }

    /// Adds a record. With a layer it is worth more than without; of two, the one that was made first stays, so that
    /// what comes after it hits for all.
    pub fn add_record(&mut self, key: CacheKey, record: RemoteRecord) {
        match self.records.get_mut(&key) {
            None => drop(self.records.insert(key, record)),
            Some(old) => {
                let used = old.used.max(record.used);
                let rank = |record: &RemoteRecord| {
                    (record.blob.is_none(), record.created, record.change, record.cost, record.blob.clone())
                };
                if rank(&record) < rank(old) {
                    *old = record;
                }
                old.used = used;
            }
        }
    }

    /// Adds a selection.
    pub fn add_selection(&mut self, key: CacheKey, selection: Selection) {
        match self.selections.get_mut(&key) {
            None => drop(self.selections.insert(key, selection)),
            Some(old) => {
                old.used = old.used.max(selection.used);
                if selection.digest < old.digest {
                    old.digest = selection.digest;
                }
            }
        }
    }

    /// Adds a cache mount: of two, the one that was taken last stays.
    pub fn add_mount(&mut self, key: CacheKey, mount: RemoteMount) {
        match self.mounts.get_mut(&key) {
            None => drop(self.mounts.insert(key, mount)),
            Some(old) if mount > *old => *old = mount,
            Some(_) => {}
        }
    }

    /// All blobs, each once, by digest.
    pub fn blobs(&self) -> BTreeMap<Digest, &RemoteBlob> {
        let of_records = self.records.values().filter_map(|record| record.blob.as_ref());
        let of_mounts = self.mounts.values().map(|mount| &mount.blob);
        of_records.chain(of_mounts).map(|blob| (blob.digest.clone(), blob)).collect()
    }

    /// Forgets what is in blobs that are not there.
    pub fn drop_blobs(&mut self, missing: &BTreeSet<Digest>) {
        self.records.retain(|_, record| record.blob.as_ref().is_none_or(|blob| !missing.contains(&blob.digest)));
        self.mounts.retain(|_, mount| !missing.contains(&mount.blob.digest));
    }

    /// Keeps the `most` records, and as many selections, that were used last.
    pub fn trim(&mut self, most: usize) {
        keep_youngest(&mut self.records, most, |record| record.used);
        keep_youngest(&mut self.selections, most, |selection| selection.used);
        while self.mounts.len() > most {
            let oldest = self.mounts.iter().min_by_key(|(key, mount)| (mount.taken, **key)).map(|(key, _)| *key);
            self.mounts.retain(|key, _| Some(*key) != oldest);
        }
    }
}

fn keep_youngest<V>(map: &mut BTreeMap<CacheKey, V>, most: usize, used: impl Fn(&V) -> u32) {
    if map.len() <= most {
        return;
    }
    let mut ages: Vec<(u32, CacheKey)> = map.iter().map(|(key, value)| (used(value), *key)).collect();
    ages.sort_unstable_by(|a, b| b.cmp(a));
    let kept: BTreeSet<CacheKey> = ages[..most].iter().map(|(_, key)| *key).collect();
    map.retain(|key, _| kept.contains(key));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(number: u8) -> RemoteBlob {
        RemoteBlob {
            digest: Digest::of(&[number]),
            size: u64::from(number),
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            diff_id: Digest::of(&[number, number]),
            made: "gzip-4".into(),
        }
    }

    fn record() -> impl Strategy<Value = RemoteRecord> {
        (0i64..4, 0u8..3, 0u64..3, 0u32..9, prop::option::of(0u8..3)).prop_map(
            |(created, change, cost, used, layer)| RemoteRecord {
                created,
                change: CacheKey([change; 32]),
                cost,
                used,
                blob: layer.map(blob),
            },
        )
    }

    fn index() -> impl Strategy<Value = Index> {
        let key = || (0u8..6).prop_map(|number| CacheKey([number; 32]));
        let selection = (0u8..3, 0u32..9).prop_map(|(digest, used)| Selection { digest: digest.to_string(), used });
        let mount = (0i64..3, 0u8..3, 0u8..3).prop_map(|(taken, content, layer)| RemoteMount {
            taken,
            content: CacheKey([content; 32]),
            blob: blob(layer),
        });
        (
            prop::collection::btree_map(key(), record(), 0..6),
            prop::collection::btree_map(key(), selection, 0..6),
            prop::collection::btree_map(key(), mount, 0..4),
        )
            .prop_map(|(records, selections, mounts)| Index { records, selections, mounts })
    }

    fn merged(mut a: Index, b: Index) -> Index {
        a.merge(b);
        a
    }

    proptest! {
        #[test]
        fn merging_is_that_of_sets(a in index(), b in index(), c in index()) {
            prop_assert_eq!(merged(a.clone(), b.clone()), merged(b.clone(), a.clone()));
            prop_assert_eq!(merged(a.clone(), a.clone()), a.clone());
            prop_assert_eq!(merged(merged(a.clone(), b.clone()), c.clone()), merged(a.clone(), merged(b.clone(), c)));
            let both = merged(a.clone(), b.clone());
            prop_assert!(both.covers(&a, 0) && both.covers(&b, 0));
            prop_assert!(a.records.keys().chain(b.records.keys()).all(|key| both.records.contains_key(key)));
            if a.covers(&b, 0) {
                prop_assert_eq!(both, a);
            }
        }

        #[test]
        fn written_and_read_again(a in index()) {
            prop_assert_eq!(Index::parse(&a.to_bytes()).unwrap(), a);
        }

        #[test]
        fn trimming_keeps_the_youngest(a in index(), most in 0usize..6) {
            let mut trimmed = a.clone();
            trimmed.trim(most);
            prop_assert_eq!(trimmed.records.len(), a.records.len().min(most));
            let oldest_kept = trimmed.records.values().map(|record| record.used).min().unwrap_or(0);
            let gone = a.records.iter().filter(|(key, _)| !trimmed.records.contains_key(key));
            prop_assert!(most == 0 || gone.into_iter().all(|(_, record)| record.used <= oldest_kept));
        }
    }

    #[test]
    fn a_newer_format_is_told_from_damage() {
        assert!(matches!(Index::parse(br#"{"version":2,"records":7}"#), Err(IndexError::Newer { found: 2 })));
        assert!(matches!(Index::parse(b"{}"), Err(IndexError::Parse(_))));
        assert!(matches!(Index::parse(br#"{"version":1,"records":[["zz",{}]]}"#), Err(IndexError::Parse(_))));
        // What a later kiln of this format may add is passed over.
        assert_eq!(Index::parse(br#"{"version":1,"signatures":[]}"#).unwrap(), Index::default());
    }
}
