//! Where bases, Dockerfiles and contexts come from.

mod context;
mod dockerfile;
mod git;
mod http;
mod image;
mod oci_layout;
