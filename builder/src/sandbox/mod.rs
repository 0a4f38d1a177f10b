//! Runs one process in namespaces, on a root file system made of layers.
//!
//! Who does what, in the order of what happens: `rootfs.rs` makes detached mounts (nobody sees them until a child
//! attaches them in its own mount namespace); `plan.rs` makes the list of what the child shall do; `spawn.rs` clones the
//! child, which walks that list in `child.rs` and executes the command. `userns.rs` gives ordinary users the rights for
//! all that, `emulator.rs` runs foreign programs.
//! Where namespaces or mounts are refused, `isolation.rs` says so, and `supervise.rs` runs the process in a folder. Knows nothing of Dockerfiles: `step/exec.rs`
//! makes plans from ops.

pub(crate) mod capability;
pub(crate) mod cgroup;
mod child;
pub(crate) mod devices;
pub mod emulator;
pub mod error;
pub mod isolation;
pub mod limits;
pub(crate) mod plan;
pub mod rootfs;
pub(crate) mod seccomp;
mod seccomp_table;
pub(crate) mod spawn;
pub mod supervise;
pub(crate) mod syscall;
pub mod userns;

pub use error::SandboxError;
