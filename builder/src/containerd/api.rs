//! The messages of containerd's services that kiln sends and reads, by the field numbers of its `api/services/*/v1/*.proto`
//! and `api/types/*.proto`. Written down here, so that building kiln needs no protoc; fields that kiln has no use for
//! are left out, as protobuf allows.

use prost::Message;
use prost::bytes::Bytes;
use std::collections::BTreeMap;

/// Labels of an object, sorted.
pub type Labels = BTreeMap<String, String>;

/// `google.protobuf.Empty`.
#[derive(Clone, PartialEq, Message)]
pub struct Empty {}

/// `google.protobuf.FieldMask`.
#[derive(Clone, PartialEq, Message)]
pub struct FieldMask {
    #[prost(string, repeated, tag = "1")]
    pub paths: Vec<String>,
}

/// `types/descriptor.proto`.
#[derive(Clone, PartialEq, Message)]
pub struct Descriptor {
    #[prost(string, tag = "1")]
    pub media_type: String,
    #[prost(string, tag = "2")]
    pub digest: String,
    /// Bytes.
    #[prost(int64, tag = "3")]
    pub size: i64,
}

/// `types/mount.proto`; as containerd gave it, so it goes back.
#[derive(Clone, PartialEq, Message)]
pub struct Mount {
    #[prost(string, tag = "1")]
    pub kind: String,
    #[prost(string, tag = "2")]
    pub source: String,
    #[prost(string, tag = "3")]
    pub target: String,
    #[prost(string, repeated, tag = "4")]
    pub options: Vec<String>,
}

/// `content.proto`, `Info`.
#[derive(Clone, PartialEq, Message)]
pub struct ContentInfo {
    #[prost(string, tag = "1")]
    pub digest: String,
    #[prost(btree_map = "string, string", tag = "5")]
    pub labels: Labels,
}

/// `content.proto`, `UpdateRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ContentUpdate {
    #[prost(message, optional, tag = "1")]
    pub info: Option<ContentInfo>,
    #[prost(message, optional, tag = "2")]
    pub update_mask: Option<FieldMask>,
}

/// `content.proto`, `WriteAction`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
pub enum WriteAction {
    Stat = 0,
    Write = 1,
    Commit = 2,
}

/// `content.proto`, `WriteContentRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ContentWrite {
    #[prost(enumeration = "WriteAction", tag = "1")]
    pub action: i32,
    /// Names the unfinished write.
    #[prost(string, tag = "2")]
    pub reference: String,
    /// Bytes of the whole blob.
    #[prost(int64, tag = "3")]
    pub total: i64,
    /// Its digest.
    #[prost(string, tag = "4")]
    pub expected: String,
    #[prost(int64, tag = "5")]
    pub offset: i64,
    #[prost(bytes = "bytes", tag = "6")]
    pub data: Bytes,
    #[prost(btree_map = "string, string", tag = "7")]
    pub labels: Labels,
}

/// `content.proto`, `WriteContentResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct ContentWritten {
    /// Bytes that containerd has.
    #[prost(int64, tag = "4")]
    pub offset: i64,
}

/// `images.proto`, `Image`.
#[derive(Clone, PartialEq, Message)]
pub struct Image {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, optional, tag = "3")]
    pub target: Option<Descriptor>,
}

/// `images.proto`, `CreateImageRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ImageCreate {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
}

/// `images.proto`, `UpdateImageRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct ImageUpdate {
    #[prost(message, optional, tag = "1")]
    pub image: Option<Image>,
    #[prost(message, optional, tag = "2")]
    pub update_mask: Option<FieldMask>,
}

/// `snapshots.proto`, `PrepareSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotPrepare {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
    #[prost(string, tag = "3")]
    pub parent: String,
}

/// `snapshots.proto`, `PrepareSnapshotResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotPrepared {
    #[prost(message, repeated, tag = "1")]
    pub mounts: Vec<Mount>,
}

/// `snapshots.proto`, `CommitSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotCommit {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub name: String,
    #[prost(string, tag = "3")]
    pub key: String,
}

/// `snapshots.proto`, `StatSnapshotRequest` and `RemoveSnapshotRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct SnapshotKey {
    #[prost(string, tag = "1")]
    pub snapshotter: String,
    #[prost(string, tag = "2")]
    pub key: String,
}

/// `diff.proto`, `ApplyRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct DiffApply {
    #[prost(message, optional, tag = "1")]
    pub diff: Option<Descriptor>,
    #[prost(message, repeated, tag = "2")]
    pub mounts: Vec<Mount>,
}

/// `diff.proto`, `ApplyResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct DiffApplied {
    /// Of the tar, uncompressed.
    #[prost(message, optional, tag = "1")]
    pub applied: Option<Descriptor>,
}

/// `leases.proto`, `CreateRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseCreate {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(btree_map = "string, string", tag = "3")]
    pub labels: Labels,
}

/// `leases.proto`, `DeleteRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseDelete {
    #[prost(string, tag = "1")]
    pub id: String,
}

/// `leases.proto`, `Resource`.
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(string, tag = "1")]
    pub id: String,
    /// `snapshots/` and the snapshotter for a snapshot.
    #[prost(string, tag = "2")]
    pub kind: String,
}

/// `leases.proto`, `AddResourceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct LeaseAdd {
    #[prost(string, tag = "1")]
    pub id: String,
    #[prost(message, optional, tag = "2")]
    pub resource: Option<Resource>,
}

/// `namespace.proto`, `GetNamespaceRequest`.
#[derive(Clone, PartialEq, Message)]
pub struct NamespaceGet {
    #[prost(string, tag = "1")]
    pub name: String,
}

/// `namespace.proto`, `Namespace`.
#[derive(Clone, PartialEq, Message)]
pub struct Namespace {
    #[prost(btree_map = "string, string", tag = "2")]
    pub labels: Labels,
}

/// `namespace.proto`, `GetNamespaceResponse`.
#[derive(Clone, PartialEq, Message)]
pub struct NamespaceGot {
    #[prost(message, optional, tag = "1")]
    pub namespace: Option<Namespace>,
}

/// For `properties.rs`: reads bytes as each message that containerd sends.
pub fn read_every_way(input: &[u8]) {
    let _ = Empty::decode(input);
    let _ = ContentWritten::decode(input);
    let _ = SnapshotPrepared::decode(input);
    let _ = DiffApplied::decode(input);
    let _ = NamespaceGot::decode(input);
}
