//! What COPY and ADD have in common: words, owner, mode and destination (reference/dockerfile.md 2.5, 2.6).

use super::flags::Flags;
use super::{fail_at, not_strings};
use crate::ast::{Heredoc, Node};
use crate::diagnostic::Diagnostic;
use crate::heredoc;
use crate::op::{Chmod, FileAction, FileOp, InputIndex, Op, Owner};
use crate::path;
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering, owner};
use crate::words::{NotWords, json_words};
use solver::graph::Edge;
use std::borrow::Cow;

/// Sources and destination as written.
#[derive(Clone, Debug, PartialEq)]
pub struct Files {
    /// Paths and URLs, not yet expanded.
    pub sources: Vec<Placed>,
    /// Files whose content stands in the Dockerfile; they are written after `sources`.
    pub documents: Vec<Document>,
    /// Not yet expanded.
    pub dest: Placed,
}

/// A heredoc as a file.
#[derive(Clone, Debug, PartialEq)]
pub struct Document {
    /// The delimiter.
    pub name: String,
    /// Tabs are stripped, variables not yet replaced.
    pub body: Placed,
    /// Whether variables are to be replaced.
    pub expand: bool,
}

/// The flags that COPY and ADD share, not yet expanded.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attributes {
    /// `--chown`
    pub chown: Placed,
    /// `--chmod`
    pub chmod: Placed,
    /// `--link`
    pub link: bool,
    /// `--exclude`, never expanded.
    pub exclude: Vec<String>,
}

impl Files {
    /// Parses the words of a COPY or ADD.
    pub fn parse(node: &Node, keyword: &str) -> Result<Files, Diagnostic> {
        let mut words = match json_words(&node.rest) {
            Ok(words) => words,
            Err(NotWords::NotStrings(span)) => return Err(not_strings(node, span)),
            Err(NotWords::NotJson) => node.rest.split_whitespace().map(|word| node.rest.part(word)).collect(),
        };
        let Some(dest) = words.pop() else { return too_few(node, keyword) };
        if let Some(heredoc) = heredoc::token(&dest) {
            let message = format!("{keyword} cannot accept a heredoc as a destination");
            return fail_at(node, &heredoc.token, message, "the last word is the destination");
        }
        if words.is_empty() {
            return too_few(node, keyword);
        }
        let mut files = Files { sources: Vec::with_capacity(words.len()), documents: vec![], dest };
        for word in words {
            // Each word is looked at alone, so a delimiter with blanks is none here, and one in a JSON list is.
            match heredoc::token(&word) {
                Some(token) => files.documents.push(document(node, token)?),
                None => files.sources.push(word),
            }
        }
        Ok(files)
    }
}

fn too_few<T>(node: &Node, keyword: &str) -> Result<T, Diagnostic> {
    let why = "but only one was provided. Destination could not be determined";
    let error = Diagnostic::error(format!("{keyword} requires at least two arguments, {why}"), node.span);
    let error = if node.rest.is_empty() { error } else { error.label(node.rest.span(), "no destination follows") };
    Err(error.help(format!("write {keyword} source destination")))
}

fn document(node: &Node, token: Heredoc) -> Result<Document, Diagnostic> {
    if token.name.contains('/') {
        let message = format!("a heredoc's name cannot have slashes: {}", token.name);
        return fail_at(node, &token.token, message, "names the file");
    }
    // A name that is there twice stands for the last body of that name, as in BuildKit; one that has none is empty.
    let same_name = node.heredocs.iter().rfind(|other| other.name == token.name);
    let body = same_name.map_or_else(Default::default, |other| other.body.clone());
    let body = if token.strip_tabs { strip_tabs(&body) } else { body };
    Ok(Document { name: token.name, body, expand: token.expand })
}

/// The text without leading tabs of its lines (`<<-`).
pub fn strip_tabs(body: &Placed) -> Placed {
    let mut stripped = Placed::default();
    for line in body.split_inclusive('\n') {
        stripped.append(&body.part(line.trim_start_matches('\t')));
    }
    stripped
}

