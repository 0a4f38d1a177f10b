//! Blobs: bytes named by their digest. What a name is given to has been hashed here, so bytes of another digest
//! never get in.

pub mod local;
