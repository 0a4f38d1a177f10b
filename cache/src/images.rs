//! Images by name: what `kiln build -t` leaves, and `kiln image` lists, tags, removes.
//!
//! A name stands for a record: for each platform a config and the layers, as steps or pulls made them. Writing one costs a
//! row; blobs are made of it when somebody saves or pushes the image. The store knows layers and digests; what is in a
//! config it does not.
//!
//! Invariant: what a named image needs is not pruned, whatever asks for it ([`Store::held_by_images`]). Whoever names an
//! image has leased its parts first, and whoever removes a part looks for names after it has the part for itself.

use crate::digest::{Descriptor, Digest};
use crate::error::StoreError;
use crate::ledger::now_ms;
use crate::object::{Kind, ObjectId};
use crate::store::Store;
use crate::tree::{Layer, SnapshotId};
use rusqlite::{Connection, params};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};

/// What a name stands for. Equal images have equal records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// In the order of the index; at least one.
    pub platforms: Vec<PlatformImage>,
    /// The index or manifest, if the image has documents: it was loaded, or its exporter made them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top: Option<Descriptor>,
    /// Where it came from, such as `build` or `loaded from app.tar`.
    pub origin: String,
}

/// An image for one platform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlatformImage {
    /// Such as `linux/arm64`.
    pub platform: String,
    /// JSON. Of an image without documents as it was planned: without `rootfs` and the times of new history entries.
    pub config: String,
    /// Entries at the start of the history that came with the base.
    pub base_history_len: usize,
    /// `SOURCE_DATE_EPOCH` of the build, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<i64>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// If there are documents; they and the blobs that they name are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub documents: Option<Documents>,
}

/// The documents of one platform's image: its manifest, and what that and its attestations name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Documents {
    /// Of the manifest.
    pub manifest: Descriptor,
    /// Of the config.
    pub config: Descriptor,
    /// Of the layers' blobs as the manifest has them, lowest first.
    pub layers: Vec<Descriptor>,
    /// What is attested of the image, in the order of the index that names both. Absent in records of older kilns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attestations: Vec<AttestationDocuments>,
}

/// An attestation manifest about one platform's image, and what it names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttestationDocuments {
    /// Of the manifest.
    pub manifest: Descriptor,
    /// Of its config.
    pub config: Descriptor,
    /// In the order of the manifest.
    pub statements: Vec<Statement>,
}

/// Something that is said of an image.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// URL of the form of what is said; empty if the manifest gives none.
    pub predicate_type: String,
    /// Of the statement.
    pub blob: Descriptor,
}

impl Documents {
    /// All of them.
    pub fn descriptors(&self) -> impl Iterator<Item = &Descriptor> {
        let attested = self.attestations.iter().flat_map(|about| {
            let statements = about.statements.iter().map(|statement| &statement.blob);
            [&about.manifest, &about.config].into_iter().chain(statements)
        });
        [&self.manifest, &self.config].into_iter().chain(&self.layers).chain(attested)
    }
}

/// A record under its name.
#[derive(Clone, Debug, PartialEq)]
pub struct NamedImage {
    /// Canonical, such as `docker.io/library/app:latest`.
    pub name: String,
    /// [`ImageRecord::id`].
    pub id: Digest,
    /// When the name was given to this record, milliseconds since 1970.
    pub named_ms: i64,
    /// What it stands for.
    pub record: ImageRecord,
}

/// What came of naming an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Naming {
    /// It had the name already; nothing was written.
    Same,
    /// Nothing had the name.
    New,
    /// Another image had it, of this id.
    Moved(Digest),
}

impl ImageRecord {
    /// What the image is called by whatever its names are: the config's digest as for docker, or the index's; of an image
    /// without documents, a digest of all but the origin.
    pub fn id(&self) -> Digest {
        match (&self.top, &self.platforms[..]) {
            (Some(_), [PlatformImage { documents: Some(documents), .. }]) => return documents.config.digest.clone(),
            (Some(top), _) => return top.digest.clone(),
            (None, _) => {}
        }
        let content = ImageRecord { origin: String::new(), ..self.clone() };
        Digest::of(&serde_json::to_vec(&content).expect("a record is plain data"))
    }

    /// What it consists of: documents, snapshots of steps, and the blobs of layers that were pulled or loaded. Blobs that can
    /// be pulled again need not be there.
    pub fn parts(&self) -> Vec<ObjectId> {
        let blob = |digest: &Digest| ObjectId::new(Kind::Blob, digest.hex());
        let mut parts: Vec<ObjectId> = self.top.iter().map(|top| blob(&top.digest)).collect();
        for image in &self.platforms {
            for layer in &image.layers {
                match &layer.remote {
                    None => parts.push(ObjectId::new(Kind::Snapshot, layer.snapshot.0.clone())),
                    Some(remote) => parts.push(blob(&remote.descriptor.digest)),
                }
            }
            if let Some(documents) = &image.documents {
                parts.extend(documents.descriptors().map(|descriptor| blob(&descriptor.digest)));
            }
        }
        parts
    }

