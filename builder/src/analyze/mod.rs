//! What the layers of an image hold, what of it nobody can see any more, and whether that is more than rules allow.
//! `layers.rs` reads layers, `account.rs` does the sums and reads nothing, `rules.rs` judges.

pub mod account;
pub mod layers;
pub mod rules;
