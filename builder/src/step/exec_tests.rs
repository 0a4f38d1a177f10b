//! Runs commands of a root made of a static busybox.

use super::*;
use crate::progress::{Event, Progress};
use crate::sandbox::syscall;
use bench::{Bench, exec};
use frontend::op::{Mount, MountKind, Network, SecretEnv, Sharing};
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::sync::Arc;

#[path = "exec_bench.rs"]
mod bench;

#[tokio::test]
async fn changes_are_in_the_layer_and_nothing_else() {
    let Some(mut bench) = Bench::new() else { return };
    let etc = bench.layers[0].join("etc").metadata().unwrap();
    let ran = bench.run(&exec("test -s /etc/hosts && test -e /etc/resolv.conf && test -c /dev/null"), vec![]).await;
    assert!(ran.result.is_ok(), "{}", ran.error());
    assert_eq!(ran.paths(), [""; 0]);
    let ran = bench.run(&exec("echo x > /new; rm /etc/group; touch /etc/other; echo out; echo err >&2"), vec![]).await;
    assert_eq!(ran.paths(), ["/etc", "/etc/group", "/etc/other", "/new"]);
    assert!(ran.upper.join("etc/group").symlink_metadata().unwrap().file_type().is_char_device());
    assert!(ran.log.contains("out\n") && ran.log.contains("err\n"));
    assert_eq!(ran.upper.join("etc").metadata().unwrap().mode(), etc.mode());
    let text = bench.sh("stat -c '%a %Y' /").await;
    assert!(text.starts_with("755 "), "{text}");
    assert_eq!(bench.sh("ls /etc; echo $$").await, "hosts\nother\npasswd\nresolv.conf\n1\n");
}

/// What was digested while the step ran and is the same at its end makes the content id that reading all makes.
#[tokio::test]
async fn files_are_digested_while_the_step_runs() {
    let Some(mut bench) = Bench::new() else { return };
    let script = "mkdir /d; for i in 0 1 2 3 4 5 6 7 8 9; do echo $i > /d/$i; ln /d/$i /l$i; done; echo x > /changes; \
                  sleep 1; echo y > /changes; echo new > /new; rm /d/3; touch -d 2001-01-01 /d/4";
    let ran = bench.run(&exec(script), vec![]).await;
    assert!(ran.result.is_ok(), "{}", ran.error());
    let known = std::sync::Mutex::new(vec![]);
    let hint = |path: &Path, stat: &rustix::fs::Stat| {
        ran.ahead.file(stat).inspect(|_| known.lock().unwrap().push(path.display().to_string()))
    };
    let with = cache::checksum::change(&ran.upper, &hint).unwrap();
    assert_eq!(with, cache::checksum::change(&ran.upper, cache::checksum::NO_HINT).unwrap());
    let known = known.into_inner().unwrap();
    assert!(
        !["changes", "new", "d/4", "l3"].iter().any(|changed| known.iter().any(|path| path == changed)),
        "{known:?}"
    );
    let file_system = rustix::fs::statfs(&ran.upper).unwrap().f_type;
    // How many, depends on how much time the other tests leave.
    assert_eq!(!known.is_empty(), crate::step::ahead::FILE_SYSTEMS.contains(&file_system));
}

