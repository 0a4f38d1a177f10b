//! Looks for damage: every blob against its digest, every snapshot against its content id, every record against its
//! key and its snapshot. Reads all that is stored, so it is for `kiln debug verify`, not for builds.

use crate::checksum::{change_digest, file_digest};
use crate::db;
use crate::error::{FileError, StoreError};
use crate::lease::{Leases, Remover};
use crate::ledger::strike;
use crate::object::{Kind, ObjectId, Size, measure};
use crate::store::Store;
use crate::tree::Layer;
use solver::key::{CacheKey, KeyRecipe, hex};
use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Whether what is bad is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Only look.
    Look,
    /// Remove what is bad, so that it is made again. Builds that want an object wait while it is looked at.
    Repair,
}

/// What was looked at, and what was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Blobs that were looked at.
    pub blobs: usize,
    /// Snapshots that were looked at.
    pub snapshots: usize,
    /// Records that were looked at.
    pub records: usize,
    /// Everything bad.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Nothing bad is left.
    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|finding| finding.is_repaired)
    }
}

/// Something bad.
#[derive(Debug)]
pub struct Finding {
    /// What is bad.
    pub problem: Problem,
    /// It was removed.
    pub is_repaired: bool,
}

/// What is bad.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error("the database is damaged")]
    Database(#[source] rusqlite::Error),
    #[error("blob sha256:{name} has the content of another: sha256:{actual}")]
    Blob { name: String, actual: String },
    #[error("snapshot {name} is not what its step made")]
    Content { name: String },
    #[error("snapshot {name} has {found} in place of {expected}")]
    Size { name: String, expected: String, found: String },
    #[error("the record of {step:?} needs snapshot {snapshot}, which is not there")]
    Dangling { step: String, snapshot: String },
    #[error("the record of {step:?} has not the key that it was made with")]
    Key { step: String },
    #[error("a record cannot be read: {name}")]
    Record { name: String },
    #[error("`{}` belongs to nothing", .0.display())]
    Orphan(PathBuf),
    #[error("`{}` cannot be read", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
}

impl Store {
    /// Looks at everything.
    pub fn verify(&self, mode: Mode) -> Result<Report, StoreError> {
        let mut report = Report::default();
        let sound = self.inner.db.read("check pages", |connection| match db::check(connection) {
            Err(error) if db::is_damage(&error) => Ok(Err(error)),
            result => result.map(Ok),
        })?;
        if let Err(error) = sound {
            let is_repaired = mode == Mode::Repair;
            if is_repaired {
                // A query that meets the damage replaces the database.
                self.inner.db.read("check pages", db::check)?;
            }
            report.findings.push(Finding { problem: Problem::Database(error), is_repaired });
        }
        // Enters what killed processes left.
        let usage = self.look()?;
        let sizes: HashMap<&ObjectId, Size> = usage.objects.iter().map(|object| (&object.id, object.size)).collect();
        let changes = self.records(mode, &mut report)?;
        let inspector = Inspector { store: self, mode, remover: Remover::open(self.root())? };
        for object in &usage.objects {
            let id = &object.id;
            let inspect: &dyn Fn(&Path) -> Result<Option<Problem>, StoreError> = match id.kind {
                Kind::Blob => {
                    report.blobs += 1;
                    &|path| blob(path, &id.name)
                }
                Kind::Snapshot => {
                    report.snapshots += 1;
                    &|path| snapshot(path, &id.name, changes.get(&id.name), sizes.get(id))
                }
                Kind::CacheMount | Kind::Git | Kind::Log => continue,
            };
            report.findings.extend(inspector.inspect(id, inspect)?);
        }
        for path in orphans(self.root())? {
            if mode == Mode::Repair {
                self.discard(&path)?;
            }
            report.findings.push(Finding { problem: Problem::Orphan(path), is_repaired: mode == Mode::Repair });
        }
        Ok(report)
    }

