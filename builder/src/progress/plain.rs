//! Lines for logs and pipes. Each vertex is a block headed `#N name`; one block is open at a time, and who has the
//! floor changes by the rules of reference/engine.md 9.2. Nothing is ever overwritten, nothing is coloured or cut.

use super::render::Renderer;
use super::track::{Track, Tracked, log_seconds, transferred};
use super::{Event, Outcome};
use std::collections::{BTreeSet, HashMap};
use std::io::{self, Write};
use std::time::{Duration, SystemTime};

/// A vertex that alone makes output keeps the floor; one that shares it evenly keeps it twice as long as this.
const FLOOR_AT_LEAST: Duration = Duration::from_secs(5);

/// Output that nobody has seen for this long takes the floor.
const UNSEEN_AT_MOST: Duration = Duration::from_secs(10);

/// Between two lines of one status, unless it moved by [`STATUS_STEP`] of its total.
const STATUS_INTERVAL: Duration = Duration::from_secs(5);
const STATUS_STEP: f64 = 0.05;

/// See the module's head.
pub struct Plain<W> {
    output: W,
    /// Parallel to `Track::vertices`.
    blocks: Vec<Block>,
    /// The open block.
    floor: Option<usize>,
    /// Numbers given to blocks so far.
    numbered: usize,
}

/// How far one vertex has been written.
#[derive(Default)]
struct Block {
    /// `#N`; 0 until the header is first written.
    number: usize,
    /// Something is new since it was last written.
    stale: bool,
    /// Events since it last lost the floor, and the first one's time: its share of what goes on.
    events: u32,
    events_since: Option<SystemTime>,
    /// Statuses with news, by index.
    statuses: BTreeSet<usize>,
    /// When and with how many bytes a status was last written.
    status_written: HashMap<usize, (SystemTime, u64)>,
    /// Why it runs has been written.
    explained: bool,
    /// Warnings written.
    warnings: usize,
    log: PendingLog,
}

/// Output not yet written, in lines; the last may be unfinished.
#[derive(Default)]
struct PendingLog {
    /// Seconds since the start as text, and the bytes without newline.
    lines: Vec<(String, Vec<u8>)>,
    /// The last of `lines` has had no newline yet.
    unfinished: bool,
    /// Bytes of the first of `lines` that are on the screen already, in a line that is still open there.
    shown: Option<usize>,
}

impl<W: Write> Plain<W> {
    /// Writes to `output`.
    pub fn new(output: W) -> Plain<W> {
        Plain { output, blocks: vec![], floor: None, numbered: 0 }
    }

    fn take_in(&mut self, track: &Track, events: &[Event], now: SystemTime) {
        self.blocks.resize_with(track.vertices.len(), Block::default);
        for event in events {
            let Some(index) = track.index_of(event.vertex()) else { continue };
            let (tracked, block) = (&track.vertices[index], &mut self.blocks[index]);
            match event {
                Event::Announced { .. } => continue,
                Event::Explained { .. } if tracked.reason().is_none() => continue,
                Event::Explained { .. } | Event::Started { .. } | Event::Ended { .. } | Event::Warning { .. } => {}
                Event::Status { id, .. } => {
                    block.statuses.extend(tracked.statuses.iter().position(|status| status.id == *id));
                    block.count(now);
                }
                Event::Log { data, at, .. } => {
                    block.log.push(data, &log_seconds(tracked.since_start(*at)));
                    block.count(now);
                }
            }
            block.stale = true;
        }
    }