#[tokio::test]
async fn the_process() {
    let Some(mut bench) = Bench::new() else { return };
    assert_eq!(bench.sh("hostname; umask; pwd").await, "buildkitsandbox\n0022\n/\n");
    assert_eq!(bench.sh("cat; test -t 0 || echo no tty").await, "no tty\n");
    assert_eq!(bench.sh("env").await, "SHLVL=1\nHOME=/root\nPATH=/bin\nPWD=/\n");
    let caps = bench.sh("grep -E '^(Cap|NoNewPrivs|Seccomp:)' /proc/self/status").await;
    let set = "00000000a80425fb";
    let none = "0000000000000000";
    let expect = format!(
        "CapInh:\t{none}\nCapPrm:\t{set}\nCapEff:\t{set}\nCapBnd:\t{set}\nCapAmb:\t{none}\nNoNewPrivs:\t0\nSeccomp:\t2\n"
    );
    assert_eq!(caps, expect);
    assert_eq!(bench.sh("mount -t tmpfs x /tmp 2>&1 || echo no").await.lines().last(), Some("no"));
    assert_eq!(bench.sh("mknod /tmp/n c 1 3 && echo yes").await, "yes\n");
    assert_eq!(bench.sh("(echo x > /proc/sys/kernel/hostname) 2>&1 || echo no").await.lines().last(), Some("no"));
    assert_eq!(bench.sh("cat /proc/keys 2>/dev/null | wc -c; ls /sys/firmware 2>/dev/null | wc -l").await, "0\n0\n");
    assert_eq!(bench.sh("sleep 100 & echo started").await, "started\n");
    let mut limited = exec("ulimit -Sn; ulimit -Hn; df -k /dev/shm | grep -o '8192.*0%' | wc -l");
    limited.ulimits = vec![("nofile".into(), 777, 888)];
    limited.shm_size_bytes = Some(8 << 20);
    assert_eq!(bench.run(&limited, vec![]).await.log, "777\n888\n1\n");
    let alone = Exec { network: Network::None, ..exec("ip -o link | grep -c ' lo:.*UP'; ls /sys/class/net") };
    assert_eq!(bench.run(&alone, vec![]).await.log, "1\nlo\n");
    let mut hosts = exec("cat /etc/hosts; (echo x >> /etc/hosts) 2> /dev/null || echo read-only");
    hosts.extra_hosts = vec![("svc.test".into(), "192.0.2.7".into())];
    let log = bench.run(&hosts, vec![]).await.log;
    assert!(log.contains("localhost buildkitsandbox\n") && log.contains("192.0.2.7\tsvc.test\n"), "{log}");
    assert!(log.ends_with("read-only\n"), "{log}");
}

#[tokio::test]
async fn failures() {
    let Some(mut bench) = Bench::new() else { return };
    let ran = bench.run(&exec("exit 3"), vec![]).await;
    let expect = "process \"/bin/sh -c exit 3\" did not complete successfully: exit code: 3 | ";
    assert_eq!(ran.error(), expect);
    let ran = bench.run(&exec("sh -c 'kill -9 $$'; exit $?"), vec![]).await;
    assert!(ran.error().contains("exit code: 137"), "{}", ran.error());
    let mut missing = exec("");
    missing.args = vec!["nosuch".into()];
    let ran = bench.run(&missing, vec![]).await;
    let expect = "process \"nosuch\" did not complete successfully: exit code: 1 | ";
    assert_eq!(ran.error(), format!("{expect}exec: \"nosuch\": executable file not found in $PATH\n"));
    let nobody = Exec { user: "nosuch".into(), ..exec("") };
    let ran = bench.run(&nobody, vec![]).await;
    assert_eq!(ran.error(), "unable to find user nosuch: no matching entries in passwd file | ");
}

#[tokio::test]
async fn cancel_kills() {
    let Some(mut bench) = Bench::new() else { return };
    bench.sh("true").await;
    let step = bench.dir.path().join("cancelled");
    std::fs::create_dir_all(step.join("upper")).unwrap();
    std::fs::create_dir_all(step.join("work")).unwrap();
    let input = ExecInput {
        lowers: bench.layers.clone(),
        upper: step.join("upper"),
        work: step.join("work"),
        sources: vec![],
        cache_root: bench.dir.path().join("mounts"),
        travel: Default::default(),
        anew: None,
        secrets: Arc::default(),
        ssh: Arc::default(),
        identity: Identity::Root,
        isolation: Isolation::Namespace,
        id: format!("cancel-{}", std::process::id()),
        limits: Limits::default(),
        log: "/dev/null".into(),
        on_failure: OnFailure::Abort,
    };
    let (sender, events) = std::sync::mpsc::channel();
    let vertex = Progress::new(sender).vertex("k", "n", vec![]);
    let (cancel, cancelled) = tokio::sync::oneshot::channel::<()>();
    // Cancels when the command has said something.
    let watcher = tokio::task::spawn_blocking(move || {
        let said = events.iter().any(|event| matches!(event, Event::Log { .. }));
        let _ = cancel.send(());
        said
    });
    let cancelled = async move {
        let _ = cancelled.await;
    };
    let result = run(&exec("echo here; sleep 100"), input, &vertex, cancelled).await;
    assert!(matches!(result, Err(ExecError::Canceled)), "{result:?}");
    drop(vertex);
    assert!(watcher.await.unwrap());
}

