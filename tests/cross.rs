//! A real program built for two platforms on Debian bases made for both: `KILN_NETWORK=1`, mmdebstrap, qemu, skopeo.

use harness::bases::{BaseImage, Layout};
use harness::{Kiln, Registry, Tree, installed, network_allowed, run, skip};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where emulators are.
const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";

/// Registers the emulator in a mount and user namespace of its own, and runs what it is given there.
const WITH_EMULATOR: &str = r#"echo ready; read _
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
m='\x7f\x45\x4c\x46\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00'
k='\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff'
printf '%s' ":arm64:M::$m:$k:$0:POCF" > /proc/sys/fs/binfmt_misc/register
exec "$@""#;

/// The machine's own package sources, so that its mirrors are used.
fn sources() -> Option<PathBuf> {
    let places = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    places.iter().map(PathBuf::from).find(|path| path.is_file())
}

/// A Debian for that architecture.
fn debian(arch: &str, sources: &Path) -> BaseImage {
    let folder = Tree::new();
    let tar = folder.join("debian.tar");
    let arguments = |command: &mut Command| {
        command.args(["--quiet", "--mode=root", "--variant=minbase", "--skip=check/qemu,chroot/mount/sys"]);
        command.args(["--aptopt=Acquire::Languages \"none\"", &format!("--architectures={arch}"), "bookworm"]);
        command.arg(&tar).arg(sources);
    };
    let native = run(Command::new("dpkg").arg("--print-architecture"));
    if native.trim() == arch {
        let mut command = Command::new("mmdebstrap");
        arguments(&mut command);
        run(&mut command);
    } else {
        let mut command = Command::new("unshare");
        command.args(["--user", "--mount", "--pid", "--fork", "sh", "-ec", WITH_EMULATOR, EMULATOR, "mmdebstrap"]);
        arguments(&mut command);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("start unshare");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).expect("wait for unshare");
        assert_eq!(line, "ready\n");
        for map in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{}/{map}", child.id()), "0 0 4294967295").expect("write the id map");
        }
        child.stdin.take().unwrap().write_all(b"go\n").expect("let it go on");
        assert!(child.wait().expect("wait for mmdebstrap").success(), "mmdebstrap for {arch} failed");
    }
    let layer = std::fs::read(&tar).expect("read the Debian base");
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    BaseImage { arch: arch.to_string(), layer, config: json!({"Env": [path], "Cmd": ["bash"]}) }
}

#[test]
fn a_c_program_for_two_platforms() {
    let Some(sources) = sources().filter(|_| network_allowed()) else { skip!("needs KILN_NETWORK=1 and Debian") };
    for program in ["mmdebstrap", "qemu-aarch64-static", "skopeo"] {
        if !installed(program) {
            skip!("needs {program}");
        }
    }
    let registry = Registry::shared();
    let bases = ["amd64", "arm64"].map(|arch| debian(arch, &sources));
    let layout = Layout::temporary(&bases).expect("write the bases");
    registry.push(&layout, "library/debian-cross", "1").expect("push the bases");

    let context = Tree::dockerfile(
        "FROM debian-cross:1 AS build\n\
         RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev\n\
         COPY p.c /p.c\n\
         RUN gcc -O2 -static -o /p /p.c && /p | tee /out\n\
         FROM scratch\nCOPY --from=build /p /out /\n",
    )
    .file(
        "p.c",
        "#include <stdio.h>\n#include <sys/utsname.h>\n\
         int main(void) { struct utsname u; uname(&u); printf(\"runs on %s\\n\", u.machine); return 0; }\n",
    );
    let kiln = Kiln::new();
    let name = format!("{}/cross/p:1", registry.host);
    let build = || {
        kiln.build(&context)
            .args(["--platform=linux/amd64,linux/arm64", "--network=host", "--push", "-t", &name])
            .timeout(std::time::Duration::from_secs(1800))
    };
    let built = build().ok();
    let log = built.log();
    assert!(log.contains("runs on x86_64") && log.contains("runs on aarch64"), "{log}");

    let raw = run(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &format!("docker://{name}")]));
    let index: Value = serde_json::from_str(&raw).expect("an index");
    let platforms = index["manifests"].as_array().expect("manifests").iter();
    let architectures: Vec<_> = platforms.map(|entry| entry["platform"]["architecture"].clone()).collect();
    assert_eq!(architectures, [json!("amd64"), json!("arm64")]);
    assert!(build().ok().ran().is_empty());
}
