//! Which stages there are, what each is built on and reads from, and which of them the target needs
//! (reference/dockerfile.md 4).

use super::args::Globals;
use super::outside::{Kind, Outside, locate, named_context};
use super::typed::{TypedFile, TypedStage};
use super::{Images, triggers};
use crate::diagnostic::Diagnostic;
use crate::instruction::from::From;
use crate::instruction::{Command, Instruction};
use crate::lint::{self, Lints};
use crate::platform::Platform;
use crate::reference::Reference;
use crate::span::Span;
use crate::stage::Settings;
use crate::suggest::{Case, did_you_mean};
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;

/// A stage before it compiles.
pub(super) struct StagePlan {
    /// Its head.
    pub from: From,
    /// Name in progress; empty where there is only one stage.
    pub shown: String,
    /// What it is built on.
    pub base: Origin,
    /// `FROM --platform`.
    pub platform: Option<Platform>,
    /// A named context that takes its place: it is then not built.
    pub replaced_by: Option<Outside>,
    /// Triggers of the base first, once they are known.
    pub commands: Vec<PlannedCommand>,
    /// The base's triggers are among the commands, or known not to exist.
    pub has_triggers: bool,
}

/// An instruction, and where the trees are that it reads.
pub(super) struct PlannedCommand {
    pub command: Rc<Command>,
    /// One for COPY --from; one for each mount of a RUN, `None` where it has no `from=`.
    pub origins: Vec<Option<Origin>>,
}

/// Where a tree comes from.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Origin {
    /// A stage, by its position in the file.
    Stage(usize),
    Outside(Box<Outside>),
}

/// All stages for one target platform.
pub(super) struct StageGraph {
    /// In file order.
    pub stages: Vec<StagePlan>,
    /// The last stage of each name, lower case.
    names: HashMap<String, usize>,
}

impl StageGraph {
    /// Expands all FROMs and finds what each name stands for.
    pub fn new(
        file: &TypedFile,
        globals: &Globals,
        settings: &Settings<'_>,
        lints: &Lints,
    ) -> Result<StageGraph, Vec<Diagnostic>> {
        let mut graph = StageGraph { stages: vec![], names: HashMap::new() };
        let mut errors = vec![];
        let head = Head { globals, settings, lints };
        for stage in &file.stages {
            match head.plan(stage, &graph) {
                Ok(plan) => {
                    graph.names.extend(plan.from.name.clone().map(|name| (name, graph.stages.len())));
                    graph.stages.push(plan);
                }
                Err(error) => errors.push(error),
            }
        }
        // Positions in the file would no longer be those in the list.
        if !errors.is_empty() {
            return Err(errors);
        }
        let mut only_stage = graph.stages.len() == 1;
        for (index, stage) in file.stages.iter().enumerate() {
            for command in &stage.commands {
                let origins = graph.origins(command, settings).unwrap_or_else(|error| {
                    errors.push(error);
                    vec![]
                });
                // Whatever a step mounts counts as a stage for progress names, as in BuildKit.
                only_stage &= origins.is_empty();
                graph.stages[index].commands.push(PlannedCommand { command: command.clone(), origins });
            }
        }
        if only_stage {
            graph.stages[0].shown.clear();
        }
        errors.extend(graph.circle());
        if errors.is_empty() { Ok(graph) } else { Err(errors) }
    }

    /// The trees that an instruction reads beside its stage.
    pub fn origins(&self, command: &Command, settings: &Settings<'_>) -> Result<Vec<Option<Origin>>, Diagnostic> {
        let fail = |message: String| Diagnostic::error(message, command.span);
        let outside = |name: &str| match locate(name, &settings.target, settings.request, command.span) {
            Ok(outside) => Ok(Some(Origin::Outside(Box::new(outside)))),
            Err(message) => Err(fail(message)),
        };
        match &command.instruction {
            Instruction::Copy(copy) => {
                let Some(name) = &copy.from else { return Ok(vec![]) };
                let origin = match (name.parse::<i64>(), self.by_name(name)) {
                    (Ok(index), _) => match usize::try_from(index).ok().filter(|index| *index < self.stages.len()) {
                        Some(index) => Some(Origin::Stage(index)),
                        None => return Err(fail(format!("invalid stage index {index}"))),
                    },
                    (Err(_), Some(index)) => Some(Origin::Stage(index)),
                    (Err(_), None) => outside(name)?,
                };
                Ok(vec![origin])
            }
            Instruction::Run(run) => {
                let mut origins = vec![];
                for mount in &run.mounts {
                    origins.push(match &mount.from {
                        None => None,
                        Some(name) => match self.by_name(name) {
                            Some(index) => Some(Origin::Stage(index)),
                            None => outside(name)?,
                        },
                    });
                }
                Ok(origins)
            }
            _ => Ok(vec![]),
        }
    }

    /// The last stage of a name, in any case.
    fn by_name(&self, name: &str) -> Option<usize> {
        self.names.get(&name.to_lowercase()).copied()
    }

