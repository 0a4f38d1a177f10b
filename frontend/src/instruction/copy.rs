//! `COPY [flags] source… destination` (reference/dockerfile.md 2.5, 2.6).

use super::files::{Attributes, FileStep, Files, destination, document_actions};
use super::flags::{Flags, Kind};
use super::fail_at;
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::git_url::{GitUrl, is_http};
use crate::lint;
use crate::op::{self, FileAction};
use crate::placed::Placed;
use crate::stage::{Lowering, Tree};
use crate::words::Lexer;

/// The fields of a COPY.
#[derive(Clone, Debug, PartialEq)]
pub struct Copy {
    /// What goes where.
    pub files: Files,
    /// Flags that ADD has too.
    pub attributes: Attributes,
    /// `--from`: name of a stage, its number, a named context or an image.
    pub from: Option<Placed>,
    /// `--parents`
    pub parents: bool,
}

const FLAGS: &[(&str, Kind)] = &[
    ("chown", Kind::Text),
    ("from", Kind::Text),
    ("chmod", Kind::Text),
    ("link", Kind::Bool),
    ("exclude", Kind::List),
    ("parents", Kind::Bool),
];

impl Copy {
    /// Parses the node.
    pub fn parse(node: &Node, lexer: Lexer) -> Result<Copy, Diagnostic> {
        let files = Files::parse(node, "COPY");
        let flags = Flags::check(node, FLAGS)?;
        let from = flags.text("from").filter(|from| !from.is_empty());
        if let Some(from) = from
            && lexer.expand(from, &|_| None).map_or(true, |expansion| *from != *expansion.text)
        {
            let why = "define a new stage with FROM using ARG from global scope as a workaround";
            return fail_at(node, from, format!("variable expansion is not supported for --from, {why}"), "");
        }
        Ok(Copy {
            files: files?,
            attributes: Attributes::read(&flags),
            from: from.cloned(),
            parents: flags.switch("parents").unwrap_or(false),
        })
    }

    /// Adds the step.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let expanded = self.attributes.expand(at)?;
        // A --chmod takes --link away, as in BuildKit.
        let link = self.attributes.link && expanded.mode.is_none();
        expanded.check_names(link, at, &self.attributes.chown)?;
        let sources = at.expand_all(&self.files.sources)?;
        let written_dest = at.expand(&self.files.dest)?;
        let dest = destination(at, &written_dest);
        // Mostly as long as the instruction, and with a remark at the end.
        let mut history = String::with_capacity(at.command.text.len() + 16);
        history.push_str("COPY");
        if self.parents {
            history.push_str(" --parents");
        }
        expanded.add_to(&mut history);

