//! Waiting for a step that somebody else runs, and showing what it writes: another process on the same store, or another
//! vertex of this build with the same key. Who runs a key says in its claim in which build, and where its output goes.

use super::exec_log::Limits;
use super::{BuildSteps, StepError};
use crate::history;
use crate::progress::{Stream, Vertex};
use frontend::op::Op;
use serde::{Deserialize, Serialize};
use solver::graph::VertexId;
use solver::key::CacheKey;
use std::fs::File;
use std::future::Future;
use std::io::Read;
use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

/// Between two looks at the output.
const INTERVAL: Duration = Duration::from_millis(100);

/// When a step is taken to have begun: what it wrote before it was followed may be shown at once.
const LONG_AGO: Duration = Duration::from_secs(3600);

/// What the claim of a key that runs says.
#[derive(PartialEq, Eq, Serialize, Deserialize)]
struct Runner {
    /// Id of the build.
    build: String,
    /// File that the step writes its output to, if it writes any.
    log: Option<PathBuf>,
}

/// Says to those who wait for the key that `vertex` of this build runs it.
pub(super) fn say_who_runs(steps: &BuildSteps, vertex: VertexId, key: &CacheKey) {
    let log = match steps.graph.value(vertex).op {
        Op::Exec(_) => Some(log_of(steps, vertex)),
        Op::Source(_) | Op::File(_) | Op::Merge => None,
    };
    let runner = Runner { build: build_of(steps), log };
    let note = serde_json::to_string(&runner).expect("a runner is plain data");
    // Without it others wait without knowing for whom.
    if let Err(error) = steps.store.leave_note(key, &note) {
        tracing::warn!(?error, "cannot say who runs a step");
    }
}

/// File for the complete output of a vertex.
pub(super) fn log_of(steps: &BuildSteps, vertex: VertexId) -> PathBuf {
    steps.logs.join(history::log_name(steps.vertices[vertex.0 as usize].digest()))
}

fn build_of(steps: &BuildSteps) -> String {
    steps.logs.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Waits for the claim of a key. What its holder writes meanwhile is shown, from the start.
pub(super) async fn wait<C: Send>(
    steps: &BuildSteps,
    vertex: VertexId,
    key: &CacheKey,
    claim: impl Future<Output = C> + Send,
) -> Result<C, StepError> {
    let mut claim = pin!(claim);
    let shown_on = &steps.vertices[vertex.0 as usize];
    let mut followed: Option<Followed> = None;
    loop {
        tokio::select! {
            biased;
            claim = &mut claim => {
                if let Some(mut followed) = followed {
                    followed.show(shown_on);
                    shown_on.status_done(&followed.what, 0, 0);
                }
                return Ok(claim);
            }
            () = steps.cancel.canceled() => return Err(StepError::Canceled),
            () = tokio::time::sleep(INTERVAL) => {}
        }
        let runner = steps.store.note_of(key).and_then(|note| serde_json::from_str::<Runner>(&note).ok());
        // Somebody else may have got the key meanwhile: the one who was followed failed, or died.
        if let Some(runner) = runner.filter(|runner| followed.as_ref().is_none_or(|known| known.runner != *runner)) {
            if let Some(former) = followed.replace(Followed::new(runner, &build_of(steps))) {
                shown_on.status_done(&former.what, 0, 0);
            }
            if let Some(followed) = &followed {
                shown_on.status(&followed.what, 0, 0);
            }
        }
        if let Some(followed) = &mut followed {
            followed.show(shown_on);
        }
    }
}

/// A step that somebody else runs.
struct Followed {
    runner: Runner,
    /// One line.
    what: String,
    /// `None` for a step of this build, whose output is shown there.
    log: Option<PathBuf>,
    file: Option<File>,
    limits: Limits,
}

impl Followed {
    fn new(runner: Runner, own_build: &str) -> Followed {
        let is_own = runner.build == own_build;
        let what = match is_own {
            true => "waiting for the same step of another stage".to_string(),
            false => format!("waiting for build {}, which runs this step", runner.build),
        };
        let log = runner.log.clone().filter(|_| !is_own);
        Followed { runner, what, log, file: None, limits: Limits::default() }
    }

    /// Shows what is new.
    fn show(&mut self, vertex: &Vertex) {
        let Some(log) = &self.log else { return };
        if self.file.is_none() {
            self.file = File::open(log).ok();
        }
        let Some(file) = &mut self.file else { return };
        let mut data = vec![0; 64 << 10];
        while let Ok(count @ 1..) = file.read(&mut data) {
            let (shown, notice) = self.limits.take(&data[..count], LONG_AGO);
            if shown > 0 {
                vertex.log(Stream::Stdout, &data[..shown]);
            }
            if let Some(notice) = notice {
                vertex.log(Stream::Stdout, notice.as_bytes());
            }
        }
    }
}
