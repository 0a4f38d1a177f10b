//! What tools and people know from BuildKit: messages, layout, exit codes.

mod errors;
mod progress;
