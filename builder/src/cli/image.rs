//! `kiln image`: the images that the store knows by name.

use super::image_text::{self, Filter};
use super::{Cli, online, open_store};
use crate::cancel::Cancel;
use crate::export::image::push_image;
use crate::export::target::Target;
use crate::image::layers::LayerBlobs;
use crate::local::documents::{Extent, Maker};
use crate::local::load;
use crate::local::record::{self, LocalError};
use crate::local::save::{self, ArchiveType};
use crate::progress::render::Mode;
use crate::publish::{self, Failure, PublishError};
use crate::registry::Trust;
use crate::sandbox::isolation::{Isolation, Rights};
use crate::source::image::{ImageError, ImageSource, Places, blocking};
use anyhow::{Context, Result, bail};
use cache::digest::Digest;
use cache::images::{NamedImage, Naming};
use cache::store::Store;
use clap::{Args, Subcommand};
use frontend::platform::Platform;
use frontend::reference::Reference;
use std::fs::File;
use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use tokio::sync::watch;

/// The command.
#[derive(Args, Debug)]
pub struct ImageArgs {
    #[command(subcommand)]
    command: ImageCommand,
}

#[derive(Subcommand, Debug)]
enum ImageCommand {
    /// List images
    #[command(visible_alias = "list")]
    Ls(LsArgs),
    /// Show all about images, as JSON
    Inspect(NamesArgs),
    /// Show what each layer of an image was made by
    History(HistoryArgs),
    /// Give an image another name
    Tag(TagArgs),
    /// Take names from images; what no other name needs is cache from then on
    Rm(RmArgs),
    /// Push images to the registries that their names say
    Push(PushArgs),
    /// Write images into an archive
    Save(SaveArgs),
    /// Read images from an archive: of docker save, podman save, skopeo or kiln, also compressed
    Load(LoadArgs),
}

#[derive(Args, Debug)]
struct LsArgs {
    /// Only what matches: reference=PATTERN (with * and ?), label=KEY[=VALUE], platform=P, since=24h, before=24h
    #[arg(short, long = "filter", value_name = "FILTER")]
    filters: Vec<String>,
    /// How it is printed; json is an object a line
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Ids alone
    #[arg(short, long, conflicts_with = "format")]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
}