impl Attributes {
    /// Takes them from the flags of a COPY or ADD.
    pub fn read(flags: &Flags<'_>) -> Attributes {
        Attributes {
            chown: flags.text("chown").cloned().unwrap_or_default(),
            chmod: flags.text("chmod").cloned().unwrap_or_default(),
            link: flags.switch("link").unwrap_or(false),
            exclude: flags.values("exclude").map(|pattern| pattern.to_string()).collect(),
        }
    }

    /// Expands what is expanded.
    pub fn expand(&self, at: &Lowering<'_>) -> Result<Expanded<'_>, Diagnostic> {
        let chown = at.expand(&self.chown)?;
        let chmod = at.expand(&self.chmod)?;
        Ok(Expanded {
            owner: (!chown.is_empty()).then(|| owner(&chown)),
            mode: parse_chmod(&chmod).map_err(|message| {
                at.error_at(&self.chmod, message, "").help("write --chmod=644 or --chmod=u=rwX,go=rX")
            })?,
            chown,
            chmod,
        })
    }
}

/// The shared flags after expansion.
pub struct Expanded<'a> {
    /// From `chown`.
    pub owner: Option<Owner>,
    /// From `chmod`.
    pub mode: Option<Chmod>,
    /// As text, for the history.
    pub chown: Cow<'a, str>,
    /// As text, for the history.
    pub chmod: Cow<'a, str>,
}

impl Expanded<'_> {
    /// Adds ` --chown=x --chmod=y`.
    pub fn add_to(&self, history: &mut String) {
        for (flag, value) in [(" --chown=", &self.chown), (" --chmod=", &self.chmod)] {
            if !value.is_empty() {
                history.extend([flag, value]);
            }
        }
    }

    /// Names cannot be looked up in an empty tree: with `--link`, and as the first step on `scratch`.
    pub fn check_names(&self, link: bool, at: &Lowering<'_>, chown: &Placed) -> Result<(), Diagnostic> {
        let Some(owner) = &self.owner else { return Ok(()) };
        match owner.name() {
            Some(name) if link => {
                let message =
                    format!("invalid user index: -1: --link copies onto an empty tree, where {name:?} is not known");
                Err(at.error_at(chown, message, "").help("use numeric ids with --link"))
            }
            Some(name) if at.stage.root.is_none() => Err(unknown_on_scratch(name, at)),
            _ => Ok(()),
        }
    }
}

/// The error for a name where there is no file yet that could know it.
pub fn unknown_on_scratch(name: &str, at: &Lowering<'_>) -> Diagnostic {
    at.error(format!("invalid user index: -1: the stage has no files yet in which {name:?} could be known"))
        .help("use numeric ids, or copy an /etc/passwd and /etc/group first")
}

/// The actions that write the documents, in order.
pub fn document_actions(
    files: &Files,
    expanded: &Expanded<'_>,
    dest: &str,
    at: &Lowering<'_>,
) -> Result<Vec<FileAction>, Diagnostic> {
    let mut actions = vec![];
    for document in &files.documents {
        let data = if document.expand {
            let expansion = at.settings.lexer.expand_heredoc(&document.body, &at.stage.env.lookup());
            let expansion = expansion.map_err(|error| at.word_error(&error, &document.body))?;
            at.report_unset(&expansion.unset);
            expansion.text.into_owned()
        } else {
            document.body.to_string()
        };
        actions.push(FileAction::MkFile {
            name: document.name.clone(),
            dest: dest.to_string(),
            mode: 0o644,
            data,
            owner: expanded.owner.clone(),
            chmod: expanded.mode.clone(),
        });
    }
    Ok(actions)
}

/// The destination: absolute and clean, with a slash at the end if it is to be a directory.
pub fn destination(at: &Lowering<'_>, written: &str) -> String {
    let written = if written.is_empty() || written == "." { "./" } else { written };
    let mut dest = path::join(&at.stage.config.config.working_dir, written);
    let is_directory = written.ends_with('/') || written.ends_with("/.");
    if is_directory && dest != "/" {
        dest.push('/');
    }
    dest
}

