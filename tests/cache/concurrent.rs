//! Several processes on one store.

use harness::{Finished, Image, Kiln, Tree};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, ExitStatus};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

#[test]
fn two_builds_of_the_same_run_it_once() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /uuid\n");
    let outputs = ["one.tar", "two.tar"].map(|name| kiln.out(name));
    let children = outputs.each_ref().map(|output| kiln.build(&context).output("oci", output).spawn());
    for child in children {
        let finished = Finished::wait(child);
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    let [one, two] = outputs.map(|output| Image::read(&output).unwrap().text("/uuid"));
    assert_eq!(one, two);
}

#[test]
fn eight_different_builds() {
    let kiln = Kiln::new();
    let builds: Vec<_> = (0..8)
        .map(|number| {
            let context =
                Tree::dockerfile("FROM busybox\nCOPY f /f\nRUN cat /f /f > /g\n").file("f", &format!("{number}"));
            let output = kiln.out(&format!("{number}.tar"));
            let child = kiln.build(&context).output("oci", &output).spawn();
            (context, output, child)
        })
        .collect();
    for (number, (_context, output, child)) in builds.into_iter().enumerate() {
        let finished = Finished::wait(child);
        assert!(finished.status.success(), "{}", finished.stderr);
        assert_eq!(Image::read(&output).unwrap().text("/g"), format!("{number}{number}"));
    }
}

/// A build that runs, whose progress is read meanwhile.
struct Watched {
    child: Child,
    lines: Receiver<String>,
    said: String,
}

