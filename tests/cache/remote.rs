//! `--cache-from` and `--cache-to`: what one machine built, another does not. Every [`Kiln`] is a machine with a store of
//! its own.

use harness::{Finished, Image, Kiln, Registry, Tree, sha256, skip};
use serde_json::Value;
use std::fs;
use std::path::Path;

/// Two stages, of which the second takes a file of the first.
fn context() -> Tree {
    Tree::dockerfile(
        "FROM busybox AS build\nWORKDIR /src\nCOPY a a\nRUN cat a a > b && cat /proc/sys/kernel/random/uuid >> b\n\
         FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /one\nCOPY --from=build /src/b /b\n\
         RUN cat /b /one > /two\nCOPY --link a /linked\n",
    )
    .file("a", "A\n")
}

fn reference(name: &str) -> String {
    format!("{}/cache/{name}", Registry::shared().host)
}

fn from(name: &str) -> String {
    format!("--cache-from=type=registry,ref={}", reference(name))
}

fn to(name: &str) -> String {
    format!("--cache-to=type=registry,ref={},ignore-error=false", reference(name))
}

/// What is in a store of what builds make.
fn holds(kiln: &Kiln, folder: &str) -> usize {
    fs::read_dir(kiln.root().join(folder)).map_or(0, Iterator::count)
}

/// Steps that ran. Putting linked layers on others is none.
fn ran(built: &Finished) -> Vec<String> {
    built.ran().into_iter().filter(|name| !name.contains("] LINK ")).collect()
}

fn is_clean(kiln: &Kiln) {
    kiln.says("debug", &["verify"]);
}

#[test]
fn another_machine_runs_no_step_and_fetches_nothing_it_does_not_need() {
    let (one, two) = (Kiln::new(), Kiln::new());
    let image = |kiln: &Kiln, tag: &str| {
        let name = reference(&format!("two:{tag}"));
        let flags = [format!("--tag={name}"), "--push".into(), from("two:cache"), to("two:cache") + ",mode=max"];
        let built = kiln.build(&context()).args(flags).ok();
        (built, sha256(&Registry::shared().get_manifest("cache/two", tag).unwrap().body))
    };
    let (first, pushed) = image(&one, "one");
    assert_eq!(ran(&first).len(), 7, "{:?}", ran(&first));
    assert!(first.warnings().iter().any(|warning| warning.contains("is not there yet")), "{:?}", first.warnings());
    let (second, again) = image(&two, "two");
    assert!(ran(&second).is_empty(), "{:?}", ran(&second));
    assert_eq!(second.cached().len(), 7);
    assert_eq!(pushed, again, "the same image, down to the last bit");
    assert_eq!(holds(&two, "snapshots"), 0, "nothing was unpacked");
    // Three documents of the image that was made, and two of the base.
    assert!(holds(&two, "blobs/sha256") <= 5, "no layer was fetched");

    // The files are there when they are wanted, and what is below is there to build on.
    let three = Kiln::new();
    let extended = context();
    extended
        .write("Dockerfile", &(fs::read_to_string(extended.join("Dockerfile")).unwrap() + "RUN cat /two > /three\n"));
    let archive = three.out("image.tar");
    let third = three.build(&extended).args([from("two:cache")]).output("oci", &archive).ok();
    assert_eq!(ran(&third).len(), 1, "{:?}", ran(&third));
    let image = Image::read(&archive).unwrap();
    assert_eq!(image.text("/three"), image.text("/two"));
    assert!(image.text("/two").starts_with("A\nA\n"));
    is_clean(&three);
    // The layers of the first stage are needed by nothing.
    assert_eq!(holds(&three, "snapshots"), 6);
    // What has come stays, with its records.
    let archive = three.out("again.tar");
    let again = three.build(&extended).output("oci", &archive).ok();
    assert!(again.cached().iter().any(|name| name.contains("> /one")), "{:?}", again.ran());
}

#[test]
fn what_is_exported_again_unchanged_is_not_written() {
    let kiln = Kiln::new();
    let flags = || [to("unchanged:cache") + ",mode=max"];
    kiln.build(&context()).args(flags()).ok();
    let manifest = || sha256(&Registry::shared().get_manifest("cache/unchanged", "cache").unwrap().body);
    let before = manifest();
    let uploads = |built: &Finished| built.stderr.matches("writing cache manifest").count();
    let second = kiln.build(&context()).args(flags()).ok();
    assert_eq!((manifest(), uploads(&second)), (before.clone(), 0));
    // Nor by a machine that has it all from there.
    let other = Kiln::new();
    let third = other.build(&context()).args(flags()).args([from("unchanged:cache")]).ok();
    assert_eq!((manifest(), uploads(&third)), (before, 0));
    assert_eq!(holds(&other, "snapshots"), 0);
}

