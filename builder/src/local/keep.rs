//! A result that no `--output` asked for: its names in the store, if it has any. Of what is only named no documents are made;
//! statements about an image name its documents, so what is attested takes the exporter `image` ([`implied_output`]).

use super::record;
use crate::attest::request::AttestRequest;
use crate::cli::options::BuildOptions;
use crate::cli::output::OutputSpec;
use crate::image::assemble::BuiltImage;
use cache::StoreError;
use cache::digest::Digest;
use cache::images::Naming;
use cache::store::Store;
use frontend::reference::Reference;
use std::collections::BTreeMap;
use std::fmt;

/// A result beside what exporters did with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Exporters had it.
    Exported,
    /// These names stand for it in the store, where it has this id. `is_new` unless they did before.
    Named { names: Vec<Reference>, id: Digest, is_new: bool },
    /// It is in the cache alone: no `--output` was given, and no name.
    Cached,
}

/// The output of a build without `--output` that names its result and attests something of it.
pub fn implied_output(options: &BuildOptions) -> Option<OutputSpec> {
    if !options.outputs.is_empty() || options.tags.is_empty() || options.attest == AttestRequest::default() {
        return None;
    }
    let names: Vec<String> = options.tags.iter().map(|name| name.to_string()).collect();
    Some(OutputSpec { kind: "image".into(), attributes: BTreeMap::from([("name".to_string(), names.join(","))]) })
}

/// What came of [`implied_output`], in a build that has begun at a time in milliseconds since 1970.
pub fn kept_by_exporter(options: &BuildOptions, store: &Store, begun_ms: i64) -> Result<Kept, StoreError> {
    let (names, mut named) = (options.tags.clone(), vec![]);
    for name in &names {
        named.extend(store.image_named(&record::stored_name(name))?);
    }
    let is_new = named.iter().any(|image| image.named_ms >= begun_ms);
    Ok(match named.pop() {
        Some(image) => Kept::Named { names, id: image.id, is_new },
        // Somebody has taken the name away meanwhile.
        None => Kept::Exported,
    })
}

/// Gives the result its names in the store; nothing is written if they have it already.
pub fn keep(
    images: &[BuiltImage],
    epoch: Option<i64>,
    options: &BuildOptions,
    store: &Store,
) -> Result<Kept, StoreError> {
    if options.tags.is_empty() || options.outputs.iter().any(|output| output.kind == "cacheonly") {
        return Ok(Kept::Cached);
    }
    let record = record::of_build(images, epoch, None)?;
    let mut is_new = false;
    for name in &options.tags {
        is_new |= store.name_image(&record::stored_name(name), &record)? != Naming::Same;
    }
    Ok(Kept::Named { names: options.tags.clone(), id: record.id(), is_new })
}

/// A line for the end of a build; empty if exporters had the result.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::Exported => Ok(()),
            Kept::Cached => f.write_str(
                "WARNING: No output specified: the result stays in kiln's cache. Name it with -t, or add --push, \
                 --load, -o FOLDER, or -o type=oci,dest=FILE\n",
            ),
            Kept::Named { names, id, is_new } => {
                let names: Vec<String> = names.iter().map(|name| name.familiar()).collect();
                let verb = if *is_new { "now" } else { "still" };
                let (all, first, id) = (names.join(", "), &names[0], &id.hex()[..12]);
                writeln!(
                    f,
                    "{all}: {verb} image {id} of kiln's store. `kiln image push {first}` pushes it; --load gives it to \
                     dockerd"
                )
            }
        }
    }
}