    /// Writes what is new of finished vertices, then decides who has the floor.
    fn refresh(&mut self, track: &Track, now: SystemTime) -> io::Result<()> {
        let stale = |blocks: &[Block]| -> (Vec<usize>, Vec<usize>) {
            (0..blocks.len()).filter(|index| blocks[*index].stale).partition(|index| !track.vertices[*index].running())
        };
        let (mut finished, mut waiting) = stale(&self.blocks);
        finished.retain(|index| track.vertices[*index].ended_at().is_some());
        // The open block first: it can be closed without a new header.
        finished.sort_by_key(|index| (self.floor != Some(*index), track.vertices[*index].ended_at()));
        for index in finished {
            self.write(track, index, now)?;
        }
        let Some(floor) = self.floor else {
            let next = self.busiest(&waiting, now).or_else(|| track.vertices.iter().position(Tracked::running));
            return next.map_or(Ok(()), |index| self.write(track, index, now));
        };
        if self.blocks[floor].stale {
            self.write(track, floor, now)?;
        }
        waiting.retain(|index| *index != floor);
        let unseen = waiting.iter().copied().find(|index| self.blocks[*index].age(now) > UNSEEN_AT_MOST);
        match unseen.or_else(|| self.busiest(&waiting, now).filter(|_| self.floor_is_up(floor, &waiting, now))) {
            Some(next) => self.write(track, next, now),
            None => Ok(()),
        }
    }

    fn busiest(&self, waiting: &[usize], now: SystemTime) -> Option<usize> {
        let rate = |index: &usize| self.blocks[*index].rate(now);
        // The first of equals, so that what started first is shown first.
        waiting.iter().copied().rev().max_by(|a, b| rate(a).total_cmp(&rate(b)))
    }

    /// Whether the open block has had its time, which is longer the greater its share of all output.
    fn floor_is_up(&self, floor: usize, waiting: &[usize], now: SystemTime) -> bool {
        let own = self.blocks[floor].rate(now);
        let all: f64 = own + waiting.iter().map(|index| self.blocks[*index].rate(now)).sum::<f64>();
        let share_of_others = if all > 0.0 { 1.0 - own / all } else { 1.0 };
        self.blocks[floor].age(now).as_secs_f64() * share_of_others > FLOOR_AT_LEAST.as_secs_f64()
    }

    /// Gives a block the floor, writes what is new in it, and closes it if its vertex has finished.
    fn write(&mut self, track: &Track, index: usize, now: SystemTime) -> io::Result<()> {
        if self.floor != Some(index) {
            self.take_floor(track, index)?;
        }
        let tracked = &track.vertices[index];
        if let Some(reason) = tracked.reason().filter(|_| !self.blocks[index].explained) {
            let block = &mut self.blocks[index];
            block.explained = true;
            block.log.end_line(&mut self.output)?;
            writeln!(self.output, "#{} not cached: {reason}", block.number)?;
        }
        self.write_statuses(tracked, index)?;
        let block = &mut self.blocks[index];
        for warning in &tracked.warnings[block.warnings..] {
            block.log.end_line(&mut self.output)?;
            writeln!(self.output, "#{} WARN: {warning}", block.number)?;
        }
        block.warnings = tracked.warnings.len();
        block.log.write(&mut self.output, block.number)?;
        block.stale = false;
        if let Some(outcome) = &tracked.outcome
            && !tracked.has_open_status()
        {
            block.log.end_line(&mut self.output)?;
            block.log = PendingLog::default();
            block.events = 0;
            let number = block.number;
            match outcome {
                Outcome::Done => writeln!(self.output, "#{number} DONE {:.1}s", tracked.worked(now).as_secs_f64())?,
                Outcome::Cached => writeln!(self.output, "#{number} CACHED")?,
                Outcome::Canceled => writeln!(self.output, "#{number} CANCELED")?,
                Outcome::Failed(message) => writeln!(self.output, "#{number} ERROR: {message}")?,
            }
            self.floor = None;
        }
        Ok(())
    }

    fn take_floor(&mut self, track: &Track, index: usize) -> io::Result<()> {
        if let Some(loser) = self.floor {
            let loser = &mut self.blocks[loser];
            loser.log.end_line(&mut self.output)?;
            loser.events = 0;
            writeln!(self.output, "#{} ...", loser.number)?;
        }
        if self.numbered > 0 {
            writeln!(self.output)?;
        }
        let block = &mut self.blocks[index];
        if block.number == 0 {
            self.numbered += 1;
            block.number = self.numbered;
        }
        writeln!(self.output, "#{} {}", block.number, track.vertices[index].vertex.name)?;
        self.floor = Some(index);
        Ok(())
    }

