//! What this process found damaged in the store, and dropped: to be told to people, and to be made again.

use crate::digest::Digest;
use std::sync::{Mutex, PoisonError};

/// Found so far. Shared by the parts of a store.
#[derive(Default)]
pub(crate) struct Damage {
    remarks: Mutex<Vec<String>>,
    blobs: Mutex<Vec<Digest>>,
}

impl Damage {
    /// Notes a sentence for people.
    pub fn remark(&self, text: String) {
        tracing::warn!("{text}");
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// Notes a blob that was dropped.
    pub fn blob(&self, digest: &Digest) {
        self.remark(format!("blob {digest} was damaged in the store; it was dropped, and is made or fetched again"));
        self.blobs.lock().unwrap_or_else(PoisonError::into_inner).push(digest.clone());
    }

    /// The remarks since the last call.
    pub fn take_remarks(&self) -> Vec<String> {
        std::mem::take(&mut self.remarks.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The blobs dropped since the last call.
    pub fn take_blobs(&self) -> Vec<Digest> {
        std::mem::take(&mut self.blobs.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
