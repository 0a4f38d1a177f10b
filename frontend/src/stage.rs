//! A stage while it compiles: [`OpenStage`] is its image config so far and its last vertex, [`Lowering`] is one
//! instruction being applied to it. Which stages there are and in what order they compile is in `compile`.

use crate::compile::{CompileRequest, NoCache};
use crate::declared::DeclaredArgs;
use crate::diagnostic::Diagnostic;
use crate::draft::Draft;
use crate::env::Environment;
use crate::image_config::{HistoryEntry, ImageConfig};
use crate::instruction::Command;
use crate::lint::Lints;
use crate::lint::own::Notes;
use crate::op::{Id, InputIndex, Op, Owner, Step, Words};
use crate::outline::Parameters;
use crate::placed::Placed;
use crate::platform::Platform;
use crate::span::Span;
use crate::words::{Expansion, Lexer, WordError, WordErrorKind};
use solver::graph::Edge;
use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};

/// A stage that instructions are being applied to.
#[derive(Clone, Debug)]
pub struct OpenStage {
    /// Name in progress; empty where there is only one stage.
    pub name: String,
    /// What its steps run on.
    pub platform: Arc<Platform>,
    /// The file system so far; `None` is empty.
    pub root: Option<Edge>,
    /// The image so far; the environment is still that of the base image.
    pub config: ImageConfig,
    /// The image's environment.
    pub image_env: Environment,
    /// The image's environment and the declared arguments.
    pub env: Environment,
    /// Declared arguments, in order, those of the base stage first.
    pub args: DeclaredArgs,
    /// Variables that an ENV or ARG was to set which has failed.
    pub lost: Lost,
    /// How many entries of the history came with the base image.
    pub base_history_len: usize,
    /// Where a CMD of this stage stands.
    pub cmd: Option<Span>,
    /// Where an ENTRYPOINT of this stage stands.
    pub entrypoint: Option<Span>,
    /// Where a HEALTHCHECK of this stage stands.
    pub healthcheck: Option<Span>,
    /// This Dockerfile has set a working directory, here or in the stage's base stage.
    pub workdir_is_set: bool,
    /// What kiln's own checks remember.
    pub notes: Notes,
    /// What the outline of the stage lists.
    pub parameters: Parameters,
    /// `--no-cache` applies to its steps.
    pub ignore_cache: bool,
    /// How many of its steps have got their number.
    pub step_index: usize,
    /// How many steps it has.
    pub step_total: usize,
}

/// Variables without the values that they were meant to have, so that errors for the lack of them are no news.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Lost {
    /// None.
    #[default]
    Nothing,
    /// These.
    Names(BTreeSet<String>),
    /// The instruction could not be read, so that any may be.
    Unknown,
}

impl Lost {
    /// Whether a variable is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Lost::Nothing => false,
            Lost::Names(names) => names.contains(name),
            Lost::Unknown => true,
        }
    }

    /// Whether a word cannot be expanded for want of one of them.
    pub fn explains(&self, error: &WordError) -> bool {
        matches!(&error.kind, WordErrorKind::Required { name, .. } if self.contains(name))
    }

    /// Adds variables.
    pub fn extend(&mut self, names: impl IntoIterator<Item = String>) {
        match self {
            Lost::Nothing => *self = Lost::Names(names.into_iter().collect()),
            Lost::Names(known) => known.extend(names),
            Lost::Unknown => {}
        }
    }
}

/// What all stages of one target platform share.
pub struct Settings<'a> {
    /// What was asked for.
    pub request: &'a CompileRequest,
    /// Splits and expands words.
    pub lexer: Lexer,
    /// Predefined and global arguments.
    pub globals: Environment,
    /// The platform that is asked for.
    pub target: Platform,
    /// Progress names carry the platform.
    pub platform_in_names: bool,
    /// `SOURCE_DATE_EPOCH`, in seconds since 1970.
    pub epoch: Option<i64>,
    /// Host name of steps.
    pub hostname: Arc<str>,
}

