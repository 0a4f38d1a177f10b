//! A running containerd, spoken to over its socket (gRPC, services `v1`; measured with 1.6 and nothing newer needed).
//! `content.rs` gives it blobs, `unpack.rs` has it make snapshots of layers, this file names images and holds the lease under
//! which both happen. `api.rs` is the messages, `grpc.rs` the connection. Knows nothing of builds and exports.
//!
//! Invariant: containerd collects what neither an image nor a lease refers to, so everything is done through a [`Leased`], and
//! documents get labels that refer to what they name before the lease ends.

mod api;
mod content;
mod grpc;
mod place;
#[cfg(test)]
mod tests;
mod unpack;

pub use api::Labels;
pub use content::{Blob, references};
pub use place::{Place, find};
pub use unpack::PackedLayer;

use api::{Empty, Image, ImageCreate, ImageUpdate, LeaseCreate, LeaseDelete};
use cache::digest::{Descriptor, Digest};
use cache::time::rfc3339;
use grpc::{CallError, Channel, code};
use http::{HeaderMap, HeaderValue};
use prost::Message;
use std::io;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// A lease that nobody ended is over after this; as long as those of containerd's own client.
const LEASE_TIME: Duration = Duration::from_secs(24 * 3600);

/// Why a containerd did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ContainerdError {
    /// `is_set`: the socket is what `$CONTAINERD_ADDRESS` says.
    #[error("cannot speak to containerd at {}", socket.display())]
    Absent { socket: PathBuf, is_set: bool, source: io::Error },
    #[error("$CONTAINERD_NAMESPACE is `{0}`, which is no name of a namespace")]
    Namespace(String),
    #[error("containerd at {} refused to {verb}: {message}", socket.display())]
    Refused { socket: PathBuf, verb: &'static str, code: u32, message: String },
    #[error("containerd at {} was asked to {verb} and gave no answer that kiln can read", socket.display())]
    Call { socket: PathBuf, verb: &'static str, source: CallError },
    #[error("could not read the blob {digest} for containerd")]
    Read { digest: Digest, source: io::Error },
    #[error("containerd unpacked a layer to {actual}, and the image's config says {expected}")]
    OtherLayer { expected: Digest, actual: String },
}

impl ContainerdError {
    /// What the user can do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            ContainerdError::Absent { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                "its socket is root's; with CONTAINERD_ADDRESS unset, kiln takes a dockerd that you may use".into()
            }
            ContainerdError::Absent { .. } => "start containerd, or set CONTAINERD_ADDRESS=/path/to/its/socket".into(),
            ContainerdError::Namespace(_) => "leave it unset for `default`, or see `ctr namespaces ls`".into(),
            ContainerdError::Refused { verb, message, .. } if is_snapshotters(verb, message) => {
                "`ctr plugins ls` shows which snapshotters work there, and CONTAINERD_SNAPSHOTTER chooses one; native needs \
                 nothing of the file system"
                    .into()
            }
            _ => return None,
        })
    }

    fn is(&self, wanted: u32) -> bool {
        matches!(self, ContainerdError::Refused { code, .. } if *code == wanted)
    }
}

/// A containerd, and the lease under which kiln works in it. Cheap to clone.
#[derive(Clone)]
pub struct Leased {
    channel: Channel,
    place: Place,
    /// Sent with each call: the namespace, and the lease once there is one.
    metadata: HeaderMap,
    /// Also part of the names of whatever is unfinished.
    lease: String,
}

impl Leased {
    /// Connects and takes a lease.
    pub async fn begin(place: &Place) -> Result<Leased, ContainerdError> {
        let namespace = HeaderValue::from_str(&place.namespace);
        let namespace = namespace.map_err(|_| ContainerdError::Namespace(place.namespace.clone()))?;
        let channel = Channel::connect(&place.socket).await.map_err(|source| ContainerdError::Absent {
            socket: place.socket.clone(),
            is_set: false,
            source,
        })?;
        let metadata = HeaderMap::from_iter([(http::HeaderName::from_static("containerd-namespace"), namespace)]);
        let lease = format!("kiln-{:016x}", fastrand::u64(..));
        let mut leased = Leased { channel, place: place.clone(), metadata, lease };
        let expires = ("containerd.io/gc.expire".to_string(), rfc3339(SystemTime::now() + LEASE_TIME));
        let create = LeaseCreate { id: leased.lease.clone(), labels: Labels::from([expires]) };
        leased.call::<_, Empty>("leases.v1.Leases/Create", "give a lease", &create).await?;
        let lease = HeaderValue::from_str(&leased.lease).expect("letters and digits");
        leased.metadata.insert("containerd-lease", lease);
        Ok(leased)
    }

    /// Ends the lease: what no image refers to may go.
    pub async fn end(self) -> Result<(), ContainerdError> {
        let delete = LeaseDelete { id: self.lease.clone() };
        self.call::<_, Empty>("leases.v1.Leases/Delete", "end a lease", &delete).await.map(drop)
    }

    /// Has a name stand for an image, whatever it stood for.
    pub async fn name(&self, name: &str, target: &Descriptor) -> Result<(), ContainerdError> {
        let image = Some(Image { name: name.into(), target: Some(descriptor(target)) });
        let verb = "name an image";
        let create = ImageCreate { image: image.clone() };
        match self.call::<_, Empty>("images.v1.Images/Create", verb, &create).await {
            Err(error) if error.is(code::ALREADY_EXISTS) => {}
            result => return result.map(drop),
        }
        let update = ImageUpdate { image, update_mask: Some(api::FieldMask { paths: vec!["target".into()] }) };
        self.call::<_, Empty>("images.v1.Images/Update", verb, &update).await.map(drop)
    }

    /// Asks one of containerd's services. An answer of which nothing is wanted is read as [`Empty`].
    async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &str,
        verb: &'static str,
        question: &Q,
    ) -> Result<A, ContainerdError> {
        let answer = self.channel.unary(&path(method), &self.metadata, question).await;
        answer.map_err(|error| self.failed(verb, error))
    }

    fn failed(&self, verb: &'static str, error: CallError) -> ContainerdError {
        let socket = self.place.socket.clone();
        match error {
            CallError::Status { code, message } => ContainerdError::Refused { socket, verb, code, message },
            source => ContainerdError::Call { socket, verb, source },
        }
    }
}

/// Whether a snapshotter is not there, or cannot mount. What else goes wrong when a layer is unpacked is none of its fault.
fn is_snapshotters(verb: &str, message: &str) -> bool {
    match verb {
        unpack::SHOW | unpack::PREPARE => true,
        unpack::APPLY => message.contains("mount"),
        _ => false,
    }
}

/// `content.v1.Content/Write` as gRPC names it.
fn path(method: &str) -> String {
    format!("/containerd.services.{method}")
}

/// For `properties.rs`: what containerd may send.
pub fn read_every_way(input: &[u8]) {
    grpc::read_every_way(input);
    api::read_every_way(input);
    references(input);
}

fn descriptor(of: &Descriptor) -> api::Descriptor {
    api::Descriptor { media_type: of.media_type.clone(), digest: of.digest.to_string(), size: of.size.cast_signed() }
}