#[test]
fn writers_at_once_lose_nothing() {
    let context = |number: usize| {
        Tree::dockerfile(&format!("FROM busybox\nRUN echo shared > /f\nRUN echo {number} > /g\nRUN cat /g /g > /h\n"))
    };
    let kilns: Vec<Kiln> = (0..6).map(|_| Kiln::new()).collect();
    let contexts: Vec<Tree> = (0..6).map(context).collect();
    let flags = [to("writers:cache") + ",mode=max", from("writers:cache")];
    let builds: Vec<_> =
        kilns.iter().zip(&contexts).map(|(kiln, context)| kiln.build(context).args(&flags).spawn()).collect();
    for build in builds {
        let finished = Finished::wait(build);
        assert!(finished.status.success(), "{}", finished.stderr);
    }
    let reader = Kiln::new();
    for context in &contexts {
        let built = reader.build(context).args([from("writers:cache")]).ok();
        assert!(ran(&built).is_empty(), "{:?}", ran(&built));
    }
}

#[test]
fn a_folder() {
    let one = Kiln::new();
    let folder = one.out("cache");
    let to = format!("--cache-to=type=local,dest={},mode=max,compression=zstd,ignore-error=false", folder.display());
    let from = format!("--cache-from=type=local,src={}", folder.display());
    assert_eq!(ran(&one.build(&context()).args([&to]).ok()).len(), 7);
    let layers = |folder: &Path| {
        let read = |path: &Path| serde_json::from_slice::<Value>(&fs::read(path).unwrap()).unwrap();
        let index = read(&folder.join("index.json"));
        assert_eq!(index["manifests"][0]["annotations"]["org.opencontainers.image.ref.name"], "latest");
        let digest = index["manifests"][0]["digest"].as_str().unwrap().replace(':', "/");
        read(&folder.join("blobs").join(digest))["layers"].as_array().unwrap().clone()
    };
    assert!(layers(&folder).iter().all(|layer| layer["mediaType"].as_str().unwrap().ends_with("+zstd")));
    assert_eq!(layers(&folder).len(), 7);
    // The image's own compression does not depend on that of the cache.
    let two = Kiln::new();
    let archive = two.out("image.tar");
    let built = two.build(&context()).args([&from]).output("oci", &archive).ok();
    assert!(ran(&built).is_empty(), "{:?}", ran(&built));
    let fresh = one.image(&context());
    assert_eq!(Image::read(&archive).unwrap().manifest, fresh.manifest);
    is_clean(&two);

    // Another build adds to it, and with reset throws away what nothing names.
    fs::write(folder.join("blobs/sha256").join("0".repeat(64)), "stray").unwrap();
    let other = Tree::dockerfile("FROM busybox\nRUN echo other > /o\n");
    one.build(&other).args([to + ",reset=true"]).ok();
    assert_eq!(layers(&folder).len(), 8);
    assert!(!folder.join("blobs/sha256").join("0".repeat(64)).exists());
    assert_eq!(fs::read_dir(folder.join("blobs/sha256")).unwrap().count(), 8 + 2);
    assert!(ran(&Kiln::new().build(&other).args([from]).ok()).is_empty());
}

#[test]
fn inside_of_the_image() {
    let one = Kiln::new();
    let name = reference("inline:app");
    let push = |kiln: &Kiln, cache: &[String]| {
        let built = kiln.build(&context()).args([format!("--tag={name}"), "--push".into()]).args(cache).ok();
        (built, sha256(&Registry::shared().get_manifest("cache/inline", "app").unwrap().body))
    };
    let (_, without) = push(&one, &[]);
    let (_, with) = push(&one, &["--cache-to=type=inline".into()]);
    assert_ne!(without, with);
    let two = Kiln::new();
    // Stages beside the image are known too: nothing needs their files.
    let (built, again) = push(&two, &["--cache-to=type=inline".into(), format!("--cache-from={name}")]);
    assert!(ran(&built).is_empty(), "{:?}", ran(&built));
    assert_eq!(again, with);
    assert_eq!(holds(&two, "snapshots"), 0);
    // A change in the first stage needs files that nobody has: those steps run, and only those.
    let three = Kiln::new();
    let changed = context();
    let text = fs::read_to_string(changed.join("Dockerfile")).unwrap();
    changed.write(
        "Dockerfile",
        &text.replace(">> b\nFROM", ">> b\nRUN cat b b > c\nFROM").replace("/src/b /b", "/src/c /b"),
    );
    let built = three.build(&changed).args([format!("--cache-from={name}")]).ok();
    assert!(built.cached().iter().any(|name| name.contains("> /one")), "{:?}", built.cached());
    is_clean(&three);
}

