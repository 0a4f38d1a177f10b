//! What is asked of a Dockerfile without building it: `--check` and `--call=outline`.

use super::needs::{ImageRequest, Images};
use super::request::CompileRequest;
use super::{Build, Scope, check_config, check_syntax, froms, in_file_order, typed};
use crate::ast::Dockerfile;
use crate::diagnostic::Diagnostic;
use crate::lint::{self, Fired, Lints};
use crate::outline::Outline;
use crate::platform::Platform;

/// A question's answer, or what is needed for it.
pub enum Answer<T> {
    /// Resolve these, all at once, and ask again with the answers added. What cannot be read is
    /// [`ImageInfo::unread`](super::ImageInfo::unread).
    NeedsImages(Vec<ImageRequest>),
    /// The answer.
    Found(T),
}

/// What is to be said about a Dockerfile.
#[derive(Debug, Default)]
pub struct Checked {
    /// Build checks that fired, in file order.
    pub warnings: Vec<Diagnostic>,
    /// Build checks of kiln's own that fired and that nobody asked for by name, in file order.
    pub advice: Vec<Diagnostic>,
    /// What would fail the build, in file order; last the error that `check=error=true` makes of warnings.
    pub errors: Vec<Diagnostic>,
}

/// Checks the target, or all stages if none is given, for the first platform. Builds nothing, so that what is allowed
/// to a build does not matter.
pub fn check(dockerfile: &Dockerfile, request: &CompileRequest, images: &Images) -> Answer<Checked> {
    let config = check_syntax(dockerfile, request).and_then(|()| check_config(dockerfile, request));
    let lints = match config {
        Ok(config) => Lints::new(config),
        Err(error) => return Answer::Found(Checked { errors: vec![error], ..Checked::default() }),
    };
    lint::check_text(&lints, dockerfile, froms(dockerfile).iter());
    let (file, mut errors) = typed::read(dockerfile);
    if !file.stages.is_empty() {
        let request = &grant_all(request);
        let has_target = request.target.as_ref().is_some_and(|target| !target.is_empty());
        let scope = if has_target { Scope::Target } else { Scope::AllStages };
        let mut build = Build { scope, ..Build::new(dockerfile, request, images, &file) };
        // Errors elsewhere do not make the checks of what can be read worth less.
        let has_failed = false;
        let result = build.platform(&first_platform(request), &lints, has_failed);
        errors.extend(result.errors);
        if !build.needed.is_empty() {
            return Answer::NeedsImages(build.needed.into_values().collect());
        }
    }
    let Fired { warnings, advice, error } = lints.finish();
    // Where the build fails anyway, BuildKit does not come to say that warnings fail it.
    let errors = if errors.is_empty() { error.into_iter().collect() } else { in_file_order(errors) };
    Answer::Found(Checked { warnings, advice, errors })
}

/// The parameters of the target, for the first platform. Fails with all errors found, in file order.
pub fn outline(
    dockerfile: &Dockerfile,
    request: &CompileRequest,
    images: &Images,
) -> Result<Answer<Outline>, Vec<Diagnostic>> {
    check_syntax(dockerfile, request).map_err(|error| vec![error])?;
    let (file, mut errors) = typed::read(dockerfile);
    if file.stages.is_empty() {
        return Err(errors);
    }
    let request = &grant_all(request);
    let mut build = Build { wants_outline: true, ..Build::new(dockerfile, request, images, &file) };
    let result = build.platform(&first_platform(request), &Lints::muted(), !errors.is_empty());
    errors.extend(result.errors);
    if !errors.is_empty() {
        return Err(in_file_order(errors));
    }
    Ok(match result.outline {
        Some(outline) => Answer::Found(outline),
        None => Answer::NeedsImages(build.needed.into_values().collect()),
    })
}

fn first_platform(request: &CompileRequest) -> Platform {
    request.platforms.first().unwrap_or(&request.build_platform).clone()
}

/// Nothing runs, so nothing has to be allowed.
fn grant_all(request: &CompileRequest) -> CompileRequest {
    let entitlements = ["network.host", "security.insecure"].map(String::from).into();
    CompileRequest { entitlements, ..request.clone() }
}