    /// Checks records; gives what snapshots were when they were made.
    fn records(&self, mode: Mode, report: &mut Report) -> Result<HashMap<String, String>, StoreError> {
        let rows: Vec<(Vec<u8>, String, String, Vec<u8>)> = self.inner.db.read("list records", |db| {
            let mut select = db.prepare("SELECT key, name, recipe, output FROM records")?;
            select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))?.collect()
        })?;
        report.records = rows.len();
        let leases = Leases::open(self.root())?;
        let mut changes = HashMap::new();
        for (key, step, recipe, output) in rows {
            let parsed = (serde_json::from_str::<KeyRecipe>(&recipe), serde_json::from_slice::<Layer>(&output));
            let problem = match parsed {
                (Ok(recipe), Ok(layer)) => {
                    let id = ObjectId::new(Kind::Snapshot, &*layer.snapshot.0);
                    leases.hold(&id)?;
                    if recipe.key().0[..] != key[..] {
                        Some(Problem::Key { step })
                    } else if !id.path(self.root()).is_dir() {
                        Some(Problem::Dangling { step, snapshot: id.name })
                    } else {
                        changes.insert(id.name, layer.change);
                        None
                    }
                }
                _ => Some(Problem::Record { name: step }),
            };
            let Some(problem) = problem else { continue };
            let is_there = self.inner.db.read("look for a record", |db| {
                db.query_row("SELECT count(*) FROM records WHERE key = ?1", [&key], |row| row.get::<_, i64>(0))
            })?;
            // Else it was pruned meanwhile.
            if is_there == 1 {
                if mode == Mode::Repair {
                    self.inner.db.write("forget a record", |db| {
                        db.execute("DELETE FROM records WHERE key = ?1", [&key]).map(drop)
                    })?;
                }
                report.findings.push(Finding { problem, is_repaired: mode == Mode::Repair });
            }
        }
        Ok(changes)
    }
}

struct Inspector<'a> {
    store: &'a Store,
    mode: Mode,
    remover: Remover,
}

impl Inspector<'_> {
    /// Looks at an object, which stays as it is meanwhile.
    fn inspect(
        &self,
        id: &ObjectId,
        inspect: impl Fn(&Path) -> Result<Option<Problem>, StoreError>,
    ) -> Result<Option<Finding>, StoreError> {
        let path = id.path(self.store.root());
        let leases = Leases::open(self.store.root())?;
        let is_ours = self.mode == Mode::Repair && self.remover.take(id)?;
        if !is_ours {
            leases.hold(id)?;
        }
        let mut found = None;
        // It may be gone by now.
        if path.symlink_metadata().is_ok()
            && let Some(problem) = inspect(&path)?
        {
            if is_ours {
                self.store.inner.db.write("strike out what is bad", |db| strike(db, std::slice::from_ref(id)))?;
                self.store.discard(&path)?;
            }
            found = Some(Finding { problem, is_repaired: is_ours });
        }
        if is_ours {
            self.remover.release()?;
        }
        Ok(found)
    }
}

fn blob(path: &Path, name: &str) -> Result<Option<Problem>, StoreError> {
    let hash = || -> io::Result<String> { file_digest(&File::open(path)?).map(|digest| hex(&digest)) };
    Ok(match hash() {
        Ok(actual) if actual == name => None,
        Ok(actual) => Some(Problem::Blob { name: name.to_string(), actual }),
        Err(source) => Some(Problem::Unreadable { path: path.to_owned(), source }),
    })
}

/// `change` is what the step that made it changed, `entered` its size when it was made.
fn snapshot(
    path: &Path,
    name: &str,
    change: Option<&String>,
    entered: Option<&Size>,
) -> Result<Option<Problem>, StoreError> {
    if let Some(change) = change {
        match change_digest(path) {
            Ok(actual) if actual == *change => {}
            Ok(_) => return Ok(Some(Problem::Content { name: name.to_string() })),
            Err(FileError { path, source, .. }) => return Ok(Some(Problem::Unreadable { path, source })),
        }
    }
    let Some(entered) = entered else { return Ok(None) };
    let found = measure(path).map_err(FileError::at("measure", path))?;
    if (found.inodes, found.length) == (entered.inodes, entered.length) {
        return Ok(None);
    }
    let text = |size: &Size| format!("{} files of {} bytes", size.inodes, size.length);
    Ok(Some(Problem::Size { name: name.to_string(), expected: text(entered), found: text(&found) }))
}

/// What is in the folders of snapshots and blobs and cannot be one, nor belong to one.
fn orphans(root: &Path) -> Result<Vec<PathBuf>, FileError> {
    let is_hex = |name: &str| CacheKey::from_hex(name).is_some();
    let mut orphans = vec![];
    for folder in [root.join("snapshots"), root.join("blobs/sha256")] {
        for entry in fs::read_dir(&folder).map_err(FileError::at("list", &folder))? {
            let path = entry.map_err(FileError::at("list", &folder))?.path();
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let (id, suffix) = name.split_once('.').unwrap_or((&name, ""));
            let is_good = is_hex(id) && (suffix.is_empty() || folder.join(id).is_dir());
            if !is_good {
                orphans.push(path);
            }
        }
    }
    Ok(orphans)
}
