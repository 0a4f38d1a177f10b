//! `kiln manifest`: images of several platforms joined in a registry, and what a name there stands for.

use super::build::write_aside;
use super::{Cli, exit, online, printed};
use crate::manifest::join::{Entry, Wishes};
use crate::manifest::publish::{self, Order};
use crate::manifest::source::{self, Wanted};
use crate::manifest::{ManifestError, inspect};
use crate::progress::chain;
use crate::progress::render::Mode;
use anyhow::{Context, Result, bail};
use cache::digest::Digest;
use clap::{Args, Subcommand};
use frontend::platform::Platform;
use frontend::reference::Reference;
use serde_json::json;
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Of a file with a source, in bytes.
const SOURCE_LIMIT: u64 = 1 << 20;

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
    #[arg(value_name = "SOURCE", required_unless_present = "files")]
    sources: Vec<String>,
    /// Source in a file, before the others: a name, a digest, or an OCI descriptor of an image in the repository of the
    /// result, whose platform and annotations are those of its entry
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Write descriptor and name of the result into a file, as JSON
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run")]
    metadata_file: Option<PathBuf>,
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
        Ok(descriptor) => {
            if let Some(path) = &args.metadata_file {
                let metadata = json!({ "containerimage.descriptor": descriptor, "image.name": target.repository() });
                let text = serde_json::to_string_pretty(&metadata).expect("JSON is plain data");
                write_aside(path, text.as_bytes())?;
            }
            print(target.with_digest(descriptor.digest.as_str()).to_string().as_bytes())
        }
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
    let mut sources = vec![];
    for path in &args.files {
        let text = small_file(path)?;
        sources.push(source(text.trim(), &target).with_context(|| format!("--file {}", path.display()))?);
    }
    for text in &args.sources {
        sources.push(source(text, &target)?);
    }
    let platforms = args.platforms.iter().map(|text| platform(text)).collect::<Result<Vec<_>>>()?;
    let mut wishes = Wishes { platforms, ..Wishes::default() };
    for text in &args.annotations {
        annotation(text, &mut wishes)?;
    }
    Ok(Order { target, sources, append: args.append, prefer_index: args.prefer_index, wishes })
}

/// A digest, a name, or a descriptor.
fn source(text: &str, target: &Reference) -> Result<Wanted> {
    if text.starts_with('{') {
        let descriptor: Entry = serde_json::from_str(text).context("it is no OCI descriptor")?;
        return Ok(Wanted::Described { name: target.with_digest(descriptor.digest.as_str()), descriptor });
    }
    Ok(Wanted::Named(match text.parse::<Digest>() {
        Ok(digest) => target.with_digest(digest.as_str()),
        Err(_) => online::reference(text)?,
    }))
}

fn small_file(path: &Path) -> Result<String> {
    let failed = || format!("cannot read {}", path.display());
    let mut text = String::new();
    let file = File::open(path).with_context(failed)?;
    file.take(SOURCE_LIMIT + 1).read_to_string(&mut text).with_context(failed)?;
    if text.len() as u64 > SOURCE_LIMIT {
        bail!("{}: a file with a source is no larger than {SOURCE_LIMIT} bytes", path.display());
    }
    Ok(text)
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
    fn sources() {
        let target = Reference::parse("example.org/app:1").unwrap();
        let digest = Digest::of(b"");
        let check = |text: &str, expect: &str| {
            let shown = match source(&text.replace("DIGEST", digest.as_str()), &target) {
                Ok(Wanted::Named(name)) => name.to_string(),
                Ok(Wanted::Described { name, descriptor }) => format!("{name} of {}", descriptor.size),
                Err(error) => format!("{error:#}"),
            };
            assert!(shown.contains(&expect.replace("DIGEST", digest.as_str())), "{text}: {shown}");
        };
        check("DIGEST", "example.org/app:1@DIGEST");
        check("busybox", "docker.io/library/busybox:latest");
        check(r#"{"digest":"DIGEST","size":7}"#, "example.org/app:1@DIGEST of 7");
        check(r#"{"size":7}"#, "no OCI descriptor: missing field `digest`");
        check(r#"{"digest":"md5:1"}"#, "no OCI descriptor");
        check("Not A Name", "Not A Name");
    }

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
