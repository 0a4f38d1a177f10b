//! What a target can be given: build arguments, secrets and ssh agents, as data (`--call=outline`; BuildKit's
//! `frontend.outline`). [`crate::compile::outline`] finds them; nothing here prints.

use crate::span::Span;

/// The parameters of a target and of the stages that it needs, each name once, in file order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outline {
    /// Name of the target, lower case; `None` if it has none.
    pub name: Option<String>,
    /// From the comment above its FROM; empty if there is none.
    pub description: String,
    /// Build arguments that have an effect.
    pub args: Vec<Argument>,
    /// Secrets.
    pub secrets: Vec<Access>,
    /// Agents.
    pub ssh: Vec<Access>,
}

/// A build argument.
#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// Its name.
    pub name: String,
    /// From the comment above its ARG; empty if there is none.
    pub description: String,
    /// What it has in this build: what was given, or its default; empty if it has none.
    pub value: String,
    /// The ARG.
    pub span: Span,
}

/// A secret or an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct Access {
    /// Its id.
    pub id: String,
    /// The build fails without it.
    pub required: bool,
    /// The first RUN that uses it.
    pub span: Span,
}

/// What one stage itself declares and uses.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parameters {
    /// ARGs with a value of their own, in order; of a name, the last counts.
    pub args: Vec<Argument>,
    /// Names of ARGs that take over the value of the global one.
    pub inherited: Vec<String>,
    /// Secrets, in order; of an id, the first counts.
    pub secrets: Vec<Access>,
    /// Agents, likewise.
    pub ssh: Vec<Access>,
}

/// The description of a name in the comments above it: what follows `NAME ` in the first line that begins so.
pub fn description(comments: &[String], name: &str) -> String {
    let after_name = |comment: &String| comment.strip_prefix(name)?.strip_prefix(' ').map(str::to_string);
    comments.iter().find_map(after_name).unwrap_or_default()
}
