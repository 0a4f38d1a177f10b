//! What a build says of the git repository that its context is in, as docker buildx does: `vcs` in provenance, and labels of
//! the image. The repository is read by `source/git/work_tree.rs`; nothing that is said here is verified by anybody.

use crate::cli::options::FileArg;
use crate::cli::values::boolean_variable;
use crate::source::git::work_tree::{self, WorkTree, WorkTreeError};
use frontend::git_url::redacted;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const REVISION_LABEL: &str = "org.opencontainers.image.revision";
const SOURCE_LABEL: &str = "org.opencontainers.image.source";
/// The Dockerfile's place in the work tree.
const FILE_LABEL: &str = "com.docker.image.source.entrypoint";

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VcsOptions {
    /// `BUILDX_GIT_INFO`: in provenance.
    pub info: bool,
    /// `BUILDX_GIT_LABELS`: in labels.
    pub labels: bool,
    /// `BUILDX_GIT_CHECK_DIRTY`: that files differ from the commit.
    pub check_dirty: bool,
}

impl VcsOptions {
    /// As the environment says. Another value than those known is an error: the one that is meant.
    pub fn from_environment(environment: &dyn Fn(&str) -> Option<String>) -> Result<VcsOptions, String> {
        let labels = match environment("BUILDX_GIT_LABELS").as_deref() {
            // What older buildx called the labels that all have now.
            Some("full") => true,
            _ => boolean_variable(environment, "BUILDX_GIT_LABELS", false)?,
        };
        Ok(VcsOptions {
            info: boolean_variable(environment, "BUILDX_GIT_INFO", true)?,
            labels,
            check_dirty: boolean_variable(environment, "BUILDX_GIT_CHECK_DIRTY", false)?,
        })
    }
}

/// Where a build's files are.
pub struct Places<'a> {
    /// The context.
    pub context: &'a Path,
    /// `--file`.
    pub file: Option<&'a FileArg>,
    /// `--build-context`: name, value.
    pub named: &'a BTreeMap<String, String>,
}

/// What is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vcs {
    /// In provenance: `source`, `revision`, and `localdir:NAME` for each folder of the client.
    pub facts: BTreeMap<String, String>,
    pub labels: BTreeMap<String, String>,
    /// Why something could not be said.
    pub remark: Option<String>,
}

/// Reads the repository, if somebody wants to know: provenance, or the user in labels.
pub fn read(places: &Places<'_>, options: VcsOptions, is_provenance_asked: bool) -> Vcs {
    let wants_facts = options.info && is_provenance_asked;
    if !wants_facts && !options.labels {
        return Vcs::default();
    }
    let remark = |error: &WorkTreeError| {
        let why = crate::progress::chain(error);
        Some(format!("the commit of the context is not said in provenance and labels: {why}"))
    };
    let tree = match work_tree::find(places.context) {
        Ok(Some(tree)) => tree,
        Ok(None) => return Vcs::default(),
        Err(error) => return Vcs { remark: remark(&error), ..Vcs::default() },
    };
    let mut vcs = Vcs::default();
    let mut revision = tree.commit.clone();
    if let (Some(commit), true) = (&tree.commit, options.check_dirty) {
        match tree.is_dirty() {
            Ok(false) => {}
            Ok(true) => revision = Some(format!("{commit}-dirty")),
            // Neither would be known to be true.
            Err(error) => (revision, vcs.remark) = (None, remark(&error)),
        }
    }
    let source = tree.remote_url.as_deref().map(redacted);
    if options.labels {
        let file = dockerfile(places).and_then(|path| tree.relative(&path));
        let labels = [(REVISION_LABEL, revision.clone()), (SOURCE_LABEL, source.clone()), (FILE_LABEL, file)];
        vcs.labels = said(labels.map(|(name, value)| (name.to_string(), value)));
    }
    if wants_facts {
        vcs.facts = said([("revision".to_string(), revision), ("source".to_string(), source)]);
        vcs.facts.extend(said(folders(places, &tree)));
    }
    vcs
}

fn said(pairs: impl IntoIterator<Item = (String, Option<String>)>) -> BTreeMap<String, String> {
    pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

/// Where each folder of the client is in the work tree, if it is in it.
fn folders(places: &Places<'_>, tree: &WorkTree) -> Vec<(String, Option<String>)> {
    let mut folders = vec![("localdir:context".to_string(), tree.relative(places.context))];
    if let Some(file) = dockerfile(places) {
        let folder = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        folders.push(("localdir:dockerfile".to_string(), tree.relative(folder)));
    }
    for (name, value) in places.named.iter().filter(|(_, value)| Path::new(value).is_dir()) {
        folders.push((format!("localdir:{name}"), tree.relative(Path::new(value))));
    }
    folders
}

/// The Dockerfile, if it is a file.
fn dockerfile(places: &Places<'_>) -> Option<PathBuf> {
    match places.file {
        None => Some(places.context.join("Dockerfile")),
        Some(FileArg::Path(path)) => Some(path.clone()),
        Some(FileArg::Stdin | FileArg::Url(_)) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_decides() {
        let read = |name: &'static str, value: &'static str| {
            let environment = move |asked: &str| (asked == name).then(|| value.to_string());
            VcsOptions::from_environment(&environment)
                .map(|options| (options.info, options.labels, options.check_dirty))
        };
        assert_eq!(read("", ""), Ok((true, false, false)));
        assert_eq!(read("BUILDX_GIT_INFO", "0"), Ok((false, false, false)));
        assert_eq!(read("BUILDX_GIT_LABELS", "full"), Ok((true, true, false)));
        assert_eq!(read("BUILDX_GIT_CHECK_DIRTY", "true"), Ok((true, false, true)));
        assert!(read("BUILDX_GIT_INFO", "full").unwrap_err().contains("true or false"));
    }

    #[test]
    fn places_are_said_from_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in [".git", "app", "docker", "more"] {
            std::fs::create_dir(at(folder)).unwrap();
        }
        std::fs::write(at(".git/HEAD"), "ref: refs/heads/main").unwrap();
        std::fs::write(at(".git/config"), "[remote \"origin\"]\nurl = https://me:pw@example.org/x").unwrap();
        std::fs::write(at("docker/app.Dockerfile"), "").unwrap();
        let file = FileArg::Path(at("docker/app.Dockerfile"));
        let named = [("more".to_string(), at("more").display().to_string())].into();
        let (app, root) = (at("app"), dir.path().to_path_buf());
        let all = VcsOptions { info: true, labels: true, check_dirty: false };
        let places = Places { context: &app, file: Some(&file), named: &named };
        let found = read(&places, all, true);
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
        let facts: BTreeMap<String, String> = map(&[
            ("localdir:context", "app"),
            ("localdir:dockerfile", "docker"),
            ("localdir:more", "more"),
            ("source", "https://xxxxx:xxxxx@example.org/x"),
        ]);
        assert_eq!(found.facts, facts);
        let source = (SOURCE_LABEL, "https://xxxxx:xxxxx@example.org/x");
        assert_eq!(found.labels, map(&[(FILE_LABEL, "docker/app.Dockerfile"), source]));
        let none = BTreeMap::new();
        let at_root = read(&Places { context: &root, file: None, named: &none }, all, true);
        assert_eq!(at_root.facts["localdir:context"], ".");
        // Nobody asks.
        assert_eq!(read(&places, VcsOptions { labels: false, ..all }, false), Vcs::default());
        std::fs::remove_file(at(".git/HEAD")).unwrap();
        assert!(read(&places, all, true).remark.unwrap().contains("is no git repository"));
    }
}
