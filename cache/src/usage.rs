//! What the store holds: every object with its size, dates and users, found by looking at the disk and at the ledger.
//!
//! Looking also puts the ledger right: what killed processes made and did not write down is entered, what is gone is
//! struck out. Sizes of snapshots are taken from the ledger, others are looked up; those of cache mounts and git
//! repositories, which change, are measured.

use crate::claim;
use crate::db;
use crate::error::{FileError, StoreError};
use crate::lease::Remover;
use crate::ledger::{enter, strike};
use crate::object::{Kind, ObjectId, Size, measure};
use crate::store::Store;
use rusqlite::params;
use rustix::fs::FlockOperation;
use solver::key::CacheKey;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// How long the database's log is waited for.
const LOG_PATIENCE: Duration = Duration::from_secs(1);

/// Namespace of the store's own notes.
pub(crate) const NOTES: &str = "store";
/// Note: `yes` if the ledger has all that is on disk, but for what live processes have not written down yet.
pub(crate) const COUNTED: &str = "counted";

/// Far from the limit, sizes of what changes may be this old, in milliseconds.
const REMEASURED_AFTER_MS: i64 = 3_600_000;

/// One object, and what is known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    /// Its name.
    pub id: ObjectId,
    /// On disk.
    pub size: Size,
    /// Milliseconds since 1970.
    pub created_ms: i64,
    /// By the last build that used it. Milliseconds since 1970.
    pub used_ms: i64,
    /// Builds that used it.
    pub uses: u64,
    /// The snapshot that it lies on.
    pub parent: Option<String>,
    /// What it is, in one line.
    pub description: String,
    /// BuildKit's type: `regular`, `source.local`, `exec.cachemount`, `internal` and so on.
    pub category: String,
    /// How long it would take to make it again, in milliseconds: as measured for what steps made, else guessed by size.
    pub cost_ms: u64,
    /// Some process uses it now, or it is pinned.
    pub in_use: bool,
    /// Several other objects lie on it.
    pub shared: bool,
    /// Names of the images that hold it: it goes when they do.
    pub images: Vec<String>,
}

/// All that the store holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// In no order.
    pub objects: Vec<Object>,
    /// Bytes of all else: the database, folders, unfinished work.
    pub other_bytes: u64,
}

impl Usage {
    /// Bytes on disk of all of the store.
    pub fn total_bytes(&self) -> u64 {
        self.other_bytes + self.objects.iter().map(|object| object.size.bytes).sum::<u64>()
    }
}

impl Store {
    /// Looks at all that the store holds, and puts the ledger right: for people, who compare it with what the disk says.
    pub fn usage(&self) -> Result<Usage, StoreError> {
        // What is in the log would else be counted in one moment and gone in the next.
        db::empty_log(&self.root().join("db"), LOG_PATIENCE)?;
        self.look()
    }

    /// As [`Store::usage`], without waiting for the database's log to be on the disk.
    pub(crate) fn look(&self) -> Result<Usage, StoreError> {
        self.inner.ledger.flush()?;
        self.inner.ledger.take_journal()?;
        let known = self.known()?;
        let found = self.finder(&known).find()?;
        self.correct(&known, &found.found)?;
        let made = self.made_by()?;
        let pinned = self.pinned()?;
        let mut held = self.held_by_images()?;
        let remover = Remover::open(self.root())?;
        let mut children: HashMap<&str, u32> = HashMap::new();
        for parent in known.values().filter_map(|row| row.parent.as_deref()) {
            *children.entry(parent).or_default() += 1;
        }
        let mut objects = vec![];
        for Found { id, mut size, beside_bytes, at_ms, about } in found.found {
            size.bytes += beside_bytes;
            let row = known.get(&id);
            let step = made.get(&id);
            let in_use = pinned.contains(&id) || self.is_in_use(&id, &remover)?;
            let text = |text: Option<&String>| text.filter(|text| !text.is_empty()).cloned();
            objects.push(Object {
                created_ms: row.map_or(at_ms, |row| row.created_ms),
                used_ms: row.map_or(at_ms, |row| row.used_ms.max(at_ms)),
                uses: row.map_or(0, |row| row.uses),
                parent: row.and_then(|row| row.parent.clone()),
                description: text(step.map(|step| &step.name))
                    .or_else(|| text(row.map(|row| &row.description)))
                    .unwrap_or(about),
                category: text(row.map(|row| &row.category)).unwrap_or_else(|| category(id.kind).to_string()),
                cost_ms: step.map_or_else(|| guessed_cost_ms(&size), |step| step.cost_ms),
                in_use,
                images: held.remove(&id).unwrap_or_default(),
                shared: id.kind == Kind::Snapshot && children.get(&*id.name).is_some_and(|count| *count > 1),
                id,
                size,
            });
        }
        Ok(Usage { objects, other_bytes: found.other_bytes })
    }

