//! Attestations: what a build says about its own result. `request.rs` reads the flags; `facts.rs` gathers what is known of
//! a build, `provenance.rs` writes it down as SLSA wants it; `sbom` lists what a file system has in it, `generator.rs` has
//! a scanner image do that; `make.rs` has provenance and SBOMs made, `statement.rs` puts either into in-toto's form. Where
//! they go is `image/attestation.rs` and the exporters. Forms: reference/engine.md 2.6 and 8.

pub mod facts;
pub mod files;
pub mod generator;
mod llb;
pub mod make;
pub mod metadata;
pub mod provenance;
pub mod purl;
pub mod request;
pub mod sbom;
pub mod statement;
pub mod vcs;
