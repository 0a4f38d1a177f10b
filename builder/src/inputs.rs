//! What a build reads before it can plan: the Dockerfile, the build context, and the .dockerignore that applies
//! (reference/dockerfile.md 6). Contexts that come from URLs are sources of the graph; they are solved here already, for
//! the Dockerfile in them, and found again when the graph of the whole build is.

use crate::cli::options::{BuildOptions, ContextArg, FileArg};
use crate::pipeline::{BuildError, Tools, World};
use crate::progress::Vertex;
use crate::source::context::{ContextDir, is_context_archive, load_ignore_file};
use crate::source::dockerfile::{self, DockerfileText};
use crate::step::file::unpack_stream;
use crate::step::{Context, StepOutput, commit};
use cache::checksum::NO_HINT;
use cache::tree::Tree;
use frontend::compile::{HttpBody, MainContext};
use frontend::git_url::redacted;
use frontend::ignore::Ignore;
use frontend::span::SourceText;
use std::fs::File;
use std::io::{BufReader, Cursor, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How much of a file tells whether it is an archive.
const START_BYTES: u64 = 1024;

/// Dockerfile and main context.
pub struct Inputs {
    pub text: DockerfileText,
    pub main: MainContext,
    /// `None` for one that comes from a URL, which is a source of the graph.
    pub context: Option<Context>,
    /// Text of the .dockerignore that applies. Archives and what comes from URLs are taken as they are.
    pub ignore_file: Option<String>,
    /// The progress vertex that the Dockerfile was read in; warnings about it belong there.
    pub definition: Vertex,
}

/// Reads them.
pub(crate) async fn load(tools: &Tools<'_>) -> Result<Inputs, BuildError> {
    let (options, world) = (tools.options, tools.world);
    let file = match &options.file {
        Some(FileArg::Url(url)) => Some(dockerfile_at(url, tools).await?),
        Some(FileArg::Stdin) => Some(definition(world, || dockerfile::read_stdin(std::io::stdin().lock()))?),
        Some(FileArg::Path(_)) | None => None,
    };
    match &options.context {
        ContextArg::Directory(folder) => directory(folder, options, file, world),
        ContextArg::Stdin => stdin(options, file, world).await,
        ContextArg::Git(source, shown) => {
            let main = MainContext::Git { source: source.clone(), shown: shown.clone() };
            from_folder(tools, main, file).await
        }
        ContextArg::Http(url) => http(url, file, tools).await,
    }
}

/// A Dockerfile, and the vertex that it was read in.
type Definition = (DockerfileText, Vertex);

/// Reads a Dockerfile in a vertex of its own.
fn definition<E>(world: &World, read: impl FnOnce() -> Result<DockerfileText, E>) -> Result<Definition, E>
where
    E: std::error::Error,
{
    let vertex = world.progress.task("[internal] load build definition from Dockerfile");
    let text = vertex.finish(read())?;
    vertex.status_done("transferring dockerfile:", text.source.text.len() as u64, 0);
    Ok((text, vertex))
}

/// The Dockerfile that a URL names (reference/engine.md 1.1).
async fn dockerfile_at(url: &str, tools: &Tools<'_>) -> Result<Definition, BuildError> {
    let shown = redacted(url);
    let vertex = tools.world.progress.task(&format!("[internal] load build definition from {shown}"));
    let fetched = tools.remotes.http.text(url, dockerfile::URL_LIMIT_BYTES).await;
    let bytes = vertex.finish(fetched).map_err(|error| BuildError::remote(error.into()))?;
    Ok((dockerfile::from_bytes(&shown, bytes), vertex))
}

/// A folder of the client, seen through its .dockerignore. `file` is a Dockerfile that comes from elsewhere.
fn directory(
    folder: &Path,
    options: &BuildOptions,
    file: Option<Definition>,
    world: &World,
) -> Result<Inputs, BuildError> {
    let (text, definition) = match file {
        Some(file) => file,
        None => definition(world, || dockerfile::read(folder, options.file.as_ref()))?,
    };
    let vertex = world.progress.task("[internal] load .dockerignore");
    let found = vertex.finish(load_ignore_file(folder, text.path.as_deref()))?;
    let ignore = match &found {
        None => Ignore::default(),
        Some((path, text)) => {
            Ignore::parse(text).map_err(|source| BuildError::Ignore { path: path.clone(), source })?
        }
    };
    let context = Context::Directory(Arc::new(ContextDir::open(folder, ignore)?));
    let ignore_file = found.map(|(_, text)| text);
    Ok(Inputs { text, main: MainContext::Directory, context: Some(context), ignore_file, definition })
}

/// An archive that comes on standard input is the context. What is no archive is the Dockerfile, with an empty context
/// (reference/dockerfile.md 6.2).
async fn stdin(options: &BuildOptions, file: Option<Definition>, world: &World) -> Result<Inputs, BuildError> {
    let mut start = vec![];
    let mut stdin = BufReader::new(std::io::stdin());
    let read = |source| BuildError::Stdin { source };
    (&mut stdin).take(START_BYTES).read_to_end(&mut start).map_err(read)?;
    let is_archive = is_context_archive(&start);
    let mut whole = Cursor::new(start).chain(stdin);
    if !is_archive {
        if options.file.is_some() {
            return Err(BuildError::TwoDockerfiles);
        }
        let text = || {
            let mut bytes = vec![];
            whole.read_to_end(&mut bytes).map(|_| dockerfile::from_bytes("-", bytes))
        };
        let (text, definition) = definition(world, text).map_err(read)?;
        let empty = ContextDir::open(&world.store.scratch_dir()?, Ignore::default())?;
        let context = Some(Context::Directory(Arc::new(empty)));
        return Ok(Inputs { text, main: MainContext::Directory, context, ignore_file: None, definition });
    }
    let vertex = world.progress.task("[internal] load build context");
    let store = world.store.clone();
    let unpacked = tokio::task::spawn_blocking(move || {
        let draft = store.snapshots().prepare()?;
        unpack_stream(whole, "the build context", draft.upper(), None)
            .map_err(|error| BuildError::Unpack { error: Box::new(error) })?;
        Ok::<_, BuildError>(commit::commit(&store, draft, &Tree::default(), &[], commit::Writer::Copier, NO_HINT)?)
    });
    let layer = vertex.finish(unpacked.await?)?;
    let folder = world.store.snapshots().path(&layer.snapshot);
    let (text, definition) = match file {
        Some(file) => file,
        None => definition(world, || dockerfile::read_fetched(&folder, options.file.as_ref()))?,
    };
    let context = Some(Context::Layer(layer));
    Ok(Inputs { text, main: MainContext::Archive, context, ignore_file: None, definition })
}

/// An archive is the context; anything else is the Dockerfile.
async fn http(url: &str, file: Option<Definition>, tools: &Tools<'_>) -> Result<Inputs, BuildError> {
    let main = MainContext::Http { url: url.to_string(), body: HttpBody::File };
    let path = fetch(tools, &main).await?.join("context");
    let read = |source| BuildError::ReadContext { source };
    let mut start = vec![];
    let opened = File::open(&path).map_err(read)?;
    opened.take(START_BYTES).read_to_end(&mut start).map_err(read)?;
    if is_context_archive(&start) {
        let main = MainContext::Http { url: url.to_string(), body: HttpBody::Archive };
        return from_folder(tools, main, file).await;
    }
    // The name that -f gives is not looked at.
    let (text, definition) = match file {
        Some(file) => file,
        None => {
            let text = || std::fs::read(&path).map(|bytes| dockerfile::from_bytes(&redacted(url), bytes));
            definition(tools.world, text).map_err(read)?
        }
    };
    Ok(Inputs { text, main, context: None, ignore_file: None, definition })
}

/// A context that was fetched as a folder, with a Dockerfile in it.
async fn from_folder(tools: &Tools<'_>, main: MainContext, file: Option<Definition>) -> Result<Inputs, BuildError> {
    let folder = fetch(tools, &main).await?;
    let (text, definition) = match file {
        Some(file) => file,
        None => definition(tools.world, || dockerfile::read_fetched(&folder, tools.options.file.as_ref()))?,
    };
    Ok(Inputs { text, main, context: None, ignore_file: None, definition })
}

/// Has a context that comes from a URL in the store; gives its folder.
async fn fetch(tools: &Tools<'_>, context: &MainContext) -> Result<PathBuf, BuildError> {
    let (graph, target) = context.graph(&tools.world.host);
    let steps = tools.steps(graph, &[target]);
    let nowhere = Arc::new(SourceText { name: String::new(), text: String::new() });
    let outputs = crate::pipeline::solve(&[target], &steps, &nowhere, tools.world).await?;
    let folder = outputs.iter().find_map(|output| match output {
        StepOutput::Tree(tree) => tools.world.store.snapshots().lowers(tree).pop(),
        StepOutput::Client(_) => None,
    });
    Ok(folder.expect("a fetched context is one layer"))
}
