//! kiln's program: all that touches kernel, network or person.

pub mod progress;
pub mod report;
pub mod time;
