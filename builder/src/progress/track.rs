//! What is known of each vertex so far: the state that `plain.rs`, `tty.rs` and the summary read. Knows no output
//! format and no clock; times are those of the events.

use super::{Event, Outcome, VertexName};
use crate::explain::Why;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// All vertices, in the order in which they were first heard of.
pub struct Track {
    /// As above.
    pub vertices: Vec<Tracked>,
    by_digest: HashMap<String, usize>,
    log_lines: usize,
}

/// One vertex.
pub struct Tracked {
    /// Identity and name.
    pub vertex: Arc<VertexName>,
    /// When it worked: begin, and end unless it still does. Empty until it starts.
    pub intervals: Vec<(SystemTime, Option<SystemTime>)>,
    /// How it ended last; `None` before that, and again when it starts once more.
    pub outcome: Option<Outcome>,
    /// Parts of its work, in order of appearance.
    pub statuses: Vec<TrackedStatus>,
    /// Why it ran, or that it need not.
    pub why: Option<Arc<Why>>,
    /// Remarks.
    pub warnings: Vec<String>,
    /// End of its output.
    pub log: LogTail,
}

/// A part of a vertex's work.
pub struct TrackedStatus {
    /// Such as `transferring context:`.
    pub id: String,
    /// Bytes so far; 0 when it does not count bytes.
    pub current: u64,
    /// Bytes in all; 0 when unknown.
    pub total: u64,
    /// First heard of.
    pub started: SystemTime,
    /// Last heard of.
    pub updated: SystemTime,
    /// Nothing more will come.
    pub done: bool,
}

impl Track {
    /// Keeps the last `log_lines` lines of each vertex's output.
    pub fn new(log_lines: usize) -> Track {
        Track { vertices: vec![], by_digest: HashMap::new(), log_lines }
    }

    /// Takes in one event; gives back which of `vertices` it is about.
    pub fn apply(&mut self, event: &Event) -> usize {
        let index = self.index(event.vertex());
        let tracked = &mut self.vertices[index];
        match event {
            Event::Announced { .. } => {}
            Event::Started { at, .. } => {
                tracked.outcome = None;
                if !tracked.running() {
                    tracked.intervals.push((*at, None));
                }
            }
            Event::Ended { at, outcome, .. } => {
                if !tracked.running() {
                    tracked.intervals.push((*at, None));
                }
                if let Some((_, end)) = tracked.intervals.last_mut() {
                    *end = Some(*at);
                }
                tracked.outcome = Some(outcome.clone());
            }
            Event::Status { id, current, total, at, done, .. } => tracked.status(id, *current, *total, *at, *done),
            Event::Log { data, at, .. } => {
                let since = tracked.since_start(*at);
                tracked.log.push(data, since);
            }
            Event::Explained { why, .. } => tracked.why = Some(why.clone()),
            Event::Warning { warning, .. } => tracked.warnings.push(warning.short.clone()),
        }
        index
    }

    /// The vertex of that name, if any event was about it.
    pub fn get(&self, vertex: &VertexName) -> Option<&Tracked> {
        self.index_of(vertex).map(|index| &self.vertices[index])
    }

    /// Which of `vertices` that is.
    pub fn index_of(&self, vertex: &VertexName) -> Option<usize> {
        self.by_digest.get(&vertex.digest).copied()
    }

    /// Vertices that ended, and all.
    pub fn counts(&self) -> (usize, usize) {
        (self.vertices.iter().filter(|tracked| tracked.outcome.is_some()).count(), self.vertices.len())
    }

    fn index(&mut self, vertex: &Arc<VertexName>) -> usize {
        if let Some(index) = self.by_digest.get(&vertex.digest) {
            return *index;
        }
        self.by_digest.insert(vertex.digest.clone(), self.vertices.len());
        self.vertices.push(Tracked {
            vertex: vertex.clone(),
            intervals: vec![],
            outcome: None,
            statuses: vec![],
            why: None,
            warnings: vec![],
            log: LogTail::new(self.log_lines),
        });
        self.vertices.len() - 1
    }
}

impl Tracked {
    /// One line that says why it ran.
    pub fn reason(&self) -> Option<String> {
        self.why.as_ref().and_then(|why| why.line())
    }

    /// It works now.
    pub fn running(&self) -> bool {
        self.intervals.last().is_some_and(|(_, end)| end.is_none())
    }

    /// It has ended, but a part of its work is still reported as going on.
    pub fn has_open_status(&self) -> bool {
        self.statuses.iter().any(|status| !status.done)
    }

    /// When it ended last.
    pub fn ended_at(&self) -> Option<SystemTime> {
        self.intervals.last().and_then(|(_, end)| *end)
    }

