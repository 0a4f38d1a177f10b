//! Image documents: choosing among them, and making them.

pub mod select;
