//! Trees that come from outside the Dockerfile: named contexts and images (reference/dockerfile.md 2.1, 4.6).

use super::context::{http, http_name};
use super::{CompileRequest, ImageInfo, ImageKey, ImageLocation, ImageRequest, Images, NamedContext};
use crate::draft::Draft;
use crate::op::{GitSource, Op, Source, Step, Words};
use crate::platform::Platform;
use crate::reference::{Reference, ReferenceError};
use crate::span::Span;
use crate::stage::{Settings, Tree};
use solver::graph::Edge;
use std::sync::Arc;

/// A tree from outside.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outside {
    pub kind: Kind,
    /// Key of the named context that it comes from.
    pub context: Option<String>,
    /// As written in the Dockerfile.
    pub written: String,
    /// Where it is asked for.
    pub site: Site,
}

/// Where a tree is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Site {
    /// The instruction.
    pub span: Span,
    /// The name in it.
    pub word: Span,
}

/// Where it is.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Scratch,
    Image(ImageKey),
    Local,
    Git { source: GitSource, shown: String },
    Http(String),
}

/// What FROM, COPY --from and from= mean by a name that no stage has.
pub(super) fn locate(name: &str, platform: &Platform, request: &CompileRequest, site: Site) -> Result<Outside, String> {
    locate_parsed(name, Reference::parse(name), platform, request, site)
}

/// As [`locate`], of a name that has been parsed.
pub(super) fn locate_parsed(
    name: &str,
    reference: Result<Reference, ReferenceError>,
    platform: &Platform,
    request: &CompileRequest,
    site: Site,
) -> Result<Outside, String> {
    let found = |kind, context| Outside { kind, context, written: name.to_string(), site };
    if name == "scratch" {
        return Ok(found(Kind::Scratch, None));
    }
    let reference = match reference {
        Ok(reference) => reference,
        Err(error) => return Err(format!("failed to parse stage name {name:?}: {error}")),
    };
    if let Some(outside) = named_context(name, platform, request, site) {
        return Ok(outside);
    }
    Ok(found(Kind::Image((ImageLocation::Registry(reference), platform.clone())), None))
}

/// The named context of a name, that for the platform first.
pub(super) fn named_context(name: &str, platform: &Platform, request: &CompileRequest, site: Site) -> Option<Outside> {
    if request.contexts.is_empty() || ["scratch", "context"].iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
    {
        return None;
    }
    let familiar = Reference::parse(name).ok()?.familiar();
    let normal = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let keys = [format!("{normal}::{platform}"), normal.to_string()];
    let (key, context) = keys.into_iter().find_map(|key| request.contexts.get(&key).map(|value| (key, value)))?;
    let image = |location| Kind::Image((location, platform.clone()));
    let kind = match context {
        NamedContext::Local => Kind::Local,
        NamedContext::Image(None) => Kind::Scratch,
        NamedContext::Image(Some(reference)) => image(ImageLocation::Registry(reference.clone())),
        NamedContext::OciLayout => image(ImageLocation::OciLayout(key.clone())),
        NamedContext::Git { source, shown } => Kind::Git { source: source.clone(), shown: shown.clone() },
        NamedContext::Http(url) => Kind::Http(url.clone()),
    };
    Some(Outside { kind, context: Some(key), written: name.to_string(), site })
}

impl Outside {
    /// `scratch`
    pub fn scratch(site: Site) -> Outside {
        Outside { kind: Kind::Scratch, context: None, written: "scratch".to_string(), site }
    }

    /// The image that it is, if it is one.
    pub fn image(&self) -> Option<&ImageKey> {
        match &self.kind {
            Kind::Image(image) => Some(image),
            Kind::Scratch | Kind::Local | Kind::Git { .. } | Kind::Http(_) => None,
        }
    }

