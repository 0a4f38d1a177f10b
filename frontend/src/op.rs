//! What a vertex does, in LLB's terms: [`Op`] is Source, Exec, File or Merge (BuildKit's Diff has no instruction that
//! makes it). Plain data; whoever runs it is in `builder::step`.
//!
//! Inputs are named by their position in the vertex's list of inputs ([`InputIndex`]); `None` stands for an empty tree.
//! Names and spans are in [`Step`], beside the op, so that they never reach a key.

use crate::platform::Platform;
use crate::reference::Reference;
use crate::span::Span;
use serde::Serialize;
use solver::key::{CacheKey, KeyRecipe};
use std::sync::Arc;

/// The payload of a vertex of the build graph: an op, and what people see of it.
#[derive(Clone, Debug)]
pub struct Step {
    /// What is done.
    pub op: Op,
    /// The progress name, such as `[build 2/5] RUN make`.
    pub name: String,
    /// The instruction, in the Dockerfile; for a step of an ONBUILD trigger, the FROM that fired it. `None` for what
    /// no single instruction asked for, such as the build context.
    pub span: Option<Span>,
    /// Words of the instruction, by what they came to, so that an error can point at the one that it is about.
    pub words: Arc<Words>,
    /// `--no-cache` applies to this vertex.
    pub ignore_cache: bool,
}

/// What words of an instruction have come to, and where they stand.
#[derive(Clone, Debug, Default)]
pub struct Words {
    /// One after another.
    text: String,
    /// Where each ends in the text, and where it stands in the file.
    places: Vec<(usize, Span)>,
}

impl Words {
    /// None yet; room for a text of so many bytes.
    pub fn with_room(bytes: usize) -> Words {
        Words { text: String::with_capacity(bytes), places: Vec::with_capacity(4) }
    }

    /// Adds a word.
    pub fn push(&mut self, word: &str, place: Span) {
        self.text.push_str(word);
        self.places.push((self.text.len(), place));
    }

    /// All words, in the order in which they were expanded.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Span)> {
        let mut start = 0;
        self.places.iter().map(move |(end, place)| {
            let word = &self.text[start..*end];
            start = *end;
            (word, *place)
        })
    }
}

/// Position in a vertex's list of inputs.
pub type InputIndex = usize;

/// What a vertex does.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Brings in a tree from outside. No inputs.
    Source(Box<Source>),
    /// Runs a command in a tree; the output is the tree afterwards.
    Exec(Box<Exec>),
    /// Writes files into a tree.
    File(FileOp),
    /// Stacks the layers of all inputs, first input lowest (`COPY --link`).
    Merge,
}

/// Where a tree comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// An image's layers. `digest` is that of the platform's own manifest, `sha256:…`.
    Image { reference: Reference, digest: String, platform: Platform },
    /// A directory of the client, by its name: `context`, or the name of a named context.
    Local { name: String },
    /// An image in an OCI layout of the client. `digest` as in `Image`.
    OciLayout { name: String, digest: String, platform: Platform },
    /// A git repository, checked out as a tree.
    Git(GitSource),
    /// A file fetched over HTTP(S), as a tree with that one file.
    Http { url: String, filename: String, checksum: Option<String> },
}

/// What of a git repository is checked out, and how (reference/dockerfile.md 2.7).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct GitSource {
    /// URL or `user@host:path`. May hold a user and a password, so it is not to be shown as it is.
    pub remote: String,
    /// Branch, tag, full reference or full commit; `None` is the remote's default branch.
    pub reference: Option<String>,
    /// Directory that becomes the root: relative and clean; empty is the whole.
    pub subdir: String,
    /// Commit, or hex prefix of it, that the reference must name.
    pub checksum: Option<String>,
    /// `.git` stays.
    pub keep_git_dir: bool,
    /// Submodules are filled.
    pub submodules: bool,
    /// Files get the time of the commit, not that of the checkout.
    pub commit_times: bool,
    /// `checksum` is the commit; the remote's reference is not compared with it.
    pub fetch_by_commit: bool,
}

/// Whose ids: a user and group as numbers, or names to be looked up in the tree that the step changes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Owner {
    /// User part of `--chown`.
    pub user: Id,
    /// Group part; `None` means the user's primary group (for a number: the same number).
    pub group: Option<Id>,
}

impl Owner {
    /// A name that has to be looked up, if there is one.
    pub fn name(&self) -> Option<&str> {
        [Some(&self.user), self.group.as_ref()].into_iter().flatten().find_map(|id| match id {
            Id::Name(name) => Some(name.as_str()),
            Id::Number(_) => None,
        })
    }
}

/// A number or a name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Id {
    /// A uid or gid.
    Number(u32),
    /// To be looked up in `/etc/passwd` or `/etc/group`.
    Name(String),
}

