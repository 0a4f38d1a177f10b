//! Opens reachable stages one after another and applies their instructions.

use super::outside::{Kind, Outside, is_empty};
use super::stages::{Origin, PlannedCommand, StageGraph, StagePlan, has_from_step, names_read};
use super::{ImageInfo, Images, PlannedImage, ScannedTree};
use super::{scans, triggers};
use crate::declared::DeclaredArgs;
use crate::diagnostic::Diagnostic;
use crate::draft::Draft;
use crate::env::Environment;
use crate::image_config::{ImageConfig, RootFs};
use crate::instruction::{Command, Instruction};
use crate::lint::{self, Lints, own};
use crate::outline::Parameters;
use crate::path;
use crate::platform::Platform;
use crate::span::{SourceText, Span};
use crate::stage::{Expanded, Lost, Lowering, OpenStage, Settings, Tree, numbered};
use solver::graph::Edge;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What lowering reads and what it writes to.
pub(super) struct Lower<'a> {
    pub plans: &'a StageGraph,
    pub settings: &'a Settings<'a>,
    pub images: &'a Images,
    pub lints: &'a Lints,
    pub draft: &'a mut Draft,
    /// Names of global ARGs, for kiln's own checks.
    pub declared: &'a [String],
    /// The Dockerfile, for kiln's own checks.
    pub source: &'a SourceText,
    /// Stages whose layers are part of an image, for kiln's own checks.
    pub shipped: BTreeSet<usize>,
}

/// Stages that are compiled.
struct Done {
    /// Their file systems.
    roots: BTreeMap<usize, Option<Edge>>,
    /// Those that others are still to be based on, or that are the target.
    bases: BTreeMap<usize, OpenStage>,
    /// By how many that is.
    uses: BTreeMap<usize, usize>,
    /// What each declares and uses, for the outline.
    parameters: BTreeMap<usize, Parameters>,
}

impl Done {
    /// A stage for one of those based on it. Only the last gets it itself, so that in a chain of stages none is copied.
    fn base(&mut self, index: usize) -> Option<OpenStage> {
        let left = self.uses.get_mut(&index)?;
        *left = left.saturating_sub(1);
        if *left == 0 { self.bases.remove(&index) } else { self.bases.get(&index).cloned() }
    }
}

/// What lowering comes to.
pub(super) struct Lowered {
    /// The image of the target; `None` if there are errors.
    pub image: Option<PlannedImage>,
    /// What each stage declares and uses.
    pub parameters: BTreeMap<usize, Parameters>,
    pub errors: Vec<Diagnostic>,
}

impl<'a> Lower<'a> {
    /// Lowers the reachable stages in file order and makes the image of the target.
    pub fn image(mut self, reachable: &BTreeSet<usize>, target: usize) -> Lowered {
        let mut done =
            Done { roots: BTreeMap::new(), bases: BTreeMap::new(), uses: BTreeMap::new(), parameters: BTreeMap::new() };
        for &index in reachable {
            if let Origin::Stage(base) = self.plans.stages[index].base {
                *done.uses.entry(base).or_default() += 1;
            }
        }
        *done.uses.entry(target).or_default() += 1;
        let (mut errors, mut scans, mut scans_context) = (vec![], vec![], false);
        for &index in reachable {
            let mut stage = self.stage(index, &mut done, &mut errors);
            let name = self.plans.stages[index].from.name.clone().unwrap_or_else(|| index.to_string());
            scans_context |= scans::wants_context(&stage, &name, self.settings);
            if index != target && scans::wants_stage(&stage, &name, self.settings) {
                scans.push(ScannedTree { name, root: stage.root });
            }
            done.parameters.insert(index, std::mem::take(&mut stage.parameters));
            done.roots.insert(index, stage.root);
            if done.uses.contains_key(&index) {
                done.bases.insert(index, stage);
            }
        }
        let target = done.bases.remove(&target).filter(|_| errors.is_empty());
        if scans_context {
            let request = self.settings.request;
            let context = request.context.tree(self.draft, &request.build_platform);
            scans.push(ScannedTree { name: "context".into(), root: context.edge });
        }
        let image = target.map(|stage| PlannedImage { scans, ..finish(stage, self.settings) });
        Lowered { image, parameters: done.parameters, errors }
    }

