//! Images that the store knows by name, and images of a dockerd.

mod archive;
mod daemon;
mod names;