    /// The stage that is asked for.
    pub fn target(&self, settings: &Settings<'_>) -> Result<usize, Diagnostic> {
        let Some(target) = settings.request.target.as_deref().filter(|target| !target.is_empty()) else {
            return Ok(self.stages.len() - 1);
        };
        self.by_name(target).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().filter_map(|stage| stage.from.name.as_deref()).collect();
            let message = format!("target stage {target:?} could not be found");
            let message = did_you_mean(message, target, &names, Case::Sensitive);
            let error = Diagnostic { span: None, ..Diagnostic::error(message, Span::default()) };
            error.help(match names.as_slice() {
                [] => "no stage has a name".to_string(),
                names => format!("stages are: {}", names.join(", ")),
            })
        })
    }

    /// The stages that a stage needs, itself included.
    pub fn reachable(&self, target: usize) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut todo = vec![target];
        while let Some(index) = todo.pop() {
            let stage = &self.stages[index];
            if seen.insert(index) && stage.replaced_by.is_none() {
                todo.extend(stage.origins().filter_map(Origin::stage));
            }
        }
        seen
    }

    /// Puts the triggers of known bases into the reachable stages, until no stage becomes reachable by them.
    pub fn splice_triggers(
        &mut self,
        target: usize,
        images: &Images,
        settings: &Settings<'_>,
    ) -> Result<BTreeSet<usize>, Vec<Diagnostic>> {
        let mut errors = vec![];
        loop {
            let reachable = self.reachable(target);
            let mut found = false;
            for &index in &reachable {
                if self.stages[index].has_triggers || self.stages[index].replaced_by.is_some() {
                    continue;
                }
                let Some(texts) = triggers::of_base(self, index, images) else { continue };
                self.stages[index].has_triggers = true;
                found |= !texts.is_empty();
                match triggers::parse(&texts, &self.stages[index].from) {
                    Ok(commands) => errors.extend(self.splice(index, commands, settings)),
                    Err(error) => errors.push(error),
                }
            }
            if !found {
                errors.extend(self.circle());
                return if errors.is_empty() { Ok(reachable) } else { Err(errors) };
            }
        }
    }

    fn splice(&mut self, index: usize, commands: Vec<Command>, settings: &Settings<'_>) -> Vec<Diagnostic> {
        let mut planned = vec![];
        let mut errors = vec![];
        for command in commands {
            match self.origins(&command, settings) {
                Ok(origins) => planned.push(PlannedCommand { command: Rc::new(command), origins }),
                Err(error) => errors.push(error),
            }
        }
        let own = std::mem::take(&mut self.stages[index].commands);
        self.stages[index].commands = planned.into_iter().chain(own).collect();
        errors
    }

    /// Stages that copy from each other in a circle.
    fn circle(&self) -> Option<Diagnostic> {
        let needs: Vec<Vec<(Span, usize)>> = self.stages.iter().map(StagePlan::stages_read).collect();
        let mut marks = vec![Mark::New; self.stages.len()];
        (0..self.stages.len()).find_map(|start| {
            let path = circle_from(start, &needs, &mut marks)?;
            let (span, _) = *path.first()?;
            let error = Diagnostic::error(format!("circular dependency detected on stage: {}", self.name(start)), span);
            let label = |error: Diagnostic, (span, needed): (Span, usize)| {
                error.label(span, format!("needs stage {}", self.name(needed)))
            };
            Some(path.into_iter().fold(error, label))
        })
    }

    /// Name for messages.
    fn name(&self, index: usize) -> String {
        match self.stages[index].shown.as_str() {
            "" => index.to_string(),
            shown => shown.to_string(),
        }
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    OnPath,
    Done,
}

/// The path, as places and the stages that they need, from a stage into a circle. Without recursion: the depth is the
/// writer's choice.
fn circle_from(start: usize, needs: &[Vec<(Span, usize)>], marks: &mut [Mark]) -> Option<Vec<(Span, usize)>> {
    if marks[start] != Mark::New {
        return None;
    }
    marks[start] = Mark::OnPath;
    // Stages on the path, and how many of their needs were looked at.
    let mut path = vec![(start, 0)];
    while let Some((stage, looked_at)) = path.last_mut() {
        let Some((_, next)) = needs[*stage].get(*looked_at) else {
            marks[*stage] = Mark::Done;
            path.pop();
            continue;
        };
        *looked_at += 1;
        match marks[*next] {
            Mark::New => {
                marks[*next] = Mark::OnPath;
                path.push((*next, 0));
            }
            Mark::OnPath => return Some(path.iter().map(|(stage, looked_at)| needs[*stage][looked_at - 1]).collect()),
            Mark::Done => {}
        }
    }
    None
}

impl Origin {
    fn stage(&self) -> Option<usize> {
        match self {
            Origin::Stage(index) => Some(*index),
            Origin::Outside(_) => None,
        }
    }
}

impl StagePlan {
    /// The stages that its instructions read, and where.
    fn stages_read(&self) -> Vec<(Span, usize)> {
        let read = |planned: &PlannedCommand| {
            let span = planned.command.span;
            planned
                .origins
                .iter()
                .flatten()
                .filter_map(Origin::stage)
                .map(move |index| (span, index))
                .collect::<Vec<_>>()
        };
        self.commands.iter().flat_map(read).collect()
    }

