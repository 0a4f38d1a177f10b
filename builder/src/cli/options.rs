//! What the flags of `kiln build` (`build_args.rs`) mean: [`BuildOptions`].

use super::build_args::BuildArgs;
use super::cache_flags::{self, CacheSpec};
use super::call::{self, Call};
use super::csv;
use super::output::{self, OutputSpec};
use super::values::{
    assignments, contexts, extra_hosts, is_annotation_kind, is_http_url, is_ssh, network, parse_tag, ulimit,
};
use super::{on_failure, resources};
use crate::attest::metadata::MetadataOptions;
use crate::attest::request::{self, AttestRequest};
use crate::attest::vcs::{self, Places, Vcs, VcsOptions};
use crate::config::ChecksConfig;
use crate::sandbox::isolation::Wanted;
use crate::sandbox::limits::Limits;
use crate::space::Space;
use crate::step::exec_shell::OnFailure;
use frontend::git_url::{GitUrl, redacted};
use frontend::op::GitSource;
use frontend::platform::Platform;
use frontend::reference::Reference;
use std::collections::{BTreeMap, BTreeSet};
use std::io::IsTerminal;
use std::path::PathBuf;

/// What `kiln build` is asked to do, checked and typed.
#[derive(Clone, Debug)]
pub struct BuildOptions {
    pub context: ContextArg,
    /// `-f`; `None` for the default.
    pub file: Option<FileArg>,
    pub tags: Vec<Reference>,
    pub build_args: BTreeMap<String, String>,
    pub target: Option<String>,
    pub platforms: Vec<Platform>,
    pub no_cache: frontend::compile::NoCache,
    pub outputs: Vec<OutputSpec>,
    /// Images are asked for in registries, whatever names the store has.
    pub pull: bool,
    pub progress: String,
    pub iidfile: Option<PathBuf>,
    pub metadata_file: Option<PathBuf>,
    /// In place of a build.
    pub call: Option<Call>,
    /// Warnings are shown with all that is known of them.
    pub debug: bool,
    /// Build checks to skip and to switch on, from the configuration file.
    pub checks: ChecksConfig,
    pub labels: BTreeMap<String, String>,
    /// Name as given, value as given.
    pub build_contexts: BTreeMap<String, String>,
    pub secrets: Vec<String>,
    pub ssh: Vec<String>,
    /// Host, address.
    pub extra_hosts: Vec<(String, String)>,
    pub network: frontend::op::Network,
    pub shm_size_bytes: Option<u64>,
    /// Name, soft, hard; -1 is unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    pub cgroup_parent: Option<String>,
    pub limits: Limits,
    /// Steps that run at once; `None` for the default.
    pub jobs: Option<usize>,
    /// The store's largest size.
    pub keep_storage: Option<Space>,
    pub on_failure: OnFailure,
    pub entitlements: BTreeSet<String>,
    pub cache_from: Vec<CacheSpec>,
    pub cache_to: Vec<CacheSpec>,
    pub attest: AttestRequest,
    /// What `metadata_file` is to hold of the build itself.
    pub metadata: MetadataOptions,
    /// What the context's repository is.
    pub vcs: Vcs,
}

/// The positional argument.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ContextArg {
    Directory(PathBuf),
    Stdin,
    /// A repository, and the argument without passwords.
    Git(GitSource, String),
    /// Any other URL.
    Http(String),
}

/// `-f`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileArg {
    Path(PathBuf),
    Stdin,
    Url(String),
}

