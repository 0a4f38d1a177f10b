//! The command line: clap types and thin handlers, one file a command.

pub mod build;
pub mod call;
pub mod csv;
pub mod exit;
pub mod failure;
pub mod logs;
pub mod options;
pub mod output;
mod resources;

use clap::{Parser, Subcommand};
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
    Build(Box<options::BuildArgs>),
    /// Show the complete output of a build's steps
    Logs(logs::LogsArgs),
}
