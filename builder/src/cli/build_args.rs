//! The flags of `kiln build`, which are those of `docker buildx build`.

use clap::Args;
use std::path::PathBuf;

/// As clap reads them; see reference/engine.md 1.1. `options.rs` says what they mean.
#[derive(Args, Debug)]
pub struct BuildArgs {
    /// Build context: a folder, the URL of a git repository or of an archive, or `-` for a tar archive or Dockerfile on
    /// standard input
    #[arg(value_name = "PATH|URL")]
    pub(super) context: String,
    /// Dockerfile (default: PATH/Dockerfile), or its URL; `-` reads standard input
    #[arg(short, long, value_name = "FILE")]
    pub(super) file: Option<String>,
    /// Name of the image, as name or name:tag; may be given more than once
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(super) tags: Vec<String>,
    /// Value of an ARG; without `=VALUE` the environment's
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(super) build_args: Vec<String>,
    /// Stage to build (default: the last one)
    #[arg(long, value_name = "STAGE")]
    pub(super) target: Option<String>,
    /// Platforms to build for, such as linux/amd64,linux/arm64
    #[arg(long = "platform", value_name = "PLATFORM")]
    pub(super) platforms: Vec<String>,
    /// Run every step, whatever the cache holds
    #[arg(long, conflicts_with = "no_cache_filter")]
    pub(super) no_cache: bool,
    /// Run the steps of these stages, whatever the cache holds
    #[arg(long, value_name = "STAGE")]
    pub(super) no_cache_filter: Vec<String>,
    /// Where the result goes: a folder, or type=oci|docker|image|registry|local|tar,dest=…
    #[arg(short, long = "output", value_name = "SPEC")]
    pub(super) outputs: Vec<String>,
    /// Push the image to the registry of its name: --output type=registry
    #[arg(long)]
    pub(super) push: bool,
    /// Load the image into docker: --output type=docker
    #[arg(long)]
    pub(super) load: bool,
    /// How progress is shown
    #[arg(long, value_name = "MODE", default_value = "auto", env = "BUILDKIT_PROGRESS")]
    #[arg(value_parser = ["auto", "none", "plain", "quiet", "rawjson", "tty"])]
    pub(super) progress: String,
    /// No progress; print the image's digest
    #[arg(short, long)]
    pub(super) quiet: bool,
    /// Write the image's digest to this file
    #[arg(long, value_name = "FILE")]
    pub(super) iidfile: Option<PathBuf>,
    /// Write what was built to this file, as JSON
    #[arg(long, value_name = "FILE")]
    pub(super) metadata_file: Option<PathBuf>,
    /// Check the Dockerfile in place of building it; `strict` makes kiln's own checks count
    #[arg(long, value_name = "strict", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(super) check: Option<String>,
    /// Answer a question in place of building: check, outline, targets, subrequests.describe [,format=json|text]
    /// [,ignorestatus=BOOL] [,strict=BOOL]
    #[arg(long, value_name = "METHOD")]
    pub(super) call: Option<String>,
    /// Say which steps would run and why; run none and write no output: `kiln plan`
    #[arg(long, conflicts_with_all = ["call", "check"])]
    pub(super) dry_run: bool,
    /// Say more about warnings
    #[arg(short = 'D', long)]
    pub(super) debug: bool,
    /// Label of the image
    #[arg(long = "label", value_name = "NAME=VALUE")]
    pub(super) labels: Vec<String>,
    /// Annotation of the image
    #[arg(long = "annotation", value_name = "[TYPE:]NAME=VALUE")]
    pub(super) annotations: Vec<String>,
    /// Further context: NAME=folder, NAME=docker-image://…, NAME=oci-layout://…, NAME=URL
    #[arg(long = "build-context", value_name = "NAME=VALUE")]
    pub(super) build_contexts: Vec<String>,
    /// Secret for RUN --mount=type=secret, or for git and HTTP servers: id=NAME[,src=FILE|,env=VARIABLE]
    #[arg(long = "secret", value_name = "SPEC")]
    pub(super) secrets: Vec<String>,
    /// Agent for RUN --mount=type=ssh and for git: default, or NAME=SOCKET
    #[arg(long = "ssh", value_name = "SPEC")]
    pub(super) ssh: Vec<String>,
    /// Line of /etc/hosts in RUN, as host:ip
    #[arg(long = "add-host", value_name = "HOST:IP")]
    pub(super) add_hosts: Vec<String>,
    /// Network of RUN: default, none or host
    #[arg(long, value_name = "MODE", default_value = "default")]
    pub(super) network: String,
    /// Size of /dev/shm in RUN, such as 128m
    #[arg(long, value_name = "BYTES")]
    pub(super) shm_size: Option<String>,
    /// Limit in RUN, such as nofile=1024:2048
    #[arg(long = "ulimit", value_name = "TYPE=SOFT[:HARD]")]
    pub(super) ulimits: Vec<String>,
    /// Parent cgroup of RUN
    #[arg(long, value_name = "PATH")]
    pub(super) cgroup_parent: Option<String>,
    /// What RUN may use: memory=BYTES,memory-swap=BYTES,cpu-shares=N,cpu-period=US,cpu-quota=US,cpuset-cpus=LIST,
    /// cpuset-mems=LIST
    #[arg(long = "resource", value_name = "SPEC")]
    pub(super) resources: Vec<String>,
    /// Memory that RUN may use, such as 2g: --resource memory=
    #[arg(short, long, value_name = "BYTES")]
    pub(super) memory: Option<String>,
    /// Processors that RUN may keep busy, such as 1.5: a quota of that many for each period
    #[arg(long, value_name = "NUMBER", conflicts_with = "cpu_quota")]
    pub(super) cpus: Option<String>,
    /// Memory and swap together, -1 for unlimited swap: --resource memory-swap=
    #[arg(long, value_name = "BYTES", hide = true, allow_hyphen_values = true)]
    pub(super) memory_swap: Option<String>,
    /// --resource cpu-shares=
    #[arg(short, long, value_name = "N", hide = true)]
    pub(super) cpu_shares: Option<String>,
    /// --resource cpu-period=
    #[arg(long, value_name = "US", hide = true)]
    pub(super) cpu_period: Option<String>,
    /// --resource cpu-quota=
    #[arg(long, value_name = "US", hide = true, allow_hyphen_values = true)]
    pub(super) cpu_quota: Option<String>,
    /// --resource cpuset-cpus=
    #[arg(long, value_name = "LIST", hide = true)]
    pub(super) cpuset_cpus: Option<String>,
    /// --resource cpuset-mems=
    #[arg(long, value_name = "LIST", hide = true)]
    pub(super) cpuset_mems: Option<String>,
    /// Steps that run at once (default: as many as the machine can keep busy while some of them wait)
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub(super) jobs: Option<u16>,
    /// What separates RUN from the machine: auto takes namespaces if they can be had; chroot needs neither those nor
    /// mounts; oci and rootless are other words for namespace
    #[arg(long, value_name = "HOW", default_value = "auto")]
    #[arg(value_parser = ["auto", "namespace", "chroot", "oci", "rootless"])]
    pub(super) isolation: String,
    /// Grant what a Dockerfile asks for: network.host, security.insecure
    #[arg(long = "allow", value_name = "ENTITLEMENT")]
    pub(super) allow: Vec<String>,
    /// Largest size of the store after this build, such as 20GB or 60% (of the disk): `maxUsedSpace` of kiln.toml
    #[arg(long, value_name = "SPACE")]
    pub(super) keep_storage: Option<String>,
    /// Cache of other machines to look in: the name of a cache or image, or type=registry|local|s3|azblob|gha,…; may be given
    /// more than once
    #[arg(long = "cache-from", value_name = "SPEC")]
    pub(super) cache_from: Vec<String>,
    /// Where others find what this build used: type=registry|inline|local|s3|azblob|gha,… with mode=max for
    /// all steps, mounts=true for cache mounts; may be given more than once
    #[arg(long = "cache-to", value_name = "SPEC")]
    pub(super) cache_to: Vec<String>,
    /// Ask registries for every image, also for those that kiln's store has by that name
    #[arg(long)]
    pub(super) pull: bool,
    /// What follows a RUN that fails: abort, or shell, which opens one in what the command left; shell:PROGRAM names it
    #[arg(long, value_name = "ACTION", default_value = "abort")]
    pub(super) on_failure: String,
    /// Attestation of the result: type=provenance|sbom[,OPTION=VALUE…]; see docs/attestations.md
    #[arg(long = "attest", value_name = "SPEC")]
    pub(super) attests: Vec<String>,
    /// Say how the result was made, in SLSA's form: true, false, or mode=min|max,version=v1|v0.2,builder-id=…
    #[arg(long, value_name = "BOOL|SPEC")]
    pub(super) provenance: Vec<String>,
    /// Say which packages the result holds, in SPDX's form: true or false
    #[arg(long, value_name = "BOOL|SPEC")]
    pub(super) sbom: Vec<String>,
}
