//! Remote caches that lose what they had, answer nothing, or are written by a build that dies.

use harness::{Kiln, Registry, Tree, wait_for_line};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;

const DOCKERFILE: &str = "FROM busybox AS build\nRUN echo first > /1\nRUN echo second > /2\n\
    FROM busybox\nRUN echo third > /3\nCOPY --from=build /1 /2 /\nRUN cat /1 /2 /3 > /4\n";

fn cache(registry: &Registry) -> [String; 2] {
    let place = format!("type=registry,ref={}/app:cache", registry.host);
    [format!("--cache-from={place}"), format!("--cache-to={place},mode=max,ignore-error=false")]
}

/// Layers of the cache, as files of the registry.
fn layers(registry: &Registry) -> Vec<PathBuf> {
    let body = registry.get_manifest("app", "cache").unwrap().body;
    let manifest: Value = serde_json::from_slice(&body).unwrap();
    assert!(manifest["layers"].is_array(), "{manifest}");
    let path = |layer: &Value| {
        let hex = layer["digest"].as_str().unwrap().strip_prefix("sha256:").unwrap();
        registry.storage().join(format!("data/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]))
    };
    manifest["layers"].as_array().unwrap().iter().map(path).collect()
}

fn busybox() -> Registry {
    let registry = Registry::start().unwrap();
    registry.push(&harness::bases::busybox(&["amd64"]).unwrap(), "library/busybox", "latest").unwrap();
    registry
}

/// A build that needs all of the files.
fn result(kiln: &Kiln, cache: &[String]) -> (String, harness::Finished) {
    let folder = kiln.out("files");
    let context = Tree::dockerfile(DOCKERFILE);
    let built = kiln.build(&context).args(cache).output("local", &folder).ok();
    (fs::read_to_string(folder.join("4")).unwrap(), built)
}

#[test]
fn what_a_cache_has_lost_is_made_again() {
    let registry = busybox();
    let config = registry.kiln_toml();
    let flags = cache(&registry);
    result(&Kiln::with_config(&config), &flags);
    for damage in [|_: &[u8]| None, |good: &[u8]| Some(good.iter().map(|byte| byte ^ 0x55).collect::<Vec<u8>>())] {
        let files = layers(&registry);
        assert_eq!(files.len(), 5);
        for file in &files {
            let good = fs::read(file).unwrap();
            match damage(&good) {
                None => fs::remove_file(file).unwrap(),
                Some(bad) => fs::write(file, bad).unwrap(),
            }
        }
        let kiln = Kiln::with_config(&config);
        let (text, built) = result(&kiln, &flags);
        assert_eq!(text, "first\nsecond\nthird\n");
        built.says(&["WARNING: the cached layer of", "cannot be had, so the step runs"]);
        kiln.says("debug", &["verify"]);
        // What was made again is in the cache now.
        let (text, built) = result(&Kiln::with_config(&config), &flags[..1]);
        assert_eq!(text, "first\nsecond\nthird\n");
        assert!(!built.report().contains("WARNING: the cached"), "{}", built.report());
        assert!(built.ran().is_empty(), "{:?}", built.ran());
    }
}

#[test]
fn one_lost_layer_does_not_stop_other_steps() {
    let registry = busybox();
    let config = registry.kiln_toml();
    let dockerfile = |last: &str| {
        format!(
            "FROM busybox AS slow\nRUN echo slow > /slow; sleep {last}\nFROM busybox AS build\nRUN echo lost > /lost\n\
             RUN cat /lost > /found{last}\nFROM busybox\nCOPY --from=slow /slow /\nCOPY --from=build /found{last} /\n"
        )
    };
    let flags = cache(&registry);
    Kiln::with_config(&config).build(&Tree::dockerfile(&dockerfile("0"))).args(&flags).ok();
    layers(&registry).iter().for_each(|file| fs::remove_file(file).unwrap());
    let kiln = Kiln::with_config(&config);
    let folder = kiln.out("files");
    let built = kiln.build(&Tree::dockerfile(&dockerfile("2"))).args(&flags[..1]).output("local", &folder).ok();
    assert_eq!(fs::read_to_string(folder.join("found2")).unwrap(), "lost\n");
    let slow = built.steps().into_iter().find(|(name, _)| name.contains("sleep 2")).unwrap().1;
    assert!(slow.error.is_empty(), "{slow:?}");
}

#[test]
fn a_cache_that_is_down_is_a_warning() {
    let registry = busybox();
    let config = registry.kiln_toml();
    let down = ["--cache-from", "--cache-to"].map(|flag| format!("{flag}=type=registry,ref=127.0.0.1:1/app:cache"));
    let kiln = Kiln::with_config(&config);
    let (text, built) = result(&kiln, &down);
    assert_eq!(text, "first\nsecond\nthird\n");
    assert!(built.warnings().iter().any(|warning| warning.contains("nothing is imported from 127.0.0.1:1/app:cache")));
    built.says(&["WARNING: the cache was not exported to 127.0.0.1:1/app:cache: "]);
    let failing = format!("{},ignore-error=false", down[1]);
    kiln.build(&Tree::dockerfile(DOCKERFILE)).args([failing]).fails().says(&["the cache was not exported"]);
}

#[test]
fn a_killed_export_leaves_the_cache_as_it_was() {
    let registry = busybox();
    let config = registry.kiln_toml();
    let flags = cache(&registry);
    result(&Kiln::with_config(&config), &flags);
    let before = registry.get_manifest("app", "cache").unwrap().body;
    let kiln = Kiln::with_config(&config);
    let killed = Tree::dockerfile(&format!("{DOCKERFILE}RUN echo more > /5\nRUN echo now; sleep 100\n"));
    let mut child = kiln.build(&killed).args(&flags).progress("plain").spawn();
    wait_for_line(&mut child, " now");
    kill_process(Pid::from_child(&child), Signal::KILL).unwrap();
    child.wait().unwrap();
    assert_eq!(registry.get_manifest("app", "cache").unwrap().body, before);
    let (text, built) = result(&kiln, &flags);
    assert_eq!((text.as_str(), built.ran().len()), ("first\nsecond\nthird\n", 0));
    kiln.says("debug", &["verify"]);
}

#[test]
fn a_killed_import_leaves_nothing_bad() {
    let registry = busybox();
    let config = registry.kiln_toml();
    let flags = cache(&registry);
    let dockerfile = "FROM busybox\nRUN dd if=/dev/urandom of=/big bs=1024k count=48 && sha256sum /big > /sum\n";
    Kiln::with_config(&config).build(&Tree::dockerfile(dockerfile)).args(&flags).ok();
    let needs = Tree::dockerfile(&format!("{dockerfile}RUN sha256sum -c /sum && echo good > /good\n"));
    let kiln = Kiln::with_config(&config);
    for milliseconds in [60, 120, 180, 240, 300, 400, 500] {
        let mut child = kiln.build(&needs).args(&flags[..1]).spawn();
        std::thread::sleep(std::time::Duration::from_millis(milliseconds));
        // It may have ended.
        let _ = child.kill();
        child.wait().unwrap();
    }
    let folder = kiln.out("files");
    let built = kiln.build(&needs).args(&flags[..1]).output("local", &folder).ok();
    assert!(!built.ran().iter().any(|name| name.contains("dd if")), "{:?}", built.ran());
    assert_eq!(fs::read_to_string(folder.join("good")).unwrap(), "good\n");
    kiln.says("debug", &["verify"]);
}
