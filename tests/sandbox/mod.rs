//! RUN's container: what it may do, as root, as ordinary users, and where namespaces are refused.

mod confined;
mod escape;
mod foreign;
mod isolation;
mod limits;
mod lone;
mod shell;
mod ssh;
mod user;
mod whiteout;
