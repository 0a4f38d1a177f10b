//! RUN's container: what it may do, as root and as an ordinary user.

mod isolation;
mod user;
mod whiteout;
