//! Which stages there are, what each is built on and reads from, and which of them the target needs
//! (reference/dockerfile.md 4).

use super::args::Globals;
use super::head::Head;
use super::outside::{Kind, Outside, Site, locate};
use super::typed::{Fired, TypedFile, TypedStage};
use super::{Images, triggers};
use crate::diagnostic::Diagnostic;
use crate::instruction::from::From;
use crate::instruction::{Command, Instruction};
use crate::lint::Lints;
use crate::placed::Placed;
use crate::platform::Platform;
use crate::span::Span;
use crate::stage::{Lost, Settings};
use crate::suggest::{Case, did_you_mean};
use foldhash::fast::RandomState;
use std::cell::OnceCell;
use std::collections::{BTreeSet, HashMap};
use std::rc::Rc;
use std::sync::Arc;

/// A stage before it compiles.
pub(super) struct StagePlan {
    /// Its head.
    pub from: Rc<From>,
    /// Global arguments that its head uses.
    pub arguments: Vec<String>,
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
    /// The triggers that it has fired when it was compiled before.
    pub fired: Rc<OnceCell<Fired>>,
    /// The base's triggers are among the commands, or known not to exist.
    pub has_triggers: bool,
    /// Variables that its text was to set, but could not be read.
    pub lost: Lost,
    /// How messages call it as what is copied from, once that has been asked for.
    pub label: OnceCell<Arc<str>>,
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
    pub names: HashMap<String, usize, RandomState>,
}