    /// How long the files of snapshots and blobs are, in bytes, as far as that is written down; nothing is looked for.
    pub fn lengths(&self) -> Result<HashMap<ObjectId, u64>, StoreError> {
        self.inner.ledger.flush()?;
        Ok(self.known()?.into_iter().map(|(id, row)| (id, row.size.length)).collect())
    }

    fn finder<'a>(&'a self, known: &'a HashMap<ObjectId, Row>) -> Finder<'a> {
        Finder { root: self.root(), unfinished: self.inner.ingest.dir(), known, found: vec![], other_bytes: 0 }
    }

    /// Whether the ledger has all that dead processes made.
    pub(crate) fn is_counted(&self) -> Result<bool, StoreError> {
        Ok(self.note(NOTES, COUNTED)?.is_some_and(|note| note == b"yes"))
    }

    /// Measures the cache mounts and git repositories that were used since their sizes were entered, if `every`, or else
    /// those of which the ledger knows nothing, or nothing newer than an hour: a large one takes a second.
    pub(crate) fn recount_changing(&self, every: bool) -> Result<(), StoreError> {
        let known = self.known()?;
        let mut finder = self.finder(&known);
        let is_stale = |id: &ObjectId, used_ms: i64| match known.get(id) {
            Some(row) => used_ms > row.used_ms + if every { 0 } else { REMEASURED_AFTER_MS },
            None => true,
        };
        finder.changing(&is_stale)?;
        if finder.found.is_empty() {
            return Ok(());
        }
        self.inner.db.write("enter sizes", |db| {
            let mut used = db.prepare_cached("UPDATE objects SET used_ms = ?3 WHERE kind = ?1 AND name = ?2")?;
            finder.found.iter().try_for_each(|found| {
                enter(db, &found.id, found.size, None, found.at_ms)?;
                used.execute(params![found.id.kind.as_str(), found.id.name, found.at_ms]).map(drop)
            })
        })
    }

    fn known(&self) -> Result<HashMap<ObjectId, Row>, StoreError> {
        self.inner.db.read("list what is stored", |db| {
            let mut select = db.prepare_cached(
                "SELECT kind, name, bytes, inodes, length, created_ms, used_ms, uses, parent, description, category
                 FROM objects",
            )?;
            let rows = select.query_map([], |row| {
                let kind: String = row.get(0)?;
                let number = |column| row.get::<_, i64>(column).map(|number| number.max(0) as u64);
                let size = Size { bytes: number(2)?, inodes: number(3)?, length: number(4)? };
                let known = Row {
                    size,
                    created_ms: row.get(5)?,
                    used_ms: row.get(6)?,
                    uses: number(7)?,
                    parent: row.get(8)?,
                    description: row.get(9)?,
                    category: row.get(10)?,
                };
                Ok(Kind::parse(&kind).map(|kind| (ObjectId { kind, name: row.get(1).unwrap_or_default() }, known)))
            })?;
            rows.filter_map(Result::transpose).collect()
        })
    }

