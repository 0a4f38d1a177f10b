//! The documents of an image: chosen when one is pulled, assembled when one is made from a planned image and its layers.

pub mod assemble;
pub mod attestation;
pub mod config;
pub mod layers;
pub mod manifest;
pub mod select;
