//! Remote caches in the cache service of GitHub Actions, of which [`ActionsCache`] is one on loopback.

use super::objects;
use harness::{ActionsCache, Finished, Image, Kiln, Tree};

/// Both versions of the service, as flags name them.
fn flags(service: &ActionsCache, scope: &str) -> [String; 2] {
    let (url, token) = (&service.url, ActionsCache::TOKEN);
    [
        format!("type=gha,version=1,url={url},token={token},scope={scope}"),
        format!("type=gha,url_v2={url},token={token},scope={scope}"),
    ]
}

fn context(number: usize) -> Tree {
    Tree::dockerfile(&format!("FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /a\nRUN echo {number} > /n\n"))
}

/// Nothing secret was said.
fn is_silent(built: &Finished) {
    let said = format!("{}{}{:?}", built.stderr, built.log(), built.warnings());
    assert!(!said.contains("-secret"), "{said}");
}

fn indexes(service: &ActionsCache) -> usize {
    service.keys().iter().filter(|key| key.starts_with("kiln-1-index-")).count()
}

#[test]
fn gha_does_what_every_store_does() {
    let service = ActionsCache::start();
    // In a scope of one version the other does not look, since entries are the same to both.
    for (number, place) in flags(&service, "some, scope").iter().enumerate() {
        let place = place.replace("some, scope", &format!("scope/{number}"));
        objects::check(&place);
        assert_eq!(service.faults(), [""; 0]);
    }
}

#[test]
fn gha_is_not_sent_what_it_has() {
    for version in [0, 1] {
        let service = ActionsCache::start();
        let place = &flags(&service, "buildkit")[version];
        let both = [format!("--cache-from={place}"), format!("--cache-to={place},mode=max,ignore-error=false")];
        let kiln = Kiln::new();
        is_silent(&kiln.build(&context(1)).args(&both).ok());
        let before = (service.uploads(), service.keys());
        assert_eq!((before.0, indexes(&service)), (3, 1), "two layers and an index: {:?}", before.1);
        // By the same machine, and by one that has it all from there.
        for kiln in [kiln, Kiln::new()] {
            kiln.build(&context(1)).args(&both).ok();
            assert_eq!((service.uploads(), service.keys()), before);
        }
        // One more step is one more layer, and one more index.
        let built = Kiln::new().build(&context(2)).args(&both).ok();
        assert_eq!(built.ran().len(), 1, "{:?}", built.ran());
        assert_eq!((service.uploads(), indexes(&service)), (5, 2), "{:?}", service.keys());
        assert_eq!(service.faults(), [""; 0]);
    }
}

#[test]
fn gha_writers_at_once_lose_nothing() {
    for version in [0, 1] {
        let service = ActionsCache::start();
        let place = &flags(&service, "writers")[version];
        let kilns: Vec<Kiln> = (0..4).map(|_| Kiln::new()).collect();
        let steps =
            |number| format!("FROM busybox\nRUN echo shared > /f\nRUN echo {number} > /g\nRUN cat /g /g > /h\n");
        let contexts: Vec<Tree> = (0..4).map(|number| Tree::dockerfile(&steps(number))).collect();
        let to = format!("--cache-to={place},mode=max,ignore-error=false");
        let builds = kilns.iter().zip(&contexts).map(|(kiln, context)| kiln.build(context).args([&to]).spawn());
        for build in builds.collect::<Vec<_>>() {
            let finished = Finished::wait(build);
            assert!(finished.status.success(), "{}", finished.stderr);
        }
        for context in &contexts {
            let built = Kiln::new().build(context).args([format!("--cache-from={place}")]).ok();
            assert!(built.ran().is_empty(), "{:?}", built.ran());
        }
        assert_eq!(service.faults(), [""; 0]);
    }
}

#[test]
fn gha_outlives_writers_that_died() {
    let service = ActionsCache::start();
    let place = &flags(&service, "died")[1];
    let to = |place: &str| format!("--cache-to={place},mode=max,ignore-error=false");
    let kiln = Kiln::new();
    kiln.build(&context(1)).args([to(place)]).ok();
    // One has reserved the next index.
    service.reserve_like(|key| key.strip_suffix("#1").map(|prefix| format!("{prefix}#2")));
    kiln.build(&context(2)).args([to(place)]).ok();
    let keys = service.keys();
    assert!(keys.iter().any(|key| key.starts_with("kiln-1-index-") && key.ends_with("#3")), "{keys:?}");
    for number in [1, 2] {
        let built = Kiln::new().build(&context(number)).args([format!("--cache-from={place}")]).ok();
        assert!(built.ran().is_empty(), "{:?}", built.ran());
    }
    // Another has reserved blobs that a cache is to have.
    let is_blob = |key: &str| key.starts_with("kiln-1-blob-");
    service.reserve_like(|key| is_blob(key).then(|| format!("aside {key}")));
    service.evict(is_blob);
    service.reserve_like(|key| key.strip_prefix("aside ").map(str::to_string));
    let place = place.replace("scope=died", "scope=other");
    let first = kiln.build(&context(1)).args([to(&place)]).image();
    assert_eq!(service.keys().iter().filter(|key| is_blob(key) && key.contains('#')).count(), 2);
    let second = Kiln::new().build(&context(1)).args([format!("--cache-from={place}")]).image();
    assert_eq!(first.manifest, second.manifest);
    assert_eq!(service.faults(), [""; 0]);
}

