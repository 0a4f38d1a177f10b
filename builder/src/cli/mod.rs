//! The command line.

pub mod csv;
