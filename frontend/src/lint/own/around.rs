//! What kiln's own rules see: an instruction, its stage so far, and, of a RUN, its commands.

use super::{AT_INSTRUCTION, last_user_root, unpinned_base_image};
use crate::instruction::from::From;
use crate::instruction::run::{Run, Script as RunScript};
use crate::instruction::{Command, CommandLine, Instruction};
use crate::lint::Lints;
use crate::shell::{Invocation, Script, is_shell};
use crate::span::{SourceText, Span};
use crate::stage::{OpenStage, Settings};

/// A stage that is checked.
pub struct StageChecks<'a> {
    /// Its head.
    pub from: &'a From,
    /// What it is built on.
    pub base: Base,
    /// Its instructions, triggers of the base first.
    pub commands: Vec<&'a Command>,
    /// Its layers are part of an image: it is not merely copied from.
    pub is_shipped: bool,
    /// Another stage is built on it.
    pub is_built_on: bool,
    /// Names of global ARGs.
    pub globals: &'a [String],
    /// The Dockerfile.
    pub source: &'a SourceText,
}

/// What a stage is built on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    /// An image of a registry, its name with variables replaced.
    Image(String),
    /// A stage.
    Stage,
    /// `scratch`, or a named context.
    Other,
}

/// What is remembered from one instruction to the next. A stage takes over that of the stage that it is built on.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Notes {
    /// A RUN has written a setting of this name somewhere: `APT::Get::Assume-Yes` and its kin.
    pub(super) settings: Vec<&'static str>,
    /// The COPY of the whole context, until dependencies were installed.
    pub(super) context_copy: Option<(Span, Vec<String>)>,
    /// Dependencies were installed.
    pub(super) has_dependencies: bool,
    /// A lock file of npm was copied.
    pub(super) has_npm_lock: bool,
    /// Folders to which RUNs of this stage went first.
    pub(super) first_cds: Vec<String>,
    /// The last USER of this stage.
    pub(super) user: Option<(String, Span, Vec<String>)>,
    /// This stage has had a RUN.
    pub(super) has_run: bool,
}

/// Settings that change what rules have to say, wherever they are written to.
const SETTINGS: &[&str] =
    &["APT::Get::Assume-Yes", "APT::Install-Recommends", "assumeyes", "no-cache-dir", "PIP_NO_CACHE_DIR"];

/// An instruction and what is around it.
pub(super) struct Around<'a> {
    pub lints: &'a Lints,
    pub checks: &'a StageChecks<'a>,
    /// As the instruction finds it.
    pub stage: &'a OpenStage,
    pub settings: &'a Settings<'a>,
    /// Position of the instruction in its stage.
    pub position: usize,
    pub command: &'a Command,
    /// Of a RUN.
    pub run: Option<RunFacts<'a>>,
}

/// A RUN.
pub(super) struct RunFacts<'a> {
    pub run: &'a Run,
    /// The text for the shell; empty where there is none.
    pub text: &'a str,
    /// Its commands; none where the shell does not read this language.
    pub script: Script,
    /// Places that are not part of the layer: targets of cache and tmpfs mounts.
    pub mounted: Vec<String>,
}

impl StageChecks<'_> {
    /// Checks the head of the stage. Called before all instructions.
    pub fn from(&self, lints: &Lints, stage: &mut OpenStage) {
        let kept = std::mem::take(&mut stage.notes.settings);
        let has_npm_lock = stage.notes.has_npm_lock;
        stage.notes = Notes { settings: kept, has_npm_lock, ..Notes::default() };
        unpinned_base_image::check(lints, self);
    }

    /// Checks an instruction.
    pub fn command(&self, lints: &Lints, stage: &mut OpenStage, settings: &Settings<'_>, position: usize) {
        let command = self.commands[position];
        let mut at = Around { lints, checks: self, stage, settings, position, command, run: None };
        if let Instruction::Run(run) = &command.instruction {
            at.run = Some(at.facts(run));
        }
        for check in AT_INSTRUCTION {
            check(&at);
        }
        let notes = at.next_notes();
        stage.notes = notes;
    }

    /// Checks what only shows at the end of the stage.
    pub fn end(&self, lints: &Lints, stage: &OpenStage) {
        last_user_root::check(lints, self, stage);
    }
}

impl<'a> Around<'a> {
    /// A rule fires at the instruction.
    pub fn fire(&self, rule: &'static str, message: String) {
        self.lints.fire(rule, message, self.command.span, &self.command.comments);
    }

