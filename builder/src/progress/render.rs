//! Starts the renderer that was asked for on a thread of its own. It takes all events, about ten times a second at
//! most, keeps the state of all vertices ([`Track`]) and lets the renderer write. What failed comes back at the end.

use super::plain::Plain;
use super::rawjson::RawJson;
use super::track::{Track, log_seconds};
use super::tty::{Colours, Terminal, Tty};
use super::{Event, Gate, Outcome};
use crate::explain::Why;
use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// `--progress`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// [`Mode::Tty`] if standard error is a terminal that can move its cursor, else [`Mode::Plain`].
    Auto,
    /// Blocks of lines, nothing is ever overwritten.
    Plain,
    /// Redraws the state in place.
    Tty,
    /// BuildKit's status messages, one JSON object per line.
    RawJson,
    /// Nothing while it runs; failures are told at the end.
    Quiet,
    /// Nothing.
    None,
}

/// What is left to tell when the build is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Vertices that failed, in the order in which they were announced. Cancelled ones are not among them.
    pub failed: Vec<FailedVertex>,
    /// All vertices, in the same order.
    pub steps: Vec<StepSummary>,
}

/// What became of a vertex.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepSummary {
    /// `sha256:…`.
    pub digest: String,
    /// Such as `[build 2/5] RUN make`.
    pub name: String,
    /// When it first started.
    pub started: Option<SystemTime>,
    /// How long it worked.
    pub worked: Duration,
    /// `None` if it never ended.
    pub outcome: Option<Outcome>,
    /// Why it ran, or that it need not; `None` for what has no key.
    pub why: Option<Arc<Why>>,
}

/// A vertex that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedVertex {
    /// `sha256:…`.
    pub digest: String,
    /// Such as `[build 2/5] RUN make`.
    pub name: String,
    /// Message.
    pub error: String,
    /// Last lines of its output, each with the seconds since its start; bytes that are not UTF-8 are replaced.
    pub log: Vec<String>,
}

/// Writes for people or machines; all its state beside the [`Track`] is how far it has written.
pub trait Renderer {
    /// `events` have just been applied to `track`. `end` is true in the last call.
    fn update(&mut self, track: &Track, events: &[Event], now: SystemTime, end: bool) -> io::Result<()>;

    /// Somebody else has written to the same place since the last update.
    fn released(&mut self) {}
}

/// Time between two updates; the tty redraws as often, and events in between are one rawjson message.
const INTERVAL: Duration = Duration::from_millis(100);

/// How long a burst of events is let to grow.
const BURST: Duration = Duration::from_millis(1);

/// Lines of a failed step's output that are shown at the end.
const LOG_LINES: usize = 10;

/// With a terminal the output has been drawn over, so more of it is shown.
const LOG_LINES_TTY: usize = 100;

/// Reads `receiver` on a new thread until all senders are gone, writing to standard error as `mode` says. `gate` is that
/// of the [`Progress`](super::Progress) at the other end.
pub fn spawn(mode: Mode, receiver: Receiver<Event>, gate: Arc<Gate>) -> JoinHandle<Summary> {
    let mode = mode.resolve();
    gate.open();
    std::thread::spawn(move || {
        let _closed_at_the_end = gate.closing();
        let output = io::BufWriter::with_capacity(64 * 1024, io::stderr());
        match mode {
            Mode::Tty => run(&mut Tty::new(output, Colours::from_env(), stderr_size), LOG_LINES_TTY, &receiver, &gate),
            Mode::RawJson => run(&mut RawJson::new(output), LOG_LINES, &receiver, &gate),
            Mode::Plain | Mode::Auto => run(&mut Plain::new(output), LOG_LINES, &receiver, &gate),
            Mode::Quiet | Mode::None => run(&mut Silent, LOG_LINES, &receiver, &gate),
        }
    })
}

