//! After a mishap the next build succeeds.

mod kill;
mod registry;
mod store;
