//! A step's output: complete in a file of the build's history, and on its way to the event stream within the limits of
//! reference/engine.md 6.8. Secrets of the step are masked in both.

use super::redact::Redactor;
use crate::progress::{Stream, Vertex};
use std::collections::VecDeque;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Most that is shown of a stream, in bytes.
const SIZE_MAX: usize = 2 * 1024 * 1024;
/// Most that is shown of a stream for each second begun, in bytes.
const SPEED_MAX: usize = 200 * 1024;
/// What is kept of the rest, to be shown if the step fails, in bytes.
const TAIL_MAX: usize = 256 * 1024;

/// One output stream of a step.
pub(super) struct StepLog {
    vertex: Vertex,
    stream: Stream,
    started: Instant,
    limits: Limits,
    redactor: Redactor,
    file: Arc<LogFile>,
}

/// The file that both streams of a step are written to; made when there is something to write.
#[derive(Debug)]
pub(super) struct LogFile {
    path: PathBuf,
    file: OnceLock<Option<File>>,
}

impl LogFile {
    pub(super) fn new(path: PathBuf) -> Arc<LogFile> {
        Arc::new(LogFile { path, file: OnceLock::new() })
    }

    /// A history that cannot be written costs the history, not the step.
    fn write(&self, data: &[u8]) {
        let open = || File::options().create(true).append(true).open(&self.path).ok();
        if let Some(mut file) = self.file.get_or_init(open).as_ref() {
            let _ = file.write_all(data);
        }
    }
}

impl StepLog {
    /// Of a step that starts now.
    pub(super) fn new(vertex: Vertex, stream: Stream, redactor: Redactor, file: Arc<LogFile>) -> StepLog {
        StepLog { vertex, stream, started: Instant::now(), limits: Limits::default(), redactor, file }
    }

    /// Passes on what was read.
    pub(super) fn write(&mut self, data: &[u8]) {
        let data = self.redactor.pass(data);
        self.pass_on(&data);
    }

    /// Passes on what was held back: the stream has ended.
    pub(super) fn end(&mut self) {
        let data = self.redactor.end();
        self.pass_on(&data);
    }

    fn pass_on(&mut self, data: &[u8]) {
        if data.is_empty() {
            return;
        }
        self.file.write(data);
        let (shown, notice) = self.limits.take(data, self.started.elapsed());
        if shown > 0 {
            self.vertex.log(self.stream, &data[..shown]);
        }
        if let Some(notice) = notice {
            self.vertex.log(self.stream, notice.as_bytes());
        }
    }

    /// Shows the end of what was not shown: the step has failed.
    pub(super) fn failed(&mut self) {
        let tail: Vec<u8> = self.limits.tail.drain(..).collect();
        if !tail.is_empty() {
            self.vertex.log(self.stream, &tail);
        }
    }
}

/// Decides how much is shown.
#[derive(Default)]
pub(super) struct Limits {
    shown: usize,
    clipped: bool,
    tail: VecDeque<u8>,
}

impl Limits {
    /// How many bytes of `data` are shown, and what is said after them.
    pub(super) fn take(&mut self, data: &[u8], elapsed: Duration) -> (usize, Option<&'static str>) {
        let by_speed = SPEED_MAX.saturating_mul(elapsed.as_secs() as usize + 1);
        let shown = SIZE_MAX.min(by_speed).saturating_sub(self.shown).min(data.len());
        self.shown += shown;
        let rest = &data[shown..];
        if rest.is_empty() {
            self.clipped = false;
            return (shown, None);
        }
        self.tail.extend(rest);
        let over = self.tail.len().saturating_sub(TAIL_MAX);
        self.tail.drain(..over);
        if std::mem::replace(&mut self.clipped, true) {
            return (shown, None);
        }
        Some(match self.shown >= SIZE_MAX {
            true => "\n[output clipped, log limit 2MiB reached]\n",
            false => "\n[output clipped, log limit 200KiB/s reached]\n",
        })
        .map_or((shown, None), |notice| (shown, Some(notice)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        let mut limits = Limits::default();
        let data = vec![b'x'; 150 * 1024];
        let second = Duration::from_secs;
        assert_eq!(limits.take(&data, second(0)), (data.len(), None));
        let (shown, notice) = limits.take(&data, second(0));
        assert_eq!(shown, 50 * 1024);
        assert!(notice.unwrap().contains("200KiB/s"));
        assert_eq!(limits.take(&data, second(0)), (0, None));
        assert_eq!(limits.take(&data, second(1)), (data.len(), None));
        assert_eq!(limits.tail.len(), 250 * 1024);
        let (shown, notice) = limits.take(&vec![b'y'; SIZE_MAX], second(100));
        assert_eq!(shown, SIZE_MAX - 350 * 1024);
        assert!(notice.unwrap().contains("2MiB"));
        assert_eq!(limits.tail.len(), TAIL_MAX);
    }
}
