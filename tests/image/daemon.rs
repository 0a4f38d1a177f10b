//! A real dockerd over its socket: `--load` sends what it lacks, `docker-daemon://` takes what it has.

use harness::{Dockerd, Kiln, Tree, run, skip};

fn app() -> Tree {
    Tree::dockerfile("FROM busybox\nRUN echo moo > /cow\nENTRYPOINT [\"cat\", \"/cow\"]\n")
}

#[test]
fn a_dockerd_gets_what_it_lacks_and_gives_what_it_has() {
    let kiln = Kiln::new();
    let daemon = match Dockerd::start(&kiln.out("docker")) {
        Ok(daemon) => daemon,
        Err(reason) => skip!("dockerd does not start here: {reason}"),
    };
    let host = daemon.host();
    let load = |tree: &Tree, tags: &[&str]| {
        let build = kiln.build(tree).args(tags.iter().flat_map(|tag| ["-t", tag])).args(["--load"]);
        build.env("DOCKER_HOST", &host).progress("plain").ok().stderr
    };
    let first = load(&app(), &["kiln-test/cow:1", "kiln-test/cow:also"]);
    assert!(first.contains("sending image to dockerd ") && !first.contains("which has"), "{first}");
    for tag in ["1", "also"] {
        let name = format!("kiln-test/cow:{tag}");
        assert_eq!(run(daemon.docker().args(["run", "--rm", "--network=none", &name])), "moo\n");
    }
    let child =
        Tree::dockerfile("FROM busybox\nRUN echo moo > /cow\nRUN echo calf > /calf\nCMD [\"cat\", \"/calf\"]\n");
    let second = load(&child, &["kiln-test/calf"]);
    assert!(second.contains("which has 2 of 3 layers"), "{second}");
    assert_eq!(run(daemon.docker().args(["run", "--rm", "--network=none", "kiln-test/calf"])), "calf\n");
    let third = load(&child, &["kiln-test/calf:again"]);
    assert!(third.contains("which has 3 of 3 layers"), "{third}");

    // What was made in the daemon alone.
    let made = run(daemon.docker().args(["create", "--network=none", "kiln-test/calf"]));
    run(daemon.docker().args(["commit", "--change", "ENV FROM_DAEMON=yes", made.trim(), "kiln-test/inside:1"]));
    let on_it = Tree::dockerfile("FROM kiln-test/inside:1\nRUN cat /calf > /seen && echo $FROM_DAEMON >> /seen\n");
    let build = || kiln.build(&on_it).env("DOCKER_HOST", &host);
    let failed = build().fails();
    assert!(failed.stderr.contains("docker-daemon://kiln-test/inside:1"), "{}", failed.stderr);
    let context = ["--build-context", "kiln-test/inside:1=docker-daemon://kiln-test/inside:1"];
    let first = build().args(context).progress("plain").ok();
    assert!(first.stderr.contains("reading kiln-test/inside:1 from dockerd"), "{}", first.stderr);
    let second = build().args(context).progress("plain").ok();
    assert!(second.stderr.contains("kiln-test/inside:1 was read from dockerd before"), "{}", second.stderr);
    assert_eq!(build().args(context).image().text("/seen"), "calf\nyes\n");

    // Through archives, both ways.
    let (theirs, ours) = (kiln.out("theirs.tar"), kiln.out("ours.tar"));
    run(daemon.docker().args(["save", "-o"]).arg(&theirs).args(["kiln-test/cow:1", "kiln-test/inside:1"]));
    kiln.says("image", &["load", "-i", theirs.to_str().unwrap()]);
    kiln.says("image", &["save", "-o", ours.to_str().unwrap(), "kiln-test/inside:1"]);
    let id = |image: &str| run(daemon.docker().args(["inspect", "--format", "{{.Id}}", image]));
    let expect = id("kiln-test/inside:1");
    assert_eq!(kiln.says("image", &["ls", "-q", "--no-trunc", "--filter", "reference=kiln-test/inside"]), expect);
    run(daemon.docker().args(["rm", made.trim()]));
    run(daemon.docker().args(["rmi", "kiln-test/inside:1"]));
    run(daemon.docker().args(["load", "--quiet", "-i"]).arg(&ours));
    assert_eq!(id("kiln-test/inside:1"), expect);
}

#[test]
fn without_a_dockerd_nothing_is_built() {
    let kiln = Kiln::new();
    let failed = kiln.build(&app()).args(["--load"]).env("DOCKER_HOST", "unix:///there/is/none").fails();
    assert!(failed.stderr.contains("there is no dockerd here"), "{}", failed.stderr);
    assert!(failed.stderr.contains("DOCKER_HOST") && !failed.stderr.contains("echo moo"), "{}", failed.stderr);
    let context = ["--build-context", "busybox=docker-daemon://busybox"];
    let failed = kiln.build(&app()).args(context).env("DOCKER_HOST", "unix:///there/is/none").fails();
    assert!(failed.stderr.contains("there is no dockerd here"), "{}", failed.stderr);
}
