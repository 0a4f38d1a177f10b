//! The flags of an instruction against those that it declares (reference/dockerfile.md 1.4).

use crate::ast::{Flag, Node};
use crate::diagnostic::Diagnostic;
use crate::suggest::{Case, did_you_mean};

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `--x=text`, once.
    Text,
    /// `--x`, `--x=true` or `--x=false`, once.
    Bool,
    /// `--x=text`, any number of times.
    List,
}

/// The checked flags of one instruction.
#[derive(Clone, Copy, Debug)]
pub struct Flags<'a> {
    found: &'a [Flag],
}

impl<'a> Flags<'a> {
    /// Checks the node's flags against the declared ones, given as name and kind.
    pub fn check(node: &'a Node, declared: &[(&str, Kind)]) -> Result<Flags<'a>, Diagnostic> {
        for (position, flag) in node.flags.iter().enumerate() {
            let fault = check_one(flag, &node.flags[..position], declared);
            if let Err(message) = fault {
                return Err(Diagnostic::error(message, node.span).label(flag.span, "this flag"));
            }
        }
        Ok(Flags { found: &node.flags })
    }

    /// Value of a [`Kind::Text`] flag.
    pub fn text(&self, name: &str) -> Option<&'a str> {
        self.values(name).next()
    }

    /// Value of a [`Kind::Bool`] flag, if it is given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.found.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_ref().is_none_or(|value| value.eq_ignore_ascii_case("true")))
    }

    /// Values of a [`Kind::List`] flag, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.found.iter().filter(move |flag| flag.name == name).filter_map(|flag| flag.value.as_deref())
    }
}

fn check_one(flag: &Flag, earlier: &[Flag], declared: &[(&str, Kind)]) -> Result<(), String> {
    let Some((name, kind)) = declared.iter().find(|(name, _)| *name == flag.name) else {
        let names = declared.iter().map(|(name, _)| *name);
        return Err(did_you_mean(format!("unknown flag: --{}", flag.name), &flag.name, names, Case::Sensitive));
    };
    if *kind != Kind::List && earlier.iter().any(|other| other.name == flag.name) {
        return Err(format!("duplicate flag specified: {name}"));
    }
    match (kind, flag.value.as_deref()) {
        (Kind::Text | Kind::List, Some(_)) | (Kind::Bool, None) => Ok(()),
        (Kind::Text | Kind::List, None) | (Kind::Bool, Some("")) => Err(format!("missing a value on flag: {name}")),
        (Kind::Bool, Some(value)) if ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)) => Ok(()),
        (Kind::Bool, Some(value)) => Err(format!("expecting boolean value for flag {name}, not: {value}")),
    }
}
