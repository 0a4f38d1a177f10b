//! What the compiler asks for and cannot find out itself: configs of images, times of sources. And the answers.

use crate::image_config::ImageConfig;
use crate::op::Source;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::span::Span;
use std::collections::BTreeMap;

/// Asks for the config of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Where it is.
    pub source: ImageLocation,
    /// Which of its manifests.
    pub platform: Platform,
    /// Where it is asked for, to be shown when it fails: the FROM, or the COPY.
    pub span: Option<Span>,
    /// The name of the image there.
    pub word: Option<Span>,
    /// Progress name, such as `[internal] load metadata for docker.io/library/busybox:latest`.
    pub name: String,
}

/// Where an image is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImageLocation {
    /// A registry.
    Registry(Reference),
    /// The named context of that name.
    OciLayout(String),
}

/// The answer to an [`ImageRequest`].
#[derive(Clone, Debug, PartialEq)]
pub struct ImageInfo {
    /// Of the platform's own manifest; empty if the image could not be read ([`ImageInfo::unread`]).
    pub digest: String,
    /// Of what the tag names (index or manifest), shown in the FROM step.
    pub top_digest: String,
    /// Its config, history and diff_ids included.
    pub config: ImageConfig,
}

impl ImageInfo {
    /// Stands for an image that could not be read. Good enough to [`check`](super::check) and to
    /// [`outline`](super::outline()) what is built on it, not to build it.
    pub fn unread(platform: &Platform) -> ImageInfo {
        let mut config = ImageConfig {
            architecture: platform.architecture.clone(),
            os: platform.os.clone(),
            variant: platform.variant.clone(),
            ..ImageConfig::default()
        };
        config.rootfs.diff_ids = Some(vec![String::new()]);
        ImageInfo { digest: String::new(), top_digest: String::new(), config }
    }

    /// Its config is known.
    pub fn is_read(&self) -> bool {
        !self.digest.is_empty()
    }
}

/// An image, and which of its manifests.
pub type ImageKey = (ImageLocation, Platform);

/// Answers by what was asked for; spans and names do not count.
pub type Images = BTreeMap<ImageKey, ImageInfo>;

/// Asks for the time of a source: that of a git commit, or when a file was last modified.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeRequest {
    /// What.
    pub source: Source,
    /// Progress name.
    pub name: String,
}
