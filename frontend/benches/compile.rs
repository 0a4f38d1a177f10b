//! Time from text to build plan for large Dockerfiles of several kinds: `cargo bench -p frontend [-- KIND...]`. A factor beside each
//! says how the time grew from half the lines: 2 is linear.

use frontend::span::SourceText;
use frontend::stand_in;
use std::fmt::Write;
use std::time::{Duration, Instant};

/// Lines of each file.
const LINES: usize = 5000;

const RUNS: usize = 5;

fn main() {
    println!("{:<14} {:>7} {:>10} {:>10} {:>8}", "kind", "lines", "parse", "all", "growth");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let is_wanted = |kind: &str| wanted.is_empty() || wanted.iter().any(|name| name == kind);
    for (kind, write) in KINDS.iter().filter(|(kind, _)| is_wanted(kind)) {
        let (_, half) = times(&write(LINES / 2));
        let text = write(LINES);
        let (parse, all) = times(&text);
        let growth = all.as_secs_f64() / half.as_secs_f64();
        println!("{kind:<14} {:>7} {parse:>10.2?} {all:>10.2?} {growth:>8.1}", text.lines().count());
    }
}

/// The shortest of several runs: of parsing, and of all up to the plan.
fn times(text: &str) -> (Duration, Duration) {
    let source = || SourceText { name: "Dockerfile".to_string(), text: text.to_string() };
    let request = stand_in::request();
    let parse = shortest(|| frontend::parse::parse(source()));
    let all = shortest(|| match stand_in::build(source(), &request) {
        Ok(built) => built,
        Err(errors) => panic!("{errors:?}"),
    });
    (parse, all)
}

/// The shortest of several runs; what they make is there when the clock stops.
fn shortest<T>(work: impl Fn() -> T) -> Duration {
    let run = |_| {
        let start = Instant::now();
        let made = work();
        let time = start.elapsed();
        drop(made);
        time
    };
    (0..RUNS).map(run).min().unwrap_or_default()
}

type Kind = (&'static str, fn(usize) -> String);

const KINDS: &[Kind] = &[
    ("mixed", mixed),
    ("env", env),
    ("arg", arg),
    ("label", label),
    ("run", run),
    ("run-one", run_one),
    ("copy", copy),
    ("copy-one", copy_one),
    ("stages", stages),
    ("chain", chain),
    ("heredocs", heredocs),
    ("onbuild", onbuild),
    ("expose", expose),
    ("workdir", workdir),
];

fn file(head: &str, lines: usize, line: impl Fn(usize) -> String) -> String {
    (0..lines).fold(format!("{head}\n"), |mut text, number| {
        let _ = writeln!(text, "{}", line(number));
        text
    })
}

fn mixed(lines: usize) -> String {
    file("FROM alpine", lines, |n| match n % 5 {
        0 => format!("ENV NAME_{}=value-${{NAME_0:-none}}", n % 100),
        1 => format!("RUN make target-{n}"),
        2 => format!("COPY src/{n} ${{NAME_{}:-x}} /dst/{n}/", n % 100),
        3 => format!("LABEL label.{n}=\"a b c\""),
        _ => format!("WORKDIR /srv/{n}"),
    })
}

fn env(lines: usize) -> String {
    file("FROM alpine", lines, |n| format!("ENV NAME_{n}=value OTHER=${{NAME_{}:-none}}", n.saturating_sub(1)))
}

fn arg(lines: usize) -> String {
    file("FROM alpine", lines, |n| match n % 2 {
        0 => format!("ARG NAME_{n}=${{NAME_{}:-x}}", n.saturating_sub(2)),
        _ => format!("WORKDIR /w/${{NAME_{}}}", n - 1),
    })
}

fn label(lines: usize) -> String {
    file("FROM alpine", lines, |n| format!("LABEL a.b.{n}=\"some value\" c{n}=d"))
}

fn run(lines: usize) -> String {
    file("FROM alpine\nARG A=1 B=2\nENV C=3", lines, |n| format!("RUN --mount=type=cache,target=/c{n} echo {n} $A"))
}

/// One instruction over all lines.
fn run_one(lines: usize) -> String {
    file("FROM alpine\nRUN true \\", lines, |n| format!("    && echo {n} \"a b\" \\"))
}

fn copy(lines: usize) -> String {
    file("FROM alpine AS base\nFROM base", lines, |n| format!("COPY --from=base --chown=1:1 a{n} b*{n} /c/"))
}

fn copy_one(lines: usize) -> String {
    file("FROM alpine\nCOPY \\", lines, |n| format!("    file-{n} \\")) + "    /dst/\n"
}

/// Each copies from the one before it.
fn stages(lines: usize) -> String {
    file("FROM alpine AS s0", lines / 5, |n| {
        format!("FROM alpine AS s{}\nARG A=1\nENV B=$A\nCOPY --from=s{n} /x /x\nRUN make {n}", n + 1)
    })
}

/// Each is based on the one before it.
fn chain(lines: usize) -> String {
    file("FROM alpine AS s0", lines / 5, |n| {
        format!("FROM s{n} AS s{}\nENV B{}=x\nLABEL l{n}=x\nWORKDIR /w{n}\nRUN make {n}", n + 1, n % 20)
    })
}

fn heredocs(lines: usize) -> String {
    let body = "some text with $A and ${B:-default} in it\n".repeat(48);
    file("FROM alpine\nARG A=1", lines / 50, |n| match n % 2 {
        0 => format!("RUN <<EOF\n{body}EOF"),
        _ => format!("COPY <<EOF /d/{n}\n{body}EOF"),
    })
}

fn onbuild(lines: usize) -> String {
    let base = file("FROM alpine AS base", lines / 2, |n| format!("ONBUILD RUN make {n} $B"));
    base + &file("FROM base", lines / 2, |n| format!("RUN make {n}"))
}

fn expose(lines: usize) -> String {
    file("FROM alpine", lines, |n| format!("EXPOSE {} {}/udp", n % 60000 + 1, n % 60000 + 2))
}

fn workdir(lines: usize) -> String {
    file("FROM alpine", lines, |n| format!("WORKDIR /d{n}/e"))
}
