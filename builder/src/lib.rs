//! kiln's program: all that touches kernel, network or person.

pub mod cli;
pub mod config;
pub mod image;
pub mod progress;
pub mod registry;
pub mod report;
pub mod sandbox;
pub mod secret;
pub mod source;
pub mod ssh;
pub mod step;
pub mod time;