    fn stage(&mut self, index: usize, done: &mut Done, errors: &mut Vec<Diagnostic>) -> OpenStage {
        let plan = &self.plans.stages[index];
        let mut stage = self.open(plan, done);
        if plan.replaced_by.is_some() {
            return stage;
        }
        let own = self.own_checks(index);
        if let Some(own) = &own {
            own.from(self.lints, &mut stage);
        }
        for (position, planned) in plan.commands.iter().enumerate() {
            if let Some(own) = &own {
                own.command(self.lints, &mut stage, self.settings, position);
            }
            errors.extend(self.command(index, &mut stage, planned, done).err().flatten());
        }
        if let Some(own) = &own {
            own.end(self.lints, &stage);
        }
        stage
    }

    /// kiln's own checks of a stage, if any of them may fire.
    fn own_checks(&self, index: usize) -> Option<own::StageChecks<'a>> {
        let plans = self.plans;
        let plan = &plans.stages[index];
        let comments = plan.commands.iter().map(|planned| planned.command.comments.as_slice());
        let comments = comments.chain([plan.from.comments.as_slice()]).filter(|comments| !comments.is_empty());
        if !self.lints.wants_own(comments) {
            return None;
        }
        let base = match &plan.base {
            Origin::Stage(_) => own::Base::Stage,
            Origin::Outside(outside) if outside.context.is_some() || outside.kind == Kind::Scratch => own::Base::Other,
            Origin::Outside(outside) => own::Base::Image(outside.written.clone()),
        };
        Some(own::StageChecks {
            from: &plan.from,
            base,
            commands: plan.commands.iter().map(|planned| planned.command.as_ref()).collect(),
            is_shipped: self.shipped.contains(&index),
            is_built_on: plans.stages.iter().any(|other| other.base == Origin::Stage(index)),
            globals: self.declared,
            source: self.source,
        })
    }

    fn command(
        &mut self,
        index: usize,
        stage: &mut OpenStage,
        planned: &PlannedCommand,
        done: &Done,
    ) -> Result<(), Option<Diagnostic>> {
        // Most mounts have no `from=`.
        let count = planned.origins.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let mut trees = Vec::with_capacity(count);
        for (position, origin) in planned.origins[..count].iter().enumerate() {
            let tree = match origin {
                None => None,
                Some(Origin::Outside(outside)) => {
                    if let (Some(info), Some((_, platform))) = (outside.info(self.images), outside.image()) {
                        let place = (planned.command.span, planned.command.comments.as_slice());
                        self.check_platform(place, outside, info, platform);
                    }
                    Some(outside.tree(self.draft, self.images))
                }
                Some(Origin::Stage(other)) => match done.roots.get(other).filter(|_| *other < index) {
                    Some(root) => Some(self.stage_tree(*other, *root)),
                    None => return Err(Some(self.too_early(index, *other, planned, position))),
                },
            };
            trees.push(tree);
        }
        let mut at = Lowering {
            stage,
            draft: self.draft,
            lints: self.lints,
            settings: self.settings,
            command: &planned.command,
            trees,
            expanded: Expanded::default(),
        };
        planned.command.instruction.lower(&mut at).map_err(|error| {
            let is_consequence = at.expanded.lacks_value.get();
            at.stage.lost.extend(variables(&planned.command.instruction));
            let error = match planned.command.is_trigger {
                true => triggers::with_text(error, &planned.command.text),
                false => error,
            };
            Some(error).filter(|_| !is_consequence)
        })
    }

    fn stage_tree(&self, index: usize, root: Option<Edge>) -> Tree {
        let plan = &self.plans.stages[index];
        let from_client = plan.replaced_by.as_ref().is_some_and(|outside| outside.kind == Kind::Local);
        Tree { edge: root, label: plan.label(), from_client }
    }

    /// A stage can only be read by those after it.
    fn too_early(&self, index: usize, other: usize, planned: &PlannedCommand, position: usize) -> Diagnostic {
        let (here, there) = (&self.plans.stages[index], &self.plans.stages[other]);
        let message = match &planned.command.instruction {
            Instruction::Run(run) => {
                let from = run.mounts.get(position).and_then(|mount| mount.from.as_deref()).unwrap_or_default();
                let target = run.mounts.get(position).and_then(|mount| mount.target_written()).unwrap_or_default();
                let rule = "stage needs to be defined before current command";
                format!("cannot mount from stage {from:?} to {target:?}, {rule}")
            }
            _ => format!(
                "cannot copy from stage {:?}, it needs to be defined before current stage {:?}",
                there.shown, here.shown
            ),
        };
        let name = names_read(&planned.command.instruction).nth(position).flatten();
        let error = Diagnostic::error(message, planned.command.span);
        let error = name.into_iter().fold(error, |error, name| error.label(name.span(), ""));
        let place = there.from.name_written.as_ref().map_or(there.from.span, |name| name.span());
        error.label(place, "defined here").help("move that stage above this one")
    }

    /// The stage as FROM leaves it.
    fn open(&mut self, plan: &StagePlan, done: &mut Done) -> OpenStage {
        let mut stage = match &plan.base {
            Origin::Stage(base) => self.on_stage(plan, done.base(*base)),
            Origin::Outside(outside) => self.on_outside(plan, outside),
        };
        if plan.lost == Lost::Unknown {
            stage.lost = Lost::Unknown;
        }
        if plan.replaced_by.is_some() {
            return stage;
        }
        let config = &mut stage.config.config;
        if stage.image_env.get("PATH").is_none() && stage.platform.os != "windows" {
            stage.image_env.set("PATH", DEFAULT_PATH);
        }
        if !config.working_dir.is_empty() && !config.working_dir.starts_with('/') {
            config.working_dir = path::clean(&config.working_dir);
        }
        // Where both a variable of the image and an inherited argument have a name, the image's counts.
        for variable in stage.image_env.variables() {
            stage.env.set_variable(variable.clone());
        }
        stage
    }

    fn on_stage(&self, plan: &StagePlan, base: Option<OpenStage>) -> OpenStage {
        // Every base stage comes earlier in the file and is reachable with its user.
        let mut stage = base.unwrap_or_else(|| empty_stage(&self.settings.target));
        stage.config.config.on_build.clear();
        (stage.cmd, stage.entrypoint, stage.healthcheck) = (None, None, None);
        self.set_names(plan, &mut stage);
        stage
    }

    fn on_outside(&mut self, plan: &StagePlan, outside: &Outside) -> OpenStage {
        let scratch_platform = &self.settings.target;
        let platform = match outside.kind {
            // An empty tree is of the platform that is asked for, whatever FROM --platform says.
            Kind::Scratch if outside.context.is_none() => scratch_platform,
            _ => plan.platform.as_ref().unwrap_or(&self.settings.target),
        };
        let info = outside.info(self.images);
        let mut stage = match info {
            Some(info) => image_stage(platform, info),
            None => empty_stage(platform),
        };
        self.set_names(plan, &mut stage);
        if let Some(info) = info {
            stage.config.history.reserve(plan.commands.len());
            if plan.replaced_by.is_some() {
                stage.platform = config_platform(&stage.config).map_or(stage.platform, Arc::new);
            } else {
                let place = (plan.from.span, plan.from.comments.as_slice());
                self.check_platform(place, outside, info, &stage.platform);
            }
        }
        stage.step_index = usize::from(has_from_step(&plan.base, self.images));
        let (settings, named) = (self.settings, &stage);
        let name = |info: &ImageInfo| numbered(named, settings, ["FROM ", &outside.pinned_name(info)]);
        let root = outside.edge(self.draft, self.images, name);
        OpenStage { root, ..stage }
    }

    fn check_platform(&self, place: (Span, &[String]), outside: &Outside, info: &ImageInfo, expected: &Platform) {
        // What is asked for is in its normal form, and so is what is written the same.
        if expected.os == info.config.os && expected.architecture == info.config.architecture {
            return;
        }
        let is_known = info.is_read() && outside.context.is_none() && !is_empty(info);
        if let (Some(actual), true) = (config_platform(&info.config), is_known) {
            lint::invalid_base_image_platform(self.lints, place, &outside.written, expected, &actual);
        }
    }

    fn set_names(&self, plan: &StagePlan, stage: &mut OpenStage) {
        stage.name = plan.shown.clone();
        stage.ignore_cache = self.settings.ignores_cache(plan.from.name.as_deref());
        let steps = plan.commands.iter().filter(|planned| counts_as_step(&planned.command)).count();
        stage.step_total = steps + usize::from(has_from_step(&plan.base, self.images));
        stage.step_index = 0;
    }
}

