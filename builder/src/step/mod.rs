//! What each op does to the world.

pub mod cache_mount;
mod copy_tree;
pub mod exec;
mod exec_files;
mod exec_log;
mod exec_mounts;
mod exec_plan;
pub mod file;
mod mount_point;
mod user;
