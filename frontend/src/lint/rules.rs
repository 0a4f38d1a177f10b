//! The list of build checks: name, whose it is, whether it is on, and what it is about. Texts of BuildKit's are those
//! that its clients show; docs/checks.md explains every one.

/// A build check.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// As `check=skip=` and outputs name it.
    pub name: &'static str,
    /// Whose it is.
    pub origin: Origin,
    /// Whether it runs without being asked for by name.
    pub is_on: bool,
    /// What it is about, one sentence.
    pub description: &'static str,
}

/// Whose rule it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// BuildKit has it too: what it finds is a warning.
    BuildKit,
    /// kiln's own: what it finds is advice, unless the rule is asked for by name.
    Kiln,
}

/// Stands for all of kiln's own rules in `check=skip=` and `check=experimental=`.
pub const KILN_GROUP: &str = "kiln";

/// Where kiln's own rules are explained, seen from the root of the repository.
const KILN_PAGE: &str = "docs/checks.md";

impl Rule {
    /// The page that explains it.
    pub fn url(&self) -> Option<String> {
        match self.origin {
            // The only one that BuildKit has no page for.
            Origin::BuildKit if self.name == "InvalidBaseImagePlatform" => None,
            Origin::BuildKit => Some(format!("https://docs.docker.com/go/dockerfile/rule/{}/", kebab(self.name))),
            Origin::Kiln => Some(format!("{KILN_PAGE}#{}", self.name.to_lowercase())),
        }
    }
}

/// The rule of a name.
pub fn rule(name: &str) -> Option<&'static Rule> {
    RULES.iter().find(|rule| rule.name == name)
}

const fn buildkit(name: &'static str, description: &'static str) -> Rule {
    Rule { name, origin: Origin::BuildKit, is_on: true, description }
}

const fn own(name: &'static str, description: &'static str) -> Rule {
    Rule { name, origin: Origin::Kiln, is_on: true, description }
}

/// The rule is off unless it is asked for.
const fn off(rule: Rule) -> Rule {
    Rule { is_on: false, ..rule }
}

/// `JSONArgs` -> `json-args`.
fn kebab(name: &str) -> String {
    let mut words = String::new();
    let mut previous_is_lower = false;
    for (index, c) in name.char_indices() {
        let next_is_lower = name[index..].chars().nth(1).is_some_and(char::is_lowercase);
        if c.is_uppercase() && index > 0 && (previous_is_lower || next_is_lower) {
            words.push('-');
        }
        previous_is_lower = c.is_lowercase();
        words.extend(c.to_lowercase());
    }
    words
}

