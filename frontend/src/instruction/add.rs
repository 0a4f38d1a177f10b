//! `ADD [flags] source… destination` (reference/dockerfile.md 2.7): COPY from the context, and from the network.

use super::files::{Attributes, FileStep, Files, destination, document_actions};
use super::flags::{Flags, Kind};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::git_url::{GitUrl, http_file_name, is_http};
use crate::lint;
use crate::op::{self, FileAction, Op, Source};
use crate::placed::Placed;
use crate::stage::{Lowering, Tree};
use crate::words::Lexer;

/// The fields of an ADD.
#[derive(Clone, Debug, PartialEq)]
pub struct Add {
    /// What goes where.
    pub files: Files,
    /// Flags that COPY has too.
    pub attributes: Attributes,
    /// `--keep-git-dir`, if it is given.
    pub keep_git_dir: Option<bool>,
    /// `--checksum`, not yet expanded; empty if it is not given.
    pub checksum: Placed,
    /// `--unpack`, if it is given.
    pub unpack: Option<bool>,
}

const FLAGS: &[(&str, Kind)] = &[
    ("chown", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("keep-git-dir", Kind::Bool),
    ("checksum", Kind::Text),
    ("unpack", Kind::Bool),
    ("exclude", Kind::List),
];

impl Add {
    /// Parses the node.
    pub fn parse(node: &Node, _lexer: Lexer) -> Result<Add, Diagnostic> {
        let files = Files::parse(node, "ADD");
        let flags = Flags::check(node, FLAGS)?;
        Ok(Add {
            files: files?,
            attributes: Attributes::read(&flags),
            keep_git_dir: flags.switch("keep-git-dir"),
            checksum: flags.text("checksum").cloned().unwrap_or_default(),
            unpack: flags.switch("unpack"),
        })
    }

    /// Adds the step, and a source for each URL.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let expanded = self.attributes.expand(at)?;
        let link = self.attributes.link && expanded.mode.is_none();
        expanded.check_names(link, at, &self.attributes.chown)?;
        let checksum = Some(at.expand(&self.checksum)?).filter(|checksum| !checksum.is_empty());
        let sources = at.expand_all(&self.files.sources)?;
        let written_dest = at.expand(&self.files.dest)?;
        let dest = destination(at, &written_dest);
        let mut history = "ADD".to_string();
        expanded.add_to(&mut history);
        for source in &sources {
            history.extend([" ", source]);
        }
        self.check_checksum(at, checksum.as_deref(), &sources)?;

        let name = at.display_expanded();
        // The sources of a step carry its name and number; the step itself then takes that number.
        at.stage.step_index += 1;
        let source_name = at.same_step_name(&name);
        at.stage.step_index -= 1;
        let mut actions = vec![];
        let mut inputs = FileStep::inputs(at, link);
        for (word, source) in self.files.sources.iter().zip(sources) {
            let (tree, source, unpack) = self.source(at, word, source, checksum.as_deref(), &source_name)?;
            let from = tree.edge.map(|edge| FileStep::input(&mut inputs, edge));
            actions.push(FileAction::Copy(Box::new(op::Copy {
                from,
                source,
                dest: dest.clone(),
                owner: expanded.owner.clone(),
                chmod: expanded.mode.clone(),
                exclude: self.attributes.exclude.clone(),
                parents: false,
                unpack,
                from_client: tree.from_client,
                link,
                source_label: tree.label,
            })));
        }
        actions.extend(document_actions(&self.files, &expanded, &dest, at)?);
        for document in &self.files.documents {
            history.push_str(&format!(" <<{}", document.name));
        }
        history.push_str(&format!(" {written_dest}"));
        FileStep { actions, inputs, link, name: &name, history }.lower(at);
        Ok(())
    }

    fn check_checksum(&self, at: &Lowering<'_>, checksum: Option<&str>, sources: &[String]) -> Result<(), Diagnostic> {
        let Some(checksum) = checksum else { return Ok(()) };
        let [source] = sources else {
            return Err(at.error_at(&self.checksum, "checksum can't be specified for multiple sources", ""));
        };
        if is_http(source) {
            return check_digest(checksum).map_err(|message| at.error_at(&self.checksum, message, ""));
        }
        if matches!(GitUrl::parse(source), Ok(None)) {
            return Err(at.error_at(&self.checksum, "checksum requires HTTP(S) or Git sources", ""));
        }
        if checksum.is_empty() || !checksum.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            let message = format!("invalid checksum {checksum} for Git URL, expected hex commit hash");
            return Err(at.error_at(&self.checksum, message, ""));
        }
        Ok(())
    }

    /// The tree of a source, the path in it, and whether it is to be unpacked.
    fn source(
        &self,
        at: &mut Lowering<'_>,
        word: &Placed,
        source: String,
        checksum: Option<&str>,
        name: &str,
    ) -> Result<(Tree, String, bool), Diagnostic> {
        let Some(remote) = self.remote(&source, checksum).map_err(|message| at.error_at(word, message, ""))? else {
            lint::copy_ignored_file(at, "Add", &source);
            return Ok((at.context(), source, self.unpack.unwrap_or(true)));
        };
        let (path, unpack) = match &remote {
            Source::Http { filename, .. } => (literal(filename), self.unpack.unwrap_or(false)),
            _ => ("/".to_string(), false),
        };
        let edge = at.add_cached(Op::Source(Box::new(remote)), vec![], name.to_string());
        Ok((Tree { edge: Some(edge), label: source.into(), from_client: false }, path, unpack))
    }

    /// What is fetched for a source that is not in the context. `source` and `checksum` are expanded.
    pub fn remote(&self, source: &str, checksum: Option<&str>) -> Result<Option<Source>, String> {
        let checksum_flag = || checksum.map(str::to_string);
        let Some(git) = GitUrl::parse(source)? else {
            let http = || Source::Http {
                url: source.to_string(),
                filename: http_file_name(source),
                checksum: checksum_flag(),
            };
            return Ok(is_http(source).then(http));
        };
        if let (Some(flag), Some(query)) = (self.keep_git_dir, git.keep_git_dir)
            && flag != query
        {
            return Err("inconsistent keep-git-dir configuration".to_string());
        }
        if let (Some(flag), Some(query)) = (checksum, &git.checksum)
            && flag != query
        {
            return Err(format!("checksum mismatch {flag:?} != {query:?}"));
        }
        let keep_git_dir = git.keep_git_dir.or(self.keep_git_dir);
        let checksum = checksum_flag().or_else(|| git.checksum.clone());
        // ADD takes `mtime=` and makes nothing of it, as BuildKit.
        Ok(Some(Source::Git(GitUrl { keep_git_dir, checksum, commit_times: false, ..git }.source())))
    }
}

