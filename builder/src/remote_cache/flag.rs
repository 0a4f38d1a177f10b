//! What `--cache-from` and `--cache-to` ask for, understood: every option is honoured or refused.

use super::export::{Compress, Mode, OnError, Target};
use super::import::{Mounts, Source};
use super::layout::Layout;
use super::place::Place;
use super::registry::Repository;
use crate::cli::cache_flags::CacheSpec;
use crate::export::ExportError;
use crate::export::attributes::Attributes;
use crate::image::layers::LayerOptions;
use crate::pipeline::World;
use cache::layer::compression::Compression;
use frontend::reference::{Reference, ReferenceError};
use std::path::PathBuf;

/// A flag that cannot be honoured.
#[derive(Debug, thiserror::Error)]
pub enum FlagError {
    #[error("unknown cache {direction}: \"{kind}\"; kiln knows {known}")]
    Unknown { direction: &'static str, kind: String, known: &'static str },
    #[error("invalid cache reference \"{text}\"")]
    Reference { text: String, source: ReferenceError },
    #[error("the cache {name} is exported to twice")]
    Twice { name: String },
    #[error(transparent)]
    Attribute(#[from] ExportError),
    #[error("cannot find the working directory")]
    Path(#[source] std::io::Error),
}

/// A `--cache-from`.
pub(super) fn source(spec: &CacheSpec, world: &World) -> Result<Source, FlagError> {
    let mut attributes = Attributes::new(title(&spec.kind, "from"), spec.attributes.clone());
    let place = match spec.kind.as_str() {
        "registry" => registry(&mut attributes, world)?,
        "local" => {
            let path = attributes.take("src").ok_or_else(|| attributes.missing("src"))?;
            let tag = attributes.take("tag").unwrap_or_else(|| "latest".into());
            let tag = attributes.take("digest").unwrap_or(tag);
            Place::Local(Layout { path: absolute(path)?, tag, reset: false })
        }
        "inline" => {
            let problem = "an inline cache is read with --cache-from type=registry,ref=IMAGE";
            return Err(attributes.bad("type", "inline", problem).into());
        }
        _ => {
            let known = "registry, local";
            return Err(FlagError::Unknown { direction: "importer", kind: spec.kind.clone(), known });
        }
    };
    let mounts = match attributes.boolean("mounts")? {
        Some(false) => Mounts::Stay,
        _ => Mounts::Travel,
    };
    attributes.finish()?;
    Ok(Source { place, mounts })
}

/// A `--cache-to`.
pub(super) fn target(spec: &CacheSpec, image: Option<LayerOptions>, world: &World) -> Result<Target, FlagError> {
    let mut attributes = Attributes::new(title(&spec.kind, "to"), spec.attributes.clone());
    let place = match spec.kind.as_str() {
        "inline" => None,
        "registry" => Some(registry(&mut attributes, world)?),
        "local" => {
            let path = attributes.take("dest").ok_or_else(|| attributes.missing("dest"))?;
            let tag = attributes.take("tag").unwrap_or_else(|| "latest".into());
            let reset = attributes.boolean("reset")?.unwrap_or(false);
            Some(Place::Local(Layout { path: absolute(path)?, tag, reset }))
        }
        _ => {
            let known = "registry, inline, local";
            return Err(FlagError::Unknown { direction: "exporter", kind: spec.kind.clone(), known });
        }
    };
    let target = match place {
        None => Target {
            place: None,
            mode: Mode::Min,
            compression: Compression::Gzip { level: None },
            compress: Compress::New,
            on_error: OnError::Warn,
            mounts: Mounts::Stay,
        },
        Some(place) => {
            let mode = match attributes.take("mode").as_deref() {
                None | Some("min") => Mode::Min,
                Some("max") => Mode::Max,
                Some(other) => return Err(attributes.bad("mode", other, "it must be min or max").into()),
            };
            for key in ["image-manifest", "oci-mediatypes"] {
                if attributes.boolean(key)? == Some(false) {
                    let problem = "kiln's cache is an OCI image manifest; leave it out";
                    return Err(attributes.bad(key, "false", problem).into());
                }
            }
            let compression = attributes.compression_if_given()?;
            let compression =
                compression.or(image.filter(|image| image.clamp.is_none()).map(|image| image.compression));
            Target {
                place: Some(place),
                mode,
                compression: compression.unwrap_or(Compression::Gzip { level: None }),
                compress: match attributes.boolean("force-compression")? {
                    Some(true) => Compress::All,
                    _ => Compress::New,
                },
                on_error: match attributes.boolean("ignore-error")? {
                    Some(false) => OnError::Fail,
                    _ => OnError::Warn,
                },
                mounts: match attributes.boolean("mounts")? {
                    Some(true) => Mounts::Travel,
                    _ => Mounts::Stay,
                },
            }
        }
    };
    attributes.finish()?;
    Ok(target)
}

fn registry(attributes: &mut Attributes, world: &World) -> Result<Place, FlagError> {
    let text = attributes.take("ref").ok_or_else(|| attributes.missing("ref"))?;
    let reference = Reference::parse(&text).map_err(|source| FlagError::Reference { text, source })?;
    if attributes.boolean("registry.insecure")? == Some(true) {
        let problem = "say it of the registry in kiln.toml: [registry.\"HOST\"] insecure = true";
        return Err(attributes.bad("registry.insecure", "true", problem).into());
    }
    Ok(Place::Registry(Repository::new(world.registry.clone(), reference)))
}

/// For errors.
fn title(kind: &str, direction: &str) -> &'static str {
    match (kind, direction) {
        ("registry", "from") => "--cache-from type=registry",
        ("local", "from") => "--cache-from type=local",
        (_, "from") => "--cache-from",
        ("registry", _) => "--cache-to type=registry",
        ("local", _) => "--cache-to type=local",
        ("inline", _) => "--cache-to type=inline",
        _ => "--cache-to",
    }
}

fn absolute(path: String) -> Result<PathBuf, FlagError> {
    std::path::absolute(path).map_err(FlagError::Path)
}