/// The variables that an instruction sets.
fn variables(instruction: &Instruction) -> Vec<String> {
    match instruction {
        Instruction::Env(env) => env.pairs.pairs.iter().map(|pair| pair.name.to_string()).collect(),
        Instruction::Arg(arg) => arg.declarations.iter().map(|arg| arg.name.to_string()).collect(),
        _ => vec![],
    }
}

/// Whether an instruction counts in the 5 of `[2/5]`. As in BuildKit, every ONBUILD trigger does, also one that makes no
/// step.
fn counts_as_step(command: &Command) -> bool {
    command.instruction.makes_step() || command.is_trigger
}

/// `FROM scratch`.
fn empty_stage(platform: &Platform) -> OpenStage {
    let mut config = ImageConfig {
        architecture: platform.architecture.clone(),
        os: platform.os.clone(),
        os_version: platform.os_version.clone(),
        variant: platform.variant.clone(),
        rootfs: RootFs::default(),
        ..ImageConfig::default()
    };
    config.config.working_dir = "/".to_string();
    let mut image_env = Environment::default();
    if platform.os != "windows" {
        image_env.set("PATH", DEFAULT_PATH);
    }
    new_stage(platform, config, image_env)
}

/// `FROM` an image.
fn image_stage(platform: &Platform, info: &ImageInfo) -> OpenStage {
    let mut config = ImageConfig { created: None, ..info.config.clone() };
    config.config.on_build.clear();
    let image_env = Environment::from_list_in_place(&config.config.env);
    let lost = if info.is_read() { Lost::Nothing } else { Lost::Unknown };
    OpenStage { lost, base_history_len: config.history.len(), ..new_stage(platform, config, image_env) }
}

