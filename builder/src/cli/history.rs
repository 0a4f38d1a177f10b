//! `kiln history`: former builds, listed, shown and forgotten.

use super::filter::duration;
use super::{Cli, open_store};
use crate::explain::{Why, when};
use crate::history::{self, BuildRecord, Status};
use crate::sandbox::userns::Identity;
use crate::time::parse_rfc3339;
use anyhow::{Context, Result, bail};
use cache::ledger::now_ms;
use clap::{Args, Subcommand};
use std::io::{self, Write};

/// The command.
#[derive(Args, Debug)]
pub struct HistoryArgs {
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Subcommand, Debug)]
enum HistoryCommand {
    /// List builds, the newest first
    Ls(LsArgs),
    /// Show what a build was asked for, what its steps did, and what came of it
    Show(ShowArgs),
    /// Forget builds and the output of their steps; what they built stays in the cache
    Rm(RmArgs),
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Only builds of which all of this holds: status=completed|failed|canceled|killed|running, tag=TEXT, context=TEXT,
    /// target=TEXT, id=BEGINNING, since=24h
    #[arg(long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// At most that many
    #[arg(short = 'n', long, value_name = "N")]
    limit: Option<usize>,
    /// How it is printed; json is an object a line
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

#[derive(Args, Debug)]
struct ShowArgs {
    /// Build, by its id or the beginning or end of it, or `latest` (default)
    build: Option<String>,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Builds, by their ids or the beginnings or ends of them
    #[arg(required_unless_present = "all")]
    builds: Vec<String>,
    /// All that have ended
    #[arg(long, conflicts_with = "builds")]
    all: bool,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &HistoryArgs, identity: &Identity) -> Result<u8> {
    let store = open_store(cli, identity)?;
    let mut out = io::stdout().lock();
    let printed = match &args.command {
        HistoryCommand::Ls(args) => {
            let filters = filters(&args.filters)?;
            let mut builds = history::list(&store)?;
            builds.reverse();
            builds.retain(|build| filters.iter().all(|filter| filter.matches(build)));
            builds.truncate(args.limit.unwrap_or(usize::MAX));
            match args.format.as_str() {
                "json" => builds.iter().try_for_each(|build| json(&mut out, build)),
                _ => table(&mut out, &builds),
            }
        }
        HistoryCommand::Show(args) => {
            let (_, build) = history::find(&store, args.build.as_deref())?;
            match args.format.as_str() {
                "json" => {
                    serde_json::to_writer_pretty(&mut out, &build).map_err(io::Error::from).and_then(|()| writeln!(out))
                }
                _ => show(&mut out, &build),
            }
        }
        HistoryCommand::Rm(args) => {
            let mut ids = vec![];
            if args.all {
                let ended = history::list(&store)?.into_iter().filter(|build| build.status != Status::Running);
                ids.extend(ended.map(|build| build.id));
            }
            for build in &args.builds {
                ids.push(history::find(&store, Some(build))?.1.id);
            }
            for id in &ids {
                if !history::forget(&store, id)? {
                    bail!("build {id} still runs; stop it first");
                }
                writeln!(out, "{id}")?;
            }
            Ok(())
        }
    };
    super::printed(printed)
}

/// One condition of `--filter`.
enum Filter {
    Status(Status),
    Tag(String),
    Context(String),
    Target(String),
    Id(String),
    /// Milliseconds since 1970.
    Since(i64),
}

fn filters(texts: &[String]) -> Result<Vec<Filter>> {
    let known = "status, tag, context, target, id, since";
    let parse = |text: &str| {
        let Some((field, value)) = text.split_once('=') else {
            bail!("--filter {text}: write FIELD=VALUE with one of the fields {known}");
        };
        Ok(match field {
            "status" => {
                let all = [Status::Running, Status::Completed, Status::Failed, Status::Canceled, Status::Killed];
                let named = all.into_iter().find(|status| status.word() == value);
                let words = all.map(Status::word).join(", ");
                Filter::Status(named.with_context(|| format!("--filter {text}: a status is one of {words}"))?)
            }
            "tag" => Filter::Tag(value.to_string()),
            "context" => Filter::Context(value.to_string()),
            "target" => Filter::Target(value.to_string()),
            "id" => Filter::Id(value.to_string()),
            "since" => {
                let since =
                    duration(value).with_context(|| format!("--filter {text}: since takes a duration such as 24h"))?;
                Filter::Since(now_ms() - since.as_millis() as i64)
            }
            _ => bail!("--filter {text}: there is no field `{field}`; there are {known}"),
        })
    };
    texts.iter().flat_map(|text| text.split(',')).filter(|text| !text.is_empty()).map(parse).collect()
}

impl Filter {
    fn matches(&self, build: &BuildRecord) -> bool {
        let about = &build.about;
        match self {
            Filter::Status(status) => build.status == *status,
            Filter::Tag(text) => about.tags.iter().any(|tag| tag.contains(text)),
            Filter::Context(text) => about.context.contains(text),
            Filter::Target(text) => about.target == *text,
            Filter::Id(text) => build.id.starts_with(text),
            Filter::Since(ms) => parse_rfc3339(&build.started).is_none_or(|started| started >= *ms),
        }
    }
}

fn json(out: &mut dyn Write, build: &BuildRecord) -> io::Result<()> {
    serde_json::to_writer(&mut *out, build)?;
    writeln!(out)
}

/// Steps with a key that were found, and all of them.
fn hits(build: &BuildRecord) -> (usize, usize) {
    let keyed = build.steps.iter().filter(|step| step.why.is_some());
    (keyed.clone().filter(|step| step.outcome == "cached").count(), keyed.count())
}

fn table(out: &mut dyn Write, builds: &[BuildRecord]) -> io::Result<()> {
    writeln!(out, "{:23} {:10} {:>8} {:>8}  WHAT", "BUILD", "STATUS", "TIME", "CACHED")?;
    for build in builds {
        let (cached, all) = hits(build);
        let cached = if build.steps.is_empty() { "-".to_string() } else { format!("{cached}/{all}") };
        let (id, status, what) = (&build.id, build.status.word(), build.about.line());
        writeln!(out, "{id:23} {status:10} {:>8} {cached:>8}  {what}", seconds(build.duration_ms))?;
    }
    Ok(())
}

fn seconds(ms: Option<u64>) -> String {
    ms.map_or("-".to_string(), super::explain::seconds)
}

fn show(out: &mut dyn Write, build: &BuildRecord) -> io::Result<()> {
    let about = &build.about;
    writeln!(out, "Build:      {}", build.id)?;
    writeln!(out, "Status:     {}", build.status.word())?;
    writeln!(out, "Started:    {}", parse_rfc3339(&build.started).map_or(build.started.clone(), when))?;
    writeln!(out, "Time:       {}", seconds(build.duration_ms))?;
    writeln!(out, "Context:    {}", about.context)?;
    let platforms = about.platforms.join(", ");
    let fields = [
        ("Dockerfile:", &about.file),
        ("Target:", &about.target),
        ("Platforms:", &platforms),
        ("Tags:", &about.tags.join(", ")),
    ];
    for (name, value) in fields.into_iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:11} {value}")?;
    }
    for (number, (name, value)) in about.build_args.iter().enumerate() {
        writeln!(out, "{:11} {name}={value}", if number == 0 { "Arguments:" } else { "" })?;
    }
    for name in ["containerimage.digest", "containerimage.config.digest"] {
        if let Some(digest) = build.result.get(name).and_then(|value| value.as_str()) {
            let label = if name == "containerimage.digest" { "Digest:" } else { "Image ID:" };
            writeln!(out, "{label:11} {digest}")?;
        }
    }
    if let Some(error) = &build.error {
        writeln!(out, "Error:      {error}")?;
    }
    if let Some(why_not) = history::has_no_steps(build) {
        return writeln!(out, "\n{why_not}");
    }
    let (cached, all) = hits(build);
    writeln!(out, "\nSteps ({cached} of {all} cached):")?;
    for step in &build.steps {
        writeln!(out, "  {}", super::explain::line(step))?;
        if let Some(reason) = step.why.as_ref().and_then(Why::line) {
            writeln!(out, "                 {reason}")?;
        }
        if !step.error.is_empty() {
            writeln!(out, "                 {}", step.error)?;
        }
    }
    if build.steps.iter().any(|step| step.log.is_some()) {
        writeln!(out, "\n`kiln logs {}` has what they wrote", build.id)?;
    }
    Ok(())
}
