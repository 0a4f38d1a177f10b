//! Remote caches (`--cache-from`, `--cache-to`): what other machines have built, and what this one hands on.
//!
//! `place.rs` is where a cache is kept, whatever keeps it: `registry.rs` and `layout.rs` hold it as an OCI artefact that
//! `document.rs` tells from other documents, `objects.rs` in an object store, `gha.rs` in the cache service of GitHub Actions. `import.rs` answers lookups from the indexes that were read; layers are
//! fetched by `source/layers.rs` when a step needs their files. `export.rs` carries layers away while the build runs and
//! writes the index at its end, `inline.rs` writes it into the image itself;
//! `mounts.rs` takes cache mounts along. `records.rs` joins all this to the store for
//! the solver. Format and guarantees: `docs/remote-cache.md`.
//!
//! Invariant: nothing here fails a build unless `ignore-error=false` was asked for. What a cache does not give is made.

pub mod azure;
pub mod document;
pub mod export;
pub mod flag;
pub mod gha;
pub mod gha_service;
pub mod import;
pub mod inline;
pub mod layout;
pub mod mounts;
pub mod objects;
pub mod place;
pub mod records;
pub mod registry;
pub mod s3;

use crate::cli::cache_flags::CacheSpec;
use crate::image::layers::LayerOptions;
use crate::pipeline::World;
use crate::progress::Progress;
use export::Exports;
use flag::FlagError;
use import::Imports;
use std::collections::BTreeSet;

/// The remote caches of one build. Cheap to clone; the default has none.
#[derive(Clone, Default)]
pub struct RemoteCache {
    pub imports: Imports,
    pub exports: Exports,
}

impl RemoteCache {
    /// Understands the flags; asks nobody yet. `image` is how the build's image wants its layers, if it makes one: what
    /// is exported is then the same bytes.
    pub fn open(
        from: &[CacheSpec],
        to: &[CacheSpec],
        image: Option<LayerOptions>,
        world: &World,
    ) -> Result<RemoteCache, FlagError> {
        let sources = from.iter().map(|spec| flag::sources(spec, world)).collect::<Result<Vec<_>, _>>()?.concat();
        let targets = to.iter().map(|spec| flag::targets(spec, image, world)).collect::<Result<Vec<_>, _>>()?.concat();
        let mut seen = BTreeSet::new();
        for target in &targets {
            let name = target.place.as_ref().map_or("inline".to_string(), |place| place.name());
            if !seen.insert(name.clone()) {
                return Err(FlagError::Twice { name });
            }
        }
        Ok(RemoteCache { imports: Imports::new(sources), exports: Exports::new(targets, world) })
    }

    /// Reads the indexes: those that are looked in, and those that are added to.
    pub async fn read(&self, progress: &Progress) {
        tokio::join!(self.imports.read(progress), self.exports.read());
    }
}
