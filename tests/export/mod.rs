//! Outputs, read by other programs where there are some.

mod annotations;
mod compatibility;
mod docker;
mod layout;
mod local;
mod metadata;
mod push;
mod reproducible;
mod unpack;
