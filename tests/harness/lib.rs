//! What the end-to-end tests stand on: [`Kiln`] runs the built program, [`Registry`] is a real one on loopback,
//! [`bases`] makes base images from what is installed, [`Tree`] is a build context, [`Image`] reads what came out.
//!
//! Invariant: nothing here links kiln's crates. Results are read with independent code, so that a mistake made on
//! both sides of the same function cannot cancel out.

mod actions_cache;
pub mod attestations;
mod authority;
pub mod bases;
mod containerd;
mod dockerd;
mod fault_proxy;
pub mod foreign;
pub mod git_server;
pub mod http;
mod http_server;
mod image;
mod kiln;
mod registry;
mod server;
mod terminal;
mod tree;
mod user;

pub use actions_cache::ActionsCache;
pub use authority::Authority;
pub use containerd::Containerd;
pub use dockerd::Dockerd;
pub use fault_proxy::{Fault, FaultProxy, Rule};
pub use git_server::{GitServer, Repo};
pub use http_server::{Answer, Asked, HttpServer};
pub use image::{Entry, Image, Kind, layer_entries};
pub use kiln::{Build, Finished, Kiln, Step, confined, wait_for_line};
pub use registry::{Login, Registry};
pub use terminal::Terminal;
pub use tree::Tree;
pub use user::User;

use std::path::Path;
use std::process::Command;

/// Ends a test that this machine cannot run, and says so.
#[macro_export]
macro_rules! skip {
    ($($reason:tt)*) => {{
        eprintln!("SKIPPED: {}", format_args!($($reason)*));
        return;
    }};
}

/// Whether a program is installed.
pub fn installed(program: &str) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&paths).any(|folder| folder.join(program).is_file())
}

/// Whether tests may use package registries and mirrors outside this machine.
pub fn network_allowed() -> bool {
    std::env::var_os("KILN_NETWORK").is_some_and(|value| value == "1")
}

/// Runs a program to its end and gives back its standard output; panics with all it said if it fails.
pub fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {}\n{stdout}{stderr}", output.status);
    stdout.into_owned()
}

/// SHA-256 as image-spec writes it.
pub fn sha256(data: &[u8]) -> String {
    use sha2::Digest;
    let hex: String = sha2::Sha256::digest(data).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// Root of this source tree.
pub fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
