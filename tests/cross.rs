//! A real program built for two platforms on Debian bases made for both: `KILN_NETWORK=1`, mmdebstrap, qemu, skopeo.

use harness::bases::{BaseImage, Layout};
use harness::{Kiln, Registry, Tree, foreign, installed, network_allowed, run, skip};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;

const EMULATOR: &str = "/usr/bin/qemu-aarch64-static";

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
        let words = foreign::with_arm64(EMULATOR, "");
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("mmdebstrap");
        arguments(&mut command);
        let mut child = foreign::register_arm64(&mut command);
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
    let ran = build().ok().ran();
    assert!(ran.is_empty(), "{ran:?}");
}