    /// Time since the current (or last) start; zero before the first.
    pub fn since_start(&self, at: SystemTime) -> Duration {
        self.intervals.last().map_or(Duration::ZERO, |(start, _)| at.duration_since(*start).unwrap_or_default())
    }

    /// How long it has worked, up to `now` if it still does. Overlaps cannot occur: a vertex starts only when ended.
    pub fn worked(&self, now: SystemTime) -> Duration {
        let length = |(start, end): &(SystemTime, Option<SystemTime>)| {
            end.unwrap_or(now).duration_since(*start).unwrap_or_default()
        };
        self.intervals.iter().map(length).sum()
    }

    fn status(&mut self, id: &str, current: u64, total: u64, at: SystemTime, done: bool) {
        match self.statuses.iter_mut().find(|status| status.id == id) {
            Some(status) => (status.current, status.total, status.updated, status.done) = (current, total, at, done),
            None => {
                let id = id.to_string();
                self.statuses.push(TrackedStatus { id, current, total, started: at, updated: at, done });
            }
        }
    }
}

/// Longest line that is kept of a step's output; what comes after is cut off. Output without any newline must not
/// fill the memory.
const MAX_LINE_BYTES: usize = 64 * 1024;

/// The last lines of a step's output, each with the time that had passed when it began.
pub struct LogTail {
    complete: VecDeque<(Duration, Vec<u8>)>,
    partial: Option<(Duration, Vec<u8>)>,
    limit: usize,
}

impl LogTail {
    fn new(limit: usize) -> LogTail {
        LogTail { complete: VecDeque::new(), partial: None, limit }
    }

    fn push(&mut self, data: &[u8], since: Duration) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let (_, line) = self.partial.get_or_insert_with(|| (since, vec![]));
            let room = MAX_LINE_BYTES.saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                self.complete.extend(self.partial.take());
                if self.complete.len() > self.limit {
                    self.complete.pop_front();
                }
            }
        }
    }

    /// Oldest first, an unfinished one last: time since the vertex's start, and the bytes without newline.
    pub fn lines(&self) -> impl DoubleEndedIterator<Item = (Duration, &[u8])> {
        self.complete.iter().chain(&self.partial).map(|(since, line)| (*since, line.as_slice()))
    }
}

impl Event {
    /// The vertex that it is about.
    pub fn vertex(&self) -> &Arc<VertexName> {
        match self {
            Event::Announced { vertex, .. }
            | Event::Started { vertex, .. }
            | Event::Ended { vertex, .. }
            | Event::Status { vertex, .. }
            | Event::Log { vertex, .. }
            | Event::Explained { vertex, .. }
            | Event::Warning { vertex, .. } => vertex,
        }
    }
}

/// Seconds as log lines show them: four significant figures at most, `0.123`, `12.34`, `123.4`.
pub fn log_seconds(since: Duration) -> String {
    let seconds = since.as_secs_f64();
    match seconds {
        ..10.0 => format!("{seconds:.3}"),
        10.0..100.0 => format!("{seconds:.2}"),
        _ => format!("{seconds:.1}"),
    }
}

/// A size in decimal units: `185B`, `1.08MB`.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];
    if count < 1000 {
        return format!("{count}B");
    }
    let mut value = count as f64 / 1000.0;
    let mut unit = 0;
    while value >= 1000.0 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    format!("{value:.2}{}", UNITS[unit])
}

/// `1.08MB / 3.40MB`, `1.08MB`, or nothing when neither is known.
pub fn transferred(current: u64, total: u64) -> Option<String> {
    match (current, total) {
        (0, 0) => None,
        (_, 0) => Some(bytes(current)),
        _ => Some(format!("{} / {}", bytes(current), bytes(total))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_decimal() {
        for (count, expect) in
            [(0, "0B"), (999, "999B"), (1000, "1.00kB"), (3_400_000, "3.40MB"), (u64::MAX, "18.45EB")]
        {
            assert_eq!(bytes(count), expect);
        }
    }

    #[test]
    fn log_times_have_four_figures() {
        for (millis, expect) in [(123, "0.123"), (12_340, "12.34"), (123_400, "123.4")] {
            assert_eq!(log_seconds(Duration::from_millis(millis)), expect);
        }
    }

    #[test]
    fn the_tail_keeps_the_last_lines() {
        let mut tail = LogTail::new(2);
        for piece in ["a\nb", "b\nc\nd", "d"] {
            tail.push(piece.as_bytes(), Duration::ZERO);
        }
        let lines: Vec<_> = tail.lines().map(|(_, line)| String::from_utf8_lossy(line).into_owned()).collect();
        assert_eq!(lines, ["bb", "c", "dd"]);
    }
}
