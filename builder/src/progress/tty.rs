//! Redraws the state of the build in place: a head line, a line per vertex that has started, lines for the parts of
//! its work, and the last lines of output of what runs (reference/engine.md 9.4).

use super::render::Renderer;
use super::track::{Track, Tracked, transferred};
use super::{Event, Outcome};
use crate::explain::Cause;
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// Lines of output shown below a running vertex, unless `BUILDKIT_TTY_LOG_LINES` says another number.
const LOG_LINES: usize = 6;

/// A name gets at least that much room; narrower terminals show no line at all.
const NAME_WIDTH_MIN: usize = 12;

/// Columns and rows.
#[derive(Clone, Copy, Debug)]
pub struct Terminal {
    /// Columns.
    pub width: usize,
    /// Rows.
    pub height: usize,
}

/// Escape sequences put before each kind of line; nothing when colours are off.
#[derive(Clone, Copy, Debug)]
pub struct Colours {
    done: &'static str,
    failed: &'static str,
    canceled: &'static str,
    log: &'static str,
    reset: &'static str,
}

impl Colours {
    /// Blue, red, yellow and faint, as BuildKit's.
    pub const ON: Colours =
        Colours { done: "\x1b[34m", failed: "\x1b[31m", canceled: "\x1b[33m", log: "\x1b[2m", reset: "\x1b[0m" };
    /// `NO_COLOR`.
    pub const OFF: Colours = Colours { done: "", failed: "", canceled: "", log: "", reset: "" };

    /// Off if `NO_COLOR` is set and not empty.
    pub fn from_env() -> Colours {
        if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) { Colours::OFF } else { Colours::ON }
    }
}

/// See the module's head.
pub struct Tty<W, S> {
    output: W,
    colours: Colours,
    size: S,
    log_lines: usize,
    /// Time of the first update.
    start: Option<SystemTime>,
    /// Lines of the last drawing.
    drawn: usize,
}

/// One line of a drawing.
struct Line {
    text: String,
    colour: &'static str,
    /// May be left out when there is no room.
    finished: bool,
}

impl<W: Write, S: Fn() -> Terminal> Tty<W, S> {
    /// Draws on `output`; `size` is asked before each drawing.
    pub fn new(output: W, colours: Colours, size: S) -> Tty<W, S> {
        let log_lines = std::env::var("BUILDKIT_TTY_LOG_LINES").ok().and_then(|lines| lines.parse().ok());
        Tty { output, colours, size, log_lines: log_lines.unwrap_or(LOG_LINES), start: None, drawn: 0 }
    }

    fn lines(&self, track: &Track, width: usize, now: SystemTime) -> Vec<Line> {
        let mut started: Vec<&Tracked> =
            track.vertices.iter().filter(|tracked| !tracked.intervals.is_empty()).collect();
        started.sort_by_key(|tracked| tracked.intervals[0].0);
        let mut lines = vec![];
        for tracked in started {
            let (word, colour) = match &tracked.outcome {
                None => ("", ""),
                Some(Outcome::Done) => ("", self.colours.done),
                Some(Outcome::Cached) => ("CACHED ", self.colours.done),
                Some(Outcome::Canceled) => ("CANCELED ", self.colours.canceled),
                Some(Outcome::Failed(_)) => ("ERROR ", self.colours.failed),
            };
            let finished = tracked.outcome.is_some();
            let name = format!("{word}{}", tracked.vertex.name);
            let line = |text| Line { text, colour, finished };
            // What was never built is the rule in a first build, and not worth a line of its own.
            let is_new = tracked.why.as_ref().is_some_and(|why| why.cause == Cause::NeverBuilt);
            let short = format!("{name}  (never built here)");
            let name = if is_new && short.chars().count() + 16 < width { short } else { name };
            let reason = tracked.reason().filter(|_| !is_new).map(|reason| format!("not cached: {reason}"));
            lines.extend(entry(" => ", &name, None, tracked.worked(now), width).map(line));
            lines.extend(reason.map(|reason| Line {
                text: cut(&format!(" => => {}", visible(reason.as_bytes())), width),
                colour: self.colours.log,
                finished,
            }));
            lines.extend(tracked.statuses.iter().filter_map(|status| {
                let end = if status.done { status.updated } else { now };
                let took = end.duration_since(status.started).unwrap_or_default();
                let sizes = transferred(status.current, status.total);
                let colour = if status.done { self.colours.done } else { "" };
                let text = entry(" => => ", &status.id, sizes, took, width)?;
                Some(Line { text, colour, finished: finished || status.done })
            }));
            if !finished {
                lines.extend(self.log(tracked, width));
            }
        }
        lines
    }