    /// Everything that it is made from.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let read = self.commands.iter().flat_map(|planned| planned.origins.iter().flatten());
        std::iter::once(&self.base).chain(read)
    }
}

/// Expands FROM lines.
struct Head<'a> {
    globals: &'a Globals,
    settings: &'a Settings<'a>,
    lints: &'a Lints,
}

impl Head<'_> {
    fn plan(&self, stage: &TypedStage, earlier: &StageGraph) -> Result<StagePlan, Diagnostic> {
        let from = &stage.from;
        let image = self.image(from)?;
        let platform = match &from.platform {
            Some(written) => Some(self.platform(from, written)?),
            None => None,
        };
        let wanted = platform.as_ref().unwrap_or(&self.settings.target);
        let name = from.name.as_deref();
        let replaced_by = name.and_then(|name| named_context(name, wanted, self.settings.request, from.span));
        let base = match earlier.names.get(&image) {
            Some(index) => Origin::Stage(*index),
            None => {
                let outside = locate(&image, wanted, self.settings.request, from.span);
                Origin::Outside(Box::new(outside.map_err(|message| self.bad_image(from, message))?))
            }
        };
        // The base of a stage that is replaced is not looked at.
        let base = match &replaced_by {
            Some(outside) => Origin::Outside(Box::new(outside.clone())),
            None => base,
        };
        let shown = name.map_or_else(|| format!("stage-{}", earlier.stages.len()), str::to_string);
        let from = from.clone();
        Ok(StagePlan { from, shown, base, platform, replaced_by, commands: vec![], has_triggers: false })
    }

    fn image(&self, from: &From) -> Result<String, Diagnostic> {
        let expansion = self.settings.lexer.expand(&from.image, &self.globals.env.lookup());
        let expansion = expansion.map_err(|error| Diagnostic::error(error.to_string(), from.span))?;
        lint::undefined_arg_in_from(
            self.lints,
            from,
            &expansion.unset,
            &self.globals.declared,
            self.globals.env.names().collect::<Vec<_>>().into_iter(),
        );
        if let Some(defaults) = &self.globals.defaults
            && let Ok(by_default) = self.settings.lexer.expand(&from.image, &defaults.lookup())
            && Reference::parse(&by_default.text).is_err()
        {
            lint::invalid_default_arg_in_from(self.lints, from);
        }
        if expansion.text.is_empty() {
            let message = format!("base name ({}) should not be blank", from.image);
            let error = Diagnostic::error(self.suggest(message, &expansion.unset), from.span);
            return Err(error.help("give the argument a default, or a value with --build-arg"));
        }
        Ok(expansion.text)
    }

    /// An image that cannot be one, often since an argument in its name is not set.
    fn bad_image(&self, from: &From, message: String) -> Diagnostic {
        let error = Diagnostic::error(message, from.span);
        let expansion = self.settings.lexer.expand(&from.image, &self.globals.env.lookup()).unwrap_or_default();
        match expansion.unset.first() {
            Some(name) => error.help(format!("{name} has no value: give it a default, or --build-arg {name}=…")),
            None => error,
        }
    }

    fn platform(&self, from: &From, written: &str) -> Result<Platform, Diagnostic> {
        let host = &self.settings.request.build_platform;
        let expansion = self.settings.lexer.expand(written, &self.globals.env.lookup());
        let expansion = expansion.map_err(|error| Diagnostic::error(error.to_string(), from.span))?;
        let names = self.globals.env.names().collect::<Vec<_>>().into_iter();
        lint::undefined_arg_in_from(self.lints, from, &expansion.unset, &self.globals.declared, names);
        lint::from_platform(self.lints, from, written, &expansion.text, host);
        if expansion.text.is_empty() {
            let message = format!("empty platform value from expression {written}");
            return Err(Diagnostic::error(self.suggest(message, &expansion.unset), from.span));
        }
        Platform::parse(&expansion.text, host).map_err(|error| {
            let message = format!("failed to parse platform {written}: {error}");
            Diagnostic::error(self.suggest(message, &expansion.unset), from.span)
        })
    }

    /// The message, with a known argument that may be meant by one that is not set.
    fn suggest(&self, message: String, unset: &[String]) -> String {
        let known = || self.globals.env.names().chain(self.globals.declared.iter().map(String::as_str));
        for name in unset {
            let suggested = did_you_mean(message.clone(), name, known(), Case::Sensitive);
            if suggested != message {
                return suggested;
            }
        }
        message
    }
}

/// Whether the base shows a numbered FROM step.
pub(super) fn has_from_step(base: &Origin, images: &Images) -> bool {
    match base {
        Origin::Outside(outside) if outside.context.is_none() => {
            matches!(outside.kind, Kind::Image(_))
                && outside.info(images).is_some_and(|info| !super::outside::is_empty(info))
        }
        Origin::Stage(_) | Origin::Outside(_) => false,
    }
}