#[tokio::test]
async fn users_and_folders() {
    let Some(mut bench) = Bench::new() else { return };
    let daemon = Exec { user: "daemon".into(), cwd: "/made/deep".into(), ..exec("id; echo $HOME; pwd; touch f") };
    let ran = bench.run(&daemon, vec![]).await;
    assert_eq!(
        ran.log, "uid=1(daemon) gid=1(daemon) groups=1(daemon),4(adm)\n/usr/sbin\n/made/deep\n",
        "{:?}",
        ran.result
    );
    assert_eq!(ran.paths(), ["/made", "/made/deep", "/made/deep/f"]);
    let made = ran.upper.join("made/deep").metadata().unwrap();
    assert_eq!((made.uid(), made.gid(), made.mode() & 0o7777), (1, 1, 0o755));
    let unknown = Exec { user: "4242:77".into(), ..exec("id") };
    assert_eq!(bench.run(&unknown, vec![]).await.log, "uid=4242 gid=77 groups=77\n");
    bench.layers.clear();
    let mut empty = exec("");
    empty.args = vec!["/nosuch".into()];
    let ran = bench.run(&empty, vec![]).await;
    assert!(ran.error().contains("no such file or directory"), "{}", ran.error());
    assert_eq!(ran.paths(), ["/dev", "/proc", "/sys"]);
}

fn mount(target: &str, kind: MountKind) -> Mount {
    Mount { target: target.into(), kind }
}

fn bind(source: &str, readonly: bool) -> MountKind {
    MountKind::Bind { from: None, source: source.into(), readonly, from_client: true }
}

fn cache(id: &str, sharing: Sharing) -> MountKind {
    let (from, source, mode, uid, gid, readonly) = (None, String::new(), None, None, None, false);
    MountKind::Cache { id: id.into(), sharing, from, source, mode, uid, gid, readonly }
}

#[tokio::test]
async fn mounts_leave_no_trace() {
    let Some(mut bench) = Bench::new() else { return };
    bench.sh("mkdir /full /exists /opaque && echo hidden > /full/f && touch /opaque/x").await;
    bench.sh("rm -r /opaque && mkdir /opaque").await;
    let context = bench.dir.path().join("context");
    std::fs::create_dir_all(context.join("src")).unwrap();
    std::fs::write(context.join("src/one"), "1\n").unwrap();
    symlink("/src", context.join("link")).unwrap();
    let client = || MountSource { lowers: vec![context.clone()], part: None, identity: "c".into() };
    let tmpfs = || MountKind::Tmpfs { size_bytes: Some(1 << 20) };
    let mut many = exec(
        "touch /exists/new/x /a/b/c/y && test ! -e /full/f && cat /made/file && ls /ctx/src && cat /lnk/one \
         && ! touch /ctx/no 2>&1 && echo discarded > /rw/src/one && cat /rw/src/one && touch /opaque/m/t && touch /a/b/c/d/e \
         && cat /etc/group && rm -rf /a; true",
    );
    many.mounts = vec![
        mount("/a/b/c/d", tmpfs()),
        mount("/exists/new", tmpfs()),
        mount("/a/b/c", tmpfs()),
        mount("/full", tmpfs()),
        mount("/made/file", bind("src/one", true)),
        mount("/ctx", bind("/", true)),
        mount("/lnk", bind("/link", true)),
        mount("/rw", bind("/", false)),
        mount("/opaque/m", tmpfs()),
        mount("/etc/group", bind("/src/one", true)),
    ];
    let sources = (4..10).map(|position| (position, client())).collect();
    let ran = bench.run(&many, sources).await;
    assert!(ran.result.is_ok(), "{}", ran.error());
    assert!(ran.log.contains("1\none\n1\ntouch: ") && ran.log.contains("discarded\n1\n"), "{}", ran.log);
    assert_eq!(ran.paths(), [""; 0]);
    assert_eq!(std::fs::read_to_string(context.join("src/one")).unwrap(), "1\n");
    let mut beside = exec("touch /made/beside");
    beside.mounts = vec![mount("/made/file", bind("src/one", true))];
    assert_eq!(bench.run(&beside, vec![(0, client())]).await.paths(), ["/made", "/made/beside"]);
    let mut missing = exec("true");
    missing.mounts = vec![mount("/m", bind("/nosuch", true))];
    assert_eq!(bench.run(&missing, vec![(0, client())]).await.error(), "\"/nosuch\": not found | ");
}