    fn write_statuses(&mut self, tracked: &Tracked, index: usize) -> io::Result<()> {
        let block = &mut self.blocks[index];
        for number in std::mem::take(&mut block.statuses) {
            let status = &tracked.statuses[number];
            if let Some((at, current)) = block.status_written.get(&number)
                && !status.done
            {
                let moved = status.current.saturating_sub(*current) as f64;
                let step = status.total > 0 && moved / status.total as f64 >= STATUS_STEP;
                let since = status.updated.duration_since(*at).unwrap_or_default();
                if !step && since < STATUS_INTERVAL {
                    continue;
                }
            }
            block.status_written.insert(number, (status.updated, status.current));
            block.log.end_line(&mut self.output)?;
            write!(self.output, "#{} {}", block.number, status.id)?;
            if let Some(sizes) = transferred(status.current, status.total) {
                write!(self.output, " {sizes}")?;
            }
            let seconds = status.updated.duration_since(status.started).unwrap_or_default().as_secs_f64();
            if seconds > 0.01 {
                write!(self.output, " {seconds:.1}s")?;
            }
            writeln!(self.output, "{}", if status.done { " done" } else { "" })?;
        }
        Ok(())
    }
}

impl<W: Write> Renderer for Plain<W> {
    fn update(&mut self, track: &Track, events: &[Event], now: SystemTime, end: bool) -> io::Result<()> {
        self.take_in(track, events, now);
        self.refresh(track, now)?;
        if end {
            // Nobody will come back to what waits for the floor.
            for index in 0..self.blocks.len() {
                if self.blocks[index].stale {
                    self.write(track, index, now)?;
                }
            }
            if let Some(floor) = self.floor {
                self.blocks[floor].log.end_line(&mut self.output)?;
            }
        }
        self.output.flush()
    }
}

impl Block {
    fn count(&mut self, now: SystemTime) {
        if self.events == 0 {
            self.events_since = Some(now);
        }
        self.events += 1;
    }

    /// Time since the first event that counts.
    fn age(&self, now: SystemTime) -> Duration {
        let since = self.events_since.filter(|_| self.events > 0);
        since.map_or(Duration::ZERO, |since| now.duration_since(since).unwrap_or_default())
    }

    fn rate(&self, now: SystemTime) -> f64 {
        // Within one update there is no telling rates apart; a tenth of a second is what one lasts.
        f64::from(self.events) / self.age(now).as_secs_f64().max(0.1)
    }
}

impl PendingLog {
    fn push(&mut self, data: &[u8], seconds: &str) {
        for piece in data.split_inclusive(|byte| *byte == b'\n') {
            let text = piece.strip_suffix(b"\n").unwrap_or(piece);
            match self.lines.last_mut().filter(|_| self.unfinished) {
                Some((_, line)) => line.extend_from_slice(text),
                None => self.lines.push((seconds.to_string(), text.to_vec())),
            }
            self.unfinished = text.len() == piece.len();
        }
    }

    /// Writes all lines; an unfinished one stays open, on the screen and here.
    fn write(&mut self, output: &mut impl Write, number: usize) -> io::Result<()> {
        let count = self.lines.len();
        for (position, (seconds, line)) in self.lines.iter().enumerate() {
            match self.shown.take() {
                Some(shown) => output.write_all(&line[shown..])?,
                None => {
                    write!(output, "#{number} {seconds} ")?;
                    output.write_all(line)?;
                }
            }
            if position + 1 == count && self.unfinished {
                self.shown = Some(line.len());
            } else {
                output.write_all(b"\n")?;
            }
        }
        self.lines.drain(..count - usize::from(self.unfinished && count > 0));
        Ok(())
    }

