//! Answers questions about a Dockerfile in place of building it: `--check`, `--call` (reference/dockerfile.md 9.3).
//! The answers themselves are frontend's; here the configs of base images are fetched that they need, and the answer is
//! written as BuildKit and buildx write it (`text.rs`, `json.rs`).

pub mod json;
mod text;

#[cfg(test)]
mod seed;

use crate::cli::call::{Call, Format, Method, Strictness};
use crate::cli::exit;
use crate::cli::options::BuildOptions;
use crate::inputs;
use crate::pipeline::{self, BuildError, Tools, World};
use crate::progress::chain;
use crate::remote_cache::RemoteCache;
use crate::report::Phase;
use crate::source::dockerfile::DockerfileText;
use crate::source::image::{ImageError, ImageSource};
use crate::source::named;
use frontend::ast::Dockerfile;
use frontend::compile::{self, Answer, Checked, CompileRequest, ImageInfo, ImageRequest, Images};
use frontend::diagnostic::{Diagnostic, Severity};
use frontend::lint::config::OwnChecks;
use serde_json::{Value, json};
use std::time::Duration;

/// What is said of the answer.
#[derive(Debug, Default)]
pub struct Answered {
    /// For standard output.
    pub output: String,
    /// For standard error.
    pub remarks: String,
    /// Exit status.
    pub status: u8,
    /// For `--metadata-file`, as buildx writes it.
    pub metadata: Value,
}

/// A base whose registry keeps silent for longer is not waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers. Builds nothing, and fetches no layers.
pub async fn answer(call: &Call, options: &BuildOptions, world: &World) -> Result<Answered, BuildError> {
    match call.method {
        Method::Check(strictness) => answer_check(call, strictness, options, world).await,
        Method::Outline => answer_outline(call, options, world).await,
        Method::Targets => answer_targets(call, options, world).await,
        Method::Describe => Ok(finish(call, json::describe(), text::describe(), 0)),
    }
}

/// What a question is about.
struct Subject {
    text: DockerfileText,
    request: CompileRequest,
    sources: ImageSource,
}

async fn subject(options: &BuildOptions, world: &World) -> Result<Subject, BuildError> {
    let named = named::resolve(&options.build_contexts, &world.host)?;
    let tools = Tools::new(options, world, &named, &RemoteCache::default())?;
    let inputs = inputs::load(&tools).await?;
    let request = pipeline::compile_request(options, world, &inputs, &named);
    Ok(Subject { text: inputs.text, request, sources: tools.images })
}

async fn answer_check(
    call: &Call,
    strictness: Strictness,
    options: &BuildOptions,
    world: &World,
) -> Result<Answered, BuildError> {
    let Subject { text, mut request, sources } = subject(options, world).await?;
    request.checks.own = match strictness {
        Strictness::Lenient => OwnChecks::Advice,
        Strictness::Strict => OwnChecks::Warnings,
    };
    let parsed = frontend::parse::parse(text.source);
    let source = parsed.dockerfile.source.clone();
    let errors: Vec<Diagnostic> =
        parsed.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).collect();
    let mut bases = Bases::default();
    let checked = match errors.is_empty() {
        true => check(&parsed.dockerfile, &request, &sources, world, &mut bases).await?,
        false => {
            let errors = compile::instruction_errors(&parsed.dockerfile, errors);
            Checked { errors, ..Checked::default() }
        }
    };
    let fails = !checked.errors.is_empty() || !checked.warnings.is_empty() && !call.ignore_status;
    let status = if fails { exit::FAILURE } else { exit::SUCCESS };
    let mut answered = finish(call, json::check(&source, &checked), text::check(&source, &checked), status);
    answered.remarks = text::unread(&bases.unread) + &text::errors(&source, &checked.errors);
    Ok(answered)
}

