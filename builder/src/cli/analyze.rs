//! `kiln analyze`: what is in the layers of an image, and what of it is wasted.

use super::image::{advised, platform, with_maker};
use super::{Cli, exit, open_store};
use crate::analyze::account::{Account, Analysis, Change, ChangeKind};
use crate::analyze::layers;
use crate::analyze::rules::{Rules, Verdict};
use crate::local::load;
use crate::local::record::{self, LocalError};
use crate::progress::track::bytes;
use crate::sandbox::isolation::Rights;
use crate::source::image::{ImageSource, blocking};
use crate::source::oci_layout::Layout;
use anyhow::{Context, Result, bail};
use cache::images::ImageRecord;
use cache::store::Store;
use cache::tree::Tree;
use clap::Args;
use frontend::compile::{ImageLocation, ImageRequest};
use frontend::image_config::ImageConfig;
use frontend::platform::Platform;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Wasted paths in the table.
const WASTED_SHOWN: usize = 20;

/// Flags of the command.
#[derive(Args, Debug)]
pub struct AnalyzeArgs {
    /// A named image of kiln's store, an archive (of docker save or an OCI layout), or the folder of an OCI layout, with
    /// :TAG at its end if it has several images
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Rules for CI, as in a .dive-ci file: lowestEfficiency, highestWastedBytes, highestUserWastedPercent
    #[arg(long, value_name = "FILE")]
    rules: Option<PathBuf>,
    /// Every path that each layer adds, changes or removes
    #[arg(long)]
    contents: bool,
    /// How it is printed
    #[arg(long, value_name = "FORMAT", default_value = "table", value_parser = ["table", "json"])]
    format: String,
    /// Platform, if the image has several; the machine's own by default
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
}

/// Runs the command; gives the program's exit code: that of failure if a rule is broken.
pub fn run(cli: &Cli, args: &AnalyzeArgs, rights: &Rights) -> Result<u8> {
    // What is wrong with them is said before anything is read.
    let rules = args.rules.as_ref().map(|path| {
        let text = std::fs::read_to_string(path).with_context(|| format!("could not read {}", path.display()))?;
        Rules::parse(&text).with_context(|| format!("{}", path.display()))
    });
    let rules = rules.transpose()?.unwrap_or_default();
    let wanted = platform(args.platform.as_ref())?;
    let store = open_store(cli, &rights.identity)?;
    let subject = find(&store, &args.image)?;
    let analysis = with_maker(cli, &store, rights, "reading layers", async |maker| {
        let (tree, config) = match subject {
            Subject::Record(name, record) => {
                let image = record::chosen(&name, &record, wanted.as_ref())?;
                (image.layers.iter().cloned().collect(), record::config_of(&name, image)?)
            }
            Subject::Layout(layout) => of_layout(&store, &maker.images, layout, wanted.as_ref()).await?,
        };
        let mut account = Account::default();
        for (at, created_by) in (0..tree.layers().len()).zip(created_by(&config, tree.layers().len())) {
            if layers::needs_fetching(&store, &tree, at)? {
                let one = Tree::from_iter([tree.layers()[at].clone()]);
                maker.images.ensure_blobs(&one, maker.vertex).await?;
            }
            let (store, tree) = (store.clone(), tree.clone());
            account.layer(created_by, blocking(move || layers::entries(&store, &tree, at)).await?);
        }
        Ok(account.finish())
    })?;
    let verdicts = rules.judge(&analysis);
    let mut out = io::stdout().lock();
    let printed = match args.format.as_str() {
        "json" => json(&mut out, &analysis, &verdicts, args.contents),
        _ => table(&mut out, &analysis, &verdicts, args.contents),
    };
    let failed = verdicts.iter().any(|verdict| !verdict.passes);
    super::printed(printed).map(|code| if failed { exit::FAILURE } else { code })
}

/// What is analysed.
enum Subject {
    Record(String, ImageRecord),
    Layout(Layout),
}

fn find(store: &Store, text: &str) -> Result<Subject> {
    let path = Path::new(text.strip_prefix("oci-layout://").unwrap_or(text));
    let is_written_as_path = text.starts_with(['/', '.']) || text.starts_with("oci-layout://");
    if !is_written_as_path && let Ok(image) = record::find_whole(store, text) {
        return Ok(Subject::Record(image.name, image.record));
    }
    if path.is_file() {
        let file = File::open(path).with_context(|| format!("could not open {}", path.display()))?;
        let origin = format!("analysed, from {}", path.display());
        let mut loaded = advised(load::load(store, file, &origin, &|_| {}).map_err(LocalError::from))?;
        return match loaded.len() {
            1 => Ok(Subject::Record(text.into(), loaded.remove(0).record)),
            count => bail!("{text} has {count} images; load it (kiln image load) and analyze one by its name"),
        };
    }
    let text = path.to_string_lossy();
    let (folder, tag) = match text.rsplit_once(':') {
        Some((folder, tag)) if !path.is_dir() && !tag.contains('/') => (Path::new(folder), Some(tag.to_string())),
        _ => (path, None),
    };
    if folder.join("index.json").is_file() {
        let path = std::path::absolute(folder).with_context(|| format!("could not find {}", folder.display()))?;
        return Ok(Subject::Layout(Layout { path, name: tag }));
    }
    match record::find_whole(store, &text) {
        Ok(image) => Ok(Subject::Record(image.name, image.record)),
        Err(LocalError::NoImage(_) | LocalError::Name { .. }) => {
            bail!("{text} is neither an image of kiln's store (kiln image ls), nor an archive, nor an OCI layout")
        }
        Err(error) => advised(Err(error)),
    }
}