impl Mode {
    /// [`Mode::Auto`] becomes what standard error can show.
    pub fn resolve(self) -> Mode {
        let dumb = || std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        match self {
            Mode::Auto if io::stderr().is_terminal() && !dumb() => Mode::Tty,
            Mode::Auto => Mode::Plain,
            // A redraw makes no sense where nothing can be redrawn.
            Mode::Tty if !io::stderr().is_terminal() => Mode::Plain,
            mode => mode,
        }
    }
}

impl std::str::FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(word: &str) -> Result<Mode, UnknownMode> {
        match word {
            "auto" => Ok(Mode::Auto),
            "plain" => Ok(Mode::Plain),
            "tty" => Ok(Mode::Tty),
            "rawjson" => Ok(Mode::RawJson),
            "quiet" => Ok(Mode::Quiet),
            "none" => Ok(Mode::None),
            _ => Err(UnknownMode(word.to_string())),
        }
    }
}

/// `--progress` or `BUILDKIT_PROGRESS` names no mode.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid progress mode {0:?}: expected auto, plain, tty, rawjson, quiet or none")]
pub struct UnknownMode(String);

struct Silent;

impl Renderer for Silent {
    fn update(&mut self, _: &Track, _: &[Event], _: SystemTime, _: bool) -> io::Result<()> {
        Ok(())
    }
}

/// Size of the terminal that standard error is; 80 by 24 if it is none.
pub fn stderr_size() -> Terminal {
    let size = rustix::termios::tcgetwinsize(io::stderr()).ok().filter(|size| size.ws_col > 0 && size.ws_row > 0);
    size.map_or(Terminal { width: 80, height: 24 }, |size| Terminal {
        width: size.ws_col.into(),
        height: size.ws_row.into(),
    })
}

fn run(renderer: &mut dyn Renderer, log_lines: usize, receiver: &Receiver<Event>, gate: &Gate) -> Summary {
    let mut track = Track::new(log_lines);
    let mut gone = false;
    let mut end = false;
    while !end {
        let (mut events, is_last) = next_batch(receiver);
        end = is_last;
        let is_wanted = gate.is_wanted();
        if is_wanted {
            // What was said before is shown before.
            events.extend(receiver.try_iter());
        }
        for event in &events {
            track.apply(event);
        }
        // If nobody can read what we write, the build still goes on, and its summary is still wanted.
        gone = gone || renderer.update(&track, &events, SystemTime::now(), end).is_err();
        if is_wanted {
            gate.wait();
            renderer.released();
        }
    }
    summary(&track)
}

/// All that comes within one interval, and whether it was the last.
fn next_batch(receiver: &Receiver<Event>) -> (Vec<Event>, bool) {
    let deadline = Instant::now() + INTERVAL;
    let mut events = vec![];
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            // Events come in bursts. If we waited for the next one at once, each would have to wake us.
            Ok(event) => {
                events.push(event);
                std::thread::sleep(BURST);
                events.extend(receiver.try_iter());
            }
            Err(RecvTimeoutError::Timeout) => return (events, false),
            Err(RecvTimeoutError::Disconnected) => return (events, true),
        }
        // A flood must not keep us from writing: with a zero timeout `recv_timeout` still gives what is queued.
        if Instant::now() >= deadline {
            return (events, false);
        }
    }
}

fn summary(track: &Track) -> Summary {
    let failed = track.vertices.iter().filter_map(|tracked| {
        let Some(Outcome::Failed(error)) = &tracked.outcome else { return None };
        let line =
            |(since, line): (Duration, &[u8])| format!("{} {}", log_seconds(since), String::from_utf8_lossy(line));
        Some(FailedVertex {
            digest: tracked.vertex.digest.clone(),
            name: tracked.vertex.name.clone(),
            error: error.clone(),
            log: tracked.log.lines().map(line).collect(),
        })
    });
    let now = SystemTime::now();
    let steps = track.vertices.iter().map(|tracked| StepSummary {
        digest: tracked.vertex.digest.clone(),
        name: tracked.vertex.name.clone(),
        started: tracked.intervals.first().map(|(start, _)| *start),
        worked: tracked.worked(now),
        outcome: tracked.outcome.clone(),
        why: tracked.why.clone(),
    });
    Summary { failed: failed.collect(), steps: steps.collect() }
}

