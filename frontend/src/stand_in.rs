//! What a Dockerfile is compiled with where there is no registry and no user: for tests, also of other crates (feature
//! `testing`).

use crate::ast::Dockerfile;
use crate::compile::{
    self, Answer, BuildPlan, CheckOptions, Checked, CompileRequest, Compiled, Compiler, ImageInfo, ImageRequest,
    Images, MainContext, NoCache, instruction_errors,
};
use crate::diagnostic::{Diagnostic, Severity};
use crate::image_config::{HistoryEntry, ImageConfig};
use crate::op::Network;
use crate::parse::parse;
use crate::platform::Platform;
use crate::span::SourceText;
use std::collections::{BTreeMap, BTreeSet};

/// A request without any option, on `linux/amd64`.
pub fn request() -> CompileRequest {
    let build_platform = Platform {
        os: "linux".into(),
        architecture: "amd64".into(),
        variant: String::new(),
        os_version: String::new(),
    };
    CompileRequest {
        target: None,
        build_args: BTreeMap::new(),
        platforms: vec![],
        build_platform,
        labels: BTreeMap::new(),
        context: MainContext::Directory,
        source_times: vec![],
        contexts: BTreeMap::new(),
        no_cache: NoCache::Use,
        network: Network::Default,
        extra_hosts: vec![],
        shm_size_bytes: None,
        ulimits: vec![],
        cgroup_parent: None,
        entitlements: BTreeSet::new(),
        checks: CheckOptions::default(),
        ignore_file: None,
    }
}

/// An image with a layer, a command and a variable.
pub fn image(request: &ImageRequest) -> ImageInfo {
    let mut config = ImageConfig {
        architecture: request.platform.architecture.clone(),
        os: request.platform.os.clone(),
        variant: request.platform.variant.clone(),
        history: vec![HistoryEntry { created_by: "base".into(), ..HistoryEntry::default() }],
        ..ImageConfig::default()
    };
    config.rootfs.diff_ids = Some(vec!["sha256:base".into()]);
    config.config.env = vec!["PATH=/bin".into(), "BASE=1".into()];
    config.config.cmd = Some(vec!["sh".into()]);
    config.config.working_dir = "/".into();
    ImageInfo { digest: "sha256:manifest".into(), top_digest: "sha256:index".into(), config }
}

/// Parses and checks as `kiln build --check` does, with `answer` for images.
pub fn check(source: SourceText, request: &CompileRequest, answer: impl Fn(&ImageRequest) -> ImageInfo) -> Checked {
    let parsed = parse(source);
    let mut errors: Vec<_> = parsed.diagnostics.into_iter().filter(|d| d.severity == Severity::Error).collect();
    if !errors.is_empty() {
        errors = instruction_errors(&parsed.dockerfile, errors);
        return Checked { errors, ..Checked::default() };
    }
    let mut images = Images::new();
    loop {
        match compile::check(&parsed.dockerfile, request, &images) {
            Answer::Found(checked) => return checked,
            Answer::NeedsImages(needed) => images.extend(needed.into_iter().map(|request| {
                let info = answer(&request);
                ((request.source, request.platform), info)
            })),
        }
    }
}

/// Parses and compiles as `kiln build` does, answering all requests for images with [`image`]; sources have no time.
/// Fails with all errors.
pub fn build(source: SourceText, request: &CompileRequest) -> Result<(Dockerfile, BuildPlan), Vec<Diagnostic>> {
    let parsed = parse(source);
    let mut errors = parsed.diagnostics;
    errors.retain(|found| found.severity == Severity::Error);
    if !errors.is_empty() {
        return Err(instruction_errors(&parsed.dockerfile, errors));
    }
    let mut images = Images::new();
    let mut request = request.clone();
    let compiler = Compiler::new(&parsed.dockerfile);
    let plan = loop {
        match compiler.compile(&request, &images)? {
            Compiled::Plan(plan) => break plan,
            Compiled::NeedsTime(needed) => request.source_times.push((needed.source, None)),
            Compiled::NeedsImages(requests) => {
                for request in requests {
                    let info = image(&request);
                    images.insert((request.source, request.platform), info);
                }
            }
        }
    };
    Ok((parsed.dockerfile, plan))
}
