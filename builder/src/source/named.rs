//! `--build-context NAME=VALUE`: folders, images, OCI layouts and URLs that a Dockerfile refers to by name.

use super::context::{ContextDir, ContextError, load_ignore_file};
use super::image::Places;
use super::local::LocalNames;
use super::oci_layout::Layout;
use crate::remote_cache::import::Imports;
use frontend::compile::NamedContext;
use frontend::git_url::{GitUrl, redacted};
use frontend::ignore::{Ignore, IgnoreError};
use frontend::platform::Platform;
use frontend::reference::{Reference, ReferenceError};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// All named contexts of a build.
#[derive(Clone, Debug, Default)]
pub struct NamedContexts {
    /// For the frontend.
    pub compile: BTreeMap<String, NamedContext>,
    /// OCI layouts by name: folder, and tag or digest as written.
    pub layouts: BTreeMap<String, Layout>,
    /// Names of images in a dockerd, by context name.
    pub daemons: BTreeMap<String, String>,
    folders: BTreeMap<String, PathBuf>,
}

/// A named context that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum NamedContextError {
    #[error("failed to get build context {name}: stat {value}: no such file or directory")]
    NoFolder { name: String, value: String },
    #[error("failed to get build context {name}: `{value}` is no image reference")]
    Reference { name: String, value: String, source: ReferenceError },
    #[error("failed to get build context {name}: {value}: {problem}")]
    Git { name: String, value: String, problem: String },
    #[error("failed to get build context {name}: {value} is neither a git repository nor an HTTP(S) URL")]
    Remote { name: String, value: String },
    #[error("failed to get build context {name}: error in {}", path.display())]
    Ignore { name: String, path: PathBuf, source: IgnoreError },
    #[error("failed to find the OCI layout {}", path.display())]
    Layout { path: PathBuf, source: std::io::Error },
    #[error("failed to get build context {name}")]
    Context { name: String, source: ContextError },
}

/// Understands each value, and checks that folders exist.
pub fn resolve(values: &BTreeMap<String, String>, _host: &Platform) -> Result<NamedContexts, NamedContextError> {
    let mut contexts = NamedContexts::default();
    for (name, value) in values {
        let context = if let Some(image) = value.strip_prefix("docker-image://") {
            let reference = match image {
                "scratch" => None,
                image => Some(Reference::parse(image).map_err(|source| NamedContextError::Reference {
                    name: name.clone(),
                    value: image.into(),
                    source,
                })?),
            };
            NamedContext::Image(reference)
        } else if let Some(layout) = value.strip_prefix("oci-layout://") {
            contexts.layouts.insert(name.clone(), layout_ref(layout)?);
            NamedContext::OciLayout
        } else if let Some(image) = value.strip_prefix("docker-daemon:") {
            let image = image.strip_prefix("//").unwrap_or(image);
            Reference::parse(image).map_err(|source| NamedContextError::Reference {
                name: name.clone(),
                value: image.into(),
                source,
            })?;
            contexts.daemons.insert(name.clone(), image.to_string());
            // As for a layout, what the name means is the client's affair.
            NamedContext::OciLayout
        } else if let Some(context) = remote(name, value)? {
            context
        } else if Path::new(value).is_dir() {
            contexts.folders.insert(name.clone(), value.into());
            NamedContext::Local
        } else {
            return Err(NamedContextError::NoFolder { name: name.clone(), value: value.clone() });
        };
        contexts.compile.insert(name.clone(), context);
    }
    Ok(contexts)
}

/// A git repository, or a file of an HTTP(S) server. BuildKit knows `github.com/…` only as the main context.
fn remote(name: &str, value: &str) -> Result<Option<NamedContext>, NamedContextError> {
    let shown = redacted(value);
    match GitUrl::parse(value) {
        Ok(Some(url)) => Ok(Some(NamedContext::Git { source: url.source(), shown })),
        Ok(None) if value.starts_with("http://") || value.starts_with("https://") => {
            Ok(Some(NamedContext::Http(value.to_string())))
        }
        Ok(None) if value.contains("://") => Err(NamedContextError::Remote { name: name.into(), value: shown }),
        Ok(None) => Ok(None),
        Err(problem) => Err(NamedContextError::Git { name: name.into(), value: shown, problem }),
    }
}

/// `path[:tag][@digest]`; a colon belongs to the tag only after the last slash.
fn layout_ref(text: &str) -> Result<Layout, NamedContextError> {
    let (text, digest) = match text.split_once('@') {
        Some((text, digest)) => (text, Some(digest.to_string())),
        None => (text, None),
    };
    let (path, tag) = match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag.to_string())),
        _ => (text, None),
    };
    let path = std::path::absolute(path).map_err(|source| NamedContextError::Layout { path: path.into(), source })?;
    Ok(Layout { path, name: digest.or(tag) })
}

impl NamedContexts {
    /// Where images may be, beside registries. With `pull`, names of the store do not count.
    pub fn places(&self, pull: bool, imports: Imports) -> Places {
        let locals = if pull { LocalNames::Ignore } else { LocalNames::Use };
        Places { layouts: self.layouts.clone(), daemons: self.daemons.clone(), locals, imports }
    }

    /// The folders, each seen through its own .dockerignore.
    pub fn folders(&self) -> Result<BTreeMap<String, Arc<ContextDir>>, NamedContextError> {
        let open = |(name, path): (&String, &PathBuf)| {
            let context = |source| NamedContextError::Context { name: name.clone(), source };
            let ignore = match load_ignore_file(path, None).map_err(context)? {
                None => Ignore::default(),
                Some((path, text)) => Ignore::parse(&text).map_err(|source| NamedContextError::Ignore {
                    name: name.clone(),
                    path,
                    source,
                })?,
            };
            Ok((name.clone(), Arc::new(ContextDir::open(path, ignore).map_err(context)?)))
        };
        self.folders.iter().map(open).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_to_layouts() {
        let check = |text: &str, path: &str, name: Option<&str>| {
            let layout = layout_ref(text).unwrap();
            assert_eq!((layout.path, layout.name.as_deref()), (path.into(), name), "{text}");
        };
        check("/layout", "/layout", None);
        check("/a/layout:v1", "/a/layout", Some("v1"));
        check("/a:b/layout", "/a:b/layout", None);
        check("/layout@sha256:00", "/layout", Some("sha256:00"));
        check("/layout:v1@sha256:00", "/layout", Some("sha256:00"));
    }
}