        let mut actions = Vec::with_capacity(self.files.sources.len() + self.files.documents.len());
        let mut inputs = FileStep::inputs(at, link);
        let tree = (!self.files.sources.is_empty()).then(|| self.tree(at));
        for (word, source) in self.files.sources.iter().zip(sources) {
            if is_http(&source) {
                return Err(at.error_at(word, "source can't be a URL for COPY", "").help("ADD fetches URLs"));
            }
            if !matches!(GitUrl::parse(&source), Ok(None)) {
                let message = "source can't be a git ref for COPY";
                return Err(at.error_at(word, message, "").help("ADD clones repositories"));
            }
            let Some(tree) = &tree else { continue };
            if tree.from_client && self.from.is_none() {
                lint::copy_ignored_file(at, "Copy", &source);
            }
            history.extend([" ", &source]);
            actions.push(FileAction::Copy(Box::new(op::Copy {
                from: tree.edge.map(|edge| FileStep::input(&mut inputs, edge)),
                source,
                dest: dest.clone(),
                owner: expanded.owner.clone(),
                chmod: expanded.mode.clone(),
                exclude: self.attributes.exclude.clone(),
                parents: self.parents,
                unpack: false,
                from_client: tree.from_client,
                link,
                source_label: tree.label.clone(),
            })));
        }
        actions.extend(document_actions(&self.files, &expanded, &dest, at)?);
        for document in &self.files.documents {
            history.push_str(&format!(" <<{}", document.name));
        }
        history.extend([" ", &written_dest]);
        FileStep { actions, inputs, link, name: &at.display_expanded(), history }.lower(at);
        Ok(())
    }

    fn tree(&self, at: &mut Lowering<'_>) -> Tree {
        match at.trees.first().cloned().flatten() {
            Some(tree) => tree,
            None => at.context(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::{Chmod, Id, Op, Owner};
    use crate::testing::*;

    fn copies(text: &str) -> Vec<op::Copy> {
        let plan = plan(&format!("FROM a\n{text}"));
        let copies = last_actions(&plan).iter().map(|action| match action {
            FileAction::Copy(copy) => copy.as_ref().clone(),
            other => panic!("{other:?} is no copy"),
        });
        copies.collect()
    }

    #[test]
    fn sources_and_destination() {
        let check = |text: &str, expect: &[(&str, &str)]| {
            let copies = copies(text);
            let found: Vec<_> = copies.iter().map(|copy| (copy.source.as_str(), copy.dest.as_str())).collect();
            assert_eq!(found, expect, "{text}");
            assert!(copies.iter().all(|copy| copy.from_client && copy.from == Some(1) && !copy.unpack));
        };
        check("COPY a b/ ./c/./d /x/../y/", &[("a", "/y/"), ("b/", "/y/"), ("./c/./d", "/y/")]);
        check("WORKDIR /w\nCOPY a .", &[("a", "/w/")]);
        check("WORKDIR /w\nCOPY a b", &[("a", "/w/b")]);
        check("COPY a ..", &[("a", "/")]);
        check("COPY a /x/.", &[("a", "/x/")]);
        check("COPY [\"a b\", \"\"]", &[("a b", "/")]);
        check("ENV A=x\nCOPY [\"$A\", \"/$A y\"]", &[("x", "/x y")]);
    }

    #[test]
    fn flags() {
        let copy = &copies("ENV M=640\nCOPY --chown=bob:7 --chmod=$M --exclude=*.o --exclude=$X --parents a /b")[0];
        assert_eq!(copy.owner, Some(Owner { user: Id::Name("bob".into()), group: Some(Id::Number(7)) }));
        assert_eq!(copy.chmod, Some(Chmod::Octal(0o640)));
        assert_eq!((copy.exclude.join(" "), copy.parents), ("*.o $X".into(), true));
        let check = |chown: &str, user, group| {
            let copy = &copies(&format!("COPY --chown={chown} a /b"))[0];
            assert_eq!(copy.owner, Some(Owner { user, group }), "{chown}");
        };
        check("55", Id::Number(55), None);
        check("root", Id::Number(0), None);
        check(":grp", Id::Number(0), Some(Id::Name("grp".into())));
        check("1:root", Id::Number(1), Some(Id::Number(0)));
        check("bob:", Id::Name("bob".into()), Some(Id::Number(0)));
        check("-5:2147483648", Id::Number(u32::MAX - 4), Some(Id::Name("2147483648".into())));
    }

    #[test]
    fn documents() {
        let plan = plan("FROM a\nENV V=1\nCOPY --chmod=600 <<A f <<-\"B\" /d/\n\\$V $V \"q\"\nA\n\t\t$V\nB");
        let make = |name: &str, data: &str| FileAction::MkFile {
            name: name.into(),
            dest: "/d/".into(),
            mode: 0o644,
            data: data.into(),
            owner: None,
            chmod: Some(Chmod::Octal(0o600)),
        };
        let actions = last_actions(&plan);
        assert!(matches!(&actions[0], FileAction::Copy(copy) if copy.source == "f"));
        assert_eq!(actions[1..], [make("A", "$V 1 \"q\"\n"), make("B", "$V\n")]);
        check_steps("FROM scratch\nCOPY <<A <<B /d/\nA\nB", &["[1/1] COPY <<A <<B /d/"]);
        // There are no bodies below a JSON list.
        let plan = self::plan("FROM a\nCOPY [\"<<A\", \"/d/\"]");
        assert!(matches!(last_actions(&plan), [FileAction::MkFile { name, data, .. }] if name == "A" && data.is_empty()));
        check_errors("FROM a\nCOPY <<'B C' /d/\nB C", &[
            "failed to process \"<<'B\": unexpected end of statement while looking for matching single-quote",
        ]);
    }

    #[test]
    fn history_and_names() {
        check_history(
            "FROM a\nENV V=1\nCOPY --from=x --link --exclude=y --parents --chown=$V \"$V\" b /c\nCOPY f <<E .\nE",
            &["ENV V=1 (empty)", "COPY --parents --chown=1 1 b /c # buildkit", "COPY f <<E . # buildkit"],
        );
        check_steps("FROM scratch\nENV V=1\ncopy [\"$V\", \"/$U\"]", &[
            "[internal] load build context",
            "[1/1] COPY [1, /]",
        ]);
    }

    #[test]
    fn trees() {
        let label = |text: &str| copies(text)[0].source_label.to_string();
        assert_eq!(label("COPY a b"), "the build context");
        assert_eq!(label("COPY --from=img:1 a b"), "image \"img:1\"");
        assert_eq!(label("FROM b\nCOPY --from=0 a b"), "stage \"stage-0\"");
        assert_eq!(copies("COPY --from=scratch a b")[0].from, None);
        let both = copies("COPY a b /c/");
        assert_eq!((both[0].from, both[1].from), (Some(1), Some(1)));
    }

    #[test]
    fn link() {
        let linked = plan("FROM a\nRUN x\nCOPY --link f /f");
        assert_eq!(*last_op(&linked), Op::Merge);
        assert_eq!(steps(&linked)[2..], [
            "[internal] load build context",
            "[3/3] COPY --link f /f",
            "[3/3] LINK COPY --link f /f",
        ]);
        let inputs = linked.graph.inputs(linked.results[0].root.unwrap().vertex);
        let Op::File(copy) = &linked.graph.value(inputs[1].vertex).op else { panic!("the upper input is no copy") };
        assert_eq!(copy.base, None);
        assert!(matches!(&copy.actions[0], FileAction::Copy(copy) if copy.link && copy.from == Some(0)));

        assert!(matches!(last_op(&plan("FROM scratch\nCOPY --link f /f")), Op::File(op) if op.base.is_none()));
        let with_chmod = plan("FROM a\nCOPY --link --chmod=1 f /f");
        assert!(matches!(last_op(&with_chmod), Op::File(op) if op.base == Some(0)));
        check_errors("FROM a\nCOPY --link --chown=bob f /f", &[
            "invalid user index: -1: --link copies onto an empty tree, where \"bob\" is not known",
        ]);
        check_errors("FROM scratch\nCOPY --chown=:adm f /f", &[
            "invalid user index: -1: the stage has no files yet in which \"adm\" could be known",
        ]);
        let _ = plan("FROM scratch\nCOPY f /f\nCOPY --chown=bob f /g");
    }

    #[test]
    fn errors() {
        let check = |text: &str, expect: &str| check_errors(&format!("FROM a AS s\n{text}"), &[expect]);
        let few = "COPY requires at least two arguments, but only one was provided. Destination could not be determined";
        check("COPY a", few);
        check("COPY", few);
        check("COPY []", few);
        check("COPY a <<E\nE", "COPY cannot accept a heredoc as a destination");
        let message = "unexpected end of statement while looking for matching double-quote";
        check("COPY a \"b c\"", &format!("failed to process \"\\\"b\": {message}"));
        check("COPY --chwn=1 a b", "unknown flag: --chwn (did you mean chown?)");
        check("COPY --link=x a b", "expecting boolean value for flag --link, not: x");
        check("COPY --from a b", "missing a value on flag: --from");
        check("COPY --chown=1 --chown=2 a b", "duplicate flag specified: --chown");
        check("COPY --chmod=64a a b", "invalid chmod parameter: '64a'. it should be octal string and between 0 and 07777");
        check("COPY https://h/x /", "source can't be a URL for COPY");
        check("COPY git@h:x.git /", "source can't be a git ref for COPY");
        let no_variables = "variable expansion is not supported for --from, \
                            define a new stage with FROM using ARG from global scope as a workaround";
        check("COPY --from=$s a b", no_variables);
        check("COPY --from=7 a b", "invalid stage index 7");
        check("COPY --from=s a b", "circular dependency detected on stage: s");
        check("COPY --from=0 a b", "circular dependency detected on stage: s");
        check(
            "COPY --from=t a b\nFROM a AS t\nFROM s",
            "cannot copy from stage \"t\", it needs to be defined before current stage \"s\"",
        );
    }
}
