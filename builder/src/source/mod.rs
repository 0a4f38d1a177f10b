//! Where trees come from: resolve (name -> pinned), fetch (-> snapshot).

pub mod context;
pub mod dir;
pub mod image;
mod layers;
pub mod oci_layout;
#[cfg(test)]
mod tests;
