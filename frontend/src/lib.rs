//! Dockerfile text in, build graph and diagnostics out. Pure: no files, network, clock or environment.

#![forbid(unsafe_code)]

pub mod ast;
pub mod compile;
pub mod diagnostic;
pub mod image_config;
pub mod op;
pub mod platform;
pub mod reference;
pub mod span;
