//! The command line: clap types and thin handlers, one file a command.

pub mod analyze;
pub mod build;
mod build_args;
pub mod cache_flags;
pub mod call;
pub mod csv;
pub mod debug;
pub mod du;
pub mod exit;
pub mod explain;
pub mod failure;
pub mod filter;
pub mod history;
pub mod image;
mod image_text;
pub mod login;
pub mod logs;
pub mod manifest;
mod object;
mod on_failure;
mod online;
pub mod options;
pub mod output;
pub mod plan;
pub mod prune;
pub mod push;
pub(crate) mod resources;
pub mod values;

use crate::sandbox::userns::Identity;
use anyhow::{Context, Result};
use cache::store::Store;
use clap::{Parser, Subcommand};
use std::io;
use std::path::PathBuf;

/// Builds container images from Dockerfiles: no daemon, no set-up, no root needed.
#[derive(Parser)]
#[command(name = "kiln", version, about, max_term_width = 110)]
pub struct Cli {
    /// Folder of kiln's store: cache, blobs, snapshots
    #[arg(long, global = true, value_name = "DIR", env = "KILN_ROOT")]
    pub root: Option<PathBuf>,

    /// Configuration file (TOML, with buildkitd.toml's keys for registries)
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Build an image from a Dockerfile
    Build(Box<build_args::BuildArgs>),
    /// Say which steps a build would run and why, without running any
    Plan(Box<plan::PlanArgs>),
    /// Say why the steps of a build ran
    Explain(explain::ExplainArgs),
    /// List former builds, show or forget them
    History(history::HistoryArgs),
    /// Show the complete output of a build's steps
    Logs(logs::LogsArgs),
    /// List, show, name, remove, save and load the images that kiln's store knows by name
    Image(image::ImageArgs),
    /// Say what is in the layers of an image, and what of it is wasted
    Analyze(analyze::AnalyzeArgs),
    /// Show what the store holds, and how much of the disk it takes
    Du(du::DuArgs),
    /// Log in to a registry
    Login(login::LoginArgs),
    /// Forget the login to a registry
    Logout(login::LogoutArgs),
    /// Join images of several platforms in a registry, and look into those that are there
    Manifest(manifest::ManifestArgs),
    /// Push what was built and could not be pushed
    Push(push::PushArgs),
    /// Remove from the store what no build uses now
    Prune(prune::PruneArgs),
    /// Look into builds, and into what went wrong
    Debug(debug::DebugArgs),
}

/// Opens the store that the flags name; what was found damaged is said.
pub(crate) fn open_store(cli: &Cli, identity: &Identity) -> Result<Store> {
    let root = cli.root.clone().map_or_else(|| crate::default_root(identity), Ok)?;
    let store = Store::open(&root)?;
    say_remarks(&store);
    Ok(store)
}

/// What follows from having written to standard output. If whoever reads has seen enough, as `head` does, all is well.
pub(crate) fn printed(result: io::Result<()>) -> Result<u8> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(exit::SUCCESS),
        result => result.context("write to standard output").map(|()| exit::SUCCESS),
    }
}

/// Says what the store has to say.
pub(crate) fn say_remarks(store: &Store) {
    store.take_remarks().iter().for_each(|remark| eprintln!("WARNING: {remark}"));
}
