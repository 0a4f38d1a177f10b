//! Builds examples/hello where no registry can be reached: the base is made of Debian's busybox-static, given to kiln
//! as an OCI layout, and the image is then shown.

use anyhow::{Context, Result, ensure};
use harness::bases::{Layout, busybox_images};
use harness::{Image, Kind};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

/// Builds, shows, builds again.
pub fn run() -> Result<()> {
    if !Path::new("/bin/busybox").exists() && !Path::new("/usr/bin/busybox").exists() {
        crate::setup::run().context("the demo's base image needs busybox-static")?;
    }
    let kiln = crate::build("dev")?;
    let folder = crate::target()?.join("demo");
    if folder.exists() {
        // Steps may leave folders that only their owner's namespace could empty; they are few.
        fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)?;
    let base = folder.join("busybox");
    Layout::write(&base, &busybox_images(&[architecture()])?)?;
    fs::write(folder.join("kiln.toml"), "")?;
    let archive = folder.join("hello.tar");

    let build = || {
        let mut command = Command::new(&kiln);
        command.args(["--root".as_ref(), folder.join("root").as_os_str()]);
        command.args(["--config".as_ref(), folder.join("kiln.toml").as_os_str()]);
        command.args(["build", "--progress=plain", "--tag=hello"]);
        command.arg(format!("--build-context=busybox=oci-layout://{}:latest", base.display()));
        command.arg(format!("--output=type=oci,dest={}", archive.display()));
        command.arg(crate::root().join("examples/hello")).stdin(Stdio::null());
        command
    };
    println!("== {:?}\n", build());
    crate::call(&mut build())?;
    show(&Image::read(&archive)?);

    println!("\n== the same again: nothing has changed, nothing runs\n");
    let output = build().output().context("run kiln")?;
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "the second build failed: {}\n{text}", output.status);
    print!("{text}");
    let cached = text.lines().filter(|line| line.ends_with(" CACHED")).count();
    println!("\n{cached} steps were cached. The image is {}", archive.display());
    Ok(())
}

fn show(image: &Image) {
    println!("\n== the image, {}\n", image.digest);
    println!("config: {:#}", image.config["config"]);
    println!("\nhistory:");
    for entry in image.config["history"].as_array().into_iter().flatten() {
        println!("  {}", entry["created_by"].as_str().unwrap_or_default());
    }
    println!("\nlayers:");
    for (layer, diff_id) in image.layers.iter().zip(image.config["rootfs"]["diff_ids"].as_array().into_iter().flatten())
    {
        println!("  {} {} bytes", diff_id.as_str().unwrap_or_default(), layer.len());
    }
    println!("\nfiles:");
    for (path, entry) in image.tree() {
        let (kind, rest) = match &entry.kind {
            Kind::File(data) => ('-', format!("{path} ({} bytes)", data.len())),
            Kind::Folder => ('d', path),
            Kind::Symlink(target) => ('l', format!("{path} -> {target}")),
            Kind::Special => ('?', path),
        };
        println!("  {kind}{:04o} {}:{} {rest}", entry.mode & 0o7777, entry.uid, entry.gid);
    }
}

/// This machine's, as image-spec names it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        "x86" => "386",
        "powerpc64" => "ppc64le",
        other => other,
    }
}