    fn log(&self, tracked: &Tracked, width: usize) -> Vec<Line> {
        let visible = |line: &[u8]| Some(visible(line)).filter(|text| !text.is_empty());
        let last = tracked.log.lines().rev().filter_map(|(_, line)| visible(line)).take(self.log_lines);
        let mut lines: Vec<Line> = last
            .map(|text| Line {
                text: cut(&format!(" => => # {text}"), width),
                colour: self.colours.log,
                finished: false,
            })
            .collect();
        lines.reverse();
        lines
    }

    fn draw(&mut self, track: &Track, now: SystemTime, end: bool) -> io::Result<()> {
        let Terminal { width, height } = (self.size)();
        let start = *self.start.get_or_insert(now);
        let mut lines = self.lines(track, width, now);
        if !end {
            fit(&mut lines, height.saturating_sub(2));
        }
        let (completed, total) = track.counts();
        let finished = if end && completed == total { " FINISHED" } else { "" };
        let elapsed = now.duration_since(start).unwrap_or_default().as_secs_f64();
        let head = cut(&format!("[+] Building {elapsed:.1}s ({completed}/{total}){finished}"), width);

        write!(self.output, "\x1b[?25l")?;
        if self.drawn > 0 {
            write!(self.output, "\x1b[{}A\r", self.drawn)?;
        }
        writeln!(self.output, "{head}\x1b[K")?;
        for Line { text, colour, .. } in &lines {
            let reset = if colour.is_empty() { "" } else { self.colours.reset };
            writeln!(self.output, "{colour}{text}{reset}\x1b[K")?;
        }
        // What a longer drawing left below is erased; the cursor comes back.
        write!(self.output, "\x1b[J\x1b[?25h")?;
        self.drawn = lines.len() + 1;
        self.output.flush()
    }
}

impl<W: Write, S: Fn() -> Terminal> Renderer for Tty<W, S> {
    fn update(&mut self, track: &Track, _: &[Event], now: SystemTime, end: bool) -> io::Result<()> {
        self.draw(track, now, end)
    }

    fn released(&mut self) {
        // The last drawing stays where it is, above what came in between.
        self.drawn = 0;
    }
}

/// `prefix name sizes … 1.2s`, as wide as the terminal; `None` where it is too narrow.
fn entry(prefix: &str, name: &str, sizes: Option<String>, took: Duration, width: usize) -> Option<String> {
    let seconds = took.as_secs_f64();
    let timer = format!(" {:.1}s", if seconds < 0.05 { 0.0 } else { seconds });
    let sizes = sizes.map_or(String::new(), |sizes| format!(" {sizes}"));
    let room = width.checked_sub(prefix.len() + timer.len())?;
    let sizes = if room >= sizes.len() + NAME_WIDTH_MIN { sizes } else { String::new() };
    let room = room - sizes.len();
    if room < NAME_WIDTH_MIN {
        return None;
    }
    let text = format!("{prefix}{}{sizes}", cut(&visible(name.as_bytes()), room));
    let padding = width.saturating_sub(text.chars().count() + timer.len());
    Some(format!("{text}{:padding$}{timer}", ""))
}

/// Leaves out finished lines, oldest first, then the oldest of all, until `height` remain.
fn fit(lines: &mut Vec<Line>, height: usize) {
    let mut surplus = lines.len().saturating_sub(height);
    lines.retain(|line| {
        let drop = surplus > 0 && line.finished;
        surplus -= usize::from(drop);
        !drop
    });
    lines.drain(..surplus.min(lines.len()));
}

