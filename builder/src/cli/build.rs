//! `kiln build`: opens the store, runs the pipeline, and tells how it went.

use super::build_args::BuildArgs;
use super::options::{BuildOptions, ContextArg, FileArg};
use super::{Cli, exit, failure, online, open_store, plan, say_remarks};
use crate::call::{self, Answered};
use crate::cancel::Cancel;
use crate::export::{ExportError, Response};
use crate::forecast::{self, Foretold};
use crate::history::{About, BuildLog, Ending, Status};
use crate::local::keep::Kept;
use crate::pipeline::{self, BuildError, BuildIdentity, Built, World};
use crate::progress::Progress;
use crate::progress::render::{self, Mode, Summary};
use crate::registry::Registry;
use crate::report::{self, Detail};
use crate::sandbox::isolation::{Isolation, Rights};
use crate::stage_shell::{self, Stage};
use crate::step::exec_shell::Attached;
use anyhow::{Context, Result};
use cache::store::Store;
use frontend::git_url::redacted;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &BuildArgs, rights: Rights) -> Result<u8> {
    let purpose = if args.dry_run { Purpose::Foretell(plan::Format::Text) } else { Purpose::Build };
    run_purpose(cli, args, purpose, rights)
}

/// What a build is for.
#[derive(Clone, Copy)]
pub(super) enum Purpose<'a> {
    /// What its flags say.
    Build,
    /// Saying what it would do.
    Foretell(plan::Format),
    /// Running this command in the result; a shell, if it is empty.
    Enter(&'a [String]),
}

impl Purpose<'_> {
    /// Whether an answer is all that is asked for, which leaves nothing to look up later.
    fn is_question(self, options: &BuildOptions) -> bool {
        options.call.is_some() || matches!(self, Purpose::Foretell(_))
    }
}

/// As [`run`].
pub(super) fn run_purpose(cli: &Cli, args: &BuildArgs, purpose: Purpose<'_>, rights: Rights) -> Result<u8> {
    let host = crate::host_platform();
    let environment = |name: &str| std::env::var(name).ok();
    let options = args.options(&host, &environment).and_then(|options| match purpose {
        Purpose::Build => Ok(options),
        Purpose::Foretell(_) => options.for_plan(),
        Purpose::Enter(command) => options.for_shell(command),
    });
    let mut options = match options {
        Ok(options) => options,
        Err(error) => {
            eprintln!("ERROR: {}", crate::progress::chain(&error));
            return Ok(exit::FAILURE);
        }
    };
    if let (Some(remark), false) = (&options.vcs.remark, is_quiet(&options)) {
        eprintln!("WARNING: {remark}");
    }
    let wants_shell = options.on_failure.opens_shell() || matches!(purpose, Purpose::Enter(_));
    if let (Isolation::Chroot { refused }, true) = (&rights.isolation, wants_shell) {
        let why = refused.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
        eprintln!("ERROR: no shell can be opened in a step that is isolated by chroot alone{why}");
        eprintln!("help: run kiln where it may create namespaces and mounts");
        return Ok(exit::FAILURE);
    }
    let is_question = purpose.is_question(&options);
    // A stale digest must not outlive a failed build.
    if let (Some(iidfile), false) = (&options.iidfile, is_question) {
        let _ = std::fs::remove_file(iidfile);
    }
    let (store, registry) = open(cli, &mut options, is_question, &rights)?;
    let begun = SystemTime::now();
    let log = if is_question { None } else { Some(BuildLog::begin(&store, about(&options))?) };
    let (sender, receiver) = std::sync::mpsc::channel();
    let progress = Progress::new(sender);
    registry.tell(&progress);
    let renderer = render::spawn(progress_mode(&options, is_question), receiver, progress.gate());
    let world = World {
        store: store.clone(),
        registry,
        progress,
        cancel: Cancel::default(),
        host,
        identity: rights.identity,
        isolation: rights.isolation,
        logs: log.as_ref().map(|log| log.folder().to_path_buf()).unwrap_or_default(),
        build: BuildIdentity { id: log.as_ref().map(|log| log.id().to_string()).unwrap_or_default(), begun },
    };
    let result = act(&options, purpose, world)?;
    let summary = renderer.join().unwrap_or_default();
    if let Err(error) = store.settle() {
        eprintln!("WARNING: what this build used is not written down: {}", crate::progress::chain(&error));
    }
    say_remarks(&store);
    if let Some(log) = log {
        remember(log, &result, &summary);
    }
    match result {
        Ok(Outcome::Built(built)) => conclude(&options, &built),
        Ok(Outcome::Answered(answered)) => say(&options, &answered),
        Ok(Outcome::Foretold(foretold, format)) => plan::say(&foretold, format),
        Ok(Outcome::Stage(stage)) => enter(&options, &stage),
        Err(error) => {
            let look = failure::look();
            let warnings = failure::warnings(&error, detail(&options), look).filter(|_| !is_quiet(&options));
            eprint!("{}{}", warnings.unwrap_or_default(), failure::text(&error, &summary, look));
            Ok(match error {
                BuildError::Canceled => exit::CANCELED,
                BuildError::Export(ExportError::NotPushed(_)) => exit::NOT_PUSHED,
                _ => exit::FAILURE,
            })
        }
    }
}

