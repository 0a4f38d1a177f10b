//! Stages, platforms, contexts and triggers.

use super::*;
use crate::ast::Parsed;
use crate::op::{Op, Source};
use crate::span::SourceText;
use crate::testing::*;

fn platforms(names: &[&str]) -> CompileRequest {
    CompileRequest { platforms: names.iter().map(|name| platform(name)).collect(), ..request() }
}

fn context(name: &str, context: NamedContext) -> CompileRequest {
    CompileRequest { contexts: [(name.to_string(), context)].into(), ..request() }
}

fn target(name: &str) -> CompileRequest {
    CompileRequest { target: Some(name.into()), ..request() }
}

fn names_of(text: &str, request: &CompileRequest) -> Vec<String> {
    steps(&plan_with(text, request))
}

fn requests(text: &str, request: &CompileRequest) -> Vec<String> {
    let Parsed { dockerfile, .. } = crate::parse::parse(SourceText { name: String::new(), text: text.into() });
    match compile(&dockerfile, request, &Images::new()) {
        Ok(Compiled::NeedsTime(_)) => panic!("no epoch is given"),
        Ok(Compiled::NeedsImages(requests)) => {
            requests.into_iter().map(|request| format!("{} for {}", request.name, request.platform)).collect()
        }
        Ok(Compiled::Plan(_)) => vec![],
        Err(errors) => errors.into_iter().map(|error| error.message).collect(),
    }
}