impl StageGraph {
    /// Expands all FROMs and finds what each name stands for.
    pub fn new(
        file: &TypedFile,
        globals: &Globals,
        settings: &Settings<'_>,
        lints: &Lints,
    ) -> (StageGraph, Vec<Diagnostic>) {
        let mut graph = StageGraph { stages: vec![], names: HashMap::default() };
        let mut errors = vec![];
        let head = Head { globals, settings, lints };
        for stage in &file.stages {
            let plan = head.plan(stage, &graph).unwrap_or_else(|error| {
                errors.extend(error);
                head.unknown(stage, &graph)
            });
            graph.names.extend(plan.from.name.clone().map(|name| (name, graph.stages.len())));
            graph.stages.push(plan);
        }
        let mut only_stage = graph.stages.len() == 1;
        for (index, stage) in file.stages.iter().enumerate() {
            graph.stages[index].commands.reserve(stage.commands.len());
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
        (graph, errors)
    }

    /// The trees that an instruction reads beside its stage.
    pub fn origins(&self, command: &Command, settings: &Settings<'_>) -> Result<Vec<Option<Origin>>, Diagnostic> {
        let names = names_read(&command.instruction);
        let mut origins = Vec::with_capacity(names.size_hint().0);
        for name in names {
            let Some(name) = name else {
                origins.push(None);
                continue;
            };
            let fail = |message: String| Diagnostic::error(message, command.span).label(name.span(), "");
            let is_copy = matches!(command.instruction, Instruction::Copy(_));
            origins.push(Some(match (name.parse::<i64>(), self.by_name(name)) {
                (Ok(index), _) if is_copy => {
                    match usize::try_from(index).ok().filter(|index| *index < self.stages.len()) {
                        Some(index) => Origin::Stage(index),
                        None => {
                            let error = fail(format!("invalid stage index {index}"));
                            return Err(error.help(match self.stages.len() {
                                1 => "the only stage has the number 0".to_string(),
                                count => format!("the stages have the numbers 0 to {}", count - 1),
                            }));
                        }
                    }
                }
                (_, Some(index)) => Origin::Stage(index),
                (_, None) => {
                    let site = Site { span: command.span, word: name.span() };
                    let outside = locate(name, &settings.target, settings.request, site);
                    Origin::Outside(Box::new(outside.map_err(fail)?))
                }
            }));
        }
        Ok(origins)
    }

    /// The last stage of a name, in any case.
    fn by_name(&self, name: &str) -> Option<usize> {
        // What has no capital is its own lower case.
        match name.bytes().all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase()) {
            true => self.names.get(name).copied(),
            false => self.names.get(&name.to_lowercase()).copied(),
        }
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

    /// The stages that others need, those included.
    pub fn reachable(&self, targets: &[usize]) -> BTreeSet<usize> {
        let mut seen = BTreeSet::new();
        let mut todo = targets.to_vec();
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
        targets: &[usize],
        images: &Images,
        settings: &Settings<'_>,
    ) -> (BTreeSet<usize>, Vec<Diagnostic>) {
        let mut errors = vec![];
        loop {
            let reachable = self.reachable(targets);
            let mut found = false;
            for &index in &reachable {
                if self.stages[index].has_triggers || self.stages[index].replaced_by.is_some() {
                    continue;
                }
                let Some(texts) = triggers::of_base(self, index, images) else { continue };
                found |= !texts.is_empty();
                let parsed = self.fire(index, &texts);
                self.stages[index].has_triggers = true;
                match parsed {
                    Ok(commands) => errors.extend(self.splice(index, commands, settings)),
                    Err(error) => errors.push(error),
                }
            }
            if !found {
                return (reachable, errors);
            }
        }
    }

    /// What triggers say at a stage's FROM.
    fn fire(&self, index: usize, texts: &[&str]) -> Result<Vec<Rc<Command>>, Diagnostic> {
        let StagePlan { from, fired, .. } = &self.stages[index];
        if let Some(fired) = fired.get().filter(|fired| fired.texts == texts) {
            return Ok(fired.commands.clone());
        }
        let commands: Vec<_> = triggers::parse(texts, from)?.into_iter().map(Rc::new).collect();
        let texts = texts.iter().map(|text| text.to_string()).collect();
        fired.get_or_init(|| Fired { texts, commands: commands.clone() });
        Ok(commands)
    }

    fn splice(&mut self, index: usize, commands: Vec<Rc<Command>>, settings: &Settings<'_>) -> Vec<Diagnostic> {
        let mut planned = Vec::with_capacity(commands.len());
        let mut errors = vec![];
        for command in commands {
            match self.origins(&command, settings) {
                Ok(origins) => planned.push(PlannedCommand { command, origins }),
                Err(error) => errors.push(error),
            }
        }
        let own = std::mem::take(&mut self.stages[index].commands);
        self.stages[index].commands = planned.into_iter().chain(own).collect();
        errors
    }

    /// Stages whose layers are part of an image: those that no other reads, and what they are built on. The others are
    /// only copied from.
    pub fn shipped(&self, target: usize) -> BTreeSet<usize> {
        let read: BTreeSet<usize> = self.stages.iter().flat_map(|s| s.origins().filter_map(Origin::stage)).collect();
        let mut shipped = BTreeSet::new();
        let ends = (0..self.stages.len()).filter(|index| *index == target || !read.contains(index));
        for end in ends {
            let mut next = Some(end);
            while let Some(index) = next.filter(|index| shipped.insert(*index)) {
                next = self.stages[index].base.stage();
            }
        }
        shipped
    }

    /// Stages that copy from each other in a circle.
    pub fn circle(&self) -> Option<Diagnostic> {
        let needs: Vec<Vec<Need>> = self.stages.iter().map(StagePlan::stages_read).collect();
        let mut marks = vec![Mark::New; self.stages.len()];
        (0..self.stages.len()).find_map(|start| {
            let path = circle_from(start, &needs, &mut marks)?;
            let message = format!("circular dependency detected on stage: {}", self.name(start));
            let error = Diagnostic::error(message, path.first()?.site.span);
            let label = |error: Diagnostic, need: Need| {
                error.label(need.site.word, format!("needs stage {}", self.name(need.stage)))
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

/// A stage reads another.
#[derive(Clone, Copy)]
struct Need {
    site: Site,
    stage: usize,
}

/// Names of trees that an instruction reads: that of COPY --from, or for a RUN one entry for each mount.
pub(super) fn names_read(instruction: &Instruction) -> impl Iterator<Item = Option<&Placed>> {
    let (copy, mounts) = match instruction {
        Instruction::Copy(copy) => (copy.from.as_ref(), [].as_slice()),
        Instruction::Run(run) => (None, run.mounts.as_slice()),
        _ => (None, [].as_slice()),
    };
    copy.map(Some).into_iter().chain(mounts.iter().map(|mount| mount.from.as_ref()))
}

#[derive(Clone, Copy, PartialEq)]
enum Mark {
    New,
    OnPath,
    Done,
}

/// The path, as places and the stages that they need, from a stage into a circle. Without recursion: the depth is the
/// writer's choice.
fn circle_from(start: usize, needs: &[Vec<Need>], marks: &mut [Mark]) -> Option<Vec<Need>> {
    if marks[start] != Mark::New {
        return None;
    }
    marks[start] = Mark::OnPath;
    // Stages on the path, and how many of their needs were looked at.
    let mut path = vec![(start, 0)];
    while let Some((stage, looked_at)) = path.last_mut() {
        let Some(Need { stage: next, .. }) = needs[*stage].get(*looked_at) else {
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
    pub fn stage(&self) -> Option<usize> {
        match self {
            Origin::Stage(index) => Some(*index),
            Origin::Outside(_) => None,
        }
    }
}

impl StagePlan {
    /// A stage on `base`, after others. Nothing else is known of it but what its text says without arguments.
    pub fn new(stage: &TypedStage, earlier: &StageGraph, base: Origin) -> StagePlan {
        let (from, fired, lost) = (stage.from.clone(), stage.fired.clone(), stage.lost.clone());
        let shown = from.name.clone().unwrap_or_else(|| format!("stage-{}", earlier.stages.len()));
        StagePlan {
            from,
            arguments: vec![],
            shown,
            base,
            platform: None,
            replaced_by: None,
            commands: vec![],
            fired,
            has_triggers: false,
            lost,
            label: OnceCell::new(),
        }
    }

    /// `stage "build"`: how messages call it as what is copied from.
    pub fn label(&self) -> Arc<str> {
        self.label.get_or_init(|| format!("stage {:?}", self.shown).into()).clone()
    }

    /// The stages that its instructions read, and where.
    fn stages_read(&self) -> Vec<Need> {
        let mut needs = vec![];
        for planned in &self.commands {
            let span = planned.command.span;
            for (name, origin) in names_read(&planned.command.instruction).zip(&planned.origins) {
                if let (Some(name), Some(Origin::Stage(stage))) = (name, origin) {
                    needs.push(Need { site: Site { span, word: name.span() }, stage: *stage });
                }
            }
        }
        needs
    }

    /// Everything that it is made from.
    pub fn origins(&self) -> impl Iterator<Item = &Origin> {
        let read = self.commands.iter().flat_map(|planned| planned.origins.iter().flatten());
        std::iter::once(&self.base).chain(read)
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