    /// The request for its config, if it is an image.
    pub fn request(&self, settings: &Settings<'_>) -> Option<ImageRequest> {
        let (location, platform) = self.image()?;
        let what = match location {
            ImageLocation::Registry(reference) => reference.to_string(),
            ImageLocation::OciLayout(name) => name.clone(),
        };
        let prefix = match &self.context {
            Some(context) => format!("[context {context}]"),
            None if settings.platform_in_names => format!("[{platform} internal]"),
            None => "[internal]".to_string(),
        };
        Some(ImageRequest {
            source: location.clone(),
            platform: platform.clone(),
            span: Some(self.site.span),
            word: Some(self.site.word),
            name: format!("{prefix} load metadata for {what}"),
        })
    }

    /// The answer to its request.
    pub fn info<'a>(&self, images: &'a Images) -> Option<&'a ImageInfo> {
        images.get(self.image()?)
    }

    /// `docker.io/library/x:tag@sha256:…` of an image in a registry.
    pub fn pinned_name(&self, info: &ImageInfo) -> String {
        match &self.kind {
            Kind::Image((ImageLocation::Registry(reference), _)) => reference.with_digest(&info.top_digest).to_string(),
            _ => format!("{}@{}", self.written, info.top_digest),
        }
    }

    /// Its source vertex; `None` for an empty tree. `name` is the progress name of an image that is no named context.
    pub fn edge(&self, draft: &mut Draft, images: &Images, name: impl Fn(&ImageInfo) -> String) -> Option<Edge> {
        // Of several, the first that asks decides what it is called.
        if let Some(edge) = self.image().and_then(|image| draft.images.get(image)) {
            return Some(*edge);
        }
        let context = self.context.as_deref().unwrap_or(&self.written);
        let (source, name) = match &self.kind {
            Kind::Scratch => return None,
            Kind::Image((location, platform)) => {
                let info = self.info(images).filter(|info| !is_empty(info))?;
                let (digest, platform) = (info.digest.clone(), platform.clone());
                match location {
                    ImageLocation::Registry(reference) => {
                        let shown = match &self.context {
                            Some(context) => format!("[context {context}] {}", self.pinned_name(info)),
                            None => name(info),
                        };
                        (Source::Image { reference: reference.clone(), digest, platform }, shown)
                    }
                    ImageLocation::OciLayout(name) => {
                        let shown = format!("[context {context}] OCI load from client");
                        (Source::OciLayout { name: name.clone(), digest, platform }, shown)
                    }
                }
            }
            Kind::Local => {
                let shown = format!("[context {context}] load from client");
                (Source::Local { name: context.to_string() }, shown)
            }
            Kind::Git { source, shown } => (Source::Git(source.clone()), format!("[internal] load git source {shown}")),
            Kind::Http(url) => (http(url), http_name(context, url)),
        };
        let mut words = Words::default();
        words.push(&self.written, self.site.word);
        let (op, words) = (Op::Source(Box::new(source)), Arc::new(words));
        let edge = draft.add(vec![], Step { op, name, span: Some(self.site.span), words, ignore_cache: false });
        draft.images.extend(self.image().map(|image| (image.clone(), edge)));
        Some(edge)
    }

    /// As something to copy from or to mount.
    pub fn tree(&self, draft: &mut Draft, images: &Images) -> Tree {
        let label = match (&self.kind, &self.context) {
            (_, Some(context)) => format!("named context {context:?}"),
            (Kind::Scratch, None) => "scratch".to_string(),
            (_, None) => format!("image {:?}", self.written),
        };
        let edge = self.edge(draft, images, |info| format!("FROM {}", self.pinned_name(info)));
        Tree { edge, label: label.into(), from_client: self.kind == Kind::Local }
    }
}

/// An image without layers: no diff_ids, and a history without any.
pub(super) fn is_empty(info: &ImageInfo) -> bool {
    info.config.rootfs.diff_ids.as_ref().is_none_or(Vec::is_empty)
        && info.config.history.iter().all(|entry| entry.empty_layer)
}