fn new_stage(platform: &Platform, config: ImageConfig, image_env: Environment) -> OpenStage {
    OpenStage {
        image_env,
        name: String::new(),
        platform: Arc::new(platform.clone()),
        root: None,
        config,
        env: Environment::default(),
        args: DeclaredArgs::default(),
        lost: Lost::Nothing,
        base_history_len: 0,
        cmd: None,
        entrypoint: None,
        healthcheck: None,
        workdir_is_set: false,
        notes: own::Notes::default(),
        parameters: Parameters::default(),
        ignore_cache: false,
        step_index: 0,
        step_total: 0,
    }
}

/// What an image says that it is for; `None` if it says nothing.
fn config_platform(config: &ImageConfig) -> Option<Platform> {
    let platform = Platform {
        os: config.os.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os_version: config.os_version.clone(),
    };
    (!platform.os.is_empty() && !platform.architecture.is_empty()).then(|| normalised(platform))
}

fn normalised(platform: Platform) -> Platform {
    let text = platform.to_string();
    Platform::parse(&text, &platform).unwrap_or(platform)
}

/// The image of the target stage: labels of the client last, and the platform that was asked for.
fn finish(stage: OpenStage, settings: &Settings<'_>) -> PlannedImage {
    let mut config = stage.config;
    // What a base image says in its own way stays as it is.
    if Environment::from_list_in_place(&config.config.env) != stage.image_env {
        config.config.env = stage.image_env.to_list();
    }
    config.config.labels.extend(settings.request.labels.clone());
    let target = &settings.target;
    if !settings.request.platforms.is_empty() {
        let same = target.os == config.os && target.architecture == config.architecture;
        config.os = target.os.clone();
        config.architecture = target.architecture.clone();
        if !same || !target.variant.is_empty() {
            config.variant = target.variant.clone();
        }
        if !same || !target.os_version.is_empty() {
            config.os_version = target.os_version.clone();
        }
    }
    let mut platform = target.clone();
    if let Some(actual) = config_platform(&config) {
        config.variant = actual.variant.clone();
        if settings.request.platforms.is_empty() {
            platform = actual;
        }
    }
    PlannedImage { platform, root: stage.root, config, base_history_len: stage.base_history_len, scans: vec![] }
}