async fn answer_outline(call: &Call, options: &BuildOptions, world: &World) -> Result<Answered, BuildError> {
    let Subject { text, request, sources } = subject(options, world).await?;
    let dockerfile = pipeline::parse(text)?;
    let fail = |list| BuildError::Diagnostics { text: dockerfile.source.clone(), list, phase: Phase::Compile };
    let mut bases = Bases::default();
    let outline = loop {
        match compile::outline(&dockerfile, &request, &bases.images).map_err(fail)? {
            Answer::Found(outline) => break outline,
            Answer::NeedsImages(needed) => bases.read(needed, &sources, world).await?,
        }
    };
    if !bases.errors.is_empty() {
        return Err(fail(bases.errors));
    }
    let json = json::outline(&dockerfile.source, &outline);
    Ok(Answered { remarks: text::unread(&bases.unread), ..finish(call, json, text::outline(&outline), 0) })
}

async fn answer_targets(call: &Call, options: &BuildOptions, world: &World) -> Result<Answered, BuildError> {
    let dockerfile = pipeline::parse(subject(options, world).await?.text)?;
    let fail = |list| BuildError::Diagnostics { text: dockerfile.source.clone(), list, phase: Phase::Parse };
    let targets = frontend::targets::targets(&dockerfile).map_err(fail)?;
    let json = json::targets(&dockerfile.source, &targets);
    Ok(finish(call, json, text::targets(&targets), 0))
}

async fn check(
    dockerfile: &Dockerfile,
    request: &CompileRequest,
    sources: &ImageSource,
    world: &World,
    bases: &mut Bases,
) -> Result<Checked, BuildError> {
    loop {
        match compile::check(dockerfile, request, &bases.images) {
            Answer::Found(mut checked) => {
                checked.errors.splice(0..0, bases.errors.iter().cloned());
                return Ok(checked);
            }
            Answer::NeedsImages(needed) => bases.read(needed, sources, world).await?,
        }
    }
}

/// Base images, as far as they could be read.
#[derive(Default)]
struct Bases {
    images: Images,
    /// What could not be read, and why: the answer is less than it could be.
    unread: Vec<Unread>,
    /// Images that do not exist: the Dockerfile cannot be built.
    errors: Vec<Diagnostic>,
}

/// A base image that could not be read.
struct Unread {
    /// As asked for.
    image: String,
    /// Why.
    reason: String,
}

impl Bases {
    /// Reads configs, all at once. A registry that cannot be reached does not stop the answer.
    async fn read(
        &mut self,
        needed: Vec<ImageRequest>,
        sources: &ImageSource,
        world: &World,
    ) -> Result<(), BuildError> {
        let read = |request| async move {
            tokio::select! {
                found = tokio::time::timeout(PATIENCE, pipeline::resolve(request, sources, world)) => Ok(found),
                () = world.cancel.canceled() => Err(BuildError::Canceled),
            }
        };
        let found = futures::future::join_all(needed.iter().map(read)).await;
        for (request, found) in needed.into_iter().zip(found) {
            let image = request.name.rsplit(' ').next().unwrap_or_default().to_string();
            let info = match found? {
                Ok(Ok(info)) => info,
                Ok(Err(error)) => {
                    self.failed(&request, image, &error);
                    ImageInfo::unread(&request.platform)
                }
                Err(_) => {
                    let reason = format!("no answer within {} seconds", PATIENCE.as_secs());
                    self.unread.push(Unread { image, reason });
                    ImageInfo::unread(&request.platform)
                }
            };
            self.images.insert((request.source, request.platform), info);
        }
        Ok(())
    }

    fn failed(&mut self, request: &ImageRequest, image: String, error: &ImageError) {
        let reason = chain(error);
        if error.may_be_the_network() {
            self.unread.push(Unread { image, reason });
            return;
        }
        let message = format!("{image}: failed to resolve source metadata for {image}: {reason}");
        let place = request.span.unwrap_or_default();
        let error = Diagnostic { help: error.help().into_iter().collect(), ..Diagnostic::error(message, place) };
        self.errors.push(Diagnostic { span: request.span, ..error });
    }
}

fn finish(call: &Call, json: String, text: String, status: u8) -> Answered {
    let metadata = json!({
        "result.json": json,
        "result.statuscode": status.to_string(),
        "result.txt": text,
        "version": "1.0.0",
    });
    let output = match call.format {
        Format::Json => json + "\n",
        Format::Text => text,
    };
    Answered { output, remarks: String::new(), status, metadata }
}
