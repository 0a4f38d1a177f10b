//! What a step depends on: the recipe of its key, from the op and from the contents of what it reads.
//!
//! Contents are digests of what a step selects, not of whole inputs, so that a COPY whose files did not change hits
//! however else the context or the stage it copies from did. A digest of a selection in layers is remembered under the
//! content of those layers, so a warm build computes none and fetches nothing.

use super::inputs::CONTEXT;
use super::{BuildSteps, Context, StepError, StepOutput, file};
use cache::tree::Tree;
use file::digest;
use file::{FileError, SourceTree};
use frontend::compile::ImageLocation;
use frontend::op::{Copy, Exec, FileAction, FileOp, MountKind, Op, Source};
use solver::graph::VertexId;
use solver::key::{CacheKey, KeyRecipe};
use solver::step::Plan;
use std::sync::Arc;

/// Implements [`solver::step::Steps::plan`].
pub async fn plan(steps: &BuildSteps, vertex: VertexId, inputs: &[StepOutput]) -> Result<Plan<StepOutput>, StepError> {
    let op = &steps.graph.value(vertex).op;
    match op {
        Op::Source(source) => Ok(Plan::Known(source_output(steps, vertex, source).await?)),
        Op::Merge => Ok(Plan::Known(merge(inputs)?)),
        Op::File(file) => {
            let mut recipe = op.recipe();
            file_inputs(steps, vertex, file, inputs, &mut recipe).await?;
            Ok(Plan::Keyed(recipe))
        }
        Op::Exec(exec) => {
            let mut recipe = op.recipe();
            exec_inputs(steps, vertex, exec, inputs, &mut recipe).await?;
            Ok(Plan::Keyed(recipe))
        }
    }
}

async fn source_output(steps: &BuildSteps, vertex: VertexId, source: &Source) -> Result<StepOutput, StepError> {
    let tree = match source {
        Source::Local { name } => {
            let context = steps.contexts.get(name).expect("the pipeline opens every context that a plan names");
            let context = match context {
                Context::Directory(context) => context,
                Context::Layer(layer) => return Ok(StepOutput::Tree(Arc::new(Tree::from_iter([layer.clone()])))),
            };
            if steps.rooted.contains(&vertex) {
                let layer = steps.client_layer(context.clone(), "/").await?;
                return Ok(StepOutput::Tree(Arc::new(Tree::from_iter([layer]))));
            }
            return Ok(StepOutput::Client(context.clone()));
        }
        Source::Image { reference, digest, .. } => {
            steps.images.tree(&ImageLocation::Registry(reference.clone()), digest).await?
        }
        Source::OciLayout { name, digest, .. } => {
            steps.images.tree(&ImageLocation::OciLayout(name.clone()), digest).await?
        }
        Source::Git(_) | Source::Http { .. } => {
            let vertex = &steps.vertices[vertex.0 as usize];
            let fetched = steps.remotes.fetch(source, vertex).await.map_err(StepError::remote)?;
            fetched.map(|fetched| fetched.layer).into_iter().collect()
        }
    };
    Ok(StepOutput::Tree(Arc::new(tree)))
}

/// All layers of all inputs, first input lowest.
fn merge(inputs: &[StepOutput]) -> Result<StepOutput, StepError> {
    let mut layers = vec![];
    for input in inputs {
        match input {
            StepOutput::Tree(tree) => layers.extend(tree.layers().iter().cloned()),
            StepOutput::Client(context) => return Err(StepError::ClientRoot(context.path().display().to_string())),
        }
    }
    Ok(StepOutput::Tree(Arc::new(layers.into_iter().collect())))
}

async fn file_inputs(
    steps: &BuildSteps,
    vertex: VertexId,
    op: &FileOp,
    inputs: &[StepOutput],
    recipe: &mut KeyRecipe,
) -> Result<(), StepError> {
    if let Some(base) = op.base {
        recipe.push("base", content(&inputs[base])?.to_hex());
    }
    for (i, action) in op.actions.iter().enumerate() {
        if let FileAction::Copy(copy) = action {
            let digest = match copy.from {
                Some(from) => copied(steps, vertex, copy, &inputs[from]).await?,
                None => digest::digest(copy, &SourceTree::Empty, None)?,
            };
            recipe.push(format!("copied {i}"), digest);
        }
    }
    Ok(())
}