/// Changes that are made to a tree one after another, giving one layer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct FileOp {
    /// The tree that is changed.
    pub base: Option<InputIndex>,
    /// In order.
    pub actions: Vec<FileAction>,
    /// Stage's platform; decides nothing on Linux but is part of the key, as in BuildKit.
    pub platform: Arc<Platform>,
}

/// One change of a [`FileOp`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum FileAction {
    /// Copies from an input.
    Copy(Box<Copy>),
    /// Writes a file with given bytes (a heredoc), following the destination rules of `COPY` for one file source
    /// named `name`: below `dest` when that ends with a slash or is a directory, else at `dest`.
    MkFile { name: String, dest: String, mode: u32, data: String, owner: Option<Owner>, chmod: Option<Chmod> },
    /// Makes a directory and its missing parents; what exists is left as it is (`WORKDIR`).
    /// `owner` is that of the created ones, `epoch` their mtime in seconds since 1970.
    MkDir { path: String, mode: u32, owner: Option<Owner>, epoch: Option<i64> },
}

/// `COPY` or `ADD` of files of one source; rules in reference/dockerfile.md 2.5 to 2.7.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Copy {
    /// The tree that is copied from; `None` is an empty one.
    pub from: Option<InputIndex>,
    /// Path or wildcard in `from`, as written after expansion: not cleaned, a trailing `/` or `/./` kept.
    pub source: String,
    /// Absolute path in the changed tree; a trailing `/` says that it is a directory.
    pub dest: String,
    /// `--chown`.
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub chmod: Option<Chmod>,
    /// `--exclude` patterns, in `.dockerignore` syntax.
    pub exclude: Vec<String>,
    /// `--parents`.
    pub parents: bool,
    /// Whether archives are unpacked (`ADD` of local files, or `--unpack`).
    pub unpack: bool,
    /// The source is the client's: owners are 0:0 unless `owner` says otherwise.
    pub from_client: bool,
    /// Symbolic links in the destination are replaced, not followed (`--link`).
    pub link: bool,
    /// How a message calls the source, such as `the build context` or `stage "build"`. Not in the key.
    #[serde(skip)]
    pub source_label: Arc<str>,
}

/// `--chmod`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Chmod {
    /// 0 to 0o7777.
    Octal(u32),
    /// Such as `u=rwX,go=rX`; checked by the frontend.
    Symbolic(String),
}

/// Host name of commands for which nobody has said one.
pub const HOSTNAME: &str = "buildkitsandbox";

/// A command and all that decides what it sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Exec {
    /// The tree in which it runs and which it changes.
    pub root: Option<InputIndex>,
    /// Program and arguments; the program is looked up in the tree through `PATH` of `env`.
    pub args: Vec<String>,
    /// `NAME=value`, in order, each name once. Steps between which it does not change have it in common.
    pub env: Arc<Vec<Arc<str>>>,
    /// Absolute.
    pub cwd: String,
    /// `USER`, as written; empty is root.
    pub user: String,
    /// Kernel's and machine's name for it.
    pub platform: Arc<Platform>,
    /// Host name.
    pub hostname: Arc<str>,
    /// Network namespace.
    pub network: Network,
    /// Restrictions.
    pub security: Security,
    /// As written, later sorted by depth.
    pub mounts: Vec<Mount>,
    /// Secrets that become variables.
    pub secret_env: Vec<SecretEnv>,
    /// `(name, soft, hard)`; -1 is unlimited.
    pub ulimits: Vec<(String, i64, i64)>,
    /// `/dev/shm`, in bytes.
    pub shm_size_bytes: Option<u64>,
    /// `--cgroup-parent`.
    pub cgroup_parent: Option<String>,
    /// Lines of `/etc/hosts`: name, address. Only the names are in the key.
    pub extra_hosts: Vec<(String, String)>,
    /// `NAME=value` of the predefined proxy arguments; in the environment, not in the key.
    #[serde(skip)]
    pub proxy_env: Vec<String>,
    /// A script that `args` names: path below `/dev/pipes/`, and its content (heredoc with a `#!` line).
    pub script: Option<(String, String)>,
}

/// Network of a RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Network {
    /// What the machine gives by default.
    Default,
    /// Only loopback.
    None,
    /// The host's.
    Host,
}

/// Restrictions of a RUN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Security {
    /// As containers have them.
    Sandbox,
    /// None.
    Insecure,
}

/// A mount of a RUN.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Mount {
    /// Absolute.
    pub target: String,
    /// What is mounted there.
    pub kind: MountKind,
}

