//! What is run again, and what is not.

mod concurrent;
mod rebuild;
mod remote;
mod store;