#[test]
fn min_has_the_layers_of_the_result() {
    let kiln = Kiln::new();
    kiln.build(&context()).args([to("min:cache")]).ok();
    let body = Registry::shared().get_manifest("cache/min", "cache").unwrap().body;
    let manifest: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(manifest["layers"].as_array().unwrap().len(), 4);
    let other = Kiln::new();
    assert!(ran(&other.build(&context()).args([from("min:cache")]).ok()).is_empty());
}

#[test]
fn layers_are_those_of_the_pushed_image() {
    let kiln = Kiln::new();
    let flags =
        [format!("--output=type=registry,name={},compression=zstd", reference("shared:app")), to("shared:cache")];
    kiln.build(&context()).args(flags).ok();
    let layers = |tag: &str| {
        let body = Registry::shared().get_manifest("cache/shared", tag).unwrap().body;
        let manifest: Value = serde_json::from_slice(&body).unwrap();
        let digest = |layer: &Value| layer["digest"].as_str().unwrap().to_string();
        manifest["layers"].as_array().unwrap().iter().map(digest).collect::<Vec<_>>()
    };
    let image = layers("app");
    assert!(layers("cache").iter().all(|layer| image.contains(layer)));
}

#[test]
fn what_is_no_cache_is_passed_over() {
    let registry = Registry::shared();
    let blob = b"{}";
    registry.put_blob("cache/other", &sha256(blob), blob).unwrap();
    let manifest = |config: &str| {
        format!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",
            "config":{{"mediaType":"{config}","digest":"{}","size":2}},"layers":[]}}"#,
            sha256(blob)
        )
    };
    let put = |tag: &str, config: &str| {
        let kind = "application/vnd.oci.image.manifest.v1+json";
        registry.put_manifest("cache/other", tag, kind, manifest(config).as_bytes()).unwrap();
    };
    put("buildkit", "application/vnd.buildkit.cacheconfig.v0");
    put("image", "application/vnd.oci.image.config.v1+json");
    put("chart", "application/vnd.cncf.helm.config.v1+json");
    let context = Tree::dockerfile("FROM busybox\nRUN echo 1 > /f\n");
    for (tag, says) in [
        ("buildkit", "a cache of BuildKit"),
        ("image", "an image without cache"),
        ("chart", "helm"),
        ("none", "not there"),
    ] {
        let built = Kiln::new().build(&context).args([from(&format!("other:{tag}"))]).ok();
        assert_eq!(ran(&built).len(), 1);
        assert!(built.warnings().iter().any(|warning| warning.contains(says)), "{tag}: {:?}", built.warnings());
    }
    // Nor is it overwritten, but for another kind of cache.
    for tag in ["image", "chart"] {
        let kiln = Kiln::new();
        kiln.build(&context).args([to(&format!("other:{tag}"))]).fails().says(&["the cache was not exported"]);
        let warned = format!("--cache-to=type=registry,ref={}", reference(&format!("other:{tag}")));
        kiln.build(&context).args([warned]).ok().says(&["WARNING: the cache was not exported to", "not overwritten"]);
    }
    Kiln::new().build(&context).args([to("other:buildkit")]).ok();
    assert!(ran(&Kiln::new().build(&context).args([from("other:buildkit")]).ok()).is_empty());
}

#[test]
fn what_cannot_be_honoured_is_refused() {
    let check = |flag: &str, says: &str| {
        let built = Kiln::new().build(&Tree::dockerfile("FROM scratch\nLABEL a=1\n")).args([flag]).fails();
        assert!(built.stderr.contains(says), "{flag}: {}", built.stderr);
    };
    check("--cache-to=type=registry", "ref is required");
    check("--cache-to=type=registry,ref=a/b,image-manifest=false", "image-manifest");
    check("--cache-to=type=registry,ref=a/b,moed=max", "unknown attribute moed");
    check("--cache-to=type=registry,ref=a/b,mode=most", "min or max");
    check("--cache-to=type=nowhere", "unknown cache exporter: \"nowhere\"");
    check("--cache-to=type=gha,ghtoken=secret", "leave it out");
    check("--cache-from=type=gha,version=3", "it must be 1 or 2");
    check("--cache-from=type=gha,token=t,url_v2=nowhere", "must be a URL");
    check("--cache-to=type=s3,bucket=b,region=r,access_key_id=a,secret_access_key=s,touch_refresh=1h", "touch_refresh");
    check("--cache-from=type=azblob,account_name=a", "secret_access_key is required");
    check("--cache-from=type=nowhere", "unknown cache importer: \"nowhere\"");
    check("--cache-from=type=inline", "type=registry");
    check("--cache-from=type=local", "src is required");
    check("--cache-to=ref=x", "type is required");
}

