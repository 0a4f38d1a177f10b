//! RUN's container: what it may do, as root and as an ordinary user.

mod escape;
mod foreign;
mod isolation;
mod limits;
mod shell;
mod ssh;
mod user;
mod whiteout;