#[tokio::test]
async fn caches_and_secrets() {
    let Some(mut bench) = Bench::new() else { return };
    let mut counting = exec("cat /c/f 2>/dev/null; echo x >> /c/f; touch /c/sub/y");
    counting.mounts = vec![mount("/c", cache("c", Sharing::Locked)), mount("/c/sub", cache("sub", Sharing::Shared))];
    assert_eq!(bench.run(&counting, vec![]).await.log, "");
    let ran = bench.run(&counting, vec![]).await;
    assert_eq!((ran.log.as_str(), ran.paths()), ("x\n", vec![]));
    bench.sh("mkdir -p /warm && echo warm > /warm/f").await;
    let mut seeded = exec("cat /w/f; echo used > /w/f");
    let MountKind::Cache { id, sharing, .. } = cache("w", Sharing::Shared) else { unreachable!() };
    let (mode, uid, gid, readonly) = (None, None, None, false);
    let kind = MountKind::Cache { id, sharing, from: Some(1), source: "/warm".into(), mode, uid, gid, readonly };
    seeded.mounts = vec![mount("/w", kind)];
    let source = MountSource { lowers: bench.layers.clone(), part: None, identity: "s".into() };
    assert_eq!(bench.run(&seeded, vec![(0, source.clone())]).await.log, "warm\n");
    assert_eq!(bench.run(&seeded, vec![(0, source)]).await.log, "used\n");
    bench.secrets.add_value("token", b"sesame".to_vec());
    let secret = |id: &str, mode| MountKind::Secret { id: id.into(), required: false, mode, uid: 0, gid: 4 };
    let mut secrets = exec(
        "cat /run/secrets/token | tr s S; stat -c ' %a %u:%g' /run/secrets/token; echo $S | tr s S; echo $S; ls /run/secrets",
    );
    secrets.mounts =
        vec![mount("/run/secrets/token", secret("token", 0o440)), mount("/run/secrets/none", secret("none", 0o400))];
    secrets.secret_env = vec![SecretEnv { id: "token".into(), name: "S".into(), required: true }];
    let ran = bench.run(&secrets, vec![]).await;
    assert_eq!((ran.log.as_str(), ran.paths()), ("SeSame 440 0:4\nSeSame\n****\ntoken\n", vec![]));
    secrets.secret_env[0].id = "nosuch".into();
    assert_eq!(bench.run(&secrets, vec![]).await.error(), "secret nosuch: not found | ");
    let mut script = exec("");
    script.args = vec!["/dev/pipes/EOF".into()];
    script.script = Some(("EOF".into(), "#!/bin/sh\necho from a script\n".into()));
    assert_eq!(bench.run(&script, vec![]).await.log, "from a script\n");
}

#[tokio::test]
async fn ssh_agents() {
    let Some(mut bench) = Bench::new() else { return };
    let agent = bench.dir.path().join("agent");
    let _listener = std::os::unix::net::UnixListener::bind(&agent).unwrap();
    bench.ssh.add(&format!("default={}", agent.display())).unwrap();
    let ssh = |id: &str, required| MountKind::Ssh { id: id.into(), required, mode: 0o600, uid: 1, gid: 4 };
    let mut with = exec("test -S $SSH_AUTH_SOCK && stat -c '%n %a %u:%g' $SSH_AUTH_SOCK");
    with.mounts = vec![mount("/run/x/agent.0", ssh("default", true)), mount("/run/x/agent.1", ssh("none", false))];
    let ran = bench.run(&with, vec![]).await;
    assert_eq!((ran.log.as_str(), ran.paths()), ("/run/x/agent.0 600 1:4\n", vec![]), "{:?}", ran.result);
    with.mounts = vec![mount("/run/x/agent.1", ssh("none", true))];
    assert_eq!(bench.run(&with, vec![]).await.error(), "no SSH key \"none\" forwarded from the client | ");
}

/// Set for the copy of this program that runs as an ordinary user.
const ORDINARY: &str = "KILN_TEST_ORDINARY_USER";

/// A user with ranges of ids (its uid and gid), else nobody.
fn ordinary_user() -> (u32, u32) {
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap();
    let subuid = std::fs::read_to_string("/etc/subuid").unwrap_or_default();
    let id = |field: &str| field.parse().unwrap();
    passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields[2] != "0" && subuid.lines().any(|line| line.split(':').next() == Some(fields[0])))
        .map_or((65534, 65534), |fields| (id(fields[2]), id(fields[3])))
}

