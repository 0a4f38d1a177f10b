//! The build context: the tree that COPY, ADD and mounts read without a `from` (reference/dockerfile.md 6.2).

use crate::draft::Draft;
use crate::git_url::redacted;
use crate::op::{Copy, FileAction, FileOp, GitSource, Op, Source, Step};
use crate::platform::Platform;
use crate::stage::Tree;
use solver::graph::{Edge, Graph, VertexId};
use std::sync::Arc;

/// How messages call it.
const LABEL: &str = "the build context";

/// Where the build context is.
#[derive(Clone, Debug, PartialEq)]
pub enum MainContext {
    /// A directory of the client, seen through its .dockerignore.
    Directory,
    /// The content of an archive that the client got on standard input.
    Archive,
    /// A git repository. `shown` is the argument as given, without passwords.
    Git { source: GitSource, shown: String },
    /// What an HTTP(S) URL gives.
    Http { url: String, body: HttpBody },
}

/// What came from an HTTP(S) URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpBody {
    /// An archive, whose content is the context.
    Archive,
    /// Anything else: the Dockerfile, and a context of this one file, `context`.
    File,
}

impl MainContext {
    /// Adds its vertices. `platform` is the machine's own, so that all platforms share them.
    fn add(&self, draft: &mut Draft, platform: &Platform) -> Edge {
        let step = |op: Op, name: &str| Step {
            op,
            name: name.to_string(),
            span: None,
            words: Arc::default(),
            ignore_cache: false,
        };
        let name = match self {
            MainContext::Directory | MainContext::Archive => "[internal] load build context".to_string(),
            MainContext::Git { shown, .. } => format!("[internal] load git source {shown}"),
            MainContext::Http { .. } => "[internal] load remote build context".to_string(),
        };
        let source = self.source().unwrap_or(Source::Local { name: "context".to_string() });
        let source = draft.add(vec![], step(Op::Source(Box::new(source)), &name));
        match self {
            MainContext::Http { body: HttpBody::Archive, .. } => {
                let unpack = FileOp { base: None, actions: vec![unpack()], platform: Arc::new(platform.clone()) };
                draft.add(vec![source], step(Op::File(unpack), "copy /context /"))
            }
            _ => source,
        }
    }

    /// A graph of its own, and the vertex that gives the context.
    pub fn graph(&self, platform: &Platform) -> (Graph<Step>, VertexId) {
        let mut draft = Draft::default();
        let context = self.add(&mut draft, platform);
        (draft.into_graph(), context.vertex)
    }

    /// Where it comes from, unless the client has it.
    pub fn source(&self) -> Option<Source> {
        match self {
            MainContext::Directory | MainContext::Archive => None,
            MainContext::Git { source, .. } => Some(Source::Git(source.clone())),
            MainContext::Http { url, .. } => Some(http(url)),
        }
    }

    /// As something to copy from. Files of a directory of the client lose their owners, those of archives keep them.
    pub(crate) fn tree(&self, draft: &mut Draft, platform: &Platform) -> Tree {
        let edge = draft.context.unwrap_or_else(|| self.add(draft, platform));
        draft.context = Some(edge);
        Tree { edge: Some(edge), label: LABEL.into(), from_client: *self == MainContext::Directory }
    }
}

/// The source of a context that is one file.
pub(super) fn http(url: &str) -> Source {
    Source::Http { url: url.to_string(), filename: "context".to_string(), checksum: None }
}

/// A named context, as progress shows it.
pub(super) fn http_name(context: &str, url: &str) -> String {
    format!("[context {context}] {}", redacted(url))
}

fn unpack() -> FileAction {
    FileAction::Copy(Box::new(Copy {
        from: Some(0),
        source: "context".to_string(),
        dest: "/".to_string(),
        owner: None,
        chmod: None,
        exclude: vec![],
        parents: false,
        unpack: true,
        from_client: false,
        link: false,
        source_label: LABEL.into(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::CompileRequest;
    use crate::git_url::GitUrl;
    use crate::testing::{plan_with, request};

    #[test]
    fn vertices() {
        let check = |context: MainContext, expect: &[&str]| {
            let request = CompileRequest { context, ..request() };
            let plan = plan_with("FROM scratch\nCOPY a /\nRUN --mount=target=/c x\n", &request);
            let needed = plan.graph.reachable(plan.results[0].root.map(|edge| edge.vertex));
            let names: Vec<_> = needed.iter().map(|vertex| plan.graph.value(*vertex).name.as_str()).collect();
            let steps = ["[stage-0 1/2] COPY a /", "[stage-0 2/2] RUN --mount=target=/c x"];
            assert_eq!(names, [expect, &steps].concat(), "{:?}", request.context);
        };
        let git = |url: &str| GitUrl::parse(url).unwrap().unwrap().source();
        check(MainContext::Directory, &["[internal] load build context"]);
        check(MainContext::Archive, &["[internal] load build context"]);
        let context = MainContext::Git { source: git("git://h/x#v1"), shown: "git://h/x#v1".into() };
        check(context, &["[internal] load git source git://h/x#v1"]);
        let http = |body| MainContext::Http { url: "http://h/x".into(), body };
        check(http(HttpBody::File), &["[internal] load remote build context"]);
        check(http(HttpBody::Archive), &["[internal] load remote build context", "copy /context /"]);
    }
}