impl Settings<'_> {
    /// Value of a `--build-arg`.
    pub fn build_arg(&self, name: &str) -> Option<&str> {
        // The epoch may have been symbolic; what it came to is among the globals.
        if name == "SOURCE_DATE_EPOCH" {
            return self.globals.get(name).filter(|_| self.request.build_args.contains_key(name));
        }
        self.request.build_args.get(name).map(String::as_str)
    }

    /// Whether `--no-cache` or `--no-cache-filter` covers a stage of that name.
    pub fn ignores_cache(&self, stage: Option<&str>) -> bool {
        match &self.request.no_cache {
            NoCache::Use => false,
            NoCache::IgnoreAll => true,
            NoCache::IgnoreStages(names) => stage.is_some_and(|stage| names.contains(stage)),
        }
    }
}

/// A tree that an instruction reads, with `--from` or `from=`.
#[derive(Clone, Debug, PartialEq)]
pub struct Tree {
    /// `None` is an empty tree.
    pub edge: Option<Edge>,
    /// How messages call it, such as `stage "build"`.
    pub label: Arc<str>,
    /// It is a directory of the client.
    pub from_client: bool,
}

/// Whether a history entry has a layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LayerOf {
    /// A step made one.
    Step,
    /// There is none.
    Nothing,
}

/// One instruction being applied to a stage.
pub struct Lowering<'a> {
    /// What it is applied to.
    pub stage: &'a mut OpenStage,
    /// The graph so far.
    pub draft: &'a mut Draft,
    /// Collects build checks that fire.
    pub lints: &'a Lints,
    /// What does not change.
    pub settings: &'a Settings<'a>,
    /// The instruction.
    pub command: &'a Rc<Command>,
    /// What it reads beside its stage: that of COPY --from, or for a RUN one entry for each mount, but for those at the
    /// end that read nothing.
    pub trees: Vec<Option<Tree>>,
    /// What has been expanded so far.
    pub expanded: Expanded,
}

/// Those of steps without any.
static NO_WORDS: LazyLock<Arc<Words>> = LazyLock::new(Arc::default);

/// What the expansions of one instruction have come to.
#[derive(Debug, Default)]
pub struct Expanded {
    /// Results, and where the words stand; only of instructions that make a step, which shows them.
    pub words: RefCell<Option<Arc<Words>>>,
    /// A variable had no value that an ENV or ARG was to set which has failed: what fails now may be due to that.
    pub lacks_value: Cell<bool>,
}