/// Refuses a text that is not `algorithm:hex` of the right length.
fn check_digest(text: &str) -> Result<(), String> {
    let Some((algorithm, hex)) = text.split_once(':').filter(|(algorithm, hex)| !algorithm.is_empty() && !hex.is_empty())
    else {
        return Err(format!("invalid checksum digest format: {text:?}"));
    };
    let digits = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(format!("unsupported digest algorithm: {algorithm:?}")),
    };
    if hex.len() != digits {
        return Err(format!("invalid checksum digest length: {text:?}"));
    }
    let lower_hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    if hex.bytes().all(lower_hex) { Ok(()) } else { Err(format!("invalid checksum digest format: {text:?}")) }
}

/// A source path that no character of is a wildcard.
fn literal(name: &str) -> String {
    let mut path = String::new();
    for c in name.chars() {
        if "*?[\\".contains(c) {
            path.push('\\');
        }
        path.push(c);
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::GitSource;
    use crate::testing::*;

    fn sources(text: &str) -> Vec<(Source, String, bool)> {
        let plan = plan(&format!("FROM a\n{text}"));
        let inputs = plan.graph.inputs(plan.results[0].root.unwrap().vertex);
        let found = last_actions(&plan).iter().map(|action| {
            let FileAction::Copy(copy) = action else { panic!("{action:?} is no copy") };
            let source = plan.graph.value(inputs[copy.from.unwrap()].vertex).op.source().expect("a source");
            (source.clone(), copy.source.clone(), copy.unpack)
        });
        found.collect()
    }

    #[test]
    fn kinds_of_sources() {
        let context = Source::Local { name: "context".into() };
        let http = |url: &str, filename: &str, checksum: Option<String>| Source::Http {
            url: url.into(),
            filename: filename.into(),
            checksum,
        };
        let git = |remote: &str, keep_git_dir, checksum: Option<&str>| GitSource {
            remote: remote.into(),
            reference: None,
            subdir: String::new(),
            checksum: checksum.map(str::to_string),
            keep_git_dir,
            submodules: true,
            commit_times: false,
            fetch_by_commit: false,
        };
        let check = |text: &str, expect: &[(Source, &str, bool)]| {
            let expect: Vec<_> = expect.iter().map(|(s, path, unpack)| (s.clone(), path.to_string(), *unpack)).collect();
            assert_eq!(sources(text), expect, "{text}");
        };
        check("ADD a.tar /b", &[(context.clone(), "a.tar", true)]);
        check("ADD --unpack=false a.tar /b", &[(context.clone(), "a.tar", false)]);
        check("ADD github.com/x/y /b", &[(context.clone(), "github.com/x/y", true)]);
        check("ADD https://h/a*.tar?q /b", &[(http("https://h/a*.tar?q", "a*.tar", None), "a\\*.tar", false)]);
        check("ADD --unpack https://h/ c /b", &[
            (http("https://h/", "__unnamed__", None), "__unnamed__", true),
            (context, "c", true),
        ]);
        let kept = GitSource {
            reference: Some("main".into()),
            subdir: "d".into(),
            ..git("https://h/x.git", true, None)
        };
        check("ADD --keep-git-dir https://h/x.git?mtime=commit#main:d /b", &[(Source::Git(kept), "/", false)]);
        check("ADD --checksum=ab12 git@h:x /b", &[(Source::Git(git("git@h:x", false, Some("ab12"))), "/", false)]);
        let digest = format!("sha256:{}", "0".repeat(64));
        check(&format!("ADD --checksum={digest} https://h/x /b"), &[
            (http("https://h/x", "x", Some(digest)), "x", false),
        ]);
    }

    #[test]
    fn history_and_names() {
        check_history("FROM a\nADD --chown=1 --checksum=12 git://h/x /b", &["ADD --chown=1 git://h/x /b # buildkit"]);
        check_steps("FROM scratch\nADD http://h/x /b\nRUN y", &[
            "[1/2] ADD http://h/x /b",
            "[1/2] ADD http://h/x /b",
            "[2/2] RUN y",
        ]);
    }

    #[test]
    fn errors() {
        let check = |text: &str, expect: &str| check_errors(&format!("FROM a\n{text}"), &[expect]);
        check("ADD --from=x a b", "unknown flag: --from");
        check("ADD --checksum=sha256:12 http://h/x /b", "invalid checksum digest length: \"sha256:12\"");
        check("ADD --checksum=md5:12 http://h/x /b", "unsupported digest algorithm: \"md5\"");
        check("ADD --checksum=12 http://h/x /b", "invalid checksum digest format: \"12\"");
        check("ADD --checksum=x git://h/x /b", "invalid checksum x for Git URL, expected hex commit hash");
        check("ADD --checksum=12 a /b", "checksum requires HTTP(S) or Git sources");
        check("ADD --checksum=12 a b /b", "checksum can't be specified for multiple sources");
        check("ADD git://h/x?ref=a#b /b", "ref conflicts: \"b\" vs \"a\"");
        check("ADD --keep-git-dir=false git://h/x?keep-git-dir /b", "inconsistent keep-git-dir configuration");
    }
}