fn cut(text: &str, width: usize) -> String {
    text.chars().take(width).collect()
}

/// What a terminal would show of a line in which the program moved its cursor back: the text after the last carriage
/// return, without escape sequences and control characters.
fn visible(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    let text = text.trim_end_matches('\r');
    let text = text.rsplit('\r').next().unwrap_or(text);
    let mut shown = String::new();
    let mut chars = text.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '\x1b' if chars.next_if_eq(&'[').is_some() => {
                // Control sequence (ECMA-48 5.4): parameters, then one final byte.
                while chars.next_if(|char| !('\x40'..='\x7e').contains(char)).is_some() {}
                chars.next();
            }
            '\t' => shown.push(' '),
            char if !char.is_control() => shown.push(char),
            _ => {}
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::super::render::testing::*;
    use super::*;

    fn draw(colours: Colours, terminal: Terminal, batches: Vec<(u64, Vec<Event>)>) -> String {
        let output = Output::default();
        let mut tty = Tty::new(output.clone(), colours, move || terminal);
        tty.log_lines = 2;
        feed(&mut tty, batches);
        output.text().replace('\x1b', "^")
    }

    const SMALL: Terminal = Terminal { width: 40, height: 24 };

    #[test]
    fn running_and_finished() {
        let text = draw(
            Colours::OFF,
            SMALL,
            vec![
                (0, vec![announced("c"), started("a", 0), status("a", 0, "sha256:1", 1_080_000, 3_400_000, false)]),
                (
                    1200,
                    vec![
                        status("a", 500, "sha256:1", 3_400_000, 3_400_000, true),
                        ended("a", 500, Outcome::Cached),
                        started("b, which has a rather long name indeed", 600),
                        log("b, which has a rather long name indeed", 700, "1\n2\nold\rnew \x1b[1mthree\x1b[0m\n\n"),
                    ],
                ),
            ],
        );
        assert_eq!(
            text,
            "^[?25l[+] Building 0.0s (0/2)^[K
 => a                               0.0s^[K
 => => sha256:1 1.08MB / 3.40MB     0.0s^[K
^[J^[?25h^[?25l^[3A\r[+] Building 1.2s (1/3)^[K
 => CACHED a                        0.5s^[K
 => => sha256:1 3.40MB / 3.40MB     0.5s^[K
 => b, which has a rather long name 0.6s^[K
 => => # 2^[K
 => => # new three^[K
^[J^[?25h"
        );
    }

    #[test]
    fn outcomes_have_colours_and_words() {
        let text = draw(
            Colours::ON,
            SMALL,
            vec![(
                0,
                vec![
                    ended("a", 0, Outcome::Done),
                    ended("b", 1, Outcome::Failed("x".into())),
                    ended("c", 2, Outcome::Canceled),
                ],
            )],
        );
        assert_eq!(
            text,
            "^[?25l[+] Building 0.0s (3/3) FINISHED^[K
^[34m => a                               0.0s^[0m^[K
^[31m => ERROR b                         0.0s^[0m^[K
^[33m => CANCELED c                      0.0s^[0m^[K
^[J^[?25h"
        );
    }

    #[test]
    fn what_finished_first_makes_room() {
        let vertices = vec![ended("a", 0, Outcome::Done), started("b", 1), ended("c", 2, Outcome::Done)];
        let text = draw(Colours::OFF, Terminal { width: 30, height: 3 }, vec![(0, vertices), (0, vec![])]);
        let first = text.split("^[?25h").next().unwrap();
        assert!(first.contains("=> b") && !first.contains("=> a") && !first.contains("=> c"), "{first}");
    }

    #[test]
    fn a_very_narrow_terminal_shows_the_head_only() {
        let text = draw(Colours::OFF, Terminal { width: 15, height: 24 }, vec![(0, vec![started("a", 0)])]);
        assert_eq!(text, "^[?25l[+] Building 0.^[K\n^[J^[?25h");
    }
}
