//! AST + arguments + base configs -> [`BuildPlan`], or the images whose configs are still needed.

mod args;
mod context;
mod epoch;
mod head;
mod lower;
mod merge;
mod needs;
mod outline;
mod outside;
mod questions;
mod request;
mod scans;
mod stages;
mod triggers;
pub(crate) mod typed;

use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;
use crate::draft::Draft;
use crate::image_config::ImageConfig;
use crate::instruction::from::From;
use crate::lint::config::Config;
use crate::lint::{self, Fired, Lints};
use crate::op::Step;
use crate::outline::Outline;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::span::Span;
use crate::stage::Settings;
use crate::suggest::{Case, nearest};
use crate::words::Lexer;
use epoch::Epoch;
use lower::Lower;
use solver::graph::{Edge, Graph};
use stages::{Origin, StageGraph};
use std::collections::{BTreeMap, BTreeSet};
use typed::TypedFile;

pub use context::{HttpBody, MainContext};
pub use needs::{ImageInfo, ImageKey, ImageLocation, ImageRequest, Images, TimeRequest};
pub use questions::{Answer, Checked, check, outline};
pub use request::{CheckOptions, CompileRequest, NamedContext, NoCache, hostname, wants_index};
pub use scans::ScannedTree;

/// Outcome of compiling.
pub enum Compiled {
    /// Resolve these, all at once, and compile again with the answers added.
    NeedsImages(Vec<ImageRequest>),
    /// Find out how old this source is, and compile again with [`CompileRequest::source_times`].
    NeedsTime(TimeRequest),
    /// The whole build.
    Plan(BuildPlan),
}

/// The whole build, for all platforms.
pub struct BuildPlan {
    /// All vertices that some result needs, or what is to be scanned beside it.
    pub graph: Graph<Step>,
    /// One for each requested platform, in order; exactly one if none was requested.
    pub results: Vec<PlannedImage>,
    /// Build checks that fired, in file order.
    pub warnings: Vec<Diagnostic>,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Build arguments that no ARG declares, sorted by name.
    pub unused_args: Vec<UnusedArg>,
}

/// A `--build-arg` that has no effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnusedArg {
    /// Its name.
    pub name: String,
    /// A declared argument that may be meant.
    pub near: Option<String>,
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
    /// What an SBOM is to list beside the result.
    pub scans: Vec<ScannedTree>,
}

/// A Dockerfile whose instructions have been read, to be compiled once or, with more answers, again.
pub struct Compiler<'a> {
    dockerfile: &'a Dockerfile,
    file: TypedFile,
    errors: Vec<Diagnostic>,
}

