//! What is run again, what is not, and why.

mod concurrent;
mod explain;
mod keys;
mod objects;
mod plan;
mod rebuild;
mod remote;
mod remote_gha;
mod store;
