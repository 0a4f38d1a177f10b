//! `kiln manifest`: images of several platforms joined in a registry, and what a name there stands for.

use super::{Cli, exit, online, printed};
use crate::manifest::join::Wishes;
use crate::manifest::publish::{self, Order};
use crate::manifest::{ManifestError, inspect, source};
use crate::progress::chain;
use crate::progress::render::Mode;
use anyhow::{Context, Result, bail};
use clap::{Args, Subcommand};
use frontend::platform::Platform;
use std::io::{self, Write};

/// The command.
#[derive(Args)]
pub struct ManifestArgs {
    #[command(subcommand)]
    command: ManifestCommand,
}

#[derive(Subcommand)]
enum ManifestCommand {
    /// Join images, such as those of several machines for a platform each, to one under one name
    Create(CreateArgs),
    /// Show what a name in a registry stands for
    Inspect(InspectArgs),
}

#[derive(Args)]
struct CreateArgs {
    /// Name to be given to the result
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
    /// Images to join; sha256:… is one in the repository of the result
    #[arg(value_name = "SOURCE", required = true)]
    sources: Vec<String>,
    /// Add to what the name stands for now; images for the same platforms are replaced
    #[arg(long)]
    append: bool,
    /// Print the result, and push nothing
    #[arg(long)]
    dry_run: bool,
    /// Annotation of the index, or of the entries of images where TYPE is manifest-descriptor
    #[arg(long = "annotation", value_name = "[TYPE[[PLATFORM]]:]NAME=VALUE")]
    annotations: Vec<String>,
    /// Only images for these platforms
    #[arg(short, long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<String>,
    /// Make an index of one image, too; false copies it as it is
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1,
          default_missing_value = "true", require_equals = true)]
    prefer_index: bool,
    /// How progress is shown: auto, plain, tty, rawjson, quiet, none
    #[arg(long, value_name = "MODE", default_value = "auto", env = "BUILDKIT_PROGRESS")]
    progress: String,
}

#[derive(Args)]
struct InspectArgs {
    /// Image
    name: String,
    /// Print the index or manifest as it is stored
    #[arg(long, conflicts_with = "format")]
    raw: bool,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = ["text", "json"])]
    format: String,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &ManifestArgs) -> Result<u8> {
    match &args.command {
        ManifestCommand::Create(args) => create(cli, args),
        ManifestCommand::Inspect(args) => inspect(cli, args),
    }
}

fn create(cli: &Cli, args: &CreateArgs) -> Result<u8> {
    let mode = online::mode(&args.progress)?;
    let order = order(args)?;
    let registry = online::registry(&online::config(cli)?, online::patience());
    if args.dry_run {
        let made =
            online::run(Mode::None, registry, |_, registry| async move { publish::make(&registry, &order).await })?;
        return match made {
            Ok(made) => print(&made.bytes),
            Err(error) => Ok(failed(&error)),
        };
    }
    let target = order.target.clone();
    let created = online::run(mode, registry, |progress, registry| async move {
        let vertex = progress.task(&format!("pushing {}", order.target));
        vertex.finish(publish::create(&registry, &order, &vertex).await)
    })?;
    match created {
        Ok(digest) => print(target.with_digest(digest.as_str()).to_string().as_bytes()),
        Err(error) => Ok(failed(&error)),
    }
}

fn inspect(cli: &Cli, args: &InspectArgs) -> Result<u8> {
    let name = online::reference(&args.name)?;
    let registry = online::registry(&online::config(cli)?, online::patience());
    let shown = online::run(Mode::None, registry, |_, registry| async move {
        let source = source::read(&registry, &name).await?;
        Ok(match args.format.as_str() {
            _ if args.raw => source.document.bytes,
            "json" => {
                let json = inspect::json(&registry, &source).await?;
                serde_json::to_string_pretty(&json).expect("JSON is plain data").into_bytes()
            }
            _ => inspect::text(&source).trim_end().to_string().into_bytes(),
        })
    })?;
    match shown {
        Ok(bytes) if args.raw => printed(io::stdout().lock().write_all(&bytes)),
        Ok(bytes) => print(&bytes),
        Err(error) => Ok(failed(&error)),
    }
}

fn print(bytes: &[u8]) -> Result<u8> {
    let mut out = io::stdout().lock();
    printed(out.write_all(bytes).and_then(|()| out.write_all(b"\n")))
}

fn failed(error: &ManifestError) -> u8 {
    online::say_failure(&chain(error), error.help());
    exit::FAILURE
}

fn order(args: &CreateArgs) -> Result<Order> {
    let target = online::reference(&args.target)?;
    if target.digest.is_some() {
        bail!("{}: the result is given a name, not a digest: leave `@sha256:…` out", args.target);
    }
    let source = |text: &String| match text.parse::<cache::digest::Digest>() {
        Ok(digest) => Ok(target.with_digest(digest.as_str())),
        Err(_) => online::reference(text),
    };
    let sources = args.sources.iter().map(source).collect::<Result<Vec<_>>>()?;
    let platforms = args.platforms.iter().map(|text| platform(text)).collect::<Result<Vec<_>>>()?;
    let mut wishes = Wishes { platforms, ..Wishes::default() };
    for text in &args.annotations {
        annotation(text, &mut wishes)?;
    }
    Ok(Order { target, sources, append: args.append, prefer_index: args.prefer_index, wishes })
}

fn platform(text: &str) -> Result<Platform> {
    Platform::parse(text, &crate::host_platform()).with_context(|| format!("--platform {text}"))
}

/// `[TYPE[[PLATFORM]]:]NAME=VALUE`, of the types that there are without a build.
fn annotation(text: &str, wishes: &mut Wishes) -> Result<()> {
    let (key, value) = text.split_once('=').with_context(|| format!("--annotation {text}: it must be NAME=VALUE"))?;
    let (kind, name) = key.split_once(':').unwrap_or(("index", key));
    if name.is_empty() {
        bail!("--annotation {text}: the name is empty");
    }
    let (kind, of) = match kind.split_once('[') {
        None => (kind, None),
        Some((kind, of)) => (kind, Some(platform(of.trim_end_matches(']'))?)),
    };
    match (kind, of) {
        ("index", None) => drop(wishes.on_index.insert(name.to_string(), value.to_string())),
        ("manifest-descriptor", of) => wishes.on_entries.push((of, name.to_string(), value.to_string())),
        ("index", Some(_)) => bail!("--annotation {text}: an index has no platform"),
        (other, _) => {
            bail!("--annotation {text}: `{other}` is neither index nor manifest-descriptor: manifests stay as they are")
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations() {
        let check = |text: &str| {
            let mut wishes = Wishes::default();
            annotation(text, &mut wishes).map(|()| (wishes.on_index, wishes.on_entries))
        };
        assert_eq!(check("a.b=c=d").unwrap().0["a.b"], "c=d");
        assert_eq!(check("index:a=").unwrap().0["a"], "");
        let (_, entries) = check("manifest-descriptor[linux/arm64]:a=b").unwrap();
        assert_eq!(entries, [(Some(platform("linux/arm64").unwrap()), "a".to_string(), "b".to_string())]);
        for bad in ["a", "=b", "manifest:a=b", "index[linux/arm64]:a=b", "manifest-descriptor[x/y/z/w]:a=b"] {
            assert!(check(bad).is_err(), "{bad}");
        }
    }
}
