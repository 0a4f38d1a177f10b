//! Images that the store knows by name, and images of a dockerd.

mod analyze;
mod archive;
mod attested;
mod daemon;
mod names;
