//! Why a build could not be solved.

use crate::graph::VertexId;
use std::fmt;

/// The first vertex that failed, and why. Vertices that were stopped because of it are not errors of their own.
#[derive(Debug)]
pub struct SolveError<StepError, StoreError> {
    /// Which one.
    pub vertex: VertexId,
    /// What it or the store said.
    pub cause: Cause<StepError, StoreError>,
}

/// Whose failure it is.
#[derive(Debug)]
pub enum Cause<StepError, StoreError> {
    /// The step's.
    Step(StepError),
    /// The store's.
    Store(StoreError),
}

impl<A: fmt::Display, B: fmt::Display> fmt::Display for Cause<A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Step(error) => error.fmt(f),
            Cause::Store(error) => error.fmt(f),
        }
    }
}
