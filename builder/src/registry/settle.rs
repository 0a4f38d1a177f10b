//! Changing a tag that others change at the same time. Registries have no compare-and-swap, so who has written looks once more
//! after a pause whether others, who had read before, have written over it.

use std::time::{Duration, Instant};

/// The least time between writing and looking again. It has to be longer than another writer takes from its last look to the
/// end of its writing; that is measured by one's own.
const SETTLE: Duration = Duration::from_millis(400);
/// The most.
const SETTLE_LIMIT: Duration = Duration::from_secs(5);

/// Waits after a writing that `began` then. Not all wait for equally long.
pub async fn settle(began: Instant) {
    let pause = SETTLE.max(began.elapsed() * 2).min(SETTLE_LIMIT);
    tokio::time::sleep(pause.mul_f64(1.0 + fastrand::f64() / 2.0)).await;
}

/// Waits before another attempt, since somebody else was quicker.
pub async fn back_off(attempt: u32) {
    let longest = Duration::from_millis(20 << attempt.min(5));
    tokio::time::sleep(longest.mul_f64(fastrand::f64())).await;
}
