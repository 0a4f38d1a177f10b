//! Where bases, Dockerfiles and contexts come from.

mod dockerfile;
mod image;
mod oci_layout;
