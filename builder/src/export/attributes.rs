//! Attributes of an `--output`: taken one by one, and none may be left over.

use super::compatibility::CompatibilityVersion;
use super::{ExportError, ImageAttributes};
use crate::cli::csv;
use crate::image::assemble::{AnnotationSet, AssembleOptions};
use crate::image::attestation::{AttestationOptions, Form, Place};
use crate::image::layers::LayerOptions;
use cache::layer::compression::{Compression, MediaTypes};
use frontend::platform::Platform;
use frontend::reference::Reference;
use std::collections::BTreeMap;

/// Attributes that have not been taken yet.
pub struct Attributes {
    exporter: String,
    values: BTreeMap<String, String>,
}

impl Attributes {
    /// Of an exporter of that type.
    pub fn new(exporter: impl Into<String>, values: BTreeMap<String, String>) -> Attributes {
        Attributes { exporter: exporter.into(), values }
    }

    /// The value of a key.
    pub fn take(&mut self, key: &str) -> Option<String> {
        self.values.remove(key)
    }

    /// A boolean; an empty value is true.
    pub fn boolean(&mut self, key: &'static str) -> Result<Option<bool>, ExportError> {
        match self.take(key).as_deref() {
            None => Ok(None),
            Some("") => Ok(Some(true)),
            Some(text) => match csv::boolean(text) {
                Some(value) => Ok(Some(value)),
                None => Err(self.bad(key, text, "it must be true or false")),
            },
        }
    }

    /// An error about a value.
    pub fn bad(&self, key: impl Into<String>, value: &str, problem: impl Into<String>) -> ExportError {
        ExportError::Attribute {
            exporter: self.exporter.clone(),
            key: key.into(),
            value: value.into(),
            problem: problem.into(),
        }
    }

    /// An error about a missing value.
    pub fn missing(&self, key: &'static str) -> ExportError {
        ExportError::Missing { exporter: self.exporter.clone(), key }
    }

    /// Fails if something was not taken: it would be ignored otherwise.
    pub fn finish(self) -> Result<(), ExportError> {
        match self.values.into_keys().next() {
            Some(key) => Err(ExportError::UnknownAttribute { exporter: self.exporter, key }),
            None => Ok(()),
        }
    }

