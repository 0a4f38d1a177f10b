//! Solves a build graph: decides for each vertex whether it must run and when, generic over what running means.

#![forbid(unsafe_code)]

pub mod graph;
pub mod key;
pub mod progress;
pub mod record;
pub mod step;