#[test]
fn secrets_and_arguments_do_not_travel() {
    let kiln = Kiln::new();
    let context = Tree::dockerfile(
        "FROM busybox AS build\nARG TOKEN\nRUN --mount=type=secret,id=s test -s /run/secrets/s && echo $TOKEN | wc -c > /n\n\
         FROM busybox\nCOPY --from=build /n /n\n",
    )
    .file("secret", "hunter2-secret");
    let folder = kiln.out("cache");
    let flags = [
        "--secret=id=s,src=secret".to_string(),
        "--build-arg=TOKEN=hunter2-argument".to_string(),
        format!("--cache-to=type=local,dest={},mode=max,compression=uncompressed", folder.display()),
    ];
    kiln.build(&context).args(flags).ok();
    let mut count = 0;
    for entry in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
        let bytes = fs::read(entry.unwrap().path()).unwrap();
        assert!(!bytes.windows(7).any(|window| window == b"hunter2"));
        count += 1;
    }
    // Both layers are the same file, and so one blob.
    assert_eq!(count, 2 + 1);
}

#[test]
fn cache_mounts_travel_if_asked_to() {
    let dockerfile = |number: u32| {
        Tree::dockerfile(&format!(
            "FROM busybox\nRUN --mount=type=cache,target=/c,uid=7 ls /c > /before; echo {number} > /c/{number}; \\\n\
             mkdir -p /c/d && ln -sf ../1 /c/d/link && chmod 640 /c/{number}\n"
        ))
    };
    let place = |name: &str| format!("type=registry,ref={}", reference(name));
    let before = |kiln: &Kiln, number: u32, flags: &[String]| {
        let archive = kiln.out("image.tar");
        kiln.build(&dockerfile(number)).args(flags).output("oci", &archive).ok();
        Image::read(&archive).unwrap().text("/before")
    };
    let mounts = |name: &str| {
        let body = Registry::shared().get_manifest("cache/mounts", name).unwrap().body;
        serde_json::from_slice::<Value>(&body).unwrap()["layers"].as_array().unwrap().len()
    };
    let to = |name: &str| format!("--cache-to={},mounts=true,ignore-error=false", place(name));
    let from = |name: &str| format!("--cache-from={}", place(name));
    let one = Kiln::new();
    assert_eq!(before(&one, 1, &[to("mounts:yes"), format!("--cache-to={}", place("mounts:no"))]), "");
    assert_eq!((mounts("yes"), mounts("no")), (2, 1));
    // A fresh machine begins with it, and hands on what it adds.
    let two = Kiln::new();
    assert_eq!(before(&two, 2, &[from("mounts:yes"), to("mounts:yes")]), "1\nd\n");
    let three = Kiln::new();
    assert_eq!(before(&three, 3, &[from("mounts:yes")]), "1\n2\nd\n");
    // A machine that has contents of its own keeps them; and one may do without.
    assert_eq!(before(&one, 4, &[from("mounts:yes")]), "1\nd\n");
    assert_eq!(before(&Kiln::new(), 5, &[from("mounts:yes") + ",mounts=false"]), "");
    assert_eq!(before(&Kiln::new(), 6, &[from("mounts:yes"), "--no-cache".into()]), "");
    // What did not change is not sent again.
    let same = Tree::dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,uid=7 ls /c/d > /f\n");
    let body = || Registry::shared().get_manifest("cache/mounts", "yes").unwrap().body;
    two.build(&same).args([to("mounts:yes")]).ok();
    let sent = body();
    two.build(&Tree::dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,uid=7 ls /c/d > /g\n"))
        .args([to("mounts:yes")])
        .ok();
    let blobs = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap()["layers"].as_array().unwrap().len();
    assert_eq!(blobs(&body()), blobs(&sent) + 1, "a step's layer, and no other mount");
}

#[test]
fn by_an_ordinary_user() {
    let users = (Kiln::as_user(), Kiln::as_user());
    let (Ok(one), Ok(two)) = users else { skip!("{}", users.0.err().unwrap_or_default()) };
    let context = Tree::dockerfile(
        "FROM busybox\nRUN --mount=type=cache,target=/c ls -n /c > /before; echo 1 > /c/1; chown 5:6 /c/1\n\
         RUN echo a > /a && chown 7:8 /a && mkdir /d && echo b > /d/b\nRUN rm -r /d && mkdir /d && cat /a > /d/c\n",
    );
    let flags = [from("user:cache"), to("user:cache") + ",mode=max,mounts=true"];
    let first = one.build(&context).args(&flags).image();
    assert_eq!(two.build(&context).args(&flags).image().manifest, first.manifest);
    context.write("Dockerfile", "FROM busybox\nRUN --mount=type=cache,target=/c ls -n /c > /after\n");
    let archive = two.out("image.tar");
    assert!(!two.build(&context).args(&flags).output("oci", &archive).ok().ran().is_empty());
    let after = Image::read(&archive).unwrap().text("/after");
    let words: Vec<&str> = after.split_whitespace().collect();
    assert!(words.windows(2).any(|pair| pair == ["5", "6"]), "{after}");
    is_clean(&two);
}
