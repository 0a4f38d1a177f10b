//! A second build, with nothing or something changed in between. Each build is a process of its own, so whatever is
//! found was found on disk.

use harness::{Finished, Kiln, Tree};

fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS base\nWORKDIR /w\nCOPY a a\nRUN cat a > b\nFROM base AS other\nRUN echo other > /o\n\
         FROM base\nCOPY c c\nRUN cat b c > d\nCOPY --from=other /o /o\n",
    )
    .file("a", "A")
    .file("c", "C")
    .file("unused", "U")
}

#[test]
fn nothing_runs_when_nothing_changed() {
    let kiln = Kiln::new();
    let first = kiln.build(&context()).ok();
    let second = kiln.build(&context()).ok();
    assert!(first.cached().is_empty(), "{:?}", first.cached());
    assert!(second.ran().is_empty(), "{:?}", second.ran());
    assert_eq!(first.ran(), second.cached());
}

#[test]
fn plain_progress_says_cached() {
    let kiln = Kiln::new();
    kiln.build(&context()).ok();
    let second = kiln.build(&context()).progress("plain").ok();
    assert_eq!(second.stderr.lines().filter(|line| line.ends_with(" CACHED")).count(), 7, "{}", second.stderr);
}

#[test]
fn only_what_depends_on_a_change_runs() {
    let kiln = Kiln::new();
    let context = context();
    kiln.build(&context).ok();
    context.write("unused", "changed");
    assert!(kiln.build(&context).ok().ran().is_empty());
    context.write("c", "changed");
    let ran = kiln.build(&context).ok().ran();
    assert!(
        ran.iter().any(|name| name.contains("COPY c c")) && ran.iter().any(|name| name.contains("RUN cat b c")),
        "{ran:?}"
    );
    assert!(!ran.iter().any(|name| name.contains("cat a") || name.contains("echo other")), "{ran:?}");
}

#[test]
fn touching_a_file_changes_nothing() {
    let kiln = Kiln::new();
    let context = context();
    kiln.build(&context).ok();
    let file = std::fs::File::options().write(true).open(context.join("a")).unwrap();
    file.set_modified(std::time::SystemTime::UNIX_EPOCH).unwrap();
    assert!(kiln.build(&context).ok().ran().is_empty());
}

#[test]
fn a_step_that_makes_the_same_again_stops_the_change() {
    let kiln = Kiln::new();
    let context =
        Tree::dockerfile("FROM busybox AS first\nCOPY a /tmp/a\nFROM busybox\nRUN --mount=from=first,source=/tmp,target=/m wc -c < /m/a > /size\nRUN cat /size > /copy\n")
            .file("a", "A");
    kiln.build(&context).ok();
    context.write("a", "B");
    let ran = kiln.build(&context).ok().ran();
    assert!(ran.iter().any(|name| name.contains("wc -c")) && !ran.iter().any(|name| name.contains("/copy")), "{ran:?}");
}

#[test]
fn no_cache_runs_all() {
    let kiln = Kiln::new();
    let first = kiln.build(&context()).ok();
    // As in BuildKit, the option is about RUN, COPY and ADD: the folder that WORKDIR makes may come from the cache.
    let ran = |finished: Finished| -> Vec<String> {
        finished.ran().into_iter().filter(|name| !name.contains("WORKDIR")).collect()
    };
    assert_eq!(ran(kiln.build(&context()).args(["--no-cache"]).ok()), ran(first));
}

#[test]
fn what_succeeded_before_a_failure_is_kept() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile("FROM busybox\nRUN echo 1 > /1\nRUN false\n");
    kiln.build(&context).fails();
    context.write("Dockerfile", "FROM busybox\nRUN echo 1 > /1\nRUN true\n");
    let cached = kiln.build(&context).ok().cached();
    assert!(cached.iter().any(|name| name.contains("echo 1")), "{cached:?}");
}

#[test]
fn unchanged_inputs_give_the_unchanged_image() {
    let kiln = Kiln::new();
    assert_eq!(kiln.image(&context()).digest, kiln.image(&context()).digest);
}