/// All rules: BuildKit's, then kiln's.
pub const RULES: &[Rule] = &[
    buildkit("StageNameCasing", "Stage names should be lowercase"),
    buildkit("FromAsCasing", "The 'as' keyword should match the case of the 'from' keyword"),
    buildkit("NoEmptyContinuation", "Empty continuation lines will become errors in a future release"),
    buildkit(
        "ConsistentInstructionCasing",
        "All commands within the Dockerfile should use the same casing (either upper or lower)",
    ),
    buildkit("DuplicateStageName", "Stage names should be unique"),
    buildkit("ReservedStageName", "Reserved words should not be used as stage names"),
    buildkit(
        "JSONArgsRecommended",
        "JSON arguments recommended for ENTRYPOINT/CMD to prevent unintended behavior related to OS signals",
    ),
    buildkit(
        "MaintainerDeprecated",
        "The MAINTAINER instruction is deprecated, use a label instead to define an image author",
    ),
    buildkit("UndefinedArgInFrom", "FROM command must use declared ARGs"),
    buildkit(
        "WorkdirRelativePath",
        "Relative workdir without an absolute workdir declared within the build can have unexpected results if the base \
         image changes",
    ),
    buildkit("UndefinedVar", "Variables should be defined before their use"),
    buildkit(
        "MultipleInstructionsDisallowed",
        "Multiple instructions of the same type should not be used in the same stage",
    ),
    buildkit("LegacyKeyValueFormat", "Legacy key/value format with whitespace separator should not be used"),
    buildkit("InvalidBaseImagePlatform", "Base image platform does not match expected target platform"),
    buildkit(
        "RedundantTargetPlatform",
        "Setting platform to predefined $TARGETPLATFORM in FROM is redundant as this is the default behavior",
    ),
    buildkit("SecretsUsedInArgOrEnv", "Sensitive data should not be used in the ARG or ENV commands"),
    buildkit("InvalidDefaultArgInFrom", "Default value for global ARG results in an empty or invalid base image name"),
    buildkit("FromPlatformFlagConstDisallowed", "FROM --platform flag should not use a constant value"),
    buildkit("CopyIgnoredFile", "Attempting to Copy file that is excluded by .dockerignore"),
    off(buildkit(
        "InvalidDefinitionDescription",
        "Comment for build stage or argument should follow the format: `# <arg/stage name> <description>`. If this is not \
         intended to be a description comment, add an empty line or comment between the instruction and the comment.",
    )),
    buildkit("ExposeProtoCasing", "Protocol in EXPOSE instruction should be lowercase"),
    buildkit(
        "ExposeInvalidFormat",
        "IP address and host-port mapping should not be used in EXPOSE instruction. This will become an error in a future \
         release",
    ),
    own("AddInsteadOfCopy", "ADD should be left to archives, URLs and repositories"),
    own("ApkCacheKept", "apk add should not leave its index in the image"),
    own("AptGetMissingYes", "apt-get should not ask while an image is built"),
    own("AptInstallRecommends", "apt-get install should not bring packages that are merely recommended"),
    own("AptInsteadOfAptGet", "apt is made for people at a terminal, apt-get for scripts"),
    own("AptListsKept", "Package lists of apt-get should not stay in the image"),
    own("AptUpdateAlone", "apt-get update should run together with the install that needs it"),
    own("CdInsteadOfWorkdir", "WORKDIR should be used rather than cd"),
    own("ChmodWorldWritable", "Files should not be writable for everyone"),
    own("CleanupInOwnLayer", "Files should be removed in the RUN that made them"),
    own("CommentHidesCommands", "A comment within a continued line hides the lines after it"),
    own("CopyBeforeDependencies", "Dependencies should be installed before the whole context is copied"),
    own("DebianFrontendInEnv", "DEBIAN_FRONTEND should not be set in the image"),
    own("DownloadPipedUnchecked", "A failed download should not be hidden by the pipe that it feeds"),
    own("ExecFormNotJson", "The JSON form of an instruction has to be JSON"),
    own("GlobalArgInRun", "An ARG before the first FROM is not visible in a stage"),
    own("InsecureDownload", "Downloads should be checked, not just accepted"),
    own("LastUserRoot", "The container should not run as root"),
    own("NpmInstallInsteadOfCi", "npm ci should be used where there is a lock file"),
    own("PipCacheKept", "pip should not leave its cache in the image"),
    own("RunStateLost", "A RUN's directory and variables are gone when it ends"),
    own("SecretValueWritten", "Secrets should not be written into the Dockerfile"),
    own("ServiceInRun", "A service that RUN starts does not run in the container"),
    own("SudoInRun", "sudo should not be used in RUN"),
    own("UnpinnedBaseImage", "The version of a base image should be said"),
    own("UseraddHighUid", "useradd with a high uid should have --no-log-init"),
    own("YumCacheKept", "yum and dnf should not leave their cache in the image"),
    own("YumMissingYes", "yum and dnf should not ask while an image is built"),
    own("ZypperMissingYes", "zypper should not ask while an image is built"),
    off(own("AptVersionUnpinned", "Packages should be installed in a given version")),
    off(own("ConsecutiveRuns", "RUN instructions that follow each other could be one")),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages() {
        let check = |name: &str, expect: Option<&str>| assert_eq!(rule(name).unwrap().url().as_deref(), expect);
        check("StageNameCasing", Some("https://docs.docker.com/go/dockerfile/rule/stage-name-casing/"));
        check("JSONArgsRecommended", Some("https://docs.docker.com/go/dockerfile/rule/json-args-recommended/"));
        let long = "https://docs.docker.com/go/dockerfile/rule/from-platform-flag-const-disallowed/";
        check("FromPlatformFlagConstDisallowed", Some(long));
        check("InvalidBaseImagePlatform", None);
        check("AptGetMissingYes", Some("docs/checks.md#aptgetmissingyes"));
    }

    #[test]
    fn names_are_unique_and_none_is_a_group() {
        for (index, rule) in RULES.iter().enumerate() {
            assert!(RULES[..index].iter().all(|other| other.name != rule.name), "{}", rule.name);
            assert!(![KILN_GROUP, "all"].contains(&rule.name));
        }
    }
}
