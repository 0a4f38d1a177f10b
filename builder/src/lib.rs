//! kiln's program: all that touches kernel, network or person.

pub mod cli;
pub mod progress;
pub mod report;
pub mod sandbox;
pub mod secret;
pub mod ssh;
pub mod step;
pub mod time;