impl<'a> Lowering<'a> {
    /// Expands one word in the stage's environment.
    pub fn expand<'w>(&self, word: &'w Placed) -> Result<Cow<'w, str>, Diagnostic> {
        if word.is_empty() {
            return Ok(Cow::Borrowed(""));
        }
        let expansion = self.settings.lexer.expand(word, &self.stage.env.lookup());
        let Expansion { text, unset } = expansion.map_err(|error| self.word_error(&error, word))?;
        self.report_unset(&unset);
        if self.command.instruction.makes_step() {
            let mut words = self.expanded.words.borrow_mut();
            let words = words.get_or_insert_with(|| Arc::new(Words::with_room(self.command.text.len())));
            Arc::make_mut(words).push(&text, word.span());
        }
        Ok(text)
    }

    /// Expands one word after another.
    pub fn expand_all(&self, words: &[Placed]) -> Result<Vec<String>, Diagnostic> {
        let mut expanded = Vec::with_capacity(words.len());
        for word in words {
            expanded.push(self.expand(word)?.into_owned());
        }
        Ok(expanded)
    }

    /// The error of a word that cannot be expanded.
    pub fn word_error(&self, error: &WordError, word: &Placed) -> Diagnostic {
        let diagnostic = self.error(error.to_string()).word(error, word);
        let WordErrorKind::Required { name, .. } = &error.kind else { return diagnostic };
        self.note_lack(name);
        let is_argument = self.stage.args.get(name).is_some();
        diagnostic.help(match is_argument {
            true => format!("give {name} a default where it is declared, or a value with --build-arg {name}=…"),
            false => format!("declare it above with ARG {name}, and give it a value with --build-arg {name}=…"),
        })
    }

    fn note_lack(&self, name: &str) {
        if self.stage.lost.contains(name) {
            self.expanded.lacks_value.set(true);
        }
    }

    /// Fires the check `UndefinedVar` for names that an expansion did not find.
    pub fn report_unset(&self, unset: &[String]) {
        for name in unset {
            self.note_lack(name);
            if self.stage.lost.contains(name) {
                continue;
            }
            crate::lint::undefined_var(self, name);
        }
    }

    /// An error at the instruction.
    pub fn error(&self, message: impl Into<String>) -> Diagnostic {
        Diagnostic::error(message, self.command.span)
    }

    /// An error at one word of the instruction, with a remark beside it, which may be empty.
    pub fn error_at(&self, word: &Placed, message: impl Into<String>, remark: impl Into<String>) -> Diagnostic {
        self.error(message).label(word.span(), remark)
    }

    /// Adds a history entry.
    pub fn history(&mut self, created_by: String, layer: LayerOf) {
        self.stage.config.history.push(HistoryEntry {
            created: None,
            created_by,
            author: String::new(),
            comment: Cow::Borrowed("buildkit.dockerfile.v0"),
            empty_layer: layer == LayerOf::Nothing,
        });
    }

    /// The stage's tree as first input of a vertex.
    pub fn root_input(&self) -> (Option<InputIndex>, Vec<Edge>) {
        match self.stage.root {
            Some(edge) => (Some(0), vec![edge]),
            None => (None, vec![]),
        }
    }

    /// Adds a vertex to which `--no-cache` applies if it applies to the stage.
    pub fn add(&mut self, op: Op, inputs: Vec<Edge>, name: String) -> Edge {
        let ignore_cache = self.stage.ignore_cache;
        self.add_step(op, inputs, name, ignore_cache)
    }

    /// Adds a vertex to which `--no-cache` does not apply.
    pub fn add_cached(&mut self, op: Op, inputs: Vec<Edge>, name: String) -> Edge {
        self.add_step(op, inputs, name, false)
    }

    fn add_step(&mut self, op: Op, inputs: Vec<Edge>, name: String, ignore_cache: bool) -> Edge {
        let words = self.expanded.words.borrow().clone().unwrap_or_else(|| NO_WORDS.clone());
        let step = Step { op, name, span: Some(self.command.span), words, ignore_cache };
        self.draft.add(inputs, step)
    }

    /// The build context.
    pub fn context(&mut self) -> Tree {
        let request = self.settings.request;
        request.context.tree(self.draft, &request.build_platform)
    }

    /// The instruction's text with all variables replaced and quotes removed, as progress shows COPY, ADD and WORKDIR.
    pub fn display_expanded(&self) -> Cow<'a, str> {
        let text = self.command.text.as_str();
        let expansion = self.settings.lexer.expand(text, &self.stage.env.lookup());
        with_upper_keyword(expansion.map_or(text.into(), |expansion| expansion.text))
    }

    /// The progress name of the next step.
    pub fn step_name(&mut self, text: &str) -> String {
        self.stage.step_index += 1;
        self.same_step_name(text)
    }

    /// Another progress name with the number of the last step.
    pub fn same_step_name(&self, text: &str) -> String {
        let keyword = if self.command.is_trigger { "ONBUILD " } else { "" };
        numbered(self.stage, self.settings, [keyword, text])
    }
}

impl OpenStage {
    /// The shell of shell forms.
    pub fn shell(&self) -> Vec<String> {
        let default: &[&str] = if self.config.os == "windows" { &["cmd", "/S", "/C"] } else { &["/bin/sh", "-c"] };
        let shell = self.config.config.shell.as_slice();
        // With room for what it is to run.
        let mut words = Vec::with_capacity(shell.len().max(default.len()) + 1);
        match shell {
            [] => words.extend(default.iter().map(|word| (*word).to_owned())),
            shell => words.extend_from_slice(shell),
        }
        words
    }

    /// The command line of a shell form: a text, with the stage's shell before it.
    pub fn in_shell(&self, text: String) -> Vec<String> {
        let mut words = self.shell();
        words.push(text);
        words
    }
}

