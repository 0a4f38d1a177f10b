//! What steps read: outputs of other vertices as trees on disk.

use super::exec::MountSource;
use super::file::{self, digest};
use super::file::{Copies, SourceTree};
use super::{BuildSteps, StepError, StepOutput};
use crate::source::context::ContextDir;
use cache::ledger::About;
use cache::object::{Kind, ObjectId};
use cache::tree::{Layer, SnapshotId, stack};
use frontend::op::{Copy, FileAction, FileOp, InputIndex, Mount, MountKind};
use solver::graph::VertexId;
use solver::key::CacheKey;
use std::path::{Component, Path};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Whether a file op copies from that input.
pub fn is_copied_from(op: &FileOp, input: InputIndex) -> bool {
    op.actions.iter().any(|action| matches!(action, FileAction::Copy(copy) if copy.from == Some(input)))
}

impl BuildSteps {
    /// An input as a tree that can be read.
    pub async fn source_tree(&self, vertex: VertexId, input: &StepOutput) -> Result<SourceTree, StepError> {
        match input {
            StepOutput::Client(context) => Ok(SourceTree::Client(context.clone())),
            StepOutput::Tree(tree) if tree.layers().is_empty() => Ok(SourceTree::Empty),
            StepOutput::Tree(tree) => Ok(SourceTree::Layers(self.fetched(tree, vertex).await?)),
        }
    }

    /// What a mount of a RUN shows, for those that show an input.
    pub async fn mount_source(
        &self,
        vertex: VertexId,
        mount: &Mount,
        inputs: &[StepOutput],
    ) -> Result<Option<MountSource>, StepError> {
        let (from, path) = match &mount.kind {
            MountKind::Bind { from: Some(from), source, .. } => (*from, source.clone()),
            MountKind::Cache { from: Some(from), source, .. } => (*from, source.clone()),
            MountKind::Bind { from: None, .. } | MountKind::Cache { from: None, .. } => return Ok(None),
            MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => return Ok(None),
        };
        let identity = match &inputs[from] {
            StepOutput::Client(context) => context.path().display().to_string(),
            StepOutput::Tree(tree) => tree.content().to_hex(),
        };
        let mut part = None;
        let lowers = match self.source_tree(vertex, &inputs[from]).await? {
            SourceTree::Client(context) => {
                // Only what is shown is copied, so a link would lead nowhere.
                if let Some((path, _)) =
                    file::tree::Tree::open(&SourceTree::Client(context.clone()))?.resolve(path.as_bytes())?
                {
                    part = String::from_utf8(path).ok();
                }
                let layer = self.client_layer(context, part.as_deref().unwrap_or(&path)).await?;
                vec![self.store.snapshots().path(&layer.snapshot)]
            }
            SourceTree::Layers(lowers) => lowers,
            SourceTree::Empty => vec![],
        };
        Ok(Some(MountSource { lowers, part, identity }))
    }

    /// A part of a client's folder as a layer: what .dockerignore leaves of it, owned by root, at its own path. Named by
    /// content, so that it is copied once however often it is mounted.
    pub async fn client_layer(&self, context: Arc<ContextDir>, path: &str) -> Result<Layer, StepError> {
        let path = Path::new("/").join(path);
        let names = path.components().filter(|name| matches!(name, Component::Normal(_)));
        let path = names.collect::<std::path::PathBuf>().to_string_lossy().into_owned();
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || {
            let name = format!("{}\0bind\0{path}", context.path().display());
            let source = SourceTree::Client(context);
            let change = digest::bind_digest(&path, &source, CONTEXT, Some(&store))?;
            let snapshot = SnapshotId(stack(&CacheKey([0; 32]), &format!("client {path} {change}")).to_hex());
            if !store.snapshots().exists(&snapshot) {
                let draft = store.snapshots().prepare()?;
                let op = FileOp {
                    base: None,
                    actions: vec![copy_all(path.clone())],
                    platform: crate::host_platform().into(),
                };
                let copies = Copies::open(&store, &name)?;
                file::apply(&op, &[], &[source], draft.upper(), Some(&copies))?;
                store.snapshots().commit(draft, &snapshot)?;
                copies.finish()?.keep(&store, &snapshot)?;
                let id = ObjectId::new(Kind::Snapshot, &*snapshot.0);
                let description = format!("/{path} of the build context");
                store.describe(id, About { description, category: "source.local" });
            }
            let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64);
            Ok(Layer { snapshot, change, created_ms: Some(now), remote: None })
        })
        .await?
    }
}

/// How messages call a folder of the client.
pub const CONTEXT: &str = "the build context";

/// Copies a path of input 0 to the same path; all of it for an empty one.
fn copy_all(path: String) -> FileAction {
    FileAction::Copy(Box::new(Copy {
        from: Some(0),
        parents: !path.is_empty(),
        source: if path.is_empty() { "/".into() } else { path },
        dest: "/".into(),
        owner: None,
        chmod: None,
        exclude: vec![],
        unpack: false,
        from_client: true,
        link: false,
        source_label: CONTEXT.into(),
    }))
}