/// An option whose value kiln refuses.
#[derive(Debug, thiserror::Error)]
pub enum OptionError {
    #[error("invalid tag \"{tag}\"")]
    Tag { tag: String, source: frontend::reference::ReferenceError },
    #[error("invalid --platform")]
    Platform(#[from] frontend::platform::PlatformError),
    #[error(transparent)]
    Output(#[from] output::OutputError),
    #[error("unable to prepare context: path \"{0}\" not found")]
    NoContext(String),
    #[error("unable to prepare context: {context}: {problem}")]
    GitContext { context: String, problem: String },
    #[error("invalid argument: can't use stdin for both build context and dockerfile")]
    StdinTwice,
    #[error("invalid value \"{value}\" for --{flag}: {problem}")]
    Value { flag: &'static str, value: String, problem: String },
    #[error("kiln debug shell exports nothing and answers nothing; leave --{0} out")]
    NotForShell(&'static str),
    #[error("kiln plan says what a build would do; leave --call and --check out")]
    NotForPlan,
    #[error(
        "kiln debug shell needs a terminal: standard input, output and error must be one; give a command after -- \
         where there is none"
    )]
    NoTerminal,
    #[error(transparent)]
    Cache(#[from] cache_flags::CacheFlagError),
    #[error(transparent)]
    OnFailure(#[from] on_failure::OnFailureError),
    #[error("tag is needed when pushing to registry")]
    PushWithoutTag,
    #[error("{0}")]
    Environment(String),
    #[error(transparent)]
    Attest(#[from] request::AttestFlagError),
}

pub(super) fn bad(flag: &'static str, value: &str, problem: impl Into<String>) -> OptionError {
    OptionError::Value { flag, value: value.into(), problem: problem.into() }
}

impl BuildOptions {
    /// For `kiln plan`: refuses other questions.
    pub(super) fn for_plan(self) -> Result<BuildOptions, OptionError> {
        if self.call.is_some() { Err(OptionError::NotForPlan) } else { Ok(self) }
    }

    /// For `kiln debug shell`: refuses what that does not do. `command` is empty for a shell.
    pub(super) fn for_shell(self, command: &[String]) -> Result<BuildOptions, OptionError> {
        let unfit = [
            (!self.outputs.is_empty(), "output"),
            (!self.tags.is_empty(), "tag"),
            (self.iidfile.is_some(), "iidfile"),
            (self.metadata_file.is_some(), "metadata-file"),
            (self.call.is_some(), "call"),
            (!self.cache_to.is_empty(), "cache-to"),
            (self.attest.provenance.is_some(), "provenance"),
            (self.attest.sbom.is_some(), "sbom"),
        ];
        if let Some((_, flag)) = unfit.into_iter().find(|(is_given, _)| *is_given) {
            return Err(OptionError::NotForShell(flag));
        }
        if command.is_empty() && !(crate::terminal::is_there() && std::io::stdout().is_terminal()) {
            return Err(OptionError::NoTerminal);
        }
        Ok(self)
    }
}

impl BuildArgs {
    /// Checks and types the flags. `environment` answers for variables of kiln's own environment, `host` is the
    /// machine's platform.
    pub fn options(
        &self,
        host: &Platform,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<BuildOptions, OptionError> {
        let (mut context, file) = self.sources()?;
        let tags = self.tags.iter().map(|tag| parse_tag(tag)).collect::<Result<Vec<_>, _>>()?;
        let mut build_args = assignments(&self.build_args, "build-arg", environment)?;
        if let (false, Some(epoch)) = (build_args.contains_key("SOURCE_DATE_EPOCH"), environment("SOURCE_DATE_EPOCH")) {
            build_args.insert("SOURCE_DATE_EPOCH".into(), epoch);
        }
        let mut ssh = self.ssh.clone();
        if let ContextArg::Git(source, _) = &mut context {
            let on = |name: &str| build_args.get(name).map(String::as_str);
            source.keep_git_dir |= on("BUILDKIT_CONTEXT_KEEP_GIT_DIR").and_then(csv::boolean) == Some(true);
            // As BuildKit: whoever wants a build that can be repeated wants no times of a checkout.
            source.commit_times |= on("SOURCE_DATE_EPOCH").is_some_and(|epoch| !epoch.is_empty());
            if ssh.is_empty() && is_ssh(&source.remote) {
                ssh.push("default".into());
            }
        }
        let (attest, metadata) = (self.attest()?, self.metadata(environment)?);
        let mut labels = assignments(&self.labels, "label", environment)?;
        let wanted = VcsOptions::from_environment(environment).map_err(OptionError::Environment)?;
        let build_contexts = contexts(&self.build_contexts)?;
        let vcs = match &context {
            ContextArg::Directory(folder) => {
                let is_asked = attest.provenance.is_some() || metadata.provenance.is_some();
                vcs::read(&Places { context: folder, file: file.as_ref(), named: &build_contexts }, wanted, is_asked)
            }
            ContextArg::Stdin | ContextArg::Git(..) | ContextArg::Http(_) => Vcs::default(),
        };
        labels.extend(vcs.labels.clone());
        Ok(BuildOptions {
            context,
            file,
            outputs: self.outputs(&tags)?,
            pull: self.pull,
            tags,
            build_args,
            target: self.target.clone(),
            platforms: self.platforms(host, environment)?,
            no_cache: self.no_cache(),
            progress: if self.quiet { "quiet".into() } else { self.progress.clone() },
            iidfile: self.iidfile.clone(),
            metadata_file: self.metadata_file.clone(),
            call: call::parse(self.call.as_deref(), self.check.as_deref())?,
            debug: self.debug,
            checks: ChecksConfig::default(),
            labels,
            build_contexts,
            secrets: self.secrets.clone(),
            ssh,
            extra_hosts: extra_hosts(&self.add_hosts)?,
            network: network(&self.network)?,
            shm_size_bytes: self
                .shm_size
                .as_deref()
                .map(|text| resources::bytes(text).map_err(|problem| bad("shm-size", text, problem)))
                .transpose()?,
            ulimits: self.ulimits.iter().map(|text| ulimit(text)).collect::<Result<_, _>>()?,
            cgroup_parent: self.cgroup_parent.clone(),
            limits: self.limits()?,
            jobs: self.jobs.map(usize::from),
            keep_storage: self
                .keep_storage
                .as_deref()
                .map(|text| Space::parse(text).map_err(|problem| bad("keep-storage", text, problem)))
                .transpose()?,
            on_failure: on_failure::parse(&self.on_failure)?,
            entitlements: self.entitlements()?,
            cache_from: cache_flags::parse(&self.cache_from)?,
            cache_to: cache_flags::parse(&self.cache_to)?,
            attest,
            metadata,
            vcs,
        })
    }

    fn metadata(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<MetadataOptions, OptionError> {
        match &self.metadata_file {
            Some(_) => MetadataOptions::from_environment(environment).map_err(OptionError::Environment),
            None => Ok(MetadataOptions { provenance: None, warnings: false }),
        }
    }

    /// Of a flag that is given twice the last counts.
    fn attest(&self) -> Result<AttestRequest, OptionError> {
        let last = |values: &[String]| values.last().cloned();
        let (provenance, sbom) = (last(&self.provenance), last(&self.sbom));
        Ok(request::parse(&self.attests, provenance.as_deref(), sbom.as_deref())?)
    }

    fn sources(&self) -> Result<(ContextArg, Option<FileArg>), OptionError> {
        let file = self.file.as_ref().map(|file| match file.as_str() {
            "-" => FileArg::Stdin,
            url if is_http_url(url) => FileArg::Url(url.into()),
            path => FileArg::Path(path.into()),
        });
        if self.context == "-" {
            return match file {
                Some(FileArg::Stdin) => Err(OptionError::StdinTwice),
                file => Ok((ContextArg::Stdin, file)),
            };
        }
        let path = PathBuf::from(&self.context);
        if path.is_dir() {
            return Ok((ContextArg::Directory(path), file));
        }
        let shown = redacted(&self.context);
        match GitUrl::parse_context(&self.context) {
            Ok(Some(url)) => Ok((ContextArg::Git(url.source(), shown), file)),
            Ok(None) if is_http_url(&self.context) => Ok((ContextArg::Http(self.context.clone()), file)),
            Ok(None) => Err(OptionError::NoContext(shown)),
            Err(problem) => Err(OptionError::GitContext { context: shown, problem }),
        }
    }

    fn outputs(&self, tags: &[Reference]) -> Result<Vec<OutputSpec>, OptionError> {
        let mut outputs = self.outputs.iter().map(|value| output::parse(value)).collect::<Result<Vec<_>, _>>()?;
        for output in &mut outputs {
            if output.kind == "registry" {
                output.kind = "image".into();
                output.attributes.insert("push".into(), "true".into());
            }
        }
        let plain = |kind: &str| OutputSpec { kind: kind.into(), attributes: BTreeMap::new() };
        if self.load && !outputs.iter().any(|output| output.kind == "docker") {
            outputs.push(plain("docker"));
        }
        if self.push {
            if !outputs.iter().any(|output| output.kind == "image") {
                outputs.push(plain("image"));
            }
            for output in outputs.iter_mut().filter(|output| output.kind == "image") {
                output.attributes.insert("push".into(), "true".into());
            }
        }
        let is_image = |output: &OutputSpec| matches!(output.kind.as_str(), "image" | "oci" | "docker");
        if let (Some(annotation), false) =
            (self.annotations.first(), outputs.is_empty() || outputs.iter().any(is_image))
        {
            return Err(bad("annotation", annotation, "no image is written that could have it"));
        }
        for output in outputs.iter_mut().filter(|output| is_image(output)) {
            if !tags.is_empty() && !output.attributes.contains_key("name") {
                let names: Vec<String> = tags.iter().map(|tag| tag.to_string()).collect();
                output.attributes.insert("name".into(), names.join(","));
            }
            for annotation in &self.annotations {
                let Some((key, value)) = annotation.split_once('=') else {
                    return Err(bad("annotation", annotation, "it must be a key=value pair"));
                };
                let (kinds, name) = key.split_once(':').unwrap_or(("manifest", key));
                for kind in kinds.split(',') {
                    if !is_annotation_kind(kind) {
                        let known = "its type must be manifest, manifest-descriptor, index or index-descriptor";
                        return Err(bad(
                            "annotation",
                            annotation,
                            format!("unknown annotation type {kind:?}: {known}"),
                        ));
                    }
                    let kind = if kind == "manifest" { String::new() } else { format!("-{kind}") };
                    output.attributes.insert(format!("annotation{kind}.{name}"), value.into());
                }
            }
            let push = output.attributes.get("push").is_some_and(|push| push.is_empty() || push == "true");
            if push && !output.attributes.contains_key("name") {
                return Err(OptionError::PushWithoutTag);
            }
        }
        Ok(outputs)
    }

    fn platforms(
        &self,
        host: &Platform,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Vec<Platform>, OptionError> {
        let mut given = self.platforms.join(",");
        if given.is_empty() {
            given = environment("DOCKER_DEFAULT_PLATFORM").unwrap_or_default();
        }
        let mut platforms: Vec<Platform> = vec![];
        for text in given.split(',').map(str::trim).filter(|text| !text.is_empty()) {
            platforms.push(if text == "local" { host.clone() } else { Platform::parse(text, host)? });
        }
        Ok(platforms)
    }

    fn no_cache(&self) -> frontend::compile::NoCache {
        use frontend::compile::NoCache;
        let stages: BTreeSet<String> = self
            .no_cache_filter
            .iter()
            .flat_map(|list| list.split(','))
            .map(|name| name.trim().to_lowercase())
            .collect();
        match (self.no_cache, stages.is_empty()) {
            (true, _) => NoCache::IgnoreAll,
            (false, true) => NoCache::Use,
            (false, false) => NoCache::IgnoreStages(stages),
        }
    }

    /// `--isolation`.
    pub fn isolation(&self) -> Wanted {
        match self.isolation.as_str() {
            "chroot" => Wanted::Chroot,
            "namespace" | "oci" | "rootless" => Wanted::Namespace,
            _ => Wanted::Auto,
        }
    }

    /// `--resource` and docker's flags for single limits, which come last and so win.
    fn limits(&self) -> Result<Limits, OptionError> {
        let mut limits = Limits::default();
        for record in &self.resources {
            let fields = csv::pairs(record).map_err(|error| bad("resource", record, error.problem))?;
            for (key, value) in fields {
                let value = value.unwrap_or_default();
                resources::set(&mut limits, &key, &value).map_err(|problem| bad("resource", record, problem))?;
            }
        }
        let flags = [
            ("memory", &self.memory),
            ("memory-swap", &self.memory_swap),
            ("cpu-shares", &self.cpu_shares),
            ("cpu-period", &self.cpu_period),
            ("cpu-quota", &self.cpu_quota),
            ("cpuset-cpus", &self.cpuset_cpus),
            ("cpuset-mems", &self.cpuset_mems),
            ("cpus", &self.cpus),
        ];
        for (flag, value) in flags {
            if let Some(value) = value {
                resources::set(&mut limits, flag, value).map_err(|problem| bad(flag, value, problem))?;
            }
        }
        resources::check(&limits).map_err(|problem| bad("memory-swap", "", problem))?;
        Ok(limits)
    }

    fn entitlements(&self) -> Result<BTreeSet<String>, OptionError> {
        let mut granted = BTreeSet::new();
        for name in self.allow.iter().flat_map(|list| list.split(',')).map(str::trim) {
            match name {
                "network.host" | "security.insecure" => granted.insert(name.to_string()),
                "device" => return Err(bad("allow", name, "kiln passes no CDI devices to RUN yet")),
                _ if name.starts_with("device=") => {
                    return Err(bad("allow", name, "kiln passes no CDI devices to RUN yet"));
                }
                _ => return Err(bad("allow", name, "kiln knows network.host and security.insecure")),
            };
        }
        if self.network == "host" {
            granted.insert("network.host".into());
        }
        Ok(granted)
    }
}
