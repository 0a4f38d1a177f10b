//! Dockerfile text in, build graph and diagnostics out. Pure: no files, network, clock or environment.
//!
//! ```text
//! text -> lines -> parse -> Dockerfile (ast) -> instruction -> compile: stages -> lower -> BuildPlan
//! ```
//!
//! [`parse::parse`] reads a text without stopping at the first error. [`compile::compile`] gives the instructions their
//! types ([`instruction`]), finds the stages that the target needs, and applies one instruction after another to an open
//! stage ([`stage`]), which adds vertices ([`op`]) to the graph and edits the image's config ([`image_config`]). Configs
//! of base images it does not fetch: it returns which ones it lacks, and is called again with the answers.
//!
//! [`compile::check`], [`compile::outline()`] and [`targets`] answer questions about a Dockerfile instead of building it.
//! Checks are in [`lint`]; those that look into RUN read its text with [`shell`].
//!
//! Invariant: compiling the same text with the same request and answers gives the same plan.
//! Invariant: names and places are in [`op::Step`], beside the op, so that no wording reaches a cache key.

#![forbid(unsafe_code)]

pub mod ast;
pub mod compile;
pub mod csv;
mod declared;
pub mod diagnostic;
mod directives;
mod draft;
pub mod env;
mod exec_form;
mod expansion;
pub mod git_url;
mod heredoc;
pub mod history;
pub mod ignore;
pub mod image_config;
pub mod instruction;
mod lines;
pub mod lint;
pub mod op;
pub mod outline;
pub mod parse;
pub mod path;
mod pattern;
pub mod placed;
pub mod platform;
mod print;
#[cfg(any(test, feature = "testing"))]
pub mod properties;
pub mod reference;
pub mod shell;
pub mod span;
pub mod stage;
#[cfg(any(test, feature = "testing"))]
pub mod stand_in;
pub mod suggest;
pub mod targets;
mod wildcard;
pub mod words;

#[cfg(test)]
mod testing;