async fn of_layout(
    store: &Store,
    images: &ImageSource,
    layout: Layout,
    wanted: Option<&Platform>,
) -> Result<(Tree, ImageConfig), LocalError> {
    let images = ImageSource::new(images.registry(), store.clone(), [(String::new(), layout)].into());
    let platform = wanted.cloned().unwrap_or_else(crate::host_platform);
    let source = ImageLocation::OciLayout(String::new());
    let request = ImageRequest { source: source.clone(), platform, span: None, word: None, name: String::new() };
    let info = images.info(&request).await?;
    Ok((images.tree(&source, &info.digest).await?, info.config))
}

/// What each layer was made by.
fn created_by(config: &ImageConfig, layers: usize) -> Vec<String> {
    let entries = config.history.iter().filter(|entry| !entry.empty_layer);
    let mut texts: Vec<String> =
        entries.map(|entry| entry.created_by.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    texts.resize(layers, String::new());
    texts
}

fn table(out: &mut dyn Write, analysis: &Analysis, verdicts: &[Verdict], contents: bool) -> io::Result<()> {
    writeln!(out, "{:>4} {:>10} {:>7} {:>7} {:>7}  CREATED BY", "", "SIZE", "ADDED", "CHANGED", "REMOVED")?;
    for (number, layer) in analysis.layers.iter().enumerate() {
        let by: String = layer.created_by.chars().take(80).collect();
        let (size, number) = (bytes(layer.bytes), number + 1);
        writeln!(out, "{number:>4} {size:>10} {:>7} {:>7} {:>7}  {by}", layer.added, layer.changed, layer.removed)?;
        if contents {
            layer.changes.iter().try_for_each(|change| writeln!(out, "{}", line(change)))?;
        }
    }
    writeln!(out, "\nTotal:      {}", bytes(analysis.total_bytes))?;
    writeln!(out, "Visible:    {}", bytes(analysis.visible_bytes))?;
    writeln!(out, "Wasted:     {}", bytes(analysis.wasted_bytes))?;
    writeln!(out, "Efficiency: {:.2} %", (analysis.efficiency * 10_000.0).floor() / 100.0)?;
    if !analysis.wasted.is_empty() {
        writeln!(out, "\n{:>10} {:>6}  WASTED PATH", "SIZE", "COPIES")?;
        for wasted in analysis.wasted.iter().take(WASTED_SHOWN) {
            writeln!(out, "{:>10} {:>6}  /{}", bytes(wasted.bytes), wasted.copies, wasted.path)?;
        }
        if let Some(more) = analysis.wasted.len().checked_sub(WASTED_SHOWN).filter(|more| *more > 0) {
            writeln!(out, "{:>10} {:>6}  and {more} more", "", "")?;
        }
    }
    if !verdicts.is_empty() {
        writeln!(out)?;
    }
    for Verdict { rule, passes, text } in verdicts {
        writeln!(out, "{}  {rule}: {text}", if *passes { "PASS" } else { "FAIL" })?;
    }
    Ok(())
}

/// A path of a layer, indented by how deep it is.
fn line(change: &Change) -> String {
    let sign = match change.kind {
        ChangeKind::Added => '+',
        ChangeKind::Changed => '~',
        ChangeKind::Removed => '-',
    };
    let (folder, name) = change.path.rsplit_once('/').unwrap_or(("", &change.path));
    let depth = if folder.is_empty() { 0 } else { folder.matches('/').count() + 1 };
    let size = if change.is_folder && change.bytes == 0 { String::new() } else { bytes(change.bytes) };
    let slash = if change.is_folder { "/" } else { "" };
    // Not by a width of the format, which must not be as large as an archive can make it.
    format!("{sign:>4} {size:>10} {}{name}{slash}", "  ".repeat(depth))
}

fn json(out: &mut dyn Write, analysis: &Analysis, verdicts: &[Verdict], contents: bool) -> io::Result<()> {
    let mut shown = serde_json::to_value(analysis)?;
    if !contents {
        for layer in shown["layers"].as_array_mut().into_iter().flatten() {
            layer.as_object_mut().map(|layer| layer.remove("changes"));
        }
    }
    shown["user_wasted"] = json!(analysis.user_wasted());
    shown["rules"] = serde_json::to_value(verdicts)?;
    serde_json::to_writer_pretty(&mut *out, &shown)?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_indented_however_deep_they_are() {
        let check = |path: &str, expect: &str| {
            let change = Change { path: path.into(), kind: ChangeKind::Added, is_folder: false, bytes: 7 };
            assert_eq!(line(&change), expect, "{}", path.len());
        };
        check("f", "   +         7B f");
        check("a/b/f", "   +         7B     f");
        check(&format!("{}f", "d/".repeat(40_000)), &format!("   +         7B {}f", "  ".repeat(40_000)));
    }
}
