//! What tools and people know from BuildKit: messages, layout, exit codes.

mod checks;
mod errors;
mod progress;