#[test]
fn reachable_stages_only() {
    let text = "FROM unreachable AS never\nRUN ${X:?}\nCOPY a\u{20}b\nENV A=${X:?}\nFROM a AS b\nFROM c\n\
                COPY --from=b x y\nCOPY --from=img x y\nRUN --mount=from=img2,target=/x y";
    assert_eq!(
        requests(text, &request()),
        [
            "[internal] load metadata for docker.io/library/a:latest for linux/amd64",
            "[internal] load metadata for docker.io/library/c:latest for linux/amd64",
            "[internal] load metadata for docker.io/library/img:latest for linux/amd64",
            "[internal] load metadata for docker.io/library/img2:latest for linux/amd64",
        ]
    );
    assert_eq!(
        requests(text, &target("B")),
        ["[internal] load metadata for docker.io/library/a:latest for linux/amd64"]
    );
    assert_eq!(requests("FROM scratch", &request()), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_a_parse_error_and_what_cannot_be_built_is_not() {
    let messages = |text: &str| compile_with(text, &request(), image).err().map(|errors| errors[0].message.clone());
    assert_eq!(
        messages("FROM a\n\nSHELL x").unwrap(),
        "dockerfile parse error on line 3: SHELL requires the arguments to be in JSON form"
    );
    assert_eq!(
        messages("FROM a\nCOPY --chmod=9 a b").unwrap(),
        "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777"
    );
}

#[test]
fn errors_of_all_stages_at_once() {
    check_errors(
        "FROM a AS unused\nFOO\nCOPY x\nFROM b\nSHELL x",
        &[
            "unknown instruction: FOO (did you mean FROM?)",
            "COPY requires at least two arguments, but only one was provided. Destination could not be determined",
            "SHELL requires the arguments to be in JSON form",
        ],
    );
    check_errors(
        "FROM a\nEXPOSE x\nCOPY --chmod=9 a b",
        &[
            "invalid containerPort: x",
            "invalid chmod parameter: '9'. it should be octal string and between 0 and 07777",
        ],
    );
    check_errors("FNTRYPOINT x\nFROM a", &["unknown instruction: FNTRYPOINT (did you mean ENTRYPOINT?)"]);
    check_errors("RUN x\nFROM a", &["no build stage in current context: RUN stands before the first FROM"]);
    check_errors("ARG a=1", &["dockerfile contains no stages to build"]);
    check_errors(
        "FROM 1\nFROM A",
        &["failed to parse stage name \"A\": invalid reference format: repository name (library/A) must be lowercase"],
    );
    let both = errors_with("FROM a\nEXPOSE x", &platforms(&["linux/amd64", "linux/arm64"]));
    assert_eq!(both, ["invalid containerPort: x"], "an error that both platforms have is one error");
}

#[test]
fn targets() {
    let text = "FROM a AS one\nRUN 1\nFROM a AS two\nRUN 2\nFROM one AS one\nRUN 3";
    assert_eq!(names_of(text, &target("TWO")).last().unwrap(), "[two 2/2] RUN 2");
    assert_eq!(names_of(text, &target("one")).last().unwrap(), "[one 1/1] RUN 3");
    assert_eq!(errors_with(text, &target("tow")), ["target stage \"tow\" could not be found (did you mean two?)"]);
    assert_eq!(errors_with(text, &target("1")), ["target stage \"1\" could not be found"]);
}

#[test]
fn names_show_the_joined_line() {
    let check =
        |text: &str, expect: &str| assert_eq!(steps(&plan(&format!("FROM scratch\n{text}"))), [expect], "{text}");
    check("RUN\t\\\n  \n1", "[1/1] RUN\t1");
    check("RUN \\\n# c\n  a \\ \nb  ", "[1/1] RUN   a b");
    check("run --network=none \\\nx", "[1/1] RUN --network=none x");
    check("RUN --", "[1/1] RUN --");
}

#[test]
fn names_of_stages() {
    let text = "FROM x AS a\nRUN 1\nFROM y AS a\nRUN 2\nFROM a\nCOPY --from=A f g\nCOPY --from=0 f h";
    check_steps(
        text,
        &[
            "[a 1/2] FROM docker.io/library/x:latest@sha256:index",
            "[a 2/2] RUN 1",
            "[a 1/2] FROM docker.io/library/y:latest@sha256:index",
            "[a 2/2] RUN 2",
            "[stage-2 1/2] COPY --from=A f g",
            "[stage-2 2/2] COPY --from=0 f h",
        ],
    );
    // FROM is compared with the lower-case name, so this is an image.
    check_errors(
        "FROM a AS base\nFROM Base",
        &[
            "failed to parse stage name \"Base\": invalid reference format: repository name (library/Base) must be lowercase",
        ],
    );
}

#[test]
fn inherited_by_stages_on_stages() {
    let text = "FROM a AS s\nARG A=1\nENV E=2\nUSER u\nWORKDIR /w\nSHELL [\"z\"]\nFROM s\nRUN x";
    let plan = plan(text);
    let exec = last_exec(&plan);
    assert_eq!(env(exec), ["A=1", "PATH=/bin", "BASE=1", "E=2"]);
    assert_eq!((exec.user.as_str(), exec.cwd.as_str(), exec.args[0].as_str()), ("u", "/w", "z"));
    let image = &plan.results[0];
    assert_eq!(image.base_history_len, 1);
    assert_eq!(image.config.history.last().unwrap().created_by, "RUN |1 A=1 z x # buildkit");
    assert_eq!(image.config.config.env, ["PATH=/bin", "BASE=1", "E=2"]);
}

#[test]
fn equal_steps_are_one() {
    let plan = plan("FROM a AS x\nRUN 1\nFROM a AS y\nRUN 1\nFROM x\nCOPY --from=y f g");
    assert_eq!(plan.graph.len(), 3);
    let ignored = CompileRequest { no_cache: NoCache::IgnoreStages(["y".to_string()].into()), ..request() };
    let plan = plan_with("FROM a AS x\nRUN 1\nFROM a AS y\nRUN 1\nFROM x\nCOPY --from=y f g", &ignored);
    let flags: Vec<_> = (0..4).map(|i| plan.graph.value(solver::graph::VertexId(i)).ignore_cache).collect();
    assert_eq!(flags, [false, false, true, false]);
}

#[test]
fn several_platforms() {
    let text = "FROM --platform=$BUILDPLATFORM a AS build\nRUN make\nARG TARGETARCH\nRUN cross\n\
                FROM a\nCOPY --from=build x y";
    let plan = plan_with(text, &platforms(&["linux/amd64", "linux/arm64"]));
    assert_eq!(
        steps(&plan),
        [
            "[linux/amd64 build 1/3] FROM docker.io/library/a:latest@sha256:index",
            "[linux/amd64 build 2/3] RUN make",
            "[linux/amd64 build 3/3] RUN cross",
            "[linux/amd64 stage-1 2/2] COPY --from=build x y",
            "[linux/amd64->arm64 build 3/3] RUN cross",
            "[linux/arm64 stage-1 1/2] FROM docker.io/library/a:latest@sha256:index",
            "[linux/arm64 stage-1 2/2] COPY --from=build x y",
        ]
    );
    let shown: Vec<_> = plan.results.iter().map(|r| (r.platform.to_string(), r.config.architecture.clone())).collect();
    assert_eq!(shown, [("linux/amd64".into(), "amd64".into()), ("linux/arm64".into(), "arm64".to_string())]);
    assert_eq!(
        requests("FROM a", &platforms(&["linux/amd64", "linux/arm64"])),
        [
            "[linux/amd64 internal] load metadata for docker.io/library/a:latest for linux/amd64",
            "[linux/arm64 internal] load metadata for docker.io/library/a:latest for linux/arm64",
        ]
    );
}

#[test]
fn platform_of_the_image() {
    let check = |text: &str, request: &CompileRequest, expect: &str| {
        let image = plan_with(text, request).results.remove(0);
        let config = &image.config;
        let shown = format!("{} {}/{} {}", image.platform, config.os, config.architecture, config.variant);
        assert_eq!(shown.trim_end(), expect, "{text}");
    };
    check("FROM --platform=linux/arm/v7 a", &request(), "linux/arm/v7 linux/arm v7");
    check("FROM --platform=linux/arm/v7 a", &platforms(&["linux/amd64"]), "linux/amd64 linux/amd64");
    check("FROM --platform=linux/arm64 scratch", &request(), "linux/amd64 linux/amd64");
    check("FROM scratch", &platforms(&["linux/arm"]), "linux/arm/v7 linux/arm v7");
}

#[test]
fn named_contexts() {
    let image = |name: &str| NamedContext::Image(Some(Reference::parse(name).unwrap()));
    let first = |text: &str, request: &CompileRequest| names_of(text, request)[0].clone();
    let pinned = "[context a] docker.io/library/b:2@sha256:index";
    assert_eq!(first("FROM a\nRUN x", &context("a", image("b:2"))), pinned);
    assert_eq!(first("FROM docker.io/library/a:latest\nRUN x", &context("a", image("b:2"))), pinned);
    let from_s = "[stage-0 1/2] FROM docker.io/library/s:latest@sha256:index";
    assert_eq!(names_of("FROM s\nCOPY --from=a x y", &context("a", NamedContext::Local))[0], from_s);
    assert_eq!(
        requests("FROM a", &context("a", image("b:2"))),
        ["[context a] load metadata for docker.io/library/b:2 for linux/amd64"]
    );
    assert_eq!(requests("FROM a", &context("a::linux/amd64", NamedContext::OciLayout)).len(), 1);

    // A replaced stage is not built, nor is its base looked at.
    let text = "FROM missing AS a\nRUN false\nFROM b\nCOPY --from=a x y";
    let plan = plan_with(text, &context("a", NamedContext::Local));
    assert_eq!(
        steps(&plan),
        [
            "[context a] load from client",
            "[stage-1 1/2] FROM docker.io/library/b:latest@sha256:index",
            "[stage-1 2/2] COPY --from=a x y",
        ]
    );
    let local = plan.graph.reachable([plan.results[0].root.unwrap().vertex]).into_iter().next().unwrap();
    assert_eq!(plan.graph.value(local).op, Op::Source(Box::new(Source::Local { name: "a".into() })));

    // A directory as base is a bare tree; `scratch` is never replaced.
    let bare = plan_with("FROM a\nRUN x", &context("a", NamedContext::Local));
    assert_eq!(bare.results[0].base_history_len, 0);
    assert_eq!(names_of("FROM scratch\nRUN x", &context("scratch", NamedContext::Local)), ["[1/1] RUN x"]);
    assert_eq!(names_of("FROM a\nRUN x", &context("a", NamedContext::Image(None))), ["[1/1] RUN x"]);
}

#[test]
fn triggers_of_stages_and_images() {
    let text = "FROM a AS parts\nFROM a AS t\nONBUILD ARG V=1\nONBUILD COPY --from=parts p /p\nONBUILD CMD [\"c\"]\n\
                FROM t AS child\nENTRYPOINT [\"e\"]\nRUN x\nFROM child\nRUN y";
    check_steps(
        text,
        &[
            "[parts 1/1] FROM docker.io/library/a:latest@sha256:index",
            "[child 1/4] ONBUILD COPY --from=parts p /p",
            "[child 2/4] RUN x",
            "[stage-3 1/1] RUN y",
        ],
    );
    let child = plan(text).results.remove(0).config;
    assert_eq!((child.config.on_build.len(), child.config.cmd), (0, Some(vec!["c".to_string()])));

    let with_triggers = |triggers: &[&str]| {
        let triggers: Vec<_> = triggers.iter().map(|trigger| trigger.to_string()).collect();
        move |request: &ImageRequest| {
            let mut info = image(request);
            if request.name.ends_with("/t:latest") {
                info.config.config.on_build = triggers.clone();
            }
            info
        }
    };
    let image_of_t = with_triggers(&["COPY --from=other a b", "RUN <<E\nz\nE", "USER u"]);
    let plan = compile_with("FROM t\nONBUILD RUN own", &request(), image_of_t).unwrap();
    assert_eq!(steps(&plan)[2..], ["[2/4] ONBUILD COPY --from=other a b", "[3/4] ONBUILD RUN <<E (z)"]);
    assert_eq!(plan.results[0].config.config.on_build, ["RUN own"]);

    let failing = |triggers: &[&str]| -> Vec<(String, (usize, usize))> {
        let text = "# one\nFROM t";
        let source = SourceText { name: String::new(), text: text.into() };
        let errors = compile_with(text, &request(), with_triggers(triggers)).err().unwrap();
        errors.into_iter().map(|error| (error.message, source.lines(error.span.unwrap()))).collect()
    };
    assert_eq!(failing(&["FOO x"]), [("unknown instruction: FOO (did you mean FROM?)".to_string(), (2, 2))]);
    assert_eq!(failing(&["RUN a\nRUN b"]), [("onbuild trigger should be a single expression".to_string(), (2, 2))]);
    assert_eq!(failing(&["COPY --from=7 a b"]), [("invalid stage index 7".to_string(), (2, 2))]);
}

#[test]
fn bases_without_layers_or_path() {
    let empty = |request: &ImageRequest| {
        let mut info = image(request);
        info.config.rootfs.diff_ids = None;
        info.config.history[0].empty_layer = true;
        info.config.config.env.clear();
        info.config.config.working_dir = "app".into();
        info
    };
    let plan = compile_with("FROM a\nRUN x", &request(), empty).unwrap();
    assert_eq!(steps(&plan), ["[1/1] RUN x"]);
    assert_eq!(env(last_exec(&plan)), ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
    assert_eq!(last_exec(&plan).cwd, "/app");
    let scratch = plan_with(
        "FROM scratch\nLABEL a=b",
        &CompileRequest { labels: [("a".to_string(), "c".to_string())].into(), ..request() },
    );
    assert_eq!(scratch.results[0].root, None);
    assert_eq!(scratch.results[0].config.config.labels["a"], "c");
}

#[test]
fn circles() {
    check_errors(
        "FROM a AS x\nCOPY --from=y a b\nFROM a AS y\nCOPY --from=x a b",
        &["circular dependency detected on stage: x"],
    );
}

#[test]
fn names_close_to_that_of_an_image() {
    let text = "FROM a AS build\nFROM b\nCOPY --from=biuld x y";
    let Parsed { dockerfile, .. } = crate::parse::parse(SourceText { name: String::new(), text: text.into() });
    let check = |name: &str, expect: Option<&str>| {
        let location = ImageLocation::Registry(Reference::parse(name).unwrap());
        assert_eq!(similar_name(&dockerfile, &location).as_deref(), expect, "{name}");
    };
    check("biuld", Some("build"));
    check("alpin:latest", Some("alpine"));
    check("example.com/x", None);
}

#[test]
fn long_circles_need_no_stack() {
    let count = 20_000;
    let stage = |index: usize| format!("FROM scratch\nCOPY --from={} a b\n", (index + 1) % count);
    let text: String = (0..count).map(stage).collect();
    check_errors(&text, &["circular dependency detected on stage: stage-0"]);
}

#[test]
fn syntax_lines() {
    let check = |text: &str, request: &CompileRequest, fails: bool| {
        assert_eq!(!errors_with(text, request).is_empty(), fails, "{text}");
    };
    check("# syntax=docker/dockerfile:1.4-labs\nFROM a", &request(), false);
    check("# syntax=docker.io/docker/dockerfile-upstream:master\nFROM a", &request(), false);
    check("# syntax=example.com/frontend\nFROM a", &request(), true);
    check("# syntax=example.com/frontend\nFROM a", &with_args(&[("BUILDKIT_SYNTAX", "docker/dockerfile:1")]), false);
    check("FROM a", &with_args(&[("BUILDKIT_SYNTAX", "")]), true);
}

#[test]
fn epochs() {
    let check = |text: &str, args: &[(&str, &str)], expect: Option<i64>| {
        assert_eq!(plan_with(text, &with_args(args)).epoch, expect, "{text}");
    };
    check("FROM a", &[], None);
    check("FROM a", &[("SOURCE_DATE_EPOCH", "12")], Some(12));
    check("FROM a", &[("SOURCE_DATE_EPOCH", "")], None);
    check("FROM a", &[("SOURCE_DATE_EPOCH", "context")], None);
    check("ARG SOURCE_DATE_EPOCH=5\nFROM a", &[], Some(5));
    check("ARG SOURCE_DATE_EPOCH=5\nFROM a", &[("SOURCE_DATE_EPOCH", "6")], Some(6));
    assert_eq!(errors_with("FROM a", &with_args(&[("SOURCE_DATE_EPOCH", "x")])), ["invalid SOURCE_DATE_EPOCH: x"]);
    let declared = history_with("FROM a\nARG SOURCE_DATE_EPOCH", &with_args(&[("SOURCE_DATE_EPOCH", "12")]));
    assert_eq!(declared, ["ARG SOURCE_DATE_EPOCH=12 (empty)"]);
}

mod never_panics {
    use super::*;
    use proptest::prelude::*;

    const SEEDS: &[&str] = &[
        "ARG V=1\nFROM --platform=$BUILDPLATFORM a:${V:-2} AS b\nRUN --mount=type=cache,target=/c,id=$V x\nFROM b\n",
        "FROM a\nCOPY --link --chown=1:2 --chmod=u=rwX <<E \"f g\" /d/\n$X ${Y:-z}\nE\nADD https://h/x?y#z git@h:p .\n",
        "FROM a AS t\nONBUILD RUN <<-E\n\tx\n\tE\nFROM t\nHEALTHCHECK --interval=1m2s CMD [\"a\"]\nEXPOSE [::1]:1-2:3-4/UDP\n",
        "FROM scratch\nENV A=1 B='2' C=\"$A\"\nLABEL k v w\nWORKDIR ../x\nUSER :g\nVOLUME [\"/a\"]\nSTOPSIGNAL RTMIN+1\nSHELL [\"x\"]\n",
    ];
    const PIECES: &[&str] = &[
        "$", "{", "}", "\"", "'", "\\", "\n", " ", "--", "=", ",", "<<E", "[", "]", ":", "#", "/", "FROM ", "RUN ",
        "COPY ", "--from=0", "--mount=", "é", "\t", "-", "0", "ONBUILD ", "${", ":-", "%%", "//",
    ];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]
        #[test]
        fn on_mutated_dockerfiles(
            seed in 0..SEEDS.len(),
            edits in prop::collection::vec((any::<prop::sample::Index>(), 0..PIECES.len(), any::<bool>()), 1..6),
        ) {
            let mut text: Vec<char> = SEEDS[seed].chars().collect();
            for (place, piece, removes) in edits {
                let place = place.index(text.len() + 1);
                let end = if removes { (place + 3).min(text.len()) } else { place };
                text.splice(place..end, PIECES[piece].chars());
            }
            let text: String = text.into_iter().collect();
            for request in [request(), platforms(&["linux/amd64", "linux/arm64"])] {
                let _ = compile_with(&text, &request, image);
            }
        }
    }
}
