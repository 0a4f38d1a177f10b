//! Every example is built, so that none goes stale. Those that need a Debian base or a package registry run only where
//! `KILN_NETWORK=1` says that the network may be used.

use harness::{Dockerd, Kiln, Tree, network_allowed, run, skip, workspace};

fn example(name: &str) -> Tree {
    Tree::copy_of(&workspace().join("examples").join(name))
}

#[test]
fn hello() {
    let image = Kiln::new().image(&example("hello"));
    assert_eq!(image.text("/hello.txt").trim_end(), "Hello from kiln");
    assert_eq!(image.setting("/Entrypoint"), &serde_json::json!(["/bin/busybox", "sh", "/hello.sh"]));
}

#[test]
fn all_are_tested_here() {
    let mut names: Vec<String> = std::fs::read_dir(workspace().join("examples"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["c-program", "cowsay", "hello", "python-web"]);
}

#[test]
fn cowsay() {
    let Some(kiln) = with_debian() else { skip!("needs KILN_NETWORK=1 and mmdebstrap") };
    let image = kiln.image(&example("cowsay"));
    assert!(image.tree().contains_key("/usr/games/cowsay"));
    assert_eq!(image.setting("/Entrypoint"), &serde_json::json!(["/entrypoint.sh"]));

    let archive = kiln.out("cowsay.tar");
    kiln.build(&example("cowsay")).args(["-t", "kiln-test/cowsay:1"]).output("docker", &archive).ok();
    let daemon = match Dockerd::start(&kiln.out("docker")) {
        Ok(daemon) => daemon,
        Err(reason) => skip!("dockerd does not start here: {reason}"),
    };
    run(daemon.docker().args(["load", "--quiet", "--input"]).arg(&archive));
    let said = run(daemon.docker().args(["run", "--rm", "--network=none", "kiln-test/cowsay:1"]));
    assert!(said.contains("(oo)"), "{said}");
}

#[test]
fn c_program() {
    let Some(kiln) = with_debian() else { skip!("needs KILN_NETWORK=1 and mmdebstrap") };
    let image = kiln.image(&example("c-program"));
    assert_eq!(image.tree().into_keys().collect::<Vec<_>>(), ["/greet"]);
}

#[test]
fn python_web() {
    let Some(kiln) = with_debian() else { skip!("needs KILN_NETWORK=1 and mmdebstrap") };
    let image = kiln.image(&example("python-web"));
    assert!(image.tree().contains_key("/app/app.py"));
}

/// Roots that this machine trusts; the base gets them too, since a registry may be reached through a proxy that has
/// its own.
const ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Not where the package ca-certificates writes its own.
const ROOTS_IN_BASE: &str = "/etc/host-roots.pem";

/// A kiln whose mirror of docker.io has `library/debian`, made with mmdebstrap.
fn with_debian() -> Option<Kiln> {
    use harness::bases::{BaseImage, Layout};
    static PUSHED: std::sync::Once = std::sync::Once::new();
    if !network_allowed() || !harness::installed("mmdebstrap") {
        return None;
    }
    PUSHED.call_once(|| {
        let tree = Tree::new();
        let tar = tree.join("debian.tar");
        let mut command = std::process::Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=minbase"]);
        if std::path::Path::new(ROOTS).exists() {
            command.arg(format!("--customize-hook=cp {ROOTS} $1{ROOTS_IN_BASE}"));
        }
        run(command.arg("bookworm").arg(&tar));
        let layer = std::fs::read(tar).expect("read the Debian base");
        let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let config = serde_json::json!({"Env": [path, format!("PIP_CERT={ROOTS_IN_BASE}")], "Cmd": ["bash"]});
        let arch = run(std::process::Command::new("dpkg").arg("--print-architecture")).trim().to_string();
        let base = BaseImage { arch, layer, config };
        let layout = Layout::temporary(&[base]).expect("write the Debian base");
        harness::Registry::shared().push(&layout, "library/debian", "bookworm-slim").expect("push the Debian base");
    });
    Some(Kiln::new())
}
