//! All that decides what is built, beside the Dockerfile and what the compiler asks for.

use super::MainContext;
use crate::csv::boolean;
use crate::lint::config::OwnChecks;
use crate::op::{self, GitSource, Source};
use crate::platform::Platform;
use crate::reference::Reference;
use std::collections::{BTreeMap, BTreeSet};

/// All that decides what is built, beside the Dockerfile.
#[derive(Clone, Debug)]
pub struct CompileRequest {
    /// `--target`.
    pub target: Option<String>,
    /// `--build-arg`.
    pub build_args: BTreeMap<String, String>,
    /// `--platform`, normalised; one result for each, also for one that is named twice. Empty when not given.
    pub platforms: Vec<Platform>,
    /// This machine's.
    pub build_platform: Platform,
    /// `--label`.
    pub labels: BTreeMap<String, String>,
    /// The build context.
    pub context: MainContext,
    /// Times of sources, as answers to [`Compiled::NeedsTime`](super::Compiled::NeedsTime): seconds since 1970, `None` if
    /// the source has none.
    pub source_times: Vec<(Source, Option<i64>)>,
    /// `--build-context`, by normalised name.
    pub contexts: BTreeMap<String, NamedContext>,
    /// `--no-cache`, `--no-cache-filter`.
    pub no_cache: NoCache,
    /// `--network`: default of RUN without its own.
    pub network: op::Network,
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
    /// Build checks beside what the Dockerfile says of them.
    pub checks: CheckOptions,
    /// Patterns of the context's .dockerignore, for the check `CopyIgnoredFile`; lines as written.
    pub ignore_file: Option<String>,
}

/// `BUILDKIT_MULTI_PLATFORM` among the build arguments: one platform is treated as if it were several.
pub fn wants_index(build_args: &BTreeMap<String, String>) -> bool {
    build_args.get("BUILDKIT_MULTI_PLATFORM").is_some_and(|text| boolean(text) == Some(true))
}

/// What commands see as their host: `BUILDKIT_SANDBOX_HOSTNAME` among the build arguments, or [`op::HOSTNAME`].
pub fn hostname(build_args: &BTreeMap<String, String>) -> &str {
    build_args.get("BUILDKIT_SANDBOX_HOSTNAME").map_or(op::HOSTNAME, String::as_str)
}

/// Which build checks run, beside what the Dockerfile says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CheckOptions {
    /// What becomes of kiln's own.
    pub own: OwnChecks,
    /// Rules to skip, by name; `all`, `kiln`.
    pub skip: Vec<String>,
    /// Rules to switch on, by name; `all`, `kiln`.
    pub experimental: Vec<String>,
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
    /// A git repository. `shown` is the value as given, without passwords.
    Git { source: GitSource, shown: String },
    /// Other URL.
    Http(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn build_arguments_that_are_settings() {
        let args = |name: &str, value: &str| BTreeMap::from([(name.to_string(), value.to_string())]);
        for (value, expect) in [("1", true), ("True", true), ("t", true), ("0", false), ("false", false), ("", false)] {
            assert_eq!(wants_index(&args("BUILDKIT_MULTI_PLATFORM", value)), expect, "{value:?}");
        }
        assert!(!wants_index(&args("OTHER", "1")));
        assert_eq!(hostname(&args("BUILDKIT_SANDBOX_HOSTNAME", "box")), "box");
        assert_eq!(hostname(&args("OTHER", "box")), op::HOSTNAME);
    }
}