/// Digest of what a COPY selects.
async fn copied(steps: &BuildSteps, vertex: VertexId, copy: &Copy, input: &StepOutput) -> Result<String, StepError> {
    let copy = copy.clone();
    match input {
        StepOutput::Client(context) => {
            let (context, store) = (context.clone(), steps.store.clone());
            let digest = move || digest::digest(&copy, &SourceTree::Client(context), Some(&store));
            Ok(tokio::task::spawn_blocking(digest).await??)
        }
        StepOutput::Tree(tree) => {
            let selector = format!("copy {}", serde_json::to_string(&copy).expect("a copy is plain data"));
            let store = steps.store.clone();
            selected(steps, vertex, tree, selector, move |source| digest::digest(&copy, source, Some(&store))).await
        }
    }
}

/// A digest of something in layers: remembered, or computed from the unpacked layers.
async fn selected(
    steps: &BuildSteps,
    vertex: VertexId,
    tree: &Arc<Tree>,
    selector: String,
    digest: impl FnOnce(&SourceTree) -> Result<String, FileError> + Send + 'static,
) -> Result<String, StepError> {
    let content = tree.content();
    let known = match steps.store.selection(&content, &selector)? {
        None => steps.cache.imports.selection(&content, &selector),
        known => known,
    };
    if let Some(digest) = known {
        steps.cache.exports.selection(&content, &selector, &digest);
        return Ok(digest);
    }
    let source = steps.source_tree(vertex, &StepOutput::Tree(tree.clone())).await?;
    let digest = tokio::task::spawn_blocking(move || digest(&source)).await??;
    steps.store.put_selection(&content, &selector, &digest)?;
    steps.cache.exports.selection(&content, &selector, &digest);
    Ok(digest)
}

async fn exec_inputs(
    steps: &BuildSteps,
    vertex: VertexId,
    op: &Exec,
    inputs: &[StepOutput],
    recipe: &mut KeyRecipe,
) -> Result<(), StepError> {
    if let Some(root) = op.root {
        recipe.push("root", content(&inputs[root])?.to_hex());
    }
    for mount in &op.mounts {
        let (from, path) = match &mount.kind {
            MountKind::Bind { from: Some(from), source, .. } => (*from, source),
            MountKind::Cache { from: Some(from), source, .. } => (*from, source),
            MountKind::Bind { from: None, .. } | MountKind::Cache { from: None, .. } => continue,
            MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => continue,
        };
        let digest = bound(steps, vertex, path.clone(), &inputs[from]).await?;
        recipe.push(format!("mounted {}", mount.target), digest);
    }
    Ok(())
}

/// Digest of what a mount shows.
async fn bound(steps: &BuildSteps, vertex: VertexId, path: String, input: &StepOutput) -> Result<String, StepError> {
    match input {
        StepOutput::Client(context) => {
            let (context, store) = (context.clone(), steps.store.clone());
            let source = SourceTree::Client(context);
            let digest = move || digest::bind_digest(&path, &source, CONTEXT, Some(&store));
            Ok(tokio::task::spawn_blocking(digest).await??)
        }
        StepOutput::Tree(tree) => {
            let selector = format!("bind {path}");
            let store = steps.store.clone();
            let digest =
                move |source: &SourceTree| digest::bind_digest(&path, source, "the mounted stage", Some(&store));
            selected(steps, vertex, tree, selector, digest).await
        }
    }
}

/// Content id of a whole input.
fn content(input: &StepOutput) -> Result<CacheKey, StepError> {
    match input {
        StepOutput::Tree(tree) => Ok(tree.content()),
        StepOutput::Client(context) => Err(StepError::ClientRoot(context.path().display().to_string())),
    }
}