    /// What image-like exporters have in common. `inline` is whether attestations come along that are only for what is
    /// pushed, unless `attestation-inline` says otherwise.
    pub fn image(&mut self, inline: bool) -> Result<ImageAttributes, ExportError> {
        let (mut names, mut names_as_given) = (vec![], vec![]);
        for name in self.take("name").iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty()) {
            names.push(Reference::parse(name).map_err(|error| self.bad("name", name, error.to_string()))?);
            names_as_given.push(name.to_string());
        }
        let version = CompatibilityVersion::take(self)?;
        let given_types = self.boolean("oci-mediatypes")?;
        let types = match given_types {
            Some(false) => MediaTypes::Docker,
            _ => MediaTypes::Oci,
        };
        let form = match (self.boolean("oci-artifact")?, types) {
            (Some(true), MediaTypes::Docker) => {
                return Err(self.bad("oci-artifact", "true", "artifacts need oci-mediatypes=true"));
            }
            (None, _) if version == CompatibilityVersion::V20 => Form::Legacy,
            (Some(false), _) => Form::Legacy,
            _ => Form::Artifact,
        };
        let annotations = self.annotations()?;
        let compression = self.compression()?;
        let attributes = ImageAttributes {
            names,
            names_as_given,
            are_types_open: given_types.is_none() && version == CompatibilityVersion::V20,
            options: AssembleOptions {
                types,
                layer: LayerOptions { compression, clamp: None },
                force_compression: self.boolean("force-compression")?.unwrap_or(false),
                epoch: None,
                build_epoch: None,
                annotations,
                multi_platform: false,
                attestations: AttestationOptions {
                    form,
                    place: Place::Index,
                    inline: self.boolean("attestation-inline")?.unwrap_or(inline),
                    names: vec![],
                },
            },
            rewrite_timestamp: self.boolean("rewrite-timestamp")?.unwrap_or(false),
            epoch: self.epoch()?,
        };
        if types == MediaTypes::Docker {
            check_docker_types(&self.exporter, &attributes.options)?;
        }
        Ok(attributes)
    }

    /// `source-date-epoch`, in seconds; an empty value switches it off.
    pub fn epoch(&mut self) -> Result<Option<Option<i64>>, ExportError> {
        match self.take("source-date-epoch").as_deref() {
            None => Ok(None),
            Some("") => Ok(Some(None)),
            Some(text) => match text.parse() {
                Ok(seconds) => Ok(Some(Some(seconds))),
                Err(_) => Err(self.bad("source-date-epoch", text, "it must be seconds since 1970")),
            },
        }
    }

    /// The compression, if something is said of it.
    pub fn compression_if_given(&mut self) -> Result<Option<Compression>, ExportError> {
        let is_given = ["compression", "compression-level"].into_iter().any(|key| self.values.contains_key(key));
        if is_given { self.compression().map(Some) } else { Ok(None) }
    }

    fn compression(&mut self) -> Result<Compression, ExportError> {
        let level_text = self.take("compression-level");
        let level = match level_text.as_deref().map(str::parse::<i32>) {
            None => None,
            Some(Ok(level)) => Some(level),
            Some(Err(_)) => return Err(self.bad("compression-level", &level_text.unwrap_or_default(), "not a number")),
        };
        // Levels that the method does not have are the nearest that it has, as for BuildKit.
        let level = level.filter(|level| *level >= 0);
        let of_gzip = level.map(|level| level.min(9) as u32);
        let compression = self.values.remove("compression");
        match compression.as_deref() {
            None | Some("gzip") => Ok(Compression::Gzip { level: of_gzip }),
            Some("estargz") => Ok(Compression::Estargz { level: of_gzip }),
            Some("zstd") => Ok(Compression::Zstd { level: level.map(|level| level.min(22)) }),
            Some("uncompressed") => Ok(Compression::Uncompressed),
            Some(other) => Err(self.bad("compression", other, "kiln knows gzip, estargz, zstd and uncompressed")),
        }
    }

    /// `annotation[-TYPE][[PLATFORM]].NAME` attributes.
    fn annotations(&mut self) -> Result<AnnotationSet, ExportError> {
        let mut set = AnnotationSet::default();
        let keys: Vec<String> = self.values.keys().filter(|key| key.starts_with("annotation")).cloned().collect();
        for key in keys {
            let value = self.values.remove(&key).expect("the key was just listed");
            let Some((place, name)) = split_annotation(&key) else {
                return Err(self.bad(&key, &value, "it must be annotation[-type].name"));
            };
            let (place, platform) = match place.split_once('[') {
                None => (place, None),
                Some((place, platform)) => (place, Some(platform.trim_end_matches(']'))),
            };
            let platform = platform.map(|text| Platform::parse(text, &crate::host_platform())).transpose();
            let platform = platform.map_err(|error| self.bad(&key, &value, error.to_string()))?;
            let name = name.to_string();
            match (place, &platform) {
                ("", _) | ("-manifest", _) => set.manifest.push((platform, name, value)),
                ("-manifest-descriptor", _) => set.manifest_descriptor.push((platform, name, value)),
                ("-index", None) => drop(set.index.insert(name, value)),
                ("-index-descriptor", None) => drop(set.index_descriptor.insert(name, value)),
                _ => return Err(self.bad(&key, &value, "it must be annotation[-type[platform]].name")),
            }
        }
        Ok(set)
    }
}

/// What Docker's media types have no place for.
pub fn check_docker_types(exporter: &str, options: &AssembleOptions) -> Result<(), ExportError> {
    let bad = |key: &str, value: &str, problem: &str| ExportError::Attribute {
        exporter: exporter.into(),
        key: key.into(),
        value: value.into(),
        problem: problem.into(),
    };
    if !options.annotations.index.is_empty() {
        return Err(bad("oci-mediatypes", "false", "Docker's indexes have no annotations"));
    }
    if matches!(options.layer.compression, Compression::Estargz { .. }) {
        return Err(bad("compression", "estargz", "it needs oci-mediatypes=true"));
    }
    Ok(())
}

/// Splits the key of an annotation attribute at the first dot outside of brackets, `annotation` dropped.
fn split_annotation(key: &str) -> Option<(&str, &str)> {
    let rest = key.strip_prefix("annotation")?;
    let after_platform = rest.find(']').map_or(0, |bracket| bracket + 1);
    let dot = after_platform + rest[after_platform..].find('.')?;
    Some((&rest[..dot], &rest[dot + 1..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotation_keys() {
        let check = |key: &str, want: Option<(&str, &str)>| assert_eq!(split_annotation(key), want, "{key}");
        check("annotation.org.x", Some(("", "org.x")));
        check("annotation-index.a", Some(("-index", "a")));
        check("annotation-manifest[linux/arm/v7].a.b", Some(("-manifest[linux/arm/v7]", "a.b")));
        check("annotation", None);
    }

    #[test]
    fn what_is_not_known_is_refused() {
        let mut attributes = Attributes::new("oci", BTreeMap::from([("compresion".into(), "zstd".into())]));
        attributes.image(false).unwrap();
        assert!(matches!(attributes.finish(), Err(ExportError::UnknownAttribute { .. })));
    }
}