/// The vertices of a COPY or ADD whose actions and inputs are known, and its history entry.
pub struct FileStep<'a> {
    /// In order.
    pub actions: Vec<FileAction>,
    /// From [`FileStep::inputs`], and what actions copy from.
    pub inputs: Vec<Edge>,
    /// Copy onto an empty tree and merge.
    pub link: bool,
    /// The progress name, without the number.
    pub name: &'a str,
    /// The text for the history.
    pub history: String,
}

impl FileStep<'_> {
    /// The inputs as long as nothing is copied: the tree that is copied onto.
    pub fn inputs(at: &Lowering<'_>, link: bool) -> Vec<Edge> {
        let mut inputs = Vec::with_capacity(2);
        inputs.extend(at.stage.root.filter(|_| !link));
        inputs
    }

    /// Position of a source among the inputs, each edge once.
    pub fn input(inputs: &mut Vec<Edge>, edge: Edge) -> InputIndex {
        inputs.iter().position(|other| *other == edge).unwrap_or_else(|| {
            inputs.push(edge);
            inputs.len() - 1
        })
    }

    /// Adds the vertices.
    pub fn lower(mut self, at: &mut Lowering<'_>) {
        let platform = at.stage.platform.clone();
        let name = at.step_name(self.name);
        let base = at.stage.root.and(if self.link { None } else { Some(0) });
        let copied = at.add(Op::File(FileOp { base, actions: self.actions, platform }), self.inputs, name);
        let root = match at.stage.root {
            Some(base) if self.link => {
                let name = at.same_step_name(&format!("LINK {}", self.name));
                at.add(Op::Merge, vec![base, copied], name)
            }
            Some(_) | None => copied,
        };
        at.stage.root = Some(root);
        self.history.push_str(" # buildkit");
        at.history(self.history, LayerOf::Step);
    }
}

/// An octal or symbolic mode; `None` if it is empty.
pub fn parse_chmod(text: &str) -> Result<Option<Chmod>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        return match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o7777 => Ok(Some(Chmod::Octal(mode))),
            _ => Err(bad_chmod(text)),
        };
    }
    if is_symbolic_mode(text) { Ok(Some(Chmod::Symbolic(text.to_string()))) } else { Err(bad_chmod(text)) }
}

fn bad_chmod(text: &str) -> String {
    format!("invalid chmod parameter: '{text}'. it should be octal string and between 0 and 07777")
}

/// `u=rwX,go-w`: clauses of who, then operators each with permissions or classes to copy them from (chmod(1)).
fn is_symbolic_mode(text: &str) -> bool {
    text.split(',').all(|clause| {
        let operations = clause.trim_start_matches(['u', 'g', 'o', 'a']);
        operations.starts_with(['+', '-', '=']) && operations.chars().all(|c| "+-=rwxXstugo".contains(c))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chmod() {
        for good in ["0", "755", "07777", "u=rwX,go=rX", "+x", "a-w", "g=u", "u+s", "u=rw+x", "=", "o=", "u=go", "u+-x"]
        {
            assert!(matches!(parse_chmod(good), Ok(Some(_))), "{good}");
        }
        for bad in ["64a", "17777", "8", "rwxish", "u", "u=rw,", "x+r", "u+a", "u+q", "99999999999"] {
            assert_eq!(parse_chmod(bad), Err(bad_chmod(bad)), "{bad}");
        }
        assert_eq!(parse_chmod(""), Ok(None));
    }

    #[test]
    fn tabs() {
        let body = strip_tabs(&Placed::verbatim("\t\ta\tb\n  c\n\t", 10));
        assert_eq!(body, "a\tb\n  c\n");
        assert_eq!(body.place(4..6), crate::span::Span::new(16, 18));
    }
}
