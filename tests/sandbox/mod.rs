//! RUN's container: what it may do, as root and as an ordinary user.

mod escape;
mod isolation;
mod limits;
mod user;
mod whiteout;