/// Opens what builds work with, as the configuration says.
fn open(cli: &Cli, options: &mut BuildOptions, is_question: bool, rights: &Rights) -> Result<(Store, Registry)> {
    let config = online::config(cli)?;
    options.checks = config.checks.clone();
    let store = open_store(cli, &rights.identity)?;
    if let Isolation::Chroot { .. } = rights.isolation {
        crate::sandbox::rootfs::merge_in(store.scratch_dir()?);
    }
    if let Some(limits) = config.gc.limits(options.keep_storage, &store.disk()?) {
        store.set_limits(limits);
    }
    let mut policy = online::patience();
    if is_question {
        // An answer without some base is better than one that comes late.
        policy = policy.at_most(2);
    }
    Ok((store, online::registry(&config, policy)))
}

/// Does what the build is for, on threads of its own.
fn act(options: &BuildOptions, purpose: Purpose<'_>, world: World) -> Result<Result<Outcome, BuildError>> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    let result = runtime.block_on(async {
        let world = world;
        cancel_on_signals(world.cancel.clone());
        match (&options.call, purpose) {
            (Some(call), _) => call::answer(call, options, &world).await.map(Outcome::Answered),
            (None, Purpose::Build) => pipeline::build(options, &world).await.map(Outcome::Built),
            (None, Purpose::Foretell(format)) => {
                forecast::foretell(options, &world).await.map(|foretold| Outcome::Foretold(foretold, format))
            }
            (None, Purpose::Enter(command)) => {
                stage_shell::build(options, command, &world).await.map(|stage| Outcome::Stage(Box::new(stage)))
            }
        }
    });
    // What a dropped build left running must not write to the store after this process has said its last word.
    runtime.shutdown_timeout(std::time::Duration::from_secs(5));
    Ok(result)
}

/// What was asked for.
enum Outcome {
    Built(Built),
    Answered(Answered),
    Foretold(Foretold, plan::Format),
    Stage(Box<Stage>),
}

/// Runs a command or a shell in a stage; gives its exit code.
fn enter(options: &BuildOptions, stage: &Stage) -> Result<u8> {
    if !is_quiet(options) {
        eprint!("{}", report::warnings(&stage.source, &stage.warnings, detail(options), failure::look().colour));
    }
    let streams = [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()];
    let to = if streams == [true; 3] { Attached::Terminal } else { Attached::Streams };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("start threads")?;
    Ok(match runtime.block_on(stage.enter(to)) {
        Ok(code) => u8::try_from(code).unwrap_or(exit::FAILURE),
        Err(error) => {
            eprintln!("ERROR: {}", crate::progress::chain(&error));
            exit::FAILURE
        }
    })
}

/// Progress of a question is only shown to those who watch: its answer says all.
fn progress_mode(options: &BuildOptions, is_question: bool) -> Mode {
    let watched = std::io::stderr().is_terminal();
    match options.progress.parse().unwrap_or(Mode::Auto) {
        Mode::Auto if is_question && !watched => Mode::None,
        mode => mode,
    }
}

fn is_quiet(options: &BuildOptions) -> bool {
    matches!(options.progress.as_str(), "quiet" | "none" | "rawjson")
}

fn detail(options: &BuildOptions) -> Detail {
    if options.debug { Detail::Full } else { Detail::Short }
}

