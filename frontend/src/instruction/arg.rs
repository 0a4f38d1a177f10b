//! `ARG name[=default] …` (reference/dockerfile.md 2.2, 3.4): variables of the build that are not in the image.

use super::{fail_at, some_argument};
use crate::ast::Node;
use crate::diagnostic::Diagnostic;
use crate::lint;
use crate::outline::{Argument, description};
use crate::placed::Placed;
use crate::stage::{LayerOf, Lowering};
use crate::words::{Lexer, split_assignments};

/// The fields of an ARG.
#[derive(Clone, Debug, PartialEq)]
pub struct Arg {
    /// In order.
    pub declarations: Vec<Declaration>,
}

/// One word of an ARG.
#[derive(Clone, Debug, PartialEq)]
pub struct Declaration {
    /// Not expanded.
    pub name: Placed,
    /// Not yet expanded.
    pub default: Option<Placed>,
}

/// Arguments that steer attestations and never become variables.
const NOT_IN_ENV: &[&str] = &["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Arg {
    /// Parses the node. Flags are not looked at, as in BuildKit.
    pub fn parse(node: &Node, lexer: Lexer) -> Result<Arg, Diagnostic> {
        some_argument(node, "ARG")?;
        let mut declarations = vec![];
        for word in split_assignments(&node.rest, lexer.escape) {
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (word.part(name), Some(word.part(default))),
                None => (word.clone(), None),
            };
            if name.is_empty() {
                return fail_at(node, &word, "ARG names can not be blank", "no name before `=`");
            }
            declarations.push(Declaration { name, default });
        }
        Ok(Arg { declarations })
    }

    /// Declares the arguments: `--build-arg`, else the default, else the global value. A later default sees the
    /// earlier ones of the same line.
    pub fn lower(&self, at: &mut Lowering<'_>) -> Result<(), Diagnostic> {
        let mut text = "ARG".to_string();
        for Declaration { name, default } in &self.declarations {
            lint::secrets_used_in_arg_or_env(at, "ARG", name);
            let value = match (at.settings.build_arg(name), default) {
                (Some(value), _) => Some(value.to_string()),
                (None, Some(default)) => Some(at.expand(default)?.into_owned()),
                (None, None) => at.settings.globals.get(name).map(str::to_string),
            };
            note(at, name, default.is_some(), value.as_deref());
            text.push(' ');
            text.push_str(name);
            if let Some(value) = &value {
                text.push('=');
                text.push_str(value);
                if !NOT_IN_ENV.contains(&name.as_str()) {
                    at.stage.env.set(name, value);
                }
            }
            at.stage.args.declare(name, value);
        }
        at.history(text, LayerOf::Nothing);
        Ok(())
    }
}

/// For the outline: an argument that only takes over the global one is described there.
fn note(at: &mut Lowering<'_>, name: &str, has_default: bool, value: Option<&str>) {
    let is_given = at.settings.build_arg(name).is_some();
    if !has_default && !is_given && at.settings.globals.get(name).is_some() {
        at.stage.parameters.inherited.push(name.to_string());
        return;
    }
    let description = description(&at.command.comments, name);
    let value = value.unwrap_or_default().to_string();
    at.stage.parameters.args.push(Argument { name: name.to_string(), description, value, span: at.command.span });
}

#[cfg(test)]
mod tests {
    use crate::testing::*;

    fn check(text: &str, args: &[(&str, &str)], expect: &[&str]) {
        assert_eq!(history_with(text, &with_args(args)), expect, "{text}");
    }

    #[test]
    fn values() {
        check("FROM a\nARG A=1 B=$A C", &[], &["ARG A=1 B=1 C (empty)"]);
        check("FROM a\nARG A=${B:?never}", &[("A", "x y")], &["ARG A=x y (empty)"]);
        check("ARG G=g\nFROM a\nARG G\nARG H=${G}h", &[], &["ARG G=g (empty)", "ARG H=gh (empty)"]);
        check("ARG G=g\nFROM a\nARG G=own", &[], &["ARG G=own (empty)"]);
        check("FROM a\nARG A=", &[("B", "unused")], &["ARG A= (empty)"]);
        check("FROM a\nARG TARGETARCH\nARG TARGETVARIANT", &[], &[
            "ARG TARGETARCH=amd64 (empty)",
            "ARG TARGETVARIANT= (empty)",
        ]);
        check("FROM a\nARG TARGETARCH", &[("TARGETARCH", "mips")], &["ARG TARGETARCH=mips (empty)"]);
        check("FROM a AS x\nARG TARGETSTAGE", &[], &["ARG TARGETSTAGE=x (empty)"]);
        check("FROM a\nARG TARGETSTAGE", &[], &["ARG TARGETSTAGE=default (empty)"]);
    }

    #[test]
    fn against_env() {
        let env = |text: &str| {
            let plan = plan(text);
            (last_exec(&plan).env.iter().map(|entry| entry.to_string()).collect(), plan.results[0].config.config.env.clone())
        };
        let both = |first: &str, second: &str| {
            env(&format!("FROM scratch\nENV PATH=p\n{first}\n{second}\nRUN x"))
        };
        let list = |words: &[&str]| words.iter().map(|word| word.to_string()).collect::<Vec<_>>();
        assert_eq!(both("ARG X=a", "ENV X=e"), (list(&["PATH=p", "X=e"]), list(&["PATH=p", "X=e"])));
        assert_eq!(both("ENV X=e", "ARG X=a"), (list(&["PATH=p", "X=a"]), list(&["PATH=p", "X=e"])));
        assert_eq!(both("ENV X=e", "ARG X"), (list(&["PATH=p", "X=e"]), list(&["PATH=p", "X=e"])));
        assert_eq!(both("ARG X", "ARG Y="), (list(&["PATH=p", "Y="]), list(&["PATH=p"])));
    }

    #[test]
    fn errors() {
        check_errors("FROM a\nARG", &["ARG requires at least one argument"]);
        check_errors("FROM a\nARG =x", &["ARG names can not be blank"]);
    }
}