impl Watched {
    fn start(mut child: Child) -> Watched {
        let stderr = BufReader::new(child.stderr.take().expect("standard error is a pipe"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Watched { child, lines, said: String::new() }
    }

    /// Waits for a line that ends so; gives all that was said up to it.
    fn until(&mut self, end: &str) -> &str {
        loop {
            let line = self.lines.recv_timeout(Duration::from_secs(60));
            let line = line.unwrap_or_else(|_| panic!("no line ends with {end:?}:\n{}", self.said));
            self.said.push_str(&format!("{line}\n"));
            if line.ends_with(end) {
                return &self.said;
            }
        }
    }

    fn end(mut self) -> (ExitStatus, String) {
        let status = self.child.wait().expect("wait for kiln");
        self.lines.iter().for_each(|line| self.said.push_str(&format!("{line}\n")));
        (status, self.said)
    }
}

/// A context whose step writes `first`, waits for the file `go` in its cache mount, and writes `last`.
fn held() -> Tree {
    Tree::dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c echo first; while [ ! -e /c/go ]; do sleep 0.05; done; \
         echo last; cat /proc/sys/kernel/random/uuid > /uuid\nRUN cat /uuid\n",
    )
}

/// Two builds of the same, of which the first runs the step and the second waits for it.
fn two_builds(kiln: &Kiln) -> (Tree, Watched, Watched) {
    let context = held();
    let mut first = Watched::start(kiln.build(&context).progress("plain").spawn());
    first.until(" first");
    let mut second = Watched::start(kiln.build(&context).progress("plain").spawn());
    let said = second.until(" first");
    assert!(said.contains("waiting for build 2") && said.contains(", which runs this step"), "{said}");
    (context, first, second)
}

fn let_go(kiln: &Kiln) {
    let mount = fs::read_dir(kiln.root().join("mounts")).unwrap().next().unwrap().unwrap().path();
    fs::write(mount.join("0/tree/go"), "").unwrap();
}

#[test]
fn a_second_build_follows_the_first_ones_log() {
    let kiln = Kiln::new();
    let (_context, first, second) = two_builds(&kiln);
    let_go(&kiln);
    for (build, end) in [(first, "DONE"), (second, "CACHED")] {
        let (status, said) = build.end();
        let last = said.lines().find(|line| line.ends_with(" last")).unwrap_or_else(|| panic!("{said}"));
        let number = last.split(' ').next().unwrap();
        assert!(status.success() && said.contains(&format!("\n{number} {end}")), "{said}");
    }
}

#[test]
fn who_waits_for_another_build_can_be_stopped() {
    let kiln = Kiln::new();
    let (_context, first, second) = two_builds(&kiln);
    let began = Instant::now();
    kill_process(Pid::from_child(&second.child), Signal::INT).unwrap();
    let (status, said) = second.end();
    assert_eq!(status.code(), Some(130), "{said}");
    assert!(began.elapsed() < Duration::from_secs(10), "it did not wait for the first one");
    let_go(&kiln);
    assert!(first.end().0.success());
}

#[test]
fn who_waits_runs_the_step_if_the_other_dies() {
    let kiln = Kiln::new();
    let (_context, mut first, second) = two_builds(&kiln);
    first.child.kill().unwrap();
    let_go(&kiln);
    let (status, said) = second.end();
    assert!(status.success() && said.contains(" last") && !said.contains("CACHED"), "{said}");
}

fn stages(count: usize, command: &str) -> Tree {
    let mut text = String::new();
    for number in 0..count {
        text.push_str(&format!("FROM busybox AS s{number}\nRUN {command} > /{number}; echo {number}\n"));
    }
    text.push_str("FROM scratch\n");
    (0..count).for_each(|number| text.push_str(&format!("COPY --from=s{number} /{number} /{number}\n")));
    Tree::dockerfile(&text)
}

#[test]
fn eight_that_wait_run_side_by_side() {
    let kiln = Kiln::new();
    // Each has to see all the others.
    let all = "--mount=type=cache,target=/c touch /c/$$; until [ $(ls /c | wc -l) -ge 8 ]; do sleep 0.02; done; date";
    let context = stages(8, "true");
    let text = context.read("Dockerfile").replace("RUN true", &format!("RUN {all}"));
    // Processes of different steps have the same number in their own namespaces.
    let named: String = text
        .lines()
        .map(|line| match line.rsplit_once("echo ") {
            Some((rest, number)) => format!("{}echo {number}\n", rest.replace("$$", number)),
            None => format!("{line}\n"),
        })
        .collect();
    context.write("Dockerfile", &named);
    kiln.build(&context).timeout(Duration::from_secs(60)).ok();
}

#[test]
fn jobs_bound_what_runs_at_once() {
    let kiln = Kiln::new();
    let context = stages(4, "sleep 0.3");
    let one = kiln.build(&context).args(["--jobs=1"]);
    let began = Instant::now();
    let built = one.ok();
    assert!(began.elapsed() >= Duration::from_millis(1200), "{:?}", began.elapsed());
    assert_eq!(built.ran().iter().filter(|name| name.contains("RUN sleep")).count(), 4);
    let refused = kiln.build(&context).args(["--jobs=0"]).run();
    assert_eq!(refused.status.code(), Some(2), "{}", refused.stderr);
    let plain = kiln.build(&context).args(["--no-cache", "-j", "1"]).progress("plain").ok();
    assert!(plain.stderr.contains("waiting: --jobs lets 1 run at once"), "{}", plain.stderr);
}

#[test]
fn what_took_long_before_goes_first() {
    let kiln = Kiln::new();
    let short: String = (1..=6).map(|n| format!("FROM busybox AS short{n}\nRUN echo {n} > /short\n")).collect();
    let copies: String = (1..=6).map(|n| format!("COPY --from=short{n} /short /{n}\n")).collect();
    let long = "FROM busybox AS long\nRUN sleep 1; date > /long\n";
    let context = Tree::dockerfile(&format!("{short}{long}FROM busybox\n{copies}COPY --from=long /long /long\n"));
    kiln.build(&context).args(["--jobs=1"]).ok();
    let steps = kiln.build(&context).args(["--jobs=1", "--no-cache"]).ok().steps();
    let done = |part: &str| &steps.iter().find(|(name, _)| name.contains(part)).expect("the step").1.completed;
    // Whoever asks first has the turn at once; those that wait for theirs then are in order.
    let before = (1..=6).filter(|n| done(&format!("RUN echo {n}")) < done("RUN sleep 1")).count();
    assert!(before <= 1, "{steps:?}");
}

#[test]
fn a_failure_stops_what_runs_and_what_waits() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS a\nRUN sleep 0.3; false\nRUN true\nFROM busybox AS b\nRUN sleep 100\nRUN true\nFROM busybox AS c\nRUN echo late\n\
         FROM scratch\nCOPY --from=a / /\nCOPY --from=b / /\nCOPY --from=c / /\n",
    );
    let began = Instant::now();
    let failed = kiln.build(&context).args(["--jobs=2"]).fails();
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
    assert!(failed.report().contains("exit code: 1"), "{}", failed.report());
    // Which two of the three begin depends on who asks first; the one that sleeps is stopped, or never begins.
    let canceled = failed.steps().into_iter().filter(|(_, step)| step.error.contains("context canceled"));
    assert!(canceled.into_iter().any(|(name, _)| name.contains("RUN sleep 100")));
}