#[test]
fn gha_that_let_go_of_a_layer_gets_it_again() {
    let service = ActionsCache::start();
    let place = &flags(&service, "old")[1];
    let both = [format!("--cache-from={place}"), format!("--cache-to={place},mode=max,ignore-error=false")];
    Kiln::new().build(&context(1)).args(&both).ok();
    service.evict(|key| key.starts_with("kiln-1-blob-"));
    let kiln = Kiln::new();
    let archive = kiln.out("image.tar");
    let built = kiln.build(&context(1)).args(&both).output("oci", &archive).ok();
    built.says(&["WARNING: the cached layer of", "so the step runs: ", "the blob is not there any more"]);
    let made = Image::read(&archive).unwrap();
    let other = Kiln::new().build(&context(1)).args(&both[..1]).image();
    assert_eq!(other.text("/a"), made.text("/a"));
    assert_eq!(service.faults(), [""; 0]);
}

#[test]
fn gha_takes_layers_in_parts_and_waits_when_told_to() {
    let service = ActionsCache::start();
    let context = Tree::dockerfile("FROM busybox\nRUN head -c 40000000 /dev/zero > /big\n");
    for (number, place) in flags(&service, "parts").iter().enumerate() {
        let place = place.replace("scope=parts", &format!("scope={number}"));
        service.evict(|_| true);
        service.refuse(3);
        let to = format!("--cache-to={place},mode=max,compression=uncompressed,ignore-error=false");
        Kiln::new().build(&context).args([to]).ok();
        let kiln = Kiln::new();
        let archive = kiln.out("image.tar");
        let built = kiln.build(&context).args([format!("--cache-from={place}")]).output("oci", &archive).ok();
        assert!(built.ran().is_empty(), "{:?}", built.ran());
        assert_eq!(service.faults(), [""; 0]);
    }
    // Two parts and an index; two blocks, their list and an index.
    assert_eq!(service.uploads(), 3 + 4);
}

#[test]
fn gha_is_found_by_its_variables() {
    let service = ActionsCache::start();
    let variables: [&[(&str, &str)]; 3] = [
        &[("ACTIONS_CACHE_URL", &service.url)],
        &[
            ("ACTIONS_CACHE_SERVICE_V2", "True"),
            ("ACTIONS_CACHE_URL", "http://127.0.0.1:1/"),
            ("ACTIONS_RESULTS_URL", &service.url),
        ],
        &[("ACTIONS_RESULTS_URL", &service.url)],
    ];
    for (number, variables) in variables.into_iter().enumerate() {
        let build = |kiln: &Kiln, flag: String| {
            let all = [("ACTIONS_RUNTIME_TOKEN", ActionsCache::TOKEN)].into_iter().chain(variables.iter().copied());
            let tree = context(1);
            let build = kiln.build(&tree).args([flag]);
            all.fold(build, |build, (name, value)| build.env(name, value)).ok()
        };
        build(&Kiln::new(), format!("--cache-to=type=gha,scope={number},mode=max,ignore-error=false"));
        let built = build(&Kiln::new(), format!("--cache-from=type=gha,scope={number}"));
        assert!(built.ran().is_empty(), "{:?}", built.ran());
    }
}

#[test]
fn gha_outside_of_actions_is_told() {
    let kiln = Kiln::new();
    let built = kiln.build(&context(1)).args(["--cache-from=type=gha", "--cache-to=type=gha"]).ok();
    let names = "ACTIONS_RUNTIME_TOKEN and ACTIONS_RESULTS_URL are not set";
    let says = |start: &str| built.warnings().iter().any(|text| text.starts_with(start) && text.contains(names));
    assert!(says("nothing is imported from gha:buildkit"), "{:?}", built.warnings());
    assert!(says("the cache was not exported"), "{:?}", built.warnings());
    let failed = kiln.build(&context(1)).args(["--cache-to=type=gha,ignore-error=false"]).fails();
    failed.says(&["the cache was not exported to gha:buildkit", names]);
}

#[test]
fn gha_says_no_secret_when_it_fails() {
    let service = ActionsCache::start();
    for place in flags(&service, "wrong") {
        let place = place.replace(ActionsCache::TOKEN, "other-secret");
        let flags = [format!("--cache-from={place}"), format!("--cache-to={place}")];
        let built = Kiln::new().build(&context(1)).args(flags).ok();
        built.says(&["the cache was not exported", "401"]);
        is_silent(&built);
        assert!(built.warnings().iter().any(|text| text.contains("***")), "{:?}", built.warnings());
    }
}

#[test]
fn gha_that_takes_too_long_is_left() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let place = format!("type=gha,url_v2={url},token=t,timeout=1s");
    let built = Kiln::new().build(&context(1)).args([format!("--cache-from={place}")]).ok();
    assert!(built.warnings().iter().any(|text| text.contains("not done within 1 s")), "{:?}", built.warnings());
}