#[test]
fn as_an_ordinary_user() {
    if std::env::var_os(ORDINARY).is_some() {
        // The harness has a thread beside the test's, and namespaces are for programs with one, as a copy is.
        let copy = syscall::fork(|| u8::from(std::panic::catch_unwind(ordinary).is_err())).unwrap();
        let (_, status) = rustix::process::waitpid(Some(copy), rustix::process::WaitOptions::empty()).unwrap().unwrap();
        return assert_eq!(status.exit_status(), Some(0));
    }
    if Bench::new().is_none() {
        return;
    }
    use std::os::unix::process::CommandExt;
    let (uid, gid) = ordinary_user();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["step::exec::tests::as_an_ordinary_user", "--exact", "--nocapture"])
        .env(ORDINARY, "1")
        .current_dir("/")
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    eprintln!("{text}");
    assert!(output.status.success(), "{text}");
}

/// In the copy: the same as for root, except for what one id does not allow.
fn ordinary() {
    let identity = match crate::sandbox::userns::enter_if_needed() {
        Ok(identity) => identity,
        Err(error) => return eprintln!("skipped: {}", crate::progress::chain(&error)),
    };
    eprintln!("{identity:?}");
    let mapped = identity == Identity::Mapped;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut bench = Bench::of(identity);
        let ran =
            bench.run(&exec("test -s /etc/hosts && test -c /dev/null && echo x > /dev/null && id -u"), vec![]).await;
        assert!(ran.result.is_ok(), "{}", ran.error());
        assert_eq!((ran.log.as_str(), ran.paths()), ("0\n", vec![]));
        let ran =
            bench.run(&exec("rm /etc/group; mkdir /d; ls /sys/class/net | grep -c lo; ls /proc/1/exe"), vec![]).await;
        assert_eq!(ran.log, "1\n/proc/1/exe\n", "{:?}", ran.result);
        assert_eq!(ran.paths(), ["/d", "/etc", "/etc/group"]);
        assert!(!bench.sh("ls /etc").await.contains("group"));
        let alone = Exec { network: Network::None, ..exec("ip -o link | grep -c ' lo:.*UP'") };
        assert_eq!(bench.run(&alone, vec![]).await.log, "1\n");
        let mut tmpfs = exec("touch /t/x && ls /t");
        tmpfs.mounts =
            vec![mount("/t", MountKind::Tmpfs { size_bytes: None }), mount("/c", cache("c", Sharing::Shared))];
        assert_eq!(bench.run(&tmpfs, vec![]).await.log, "x\n");
        let user = Exec { user: "1:1".into(), ..exec("id -u; touch /tmp/mine") };
        let ran = bench.run(&user, vec![]).await;
        if mapped {
            assert_eq!(ran.log, "1\n", "{:?}", ran.result);
            assert_eq!(ran.upper.join("tmp/mine").metadata().unwrap().uid(), 1);
        } else {
            // As root, and what it made is given to the user afterwards.
            assert_eq!(ran.log, "0\n", "{:?}", ran.result);
            assert_eq!(ran.result.map(|outcome| outcome.owner).ok(), Some(Some((1, 1))));
        }
        if let Some(busybox) = foreign_busybox() {
            check_foreign(&mut bench, &busybox).await;
        }
    });
}

/// A static program of another architecture, if the machine happens to have one: qemu's own are not.
fn foreign_busybox() -> Option<PathBuf> {
    let path = std::env::var_os("KILN_TEST_ARM64_BUSYBOX").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: KILN_TEST_ARM64_BUSYBOX does not name a static busybox for arm64");
    }
    path
}

async fn check_foreign(bench: &mut Bench, busybox: &Path) {
    std::fs::remove_file(bench.layers[0].join("bin/busybox")).unwrap();
    std::fs::copy(busybox, bench.layers[0].join("bin/busybox")).unwrap();
    let mut foreign = exec("uname -m; sh -c 'echo $0; id -u; touch /new' name");
    symlink("busybox", bench.layers[0].join("bin/uname")).unwrap();
    Arc::make_mut(&mut foreign.platform).architecture = "arm64".into();
    let ran = bench.run(&foreign, vec![]).await;
    assert_eq!((ran.log.as_str(), ran.paths()), ("aarch64\nname\n0\n", vec!["/new".to_string()]), "{:?}", ran.result);
}

#[tokio::test]
async fn foreign_programs() {
    let (Some(busybox), Some(mut bench)) = (foreign_busybox(), Bench::new()) else { return };
    check_foreign(&mut bench, &busybox).await;
    let mut unknown = exec("true");
    Arc::make_mut(&mut unknown.platform).architecture = "z80".into();
    assert_eq!(bench.run(&unknown, vec![]).await.error(), "cannot run programs of linux/z80 on this machine | ");
}
