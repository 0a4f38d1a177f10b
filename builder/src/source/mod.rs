//! Where trees come from: resolve (name -> pinned), fetch (-> snapshot).

pub mod context;
pub mod dir;
pub mod dockerfile;
pub mod image;
mod layers;
pub mod named;
pub mod oci_layout;
#[cfg(test)]
mod tests;