    /// Programs that a RUN runs.
    pub fn invocations(&self) -> impl Iterator<Item = Invocation<'_>> {
        self.run.iter().flat_map(|run| run.script.invocations())
    }

    /// Whether a RUN of this stage or of one below it, this one included, has written the setting somewhere.
    pub fn has_setting(&self, setting: &'static str) -> bool {
        self.stage.notes.settings.contains(&setting) || self.run.as_ref().is_some_and(|run| run.text.contains(setting))
    }

    /// Whether a cache or tmpfs mount holds this place.
    pub fn is_mounted(&self, places: &[&str]) -> bool {
        let holds = |target: &str, place: &str| {
            place.strip_prefix(target).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let mounted = self.run.iter().flat_map(|run| &run.mounted);
        mounted.into_iter().any(|target| places.iter().any(|place| holds(target, place)))
    }

    /// The text of a shell form with its variables as written.
    pub fn shell_text(&self) -> Option<&'a str> {
        let line = match &self.command.instruction {
            Instruction::Cmd(cmd) => &cmd.line,
            Instruction::Entrypoint(entrypoint) => &entrypoint.line,
            Instruction::Run(run) => match &run.script {
                RunScript::Command(line) => line,
                RunScript::Document { .. } => return None,
            },
            Instruction::Healthcheck(healthcheck) => match healthcheck.check.test.as_slice() {
                [kind, text] if kind == "CMD-SHELL" => return Some(text),
                _ => return None,
            },
            _ => return None,
        };
        match line {
            CommandLine::Shell(text) => Some(text),
            CommandLine::Exec(_) => None,
        }
    }

    /// The stage's shell reads the language of POSIX shells.
    pub fn has_posix_shell(&self) -> bool {
        // Also one that another program starts: `SHELL ["conda", "run", "bash", "-c"]`.
        let shell = self.stage.shell();
        shell.iter().any(|word| is_shell(word.rsplit('/').next().unwrap_or_default()))
    }

    fn facts(&self, run: &'a Run) -> RunFacts<'a> {
        let (text, script) = match &run.script {
            RunScript::Command(CommandLine::Exec(words)) => ("", Script::of_exec(words)),
            RunScript::Command(CommandLine::Shell(text)) => (text.as_str(), self.read(text)),
            RunScript::Document { body, .. } => match body.strip_prefix("#!") {
                // A program of its own: its first line says who reads it.
                Some(rest) => {
                    let line = rest.lines().next().unwrap_or_default();
                    let named = line.split_whitespace().flat_map(|word| word.rsplit('/').next()).find(|w| *w != "env");
                    let is_script = named.is_some_and(is_shell);
                    (body.as_str(), if is_script { Script::parse(body) } else { Script::default() })
                }
                None => (body.as_str(), self.read(body)),
            },
        };
        let written = run.mounts.iter().filter(|mount| mount.kind_written().is_some_and(is_apart));
        let mounted = written.filter_map(|mount| mount.target_written()).map(|target| {
            let target = self.settings.lexer.expand(target, &self.stage.env.lookup()).unwrap_or_default().text;
            target.trim_end_matches('/').to_string()
        });
        RunFacts { run, text, script, mounted: mounted.collect() }
    }

    fn read(&self, text: &str) -> Script {
        if self.has_posix_shell() { Script::parse(text) } else { Script::default() }
    }

    /// What the next instruction has to know.
    fn next_notes(&self) -> Notes {
        let mut notes = self.stage.notes.clone();
        super::copy_before_dependencies::note(self, &mut notes);
        super::npm_install_instead_of_ci::note(self, &mut notes);
        super::cd_instead_of_workdir::note(self, &mut notes);
        super::last_user_root::note(self, &mut notes);
        if let Some(run) = &self.run {
            notes.has_run = true;
            let written = SETTINGS.iter().filter(|setting| run.text.contains(*setting));
            notes.settings.extend(written);
            notes.settings.sort_unstable();
            notes.settings.dedup();
        }
        notes
    }
}

/// Mounts whose content is not in the layer.
fn is_apart(kind: &str) -> bool {
    ["cache", "tmpfs"].contains(&kind)
}

/// The beginning of a command, for messages. Secrets may stand in it, so that words with `=` (but for versions) and `@`
/// are not shown.
pub(super) fn shown(invocation: &Invocation<'_>) -> String {
    const MAX_CHARS: usize = 40;
    let mut text = invocation.program.to_string();
    for word in invocation.args {
        let is_version = word.text.contains("==") && !word.text.starts_with('-');
        let is_open = !word.text.contains(['=', '@', '\n', '`']) || is_version && !word.text.contains(['@', '\n', '`']);
        let is_plain = is_open && !word.text.is_empty();
        if !is_plain || text.chars().count() + word.text.chars().count() >= MAX_CHARS {
            text.push_str(" …");
            break;
        }
        text.push(' ');
        text.push_str(&word.text);
    }
    text
}
