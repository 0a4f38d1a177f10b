//! The store's limit, held while builds write: space is reserved before something is written, and what is worth least
//! goes to make room for it. Only what live builds need makes the store larger than its limit; then that is said.
//!
//! Far from the limit this costs no look at the disk: the ledger's sum is read now and then, and what this process has
//! made since is added.

use crate::error::StoreError;
use crate::ledger::now_ms;
use crate::object::{Kind, measure};
use crate::prune::{Limits, Policy, plan_prune};
use crate::store::Store;
use crate::usage::{Object, own_bytes};
use rustix::fs::statvfs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the sum of what all processes have written down is believed.
const BELIEVED: Duration = Duration::from_secs(1);
/// What a process makes is written down when it is this much, so that others see it.
const WRITTEN_DOWN_BYTES: u64 = 32 << 20;
/// For what is not counted before it is there, such as the database's own growth: at most this, or a twentieth.
const SLACK_BYTES: u64 = 256 << 10;

/// What is known of the limit.
#[derive(Default)]
pub(crate) struct Quota(Mutex<State>);

#[derive(Default)]
struct State {
    limits: Option<Limits>,
    total: u64,
    looked: Option<Instant>,
    is_said: bool,
}

/// A disk, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Disk {
    /// All of it.
    pub total: u64,
    /// What may still be written.
    pub free: u64,
}

impl Store {
    /// The disk that the store is on.
    pub fn disk(&self) -> Result<Disk, StoreError> {
        let stat = statvfs(self.root()).map_err(crate::FileError::at("look at the disk of", self.root()))?;
        Ok(Disk {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    /// Sets how much the store may take; without, it may take anything.
    pub fn set_limits(&self, limits: Limits) {
        self.inner.quota.0.lock().unwrap_or_else(PoisonError::into_inner).limits = Some(limits);
    }

    /// Makes room for `bytes` that will be written. May take as long as deleting files does, so it belongs on a thread
    /// that may wait.
    pub fn reserve(&self, bytes: u64) -> Result<(), StoreError> {
        // One thread of a process makes room; the others would plan to remove the same.
        let mut state = self.inner.quota.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(limits) = state.limits else { return Ok(()) };
        let ledger = &self.inner.ledger;
        if state.looked.is_none() && !self.is_counted()? {
            self.look()?;
        }
        if ledger.pending_bytes() > WRITTEN_DOWN_BYTES {
            ledger.flush()?;
            state.looked = None;
        }
        let free = self.disk()?.free.saturating_sub(bytes);
        if state.looked.is_none_or(|looked| looked.elapsed() > BELIEVED) {
            state.total = ledger.total_bytes()? + self.unlisted_bytes();
            state.looked = Some(Instant::now());
        }
        let total = state.total + ledger.pending_bytes() + bytes;
        if limits.allowed(total, free).is_none_or(|allowed| total <= allowed - SLACK_BYTES.min(allowed / 20)) {
            return Ok(());
        }
        self.make_room(&mut state, limits, bytes)
    }

    /// Writes down what this process used and made so far, and makes room if that was too much. Belongs to the end of a
    /// build.
    pub fn settle(&self) -> Result<(), StoreError> {
        let has_grown = self.inner.ledger.pending_bytes() > 0;
        self.inner.ledger.flush()?;
        if !has_grown {
            return Ok(());
        }
        let is_near = {
            let mut state = self.inner.quota.0.lock().unwrap_or_else(PoisonError::into_inner);
            state.looked = None;
            let allowed = state.limits.and_then(|limits| limits.allowed(state.total, u64::MAX));
            allowed.is_some_and(|allowed| state.total > allowed / 2)
        };
        self.recount_changing(is_near)?;
        self.reserve(0)
    }

    /// Removes what is worth least, and a tenth more, so that not every step has to do so.
    fn make_room(&self, state: &mut State, limits: Limits, bytes: u64) -> Result<(), StoreError> {
        // It counts for nothing but on the disk.
        self.empty_trash()?;
        let mut usage = self.look()?;
        // What the database has open counts, too: it is there as long as builds run.
        let logs = usage.objects.iter().filter(|object| object.id.kind == Kind::Log);
        usage.other_bytes = self.unlisted_bytes().saturating_sub(logs.map(|object| object.size.bytes).sum());
        let free = self.disk()?.free.saturating_sub(bytes);
        let total = usage.total_bytes();
        state.total = total;
        state.looked = Some(Instant::now());
        let Some(allowed) = limits.allowed(total + bytes, free) else { return Ok(()) };
        if total + bytes <= allowed - SLACK_BYTES.min(allowed / 20) {
            return Ok(());
        }
        let target = (allowed - allowed / 10).saturating_sub(bytes);
        let exact = Limits { reserved: 0, max_used: Some(target), min_free: None };
        let policy = Policy { all: true, matches: &|_| true, used_before_ms: None, limits: Some(exact) };
        let plan = plan_prune(&usage, policy, free, now_ms());
        let removed: u64 = self.prune(&plan)?.iter().map(|object| object.size.bytes).sum();
        tracing::info!(removed, "made room in the store");
        state.total = total.saturating_sub(removed);
        if state.total + bytes > allowed && !state.is_said {
            state.is_said = true;
            let is_held = |object: &&Object| !object.images.is_empty();
            let held: u64 = usage.objects.iter().filter(is_held).map(|object| object.size.bytes).sum();
            let images = match held {
                0 => String::new(),
                held => format!("; named images hold {held} of them, see `kiln image ls` and `kiln image rm`"),
            };
            self.remark(format!(
                "what builds need now is more than the store may take: {} of {} bytes{images}",
                state.total + bytes,
                allowed
            ));
        }
        Ok(())
    }

    /// What the ledger does not list: the database, logs, locks. What is unfinished is entered when it is finished, and
    /// what is in the trash is on its way.
    fn unlisted_bytes(&self) -> u64 {
        let Ok(entries) = std::fs::read_dir(self.root()) else { return 0 };
        let names = entries.flatten().map(|entry| entry.file_name());
        let size = |name: std::ffi::OsString| match name.to_str() {
            Some("ingest" | "trash") => 0,
            Some("snapshots" | "blobs" | "mounts" | "git") => own_bytes(&self.root().join(name)),
            _ => measure(&self.root().join(name)).map_or(0, |size| size.bytes),
        };
        names.map(size).sum()
    }
}