impl<'a> Compiler<'a> {
    /// Reads the instructions; what is wrong with them, [`Compiler::compile`] tells.
    pub fn new(dockerfile: &'a Dockerfile) -> Compiler<'a> {
        let (file, errors) = typed::read(dockerfile);
        Compiler { dockerfile, file, errors }
    }

    /// Compiles for all platforms at once. Fails with all errors found, in file order; warnings may be among them.
    ///
    /// Errors of a single instruction are found in all stages, those that come of variables or of the stage's base only
    /// in stages that the target needs.
    pub fn compile(&self, request: &CompileRequest, images: &Images) -> Result<Compiled, Vec<Diagnostic>> {
        compile_file(self.dockerfile, &self.file, self.errors.clone(), request, images)
    }
}

/// What a Dockerfile compiles to; see [`Compiler::compile`].
pub fn compile(
    dockerfile: &Dockerfile,
    request: &CompileRequest,
    images: &Images,
) -> Result<Compiled, Vec<Diagnostic>> {
    Compiler::new(dockerfile).compile(request, images)
}

fn compile_file(
    dockerfile: &Dockerfile,
    file: &TypedFile,
    mut errors: Vec<Diagnostic>,
    request: &CompileRequest,
    images: &Images,
) -> Result<Compiled, Vec<Diagnostic>> {
    check_syntax(dockerfile, request).map_err(|error| vec![error])?;
    let config = check_config(dockerfile, request).map_err(|error| vec![error])?;
    let lints = Lints::new(config.clone());
    if file.stages.is_empty() {
        return Err(errors);
    }
    let mut build = Build::new(dockerfile, request, images, file);
    let muted = Lints::muted();
    let mut results = vec![];
    let mut unused_args = vec![];
    let mut epoch = None;
    let own = [request.build_platform.clone()];
    let targets = if request.platforms.is_empty() { &own[..] } else { &request.platforms };
    for (index, target) in targets.iter().enumerate() {
        // Checks fire for the first platform only.
        let result = build.platform(target, if index == 0 { &lints } else { &muted }, !errors.is_empty());
        epoch = result.epoch;
        unused_args = result.unused_args;
        results.extend(result.image);
        errors.extend(result.errors);
    }
    if !errors.is_empty() {
        return Err(in_file_order(errors));
    }
    if let Some(needed) = build.needed_time {
        return Ok(Compiled::NeedsTime(needed));
    }
    if !build.needed.is_empty() {
        return Ok(Compiled::NeedsImages(build.needed.into_values().collect()));
    }
    // Not before, since a file is mostly compiled once to find its images. What the text alone tells comes first.
    let text = Lints::new(config);
    lint::check_text(&text, dockerfile, file.stages.iter().map(|stage| &*stage.from));
    let Fired { warnings, error: lint_error, .. } = text.then(lints).finish();
    if let Some(error) = lint_error {
        return Err(warnings.into_iter().chain([error]).collect());
    }
    let mut roots = roots(&mut results);
    let drafted: Vec<Option<Edge>> = roots.iter().map(|root| **root).collect();
    let (graph, merged) = merge::merge(build.draft, &drafted);
    roots.iter_mut().zip(merged).for_each(|(root, merged)| **root = merged);
    Ok(Compiled::Plan(BuildPlan { graph, results, warnings, epoch, unused_args }))
}

/// All trees that are wanted. The results come first: they decide what steps are called.
fn roots(results: &mut [PlannedImage]) -> Vec<&mut Option<Edge>> {
    let (mut roots, mut scanned) = (vec![], vec![]);
    for PlannedImage { root, scans, .. } in results {
        roots.push(root);
        scanned.extend(scans.iter_mut().map(|beside| &mut beside.root));
    }
    roots.extend(scanned);
    roots
}

/// What is wrong with single instructions of a file that could not be parsed as a whole, beside the errors of that: all
/// in file order. What would follow from the gaps is left out.
pub fn instruction_errors(dockerfile: &Dockerfile, mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    let (_, found) = typed::read(dockerfile);
    errors.extend(found.into_iter().filter(|error| error.span.is_some()));
    in_file_order(errors)
}

/// All FROMs that can be read.
fn froms(dockerfile: &Dockerfile) -> Vec<From> {
    let nodes = dockerfile.nodes.iter().filter(|node| node.keyword.eq_ignore_ascii_case("FROM"));
    nodes.filter_map(|node| From::parse(node).ok()).collect()
}

/// A stage, or an image that many build on, whose name is close to that of an image that could not be had: for the
/// message.
pub fn similar_name(dockerfile: &Dockerfile, location: &ImageLocation) -> Option<String> {
    const COMMON: &[&str] = &["alpine", "busybox", "centos", "debian", "golang", "ubuntu", "fedora"];
    let ImageLocation::Registry(reference) = location else { return None };
    let familiar = reference.familiar();
    let name = familiar.strip_suffix(":latest").unwrap_or(&familiar);
    let froms = dockerfile.nodes.iter().filter(|node| node.keyword.eq_ignore_ascii_case("FROM"));
    let stages = froms.filter_map(|from| from.rest.split_whitespace().nth(2)).map(str::to_lowercase);
    nearest(name, stages.chain(COMMON.iter().map(|name| name.to_string())), Case::Sensitive)
}

/// What compiling one platform after another shares.
struct Build<'a> {
    dockerfile: &'a Dockerfile,
    request: &'a CompileRequest,
    images: &'a Images,
    file: &'a TypedFile,
    scope: Scope,
    wants_outline: bool,
    draft: Draft,
    needed: BTreeMap<ImageKey, ImageRequest>,
    needed_time: Option<TimeRequest>,
}

/// Which stages are looked at.
#[derive(Clone, Copy, PartialEq)]
enum Scope {
    /// Those that the target needs.
    Target,
    /// All.
    AllStages,
}

/// What one platform comes to; without an image, there are errors, or some config or time is needed first.
#[derive(Default)]
struct PlatformResult {
    image: Option<PlannedImage>,
    outline: Option<Outline>,
    epoch: Option<i64>,
    unused_args: Vec<UnusedArg>,
    errors: Vec<Diagnostic>,
}