/// What a mount holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum MountKind {
    /// A path of an input. Writes, where allowed, are discarded.
    Bind { from: Option<InputIndex>, source: String, readonly: bool, from_client: bool },
    /// A directory that outlives the build. `id` includes the namespace. Initial content is `source` of `from`;
    /// `mode`, `uid`, `gid` are of a new directory.
    Cache {
        id: String,
        sharing: Sharing,
        from: Option<InputIndex>,
        source: String,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        readonly: bool,
    },
    /// Memory. `None`: unlimited.
    Tmpfs { size_bytes: Option<u64> },
    /// A secret of the client, as a file.
    Secret { id: String, required: bool, mode: u32, uid: u32, gid: u32 },
    /// The client's ssh agent, as a socket.
    Ssh { id: String, required: bool, mode: u32, uid: u32, gid: u32 },
}

/// How users of one cache mount live together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Sharing {
    /// At the same time.
    Shared,
    /// A new directory for each that finds the others taken.
    Private,
    /// One after another.
    Locked,
}

/// A secret as a variable.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct SecretEnv {
    /// `--secret id=`.
    pub id: String,
    /// Variable.
    pub name: String,
    /// Missing is an error.
    pub required: bool,
}

impl Op {
    /// The source that it is, if it is one.
    pub fn source(&self) -> Option<&Source> {
        match self {
            Op::Source(source) => Some(source),
            Op::Exec(_) | Op::File(_) | Op::Merge => None,
        }
    }

    /// The inputs whose layers the output is stacked on, lowest first; `inputs` is how many inputs the vertex has.
    pub fn bases(&self, inputs: usize) -> Vec<InputIndex> {
        match self {
            Op::Source(_) => vec![],
            Op::Exec(exec) => exec.root.into_iter().collect(),
            Op::File(file) => file.base.into_iter().collect(),
            Op::Merge => (0..inputs).collect(),
        }
    }

    /// The parts of the key that the op itself gives: all that decides what it does, by name. The contents of its
    /// inputs are added by whoever knows them.
    pub fn recipe(&self) -> KeyRecipe {
        let mut recipe = KeyRecipe::new();
        let value = serde_json::to_value(self.keyed()).expect("an op is plain data with string keys");
        flatten("", &value, &mut recipe);
        recipe
    }

    /// Digest of all that the op says, for this process. Holds, unlike the recipe, also what is kept from keys (proxies,
    /// host addresses, cache mounts' ids).
    pub fn definition(&self) -> CacheKey {
        CacheKey::of_hash(self)
    }

    /// The op without what reference 7.2 keeps out of keys.
    fn keyed(&self) -> Op {
        let mut op = self.clone();
        match &mut op {
            Op::Exec(exec) => {
                exec.extra_hosts.iter_mut().for_each(|(_, address)| address.clear());
                for mount in &mut exec.mounts {
                    if let MountKind::Cache { id, sharing, .. } = &mut mount.kind {
                        id.clear();
                        *sharing = Sharing::Shared;
                    }
                }
            }
            Op::File(file) => file.actions.iter_mut().for_each(FileAction::forget_folder),
            Op::Source(_) | Op::Merge => {}
        }
        op
    }
}

impl FileAction {
    /// What a COPY selects is in the key by content; of a plain source's path only the last name decides what is made.
    fn forget_folder(&mut self) {
        if let FileAction::Copy(copy) = self
            && !copy.parents
            && !crate::ignore::has_wildcard(&copy.source)
            && let Some((_, name)) = copy.source.trim_end_matches('/').rsplit_once('/')
        {
            copy.source = name.to_string();
        }
    }
}

/// One part for each leaf of `value`, named by its path (`exec.env.0`).
fn flatten(path: &str, value: &serde_json::Value, recipe: &mut KeyRecipe) {
    let join = |name: &str| if path.is_empty() { name.to_string() } else { format!("{path}.{name}") };
    match value {
        serde_json::Value::Object(fields) => fields.iter().for_each(|(name, v)| flatten(&join(name), v, recipe)),
        serde_json::Value::Array(items) if !items.is_empty() => {
            items.iter().enumerate().for_each(|(i, v)| flatten(&join(&i.to_string()), v, recipe))
        }
        serde_json::Value::String(text) => recipe.push(path, text.as_str()),
        other => recipe.push(path, other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::plan;

    /// The op of the last COPY.
    fn copy(line: &str) -> Op {
        let plan = plan(&format!("FROM scratch\n{line}"));
        plan.graph.value(plan.results[0].root.unwrap().vertex).op.clone()
    }

    #[test]
    fn a_copy_is_keyed_by_what_it_selects_not_by_where_it_was() {
        let check = |a: &str, b: &str, same_key: bool| {
            let (a, b) = (copy(a), copy(b));
            assert_eq!(a.recipe() == b.recipe(), same_key, "{a:?} {b:?}");
            assert_ne!(a.definition(), b.definition(), "two vertices, whose contents may differ");
        };
        check("COPY a/x /", "COPY b/x /", true);
        check("COPY a/x /", "COPY a/y /", false);
        check("COPY a/x /", "COPY a/x /d", false);
        check("COPY --parents a/x /", "COPY --parents b/x /", false);
        check("COPY a/* /", "COPY b/* /", false);
    }
}
