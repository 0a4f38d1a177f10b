//! Exit codes, one for each class of failure (reference/engine.md 1.6).

/// The build succeeded.
pub const SUCCESS: u8 = 0;
/// The build failed: a failing step, a bad Dockerfile, a registry that refuses, a full disk.
pub const FAILURE: u8 = 1;
/// The command line could not be understood.
pub const USAGE: u8 = 2;
/// `kiln debug verify` found damage, and did not remove all of it.
pub const DAMAGED: u8 = 3;
/// `kiln plan`: the build would not fail before a step runs, but something would or may run.
pub const WOULD_RUN: u8 = 4;
/// The image was built and is kept, but could not be pushed: `kiln push` does it without building. (EX_TEMPFAIL of
/// sysexits.h.)
pub const NOT_PUSHED: u8 = 75;
/// A bug of kiln.
pub const INTERNAL: u8 = 100;
/// Stopped by SIGINT or SIGTERM.
pub const CANCELED: u8 = 130;