    /// What records say of snapshots, and of the blobs that were made of them.
    fn made_by(&self) -> Result<HashMap<ObjectId, MadeBy>, StoreError> {
        self.inner.db.read("list records", |db| {
            let mut made = HashMap::new();
            let mut select =
                db.prepare_cached("SELECT snapshot, name, cost_ms FROM records WHERE snapshot NOT NULL")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let name: String = row.get(1)?;
                let cost_ms = row.get::<_, i64>(2)?.max(0) as u64;
                made.insert(ObjectId::new(Kind::Snapshot, row.get::<_, String>(0)?), MadeBy { name, cost_ms });
            }
            let mut select = db.prepare_cached("SELECT snapshot, blob FROM layer_blobs")?;
            let mut rows = select.query([])?;
            while let Some(row) = rows.next()? {
                let (memo, blob): (String, String) = (row.get(0)?, row.get(1)?);
                let snapshot = memo.split('@').next().unwrap_or_default();
                let step = made.get(&ObjectId::new(Kind::Snapshot, snapshot));
                let name = step.map_or("layer".to_string(), |step| format!("layer of {}", step.name));
                let Ok(blob) = serde_json::from_str::<crate::layer::compression::LayerBlob>(&blob) else { continue };
                let size = Size { bytes: blob.descriptor.size, ..Size::default() };
                let id = ObjectId::new(Kind::Blob, blob.descriptor.digest.hex());
                made.insert(id, MadeBy { name, cost_ms: guessed_cost_ms(&size) });
            }
            Ok(made)
        })
    }

    /// Whether some process uses an object. Those that change have locks of their own.
    pub(crate) fn is_in_use(&self, id: &ObjectId, remover: &Remover) -> Result<bool, StoreError> {
        let path = id.path(self.root());
        Ok(match id.kind {
            Kind::Snapshot | Kind::Blob => !remover.is_free(id)?,
            Kind::CacheMount => is_locked(&path.join("lock")),
            Kind::Log => is_locked(&path.join("running")),
            Kind::Git => match CacheKey::from_hex(&id.name) {
                Some(key) => claim::is_claimed(&self.claims_dir(), &key),
                None => false,
            },
        })
    }

    /// Enters what is not known, or has another size, and strikes out what is gone.
    fn correct(&self, known: &HashMap<ObjectId, Row>, found: &[Found]) -> Result<(), StoreError> {
        let is_new = |found: &&Found| known.get(&found.id).is_none_or(|row| row.size != found.size);
        let changed: Vec<&Found> = found.iter().filter(is_new).collect();
        let there: HashSet<&ObjectId> = found.iter().map(|found| &found.id).collect();
        let gone: Vec<ObjectId> = known.keys().filter(|id| !there.contains(id)).cloned().collect();
        if changed.is_empty() && gone.is_empty() && self.is_counted()? {
            return Ok(());
        }
        self.inner.db.write("put the ledger right", |db| {
            for found in &changed {
                enter(db, &found.id, found.size, None, found.at_ms)?;
            }
            strike(db, &gone)?;
            db.prepare_cached("INSERT OR REPLACE INTO notes (namespace, key, value) VALUES (?1, ?2, ?3)")?
                .execute(params![NOTES, COUNTED, b"yes"])
                .map(drop)
        })
    }
}

struct Row {
    size: Size,
    created_ms: i64,
    used_ms: i64,
    uses: u64,
    parent: Option<String>,
    description: String,
    category: String,
}

struct MadeBy {
    name: String,
    cost_ms: u64,
}

/// An object on disk.
struct Found {
    id: ObjectId,
    /// As the ledger has it, or is to have it.
    size: Size,
    /// Of files that belong to it and are beside it.
    beside_bytes: u64,
    /// When it was made, or last used if that can be seen.
    at_ms: i64,
    about: String,
}

/// Goes through the folders.
struct Finder<'a> {
    root: &'a Path,
    /// This process' folder for what is unfinished.
    unfinished: &'a Path,
    known: &'a HashMap<ObjectId, Row>,
    found: Vec<Found>,
    other_bytes: u64,
}