    /// Also what is kept since the image is better had at once: unpacked layers.
    fn held(&self) -> Vec<ObjectId> {
        let snapshot = |layer: &Layer| ObjectId::new(Kind::Snapshot, layer.snapshot.0.clone());
        let is_local = |layer: &&Layer| layer.remote.as_ref().is_none_or(|remote| !is_stored_origin(&remote.origin));
        let unpacked = self.platforms.iter().flat_map(|image| &image.layers).filter(is_local).map(snapshot);
        let mut held = self.parts();
        held.extend(unpacked);
        held.sort();
        held.dedup();
        held
    }
}

/// Origin of layers whose blobs are in this store and nowhere else that kiln knows of.
pub const STORED: &str = "store:";

/// Whether a layer's origin is this store.
pub fn is_stored_origin(origin: &str) -> bool {
    origin.starts_with(STORED)
}

impl Store {
    /// Gives a name to an image; the name is taken from what had it. Writes nothing if it has it already.
    pub fn name_image(&self, name: &str, record: &ImageRecord) -> Result<Naming, StoreError> {
        let id = record.id();
        for part in record.parts() {
            // From here on nobody removes it, and after this process the name holds it.
            self.inner.ledger.uses(&part)?;
        }
        let former = self.image_named(name)?;
        // Where it came from is no difference; how its layers are compressed is.
        if former.as_ref().is_some_and(|former| former.id == id && former.record.top == record.top) {
            return Ok(Naming::Same);
        }
        let text = serde_json::to_string(record).expect("a record is plain data");
        self.inner.db.write("name an image", |db| {
            db.prepare_cached("INSERT OR REPLACE INTO images (name, id, named_ms, record) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![name, id.as_str(), now_ms(), text])
                .map(drop)
        })?;
        Ok(match former {
            Some(former) if former.id != id => Naming::Moved(former.id),
            _ => Naming::New,
        })
    }

    /// The image of a name.
    pub fn image_named(&self, name: &str) -> Result<Option<NamedImage>, StoreError> {
        Ok(self.images_where("WHERE name = ?1", &[name])?.pop())
    }

    /// All images, by name.
    pub fn images(&self) -> Result<Vec<NamedImage>, StoreError> {
        self.images_where("", &[])
    }

    fn images_where(&self, condition: &str, values: &[&str]) -> Result<Vec<NamedImage>, StoreError> {
        let query = format!("SELECT name, id, named_ms, record FROM images {condition} ORDER BY name");
        self.inner.db.read("list images", |db| images(db, &query, values))
    }

    /// Takes a name away; whether there was one.
    pub fn unname_image(&self, name: &str) -> Result<bool, StoreError> {
        self.inner.db.write("remove an image's name", |db| {
            db.prepare_cached("DELETE FROM images WHERE name = ?1")?.execute([name]).map(|rows| rows > 0)
        })
    }

    /// What named images hold: object -> the names, in their order.
    pub fn held_by_images(&self) -> Result<HashMap<ObjectId, Vec<String>>, StoreError> {
        let mut held: HashMap<ObjectId, Vec<String>> = HashMap::new();
        for image in self.images()? {
            for id in image.record.held() {
                held.entry(id).or_default().push(image.name.clone());
            }
        }
        Ok(held)
    }

    /// The parts of an image that are not in the store and cannot be fetched.
    pub fn missing_parts(&self, record: &ImageRecord) -> Result<Vec<ObjectId>, StoreError> {
        let remotes = record.platforms.iter().flat_map(|image| &image.layers).filter_map(|layer| layer.remote.as_ref());
        let elsewhere: HashSet<&str> = remotes
            .filter(|remote| !is_stored_origin(&remote.origin))
            .map(|remote| remote.descriptor.digest.hex())
            .collect();
        let mut missing = vec![];
        for id in record.parts() {
            let is_there = match id.kind {
                Kind::Snapshot => self.snapshots().exists(&SnapshotId(id.name.clone())),
                _ if elsewhere.contains(&*id.name) => true,
                _ => match format!("sha256:{}", id.name).parse() {
                    Ok(digest) => self.content().has(&digest)?.is_some(),
                    Err(_) => false,
                },
            };
            if !is_there {
                missing.push(id);
            }
        }
        Ok(missing)
    }
}

/// What cannot be read is as good as no image; it was written by a kiln that is newer, or is damaged.
fn images(db: &Connection, query: &str, values: &[&str]) -> rusqlite::Result<Vec<NamedImage>> {
    let mut select = db.prepare_cached(query)?;
    let mut rows = select.query(rusqlite::params_from_iter(values))?;
    let mut found = vec![];
    while let Some(row) = rows.next()? {
        let (id, record): (String, String) = (row.get(1)?, row.get(3)?);
        let (Ok(id), Ok(record)) = (id.parse(), serde_json::from_str(&record)) else { continue };
        found.push(NamedImage { name: row.get(0)?, id, named_ms: row.get(2)?, record });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prune::{Limits, Policy, plan_prune};

    fn record(store: &Store, layers: &[&str]) -> ImageRecord {
        let layer = |id: &&str| {
            let snapshot = SnapshotId(id.to_string());
            let draft = store.snapshots().prepare().unwrap();
            std::fs::write(draft.upper().join("file"), vec![1; 20_000]).unwrap();
            store.snapshots().commit(draft, &snapshot).unwrap();
            Layer { snapshot, change: id.to_string(), created_ms: Some(1), remote: None }
        };
        let image = PlatformImage {
            platform: "linux/amd64".into(),
            config: "{}".into(),
            base_history_len: 0,
            epoch: None,
            layers: layers.iter().map(layer).collect(),
            documents: None,
        };
        ImageRecord { platforms: vec![image], top: None, origin: "build".into() }
    }

    #[test]
    fn names_move() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let (one, other) = (record(&store, &["a"]), record(&store, &["b"]));
        assert_eq!(store.name_image("app", &one).unwrap(), Naming::New);
        assert_eq!(store.name_image("app", &one).unwrap(), Naming::Same);
        assert_eq!(store.name_image("app", &other).unwrap(), Naming::Moved(one.id()));
        let found = Store::open(dir.path()).unwrap().image_named("app").unwrap().unwrap();
        assert_eq!((found.id, found.record), (other.id(), other));
        assert_eq!(store.images().unwrap().len(), 1);
        assert!(store.unname_image("app").unwrap());
        assert!(!store.unname_image("app").unwrap());
        assert_eq!(store.image_named("app").unwrap(), None);
    }

    #[test]
    fn the_origin_is_no_part_of_the_id() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let one = record(&store, &["a"]);
        let other = ImageRecord { origin: "load x.tar".into(), ..one.clone() };
        assert_eq!(one.id(), other.id());
        assert_ne!(one.id(), record(&store, &["b"]).id());
    }