impl<'a> Build<'a> {
    fn new(
        dockerfile: &'a Dockerfile,
        request: &'a CompileRequest,
        images: &'a Images,
        file: &'a TypedFile,
    ) -> Build<'a> {
        let (draft, needed) = (Draft::default(), BTreeMap::new());
        Build {
            dockerfile,
            request,
            images,
            file,
            scope: Scope::Target,
            wants_outline: false,
            draft,
            needed,
            needed_time: None,
        }
    }

    /// `has_failed`: there are errors already. More are searched for, as far as that goes without images.
    fn platform(&mut self, target: &Platform, lints: &Lints, has_failed: bool) -> PlatformResult {
        let lexer = Lexer { escape: self.dockerfile.directives.escape };
        let (globals, errors) = args::globals(self.file, self.request, target, lexer);
        let epoch = match &globals.epoch {
            Epoch::Known(epoch) => *epoch,
            Epoch::Needs(needed) => {
                self.needed_time = Some(TimeRequest::clone(needed));
                None
            }
        };
        let mut result = PlatformResult { epoch, errors, ..PlatformResult::default() };
        let settings = Settings {
            request: self.request,
            lexer,
            globals: globals.env.clone(),
            target: target.clone(),
            platform_in_names: self.request.platforms.len() > 1 || wants_index(&self.request.build_args),
            epoch,
            hostname: hostname(&self.request.build_args).into(),
        };
        let (mut stages, errors) = StageGraph::new(self.file, &globals, &settings, lints);
        result.errors.extend(errors);
        let wanted = match stages.target(&settings) {
            Ok(wanted) => wanted,
            Err(error) => {
                result.errors.push(error);
                return result;
            }
        };
        let wanted_stages = match self.scope {
            Scope::Target => vec![wanted],
            Scope::AllStages => (0..stages.stages.len()).collect(),
        };
        let (reachable, errors) = stages.splice_triggers(&wanted_stages, self.images, &settings);
        result.errors.extend(errors);
        // What is read in a circle has no order.
        if let Some(circle) = stages.circle() {
            result.errors.push(circle);
            return result;
        }
        let needed = self.images_needed(&stages, &reachable, &settings);
        if !needed.is_empty() {
            if self.scope == Scope::AllStages || !has_failed && result.errors.is_empty() {
                for (image, request) in needed {
                    self.needed.entry(image.clone()).or_insert(request);
                }
            }
            return result;
        }
        result.unused_args = args::unused(self.request, self.file, &stages);
        let (images, draft) = (self.images, &mut self.draft);
        let (declared, source) = (&globals.declared, &self.dockerfile.source);
        let shipped = stages.shipped(wanted);
        let lower = Lower { plans: &stages, settings: &settings, images, lints, draft, declared, source, shipped };
        let lowered = lower.image(&reachable, wanted);
        if self.wants_outline {
            result.outline = Some(outline::gather(&stages, &globals, &lowered.parameters, wanted));
        }
        result.image = lowered.image;
        result.errors.extend(lowered.errors);
        result
    }

    /// Images of reachable stages whose configs are not known yet.
    fn images_needed<'b>(
        &self,
        stages: &'b StageGraph,
        reachable: &BTreeSet<usize>,
        settings: &Settings<'_>,
    ) -> BTreeMap<&'b ImageKey, ImageRequest> {
        let mut needed = BTreeMap::new();
        for &index in reachable {
            let stage = &stages.stages[index];
            // Of a stage that a named context replaces, only that context is looked at.
            let count = if stage.replaced_by.is_some() { 1 } else { usize::MAX };
            for origin in stage.origins().take(count) {
                if let Origin::Outside(outside) = origin
                    && let Some(image) = outside.image()
                    && !self.images.contains_key(image)
                    && !needed.contains_key(image)
                {
                    needed.extend(outside.request(settings).map(|request| (image, request)));
                }
            }
        }
        needed
    }
}

/// Refuses a frontend that is not built in.
fn check_syntax(dockerfile: &Dockerfile, request: &CompileRequest) -> Result<(), Diagnostic> {
    let (syntax, span) = match (request.build_args.get("BUILDKIT_SYNTAX"), &dockerfile.directives.syntax) {
        (Some(syntax), _) => (syntax.as_str(), None),
        (None, Some((syntax, span))) => (syntax.as_str(), Some(*span)),
        (None, None) => return Ok(()),
    };
    let image = syntax.split_whitespace().next().unwrap_or_default();
    let name = Reference::parse(image).map(|reference| reference.repository());
    let built_in = ["docker.io/docker/dockerfile", "docker.io/docker/dockerfile-upstream"];
    if image == "dockerfile.v0" || name.is_ok_and(|name| built_in.contains(&name.as_str())) {
        return Ok(());
    }
    let message = format!("the frontend {image:?} cannot be run: kiln has only that of docker/dockerfile");
    let error = Diagnostic { span, ..Diagnostic::error(message, Span::default()) };
    Err(error.help("remove the syntax line, or set --build-arg BUILDKIT_SYNTAX=docker/dockerfile:1"))
}

/// The `check` directive, or the build argument that replaces it.
fn check_config(dockerfile: &Dockerfile, request: &CompileRequest) -> Result<Config, Diagnostic> {
    let (text, span) = match (request.build_args.get("BUILDKIT_DOCKERFILE_CHECK"), &dockerfile.directives.check) {
        (Some(text), _) => (text.as_str(), None),
        (None, Some((text, span))) => (text.as_str(), Some(*span)),
        (None, None) => ("", None),
    };
    let config =
        Config::parse(text).map_err(|message| Diagnostic { span, ..Diagnostic::error(message, Span::default()) })?;
    let CheckOptions { own, skip, experimental } = &request.checks;
    Ok(config.with_request(*own, skip, experimental))
}

/// Sorted by place, each error once though several platforms have it.
fn in_file_order(mut errors: Vec<Diagnostic>) -> Vec<Diagnostic> {
    errors.sort_by_key(|error| error.span);
    let mut unique: Vec<Diagnostic> = vec![];
    for error in errors {
        if !unique.contains(&error) {
            unique.push(error);
        }
    }
    unique
}

#[cfg(test)]
mod tests;