impl Finder<'_> {
    fn find(mut self) -> Result<Self, StoreError> {
        for name in names(self.root)? {
            let path = self.root.join(&name);
            match name.as_str() {
                "snapshots" => self.snapshots(&path)?,
                "blobs" => self.blobs(&path)?,
                "mounts" | "git" => {}
                "logs" => self.logs(&path)?,
                _ => self.other_bytes += size(&path)?.bytes,
            }
        }
        self.other_bytes = self.other_bytes.saturating_sub(size(self.unfinished)?.bytes);
        self.changing(&|_, _| true)?;
        self.other_bytes += own_bytes(self.root);
        Ok(self)
    }

    fn snapshots(&mut self, folder: &Path) -> Result<(), StoreError> {
        self.other_bytes += own_bytes(folder);
        // `<id>.<what>` is a file that belongs to a snapshot.
        let (beside, trees): (Vec<String>, Vec<String>) =
            names(folder)?.into_iter().partition(|name| name.contains('.'));
        let mut beside_bytes: HashMap<&str, u64> = HashMap::new();
        for name in &beside {
            let id = name.split('.').next().unwrap_or_default();
            *beside_bytes.entry(id).or_default() += own_bytes(&folder.join(name));
        }
        for name in trees {
            let path = folder.join(&name);
            let (beside_bytes, at_ms) = (beside_bytes.remove(&*name).unwrap_or(0), changed_ms(&path).unwrap_or(0));
            let id = ObjectId::new(Kind::Snapshot, name);
            let size = match self.known.get(&id) {
                Some(row) => row.size,
                None => size(&path)?,
            };
            self.found.push(Found { id, size, beside_bytes, at_ms, about: String::new() });
        }
        self.other_bytes += beside_bytes.values().sum::<u64>();
        Ok(())
    }

    fn blobs(&mut self, folder: &Path) -> Result<(), StoreError> {
        self.other_bytes += own_bytes(folder);
        for algorithm in names(folder)? {
            let folder = folder.join(&algorithm);
            self.other_bytes += own_bytes(&folder);
            for name in names(&folder)? {
                let path = folder.join(&name);
                self.push(ObjectId::new(Kind::Blob, name), size(&path)?, changed_ms(&path).unwrap_or(0), String::new());
            }
        }
        Ok(())
    }

    /// What changes while it is kept, as far as it is wanted: by its name and when it was last used.
    fn changing(&mut self, is_wanted: &dyn Fn(&ObjectId, i64) -> bool) -> Result<(), StoreError> {
        let folder = self.root.join("git");
        self.other_bytes += own_bytes(&folder);
        for name in names(&folder)? {
            let path = folder.join(&name);
            // What git writes when it fetches.
            let times = ["FETCH_HEAD", "objects/pack", ""].map(|name| changed_ms(&path.join(name)));
            let used_ms = times.into_iter().flatten().max().unwrap_or(0);
            let id = ObjectId::new(Kind::Git, name);
            if is_wanted(&id, used_ms) {
                self.push(id, size(&path)?, used_ms, "git repository".to_string());
            }
        }
        let folder = &self.root.join("mounts");
        self.other_bytes += own_bytes(folder);
        for key in names(folder)? {
            let folder = folder.join(&key);
            self.other_bytes += own_bytes(&folder);
            let about = mount_about(&folder);
            for name in names(&folder)? {
                let path = folder.join(&name);
                if !path.is_dir() {
                    self.other_bytes += size(&path)?.bytes;
                    continue;
                }
                let id = ObjectId::new(Kind::CacheMount, format!("{key}/{name}"));
                let used_ms = fs::metadata(path.join("lock")).map_or(0, |meta| meta.mtime() * 1000);
                if is_wanted(&id, used_ms) {
                    self.push(id, size(&path)?, used_ms, about.clone());
                }
            }
        }
        Ok(())
    }

    fn logs(&mut self, folder: &Path) -> Result<(), StoreError> {
        self.other_bytes += own_bytes(folder);
        for name in names(folder)? {
            let path = folder.join(&name);
            let at_ms = changed_ms(&path).unwrap_or(0);
            let about = format!("log of build {name}");
            self.push(ObjectId::new(Kind::Log, name), size(&path)?, at_ms, about);
        }
        Ok(())
    }

    fn push(&mut self, id: ObjectId, size: Size, at_ms: i64, about: String) {
        self.found.push(Found { id, size, beside_bytes: 0, at_ms, about });
    }
}

/// BuildKit's type of what has none of its own.
fn category(kind: Kind) -> &'static str {
    match kind {
        Kind::Snapshot | Kind::Blob => "regular",
        Kind::CacheMount => "exec.cachemount",
        Kind::Git => "source.git.checkout",
        Kind::Log => "internal",
    }
}

/// As if it came from a network or through a compressor at some 50 MB/s.
fn guessed_cost_ms(size: &Size) -> u64 {
    20 + size.bytes / 50_000
}

/// What `RUN --mount=type=cache` wrote beside its directories (builder, step/cache_mount.rs).
fn mount_about(folder: &Path) -> String {
    let about = fs::read(folder.join("about")).ok();
    let about = about.and_then(|text| serde_json::from_slice::<serde_json::Value>(&text).ok());
    let id = about.as_ref().and_then(|about| about["id"].as_str()).unwrap_or("");
    if id.is_empty() { "cache mount".to_string() } else { format!("cache mount {id}") }
}

/// Whether somebody holds a file's lock. For a moment it is taken, so who tries without waiting may fail meanwhile.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).is_err()
}

/// Names in a folder; none if it is gone.
fn names(folder: &Path) -> Result<Vec<String>, FileError> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        entries => entries.map_err(FileError::at("list", folder))?,
    };
    let mut names = vec![];
    for entry in entries {
        names.extend(entry.map_err(FileError::at("list", folder))?.file_name().into_string());
    }
    Ok(names)
}

fn size(path: &Path) -> Result<Size, FileError> {
    measure(path).map_err(FileError::at("measure", path))
}

/// Of the file or folder itself.
pub(crate) fn own_bytes(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512)
}

/// When it was last changed; of what never changes, when it was renamed in.
fn changed_ms(path: &Path) -> Option<i64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ctime() * 1000 + meta.ctime_nsec() / 1_000_000)
}