    fn blob(store: &Store, text: &str) -> Descriptor {
        let digest = store.content().put(text.as_bytes()).unwrap();
        Descriptor { media_type: "m".into(), digest, size: text.len() as u64 }
    }

    #[test]
    fn what_is_attested_is_a_part() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let mut image = record(&store, &[]);
        let statement = Statement { predicate_type: "p".into(), blob: blob(&store, "statement") };
        let about = AttestationDocuments {
            manifest: blob(&store, "about"),
            config: blob(&store, "about's config"),
            statements: vec![statement.clone()],
        };
        image.top = Some(blob(&store, "index"));
        image.platforms[0].documents = Some(Documents {
            manifest: blob(&store, "manifest"),
            config: blob(&store, "config"),
            layers: vec![],
            attestations: vec![about],
        });
        assert_eq!(image.parts().len(), 6);
        store.name_image("app", &image).unwrap();
        assert_eq!(store.image_named("app").unwrap().unwrap().record, image);
        let held = store.held_by_images().unwrap();
        assert_eq!(held[&ObjectId::new(Kind::Blob, statement.blob.digest.hex())], ["app"]);
    }

    #[test]
    fn records_of_older_kilns_are_read() {
        let blob = |text: &str| {
            let digest = Digest::of(text.as_bytes());
            format!(r#"{{"mediaType":"m","digest":"{digest}","size":1}}"#)
        };
        let (index, manifest, config) = (blob("index"), blob("manifest"), blob("config"));
        let text = format!(
            r#"{{"platforms":[{{"platform":"linux/amd64","config":"{{}}","base_history_len":0,"layers":[],
            "documents":{{"manifest":{manifest},"config":{config},"layers":[]}}}}],"top":{index},"origin":"build"}}"#
        );
        let record: ImageRecord = serde_json::from_str(&text).unwrap();
        let documents = record.platforms[0].documents.as_ref().unwrap();
        assert_eq!((documents.attestations.len(), record.parts().len()), (0, 3));
        // And those without attestations are written as before: an older kiln reads them.
        assert!(!serde_json::to_string(&record).unwrap().contains("attestations"));
    }

    #[test]
    fn what_has_a_name_is_not_pruned() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        let image = record(&store, &["a", "b"]);
        record(&store, &["c"]);
        store.name_image("app", &image).unwrap();
        store.settle().unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        let policy = Policy { all: true, matches: &|_| true, used_before_ms: None, limits: None };
        let limits = Some(Limits { reserved: 0, max_used: Some(0), min_free: None });
        let plan = |policy: Policy<'_>| plan_prune(&store.usage().unwrap(), policy, 0, now_ms());
        for policy in [policy, Policy { limits, ..policy }] {
            let names: Vec<String> = plan(policy).remove.into_iter().map(|object| object.id.name).collect();
            assert_eq!(names, ["c"]);
        }
        // Named after the plan was made, by a process that has ended.
        store.unname_image("app").unwrap();
        let late = plan(policy);
        assert_eq!(late.remove.len(), 3);
        store.name_image("app", &image).unwrap();
        drop(store);
        let store = Store::open(dir.path()).unwrap();
        assert_eq!(store.prune(&late).unwrap().len(), 1);
        assert_eq!(store.missing_parts(&image).unwrap(), []);
    }
}
