//! End-to-end tests: one file per promise's subject, all in one program so that it links once. They run the built
//! `kiln` (see `harness`), with a real sandbox and a real registry on loopback, and no network outside this machine
//! unless `KILN_NETWORK=1` allows it.

mod attest;
mod cache;
mod compat;
mod cross;
mod examples;
mod export;
mod fault;
mod history;
mod image;
mod instruction;
mod registry;
mod sandbox;
mod source;