    /// Other text comes: an open line is ended on the screen, and written again when the block returns.
    fn end_line(&mut self, output: &mut impl Write) -> io::Result<()> {
        self.shown.take().map_or(Ok(()), |_| output.write_all(b"\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::render::testing::*;
    use super::*;

    fn check(batches: Vec<(u64, Vec<Event>)>, expect: &str) {
        let output = Output::default();
        feed(&mut Plain::new(output.clone()), batches);
        assert_eq!(output.text(), expect);
    }

    #[test]
    fn one_vertex_after_another() {
        check(
            vec![(
                900,
                vec![
                    announced("[2/2] RUN make"),
                    started("[internal] load build definition from Dockerfile", 0),
                    status(
                        "[internal] load build definition from Dockerfile",
                        0,
                        "transferring dockerfile:",
                        386,
                        0,
                        true,
                    ),
                    ended("[internal] load build definition from Dockerfile", 20, Outcome::Done),
                    ended("[1/2] FROM x", 30, Outcome::Cached),
                    started("[2/2] RUN make", 100),
                    log("[2/2] RUN make", 223, "gcc -c a.c\n"),
                    warning("[2/2] RUN make", 230, "old"),
                    ended("[2/2] RUN make", 800, Outcome::Failed("exit code: 2".into())),
                ],
            )],
            "#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 386B done
#1 DONE 0.0s

#2 [1/2] FROM x
#2 CACHED

#3 [2/2] RUN make
#3 WARN: old
#3 0.123 gcc -c a.c
#3 ERROR: exit code: 2
",
        );
    }

    #[test]
    fn a_line_that_comes_in_parts_is_written_as_it_comes() {
        check(
            vec![
                (100, vec![started("a", 0), log("a", 100, "one\ntw")]),
                (12_400, vec![log("a", 12_400, "o\nthree")]),
                (12_500, vec![ended("a", 12_500, Outcome::Canceled)]),
            ],
            "#1 a\n#1 0.100 one\n#1 0.100 two\n#1 12.40 three\n#1 CANCELED\n",
        );
    }

    #[test]
    fn finished_vertices_interrupt_the_open_one() {
        check(
            vec![
                (100, vec![started("a", 0), started("b", 0), log("a", 100, "par")]),
                (200, vec![ended("b", 150, Outcome::Done)]),
                (300, vec![log("a", 300, "tial\n"), ended("a", 300, Outcome::Done)]),
            ],
            "#1 a\n#1 0.100 par\n#1 ...\n\n#2 b\n#2 DONE 0.1s\n\n#1 a\n#1 0.100 partial\n#1 DONE 0.3s\n",
        );
    }

    #[test]
    fn the_open_one_keeps_the_floor_for_a_while() {
        let both = |millis| vec![log("a", millis, "a\n"), log("b", millis, "b\n")];
        check(
            vec![
                (0, vec![started("a", 0), started("b", 0)]),
                (100, both(100)),
                (9000, both(9000)),
                (10_200, vec![]),
                (10_300, vec![ended("a", 10_250, Outcome::Done), ended("b", 10_260, Outcome::Done)]),
            ],
            "#1 a\n#1 0.100 a\n#1 9.000 a\n#1 ...\n\n#2 b\n#2 0.100 b\n#2 9.000 b\n#2 DONE 10.3s\n\n#1 a\n#1 DONE 10.2s\n",
        );
    }

    #[test]
    fn statuses_are_thinned_out_and_keep_a_vertex_open() {
        let step = |millis, current, done| status("a", millis, "sha256:1", current, 1_000_000, done);
        check(
            vec![
                (0, vec![started("a", 0), step(0, 10_000, false)]),
                (100, vec![step(100, 20_000, false)]),
                (200, vec![step(200, 70_000, false)]),
                (300, vec![ended("a", 300, Outcome::Done)]),
                (5300, vec![step(5300, 80_000, false)]),
                (5400, vec![step(5400, 1_000_000, true)]),
            ],
            "#1 a
#1 sha256:1 10.00kB / 1.00MB
#1 sha256:1 70.00kB / 1.00MB 0.2s
#1 sha256:1 80.00kB / 1.00MB 5.3s
#1 sha256:1 1.00MB / 1.00MB 5.4s done
#1 DONE 0.3s
",
        );
    }

    #[test]
    fn a_second_start_opens_the_block_again_and_times_add_up() {
        check(
            vec![
                (200, vec![started("a", 0), ended("a", 200, Outcome::Done)]),
                (900, vec![started("a", 500), ended("a", 900, Outcome::Done)]),
            ],
            "#1 a\n#1 DONE 0.2s\n\n#1 a\n#1 DONE 0.6s\n",
        );
    }
}
