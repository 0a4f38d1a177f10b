//! What is in a result: the packages that databases and lock files in it name. `scan.rs` goes through the files, the files
//! named for package managers read what those wrote, `spdx.rs` makes the document. Every reader is a function of bytes, and
//! what it cannot read becomes a remark.

mod alpine;
mod cargo;
mod debian;
mod golang;
mod java;
mod node;
mod package;
mod php;
mod python;
mod rpm;
mod rpm_bdb;
mod rpm_header;
mod ruby;
mod scan;
mod spdx;

pub use package::{Distribution, Package};
#[cfg(any(test, feature = "testing"))]
pub use scan::read_every_way;
pub use scan::{Scan, ScanError, layer_of, read, remembered, scan};
pub use spdx::{PREDICATE_TYPE, Sbom, TOOL, set_layers};
