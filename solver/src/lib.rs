//! Solves a build graph: decides for each vertex whether it must run and when. Generic over what running means.
//!
//! Read [`graph`] (what is to be solved), [`key`] (what names a computation), [`step`] and [`record`] (what the solver
//! asks of the world), then `schedule.rs` (when) and `query.rs` (whether). [`forecast`] says what solving would do.
//!
//! Invariant: this crate has never heard of containers, images or files. It opens nothing, knows no time and no
//! runtime; whatever polls [`solve`] decides on which threads things happen.
//!
//! Invariant: a key is made of contents, never of how they came to be. A step that ran again and gave the same output
//! leaves everything after it cached (early cutoff), without a rule for it anywhere.
//!
//! ```
//! use solver::graph::{Edge, Graph};
//! use solver::key::CacheKey;
//! use solver::record::MemoryRecords;
//! use solver::testing::{FakeOp, FakeSteps};
//!
//! let mut graph = Graph::new();
//! let source = graph.add(vec![], FakeOp::Source(1));
//! let step = graph.add(vec![Edge { vertex: source, output: 0 }], FakeOp::Add(2));
//!
//! let records = MemoryRecords::default();
//! for expected_runs in [1, 0] {
//!     let steps = FakeSteps::new(&graph);
//!     let outputs = futures::executor::block_on(solver::solve(&graph, &[step], &steps, &records, &())).unwrap();
//!     assert_eq!(outputs, [63]);
//!     assert_eq!(steps.runs().len(), expected_runs);
//! }
//! ```

#![forbid(unsafe_code)]

pub mod error;
pub mod explain;
pub mod forecast;
pub mod graph;
pub mod key;
pub mod progress;
mod query;
pub mod record;
mod redo;
mod schedule;
mod share;
mod slots;
mod state;
pub mod step;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

pub use schedule::solve;
