//! Where trees come from: resolve (name -> pinned), fetch (-> snapshot).

mod bomb;
pub mod context;
pub mod dir;
pub mod dockerfile;
pub mod git;
pub mod http;
pub mod image;
mod image_error;
mod layers;
pub mod local;
pub mod named;
pub mod oci_layout;
pub mod remote;
#[cfg(test)]
mod tests;
