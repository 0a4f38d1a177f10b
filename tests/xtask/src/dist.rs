//! One static binary: no interpreter, no shared library.
//!
//! The C library is linked in (`+crt-static`). With an explicit `--target` cargo keeps that flag away from build scripts
//! and procedural macros, which must stay dynamic. With glibc, `getaddrinfo` in a static program still loads the
//! machine's own NSS modules where they fit its glibc, and falls back to files and plain DNS where they do not; with
//! the musl target installed there is no such doubt, so it is taken when it is there.

use anyhow::{Context, Result, bail, ensure};
use std::process::Command;

/// Builds target/dist/kiln and makes sure that it is static.
pub fn run() -> Result<()> {
    let triple = triple()?;
    let mut build = crate::cargo(&["build", "--package=builder", "--bin=kiln", "--release", "--target", &triple]);
    crate::call(build.env("RUSTFLAGS", "-C target-feature=+crt-static"))?;
    let target = crate::target()?;
    let built = target.join(&triple).join("release/kiln");
    let linked = Command::new("readelf").args(["--program-headers", "--wide"]).arg(&built).output();
    let headers = String::from_utf8_lossy(&linked.context("run readelf (binutils)")?.stdout).into_owned();
    ensure!(headers.contains("LOAD"), "readelf cannot read {}", built.display());
    ensure!(!headers.contains("INTERP"), "{} is not static: it names an interpreter", built.display());
    let dist = target.join("dist");
    std::fs::create_dir_all(&dist)?;
    let kiln = dist.join("kiln");
    std::fs::copy(&built, &kiln).with_context(|| format!("copy {}", built.display()))?;
    println!("{} ({} bytes, {triple})", kiln.display(), std::fs::metadata(&kiln)?.len());
    Ok(())
}

/// The musl target if it is installed, else glibc's.
fn triple() -> Result<String> {
    let arch = std::env::consts::ARCH;
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().context("run rustc")?;
    let sysroot = std::path::PathBuf::from(String::from_utf8_lossy(&sysroot.stdout).trim());
    for libc in ["musl", "gnu"] {
        let triple = format!("{arch}-unknown-linux-{libc}");
        if sysroot.join("lib/rustlib").join(&triple).join("lib").is_dir() {
            return Ok(triple);
        }
    }
    bail!("no Linux target is installed for {arch}")
}