/// Writes an answer.
fn say(options: &BuildOptions, answered: &Answered) -> Result<u8> {
    // A reader that has seen enough (`| head`) is no failure.
    let _ = std::io::Write::write_all(&mut std::io::stdout(), answered.output.as_bytes());
    eprint!("{}", answered.remarks);
    if let Some(path) = &options.metadata_file {
        let text = serde_json::to_string_pretty(&answered.metadata).context("write metadata")?;
        write_aside(path, text.as_bytes())?;
    }
    Ok(answered.status)
}

/// What the history says of the build.
fn about(options: &BuildOptions) -> About {
    let text = |path: &Path| path.display().to_string();
    About {
        context: match &options.context {
            ContextArg::Directory(path) => text(path),
            ContextArg::Stdin => "-".to_string(),
            ContextArg::Git(_, shown) => shown.clone(),
            ContextArg::Http(url) => redacted(url),
        },
        file: match &options.file {
            None => String::new(),
            Some(FileArg::Path(path)) => text(path),
            Some(FileArg::Stdin) => "-".to_string(),
            Some(FileArg::Url(url)) => redacted(url),
        },
        target: options.target.clone().unwrap_or_default(),
        tags: options.tags.iter().map(|tag| tag.familiar()).collect(),
        platforms: options.platforms.iter().map(|platform| platform.to_string()).collect(),
        build_args: options.build_args.clone(),
    }
}

/// Writes the build into the history. What cannot be written there does not change how the build went.
fn remember(log: BuildLog, result: &Result<Outcome, BuildError>, summary: &Summary) {
    let result_of = |outcome: &Outcome| match outcome {
        Outcome::Built(built) => built.response.clone(),
        Outcome::Answered(_) | Outcome::Foretold(..) | Outcome::Stage(_) => Response::new(),
    };
    let ending = match result {
        Ok(outcome) => Ending { status: Status::Completed, error: None, result: result_of(outcome) },
        Err(BuildError::Canceled) => Ending { status: Status::Canceled, error: None, result: Response::new() },
        Err(error) => {
            let error = Some(crate::progress::chain(error));
            Ending { status: Status::Failed, error, result: Response::new() }
        }
    };
    if let Err(error) = log.finish(ending, summary) {
        eprintln!("WARNING: the history of this build is lost: {}", crate::progress::chain(&error));
    }
}

/// Writes the files that were asked for, and says what happened.
fn conclude(options: &BuildOptions, built: &Built) -> Result<u8> {
    let digest = |key: &str| built.response.get(key).and_then(|value| value.as_str()).map(str::to_string);
    let named = match &built.kept {
        Kept::Named { id, .. } => Some(id.to_string()),
        Kept::Exported | Kept::Cached => None,
    };
    let image_id = digest("containerimage.config.digest").or_else(|| digest("containerimage.digest")).or(named);
    if let (Some(iidfile), Some(id)) = (&options.iidfile, &image_id) {
        write_aside(iidfile, id.as_bytes())?;
    }
    if let Some(path) = &options.metadata_file {
        let metadata: Response =
            built.response.iter().chain(&built.metadata).map(|(k, v)| (k.clone(), v.clone())).collect();
        let text = serde_json::to_string_pretty(&metadata).context("write metadata")?;
        write_aside(path, text.as_bytes())?;
    }
    if options.progress == "quiet" {
        println!("{}", image_id.unwrap_or_default());
    }
    if !is_quiet(options) {
        eprint!("{}", report::warnings(&built.source, &built.warnings, detail(options), failure::look().colour));
        eprint!("{}", report::unused_args(&built.unused_args));
        eprint!("{}", built.kept);
    }
    Ok(exit::SUCCESS)
}

/// Writes a file whole or not at all, mode 0644.
pub(super) fn write_aside(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let parent = path.parent().filter(|parent| *parent != Path::new("")).map_or(PathBuf::from("."), Path::to_path_buf);
    let mut aside = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o644))
        .tempfile_in(&parent)
        .with_context(|| format!("create a file in {}", parent.display()))?;
    std::io::Write::write_all(aside.as_file_mut(), bytes).with_context(|| format!("write {}", path.display()))?;
    aside.persist(path).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

/// The first signal stops the build and lets it clean up, the third ends the program at once. Signals are caught from
/// when this returns, before anything is begun that has to be cleaned up. In a tokio runtime.
pub(super) fn cancel_on_signals(cancel: Cancel) {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return;
    };
    tokio::spawn(async move {
        for count in 1.. {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            cancel.cancel();
            if count == 3 {
                crate::terminal::restore();
                std::process::exit(i32::from(exit::FAILURE));
            }
        }
    });
}