#[derive(Args, Debug)]
struct NamesArgs {
    /// Images, by names or the beginnings of ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Only this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

#[derive(Args, Debug)]
struct HistoryArgs {
    /// Image, by name or the beginning of its id
    name: String,
    /// Platform, if the image has several; the machine's own by default
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Whole commands
    #[arg(long)]
    no_trunc: bool,
    /// How it is printed; json is an object a line
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
}

#[derive(Args, Debug)]
struct TagArgs {
    /// Image, by name or the beginning of its id
    source: String,
    /// New name
    name: String,
}

#[derive(Args, Debug)]
struct RmArgs {
    /// Names; the beginning of an id stands for all names of that image
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// Names that no image has are no error
    #[arg(short, long)]
    force: bool,
}

#[derive(Args, Debug)]
struct PushArgs {
    /// Images, by names; `kiln image tag` gives an image the name of another place
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Args, Debug)]
struct SaveArgs {
    /// Images, by names
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
    /// File to write; standard output by default
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Kind of archive: docker is for `docker load` and is an OCI layout, too; oci may hold several platforms
    #[arg(long = "type", value_name = "TYPE", default_value = "docker", value_parser = ["docker", "oci"])]
    kind: String,
    /// Only this platform
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

#[derive(Args, Debug)]
struct LoadArgs {
    /// Archive to read; standard input by default
    #[arg(short, long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Name for the image, in place of those in the archive
    #[arg(short, long, value_name = "NAME")]
    tag: Vec<String>,
    /// Print names alone
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command; gives the program's exit code.
pub fn run(cli: &Cli, args: &ImageArgs, rights: &Rights) -> Result<u8> {
    let store = open_store(cli, &rights.identity)?;
    let mut out = io::stdout().lock();
    let printed = match &args.command {
        ImageCommand::Ls(args) => {
            let filters = args.filters.iter().map(|text| Filter::parse(text)).collect::<Result<Vec<_>>>()?;
            let mut images = store.images()?;
            images.retain(|image| filters.iter().all(|filter| filter.matches(image)));
            let sizes = image_text::sizes(&store, &images)?;
            match (args.quiet, args.format.as_str()) {
                (true, _) => image_text::ids(&mut out, &images, args.no_trunc),
                (false, "json") => image_text::list_json(&mut out, &images, &sizes),
                (false, _) => image_text::list(&mut out, &images, &sizes, args.no_trunc),
            }
        }
        ImageCommand::Inspect(args) => {
            let wanted = platform(args.platform.as_ref())?;
            let found = args.names.iter().map(|name| record::find(&store, name)).collect::<Result<Vec<_>, _>>();
            let shown = advised(image_text::inspect(&store, &advised(found)?, wanted.as_ref()))?;
            serde_json::to_writer_pretty(&mut out, &shown).map_err(io::Error::from).and_then(|()| writeln!(out))
        }
        ImageCommand::History(args) => {
            let image = advised(record::find(&store, &args.name))?;
            let wanted = platform(args.platform.as_ref())?;
            let of_platform = advised(record::chosen(&image.name, &image.record, wanted.as_ref()))?;
            let lines = advised(image_text::history(&store, &image.name, of_platform))?;
            match args.format.as_str() {
                "json" => image_text::history_json(&mut out, &lines),
                _ => image_text::history_table(&mut out, &lines, args.no_trunc),
            }
        }
        ImageCommand::Tag(args) => {
            let image = advised(record::find(&store, &args.source))?;
            let name = reference(&args.name)?;
            let naming = store.name_image(&name.to_string(), &image.record)?;
            say_moved(&name, &naming);
            Ok(())
        }
        ImageCommand::Rm(args) => remove(&store, args, &mut out)?,
        ImageCommand::Push(args) => {
            drop(out);
            let (pushed, failures) = push(cli, &store, args, rights)?;
            settle(&store)?;
            return super::push::conclude(&pushed, failures);
        }
        ImageCommand::Save(args) => {
            drop(out);
            save(cli, &store, args, rights)?;
            Ok(())
        }
        ImageCommand::Load(args) => load_archive(cli, &store, args, rights, &mut out)?,
    };
    settle(&store)?;
    super::printed(printed)
}

fn settle(store: &Store) -> Result<()> {
    store.settle()?;
    super::say_remarks(store);
    Ok(())
}

/// The error with what can be done about it.
pub(super) fn advised<T>(result: Result<T, LocalError>) -> Result<T> {
    result.map_err(|error| match error.help() {
        Some(help) => anyhow::anyhow!("{}\nhelp: {help}", crate::progress::chain(&error)),
        None => error.into(),
    })
}

pub(super) fn platform(text: Option<&String>) -> Result<Option<Platform>> {
    let parse = |text: &String| {
        Platform::parse(text, &crate::host_platform()).with_context(|| format!("--platform {text}: no platform"))
    };
    text.map(parse).transpose()
}

fn reference(name: &str) -> Result<Reference> {
    let reference = Reference::parse(name).with_context(|| format!("`{name}` is no name of an image"))?;
    match &reference.digest {
        Some(_) => bail!("`{name}` has a digest: a name for an image is NAME or NAME:TAG"),
        None => Ok(reference),
    }
}

fn say_moved(name: &Reference, naming: &Naming) {
    if let Naming::Moved(id) = naming {
        let name = name.familiar();
        eprintln!("{name} was image {} before, which is cache now unless it has another name", &id.hex()[..12]);
    }
}

fn remove(store: &Store, args: &RmArgs, out: &mut dyn Write) -> Result<io::Result<()>> {
    // All are looked for before one goes.
    let mut names: Vec<String> = vec![];
    for name in &args.names {
        match record::find(store, name) {
            Ok(image) => {
                let is_name = Reference::parse(name).is_ok_and(|name| record::stored_name(&name) == image.name);
                let all = store.images()?.into_iter().filter(|other| other.id == image.id).map(|other| other.name);
                names.extend(if is_name { vec![image.name] } else { all.collect() });
            }
            Err(LocalError::NoImage(_)) if args.force => {}
            Err(error) => return advised(Err(error)),
        }
    }
    for name in names {
        store.unname_image(&name)?;
        if let Err(error) = writeln!(out, "Untagged: {}", image_text::familiar(&name)) {
            return Ok(Err(error));
        }
    }
    Ok(Ok(()))
}

fn save(cli: &Cli, store: &Store, args: &SaveArgs, rights: &Rights) -> Result<()> {
    let target = match &args.output {
        None if io::stdout().is_terminal() => bail!("standard output is a terminal: give -o FILE, or redirect it"),
        None => Target::Stdout,
        Some(path) if path.is_dir() => bail!("{} is a folder, and a file is needed", path.display()),
        Some(path) => Target::File(path.clone()),
    };
    let mut images: Vec<NamedImage> = vec![];
    for name in &args.names {
        let image = advised(record::find_whole(store, name))?;
        if !images.contains(&image) {
            images.push(image);
        }
    }
    let kind = if args.kind == "oci" { ArchiveType::Oci } else { ArchiveType::Docker };
    let wanted = platform(args.platform.as_ref())?;
    with_maker(cli, store, rights, "saving images", async |maker: Maker<'_>| {
        save::save(&images, kind, wanted.as_ref(), &target, &maker).await
    })
}

/// Gives what was pushed, as NAME@DIGEST, and what was not, and is kept as what a build could not push.
fn push(cli: &Cli, store: &Store, args: &PushArgs, rights: &Rights) -> Result<(Vec<String>, Vec<Failure>)> {
    let found = args.names.iter().map(|name| record::find_whole(store, name)).collect::<Result<Vec<_>, _>>();
    let images: Vec<NamedImage> = advised(found)?;
    with_maker(cli, store, rights, "pushing images", async |maker: Maker<'_>| {
        let (mut pushed, mut failures) = (vec![], vec![]);
        for image in &images {
            let name = Reference::parse(&image.name)
                .map_err(|source| LocalError::Name { name: image.name.clone(), source })?;
            let (made, assembled) = maker.documents(&image.name, &image.record, None, Extent::All).await?;
            let push = push_image(&assembled, true, &maker.export(&made))?;
            // A name with a digest has no tag, and is pushed by the digest.
            let name = Reference { digest: None, ..name };
            let line = format!("{}@{}", name.familiar(), assembled.top().digest);
            let place = publish::Target { name, trust: Trust::AsConfigured };
            match publish::publish(&maker.images, store, &push, &[place], maker.vertex).await {
                Ok(()) => pushed.push(line),
                Err(PublishError::NotPushed(error)) => failures.extend(error.failures),
                Err(PublishError::Image(error)) => return Err(ImageError::Shared(error).into()),
                Err(PublishError::Store(error)) => return Err(error.into()),
            }
        }
        Ok((pushed, failures))
    })
}

