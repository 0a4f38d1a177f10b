//! What a remote cache says: which keys it has and which blobs hold their layers. Moves no bytes and knows no place to
//! keep them; that is the builder's `remote_cache`. The format is documented in `docs/remote-cache.md`.

pub mod index;

pub use index::{Index, IndexError, RemoteBlob, RemoteMount, RemoteRecord};
