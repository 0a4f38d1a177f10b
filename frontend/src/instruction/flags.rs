//! The flags of an instruction against those that it declares (reference/dockerfile.md 1.4).

use crate::ast::{Flag, Node};
use crate::diagnostic::Diagnostic;
use crate::placed::Placed;
use crate::span::Span;
use crate::suggest::{Case, nearest};

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
    /// Checks the node's flags against the declared ones, given as name and kind. The error has a label for each flag
    /// that is wrong, and the message of the first.
    pub fn check(node: &'a Node, declared: &[(&str, Kind)]) -> Result<Flags<'a>, Diagnostic> {
        let mut error: Option<Diagnostic> = None;
        for (position, flag) in node.flags.iter().enumerate() {
            let Err(fault) = check_one(flag, &node.flags[..position], declared) else { continue };
            error = Some(match error {
                None => Diagnostic::error(fault.message, node.span).label(fault.place, fault.remark),
                Some(first) => first.label(fault.place, fault.message),
            });
        }
        let Some(error) = error else { return Ok(Flags { found: &node.flags }) };
        if !error.message.starts_with("unknown flag") {
            return Err(error);
        }
        let names: Vec<_> = declared.iter().map(|(name, _)| format!("--{name}")).collect();
        let keyword = node.keyword.to_uppercase();
        Err(error.help(match names.as_slice() {
            [] => format!("{keyword} takes no flags"),
            names => format!("{keyword} takes {}", names.join(", ")),
        }))
    }

    /// Value of a [`Kind::Text`] flag.
    pub fn text(&self, name: &str) -> Option<&'a Placed> {
        self.values(name).next()
    }

    /// Value of a [`Kind::Bool`] flag, if it is given.
    pub fn switch(&self, name: &str) -> Option<bool> {
        let flag = self.found.iter().find(|flag| flag.name == name)?;
        Some(flag.value.as_ref().is_none_or(|value| value.eq_ignore_ascii_case("true")))
    }

    /// Values of a [`Kind::List`] flag, in order.
    pub fn values(&self, name: &str) -> impl Iterator<Item = &'a Placed> {
        self.found.iter().filter(move |flag| flag.name == name).filter_map(|flag| flag.value.as_ref())
    }
}

struct Fault {
    message: String,
    place: Span,
    remark: String,
}

fn check_one(flag: &Flag, earlier: &[Flag], declared: &[(&str, Kind)]) -> Result<(), Fault> {
    let fault = |message: String, place: Span, remark: &str| Fault { message, place, remark: remark.to_string() };
    let Some((name, kind)) = declared.iter().find(|(name, _)| flag.name == *name) else {
        let message = format!("unknown flag: --{}", flag.name);
        let near = nearest(&flag.name, declared.iter().map(|(name, _)| *name), Case::Sensitive);
        return Err(match near {
            Some(near) => {
                let message = format!("{message} (did you mean {near}?)");
                fault(message, flag.name_span, &format!("did you mean --{near}?"))
            }
            None => fault(message, flag.name_span, ""),
        });
    };
    if *kind != Kind::List && earlier.iter().any(|other| other.name == flag.name) {
        return Err(fault(format!("duplicate flag specified: --{name}"), flag.span, "given before"));
    }
    let no_value = || fault(format!("missing a value on flag: --{name}"), flag.span, "`=` and a value must follow");
    match (kind, &flag.value) {
        (Kind::Text | Kind::List, Some(_)) | (Kind::Bool, None) => Ok(()),
        (Kind::Text | Kind::List, None) => Err(no_value()),
        (Kind::Bool, Some(value)) if value.is_empty() => Err(no_value()),
        (Kind::Bool, Some(value)) if ["true", "false"].iter().any(|word| value.eq_ignore_ascii_case(word)) => Ok(()),
        (Kind::Bool, Some(value)) => {
            let message = format!("expecting boolean value for flag --{name}, not: {value}");
            Err(fault(message, value.span(), "true or false"))
        }
    }
}