/// Event lists for the tests of all renderers, and a buffer that can be looked at while it is written.
#[cfg(test)]
pub(crate) mod testing {
    use super::*;
    use crate::progress::{Stream, VertexName};
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    /// Whole seconds and thousandths after an arbitrary time.
    pub fn at(millis: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000) + Duration::from_millis(millis)
    }

    pub fn vertex(name: &str) -> Arc<VertexName> {
        Arc::new(VertexName { digest: format!("sha256:{name}"), name: name.to_string() })
    }

    pub fn announced(name: &str) -> Event {
        Event::Announced { vertex: vertex(name), inputs: vec![] }
    }

    pub fn started(name: &str, millis: u64) -> Event {
        Event::Started { vertex: vertex(name), at: at(millis) }
    }

    pub fn ended(name: &str, millis: u64, outcome: Outcome) -> Event {
        Event::Ended { vertex: vertex(name), at: at(millis), outcome }
    }

    pub fn log(name: &str, millis: u64, text: &str) -> Event {
        Event::Log { vertex: vertex(name), stream: Stream::Stdout, data: text.into(), at: at(millis) }
    }

    pub fn status(name: &str, millis: u64, id: &str, current: u64, total: u64, done: bool) -> Event {
        Event::Status { vertex: vertex(name), id: id.into(), current, total, at: at(millis), done }
    }

    pub fn warning(name: &str, millis: u64, message: &str) -> Event {
        let warning = std::sync::Arc::new(message.to_string().into());
        Event::Warning { vertex: vertex(name), warning, at: at(millis) }
    }

    #[derive(Clone, Default)]
    pub struct Output(Arc<Mutex<Vec<u8>>>);

    impl Output {
        pub fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl Write for Output {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(data);
            Ok(data.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Feeds batches, each with the time of its update; the last one ends the stream.
    pub fn feed(renderer: &mut dyn Renderer, batches: Vec<(u64, Vec<Event>)>) {
        let mut track = Track::new(LOG_LINES);
        let count = batches.len();
        for (number, (millis, events)) in batches.into_iter().enumerate() {
            for event in &events {
                track.apply(event);
            }
            renderer.update(&track, &events, at(millis), number + 1 == count).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::*;
    use super::*;

    #[test]
    fn the_summary_has_what_failed_and_the_end_of_its_log() {
        let (sender, receiver) = std::sync::mpsc::channel();
        let lines: String = (0..12).map(|number| format!("line {number}\n")).collect();
        for event in [
            announced("[1/2] RUN make"),
            started("[1/2] RUN make", 0),
            log("[1/2] RUN make", 120, &lines),
            started("other", 0),
            ended("other", 150, Outcome::Canceled),
            ended("[1/2] RUN make", 200, Outcome::Failed("exit code: 2".into())),
        ] {
            sender.send(event).unwrap();
        }
        drop(sender);
        let summary = spawn(Mode::Quiet, receiver, Arc::default()).join().unwrap();
        let [failed] = summary.failed.as_slice() else { panic!("{summary:?}") };
        assert_eq!((failed.name.as_str(), failed.error.as_str()), ("[1/2] RUN make", "exit code: 2"));
        assert_eq!(
            (failed.log.len(), failed.log[0].as_str(), failed.log[9].as_str()),
            (10, "0.120 line 2", "0.120 line 11")
        );
    }

    #[test]
    fn modes_are_parsed() {
        assert_eq!("rawjson".parse(), Ok(Mode::RawJson));
        assert!("fancy".parse::<Mode>().is_err());
    }
}
