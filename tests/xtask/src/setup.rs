//! Debian packages that tests, examples and the demo call.

use anyhow::{Result, bail};
use std::process::Command;

const PACKAGES: [&str; 14] = [
    "busybox-static",
    "bzip2",
    "db5.3-util",
    "docker-registry",
    "docker.io",
    "git",
    "mmdebstrap",
    "python3",
    "qemu-user-static",
    "skopeo",
    "uidmap",
    "umoci",
    "xz-utils",
    "zstd",
];

/// Installs what is missing if this is root, else names it.
pub fn run() -> Result<()> {
    let missing: Vec<&str> = PACKAGES.into_iter().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        eprintln!("all packages are installed");
        return Ok(());
    }
    let list = missing.join(" ");
    if !is_root() {
        bail!("not installed: {list}\nrun as root: apt-get install --no-install-recommends {list}");
    }
    // Without a working mirror, what is in the package lists already may still do.
    let _ = crate::call(apt_get().arg("update"));
    crate::call(apt_get().args(["install", "--yes", "--no-install-recommends"]).args(&missing))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    // A service that is installed must not start: the tests start their own.
    command.args(["--quiet", "-o", "Dpkg::Use-Pty=0"]).env("DEBIAN_FRONTEND", "noninteractive").env("RUNLEVEL", "1");
    command
}

fn installed(package: &str) -> bool {
    let query = Command::new("dpkg-query").args(["--show", "--showformat=${db:Status-Status}", package]).output();
    query.is_ok_and(|output| output.stdout == b"installed")
}

fn is_root() -> bool {
    Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout == b"0\n")
}