/// Runs what makes documents of images, with progress on standard error.
pub(super) fn with_maker<T>(
    cli: &Cli,
    store: &Store,
    rights: &Rights,
    name: &str,
    work: impl AsyncFnOnce(Maker<'_>) -> Result<T, LocalError>,
) -> Result<T> {
    let config = online::config(cli)?;
    if let Some(limits) = config.gc.limits(None, &store.disk()?) {
        store.set_limits(limits);
    }
    if let Isolation::Chroot { .. } = rights.isolation {
        crate::sandbox::rootfs::merge_in(store.scratch_dir()?);
    }
    let registry = online::registry(&config, online::patience());
    // Quiet unless somebody watches: what was done is seen in the result.
    let mode = if io::stderr().is_terminal() { Mode::Auto } else { Mode::None };
    let result = online::run(mode, registry, |progress, registry| async move {
        let cancel = Cancel::default();
        super::build::cancel_on_signals(cancel.clone());
        let vertex = progress.task(name);
        let images = ImageSource::with_places(registry, store.clone(), Places::default());
        let maker = Maker { store, blobs: LayerBlobs::new(store.clone()), images, vertex: &vertex };
        let result = tokio::select! {
            result = work(maker) => Some(result),
            () = cancel.canceled() => None,
        };
        result.map(|result| vertex.finish(result))
    })?;
    match result {
        Some(result) => advised(result),
        None => bail!("canceled"),
    }
}

fn load_archive(
    cli: &Cli,
    store: &Store,
    args: &LoadArgs,
    rights: &Rights,
    out: &mut dyn Write,
) -> Result<io::Result<()>> {
    let tags = args.tag.iter().map(|name| reference(name)).collect::<Result<Vec<_>>>()?;
    let (input, total, origin): (Box<dyn Read + Send>, u64, String) = match &args.input {
        Some(path) => {
            let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
            let total = file.metadata().map_or(0, |meta| meta.len());
            (Box::new(file), total, format!("loaded from {}", path.display()))
        }
        None if io::stdin().is_terminal() => bail!("standard input is a terminal: give -i FILE, or pipe an archive"),
        None => (Box::new(io::stdin()), 0, "loaded from standard input".into()),
    };
    let loaded = with_maker(cli, store, rights, "loading images", async |maker: Maker<'_>| {
        let (store, (sender, mut read)) = (store.clone(), watch::channel(0));
        let loading = blocking(move || load::load(&store, input, &origin, &|bytes| _ = sender.send_replace(bytes)));
        // Not from the thread: it may wait for standard input when all else has ended, and progress ends with its vertices.
        let telling = async {
            while read.changed().await.is_ok() {
                maker.vertex.status("reading the archive", *read.borrow_and_update(), total);
            }
        };
        let (loaded, ()) = tokio::join!(loading, telling);
        Ok(loaded?)
    })?;
    if tags.is_empty() && loaded.iter().any(|image| image.names.is_empty()) {
        bail!("the archive gives no name for its image: say --tag NAME");
    }
    if !tags.is_empty() && loaded.len() > 1 {
        bail!("the archive has {} images, and --tag names one", loaded.len());
    }
    for image in loaded {
        if image.left_out > 0 {
            let what = "left out of the archive's index, which are neither images nor whole attestations of them";
            eprintln!("WARNING: entries {what}: {}", image.left_out);
        }
        let id: Digest = image.record.id();
        let names = if tags.is_empty() { &image.names } else { &tags };
        for name in names {
            let naming = store.name_image(&record::stored_name(name), &image.record)?;
            say_moved(name, &naming);
            let printed = match args.quiet {
                true => writeln!(out, "{}", name.familiar()),
                false => writeln!(out, "Loaded image: {} ({})", name.familiar(), &id.hex()[..12]),
            };
            if printed.is_err() {
                return Ok(printed);
            }
        }
    }
    store.sync()?;
    Ok(Ok(()))
}