/// `[linux/amd64->arm64 build 2/10] text`, where the text is given in two parts; a stage without steps has only the
/// text.
pub fn numbered(stage: &OpenStage, settings: &Settings<'_>, text: [&str; 2]) -> String {
    if stage.step_total == 0 {
        return text.concat();
    }
    let [first, second] = text;
    let mut name = String::with_capacity(first.len() + second.len() + stage.name.len() + 32);
    name.push('[');
    if settings.platform_in_names {
        let target = env_platform(settings, &stage.env);
        let arrow = target.map_or_else(String::new, |target| platform_arrow(&stage.platform, &target));
        name.push_str(&format!("{}{arrow} ", stage.platform));
    }
    if !stage.name.is_empty() {
        name.extend([&stage.name, " "]);
    }
    let digits = |number: usize| number.checked_ilog10().unwrap_or(0) as usize + 1;
    let width = digits(stage.step_total);
    name.extend(std::iter::repeat_n(' ', width.saturating_sub(digits(stage.step_index))));
    push_number(&mut name, stage.step_index);
    name.push('/');
    push_number(&mut name, stage.step_total);
    name.extend(["] ", first, second]);
    name
}

/// In decimal, without what formatting costs: every step has two.
fn push_number(text: &mut String, number: usize) {
    if number >= 10 {
        push_number(text, number / 10);
    }
    text.push(char::from(b'0' + (number % 10) as u8));
}

/// The text with its first word in upper case.
pub fn with_upper_keyword(text: Cow<'_, str>) -> Cow<'_, str> {
    let end = text.bytes().position(|byte| byte == b' ').unwrap_or(text.len());
    let (keyword, rest) = text.split_at(end);
    if keyword.bytes().all(|byte| byte.is_ascii_uppercase()) {
        return text;
    }
    format!("{}{rest}", keyword.to_uppercase()).into()
}

/// `user[:group]` of --chown or USER: numbers, or names to be looked up. `root` needs no looking up. What is empty, also
/// after a colon, is 0. What does not fit 32 bits with a sign is a name, and a negative number is what those bits are
/// without it, as in BuildKit.
pub fn owner(text: &str) -> Owner {
    let id = |text: &str| match text.parse::<i32>() {
        Ok(number) => Id::Number(number.cast_unsigned()),
        Err(_) if text.is_empty() || text == "root" => Id::Number(0),
        Err(_) => Id::Name(text.to_string()),
    };
    match text.split_once(':') {
        Some((user, group)) => Owner { user: id(user), group: Some(id(group)) },
        None => Owner { user: id(text), group: None },
    }
}

/// The platform that a stage says it builds for, through declared `TARGET*` arguments.
fn env_platform(settings: &Settings<'_>, env: &Environment) -> Option<Platform> {
    if let Some(text) = env.get("TARGETPLATFORM")
        && let Ok(platform) = Platform::parse(text, &settings.request.build_platform)
    {
        return Some(platform);
    }
    let parts = ["TARGETOS", "TARGETARCH", "TARGETVARIANT"].map(|name| env.get(name));
    if parts.iter().all(Option::is_none) {
        return None;
    }
    let or_default = |part: Option<&str>, default: &str| part.filter(|p| !p.is_empty()).unwrap_or(default).to_string();
    Some(Platform {
        os: or_default(parts[0], ""),
        architecture: or_default(parts[1], ""),
        variant: or_default(parts[2], ""),
        os_version: String::new(),
    })
}

/// `->arm64` where a stage builds for something else than what it runs on.
fn platform_arrow(runs_on: &Platform, builds_for: &Platform) -> String {
    let os = if builds_for.os.is_empty() { &runs_on.os } else { &builds_for.os };
    let arch = if builds_for.architecture.is_empty() { &runs_on.architecture } else { &builds_for.architecture };
    let variant = if builds_for.variant.is_empty() { String::new() } else { format!("/{}", builds_for.variant) };
    if *os != runs_on.os {
        format!("->{os}/{arch}{variant}")
    } else if *arch != runs_on.architecture {
        format!("->{arch}{variant}")
    } else {
        String::new()
    }
}
