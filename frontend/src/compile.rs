//! AST + arguments + base configs -> [`BuildPlan`], or the images whose configs are still needed.

use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;
use crate::image_config::ImageConfig;
use crate::op::Step;
use crate::platform::Platform;
use crate::reference::Reference;
use solver::graph::{Edge, Graph};
use std::collections::{BTreeMap, BTreeSet};

/// All that decides what is built, beside the Dockerfile.
#[derive(Clone, Debug)]
pub struct CompileRequest {
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--platform`, normalised, without duplicates; empty when not given.
    pub platforms: Vec<Platform>,
    /// This machine's.
    pub build_platform: Platform,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// `--build-context`, by normalised name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`, `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--network`: default of RUN without its own.
    pub network: crate::op::Network,
    /// `--add-host`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// `--shm-size`.
    pub shm_size_bytes: Option<u64>,
    /// `--ulimit`: name, soft, hard.
    pub ulimits: Vec<(String, i64, i64)>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// `--allow`, such as `network.host`.
    pub entitlements: BTreeSet<String>,
    /// Patterns of the context's .dockerignore, for the check `CopyIgnoredFile`; lines as written.
    pub ignore_file: Option<String>,
}

/// What `--no-cache` and `--no-cache-filter` say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoCache {
    /// Neither is given.
    Use,
    /// Ignore records of all steps.
    IgnoreAll,
    /// Ignore records of the steps of these stages (lower case).
    IgnoreStages(BTreeSet<String>),
}

/// Value of a `--build-context`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedContext {
    /// A directory; the name by which a local source asks for it is the context's name.
    Local,
    /// `docker-image://`; `None` is `scratch`.
    Image(Option<Reference>),
    /// `oci-layout://`; the client resolves the tag.
    OciLayout,
    /// Git URL.
    Git(String),
    /// Other URL.
    Http(String),
}

/// Asks for the config of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ImageRequest {
    /// Where it is.
    pub source: ImageLocation,
    /// Which of its manifests.
    pub platform: Platform,
    /// Where it is asked for, to be shown when it fails: the FROM, or the COPY.
    pub span: Option<crate::span::Span>,
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
    /// Of the platform's own manifest.
    pub digest: String,
    /// Of what the tag names (index or manifest), shown in the FROM step.
    pub top_digest: String,
    /// Its config, history and diff_ids included.
    pub config: ImageConfig,
}

/// Answers by what was asked for; spans and names do not count.
pub type Images = BTreeMap<(ImageLocation, Platform), ImageInfo>;

/// Outcome of compiling.
pub enum Compiled {
    /// Resolve these, all at once, and compile again with the answers added.
    NeedsImages(Vec<ImageRequest>),
    /// The whole build.
    Plan(BuildPlan),
}

/// The whole build, for all platforms.
pub struct BuildPlan {
    /// All vertices that some target needs, and possibly more.
    pub graph: Graph<Step>,
    /// One for each requested platform, in order; exactly one if none was requested.
    pub results: Vec<PlannedImage>,
    /// Build checks that fired, in file order.
    pub warnings: Vec<Diagnostic>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
}

/// An image to be made.
pub struct PlannedImage {
    /// Key of the result and platform of its descriptor.
    pub platform: Platform,
    /// The file system; `None` is an empty one without layers.
    pub root: Option<Edge>,
    /// Complete but for `created`, `rootfs`, and the times of new history entries.
    pub config: ImageConfig,
    /// How many entries at the start of the history came with the base image.
    pub base_history_len: usize,
}

/// Compiles for all platforms at once. Fails with all errors found.
pub fn compile(
    _dockerfile: &Dockerfile,
    _request: &CompileRequest,
    _images: &Images,
) -> Result<Compiled, Vec<Diagnostic>> {
    unimplemented!("contract; written by the compile work")
}
