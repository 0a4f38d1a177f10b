//! What is stored: blobs, snapshots, records and leases, in one folder that several processes share.

#![forbid(unsafe_code)]

pub mod digest;
pub mod tree;
